"""Convolution of many channels as products of matrices, see ``tiles``.

The images have the batch as their last axis in memory, as in ``windows``, whose arguments these
kernels take. A panel is a part of an output row of all images: of the values that a tap of the
window reads there (``correlate``), or of the cotangents of the outputs (``spread``). For the
cotangent of the weights it is the transpose of the latter.
"""

import numpy as np
from numba import prange

from minigrad.fused.compiled.jit import kernel, read
from minigrad.fused.compiled.products import add, output_row
from minigrad.fused.compiled.tiles import HEIGHT, fill_tile, width_of
from minigrad.fused.memory import empty

RUN = 256  # positions whose products are summed in the precision of the array
TAPS = 32  # taps of a task of ``correlate_weights``
BLOCK = 16  # positions that ``fill_panels`` transposes at a time: a cache line of float32


@kernel
def correlate(x, w, bias, groups, rows, columns, step, runs, y):
    """As ``windows.correlate``; a task is an output row."""
    count, shift_x, shift_y, length = runs
    width, taps, outputs = width_of(y), w.shape[1], w.shape[0] // groups
    starts = np.arange(w.shape[0]) * taps
    for task in prange(groups * y.shape[1]):
        group, o = task // y.shape[1], task % y.shape[1]
        first = x.shape[0] // groups * group + o * step
        panel, tile = np.zeros((taps, width), y.dtype), np.empty((HEIGHT, width), y.dtype)
        for s in range(count):
            for start in range(0, length, width):
                n = min(width, length - start)
                x0, y0 = s * shift_x + start, s * shift_y + start
                for k in range(taps):
                    panel[k, :n] = x[rows[k] + first, columns[k] + x0 :][:n]
                end = (group + 1) * outputs
                for a in range(group * outputs, end, HEIGHT):
                    for r in range(fill_tile(w, 0, starts, a, end, taps, panel, tile)):
                        out = y[a + r, o, y0 : y0 + n]
                        out[:] = bias[a + r]
                        add(tile[r], out)


@kernel
def spread(y_bar, w, groups, height, dilation, step, columns, runs, x_bar):
    """As ``windows.spread``; a task is a row of all channels of a group."""
    count, shift_x, shift_y, length = runs
    channels, kernel_height, kernel_width, outputs = w.shape
    share, width = channels // groups, width_of(x_bar)
    starts = np.arange(channels) * (kernel_height * kernel_width * outputs)
    for task in prange(groups * height):
        group, i = task // height, task % height
        panel, tile = np.zeros((outputs, width), w.dtype), np.empty((HEIGHT, width), w.dtype)
        end = (group + 1) * share
        for c in range(group * share, end):
            x_bar[c * height + i] = 0
        for kh in range(kernel_height):
            o = output_row(i - kh * dilation, step, y_bar.shape[1])
            if o < 0:
                continue
            for s in range(count):
                for start in range(0, length, width):
                    n = min(width, length - start)
                    for a in range(outputs):
                        g = y_bar[group * outputs + a, o, s * shift_y + start :]
                        panel[a, :n] = g[:n]
                    for kw in range(kernel_width):
                        base = (kh * kernel_width + kw) * outputs
                        x0 = columns[kw] + s * shift_x + start
                        for c in range(group * share, end, HEIGHT):
                            filled = fill_tile(w, base, starts, c, end, outputs, panel, tile)
                            for r in range(filled):
                                add(tile[r], x_bar[(c + r) * height + i, x0 : x0 + n])


@kernel
def fill_panels(y_bar, panels):
    """``panels[group, p, o, q, j]`` is y_bar of output j of panel p, output row o, position q."""
    groups, parts, height, length, width = panels.shape
    outputs = y_bar.shape[0] // groups
    for task in prange(groups * parts * height):
        group, p, o = task // height // parts, task // height % parts, task % height
        out, first = panels[group, p, o], group * outputs + p * width
        n = min(width, outputs - p * width)
        out[:, n:] = 0
        for start in range(0, length, BLOCK):
            for j in range(n):
                row = y_bar[first + j, o]
                for q in range(start, min(start + BLOCK, length)):
                    out[q, j] = row[q]


def panels_of(y_bar, groups):
    """The cotangents of the outputs, transposed, as panels."""
    outputs, width = y_bar.shape[0] // groups, width_of.py_func(y_bar)
    panels = empty((groups, -(-outputs // width), *y_bar.shape[1:], width), y_bar.dtype)
    fill_panels(read(y_bar), panels)
    return read(panels)


@kernel
def correlate_weights(panels, x, rows, columns, step, runs, w_bar):
    """``w_bar[a, k]``, the sum of y_bar times what tap k reads; a task is a panel and TAPS taps."""
    count, shift_x, shift_y, length = runs
    groups, parts, height, _, width = panels.shape
    outputs, blocks = w_bar.shape[0] // groups, -(-rows.size // TAPS)
    starts = rows * x.shape[1] + columns
    for task in prange(groups * parts * blocks):
        group, p = task // blocks // parts, task // blocks % parts
        begin = task % blocks * TAPS
        end = min(begin + TAPS, rows.size)
        sums, tile = np.zeros((TAPS, width)), np.empty((HEIGHT, width), x.dtype)
        for o in range(height):
            first = (x.shape[0] // groups * group + o * step) * x.shape[1]
            for s in range(count):
                for start in range(0, length, RUN):
                    n, base = min(RUN, length - start), first + s * shift_x + start
                    panel = panels[group, p, o, s * shift_y + start :]
                    for k in range(begin, end, HEIGHT):
                        for r in range(fill_tile(x, base, starts, k, end, n, panel, tile)):
                            add(tile[r], sums[k - begin + r])
        for j in range(min(width, outputs - p * width)):
            a = group * outputs + p * width + j
            for k in range(begin, end):
                w_bar[a, k] = sums[k - begin, j]
