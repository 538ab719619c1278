"""Benchmarks: ratios against peers, measured by turns in one run. ``python -m tests.bench``.

Every contestant (minigrad with and without numba, and each peer) lives in a process of its own, so
that no one's threads, allocator or garbage disturb another's clock. ``measure`` lets them run by
turns; ``test_harness`` proves that they compute the same thing.
"""
