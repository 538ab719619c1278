"""Batch norm of (N, C, ...): a task is a channel, whose rows are long enough to be walked each."""

import numpy as np
from numba import prange

from minigrad.fused import normalization as vectorized
from minigrad.fused.compiled.columns import backward_columns, forward_columns
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read
from minigrad.fused.compiled.products import merged, row_deviations, row_sum
from minigrad.fused.declare import Pair
from minigrad.fused.layout import from_blocks, is_batch_last, to_blocks
from minigrad.fused.memory import empty
from minigrad.ops.normalization import check_batch_norm


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

    A chunk is a part of a long row, or some short rows. Deviations are those from the mean so far.
    None is larger than the first, so what a chunk's squares lose by that, the formula adds again.
    """
    rows, size = x.shape[0], x.shape[2]
    step = max(1, CHUNK // max(size, 1))
    count, mean, m2 = 0, 0.0, 0.0
    for p in range(0, rows, step):
        last = min(p + step, rows)
        for start in range(0, size, CHUNK):
            stop = min(start + CHUNK, size)
            n = (last - p) * (stop - start)
            rest, squares = 0.0, 0.0
            if not count:
                for q in range(p, last):
                    mean += row_sum(x[q, c, start:stop]) / n
            centre = x.dtype.type(mean)
            for q in range(p, last):
                row_rest, row_squares = row_deviations(x[q, c, start:stop], centre)
                rest += row_rest
                squares += row_squares
            slip = rest / n  # from the mean so far, rounded, to that of the chunk
            its_m2 = squares - n * slip * slip
            mean, m2 = merged(count, mean, m2, n, np.float64(centre) + slip, its_m2)
            count += n
    return mean, max(m2, 0.0) / max(count, 1)


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
        k = products * inv_std * inv_std / count
        b = 0.0 if is_fixed else total / count - slip * k
        one = x.dtype.type
        a, b_, k_ = one(gamma[c] * inv_std), one(b), one(k)
        for p in range(x.shape[0]):
            if is_fixed:  # x has no part in it, not even where it is infinite
                row_affine(y_bar[p, c], x_bar[p, c], b_, a, b_)
            elif own:
                row_back_over(x_bar[p, c], x[p, c], centre, a, b_, k_)
            else:
                row_back(y_bar[p, c], x[p, c], x_bar[p, c], centre, a, b_, k_)


def _forward(xp, x, gamma, beta, *, mean=None, var=None, axis=None, eps=1e-5):
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    batch_last, is_fixed = is_batch_last(x), mean is not None
    blocks = to_blocks(x, batch_last)
    if is_fixed:
        mu, variance = np.array(mean, np.float64), np.array(var, np.float64)
    else:
        mu, variance = np.empty(x.shape[1]), np.empty(x.shape[1])
    y = empty(blocks.shape, x.dtype)
    blocks, gamma, beta = read(blocks), read(gamma), read(beta)
    known = gamma, beta, float(eps), is_fixed
    if blocks.shape[2] == 1:
        forward_columns(blocks[:, :, 0], *known, mu, variance, y[:, :, 0])
    else:
        forward_blocks(blocks, *known, mu, variance, y)
    # x itself, which the graph holds anyway; no deviations are kept
    cache = vectorized.Cache(mu, variance, blocks, gamma, float(eps), batch_last, is_fixed)
    return from_blocks(y, x.shape, batch_last), cache


def _backward(xp, y_bar, cache, own=False):
    mean, var, x, gamma, eps, batch_last, is_fixed, _ = cache
    g = to_blocks(y_bar, batch_last)
    own = own and g.flags.c_contiguous
    x_bar = g if own else empty(x.shape, x.dtype)
    gamma_bar, beta_bar = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    known, found = (gamma, eps, is_fixed, mean, var), (gamma_bar, beta_bar, own)
    if x.shape[2] == 1:
        backward_columns(read(g[:, :, 0]), x[:, :, 0], *known, x_bar[:, :, 0], *found)
    else:
        backward_blocks(read(g), x, *known, x_bar, *found)
    return from_blocks(x_bar, y_bar.shape, batch_last), gamma_bar, beta_bar


batch_norm = Pair(_forward, _backward, vectorized.accepts, reuses=True)
