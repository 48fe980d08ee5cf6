"""Where bytes are: files of this machine, objects in buckets, and copies of these."""
