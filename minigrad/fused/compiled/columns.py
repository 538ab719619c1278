"""Batch norm of (N, C * S): a task is a block of rows and, where rows are long, a tile of columns.

A channel has S columns side by side: one where x is (N, C), the positions of small images. Columns
are summed separately, then those of a channel together.

The forward reads x twice: once for the mean and the squared deviations of each block, which are
merged, once to write y. The backward reads x and y_bar twice: once for the sums of each block, once
to write x_bar. ROWS rows at a time are summed in the precision of the array; the partial sums are
added in float64.

Tasks of columns alone would compete for the same few cache lines where C is a power of 2. Helpers
take the whole array and the bounds of a task: numba knows that rows of the array are contiguous,
but would not know it of rows of a slice.
"""

import numpy as np
from numba import prange

from minigrad.fused.compiled.jit import inner, kernel
from minigrad.fused.compiled.products import add, merged

ROWS = 64  # rows of a partial sum in the array's own precision
FEW = 4  # the first of these rows, whose mean is subtracted from all of them
TASKS = 16  # blocks of rows, at most
WIDE = 1024  # columns of a task: their sums stay in the first-level cache


@inner
def height_of(x):
    """Rows of a block. It does not depend on the number of threads, so sums do not, either."""
    return max(-(-x.shape[0] // (TASKS * ROWS)), 1) * ROWS


@inner
def part_of(x, task):
    """The block of a task, and the bounds of its rows and of its columns."""
    height, tiles = height_of(x), -(-x.shape[1] // WIDE)
    block, start = task // tiles, task % tiles * WIDE
    first = block * height
    return block, first, min(first + height, x.shape[0]), start, min(start + WIDE, x.shape[1])


@inner
def vector(x, size):
    """An uninitialized row; numba would not know that a row of a larger array is contiguous."""
    return np.empty(size, x.dtype)


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
    """Mean and m2, the sum of squared deviations, of each column of a task, read once.

    ROWS rows at a time are summed as deviations from the mean of the first FEW, and merged by
    Chan's formula. The mean of FEW of n values is at most sqrt((n - FEW) / FEW) standard deviations
    from the mean of all (Samuelson's inequality), so the sum of squares is at most n / FEW <= 16
    times the m2 that is left of it: cancellation costs no more than that factor.
    """
    centre, total, squares = vector(x, mean.size), vector(x, mean.size), vector(x, mean.size)
    mean[:] = 0
    m2[:] = 0
    for p in range(first, last, ROWS):
        n = min(last - p, ROWS)
        few = min(n, FEW)
        share = x.dtype.type(1 / few)
        total[:] = 0
        for r in range(p, p + few):
            add(x[r, start:stop], total)
        for j in range(centre.size):
            centre[j] = share * total[j]
        total[:] = 0
        squares[:] = 0
        whole = p + n // 4 * 4
        for r in range(p, whole, 4):
            add_4_deviations(x, r, start, stop, centre, total, squares)
        for r in range(whole, p + n):
            add_deviations(x, r, start, stop, centre, total, squares)
        before = p - first
        inverse = 1 / n
        for j in range(centre.size):
            offset = np.float64(total[j]) * inverse  # of the mean of these rows from their centre
            m2_b = squares[j] - n * offset * offset
            mean[j], m2[j] = merged(before, mean[j], m2[j], n, centre[j] + offset, m2_b)


@inner
def merged_statistics(x, means, m2s, mean, var):
    """Set mean and biased variance of each channel, from mean and m2 of each block of its columns.

    The blocks of a column are merged into the first one, which is overwritten.
    """
    rows, height, size = x.shape[0], height_of(x), x.shape[1] // max(mean.size, 1)
    mean_a, m2_a = means[0], m2s[0]
    for i in range(1, means.shape[0]):
        before = i * height
        n = min(rows - before, height)
        mean_b, m2_b = means[i], m2s[i]
        for j in range(mean_a.size):
            mean_a[j], m2_a[j] = merged(before, mean_a[j], m2_a[j], n, mean_b[j], m2_b[j])
    for c in range(mean.size):
        mean[c], var[c] = mean_a[c * size], m2_a[c * size]
        for j in range(c * size + 1, c * size + size):
            before = (j - c * size) * rows
            mean[c], var[c] = merged(before, mean[c], var[c], rows, mean_a[j], m2_a[j])
    for c in range(mean.size):
        var[c] = max(var[c], 0.0) / max(rows * size, 1)


@inner
def repeated(values, size):
    """The value of each channel for its ``size`` columns."""
    if size == 1:
        return values
    out = np.empty(values.size * size, values.dtype)
    for c in range(values.size):
        out[c * size : c * size + size] = values[c]
    return out


@inner
def summed(values, size):
    """The sums over the ``size`` columns of each channel."""
    if size == 1:
        return values
    out = np.zeros(values.size // max(size, 1))
    for c in range(out.size):
        for j in range(c * size, c * size + size):
            out[c] += values[j]
    return out


@inner
def column_affine(row, out, centre, a, b):
    for j in range(out.size):
        out[j] = (row[j] - centre[j]) * a[j] + b[j]


@kernel
def forward_columns(x, gamma, beta, eps, is_fixed, mean, var, y):
    """Statistics, unless they are given, then ``y = (x - centre) * a + b``.

    ``centre`` is the mean in the precision of x; b corrects its rounding.
    """
    rows, columns = x.shape
    blocks = max(-(-rows // height_of(x)), 1)
    tasks = blocks * -(-columns // WIDE)
    if not is_fixed:
        means, m2s = np.empty((blocks, columns)), np.empty((blocks, columns))
        for task in prange(tasks):
            block, first, last, start, stop = part_of(x, task)
            results = means[block, start:stop], m2s[block, start:stop]
            block_statistics(x, first, last, start, stop, *results)
        merged_statistics(x, means, m2s, mean, var)
    centre, a, b = vector(x, mean.size), vector(x, mean.size), vector(x, mean.size)
    for c in range(mean.size):
        centre[c] = mean[c]
        scale = gamma[c] / np.sqrt(var[c] + eps)
        a[c], b[c] = scale, beta[c] - (mean[c] - np.float64(centre[c])) * scale
    size = columns // max(mean.size, 1)
    centre, a, b = repeated(centre, size), repeated(a, size), repeated(b, size)
    for task in prange(tasks):
        _, first, last, start, stop = part_of(x, task)
        coefficients = centre[start:stop], a[start:stop], b[start:stop]
        for r in range(first, last):
            column_affine(x[r, start:stop], y[r, start:stop], *coefficients)


@inner
def add_2_products(y_bar, x, r, start, stop, centre, total, products):
    g0, g1 = y_bar[r, start:stop], y_bar[r + 1, start:stop]
    r0, r1 = x[r, start:stop], x[r + 1, start:stop]
    for j in range(centre.size):
        total[j] += g0[j] + g1[j]
        products[j] += g0[j] * (r0[j] - centre[j]) + g1[j] * (r1[j] - centre[j])


@inner
def block_products(y_bar, x, first, last, start, stop, centre, total, products):
    """The sums of y_bar and of y_bar * (x - centre) in each column of a task."""
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
def column_x_bar(g, row, out, centre, a, b, k):
    for j in range(out.size):
        out[j] = a[j] * (g[j] - b[j] - (row[j] - centre[j]) * k[j])


@inner
def column_x_bar_in_place(g, row, centre, a, b, k):
    for j in range(g.size):
        g[j] = a[j] * (g[j] - b[j] - (row[j] - centre[j]) * k[j])


@kernel
def backward_columns(y_bar, x, gamma, eps, is_fixed, mean, var, x_bar, gamma_bar, beta_bar, own):
    """``x_bar = a * (y_bar - b - k * (x - centre))``: b is the mean path, k the variance path.

    In evaluation ``x_bar = a * y_bar``. If ``own`` is true, x_bar is y_bar itself, writable.
    """
    rows, columns = x.shape
    blocks = max(-(-rows // height_of(x)), 1)
    tasks = blocks * -(-columns // WIDE)
    totals, products = np.empty((blocks, columns)), np.empty((blocks, columns))
    rounded, a = vector(x, mean.size), vector(x, mean.size)
    b, k = vector(x, mean.size), vector(x, mean.size)
    size = columns // max(mean.size, 1)
    share = 1 / max(rows * size, 1)
    for c in range(mean.size):
        rounded[c] = mean[c]
    centre = repeated(rounded, size)
    for task in prange(tasks):
        block, first, last, start, stop = part_of(x, task)
        sums = totals[block, start:stop], products[block, start:stop]
        block_products(y_bar, x, first, last, start, stop, centre[start:stop], *sums)
    for block in range(1, blocks):
        add(totals[block], totals[0])
        add(products[block], products[0])
    total, with_centre = summed(totals[0], size), summed(products[0], size)
    for c in range(mean.size):
        inv_std = 1 / np.sqrt(var[c] + eps)
        offset = mean[c] - np.float64(rounded[c])
        product = with_centre[c] - offset * total[c]
        gamma_bar[c], beta_bar[c] = product * inv_std, total[c]
        k_c = share * product * inv_std * inv_std
        b_c = 0.0 if is_fixed else share * total[c] - offset * k_c
        a[c], b[c], k[c] = gamma[c] * inv_std, b_c, k_c
    a, b, k = repeated(a, size), repeated(b, size), repeated(k, size)
    for task in prange(tasks):
        _, first, last, start, stop = part_of(x, task)
        a_part, b_part = a[start:stop], b[start:stop]
        coefficients = centre[start:stop], a_part, b_part, k[start:stop]
        for r in range(first, last):
            row, out = x[r, start:stop], x_bar[r, start:stop]
            if is_fixed:  # x_bar does not depend on x, not even where x is infinite
                column_affine(y_bar[r, start:stop], out, b_part, a_part, b_part)
            elif own:
                column_x_bar_in_place(out, row, *coefficients)
            else:
                column_x_bar(y_bar[r, start:stop], row, out, *coefficients)
