"""Convolution for NumPy: a matrix product for each row of the outputs.

The rows of the images that it reads lie in a ring, each laid out along the other axes of the
kernel. Row r of the images keeps slot r modulo the length of the kernel, so that most rows are
there already when the next product reads them. The weights turn instead, to where the first of
those rows lies. Rows that a dilated kernel never reads together pass the ring in turn.
"""

from math import prod

import numpy as np

from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.memory import empty
from minigrad.ops.conv import check_conv
from minigrad.ops.window import window

LEAST = 1 << 14  # values in the ring from which products take longer than calling them
PER_WEIGHT = 4  # values to be laid out for each of the turned weights


def _forward(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    check_conv(x, w, b, groups)
    windows = window(x.shape, w.shape[2:], stride, padding, dilation)
    padded = windows.pad(np, x)
    turned, ring = _turned(w, groups), Ring(windows, x.shape, groups, x.dtype)
    shape = groups, w.shape[0] // groups, windows.outputs[0], ring.matrix.shape[2]
    y = empty(shape, x.dtype)
    for i, turn, new, _ in ring.steps():
        ring.fill(new, padded)
        np.matmul(turned[turn], ring.matrix, out=y[:, :, i])
    if b is not None:
        y += b.reshape(*shape[:2], 1, 1)
    y = np.moveaxis(y.reshape(w.shape[0], *windows.outputs, x.shape[0]), -1, 0)
    return y, (padded, x.shape, w, b is not None, groups, windows)


def _backward(xp, y_bar, cache):
    padded, shape, w, has_bias, groups, windows = cache
    places = prod(windows.outputs[1:]) * shape[0]
    g = np.moveaxis(y_bar, 0, -1)
    g = g.reshape(groups, w.shape[0] // groups, windows.outputs[0], places)

    def x_bar():
        turned, ring = _turned(w, groups), Ring(windows, shape, groups, g.dtype)
        total = empty((shape[1], *windows.padded_sizes, shape[0]), g.dtype)
        columns = empty(ring.matrix.shape, g.dtype)
        total[...] = ring.matrix[...] = 0
        for i, turn, _, done in ring.steps():
            ring.matrix += np.matmul(turned[turn].swapaxes(1, 2), g[:, :, i], out=columns)
            ring.drain(done, total)
        return windows.crop(np, total)

    def w_bar():
        ring = Ring(windows, shape, groups, padded.dtype)
        a, c, reach, *others = w.shape
        turned = np.zeros((reach, *g.shape[:2], ring.matrix.shape[1]), g.dtype)
        for i, turn, new, _ in ring.steps():
            ring.fill(new, padded)
            turned[turn] += np.matmul(g[:, :, i], ring.matrix.swapaxes(1, 2))
        total = np.zeros((a, reach, c, *others), g.dtype)
        for turn, bars in enumerate(turned.reshape(reach, *total.shape)):
            total[:, : reach - turn] += bars[:, turn:]
            total[:, reach - turn :] += bars[:, :turn]
        return np.ascontiguousarray(total.swapaxes(1, 2))

    return (x_bar, w_bar, lambda: g.sum(axis=(2, 3)).reshape(-1)) if has_bias else (x_bar, w_bar)


class Ring:
    """As many rows of (padded) images as the kernel has; ``matrix`` is (groups, taps, places)."""

    def __init__(self, windows, shape, groups, dtype):
        self.reach, self.gap = windows.kernel[0], windows.dilation[0]
        self.stride, self.outputs = windows.stride[0], windows.outputs[0]
        self.channels = groups, shape[1] // groups
        other, n = windows.inner, shape[0]
        values = self.reach, self.channels[1], other.count
        array = empty((groups, *values, *other.outputs, n), dtype)
        self.matrix = array.reshape(groups, prod(values), prod(other.outputs) * n)
        self.slots = [[array[:, i, :, tap] for tap in range(values[2])] for i in range(self.reach)]
        self.cuts = [(slice(None), *cut) for _, cut in other.cuts()]

    def slot_of(self, row):
        return row // self.gap % self.reach

    def steps(self):
        """For each row of the outputs: which, the slot of its first row, and rows of the images.

        Those that are new, and those that are read no more.
        """
        step, span = self.stride * self.gap, self.reach * self.gap
        for start in range(self.gap):
            end, outputs = start, range(start, self.outputs, self.gap)
            for i in outputs:
                first, before = i * self.stride, end
                end = first + span
                after = end if i == outputs[-1] else first + step
                new, done = range(before, end, self.gap), range(first, after, self.gap)
                yield i, self.slot_of(first), new, done

    def parts(self, row, line):
        """Pairs of views, of the slot of a row and of ``line``, the row itself."""
        line = line.reshape(*self.channels, *line.shape[1:])
        slot = self.slots[self.slot_of(row)]
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
    """The weights as matrices, (groups, A / groups, taps), for a first row in each of the slots."""
    shape, reach = (groups, w.shape[0] // groups, prod(w.shape[1:])), w.shape[2]
    twice = np.concatenate([w, w], axis=2).swapaxes(1, 2)
    return [twice[:, i : i + reach].reshape(shape) for i in range(reach, 0, -1)]


def _accepts(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Rows of outputs that share rows of images, and whose products outweigh turned weights."""
    fits = 3 <= w.ndim == x.ndim and same_floats(x, w, b)
    if not fits or x.size * prod(w.shape[2:]) < LEAST:
        return False  # what is wrong, the portable version explains
    windows = window(x.shape, w.shape[2:], stride, padding, dilation)
    reach, step = windows.kernel[0], windows.stride[0]
    shares = reach > step and 1 in (step, windows.dilation[0])
    values = x.shape[1] * windows.count * prod(windows.outputs[1:]) * x.shape[0]
    outweighs = values * windows.outputs[0] >= PER_WEIGHT * reach * w.size
    return shares and values >= LEAST and outweighs


conv = Pair(_forward, _backward, _accepts)
