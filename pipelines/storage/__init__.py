"""Where bytes are: files on any of Beam's filesystems, members of zip files, cells of Parquet files."""
