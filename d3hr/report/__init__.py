"""What people look at: one static page with pictures, plots and tables."""
