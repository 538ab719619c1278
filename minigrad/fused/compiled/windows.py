"""Convolution by direct loops and max pooling, on images with the batch as the last axis in memory.

One output row of all images is then one long contiguous run, whatever the size of an image: loops
over it vectorize, and a shift by one place in the window is a shift by N elements. Where channels
are many, tiles of products (``conv_tiles``) are faster.

A task is an output row of all channels of a group (``correlate``, ``correlate_weights``) or a row
of two input channels (``spread``). It works on RUN elements of the rows at a time, which stay in
cache while two outputs and TAPS inputs at a time are combined. The cotangent of the weights sums
RUN elements in the precision of the array and adds these sums in float64, for each output row
separately, so that tasks share no sums. Pooling: a task is an output row of a channel, in the
backward a channel.
"""

from functools import cache, lru_cache
from math import prod

import numpy as np
from numba import prange

from minigrad.fused.compiled import conv_tiles
from minigrad.fused.compiled.jit import inner, kernel, read
from minigrad.fused.compiled.products import add_1, add_4, dot_1, dot_4, output_row, row_sum
from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.memory import empty
from minigrad.ops.conv import check_conv
from minigrad.ops.pool import check_max_pool
from minigrad.ops.window import Window, batch_last, batch_to_front, per_axis, window

RUN = 1024  # elements of an output row at a time: four input runs and two outputs fit in L1
MIN_RUN = 64  # elements of a run; direct loops are not used on shorter ones
MIN_BATCH = 8  # images from which this max pooling is faster than NumPy's (measured)
TAPS = 4  # places of the window that one pass over a run adds up
MANY_WEIGHTS = 2048  # of a group; from so many on, tiles are faster (measured)
MANY_OUTPUTS = 48  # of a group; the same for the cotangent of the weights
SHORT_RUN = 16  # elements of a run; tiles are not used on shorter ones


@kernel
def correlate(x, w, bias, groups, rows, columns, step, runs, y):
    """``y[a, o] = bias[a] + sum_k w[a, k] * x[rows[k] + o * step, columns[k] :]`` for output row o.

    Args:
        groups: outputs and rows of x are divided into this many equal parts; each output reads its
            part of x.
        rows, columns: where tap k of the first window lies in a part of x.
        step: rows of x from one output row to the next.
        runs: the number of contiguous runs in an output row, the distance between the starts of two
            runs in x and in y, and their length.
    """
    count, shift_x, shift_y, length = runs
    outputs = w.shape[0] // groups
    for task in prange(groups * y.shape[1]):
        group, o = task // y.shape[1], task % y.shape[1]
        begin, end = group * outputs, (group + 1) * outputs
        first = x.shape[0] // groups * group + o * step
        spare = np.empty(RUN, y.dtype)
        for s in range(count):
            for start in range(0, length, RUN):
                n = min(RUN, length - start)
                x0, y0 = s * shift_x + start, s * shift_y + start
                for a in range(begin, end, 2):
                    b = min(a + 1, end - 1)  # an odd last output is computed twice
                    out = y[a, o, y0 : y0 + n]
                    other = y[b, o, y0 : y0 + n] if b > a else spare[:n]
                    out[:] = bias[a]
                    other[:] = bias[b]
                    whole = w.shape[1] // TAPS * TAPS
                    for k in range(0, whole, TAPS):
                        r0 = x[rows[k] + first, columns[k] + x0 :][:n]
                        r1 = x[rows[k + 1] + first, columns[k + 1] + x0 :][:n]
                        r2 = x[rows[k + 2] + first, columns[k + 2] + x0 :][:n]
                        r3 = x[rows[k + 3] + first, columns[k + 3] + x0 :][:n]
                        add_4(out, other, r0, r1, r2, r3, w[a, k:], w[b, k:])
                    for k in range(whole, w.shape[1]):
                        row = x[rows[k] + first, columns[k] + x0 :][:n]
                        add_1(out, row, w[a, k])
                        if b > a:
                            add_1(other, row, w[b, k])


