"""What is wrong with a distilled set, if anything, and how one can tell."""
