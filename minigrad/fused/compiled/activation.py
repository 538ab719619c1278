"""Kernels of activations: an array is one row, and a task is a chunk of it, read and written once.

They have an exponential of their own, whose loop vectorizes.
"""

from math import copysign, factorial, log, pi
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic, overload

from minigrad import special
from minigrad.fused.activation import pull_slope
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read
from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.layout import axes_in_memory, flat, unflat
from minigrad.fused.memory import empty_like

MIN_RELU = 32768  # elements; below, NumPy computes a ReLU as fast (measured)

# e^t = 2^n e^r with an integer n and r = t - n ln(2), |r| <= ln(2) / 2. ln(2) is the sum of two
# parts; the first has trailing zeros, so that n times it is exact. e^r is 1 + r + r^2 times a
# polynomial. Parts, and the polynomial of float32: Cephes expf and exp (Moshier 1989).
# t / ln(2) + MAGIC rounds to n + MAGIC: numbers of that size have no fraction. MAGIC is chosen such
# that the last bits of the sum are the exponent of 2^(n + 64), which is normal where 2^n is not.
_LOG2_E, _LN2_HIGH, _LN2_LOW = (
    np.float32(c) for c in (1.44269504088896341, 0.693359375, -2.12194440e-4)
)
_P0, _P1, _P2, _P3, _P4, _P5 = (
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
              1.6666665459e-1, 5.0000001201e-1)
)  # fmt: skip
_ZERO, _HALF, _ONE, _TWO = (np.float32(c) for c in (0, 0.5, 1, 2))
_LOWEST = np.float32(-104)  # e^-104 rounds to 0
_MAGIC, _UNDO = np.float32(1.5 * 2**23 + 127 + 64), np.float32(2.0**-64)
_LOG2_E_64, _LN2_HIGH_64, _LN2_LOW_64 = 1 / log(2), 6.93145751953125e-1, 1.42860682030941723e-6
_T2, _T3, _T4, _T5, _T6, _T7, _T8, _T9, _T10, _T11, _T12, _T13 = (
    1 / factorial(k)
    for k in range(2, 14)  # Taylor's series; r^14 / 14! < eps / 50
)
_LOWEST_64, _MAGIC_64 = -746.0, 1.5 * 2.0**52 + 1023 + 64
_E0, _E1, _E2, _E3, _E4, _E5, _E6, _E7, _E8 = map(np.float32, special.ERFC_32)
_SCALE, _PEAK = np.float32(0.5**1.5), np.float32((2 * pi) ** -0.5)
_S1, _S2, _S3, _S4, _S5, _S6, _S7 = (
    np.float32(1 / (2 * k + 1))
    for k in range(1, 8)  # z <= 1/3, and z^17 / 17 < eps z / 100
)


def _power_of(context, z):
    """``2^(n + 64)`` for ``z = n + MAGIC``."""
    bits, mantissa = (32, 23) if z == types.float32 else (64, 52)

    def shift(context, builder, signature, args):
        integer = ir.IntType(bits)
        last_bits = builder.shl(builder.bitcast(args[0], integer), integer(mantissa))
        return builder.bitcast(last_bits, args[0].type)

    return z(z), shift


power_of: Any = intrinsic(_power_of)


@inner
def reduced32(t):
    """``e^r - 1`` and ``2^(n + 64)`` for float32, ``t <= 0``."""
    t = _LOWEST if t < _LOWEST else t  # nan stays nan
    z = t * _LOG2_E + _MAGIC
    n = z - _MAGIC
    r = t - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    return p * r * r + r, power_of(z)


@inner
def reduced64(t):
    """``reduced32`` for float64."""
    t = _LOWEST_64 if t < _LOWEST_64 else t
    z = t * _LOG2_E_64 + _MAGIC_64
    n = z - _MAGIC_64
    r = t - n * _LN2_HIGH_64 - n * _LN2_LOW_64
    p = ((((_T13 * r + _T12) * r + _T11) * r + _T10) * r + _T9) * r + _T8
    p = (((((p * r + _T7) * r + _T6) * r + _T5) * r + _T4) * r + _T3) * r + _T2
    return p * r * r + r, power_of(z)


def reduced(t) -> Any:
    """``reduced32`` or ``reduced64``."""


@overload(reduced)
def _reduced(t):
    return (lambda t: reduced32(t)) if t == types.float32 else (lambda t: reduced64(t))


@inner
def exp(t):
    """``e^t`` for ``t <= 0`` in float32 or float64."""
    p, power = reduced(t)
    return (p + _ONE) * power * _UNDO


@inner
def exp_and_expm1(t):
    """``e^t`` and ``e^t - 1``, accurate near 0, for ``t <= 0`` in float32 or float64."""
    p, power = reduced(t)
    scale = power * _UNDO
    return (p + _ONE) * power * _UNDO, p * scale + (scale - _ONE)