@kernel
def correlate_weights(y_bar, x, groups, rows, columns, step, runs, parts):
    """Set ``parts[o, a, k]`` to the share of output row o in the cotangent of ``w[a, k]``, or of
    the bias for the last k."""
    count, shift_x, shift_y, length = runs
    outputs = y_bar.shape[0] // groups
    for task in prange(groups * y_bar.shape[1]):
        group, o = task // y_bar.shape[1], task % y_bar.shape[1]
        begin, end = group * outputs, (group + 1) * outputs
        first = x.shape[0] // groups * group + o * step
        sums = parts[o]
        spare = np.empty(TAPS)
        for s in range(count):
            for start in range(0, length, RUN):
                n = min(RUN, length - start)
                x0, y0 = s * shift_x + start, s * shift_y + start
                whole = rows.size // TAPS * TAPS
                for k in range(0, whole, TAPS):
                    r0 = x[rows[k] + first, columns[k] + x0 :][:n]
                    r1 = x[rows[k + 1] + first, columns[k + 1] + x0 :][:n]
                    r2 = x[rows[k + 2] + first, columns[k + 2] + x0 :][:n]
                    r3 = x[rows[k + 3] + first, columns[k + 3] + x0 :][:n]
                    for a in range(begin, end, 2):
                        b = min(a + 1, end - 1)
                        g, h = y_bar[a, o, y0:][:n], y_bar[b, o, y0:][:n]
                        others = sums[b, k:] if b > a else spare
                        dot_4(g, h, r0, r1, r2, r3, sums[a, k:], others)
                for k in range(whole, rows.size):
                    row = x[rows[k] + first, columns[k] + x0 :][:n]
                    for a in range(begin, end):
                        sums[a, k] += dot_1(y_bar[a, o, y0:][:n], row)
                for a in range(begin, end):
                    sums[a, rows.size] += row_sum(y_bar[a, o, y0:][:n])


@kernel
def spread(y_bar, w, groups, height, dilation, step, columns, runs, x_bar):
    """The cotangent of x: the cotangent of each output times the weights, added to its window.

    ``w`` is (C, KH, KW, A / groups). A task owns one row of two channels of ``x_bar``, and adds up
    the contributions of all output rows whose windows read that row.
    """
    count, shift_x, shift_y, length = runs
    channels, kernel_height, kernel_width, outputs = w.shape
    share = channels // groups
    pairs = (share + 1) // 2
    for task in prange(groups * pairs * height):
        group, i = task // (pairs * height), task % height
        c = group * share + task // height % pairs * 2
        d = min(c + 1, (group + 1) * share - 1)
        begin, end = group * outputs, (group + 1) * outputs
        row = x_bar[c * height + i]
        other_row = x_bar[d * height + i] if d > c else np.empty_like(row)
        row[:] = 0
        other_row[:] = 0
        for kh in range(kernel_height):
            o = output_row(i - kh * dilation, step, y_bar.shape[1])
            if o < 0:
                continue
            for s in range(count):
                for start in range(0, length, RUN):
                    n = min(RUN, length - start)
                    y0 = s * shift_y + start
                    for kw in range(kernel_width):
                        x0 = columns[kw] + s * shift_x + start
                        out, other = row[x0 : x0 + n], other_row[x0 : x0 + n]
                        whole = begin + outputs // TAPS * TAPS
                        for a in range(begin, whole, TAPS):
                            g0, g1 = y_bar[a, o, y0:][:n], y_bar[a + 1, o, y0:][:n]
                            g2, g3 = y_bar[a + 2, o, y0:][:n], y_bar[a + 3, o, y0:][:n]
                            w_c, w_d = w[c, kh, kw, a - begin :], w[d, kh, kw, a - begin :]
                            add_4(out, other, g0, g1, g2, g3, w_c, w_d)
                        for a in range(whole, end):
                            g = y_bar[a, o, y0:][:n]
                            add_1(out, g, w[c, kh, kw, a - begin])
                            if d > c:
                                add_1(other, g, w[d, kh, kw, a - begin])


@inner
def take_larger(row, best, winner, k):
    """Where ``row`` exceeds ``best``, or is nan, it replaces it; ``winner`` becomes its place k."""
    for q in range(row.size):
        wins = row[q] > best[q] or row[q] != row[q]
        best[q] = row[q] if wins else best[q]
        winner[q] = k if wins else winner[q]


@inner
def add_where(g, winner, k, row):
    for q in range(row.size):
        row[q] += g[q] if winner[q] == k else 0


