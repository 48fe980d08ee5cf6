"""Published data sets, brought to this disk."""
