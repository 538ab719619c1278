"""Kernels that walk rows: activations, layer norm, softmax with cross entropy.

Activations see an array as one row; a task is a chunk of it, read and written once. For layer
norm and cross entropy a task is a row, which is walked several times: sums, then results. The
cotangents of gamma and beta are sums over all rows; there a task is a tile of columns. A partial
sum of CHUNK elements, or of ROWS rows, has the precision of the array; these are added in float64.
"""

from math import pi
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import intrinsic, overload

from minigrad import special
from minigrad.fused import loss
from minigrad.fused.activation import pull_slope
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read, summing
from minigrad.fused.compiled.products import row_deviations, row_sum
from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.layout import axes_in_memory, flat, unflat
from minigrad.fused.memory import empty_like
from minigrad.ops.loss import checked_labels
from minigrad.ops.normalization import check_layer_norm

MIN_RELU = 32768  # elements; below, NumPy computes a ReLU as fast (measured)
TILE, ROWS = 64, 64  # columns of a task; rows of a partial sum in the array's own precision

# e^t = 2^n e^r with an integer n and r = t - n ln(2), |r| <= ln(2) / 2. ln(2) is the sum of two
# parts; the first has trailing zeros, so that n times it is exact. e^r is 1 + r + r^2 times a
# polynomial. Polynomial and parts: Cephes expf (Moshier 1989).
_LOG2_E, _LN2_HIGH, _LN2_LOW = (
    np.float32(c) for c in (1.44269504088896341, 0.693359375, -2.12194440e-4)
)
_P0, _P1, _P2, _P3, _P4, _P5 = (
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
              1.6666665459e-1, 5.0000001201e-1)
)  # fmt: skip
_HALF, _ONE, _ZERO, _LOWEST = (np.float32(c) for c in (0.5, 1, 0, -104))  # e^-104 rounds to 0
_E0, _E1, _E2, _E3, _E4, _E5, _E6, _E7, _E8 = map(np.float32, special.ERFC_32)
_SCALE, _PEAK = np.float32(0.5**1.5), np.float32((2 * pi) ** -0.5)


def _float_of(context, bits):
    """The float32 with the bits of an int32."""

    def bitcast(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), bitcast


float_of: Any = intrinsic(_float_of)


@inner
def pow2(n):
    """``2^n`` for -126 <= n <= 127."""
    return float_of(np.int32(n + 127) << 23)


@inner
def exp32(t):
    """``e^t`` for float32, ``t <= 0``."""
    t = _LOWEST if t < _LOWEST else t  # nan stays nan
    n = np.int32((t if t == t else _ZERO) * _LOG2_E - _HALF)  # rounds to nearest, since t <= 0
    r = t - np.float32(n) * _LN2_HIGH - np.float32(n) * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    half = n >> 1  # 2^n as a product of two: n may be -150
    return (p * r * r + r + _ONE) * pow2(half) * pow2(n - half)


def exp(t):
    """``e^t`` for ``t <= 0`` in float32 or float64."""


@overload(exp)
def _exp(t):
    return (lambda t: exp32(t)) if t == types.float32 else (lambda t: np.exp(t))


@inner
def smaller_sigmoid(x):
    """The smaller of sigma(x) and sigma(-x), for float32: ``e^-|x| / (1 + e^-|x|)``."""
    e = exp32(-abs(x))
    return e / (_ONE + e)


@kernel
def forward_sigmoid(x, y):
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        row, out = x[chunk * CHUNK :][:CHUNK], y[chunk * CHUNK :][:CHUNK]
        for i in range(row.size):
            small = smaller_sigmoid(row[i])
            out[i] = _ONE - small if row[i] > 0 else small


@kernel
def backward_sigmoid(y_bar, x, x_bar, own):
    """Computes the exponential again, which takes less time than to write and read it.

    If ``own`` is true, ``x_bar`` is ``y_bar`` itself, writable. It has a loop of its own: one over
    two names of the same array would not vectorize.
    """
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        g, row, out = y_bar[part], x[part], x_bar[part]
        if own:
            for i in range(row.size):
                small = smaller_sigmoid(row[i])
                out[i] *= small * (_ONE - small)
        else:
            for i in range(row.size):
                small = smaller_sigmoid(row[i])
                out[i] = g[i] * (small * (_ONE - small))


def _sigmoid(xp, x):
    axes = axes_in_memory(x)
    row = flat(x, axes)
    y = empty_like(row)
    forward_sigmoid(read(row), y)
    return unflat(y, x.shape, axes), (row, axes)


def _sigmoid_backward(xp, y_bar, cache, own=False):
    row, axes = cache
    g = flat(y_bar, axes)
    x_bar = g if own else empty_like(row)
    backward_sigmoid(read(g), read(row), x_bar, own)
    return (unflat(x_bar, y_bar.shape, axes),)


@kernel
def forward_gelu(x, y, slope):
    """Value and slope (derivative), by the formulas of ``special.normal``."""
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        row, out, slopes = x[part], y[part], slope[part]
        for i in range(row.size):
            z = row[i]
            gauss = exp32(-_HALF * z * z)
            t = _ONE / (_ONE + abs(z) * _SCALE)
            p = ((_E0 * t + _E1) * t + _E2) * t + _E3
            p = ((((p * t + _E4) * t + _E5) * t + _E6) * t + _E7) * t + _E8
            tail = _HALF * gauss * (t * p)
            below = _ONE - tail if z > 0 else tail
            out[i], slopes[i] = z * below, below + z * (gauss * _PEAK)


