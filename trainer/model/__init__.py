"""The network that says captions: decoder, attention, dropout, scaling of features, pretrained embeddings."""
