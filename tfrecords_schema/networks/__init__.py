"""The image networks that features come from: a registry of them, and how one is built."""
