"""Batch norm of (N, C): tasks are blocks of rows and, of long rows, tiles of columns.

Parts of columns alone would fall on the same few lines of a cache where C is a power of 2. Rows are
cut from the whole array: of a part of it numba would not know that they are contiguous.
"""

import numpy as np
from numba import prange

from minigrad.fused.compiled.jit import inner, kernel
from minigrad.fused.compiled.products import merged

ROWS = 64  # rows that are summed in their own precision before float64 takes over
FEW = 4  # rows whose mean is subtracted from those
TASKS = 16  # parts of the rows, at most
WIDE = 1024  # columns of one task: their sums stay in the first-level cache


@inner
def height_of(x):
    """Rows of one task; the number of threads has no influence on it, and so none on a sum."""
    return max(-(-x.shape[0] // (TASKS * ROWS)), 1) * ROWS


@inner
def part_of(x, task):
    """Which block of rows, its first and last row, and the first and last column of a task."""
    height, tiles = height_of(x), -(-x.shape[1] // WIDE)
    block, start = task // tiles, task % tiles * WIDE
    first = block * height
    return block, first, min(first + height, x.shape[0]), start, min(start + WIDE, x.shape[1])


@inner
def vector(x, size):
    """An empty row; rows of one larger array would not be known as contiguous."""
    return np.empty(size, x.dtype)


@inner
def add(row, total):
    for j in range(total.size):
        total[j] += row[j]


@inner
def add_deviations(x, r, start, stop, centre, total, squares):
    row = x[r, start:stop]
    for j in range(centre.size):
        d = row[j] - centre[j]
        total[j] += d
        squares[j] += d * d


@inner
def add_4_deviations(x, r, start, stop, centre, total, squares):
    r0, r1 = x[r, start:stop], x[r + 1, start:stop]
    r2, r3 = x[r + 2, start:stop], x[r + 3, start:stop]
    for j in range(centre.size):
        c = centre[j]
        d0, d1, d2, d3 = r0[j] - c, r1[j] - c, r2[j] - c, r3[j] - c
        total[j] += (d0 + d1) + (d2 + d3)
        squares[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)


@inner
def block_statistics(x, first, last, start, stop, mean, m2):
    """Mean and sum of squared deviations of some rows of some columns, read once.

    They are taken ``ROWS`` at a time, about the mean of the first ``FEW``, and merged by Chan's
    formula. No FEW of n values have a mean farther than sqrt((n - FEW) / FEW) standard deviations
    from that of all (Samuelson): no more than 16 times the squares are added than are left.
    """
    centre, total, squares = vector(x, mean.size), vector(x, mean.size), vector(x, mean.size)
    mean[:] = 0
    m2[:] = 0
    for p in range(first, last, ROWS):
        n = min(last - p, ROWS)
        few = min(n, FEW)
        part = x.dtype.type(1 / few)
        total[:] = 0
        for r in range(p, p + few):
            add(x[r, start:stop], total)
        for j in range(centre.size):
            centre[j] = part * total[j]
        total[:] = 0
        squares[:] = 0
        whole = p + n // 4 * 4
        for r in range(p, whole, 4):
            add_4_deviations(x, r, start, stop, centre, total, squares)
        for r in range(whole, p + n):
            add_deviations(x, r, start, stop, centre, total, squares)
        before = p - first
        one = 1 / n
        for j in range(centre.size):
            slip = np.float64(total[j]) * one
            its_m2 = squares[j] - n * slip * slip
            mean[j], m2[j] = merged(before, mean[j], m2[j], n, centre[j] + slip, its_m2)


@inner
def merged_statistics(x, means, m2s, mean, m2):
    """Mean and biased variance of all rows from those of blocks; ``m2`` becomes the variance."""
    rows, height = x.shape[0], height_of(x)
    mean[:] = 0
    m2[:] = 0
    for i in range(means.shape[0]):
        before = i * height
        n = min(rows - before, height)
        its_mean, its_m2 = means[i], m2s[i]
        for c in range(mean.size):
            mean[c], m2[c] = merged(before, mean[c], m2[c], n, its_mean[c], its_m2[c])
    for c in range(mean.size):
        m2[c] = max(m2[c], 0.0) / max(rows, 1)


@inner
def column_affine(row, out, centre, a, b):
    for j in range(out.size):
        out[j] = (row[j] - centre[j]) * a[j] + b[j]


@kernel
def forward_columns(x, gamma, beta, eps, is_fixed, mean, var, y):
    rows, columns = x.shape
    blocks = max(-(-rows // height_of(x)), 1)
    tasks = blocks * -(-columns // WIDE)
    centre, a, b = vector(x, columns), vector(x, columns), vector(x, columns)
    if not is_fixed:
        means, m2s = np.empty((blocks, columns)), np.empty((blocks, columns))
        for task in prange(tasks):
            block, first, last, start, stop = part_of(x, task)
            its = means[block, start:stop], m2s[block, start:stop]
            block_statistics(x, first, last, start, stop, *its)
        merged_statistics(x, means, m2s, mean, var)
    for c in range(columns):
        centre[c] = mean[c]
        scale = gamma[c] / np.sqrt(var[c] + eps)
        a[c], b[c] = scale, beta[c] - (mean[c] - np.float64(centre[c])) * scale
    for task in prange(tasks):
        _, first, last, start, stop = part_of(x, task)
        known = centre[start:stop], a[start:stop], b[start:stop]
        for r in range(first, last):
            column_affine(x[r, start:stop], y[r, start:stop], *known)


@inner
def add_2_products(y_bar, x, r, start, stop, centre, total, products):
    g0, g1 = y_bar[r, start:stop], y_bar[r + 1, start:stop]
    r0, r1 = x[r, start:stop], x[r + 1, start:stop]
    for j in range(centre.size):
        total[j] += g0[j] + g1[j]
        products[j] += g0[j] * (r0[j] - centre[j]) + g1[j] * (r1[j] - centre[j])


@inner
def block_products(y_bar, x, first, last, start, stop, centre, total, products):
    """Sums over some rows of ``y_bar`` and of ``y_bar (x - centre)``, of some columns."""
    part, part_products = vector(x, centre.size), vector(x, centre.size)
    total[:] = 0
    products[:] = 0
    for p in range(first, last, ROWS):
        end = min(last, p + ROWS)
        part[:] = 0
        part_products[:] = 0
        for r in range(p, end - 1, 2):
            add_2_products(y_bar, x, r, start, stop, centre, part, part_products)
        if (end - p) % 2:
            g, row = y_bar[end - 1, start:stop], x[end - 1, start:stop]
            for j in range(centre.size):
                part[j] += g[j]
                part_products[j] += g[j] * (row[j] - centre[j])
        for j in range(centre.size):
            total[j] += part[j]
            products[j] += part_products[j]


@inner
def column_back(g, row, out, centre, a, b, k):
    for j in range(out.size):
        out[j] = a[j] * (g[j] - b[j] - (row[j] - centre[j]) * k[j])


@inner
def column_back_over(g, row, centre, a, b, k):
    for j in range(g.size):
        g[j] = a[j] * (g[j] - b[j] - (row[j] - centre[j]) * k[j])


@kernel
def backward_columns(y_bar, x, gamma, eps, is_fixed, mean, var, x_bar, gamma_bar, beta_bar, own):
    rows, columns = x.shape
    blocks = max(-(-rows // height_of(x)), 1)
    tasks = blocks * -(-columns // WIDE)
    totals, products = np.empty((blocks, columns)), np.empty((blocks, columns))
    centre, a = vector(x, columns), vector(x, columns)
    b, k = vector(x, columns), vector(x, columns)
    share = 1 / max(rows, 1)
    for c in range(columns):
        centre[c] = mean[c]
    for task in prange(tasks):
        block, first, last, start, stop = part_of(x, task)
        its = centre[start:stop], totals[block, start:stop], products[block, start:stop]
        block_products(y_bar, x, first, last, start, stop, *its)
    for block in range(1, blocks):
        add(totals[block], totals[0])
        add(products[block], products[0])
    for c in range(columns):
        inv_std = 1 / np.sqrt(var[c] + eps)
        slip = mean[c] - np.float64(centre[c])
        total = totals[0, c]
        product = products[0, c] - slip * total
        gamma_bar[c], beta_bar[c] = product * inv_std, total
        k_c = share * product * inv_std * inv_std
        b_c = 0.0 if is_fixed else share * total - slip * k_c
        a[c], b[c], k[c] = gamma[c] * inv_std, b_c, k_c
    for task in prange(tasks):
        _, first, last, start, stop = part_of(x, task)
        its_a, its_b = a[start:stop], b[start:stop]
        known = centre[start:stop], its_a, its_b, k[start:stop]
        for r in range(first, last):
            row, out = x[r, start:stop], x_bar[r, start:stop]
            if is_fixed:  # x has no part in it, not even where it is infinite
                column_affine(y_bar[r, start:stop], out, its_b, its_a, its_b)
            elif own:
                column_back_over(out, row, *known)
            else:
                column_back(y_bar[r, start:stop], row, out, *known)
