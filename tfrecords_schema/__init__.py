"""The contract between `pipelines` and `trainer`: file formats, vocabulary, names. Imports neither of them."""

__version__ = "0.1.0"
