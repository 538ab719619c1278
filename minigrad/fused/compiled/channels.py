"""Batch norm: each channel, or tile of channels, is read from memory once and then from cache."""

import numba
import numpy as np
from numba import prange

from minigrad.fused import normalization as vectorized
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read
from minigrad.fused.compiled.products import row_sum
from minigrad.fused.declare import Pair
from minigrad.fused.layout import from_blocks, is_batch_last, to_blocks
from minigrad.fused.memory import empty
from minigrad.ops.normalization import check_batch_norm

PART = 131072  # values of an (N, C) array that one task should take
LEAST = 64  # columns that one task takes at least
ROWS = 64  # rows that are summed in the array's own precision before float64 takes over


@inner
def row_squares(row, centre):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += (row[i] - centre) ** 2
    return total


@inner
def row_products(g, row, centre):
    total, products = row.dtype.type(0), row.dtype.type(0)
    for i in range(row.size):
        total += g[i]
        products += g[i] * (row[i] - centre)
    return total, products


@inner
def row_affine(row, out, centre, a, b):
    for i in range(row.size):
        out[i] = (row[i] - centre) * a + b


@inner
def row_back(g, row, out, centre, a, b, k):
    for i in range(row.size):
        out[i] = a * (g[i] - b - (row[i] - centre) * k)


@inner
def row_back_over(g, row, centre, a, b, k):
    """``row_back`` in place: a loop over two names of one array would not vectorize."""
    for i in range(row.size):
        g[i] = a * (g[i] - b - (row[i] - centre) * k)


