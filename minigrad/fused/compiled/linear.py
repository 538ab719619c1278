"""The linear layer: a task is a panel of some outputs, and some rows; see ``tiles``."""

import numpy as np
from numba import prange

from minigrad.fused.compiled.jit import kernel, read
from minigrad.fused.compiled.products import add
from minigrad.fused.compiled.tiles import HEIGHT, fill_tile, width_of
from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.memory import empty
from minigrad.ops.linalg import check_linear

ROWS = 128  # that a task multiplies with its panel


@kernel
def product(a, b, start, out):
    """``out = start + a @ b``; a: (M, K), b: (K, N), start: (N,)."""
    width, count = width_of(out), b.shape[0]
    panels, blocks = -(-out.shape[1] // width), -(-out.shape[0] // ROWS)
    starts = np.arange(a.shape[0]) * count
    for task in prange(panels * blocks):
        first, left = task // panels * ROWS, task % panels * width
        last, right = min(first + ROWS, out.shape[0]), min(left + width, out.shape[1])
        panel, tile = np.zeros((count, width), b.dtype), np.empty((HEIGHT, width), b.dtype)
        for k in range(count):
            panel[k, : right - left] = b[k, left:right]
        for i in range(first, last, HEIGHT):
            for r in range(fill_tile(a, 0, starts, i, last, count, panel, tile)):
                row = out[i + r, left:right]
                row[:] = start[left:right]
                add(tile[r], row)


def _product(a, b, start=None):
    """``start + a @ b``."""
    start = np.zeros(b.shape[1], b.dtype) if start is None else start
    out = empty((a.shape[0], b.shape[1]), b.dtype)
    product(read(a), read(b), read(start), out)
    return out


def _linear(xp, x, w, b=None):
    check_linear(x, w, b)
    y = _product(x.reshape(-1, w.shape[1]), w.T, b)
    return y.reshape(*x.shape[:-1], w.shape[0]), (x, w, b is not None)


def _linear_backward(xp, y_bar, cache):
    x, w, has_bias = cache
    g, rows = y_bar.reshape(-1, w.shape[0]), x.reshape(-1, w.shape[1])
    bars = (
        lambda: _product(g, w).reshape(x.shape),
        lambda: _product(g.T, rows),
        lambda: g.sum(axis=0),
    )
    return bars if has_bias else bars[:2]


def _accepts(x, w, b=None):
    is_usual = x.ndim > 0 and w.ndim == 2 and same_floats(x, w, b)
    return is_usual and x.size * w.shape[0] > 0


linear = Pair(_linear, _linear_backward, _accepts)
