"""A model as files: a SavedModel that needs none of our code, or ONNX."""
