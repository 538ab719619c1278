"""Results of kernels in memory that is used again and again: mapping fresh pages takes longer than
filling them.

One arena, of which only what was ever written takes memory. A block is free again when the last
array in it is gone. The first gap that is large enough is taken, so that the arena stays dense.
"""

import mmap
import os
import threading
import weakref
from collections import deque
from functools import cache
from math import prod
from typing import Any

import numpy as np

SIZE = 1 << 29  # bytes of address space
LEAST = 1 << 20  # bytes; the allocator of C keeps smaller ones, lest they split the gaps
PAGE = 4096  # bytes; each block takes whole pages, and a shift more:
SHIFT = 1088  # arrays that start at the same place of a page compete for the same lines of a cache

# The allocator of C (glibc) maps an array anew if it is larger than all that were freed so far, as
# temporaries are in a fresh process, up to 32 MiB; nobody writes to this one.
np.empty((1 << 25) - (1 << 16), np.uint8)

_lock = threading.Lock()
_ends: dict[int, int] = {}  # first byte of each block in use -> first byte after it
_watched: dict[int, weakref.ref] = {}  # first byte -> the array that all others in it are views of
_dead: deque[int] = deque()  # blocks to be freed: an array may die anywhere, even while we count


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()  # the one who held it is not in this process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@cache
def _arena() -> mmap.mmap | None:
    """The address space; private to a process, so that a fork shares nothing that is written."""
    try:
        return mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (AttributeError, OSError):  # Windows has no such flags
        return None


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """``numpy.empty``, in C order; large arrays lie in the arena while there is room."""
    dtype = np.dtype(dtype)
    size = -(-prod(shape) * dtype.itemsize // PAGE) * PAGE + SHIFT
    arena = _arena() if size >= LEAST and not dtype.hasobject else None
    if arena is None:
        return np.empty(shape, dtype)
    with _lock:
        if _dead:
            _bury()
        first = 0
        for start in sorted(_ends):
            if start - first >= size:
                break
            first = _ends[start]
        if first + size > SIZE:
            return np.empty(shape, dtype)
        array = np.ndarray(shape, dtype, arena, first)
        _ends[first] = first + size
        _watched[first] = weakref.ref(array, lambda _: _dead.append(first))
    return array


def _bury() -> None:
    while _dead:
        start = _dead.popleft()
        del _ends[start], _watched[start]


def release_memory() -> None:
    """Give the memory behind the last array in use back to the system; the next step maps it anew.

    What large results of fused ops on the CPU took, up to 512 MiB, is kept for the next ones.
    """
    with _lock:
        _bury()
        top = -(-max(_ends.values(), default=0) // mmap.PAGESIZE) * mmap.PAGESIZE
        arena = _arena() if _arena.cache_info().currsize else None
        if arena is not None and top < SIZE and hasattr(mmap, "MADV_DONTNEED"):
            arena.madvise(mmap.MADV_DONTNEED, top, SIZE - top)


def empty_like(x: np.ndarray) -> np.ndarray:
    """``empty`` of the shape and dtype of ``x``."""
    return empty(x.shape, x.dtype)
