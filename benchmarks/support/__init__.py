"""What several benchmarks have in common: making their data, and watching processes."""
