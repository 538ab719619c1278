"""How kernels are compiled: on first use, for the dtype of the call, cached on disk."""

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# sums may be reordered (they vectorize) and a * b + c fused; nan, inf and division stay exact
_FAST = {"reassoc", "contract", "nsz"}
SHARE = 65536
CHUNK = 4096  # elements that are summed in the array's own precision before float64 takes over


def _compile(function: Callable, **options: Any) -> Any:
    options = {"fastmath": _FAST, "error_model": "numpy", **options}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder that can be written
        return numba.njit(function, **options)


def inner(function: Callable) -> Any:
    """A loop over contiguous rows, called by kernels."""
    return _compile(function)


def kernel(function: Callable) -> Callable:
    """A loop over independent tasks, shared among as many threads as there is work for.

    Threads wait for each other actively. On a busy machine that costs a small call a hundred times
    what it computes, so each thread gets at least ``SHARE`` elements of the largest array.
    """
    compiled = _compile(function, parallel=True, nogil=True)

    @functools.wraps(function)
    def run(*args: Any) -> None:
        most = numba.get_num_threads()
        work = max([arg.size for arg in args if arg.__class__ is np.ndarray])
        threads = min(most, 1 + work // SHARE)
        if threads == most:
            compiled(*args)
            return
        numba.set_num_threads(threads)
        try:
            compiled(*args)
        finally:
            numba.set_num_threads(most)

    return run


def read(array: Any) -> Any:
    """A read-only view in C order, or a copy: one compiled version serves all arrays of a dtype."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
