"""Training jobs on Vertex AI: what one is, and the service that runs it."""