@inner
def log1p(e):
    """``ln(1 + e)`` for float32, ``0 <= e <= 1``: 2 artanh z by its series, z = e / (2 + e)."""
    z = e / (_TWO + e)
    q = z * z
    p = ((((((_S7 * q + _S6) * q + _S5) * q + _S4) * q + _S3) * q + _S2) * q + _S1) * q
    return _TWO * (z + z * p)


@inner
def smaller_sigmoid(x):
    """The smaller of sigma(x) and sigma(-x): ``e^-|x| / (1 + e^-|x|)``."""
    e = exp(-abs(x))
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


@kernel
def forward_tanh(x, y):
    """``tanh |x| = -m / (2 + m)`` with ``m = e^(-2|x|) - 1``."""
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        row, out = x[chunk * CHUNK :][:CHUNK], y[chunk * CHUNK :][:CHUNK]
        for i in range(row.size):
            _, m = exp_and_expm1(-_TWO * abs(row[i]))
            out[i] = copysign(m / (_TWO + m), row[i])  # -0.0 stays -0.0


@kernel
def backward_tanh(y_bar, x, x_bar, own):
    """As ``backward_sigmoid``: the derivative is ``4 sigma(2x) sigma(-2x)``."""
    four = _TWO * _TWO
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        g, row, out = y_bar[part], x[part], x_bar[part]
        if own:
            for i in range(row.size):
                small = smaller_sigmoid(_TWO * row[i])
                out[i] *= four * small * (_ONE - small)
        else:
            for i in range(row.size):
                small = smaller_sigmoid(_TWO * row[i])
                out[i] = g[i] * (four * small * (_ONE - small))


def _keeping_x(fill, pull):
    """The pair of kernels ``fill(x, y)`` and ``pull(y_bar, x, x_bar, own)``."""

    def forward(xp, x):
        axes = axes_in_memory(x)
        row = flat(x, axes)
        y = empty_like(row)
        fill(read(row), y)
        return unflat(y, x.shape, axes), (row, axes)

    def backward(xp, y_bar, cache, own=False):
        row, axes = cache
        g = flat(y_bar, axes)
        x_bar = g if own else empty_like(row)
        pull(read(g), read(row), x_bar, own)
        return (unflat(x_bar, y_bar.shape, axes),)

    return Pair(forward, backward, same_floats, reuses=True)


@kernel
def forward_gelu(x, y, slope):
    """Value and slope (derivative), by the formulas of ``special.normal``."""
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        row, out, slopes = x[part], y[part], slope[part]
        for i in range(row.size):
            z = row[i]
            gauss = exp(-_HALF * z * z)
            t = _ONE / (_ONE + abs(z) * _SCALE)
            p = ((_E0 * t + _E1) * t + _E2) * t + _E3
            p = ((((p * t + _E4) * t + _E5) * t + _E6) * t + _E7) * t + _E8
            tail = _HALF * gauss * (t * p)
            below = _ONE - tail if z > 0 else tail
            out[i], slopes[i] = z * below, below + z * (gauss * _PEAK)


@kernel
def forward_softplus(x, y, slope):
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        row, out, slopes = x[part], y[part], slope[part]
        for i in range(row.size):
            z = row[i]
            e = exp(-abs(z))
            small = e / (_ONE + e)
            out[i] = (z if z > 0 else _ZERO) + log1p(e)
            slopes[i] = _ONE - small if z > 0 else small


@kernel
def forward_elu(x, alpha, y, slope):
    """As ``forward_gelu``; y keeps the digits of a small x."""
    left = x.dtype.type(alpha)
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        row, out, slopes = x[part], y[part], slope[part]
        for i in range(row.size):
            z = row[i]
            e, m = exp_and_expm1(_ZERO if z > 0 else z)
            out[i], slopes[i] = z if z > 0 else left * m, _ONE if z > 0 else left * e


def _filled(fill, x, *params):
    """What a forward returns, of a kernel ``fill(x, *params, y, slope)``."""
    axes = axes_in_memory(x)
    row = flat(x, axes)
    y, slope = empty_like(row), empty_like(row)
    fill(read(row), *params, y, slope)
    return unflat(y, x.shape, axes), (slope, axes)


def _with_slope(fill):
    """The pair of a kernel ``fill(x, y, slope)``; float32 only, as its polynomials are."""

    def accepts(x):
        return x.dtype == np.float32

    return Pair(lambda xp, x: _filled(fill, x), pull_slope, accepts, reuses=True)


def _elu(xp, x, *, alpha=1.0):
    return _filled(forward_elu, x, float(alpha))


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


sigmoid = _keeping_x(forward_sigmoid, backward_sigmoid)
tanh = _keeping_x(forward_tanh, backward_tanh)
gelu, softplus = _with_slope(forward_gelu), _with_slope(forward_softplus)
elu = Pair(_elu, pull_slope, lambda x, *, alpha=1.0: same_floats(x), reuses=True)
relu = Pair(_relu, _rectifier_backward, _accepts_relu, reuses=True)
leaky_relu = Pair(_leaky_relu, _rectifier_backward, _accepts_leaky_relu, reuses=True)
