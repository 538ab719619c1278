"""Convolution by direct loops and max pooling, on images with the batch as the last axis in memory.

All images of one output row are then one long contiguous run, whatever the size of an image: loops
over it vectorize, and a shift by one place in the window is a shift by N elements. Where channels
are many, matrix products (``fused.windows``) are faster.
"""

from functools import cache
from math import prod

import numpy as np
from numba import prange

from minigrad.fused.compiled.jit import inner, kernel, read
from minigrad.fused.compiled.products import add_1, add_4, dot_1, dot_4, row_sum
from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.memory import empty
from minigrad.ops.conv import check_conv
from minigrad.ops.pool import check_max_pool
from minigrad.ops.window import Window, per_axis, window

RUN = 1024  # elements of an output row at a time: four input runs and two outputs fit in L1
MIN_RUN = 64  # elements of a run from which direct loops are used
TAPS = 4  # places of the window that one pass over a run adds up
FEW = 8192  # weights up to which direct loops are faster than matrix products (measured)


@kernel
def correlate(x, w, bias, rows, columns, step, runs, y):
    """``y[a, o] = bias[a] + sum_k w[a, k] x[rows[k] + o * step]``, shifted along the row by
    ``columns[k]``.

    ``runs``: how many contiguous runs make up an output row, how far each starts after the one
    before in x and in y, and their length.
    """
    count, shift_x, shift_y, length = runs
    for o in prange(y.shape[1]):
        spare = np.empty(RUN, y.dtype)
        for s in range(count):
            for start in range(0, length, RUN):
                n = min(RUN, length - start)
                x0, y0 = s * shift_x + start, s * shift_y + start
                for a in range(0, w.shape[0], 2):
                    b = min(a + 1, w.shape[0] - 1)  # an odd last output is computed twice
                    out = y[a, o, y0 : y0 + n]
                    other = y[b, o, y0 : y0 + n] if b > a else spare[:n]
                    out[:] = bias[a]
                    other[:] = bias[b]
                    whole = w.shape[1] // TAPS * TAPS
                    for k in range(0, whole, TAPS):
                        r0 = x[rows[k] + o * step, columns[k] + x0 :][:n]
                        r1 = x[rows[k + 1] + o * step, columns[k + 1] + x0 :][:n]
                        r2 = x[rows[k + 2] + o * step, columns[k + 2] + x0 :][:n]
                        r3 = x[rows[k + 3] + o * step, columns[k + 3] + x0 :][:n]
                        add_4(out, other, r0, r1, r2, r3, w[a, k:], w[b, k:])
                    for k in range(whole, w.shape[1]):
                        row = x[rows[k] + o * step, columns[k] + x0 :][:n]
                        add_1(out, row, w[a, k])
                        if b > a:
                            add_1(other, row, w[b, k])


@kernel
def correlate_weights(y_bar, x, rows, columns, step, runs, parts):
    """``parts[o, a, k]``: what output row o adds to the cotangent of ``w[a, k]``; of the bias where
    k is the last."""
    count, shift_x, shift_y, length = runs
    for o in prange(y_bar.shape[1]):
        sums = parts[o]
        spare = np.empty(TAPS)
        for s in range(count):
            for start in range(0, length, RUN):
                n = min(RUN, length - start)
                x0, y0 = s * shift_x + start, s * shift_y + start
                whole = rows.size // TAPS * TAPS
                for k in range(0, whole, TAPS):
                    r0 = x[rows[k] + o * step, columns[k] + x0 :][:n]
                    r1 = x[rows[k + 1] + o * step, columns[k + 1] + x0 :][:n]
                    r2 = x[rows[k + 2] + o * step, columns[k + 2] + x0 :][:n]
                    r3 = x[rows[k + 3] + o * step, columns[k + 3] + x0 :][:n]
                    for a in range(0, sums.shape[0], 2):
                        b = min(a + 1, sums.shape[0] - 1)
                        g, h = y_bar[a, o, y0:][:n], y_bar[b, o, y0:][:n]
                        others = sums[b, k:] if b > a else spare
                        dot_4(g, h, r0, r1, r2, r3, sums[a, k:], others)
                for k in range(whole, rows.size):
                    row = x[rows[k] + o * step, columns[k] + x0 :][:n]
                    for a in range(sums.shape[0]):
                        sums[a, k] += dot_1(y_bar[a, o, y0:][:n], row)
                for a in range(sums.shape[0]):
                    sums[a, rows.size] += row_sum(y_bar[a, o, y0:][:n])


