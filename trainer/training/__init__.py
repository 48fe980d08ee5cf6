"""A run: objectives, updates, epochs, validation, checkpoints, and what is left for people to look at."""
