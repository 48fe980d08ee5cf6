"""Where bytes are: files of this machine, objects in buckets, copies of these; on fsspec, for both packages."""
