"""From features to the rows of the caption table: the search, the exported model, the formats."""