@kernel
def spread(y_bar, w, height, dilation, step, columns, runs, x_bar):
    """The cotangent of x: every output adds ``w`` times its own to what its window read.

    ``w`` is (C, KH, KW, A); each task owns one row of two channels of ``x_bar``.
    """
    count, shift_x, shift_y, length = runs
    channels, kernel_height, kernel_width, outputs = w.shape
    for task in prange((channels + 1) // 2 * height):
        c, i = task // height * 2, task % height
        d = min(c + 1, channels - 1)
        row = x_bar[c * height + i]
        pair = x_bar[d * height + i] if d > c else np.empty_like(row)
        row[:] = 0
        pair[:] = 0
        for kh in range(kernel_height):
            o = (i - kh * dilation) // step
            if i - kh * dilation != o * step or o < 0 or o >= y_bar.shape[1]:
                continue
            for s in range(count):
                for start in range(0, length, RUN):
                    n = min(RUN, length - start)
                    y0 = s * shift_y + start
                    for kw in range(kernel_width):
                        x0 = columns[kw] + s * shift_x + start
                        out, other = row[x0 : x0 + n], pair[x0 : x0 + n]
                        whole = outputs // TAPS * TAPS
                        for a in range(0, whole, TAPS):
                            g0, g1 = y_bar[a, o, y0:][:n], y_bar[a + 1, o, y0:][:n]
                            g2, g3 = y_bar[a + 2, o, y0:][:n], y_bar[a + 3, o, y0:][:n]
                            add_4(out, other, g0, g1, g2, g3, w[c, kh, kw, a:], w[d, kh, kw, a:])
                        for a in range(whole, outputs):
                            g = y_bar[a, o, y0:][:n]
                            add_1(out, g, w[c, kh, kw, a])
                            add_1(other, g, w[d, kh, kw, a])


@inner
def take_larger(row, best, code, k):
    """Where ``row`` is larger than ``best`` so far, it and its place k take over; nan stays."""
    for q in range(row.size):
        wins = row[q] > best[q] or row[q] != row[q]
        best[q] = row[q] if wins else best[q]
        code[q] = k if wins else code[q]


@inner
def add_where(g, code, k, row):
    for q in range(row.size):
        row[q] += g[q] if code[q] == k else 0


@kernel
def pool(x, n, kernel_size, stride, padding, dilation, y, codes):
    """Largest value of each window, and the place in the window that it came from.

    Places are found as integers of the width of a value, so that loops vectorize, then narrowed.
    """
    height, width = x.shape[1], x.shape[2] // n
    for task in prange(y.shape[0] * y.shape[1]):
        c, o = task // y.shape[1], task % y.shape[1]
        places = np.empty(n, np.int32)
        for p in range(y.shape[2] // n):
            best, code = y[c, o, p * n :][:n], codes[c, o, p * n :][:n]
            best[:] = -np.inf
            places[:] = 0
            for k in range(kernel_size[0] * kernel_size[1]):
                i = o * stride[0] - padding[0] + k // kernel_size[1] * dilation[0]
                j = p * stride[1] - padding[1] + k % kernel_size[1] * dilation[1]
                if 0 <= i < height and 0 <= j < width:
                    take_larger(x[c, i, j * n :][:n], best, places, np.int32(k))
            for q in range(n):
                code[q] = places[q] if best[q] == best[q] else 0  # a window of nan has no maximum


@kernel
def unpool(y_bar, codes, n, kernel_size, stride, padding, dilation, x_bar):
    """Put each cotangent at the place that won."""
    height, width = x_bar.shape[1], x_bar.shape[2] // n
    for c in prange(x_bar.shape[0]):
        x_bar[c] = 0
        places = np.empty(n, np.int32)
        for o in range(y_bar.shape[1]):
            for p in range(y_bar.shape[2] // n):
                g, code = y_bar[c, o, p * n :][:n], codes[c, o, p * n :][:n]
                for q in range(n):
                    places[q] = code[q]
                for k in range(kernel_size[0] * kernel_size[1]):
                    i = o * stride[0] - padding[0] + k // kernel_size[1] * dilation[0]
                    j = p * stride[1] - padding[1] + k % kernel_size[1] * dilation[1]
                    if 0 <= i < height and 0 <= j < width:
                        add_where(g, places, np.int32(k), x_bar[c, i, j * n :][:n])


def _images(x, windows: Window, fill_padding: bool):
    """(N, C, \\*sizes) as (C, H, W * N); with zeros around where padding is asked for."""
    if fill_padding:
        folded = np.ascontiguousarray(windows.pad(np, x))
    else:
        folded = np.ascontiguousarray(np.moveaxis(x, 0, -1))
    height, _ = _plane(folded.shape[1:-1])
    return folded.reshape(x.shape[1], height, -1)


def _plane(values, least=1):
    """Sizes or parameters of one or two axes as those of an image, (height, width)."""
    return values if len(values) == 2 else (least, *values)


def _geometry(x, w, kwargs):
    """Offsets of the window's places in the rows of ``_images``, and the runs of an output row."""
    windows = window(x.shape, tuple(w.shape[2:]), **kwargs)
    n, channels = x.shape[:2]
    kernel_size, dilation = _plane(windows.kernel), _plane(windows.dilation)
    height, stride = _plane(windows.padded_sizes)[0], _plane(windows.stride)
    width = windows.outputs[-1]
    c, i, j = np.indices((channels, *kernel_size)).reshape(3, -1)
    rows, columns = c * height + i * dilation[0], j * dilation[1] * n
    # with stride 1 the images of a whole output row are one run, otherwise those of one place
    runs = (1, 0, 0, width * n) if stride[1] == 1 else (width, stride[1] * n, n, n)
    return windows, rows, columns, stride[0], runs


def _conv(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    check_conv(x, w, b, groups)
    kwargs = {"stride": stride, "padding": padding, "dilation": dilation}
    windows, rows, columns, step, runs = _geometry(x, w, kwargs)
    images = _images(x, windows, fill_padding=True)
    flat_w = w.reshape(w.shape[0], -1)
    height, width = _plane(windows.outputs)
    y = empty((w.shape[0], height, width * x.shape[0]), x.dtype)
    planes = images.reshape(-1, images.shape[2])
    bias = np.zeros(w.shape[0], w.dtype) if b is None else b
    correlate(read(planes), read(flat_w), read(bias), rows, columns, step, runs, y)
    y = np.moveaxis(y.reshape(w.shape[0], *windows.outputs, x.shape[0]), -1, 0)
    return y, (x, w, b is not None, kwargs)


def _conv_backward(xp, y_bar, kept):
    x, w, has_bias, kwargs = kept
    shape = x.shape
    windows, rows, columns, step, runs = _geometry(x, w, kwargs)
    g = np.ascontiguousarray(np.moveaxis(y_bar, 0, -1))
    g = g.reshape(w.shape[0], _plane(windows.outputs)[0], -1)

    def x_bar():
        flipped = np.moveaxis(w, 0, -1)
        if len(shape) == 3:
            flipped = flipped[:, None]
        height, width = _plane(windows.padded_sizes)
        out = empty((shape[1] * height, width * shape[0]), x.dtype)
        dilation, kernel_width = _plane(windows.dilation)[0], flipped.shape[2]
        spread(read(g), read(flipped), height, dilation, step, columns[:kernel_width], runs, out)
        out = out.reshape(shape[1], *windows.padded_sizes, shape[0])
        return windows.crop(np, out)

    @cache
    def sums():
        images = _images(x, windows, fill_padding=True)  # again: they are not kept
        planes = images.reshape(-1, images.shape[2])
        parts = np.zeros((g.shape[1], w.shape[0], len(rows) + 1))
        correlate_weights(read(g), read(planes), rows, columns, step, runs, parts)
        return parts.sum(0).astype(w.dtype)

    def w_bar():
        return sums()[:, :-1].copy().reshape(w.shape)

    return (x_bar, w_bar, lambda: sums()[:, -1].copy()) if has_bias else (x_bar, w_bar)


def _accepts_conv(x, w, b=None, *, stride=1, groups=1, **_):
    """Few weights, real windows and long runs; with more of them matrix products win (measured)."""
    if groups != 1 or x.ndim not in (3, 4) or w.ndim != x.ndim or not same_floats(x, w, b):
        return False
    step = per_axis("stride", stride, x.ndim - 2, least=1)[-1]
    run = x.shape[0] * (x.shape[-1] if step == 1 else 1)
    return w.size < FEW and w.shape[2:] != (1,) * (w.ndim - 2) and run >= MIN_RUN


def _max_pool(xp, x, *, kernel_size, stride=None, padding=0, dilation=1):
    windows = check_max_pool(x, kernel_size, stride, padding, dilation)
    fields = windows.kernel, windows.stride, windows.padding, windows.dilation
    plane = [_plane(f, least) for f, least in zip(fields, (1, 1, 0, 1), strict=True)]
    images = _images(x, windows, fill_padding=False)
    height, width = _plane(windows.outputs)
    y = empty((x.shape[1], height, width * x.shape[0]), x.dtype)
    codes = np.empty(y.shape, np.uint8)
    pool(read(images), x.shape[0], *plane, y, codes)
    y = np.moveaxis(y.reshape(x.shape[1], *windows.outputs, x.shape[0]), -1, 0)
    return y, (codes, x.shape, images.shape, plane)


def _max_pool_backward(xp, y_bar, cache):
    codes, shape, folded, plane = cache
    g = np.ascontiguousarray(np.moveaxis(y_bar, 0, -1)).reshape(codes.shape)
    x_bar = empty(folded, y_bar.dtype)
    unpool(read(g), codes, shape[0], *plane, x_bar)
    return (np.moveaxis(x_bar.reshape(*shape[1:], shape[0]), -1, 0),)


def _accepts_pool(x, *, kernel_size, **_):
    if x.ndim not in (3, 4) or not same_floats(x):
        return False
    return prod(per_axis("kernel_size", kernel_size, x.ndim - 2, least=1)) < 256  # a code is a byte


conv = Pair(_conv, _conv_backward, _accepts_conv)
max_pool = Pair(_max_pool, _max_pool_backward, _accepts_pool)
