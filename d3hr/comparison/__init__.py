"""Sets side by side: the same students, protocols and test images for every row, each training done once."""
