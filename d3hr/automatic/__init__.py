"""The best set that a number of minutes can find, chosen on held-out training images."""
