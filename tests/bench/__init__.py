"""Benchmarks: ratios against a peer in the same interleaved run. ``python -m tests.bench``."""
