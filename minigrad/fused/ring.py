"""Convolution for NumPy: a matrix product for each row of the outputs.

The rows of the images that it reads lie in a ring, each laid out along the other axes of the
kernel. Most of them are there already when the next product reads them: the weights turn instead.
"""

from dataclasses import replace
from math import prod

import numpy as np

from minigrad.fused.declare import Pair
from minigrad.fused.memory import empty
from minigrad.ops.conv import check_conv
from minigrad.ops.window import window

PLACES, PRODUCTS = 512, 1 << 17  # of a row of outputs, from which it is worth a call of its own


def _forward(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    check_conv(x, w, b, groups)
    windows = window(x.shape, w.shape[2:], stride, padding, dilation)
    kept = windows.pad(np, x), x.shape, w, b is not None, groups, windows
    turned, ring = _turned(w, groups), Ring(kept, kept[0].dtype)
    shape = groups, w.shape[0] // groups, windows.outputs[0], ring.matrix.shape[2]
    y = empty(shape, np.result_type(*((x, w) if b is None else (x, w, b))))
    for i, turn, new, _ in _steps(windows):
        ring.fill(new, kept[0])
        np.matmul(turned[turn], ring.matrix, out=y[:, :, i])
    if b is not None:
        y += b.reshape(*shape[:2], 1, 1)
    return np.moveaxis(y.reshape(w.shape[0], *windows.outputs, x.shape[0]), -1, 0), kept


def _backward(xp, y_bar, cache):
    padded, shape, w, has_bias, groups, windows = cache
    places = prod(windows.outputs[1:]) * shape[0]
    g = np.moveaxis(y_bar, 0, -1)
    g = g.reshape(groups, w.shape[0] // groups, windows.outputs[0], places)

    def x_bar():
        turned, ring = _turned(w, groups), Ring(cache, g.dtype)
        total = empty((shape[1], *windows.padded_sizes, shape[0]), g.dtype)
        columns = empty(ring.matrix.shape, g.dtype)
        total[...] = ring.matrix[...] = 0
        for i, turn, _, done in _steps(windows):
            ring.matrix += np.matmul(turned[turn].swapaxes(1, 2), g[:, :, i], out=columns)
            ring.drain(done, total)
        return windows.crop(np, total)

    def w_bar():
        ring = Ring(cache, padded.dtype)
        a, c, reach, *others = w.shape
        turned = np.zeros((reach, *g.shape[:2], ring.matrix.shape[1]), g.dtype)
        for i, turn, new, _ in _steps(windows):
            ring.fill(new, padded)
            turned[turn] += np.matmul(g[:, :, i], ring.matrix.swapaxes(1, 2))
        total = np.zeros((a, reach, c, *others), g.dtype)
        for turn, bars in enumerate(turned.reshape(reach, *total.shape)):
            total[:, : reach - turn] += bars[:, turn:]
            total[:, reach - turn :] += bars[:, :turn]
        return np.ascontiguousarray(total.swapaxes(1, 2))

    return (x_bar, w_bar, lambda: g.sum(axis=(2, 3)).reshape(-1)) if has_bias else (x_bar, w_bar)


class Ring:
    """Rows of (padded) images, each laid out along the other axes of the kernel in its slot."""

    def __init__(self, kept, dtype):
        _, (n, *_), w, _, groups, windows = kept
        fields = "sizes", "kernel", "stride", "padding", "dilation", "outputs"
        other = replace(windows, **{name: getattr(windows, name)[1:] for name in fields})
        reach, values = windows.kernel[0], (groups, w.shape[1])
        array = empty((groups, reach, w.shape[1], other.count, *other.outputs, n), dtype)
        self.matrix = array.reshape(groups, prod(w.shape[1:]), prod(other.outputs) * n)
        self.values = values  # the channels, as the first two axes of a row
        self.slots = [[array[:, i, :, tap] for tap in range(other.count)] for i in range(reach)]
        self.cuts = [(slice(None), *cut) for _, cut in other.cuts()]

    def parts(self, row, line):
        """Pairs of views, of the slot of a row and of the row, (C, \\*sizes, N)."""
        line = line.reshape(*self.values, *line.shape[1:])
        slot = self.slots[row % len(self.slots)]
        return [(part, line[cut]) for part, cut in zip(slot, self.cuts, strict=True)]

    def fill(self, rows, images):
        for row in rows:
            line = images[:, row]
            if line.strides[-1] != line.itemsize:  # else each tap would gather it anew
                line = np.ascontiguousarray(line)
            for part, of_line in self.parts(row, line):
                part[...] = of_line

    def drain(self, rows, images):
        for row in rows:
            for part, of_line in self.parts(row, images[:, row]):
                of_line += part
                part[...] = 0


def _turned(w, groups):
    """The weights as matrices, (groups, A / groups, taps), for each turn of the ring."""
    shape, reach = (groups, w.shape[0] // groups, prod(w.shape[1:])), w.shape[2]
    twice = np.concatenate([w, w], axis=2).swapaxes(1, 2)
    return [twice[:, i : i + reach].reshape(shape) for i in range(reach, 0, -1)]


def _steps(windows):
    """For each row of the outputs: which, the turn of the ring, and rows of the images.

    Those that no row before reads, and those that no row after reads.
    """
    reach, stride, outer = windows.kernel[0], windows.stride[0], windows.outputs[0]
    end = 0
    for i in range(outer):
        first, before, end = i * stride, end, i * stride + reach
        last = end if i == outer - 1 else min(first + stride, end)
        yield i, first % reach, range(max(first, before), end), range(first, last)


def _accepts(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Rows that share what they read, and whose products take longer than calling them."""
    check_conv(x, w, b, groups)
    windows = window(x.shape, w.shape[2:], stride, padding, dilation)
    places = prod(windows.outputs[1:]) * x.shape[0]
    shares = windows.kernel[0] > windows.stride[0] and windows.dilation[0] == 1
    return shares and places >= PLACES and w.size * places >= PRODUCTS


conv = Pair(_forward, _backward, _accepts)
