"""Benchmarks: ratios against peers that take turns in one run. ``python -m tests.bench``.

Every contestant (minigrad with and without numba, and each peer) has a process of its own, so that
its threads, allocator and garbage do not disturb the times of the others. ``measure`` lets them
take turns; ``test_harness`` proves that they compute the same numbers.
"""