@kernel
def pool(x, n, kernel_size, stride, padding, dilation, y, winners):
    """The largest value of each window, and its place in the window.

    While a window is searched, places are integers as wide as a float32, so that loops vectorize;
    then they are narrowed to bytes.
    """
    height, width = x.shape[1], x.shape[2] // n
    for task in prange(y.shape[0] * y.shape[1]):
        c, o = task // y.shape[1], task % y.shape[1]
        places = np.empty(n, np.int32)
        for p in range(y.shape[2] // n):
            best, winner = y[c, o, p * n :][:n], winners[c, o, p * n :][:n]
            best[:] = -np.inf
            places[:] = 0
            for k in range(kernel_size[0] * kernel_size[1]):
                i = o * stride[0] - padding[0] + k // kernel_size[1] * dilation[0]
                j = p * stride[1] - padding[1] + k % kernel_size[1] * dilation[1]
                if 0 <= i < height and 0 <= j < width:
                    take_larger(x[c, i, j * n :][:n], best, places, np.int32(k))
            for q in range(n):
                winner[q] = places[q] if best[q] == best[q] else 0  # a window of nan has no maximum


@kernel
def unpool(y_bar, winners, n, kernel_size, stride, padding, dilation, x_bar):
    """Add each cotangent to x_bar at the place that won."""
    height, width = x_bar.shape[1], x_bar.shape[2] // n
    for c in prange(x_bar.shape[0]):
        x_bar[c] = 0
        places = np.empty(n, np.int32)
        for o in range(y_bar.shape[1]):
            for p in range(y_bar.shape[2] // n):
                g, winner = y_bar[c, o, p * n :][:n], winners[c, o, p * n :][:n]
                for q in range(n):
                    places[q] = winner[q]
                for k in range(kernel_size[0] * kernel_size[1]):
                    i = o * stride[0] - padding[0] + k // kernel_size[1] * dilation[0]
                    j = p * stride[1] - padding[1] + k % kernel_size[1] * dilation[1]
                    if 0 <= i < height and 0 <= j < width:
                        add_where(g, places, np.int32(k), x_bar[c, i, j * n :][:n])


@kernel
def pad(x, top, left, padded):
    """Copy (C, H, L) into larger planes, ``top`` rows and ``left`` elements in; the rest is 0."""
    for task in prange(padded.shape[0] * padded.shape[1]):
        c, i = task // padded.shape[1], task % padded.shape[1]
        row, r, right = padded[c, i], i - top, left + x.shape[2]
        if 0 <= r < x.shape[1]:
            row[:left] = 0
            row[left:right] = x[c, r]
            row[right:] = 0
        else:
            row[:] = 0


def _images(x, windows: Window, fill_padding: bool):
    """(N, C, \\*sizes) as (C, H, W * N), padded with zeros if ``fill_padding``."""
    n, channels = x.shape[:2]
    height, width = _plane(windows.sizes)
    images = np.ascontiguousarray(batch_last(np, x)).reshape(channels, height, width * n)
    if not (fill_padding and any(windows.padding)):
        return images
    top, left = _plane(windows.padding, 0)
    padded = empty((channels, height + 2 * top, (width + 2 * left) * n), x.dtype)
    pad(read(images), top, left * n, padded)
    return padded


def _plane(values, height=1):
    """Sizes or parameters of one or two axes as (height, width); a single axis is the width."""
    return values if len(values) == 2 else (height, *values)


@lru_cache(maxsize=128)
def _places(windows, n, channels):
    """The arguments ``rows, columns, step, runs`` of the kernels, for n images."""
    kernel_size, dilation = _plane(windows.kernel), _plane(windows.dilation)
    height, stride = _plane(windows.padded_sizes)[0], _plane(windows.stride)
    width = windows.outputs[-1]
    c, i, j = np.indices((channels, *kernel_size)).reshape(3, -1)
    rows, columns = c * height + i * dilation[0], j * dilation[1] * n
    # with stride 1 a whole output row of all images is one run, otherwise one place of all images
    runs = (1, 0, 0, width * n) if stride[1] == 1 else (width, stride[1] * n, n, n)
    return rows, columns, stride[0], runs


def _conv(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    check_conv(x, w, b, groups)
    windows = window(x.shape, w.shape[2:], stride, padding, dilation)
    images = _images(x, windows, fill_padding=True)
    flat_w = w.reshape(w.shape[0], -1)
    height, width = _plane(windows.outputs)
    y = empty((w.shape[0], height, width * x.shape[0]), x.dtype)
    planes = images.reshape(-1, images.shape[2])
    bias = np.zeros(w.shape[0], w.dtype) if b is None else b
    run = conv_tiles.correlate if _is_large(w, groups) else correlate
    places = _places(windows, x.shape[0], w.shape[1])
    run(read(planes), read(flat_w), read(bias), groups, *places, y)
    y = batch_to_front(y.reshape(w.shape[0], *windows.outputs, x.shape[0]))
    return y, (x, w, b is not None, groups, windows)


def _conv_backward(xp, y_bar, saved):
    x, w, has_bias, groups, windows = saved
    shape = x.shape
    places = rows, columns, step, runs = _places(windows, shape[0], w.shape[1])
    g = np.ascontiguousarray(batch_last(np, y_bar))
    g = g.reshape(w.shape[0], _plane(windows.outputs)[0], -1)

    def x_bar():
        outputs = w.shape[0] // groups
        by_input = np.moveaxis(w.reshape(groups, outputs, *w.shape[1:]), 1, -1)
        by_input = by_input.reshape(shape[1], *_plane(w.shape[2:]), outputs)
        height, width = _plane(windows.padded_sizes)
        out = empty((shape[1] * height, width * shape[0]), x.dtype)
        dilation, by_row = _plane(windows.dilation)[0], columns[: by_input.shape[2]]
        run = conv_tiles.spread if _is_large(w, groups) else spread
        run(read(g), read(by_input), groups, height, dilation, step, by_row, runs, out)
        out = out.reshape(shape[1], *windows.padded_sizes, shape[0])
        return windows.crop(out)

    @cache
    def sums():
        """The cotangents of the weights, (A, K), and of the bias."""
        images = _images(x, windows, fill_padding=True)  # made again, not kept
        planes = read(images.reshape(-1, images.shape[2]))
        if w.shape[0] >= MANY_OUTPUTS * groups:
            w_bar = empty((w.shape[0], len(rows)), w.dtype)
            conv_tiles.correlate_weights(conv_tiles.panels_of(g, groups), planes, *places, w_bar)
            return w_bar, g.sum((1, 2))
        parts = np.zeros((g.shape[1], w.shape[0], len(rows) + 1))
        correlate_weights(read(g), planes, groups, *places, parts)
        total = parts.sum(0).astype(w.dtype)
        return total[:, :-1].copy(), total[:, -1].copy()

    def w_bar():
        return sums()[0].reshape(w.shape)

    return (x_bar, w_bar, lambda: sums()[1]) if has_bias else (x_bar, w_bar)


def _is_large(w, groups):
    return w.size >= MANY_WEIGHTS * groups


def _accepts_conv(x, w, b=None, *, stride=1, groups=1, **_):
    """Whether runs are long. Otherwise matrix products are faster (measured)."""
    if x.ndim not in (3, 4) or w.ndim != x.ndim or not same_floats(x, w, b):
        return False
    step = per_axis("stride", stride, x.ndim - 2, least=1)[-1]
    run = x.shape[0] * (x.shape[-1] if step == 1 else 1)
    return run >= (SHORT_RUN if _is_large(w, groups) else MIN_RUN)


def _max_pool(xp, x, *, kernel_size, stride=None, padding=0, dilation=1):
    windows = check_max_pool(x, kernel_size, stride, padding, dilation)
    fields = windows.kernel, windows.stride, windows.padding, windows.dilation
    plane = [_plane(f, height) for f, height in zip(fields, (1, 1, 0, 1), strict=True)]
    images = _images(x, windows, fill_padding=False)
    height, width = _plane(windows.outputs)
    y = empty((x.shape[1], height, width * x.shape[0]), x.dtype)
    winners = np.empty(y.shape, np.uint8)
    pool(read(images), x.shape[0], *plane, y, winners)
    y = batch_to_front(y.reshape(x.shape[1], *windows.outputs, x.shape[0]))
    return y, (winners, x.shape, images.shape, plane)


def _max_pool_backward(xp, y_bar, cache):
    winners, shape, folded, plane = cache
    g = np.ascontiguousarray(batch_last(np, y_bar)).reshape(winners.shape)
    x_bar = empty(folded, y_bar.dtype)
    unpool(read(g), winners, shape[0], *plane, x_bar)
    return (batch_to_front(x_bar.reshape(*shape[1:], shape[0])),)


def _accepts_pool(x, *, kernel_size, **_):
    if x.ndim not in (3, 4) or len(x) < MIN_BATCH or not same_floats(x):
        return False
    places = prod(per_axis("kernel_size", kernel_size, x.ndim - 2, least=1))
    return places < 256  # winners are bytes


conv = Pair(_conv, _conv_backward, _accepts_conv)
max_pool = Pair(_max_pool, _max_pool_backward, _accepts_pool)