@inner
def statistics(x, c):
    """Mean and biased variance of ``x[:, c]``; chunks are merged by Chan's formula.

    A chunk is a part of a long row, or some short rows: it is read from memory once.
    """
    rows, size = x.shape[0], x.shape[2]
    step = max(1, CHUNK // max(size, 1))
    count, mean, m2 = 0, 0.0, 0.0
    for p in range(0, rows, step):
        last = min(p + step, rows)
        for start in range(0, size, CHUNK):
            stop = min(start + CHUNK, size)
            n = (last - p) * (stop - start)
            total, squares = 0.0, 0.0
            for q in range(p, last):
                total += row_sum(x[q, c, start:stop])
            its_mean = total / n
            centre = x.dtype.type(its_mean)
            for q in range(p, last):
                squares += row_squares(x[q, c, start:stop], centre)
            slip = its_mean - np.float64(centre)  # what rounding the centre added to the squares
            delta = its_mean - mean
            m2 += squares - n * slip * slip + delta * delta * count * n / (count + n)
            mean += delta * n / (count + n)
            count += n
    return mean, max(m2, 0.0) / count


@kernel
def forward_blocks(x, gamma, beta, eps, is_fixed, mean, var, y):
    for c in prange(x.shape[1]):
        if not is_fixed:
            mean[c], var[c] = statistics(x, c)
        scale = gamma[c] / np.sqrt(var[c] + eps)
        centre = x.dtype.type(mean[c])
        shift = beta[c] - (mean[c] - np.float64(centre)) * scale
        a, b = x.dtype.type(scale), x.dtype.type(shift)
        for p in range(x.shape[0]):
            row_affine(x[p, c], y[p, c], centre, a, b)


@kernel
def backward_blocks(y_bar, x, gamma, eps, is_fixed, mean, var, x_bar, gamma_bar, beta_bar, own):
    """Where ``own`` is true, ``x_bar`` is ``y_bar`` under a name that may be written."""
    count = max(x.shape[0] * x.shape[2], 1)
    for c in prange(x.shape[1]):
        inv_std = 1 / np.sqrt(var[c] + eps)
        centre = x.dtype.type(mean[c])
        total, products = 0.0, 0.0
        for p in range(x.shape[0]):
            for start in range(0, x.shape[2], CHUNK):
                g, row = y_bar[p, c, start : start + CHUNK], x[p, c, start : start + CHUNK]
                t, q = row_products(g, row, centre)
                total += t
                products += q
        slip = mean[c] - np.float64(centre)
        products -= slip * total
        gamma_bar[c], beta_bar[c] = products * inv_std, total
        k = 0.0 if is_fixed else products * inv_std * inv_std / count
        b = 0.0 if is_fixed else total / count - slip * k
        one = x.dtype.type
        a, b_, k_ = one(gamma[c] * inv_std), one(b), one(k)
        for p in range(x.shape[0]):
            if own:
                row_back_over(x_bar[p, c], x[p, c], centre, a, b_, k_)
            else:
                row_back(y_bar[p, c], x[p, c], x_bar[p, c], centre, a, b_, k_)


@inner
def vector(x, size):
    """Zeros of the dtype of ``x``; rows of one larger array would not be known as contiguous."""
    return np.zeros(size, x.dtype)


# Sums over the rows of (N, C) take four of them at a time. Rows are cut from the whole array: of
# some of its columns, as an array, numba would not know that they are contiguous.


@inner
def sum_4(x, r, start, stop, part):
    r0, r1 = x[r, start:stop], x[r + 1, start:stop]
    r2, r3 = x[r + 2, start:stop], x[r + 3, start:stop]
    for j in range(part.size):
        part[j] += (r0[j] + r1[j]) + (r2[j] + r3[j])


@inner
def squares_4(x, r, start, stop, centre, part):
    r0, r1 = x[r, start:stop], x[r + 1, start:stop]
    r2, r3 = x[r + 2, start:stop], x[r + 3, start:stop]
    for j in range(part.size):
        c = centre[j]
        a, b, d, e = r0[j] - c, r1[j] - c, r2[j] - c, r3[j] - c
        part[j] += (a * a + b * b) + (d * d + e * e)


@inner
def column_statistics(x, start, stop, mean, var):
    """Mean and biased variance of some columns; blocks of rows are merged by Chan's formula."""
    rows, width = x.shape[0], mean.size
    centre, part = vector(x, width), vector(x, width)
    mean[:] = 0
    var[:] = 0
    for first in range(0, rows, ROWS):
        n = min(rows - first, ROWS)
        whole = first + n // 4 * 4
        part[:] = 0
        for r in range(first, whole, 4):
            sum_4(x, r, start, stop, part)
        for r in range(whole, first + n):
            row = x[r, start:stop]
            for j in range(width):
                part[j] += row[j]
        one, share = 1 / n, n / (first + n)
        for j in range(width):
            its_mean = np.float64(part[j]) * one
            centre[j] = its_mean
            slip = its_mean - np.float64(centre[j])  # what rounding the centre adds to the squares
            delta = its_mean - mean[j]
            mean[j] += delta * share
            var[j] += delta * delta * first * share - n * slip * slip
        part[:] = 0
        for r in range(first, whole, 4):
            squares_4(x, r, start, stop, centre, part)
        for r in range(whole, first + n):
            row = x[r, start:stop]
            for j in range(width):
                part[j] += (row[j] - centre[j]) ** 2
        for j in range(width):
            var[j] += part[j]
    for j in range(width):
        var[j] = max(var[j], 0.0) / max(rows, 1)


@kernel
def forward_columns(x, gamma, beta, eps, is_fixed, mean, var, y, width):
    for tile in prange((x.shape[1] + width - 1) // width):
        start, stop = tile * width, min(tile * width + width, x.shape[1])
        if not is_fixed:
            column_statistics(x, start, stop, mean[start:stop], var[start:stop])
        centre, a, b = vector(x, stop - start), vector(x, stop - start), vector(x, stop - start)
        for j in range(stop - start):
            c = start + j
            centre[j] = mean[c]
            scale = gamma[c] / np.sqrt(var[c] + eps)
            a[j], b[j] = scale, beta[c] - (mean[c] - np.float64(centre[j])) * scale
        for r in range(x.shape[0]):
            row, out = x[r, start:stop], y[r, start:stop]
            for j in range(centre.size):
                out[j] = (row[j] - centre[j]) * a[j] + b[j]


@inner
def products_2(y_bar, x, r, start, stop, centre, part, part_products):
    g0, g1 = y_bar[r, start:stop], y_bar[r + 1, start:stop]
    r0, r1 = x[r, start:stop], x[r + 1, start:stop]
    for j in range(part.size):
        part[j] += g0[j] + g1[j]
        part_products[j] += g0[j] * (r0[j] - centre[j]) + g1[j] * (r1[j] - centre[j])


@inner
def column_products(y_bar, x, start, stop, centre, total, products):
    """Sums over the rows of ``y_bar`` and of ``y_bar (x - centre)``, of some columns."""
    part, part_products = vector(x, centre.size), vector(x, centre.size)
    for first in range(0, x.shape[0], ROWS):
        last = min(x.shape[0], first + ROWS)
        part[:] = 0
        part_products[:] = 0
        for r in range(first, last - 1, 2):
            products_2(y_bar, x, r, start, stop, centre, part, part_products)
        if (last - first) % 2:
            g, row = y_bar[last - 1, start:stop], x[last - 1, start:stop]
            for j in range(part.size):
                part[j] += g[j]
                part_products[j] += g[j] * (row[j] - centre[j])
        for j in range(part.size):
            total[j] += part[j]
            products[j] += part_products[j]


@inner
def column_back(g, row, out, centre, a, b, k):
    for j in range(centre.size):
        out[j] = a[j] * (g[j] - b[j] - (row[j] - centre[j]) * k[j])


@inner
def column_back_over(g, row, centre, a, b, k):
    for j in range(centre.size):
        g[j] = a[j] * (g[j] - b[j] - (row[j] - centre[j]) * k[j])


@kernel
def backward_columns(
    y_bar, x, gamma, eps, is_fixed, mean, var, x_bar, gamma_bar, beta_bar, own, width
):
    count = max(x.shape[0], 1)
    for tile in prange((x.shape[1] + width - 1) // width):
        start, stop = tile * width, min(tile * width + width, x.shape[1])
        total, products = np.zeros(stop - start), np.zeros(stop - start)
        centre, a = vector(x, stop - start), vector(x, stop - start)
        b, k = vector(x, stop - start), vector(x, stop - start)
        for j in range(stop - start):
            centre[j] = mean[start + j]
        column_products(y_bar, x, start, stop, centre, total, products)
        for j in range(stop - start):
            c = start + j
            inv_std = 1 / np.sqrt(var[c] + eps)
            slip = mean[c] - np.float64(centre[j])
            products[j] -= slip * total[j]
            gamma_bar[c], beta_bar[c] = products[j] * inv_std, total[j]
            a[j] = gamma[c] * inv_std
            if not is_fixed:
                k_j = products[j] * inv_std * inv_std / count
                k[j], b[j] = k_j, total[j] / count - slip * k_j
        for r in range(x.shape[0]):
            row, out = x[r, start:stop], x_bar[r, start:stop]
            if own:
                column_back_over(out, row, centre, a, b, k)
            else:
                column_back(y_bar[r, start:stop], row, out, centre, a, b, k)


def _width(x):
    """Columns of one task: as wide as its part of ``x`` still fits the second-level cache.

    Narrow parts of rows whose length is a power of 2 fall on the same few lines of a cache.
    """
    share = -(-x.shape[1] // numba.get_num_threads())
    return max(LEAST, min(share, PART // max(x.shape[0], 1)))


def _forward(xp, x, gamma, beta, *, mean=None, var=None, axis=None, eps=1e-5):
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    batch_last, is_fixed = is_batch_last(x), mean is not None
    blocks = to_blocks(x, batch_last)
    shape = (x.shape[1],)
    mu, variance = (np.empty(shape) if s is None else np.array(s, np.float64) for s in (mean, var))
    y = empty(blocks.shape, x.dtype)
    gamma, beta = (read(np.ascontiguousarray(p)) for p in (gamma, beta))
    known = gamma, beta, float(eps), is_fixed
    if blocks.shape[2] == 1:
        rows = blocks[:, :, 0]
        forward_columns(read(rows), *known, mu, variance, y[:, :, 0], _width(rows))
    else:
        forward_blocks(read(blocks), *known, mu, variance, y)
    # keeps x itself, which the graph holds anyway, where the NumPy version keeps x - mean
    cache = vectorized.Cache(mu, variance, blocks, gamma, float(eps), batch_last, is_fixed)
    return from_blocks(y, x.shape, batch_last), cache


def _backward(xp, y_bar, cache, own=False):
    mean, var, x, gamma, eps, batch_last, is_fixed = cache
    g = to_blocks(y_bar, batch_last)
    x_bar = g if own else empty(x.shape, x.dtype)
    gamma_bar, beta_bar = np.empty((2, x.shape[1]), x.dtype)
    known = gamma, eps, is_fixed, mean, var
    if x.shape[2] == 1:
        g, x = g[:, :, 0], x[:, :, 0]
        backward_columns(
            read(g), read(x), *known, x_bar[:, :, 0], gamma_bar, beta_bar, own, _width(x)
        )
    else:
        backward_blocks(read(g), read(x), *known, x_bar, gamma_bar, beta_bar, own)
    return from_blocks(x_bar, y_bar.shape, batch_last), gamma_bar, beta_bar


batch_norm = Pair(_forward, _backward, vectorized.accepts, reuses=True)
