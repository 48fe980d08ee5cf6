"""Where images are inside other files: members of zip files, cells of Parquet files."""
