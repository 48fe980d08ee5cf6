"""Trains a caption decoder on a feature directory and exports it. Imports neither apache_beam nor pipelines."""