def _gelu(xp, x):
    axes = axes_in_memory(x)
    row = flat(x, axes)
    y, slope = empty_like(row), empty_like(row)
    forward_gelu(read(row), y, slope)
    return unflat(y, x.shape, axes), (slope, axes)


@kernel
def forward_rectifier(x, alpha, y):
    """``y = x`` where ``x > 0``, else ``alpha * x``, or 0 if alpha is 0 (ReLU); nan stays nan."""
    zero, slope = x.dtype.type(0), x.dtype.type(alpha)
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        row, out = x[chunk * CHUNK :][:CHUNK], y[chunk * CHUNK :][:CHUNK]
        for i in range(row.size):
            left = slope * row[i] if slope != 0 else zero
            out[i] = left if row[i] <= 0 else row[i]


@kernel
def backward_rectifier(y_bar, x, alpha, x_bar, own):
    """``own`` as in ``backward_sigmoid``."""
    zero, slope = x.dtype.type(0), x.dtype.type(alpha)
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        g, row, out = y_bar[part], x[part], x_bar[part]
        if own:
            for i in range(row.size):
                left = slope * out[i] if slope != 0 else zero
                out[i] = out[i] if row[i] > 0 else left
        else:
            for i in range(row.size):
                left = slope * g[i] if slope != 0 else zero
                out[i] = g[i] if row[i] > 0 else left


def _leaky_relu(xp, x, *, alpha=0.01):
    axes = axes_in_memory(x)
    row = flat(x, axes)
    y = empty_like(row)
    forward_rectifier(read(row), float(alpha), y)
    return unflat(y, x.shape, axes), (row, axes, float(alpha))


def _accepts_leaky_relu(x, *, alpha=0.01):
    return bool(alpha) and same_floats(x)


def _relu(xp, x):
    return _leaky_relu(xp, x, alpha=0)


def _accepts_relu(x):
    return x.size >= MIN_RELU and same_floats(x)


def _rectifier_backward(xp, y_bar, cache, own=False):
    row, axes, alpha = cache
    g = flat(y_bar, axes)
    x_bar = g if own else empty_like(row)
    backward_rectifier(read(g), read(row), alpha, x_bar, own)
    return (unflat(x_bar, y_bar.shape, axes),)


@kernel
def forward_layer(x, gamma, beta, eps, mean, inv_std, y):
    """Two passes over a row for mean and variance, a third for y.

    The second sums deviations from the rounded mean. Their mean, ``offset``, corrects the mean, and
    its square the variance. The third subtracts the mean as a rounded part and its remainder.
    """
    for r in prange(x.shape[0]):
        row, out = x[r], y[r]
        n, cast = row.size, row.dtype.type
        total = 0.0
        for start in range(0, n, CHUNK):
            total += row_sum(row[start : start + CHUNK])
        centre = cast(total / n)
        deviations, squares = 0.0, 0.0
        for start in range(0, n, CHUNK):
            part, part_squares = row_deviations(row[start : start + CHUNK], centre)
            deviations += part
            squares += part_squares
        offset = deviations / n
        mean[r] = np.float64(centre) + offset
        inv_std[r] = 1 / np.sqrt(max(squares / n - offset * offset, 0.0) + eps)
        centre = cast(mean[r])
        offset = mean[r] - np.float64(centre)
        scale, shift = cast(inv_std[r]), cast(offset * inv_std[r])
        for i in range(n):
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


@inner
def largest(row):
    """The largest value, by four running maxima, which need not wait for each other."""
    a = b = c = d = row[0]
    whole = row.size // 4 * 4
    for i in range(0, whole, 4):
        a, b = max(a, row[i]), max(b, row[i + 1])
        c, d = max(c, row[i + 2]), max(d, row[i + 3])
    for i in range(whole, row.size):
        a = max(a, row[i])
    return max(max(a, b), max(c, d))


@kernel
def forward_cross_entropy(logits, labels, losses, probabilities):
    """The loss and the softmax of each row: its maximum, then the exponentials, then a division."""
    for r in prange(logits.shape[0]):
        row, out = logits[r], probabilities[r]
        top = largest(row)
        total = 0.0
        for start in range(0, row.size, CHUNK):
            part, exponentials = row[start : start + CHUNK], out[start : start + CHUNK]
            for k in range(part.size):
                exponentials[k] = exp(part[k] - top)
            total += row_sum(exponentials)
        losses[r] = np.log(total) - (row[labels[r]] - top)
        scale = row.dtype.type(1 / total)
        for k in range(row.size):
            out[k] *= scale


def _cross_entropy(xp, logits, labels):
    labels = checked_labels(xp, logits, labels).astype(np.int64)
    probabilities, losses = empty_like(logits), np.empty(len(labels))
    forward_cross_entropy(read(logits), read(labels), losses, probabilities)
    y = losses.mean().astype(logits.dtype)
    return y, (probabilities, np.arange(len(labels)), labels)


def _accepts_cross_entropy(logits, labels):
    return logits.ndim == 2 and same_floats(logits)


sigmoid = Pair(_sigmoid, _sigmoid_backward, lambda x: x.dtype == np.float32, reuses=True)
gelu = Pair(_gelu, pull_slope, lambda x: x.dtype == np.float32, reuses=True)
relu = Pair(_relu, _rectifier_backward, _accepts_relu, reuses=True)
leaky_relu = Pair(_leaky_relu, _rectifier_backward, _accepts_leaky_relu, reuses=True)
layer_norm = Pair(_layer_norm, _layer_norm_backward, _accepts_layer_norm)
cross_entropy = Pair(_cross_entropy, loss.cross_entropy_backward, _accepts_cross_entropy)
