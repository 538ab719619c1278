"""How kernels are compiled: on first use, for the dtype of the call, cached on disk."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.np.ufunc.parallel import get_thread_count

# sums may be reordered (they vectorize) and a * b + c fused; nan, inf and division stay exact
_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}
SHARE = 65536
_ONE = threading.Lock()  # not every threading layer of numba may be entered by two threads at once
CHUNK = 4096  # elements that are summed in the array's own precision before float64 takes over


def inner(function: Callable) -> Any:
    """A loop over contiguous rows, called by kernels alone; it is cached as a part of them."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OPTIONS}
    return numba.njit(function, **options)


def kernel(function: Callable) -> Callable:
    """A loop over independent tasks, shared among as many threads as there is work for.

    Threads wait for each other actively. On a busy machine that costs a small call a hundred times
    what it computes, so each thread gets at least ``SHARE`` elements of the largest array.
    """
    options = {"parallel": True, "nogil": True, "no_cfunc_wrapper": True, **_OPTIONS}
    try:
        compiled = numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder that can be written
        compiled = numba.njit(function, **options)
    all_threads = get_thread_count()

    @functools.wraps(function)
    def run(*args: Any) -> None:
        threads = 1 + max([arg.size for arg in args if arg.__class__ is np.ndarray]) // SHARE
        with _ONE:
            if threads >= all_threads or threads >= (most := numba.get_num_threads()):
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
    flags = array.flags
    if flags.c_contiguous and not flags.writeable:
        return array
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
