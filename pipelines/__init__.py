"""The two Beam pipelines: captioned images to TFRecord shards, and images to a table of captions."""
