"""The method: inversion, matching, grouping, and the pipeline that joins them."""
