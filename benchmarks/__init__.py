"""Measurements; each module writes benchmarks/results/<name>.json with the machine's name."""
