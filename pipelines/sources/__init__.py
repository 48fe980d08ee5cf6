"""Which images there are: captions files, directories, zip files and tables, as Items."""
