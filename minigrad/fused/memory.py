"""An arena for large results of kernels: mapping fresh pages takes longer than filling them.

The arena is one range of addresses, whose pages take memory once they are written. Each array gets
the first gap that is large enough (first fit), which keeps the used part dense. Its block is free
again when the array and all views of it are gone.
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

ARENA_SIZE = 1 << 29  # bytes of address space
MIN_BLOCK = 1 << 20  # bytes; smaller arrays are left to malloc: they would fragment the arena
PAGE = 4096  # bytes; a block takes whole pages, and some more, so that starts of arrays differ:
SHIFT = 1088  # arrays that start at the same offset in a page compete for the same cache lines

# glibc's malloc maps fresh pages for an array that is larger than every mapped one freed so far, as
# most temporaries of a new process are. Freeing this array, which is never written, raises that
# threshold to nearly 32 MiB, its maximum.
np.empty((1 << 25) - (1 << 16), np.uint8)

_lock = threading.Lock()
_ends: dict[int, int] = {}  # start of each block in use -> its end, as offsets into the arena
_owners: dict[int, weakref.ref] = {}  # start of each block -> its array, the base of all views
_dead: deque[int] = deque()  # starts of blocks to free: an array may die while the lock is held


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that held it during the fork does not exist in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@cache
def _arena() -> mmap.mmap | None:
    """The arena, mapped at first use; private, so that a fork shares nothing that is written."""
    try:
        return mmap.mmap(-1, ARENA_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (AttributeError, OSError):  # Windows has no such flags
        return None


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """``numpy.empty`` in C order; a large array lies in the arena if that has room."""
    dtype = np.dtype(dtype)
    size = -(-prod(shape) * dtype.itemsize // PAGE) * PAGE + SHIFT
    arena = _arena() if size >= MIN_BLOCK and not dtype.hasobject else None
    if arena is None:
        return np.empty(shape, dtype)
    with _lock:
        if _dead:
            _free_dead()
        gap = 0  # where the gap before the next block starts
        for start in sorted(_ends):
            if start - gap >= size:
                break
            gap = _ends[start]
        if gap + size > ARENA_SIZE:
            return np.empty(shape, dtype)
        array = np.ndarray(shape, dtype, arena, gap)
        _ends[gap] = gap + size
        _owners[gap] = weakref.ref(array, lambda _: _dead.append(gap))
    return array


def _free_dead() -> None:
    """Free the blocks of dead arrays; the caller holds the lock."""
    while _dead:
        start = _dead.popleft()
        del _ends[start], _owners[start]


def release_memory() -> None:
    """Return memory that fused ops keep for later results, up to 512 MiB, to the system.

    Large results on the CPU share one range of memory; all of it behind the last array in use is
    returned. The next step maps it again.
    """
    with _lock:
        _free_dead()
        top = -(-max(_ends.values(), default=0) // mmap.PAGESIZE) * mmap.PAGESIZE
        arena = _arena() if _arena.cache_info().currsize else None
        if arena is not None and top < ARENA_SIZE and hasattr(mmap, "MADV_DONTNEED"):
            arena.madvise(mmap.MADV_DONTNEED, top, ARENA_SIZE - top)


def empty_like(x: np.ndarray) -> np.ndarray:
    """``empty`` of the shape and dtype of ``x``."""
    return empty(x.shape, x.dtype)
