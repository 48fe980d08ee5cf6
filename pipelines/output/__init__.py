"""The output directory: shards made whole, resumed, counted, reported; and what was rejected."""
