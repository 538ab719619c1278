"""Batch norm of (N, C, ...) as (P, C, S): a task is a channel: P rows of S values.

The forward reads a channel twice: for its statistics, and to write y. The backward reads x and
y_bar twice: for their sums, and to write x_bar. Chunks are summed in the precision of the array,
their sums added in float64. (N, C) and small images have short rows: see ``columns``.
"""

import numpy as np
from numba import prange

from minigrad.fused import normalization as vectorized
from minigrad.fused.compiled.columns import backward_columns, forward_columns
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read, summing
from minigrad.fused.compiled.products import merged, row_deviations, row_sum
from minigrad.fused.compiled.stream import bypasses, stream
from minigrad.fused.declare import Pair
from minigrad.fused.layout import from_blocks, is_batch_last, to_blocks
from minigrad.fused.memory import empty
from minigrad.ops.normalization import check_batch_norm

SHORT = 64  # elements of a row up to which columns are summed instead, if rows are many (measured)


@summing
def row_products(g, row, centre):
    """The sums of ``g`` and of ``g * (row - centre)``."""
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
def row_x_bar(g, row, out, centre, a, b, k):
    for i in range(row.size):
        out[i] = a * (g[i] - b - (row[i] - centre) * k)


@inner
def row_x_bar_in_place(g, row, centre, a, b, k):
    """``row_x_bar`` in place: with two names for one array its loop would not vectorize."""
    for i in range(row.size):
        g[i] = a * (g[i] - b - (row[i] - centre) * k)


@inner
def statistics(x, c):
    """Mean and biased variance of ``x[:, c]``; chunks are merged by Chan's formula.

    A chunk is a part of a long row, or some short rows. Its deviations are taken from the mean of
    the chunks before it (the first: from its own), and ``n * offset^2`` is subtracted from the sum
    of their squares. As no chunk is larger than the first, merging adds at least half of that
    again, so the cancellation is harmless.
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
            if not count:
                for q in range(p, last):
                    mean += row_sum(x[q, c, start:stop]) / n
            centre = x.dtype.type(mean)
            for q in range(p, last):
                row_total, row_squares = row_deviations(x[q, c, start:stop], centre)
                total += row_total
                squares += row_squares
            offset = total / n  # of the mean of the chunk from the centre
            m2_b = squares - n * offset * offset
            mean, m2 = merged(count, mean, m2, n, np.float64(centre) + offset, m2_b)
            count += n
    return mean, max(m2, 0.0) / max(count, 1)


@kernel
def forward_blocks(x, gamma, beta, eps, is_fixed, mean, var, y, streams):
    """As ``forward_columns``, channel by channel; if ``streams``, y bypasses the caches."""
    for c in prange(x.shape[1]):
        if not is_fixed:
            mean[c], var[c] = statistics(x, c)
        scale = gamma[c] / np.sqrt(var[c] + eps)
        centre = x.dtype.type(mean[c])
        shift = beta[c] - (mean[c] - np.float64(centre)) * scale
        a, b = x.dtype.type(scale), x.dtype.type(shift)
        spare = np.empty(CHUNK if streams else 0, x.dtype)
        for p in range(x.shape[0]):
            for start in range(0, x.shape[2], CHUNK):
                row, out = x[p, c, start : start + CHUNK], y[p, c, start : start + CHUNK]
                target = spare if streams else out
                row_affine(row, target, centre, a, b)
                if streams:
                    stream(spare, out)


@kernel
def backward_blocks(
    y_bar, x, gamma, eps, is_fixed, mean, var, x_bar, gamma_bar, beta_bar, own, streams
):
    """As ``backward_columns``, channel by channel; if ``streams``, x_bar bypasses the caches."""
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
        offset = mean[c] - np.float64(centre)
        products -= offset * total
        gamma_bar[c], beta_bar[c] = products * inv_std, total
        k = products * inv_std * inv_std / count
        b = 0.0 if is_fixed else total / count - offset * k
        cast = x.dtype.type
        a, b_, k_ = cast(gamma[c] * inv_std), cast(b), cast(k)
        spare = np.empty(CHUNK if streams else 0, x.dtype)
        for p in range(x.shape[0]):
            if is_fixed:  # x_bar does not depend on x, not even where x is infinite
                row_affine(y_bar[p, c], x_bar[p, c], b_, a, b_)
            elif own:
                row_x_bar_in_place(x_bar[p, c], x[p, c], centre, a, b_, k_)
            else:
                for start in range(0, x.shape[2], CHUNK):
                    g, row = y_bar[p, c, start : start + CHUNK], x[p, c, start : start + CHUNK]
                    out = x_bar[p, c, start : start + CHUNK]
                    target = spare if streams else out
                    row_x_bar(g, row, target, centre, a, b_, k_)
                    if streams:
                        stream(spare, out)


def _are_columns(blocks):
    """Whether rows are so short, and so many, that sums of columns are faster."""
    rows, _, size = blocks.shape
    return 0 < size <= min(SHORT, max(2 * rows, 1))


def _columns(blocks):
    """(P, C, S) as (P, C * S); a view."""
    rows, channels, size = blocks.shape
    return blocks.reshape(rows, channels * size)


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
    given = gamma, beta, float(eps), is_fixed
    if _are_columns(blocks):
        forward_columns(_columns(blocks), *given, mu, variance, _columns(y))
    else:
        forward_blocks(blocks, *given, mu, variance, y, bypasses(y))
    # keeps x itself, which the graph holds anyway, instead of deviations
    cache = vectorized.Cache(mu, variance, blocks, gamma, float(eps), batch_last, is_fixed)
    return from_blocks(y, x.shape, batch_last), cache


def _backward(xp, y_bar, cache, own=False):
    mean, var, x, gamma, eps, batch_last, is_fixed, _ = cache
    g = to_blocks(y_bar, batch_last)
    own = own and g.flags.c_contiguous
    x_bar = g if own else empty(x.shape, x.dtype)
    gamma_bar, beta_bar = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    given, results = (gamma, eps, is_fixed, mean, var), (gamma_bar, beta_bar, own)
    if _are_columns(x):
        backward_columns(read(_columns(g)), _columns(x), *given, _columns(x_bar), *results)
    else:
        backward_blocks(read(g), x, *given, x_bar, *results, bypasses(x_bar))
    return from_blocks(x_bar, y_bar.shape, batch_last), gamma_bar, beta_bar


batch_norm = Pair(_forward, _backward, vectorized.accepts, reuses=True)
