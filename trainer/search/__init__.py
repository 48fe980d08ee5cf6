"""From a model's step to whole captions: beam search, sampling, and which words may come next."""
