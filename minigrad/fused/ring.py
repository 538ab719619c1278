"""Convolution for NumPy: a matrix product for each row of the outputs.

The product for one output row needs the columns (as in ``im2col``) of as many image rows as the
kernel has. They are kept in a ring of that many slots. Image row r always has the same slot, r
modulo the number of slots, so most rows are there already when the next output row needs them. The
rows in the ring are thus rotated against those of the kernel; instead of moving them, the product
takes weights that are rotated alike.

Rows lie along the first axis of the images; the columns of a row cover the other axes. With a
dilation of d, one product reads every d-th image row. The d interleaved sets of rows then pass
through the ring one after another, row r in slot r // d modulo the number of slots.
"""

from math import prod

import numpy as np

from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.memory import empty
from minigrad.ops.conv import check_conv
from minigrad.ops.window import batch_last, batch_to_front, window

MIN_VALUES = 1 << 14  # in the ring; with fewer, a product takes less time than its call
MIN_PER_WEIGHT = 4  # values of columns per rotated weight; with fewer, the rotations do not pay


def _forward(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    check_conv(x, w, b, groups)
    windows = window(x.shape, w.shape[2:], stride, padding, dilation)
    padded = windows.pad(np, x)
    rotations, ring = _rotations(w, groups), Ring(windows, x.shape, groups, x.dtype)
    shape = groups, w.shape[0] // groups, windows.outputs[0], ring.matrix.shape[2]
    y = empty(shape, x.dtype)
    for i, slot, new, _ in ring.steps():
        ring.fill(new, padded)
        np.matmul(rotations[slot], ring.matrix, out=y[:, :, i])
    if b is not None:
        y += b.reshape(*shape[:2], 1, 1)
    y = batch_to_front(y.reshape(w.shape[0], *windows.outputs, x.shape[0]))
    return y, (padded, x.shape, w, b is not None, groups, windows)


def _backward(xp, y_bar, cache):
    padded, shape, w, has_bias, groups, windows = cache
    places = prod(windows.outputs[1:]) * shape[0]
    g = batch_last(np, y_bar)
    g = g.reshape(groups, w.shape[0] // groups, windows.outputs[0], places)

    def x_bar():
        rotations, ring = _rotations(w, groups), Ring(windows, shape, groups, g.dtype)
        total = empty((shape[1], *windows.padded_sizes, shape[0]), g.dtype)
        columns = empty(ring.matrix.shape, g.dtype)
        total[...] = ring.matrix[...] = 0
        for i, slot, _, done in ring.steps():
            ring.matrix += np.matmul(rotations[slot].swapaxes(1, 2), g[:, :, i], out=columns)
            ring.drain(done, total)
        return windows.crop(total)

    def w_bar():
        ring = Ring(windows, shape, groups, padded.dtype)
        a, c, length, *others = w.shape
        rotated = np.zeros((length, *g.shape[:2], ring.matrix.shape[1]), g.dtype)
        for i, slot, new, _ in ring.steps():
            ring.fill(new, padded)
            rotated[slot] += np.matmul(g[:, :, i], ring.matrix.swapaxes(1, 2))
        total = np.zeros((a, length, c, *others), g.dtype)
        for slot, bars in enumerate(rotated.reshape(length, *total.shape)):  # rotate them back
            total[:, : length - slot] += bars[:, slot:]
            total[:, length - slot :] += bars[:, :slot]
        return np.ascontiguousarray(total.swapaxes(1, 2))

    return (x_bar, w_bar, lambda: g.sum(axis=(2, 3)).reshape(-1)) if has_bias else (x_bar, w_bar)


class Ring:
    """The columns of as many (padded) image rows as the kernel has.

    ``matrix`` is (groups, taps, places); its taps are slots x channels of a group x other taps.
    """

    def __init__(self, windows, shape, groups, dtype):
        self.length, self.dilation = windows.kernel[0], windows.dilation[0]
        self.stride, self.outputs = windows.stride[0], windows.outputs[0]
        self.channels = groups, shape[1] // groups
        other, n = windows.inner, shape[0]
        values = self.length, self.channels[1], other.count
        array = empty((groups, *values, *other.outputs, n), dtype)
        self.matrix = array.reshape(groups, prod(values), prod(other.outputs) * n)
        self.slots = [[array[:, i, :, tap] for tap in range(values[2])] for i in range(self.length)]
        self.cuts = [(slice(None), *cut) for _, cut in other.cuts()]

    def slot_of(self, row):
        return row // self.dilation % self.length

    def steps(self):
        """For each output row: its index, the slot of the first image row it reads, two ranges.

        The first has the image rows that must be added to the ring, the second those that no later
        output row reads.
        """
        step, span = self.stride * self.dilation, self.length * self.dilation
        for start in range(self.dilation):
            end, outputs = start, range(start, self.outputs, self.dilation)
            for i in outputs:
                first, before = i * self.stride, end
                end = first + span
                after = end if i == outputs[-1] else first + step
                new, done = range(before, end, self.dilation), range(first, after, self.dilation)
                yield i, self.slot_of(first), new, done

    def parts(self, row, line):
        """For each tap of the other axes: its part of the row's slot, and the part of ``line``,
        the image row, that it reads."""
        line = line.reshape(*self.channels, *line.shape[1:])
        slot = self.slots[self.slot_of(row)]
        return [(part, line[cut]) for part, cut in zip(slot, self.cuts, strict=True)]

    def fill(self, rows, images):
        """Copy image rows into their slots."""
        for row in rows:
            line = images[:, row]
            if line.strides[-1] != line.itemsize:  # one copy, instead of strided reads by each tap
                line = np.ascontiguousarray(line)
            for part, of_line in self.parts(row, line):
                part[...] = of_line

    def drain(self, rows, images):
        """Add the slots of image rows to the images, and clear them."""
        for row in rows:
            for part, of_line in self.parts(row, images[:, row]):
                of_line += part
                part[...] = 0


def _rotations(w, groups):
    """The weights as matrices (groups, A / groups, taps), rotated so that their first row meets
    slot 0, 1, ..."""
    shape, length = (groups, w.shape[0] // groups, prod(w.shape[1:])), w.shape[2]
    twice = np.concatenate([w, w], axis=2).swapaxes(1, 2)
    return [twice[:, i : i + length].reshape(shape) for i in range(length, 0, -1)]


def _accepts(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Whether output rows share image rows, and the products outweigh the rotated weights."""
    fits = 3 <= w.ndim == x.ndim and same_floats(x, w, b)
    if not fits or x.size * prod(w.shape[2:]) < MIN_VALUES:
        return False  # the portable version reports operands that do not fit
    windows = window(x.shape, w.shape[2:], stride, padding, dilation)
    length, step = windows.kernel[0], windows.stride[0]
    shares = length > step and 1 in (step, windows.dilation[0])
    values = x.shape[1] * windows.count * prod(windows.outputs[1:]) * x.shape[0]
    outweighs = values * windows.outputs[0] >= MIN_PER_WEIGHT * length * w.size
    return shares and values >= MIN_VALUES and outweighs


conv = Pair(_forward, _backward, _accepts)
