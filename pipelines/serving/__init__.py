"""The captioning service: HTTP in, captions out; it keeps no state and writes nothing to disk."""
