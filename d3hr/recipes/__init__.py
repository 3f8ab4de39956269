"""A setting of the paper as one file: fit, distil, evaluate."""
