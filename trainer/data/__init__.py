"""Feature directories, opened and checked, as batches of captions."""
