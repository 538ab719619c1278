"""How kernels are compiled: on first use, for the dtype of the call, cached on disk."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.np.ufunc.parallel import get_thread_count

from minigrad.threads import spin_limited

# a * b + c may be fused; nan, inf and division keep their IEEE meaning
_OPTIONS: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
_CALLED: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OPTIONS}
_SUMS: dict[str, Any] = {**_CALLED, "fastmath": {"reassoc", "contract", "nsz"}}
PER_THREAD = 65536  # elements of the largest array for each thread beyond the first
_LOCK = threading.Lock()  # some threading layers of numba must not be entered by two threads
CHUNK = 4096  # elements summed in the array's own precision; such partial sums are added in float64

# 20,000 rounds take about 1 ms, longer than Python needs between two kernels
with spin_limited("GOMP_SPINCOUNT", "20000", "OMP_WAIT_POLICY"):
    numba.get_num_threads()  # loads GNU's OpenMP


def inner(function: Callable) -> Any:
    """Compile a function that only kernels call; it is cached as a part of them."""
    return numba.njit(function, **_CALLED)


def summing(function: Callable) -> Any:
    """``inner`` for sums, which may be reordered: only so do their loops vectorize.

    All else keeps its order. LLVM reorders a formula in one way when it compiles a kernel and in
    another for the cache, so that the first process would round differently from all later ones.
    """
    return numba.njit(function, **_SUMS)


def kernel(function: Callable) -> Callable:
    """Compile a loop over independent tasks (``prange``), run by as many threads as it keeps busy.

    Threads spin while they wait for each other. On a busy machine a small call would wait a hundred
    times as long as it computes, so there is one thread, and one more for each ``PER_THREAD``
    elements of the largest array.
    """
    options = {"parallel": True, "nogil": True, "no_cfunc_wrapper": True, **_OPTIONS}
    try:
        compiled = numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder for the cache can be written
        compiled = numba.njit(function, **options)
    all_threads = get_thread_count()

    @functools.wraps(function)
    def run(*args: Any) -> None:
        threads = 1 + max([arg.size for arg in args if arg.__class__ is np.ndarray]) // PER_THREAD
        with _LOCK:
            if threads >= all_threads or threads >= (configured := numba.get_num_threads()):
                compiled(*args)
                return
            numba.set_num_threads(threads)
            try:
                compiled(*args)
            finally:
                numba.set_num_threads(configured)

    return run


def read(array: Any) -> Any:
    """A read-only view of ``array``, or of a copy in C order: numba compiles a kernel once for all
    layouts and flags."""
    flags = array.flags
    if flags.c_contiguous and not flags.writeable:
        return array
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
