"""Where a pipeline runs: Beam's options and runners, GPUs."""
