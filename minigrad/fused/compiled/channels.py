"""Batch norm: each channel, or tile of channels, is read from memory once and then from cache."""

import numpy as np
from numba import prange

from minigrad.fused import normalization as vectorized
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read
from minigrad.fused.declare import Pair
from minigrad.fused.layout import from_blocks, is_batch_last, to_blocks
from minigrad.ops.normalization import check_batch_norm

TILE = 128  # channels that one task of the (N, C) kernels takes together
ROWS = 64  # rows that are summed in the array's own precision before float64 takes over


@inner
def row_sum(row):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i]
    return total


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
def statistics(x, c):
    """Mean and biased variance of ``x[:, c]``; chunks are merged by Chan's formula."""
    count, mean, m2 = 0, 0.0, 0.0
    for p in range(x.shape[0]):
        line = x[p, c]
        for start in range(0, line.size, CHUNK):
            row = line[start : start + CHUNK]
            n = row.size
            its_mean = row_sum(row) / np.float64(n)
            centre = row.dtype.type(its_mean)
            slip = its_mean - np.float64(centre)  # what rounding the centre added to the squares
            delta = its_mean - mean
            total = count + n
            m2 += row_squares(row, centre) - n * slip * slip + delta * delta * count * n / total
            mean += delta * n / total
            count = total
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
def backward_blocks(y_bar, x, gamma, eps, is_fixed, mean, var, x_bar, gamma_bar, beta_bar):
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
        for p in range(x.shape[0]):
            row_back(
                y_bar[p, c], x[p, c], x_bar[p, c], centre, one(gamma[c] * inv_std), one(b), one(k)
            )


@inner
def add_rows(x, start, stop, centre, squares, total):
    """Add up ``x - centre``, or its squares, over rows; a part of them at a time in float64."""
    part = np.zeros(stop - start, x.dtype)
    for first in range(0, x.shape[0], ROWS):
        part[:] = 0
        for r in range(first, min(x.shape[0], first + ROWS)):
            row = x[r, start:stop]
            if squares:
                for j in range(part.size):
                    part[j] += (row[j] - centre[j]) ** 2
            else:
                for j in range(part.size):
                    part[j] += row[j]
        for j in range(part.size):
            total[j] += part[j]


@kernel
def forward_columns(x, gamma, beta, eps, is_fixed, mean, var, y):
    count = max(x.shape[0], 1)
    for tile in prange((x.shape[1] + TILE - 1) // TILE):
        start = tile * TILE
        stop = min(start + TILE, x.shape[1])
        width = stop - start
        total, centre = np.zeros(width), np.zeros(width, x.dtype)
        a, b = np.empty(width, x.dtype), np.empty(width, x.dtype)
        if not is_fixed:
            add_rows(x, start, stop, centre, False, total)
            for j in range(width):
                mean[start + j] = total[j] / count
                centre[j] = mean[start + j]
                total[j] = 0
            add_rows(x, start, stop, centre, True, total)
            for j in range(width):
                slip = mean[start + j] - np.float64(centre[j])
                var[start + j] = max(total[j] / count - slip * slip, 0.0)
        for j in range(width):
            c = start + j
            centre[j] = mean[c]
            scale = gamma[c] / np.sqrt(var[c] + eps)
            a[j], b[j] = scale, beta[c] - (mean[c] - np.float64(centre[j])) * scale
        for r in range(x.shape[0]):
            row, out = x[r, start:stop], y[r, start:stop]
            for j in range(width):
                out[j] = (row[j] - centre[j]) * a[j] + b[j]


@inner
def add_products(y_bar, x, start, stop, centre, total, products):
    part, part_products = np.zeros(stop - start, x.dtype), np.zeros(stop - start, x.dtype)
    for first in range(0, x.shape[0], ROWS):
        part[:] = 0
        part_products[:] = 0
        for r in range(first, min(x.shape[0], first + ROWS)):
            g, row = y_bar[r, start:stop], x[r, start:stop]
            for j in range(part.size):
                part[j] += g[j]
                part_products[j] += g[j] * (row[j] - centre[j])
        for j in range(part.size):
            total[j] += part[j]
            products[j] += part_products[j]


@kernel
def backward_columns(y_bar, x, gamma, eps, is_fixed, mean, var, x_bar, gamma_bar, beta_bar):
    count = max(x.shape[0], 1)
    for tile in prange((x.shape[1] + TILE - 1) // TILE):
        start = tile * TILE
        stop = min(start + TILE, x.shape[1])
        width = stop - start
        total, products = np.zeros(width), np.zeros(width)
        centre, a = np.empty(width, x.dtype), np.empty(width, x.dtype)
        b, k = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
        for j in range(width):
            centre[j] = mean[start + j]
        add_products(y_bar, x, start, stop, centre, total, products)
        for j in range(width):
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
            g, row, out = y_bar[r, start:stop], x[r, start:stop], x_bar[r, start:stop]
            for j in range(width):
                out[j] = a[j] * (g[j] - b[j] - (row[j] - centre[j]) * k[j])


def _forward(xp, x, gamma, beta, *, mean=None, var=None, axis=None, eps=1e-5):
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    batch_last, is_fixed = is_batch_last(x), mean is not None
    blocks = to_blocks(x, batch_last)
    shape = (x.shape[1],)
    mu, variance = (np.empty(shape) if s is None else np.array(s, np.float64) for s in (mean, var))
    y = np.empty(blocks.shape, x.dtype)
    gamma, beta = (read(np.ascontiguousarray(p)) for p in (gamma, beta))
    known = gamma, beta, float(eps), is_fixed
    if blocks.shape[2] == 1:
        forward_columns(read(blocks[:, :, 0]), *known, mu, variance, y[:, :, 0])
    else:
        forward_blocks(read(blocks), *known, mu, variance, y)
    # keeps x itself, which the graph holds anyway, where the NumPy version keeps x - mean
    cache = vectorized.Cache(mu, variance, blocks, gamma, float(eps), batch_last, is_fixed)
    return from_blocks(y, x.shape, batch_last), cache


def _backward(xp, y_bar, cache):
    mean, var, x, gamma, eps, batch_last, is_fixed = cache
    g = to_blocks(y_bar, batch_last)
    x_bar = np.empty(x.shape, x.dtype)
    gamma_bar, beta_bar = np.empty((2, x.shape[1]), x.dtype)
    known = gamma, eps, is_fixed, mean, var
    if x.shape[2] == 1:
        g, x = g[:, :, 0], x[:, :, 0]
        backward_columns(read(g), read(x), *known, x_bar[:, :, 0], gamma_bar, beta_bar)
    else:
        backward_blocks(read(g), read(x), *known, x_bar, gamma_bar, beta_bar)
    return from_blocks(x_bar, y_bar.shape, batch_last), gamma_bar, beta_bar


batch_norm = Pair(_forward, _backward, vectorized.accepts)
