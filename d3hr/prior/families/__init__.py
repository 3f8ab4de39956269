"""The families of priors: for each, how its network is loaded, called and saved, and what it is given of a class."""
