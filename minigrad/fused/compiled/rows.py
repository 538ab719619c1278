"""Kernels that walk rows: layer norm and group norm.

A task is a row, which is walked several times: sums, then results. A row of group norm is a group
of channels of one example. The cotangents of layer norm's gamma and beta are sums over all rows;
there a task is a tile of columns. A partial sum of CHUNK elements, or of ROWS rows, has the
precision of the array; these are added in float64.
"""

from math import prod

import numpy as np
from numba import prange

from minigrad.fused.compiled.channels import row_affine, row_products
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read, summing
from minigrad.fused.compiled.products import row_deviations, row_sum
from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.memory import empty_like
from minigrad.ops.normalization import check_group_norm, check_layer_norm

TILE, ROWS = 64, 64  # columns of a task; rows of a partial sum in the array's own precision


@inner
def moments(row):
    """Mean and biased variance, in two passes.

    The second sums deviations from the rounded mean. Their mean, ``offset``, corrects the mean, and
    its square the variance.
    """
    n, total = row.size, 0.0
    for start in range(0, n, CHUNK):
        total += row_sum(row[start : start + CHUNK])
    centre = row.dtype.type(total / n)
    deviations, squares = 0.0, 0.0
    for start in range(0, n, CHUNK):
        part, part_squares = row_deviations(row[start : start + CHUNK], centre)
        deviations += part
        squares += part_squares
    offset = deviations / n
    return np.float64(centre) + offset, max(squares / n - offset * offset, 0.0)


@kernel
def forward_layer(x, gamma, beta, eps, mean, inv_std, y):
    """Subtracts the mean as a rounded part and its remainder."""
    for r in prange(x.shape[0]):
        row, out, cast = x[r], y[r], x.dtype.type
        mean[r], var = moments(row)
        inv_std[r] = 1 / np.sqrt(var + eps)
        centre = cast(mean[r])
        offset = mean[r] - np.float64(centre)
        scale, shift = cast(inv_std[r]), cast(offset * inv_std[r])
        for i in range(row.size):
            out[i] = ((row[i] - centre) * scale - shift) * gamma[i] + beta[i]


@summing
def layer_products(g, row, gamma, centre, scale, shift):
    """The sums of ``g * gamma`` and of ``g * gamma * x_hat``."""
    total, products = row.dtype.type(0), row.dtype.type(0)
    for i in range(row.size):
        total += g[i] * gamma[i]
        products += g[i] * gamma[i] * ((row[i] - centre) * scale - shift)
    return total, products


@kernel
def backward_layer(y_bar, x, gamma, mean, inv_std, x_bar):
    """``x_bar = inv_std * (g - mean(g) - x_hat * mean(g * x_hat))`` with ``g = gamma * y_bar``."""
    for r in prange(x.shape[0]):
        g, row, out = y_bar[r], x[r], x_bar[r]
        n, cast = row.size, row.dtype.type
        centre, scale = cast(mean[r]), cast(inv_std[r])
        shift = cast((mean[r] - np.float64(centre)) * inv_std[r])
        total, products = 0.0, 0.0
        for start in range(0, n, CHUNK):
            chunk = slice(start, start + CHUNK)
            part, part_products = layer_products(
                g[chunk], row[chunk], gamma[chunk], centre, scale, shift
            )
            total += part
            products += part_products
        b, k = cast(total / n), cast(products / n)
        for i in range(n):
            x_hat = (row[i] - centre) * scale - shift
            out[i] = scale * (g[i] * gamma[i] - b - x_hat * k)


