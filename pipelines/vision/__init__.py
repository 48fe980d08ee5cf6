"""From an image's URI to its feature: reading, decoding, and the forward pass of a network."""
