"""Where encoded images come from: class folders, the built-in digits, tables of parquet files or of the Hugging Face Hub."""
