"""Models of im2txt, as TensorFlow 1 saved them: their tensors, their CNN and their decoder."""