@kernel
def backward_layer_parameters(y_bar, x, mean, inv_std, gamma_bar, beta_bar):
    """Sums over the rows: of ``y_bar * x_hat`` for gamma, and of ``y_bar`` for beta."""
    for tile in prange((x.shape[1] + TILE - 1) // TILE):
        start, stop = tile * TILE, min(tile * TILE + TILE, x.shape[1])
        total, products = np.zeros(stop - start), np.zeros(stop - start)
        part, part_products = np.empty(stop - start, x.dtype), np.empty(stop - start, x.dtype)
        for first in range(0, x.shape[0], ROWS):
            part[:] = 0
            part_products[:] = 0
            for r in range(first, min(first + ROWS, x.shape[0])):
                g, row = y_bar[r, start:stop], x[r, start:stop]
                centre, scale = x.dtype.type(mean[r]), x.dtype.type(inv_std[r])
                shift = x.dtype.type((mean[r] - np.float64(centre)) * inv_std[r])
                for j in range(part.size):
                    part[j] += g[j]
                    part_products[j] += g[j] * ((row[j] - centre) * scale - shift)
            for j in range(part.size):
                total[j] += part[j]
                products[j] += part_products[j]
        for j in range(part.size):
            beta_bar[start + j], gamma_bar[start + j] = total[j], products[j]


def _layer_norm(xp, x, gamma, beta, *, eps=1e-5):
    check_layer_norm(x, gamma, beta)
    rows = np.ascontiguousarray(x).reshape(-1, gamma.size)
    mean, inv_std = np.empty((2, len(rows)))
    y = empty_like(rows)
    scale = read(gamma.reshape(-1))
    forward_layer(read(rows), scale, read(beta.reshape(-1)), float(eps), mean, inv_std, y)
    return y.reshape(x.shape), (rows, scale, gamma.shape, mean, inv_std)


def _layer_norm_backward(xp, y_bar, cache):
    x, gamma, shape, mean, inv_std = cache
    g = read(np.ascontiguousarray(y_bar).reshape(x.shape))
    x_bar, parameters = empty_like(x), np.empty((2, gamma.size), x.dtype)
    backward_layer(g, read(x), gamma, mean, inv_std, x_bar)
    backward_layer_parameters(g, read(x), mean, inv_std, *parameters)
    return x_bar.reshape(y_bar.shape), *(p.reshape(shape) for p in parameters)


def _accepts_layer_norm(x, gamma, beta, **_):
    return gamma.ndim > 0 and same_floats(x, gamma, beta)


@kernel
def forward_groups(x, gamma, beta, eps, mean, inv_std, y):
    """``y = (x - centre) * a + b``, a and b per channel. x, y: (R, K, S), K channels in a group."""
    for r in prange(x.shape[0]):
        mean[r], var = moments(x[r].reshape(-1))
        inv_std[r] = 1 / np.sqrt(var + eps)
        cast = x.dtype.type
        centre = cast(mean[r])
        offset = mean[r] - np.float64(centre)
        first = r * x.shape[1] % gamma.size
        for k in range(x.shape[1]):
            a = gamma[first + k] * inv_std[r]
            row_affine(x[r, k], y[r, k], centre, cast(a), cast(beta[first + k] - offset * a))


@inner
def group_x_bar(g, row, out, centre, a, b, k):
    for i in range(row.size):
        out[i] = a * g[i] - b - (row[i] - centre) * k


@inner
def group_x_bar_in_place(g, row, centre, a, b, k):
    """``group_x_bar`` in place: with two names for one array its loop would not vectorize."""
    for i in range(row.size):
        g[i] = a * g[i] - b - (row[i] - centre) * k


@kernel
def backward_groups(y_bar, x, gamma, mean, inv_std, x_bar, totals, products, own):
    """``x_bar = a * y_bar - b - k * (x - centre)``: b is the mean path, k the variance path.

    Sets the sums of y_bar and of y_bar * x_hat of each channel of each group, (R, K).
    """
    for r in prange(x.shape[0]):
        cast = x.dtype.type
        centre = cast(mean[r])
        offset = mean[r] - np.float64(centre)
        first = r * x.shape[1] % gamma.size
        total, product = 0.0, 0.0
        for k in range(x.shape[1]):
            of_g, of_products = 0.0, 0.0
            for start in range(0, x.shape[2], CHUNK):
                g, row = y_bar[r, k, start : start + CHUNK], x[r, k, start : start + CHUNK]
                part, part_products = row_products(g, row, centre)
                of_g += part
                of_products += part_products
            totals[r, k], products[r, k] = of_g, (of_products - offset * of_g) * inv_std[r]
            total += gamma[first + k] * totals[r, k]
            product += gamma[first + k] * products[r, k]
        share = inv_std[r] / x[r].size
        slope = share * product * inv_std[r]
        b, slope_ = cast(share * total - offset * slope), cast(slope)
        for k in range(x.shape[1]):
            a = cast(gamma[first + k] * inv_std[r])
            if own:
                group_x_bar_in_place(x_bar[r, k], x[r, k], centre, a, b, slope_)
            else:
                group_x_bar(y_bar[r, k], x[r, k], x_bar[r, k], centre, a, b, slope_)


def _group_norm(xp, x, gamma, beta, *, num_groups, eps=1e-5):
    check_group_norm(x, gamma, beta, num_groups)
    n, channels, *sizes = x.shape
    rows = read(x.reshape(n * num_groups, channels // num_groups, prod(sizes)))
    mean, inv_std = np.empty((2, len(rows)))
    y, scale = empty_like(rows), read(gamma)
    forward_groups(rows, scale, read(beta), float(eps), mean, inv_std, y)
    return y.reshape(x.shape), (rows, scale, mean, inv_std)


def _group_norm_backward(xp, y_bar, cache, own=False):
    x, gamma, mean, inv_std = cache
    g = y_bar.reshape(x.shape)
    own = own and g.flags.c_contiguous
    x_bar = g if own else empty_like(x)
    totals, products = np.empty((2, *x.shape[:2]))
    backward_groups(read(g), x, gamma, mean, inv_std, x_bar, totals, products, own)
    gamma_bar, beta_bar = (
        s.reshape(-1, gamma.size).sum(0).astype(x.dtype) for s in (products, totals)
    )
    return x_bar.reshape(y_bar.shape), gamma_bar, beta_bar


def _accepts_group_norm(x, gamma, beta, *, num_groups, **_):
    is_one_each = prod(x.shape[2:]) == 1  # one value per channel: vectors of single values are slow
    return x.ndim >= 2 and not is_one_each and same_floats(x, gamma, beta)


layer_norm = Pair(_layer_norm, _layer_norm_backward, _accepts_layer_norm)
group_norm = Pair(_group_norm, _group_norm_backward, _accepts_group_norm, reuses=True)
