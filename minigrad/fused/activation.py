"""The logistic sigmoid in place, block by block."""

import numpy as np

from minigrad.fused.declare import Pair, fused, same_floats
from minigrad.fused.layout import axes_in_memory, flat, unflat
from minigrad.ops.exponential import sigmoid

BLOCK = 16384  # elements that stay in the first-level cache from one pass to the next


@fused(sigmoid, pullback=r"\bar x = \bar y\,\sigma(x)\,\sigma(-x)")
def fused_sigmoid(xp, x):
    """``ops.sigmoid`` without temporaries, accurate in both tails.

    >>> mg.fused.sigmoid(mg.tensor([0.0, -800.0]))
    tensor([0.5, 0. ])
    """
    small = xp.exp(-xp.abs(x))
    small = small / (1 + small)  # the smaller of sigma(x) and sigma(-x)
    return xp.where(x > 0, 1 - small, small), small


@fused_sigmoid.defbackward
def sigmoid_backward(xp, y_bar, small):
    return (y_bar * (small * (1 - small)),)


def _forward(xp, x):
    axes = axes_in_memory(x)
    row = flat(x, axes)
    y, small = np.empty_like(row), np.empty_like(row)
    for start in range(0, row.size, BLOCK):
        part = slice(start, start + BLOCK)
        z, s, out = row[part], small[part], y[part]
        np.abs(z, out=s)
        np.exp(np.negative(s, out=s), out=s)
        np.add(s, 1, out=out)
        s /= out
        # |[z > 0] - small| is small or 1 - small, several times as fast as a choice by mask
        np.subtract(z > 0, s, out=out, dtype=z.dtype)
        np.abs(out, out=out)
    return unflat(y, x.shape, axes), (small, axes)


def _backward(xp, y_bar, cache):
    small, axes = cache
    g, x_bar = flat(y_bar, axes), np.empty_like(small)
    for start in range(0, g.size, BLOCK):
        part = slice(start, start + BLOCK)
        out = np.subtract(1, small[part], out=x_bar[part])
        out *= small[part]
        out *= g[part]
    return (unflat(x_bar, y_bar.shape, axes),)


fused_sigmoid.pairs["numpy"] = Pair(_forward, _backward, lambda x: same_floats(x) and x.ndim > 0)
