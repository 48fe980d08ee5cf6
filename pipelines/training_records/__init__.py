"""From captioned images to TFRecords: the vocabulary, and one shard of records."""
