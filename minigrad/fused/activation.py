"""Activations; for NumPy block by block, so that a block stays in cache from step to step.

Sigmoid, tanh and ReLU keep x and compute their slope (derivative) in the backward. The others
compute it with the value and keep it instead of x: ``with_slope``.
"""

import functools
from math import pi

import numpy as np

from minigrad.backend import masked
from minigrad.fused.declare import Fused, Pair, fused, same_floats
from minigrad.fused.layout import axes_in_memory, flat, unflat
from minigrad.fused.memory import empty_like
from minigrad.ops.activation import elu, gelu, leaky_relu, relu, softplus
from minigrad.ops.exponential import sigmoid, tanh
from minigrad.ops.select import clip
from minigrad.ops.shape import floating
from minigrad.special import BLOCK, normal


@fused(sigmoid, pullback=r"\bar x = \bar y\,\sigma(x)\,\sigma(-x)")
def fused_sigmoid(xp, x):
    """``ops.sigmoid`` without temporaries, accurate in both tails.

    >>> mg.fused.sigmoid(mg.tensor([0.0, -800.0]))
    tensor([0.5, 0. ])
    """
    small = xp.exp(-xp.abs(floating(x)))
    small = small / (1 + small)  # the smaller of sigma(x) and sigma(-x)
    return xp.where(x > 0, 1 - small, small), small


@fused_sigmoid.defbackward
def sigmoid_backward(xp, y_bar, small):
    return (y_bar * (small * (1 - small)),)


def _accepts(x, **_):
    return same_floats(x) and x.ndim > 0


def _blocks(size):
    """Slices of a row of ``size`` elements, each small enough to stay in cache."""
    return [slice(start, start + BLOCK) for start in range(0, size, BLOCK)]


def _smaller_sigmoid(z, s, spare):
    """Set s to the smaller of sigma(z) and sigma(-z), ``e^-|z| / (1 + e^-|z|)``."""
    np.abs(z, out=s)
    np.exp(np.negative(s, out=s), out=s)
    s /= np.add(s, 1, out=spare)
    return s


def _sigmoid_by_blocks(xp, x):
    axes = axes_in_memory(x)
    row = flat(x, axes)
    y, small = empty_like(row), np.empty_like(row[:BLOCK])
    for part in _blocks(row.size):
        z, out = row[part], y[part]
        s = _smaller_sigmoid(z, small[: z.size], out)
        # y is 1 - s where z > 0, else s; |[z > 0] - s| is several times as fast as a mask
        np.subtract(z > 0, s, out=out, dtype=z.dtype)
        np.abs(out, out=out)
    return unflat(y, x.shape, axes), (row, axes)


def _sigmoid_backward_by_blocks(xp, y_bar, cache, own=False):
    """Computes the exponential again: keeping it would take as much memory as x."""
    row, axes = cache
    g = flat(y_bar, axes)
    x_bar = g if own else empty_like(row)
    small, slope = np.empty((2, min(BLOCK, row.size)), row.dtype)
    for part in _blocks(row.size):
        z = row[part]
        s = _smaller_sigmoid(z, small[: z.size], slope[: z.size])
        out = np.subtract(1, s, out=slope[: z.size])
        out *= s
        np.multiply(g[part], out, out=x_bar[part])
    return (unflat(x_bar, y_bar.shape, axes),)


fused_sigmoid.pairs["numpy"] = Pair(
    _sigmoid_by_blocks, _sigmoid_backward_by_blocks, _accepts, reuses=True
)


@fused(tanh, pullback=tanh.pullback, large_only=True)
def fused_tanh(xp, x):
    """``ops.tanh`` with one exponential for the slope, accurate in both tails.

    >>> mg.fused.tanh(mg.tensor([0.0, 1.0]))
    tensor([0.        , 0.76159416])
    """
    x = floating(x)
    return xp.tanh(x), x


@fused_tanh.defbackward
def tanh_backward(xp, y_bar, x):
    small = xp.exp(-2 * xp.abs(x))
    return (y_bar * (4 * small / (1 + small) ** 2),)


def _tanh_backward_by_blocks(xp, y_bar, x, own=False):
    axes = axes_in_memory(x)
    row, g = flat(x, axes), flat(y_bar, axes)
    x_bar = g if own else empty_like(row)
    for part in _blocks(row.size):
        (x_bar[part],) = tanh_backward(xp, g[part], row[part])
    return (unflat(x_bar, y_bar.shape, axes),)


fused_tanh.pairs["numpy"] = Pair(
    fused_tanh.portable, _tanh_backward_by_blocks, _accepts, reuses=True
)


@fused(relu, pullback=relu.pullback, large_only=True)
def fused_relu(xp, x):
    """``ops.relu``, which numba computes in one pass, and its cotangent in another.

    >>> mg.fused.relu(mg.tensor([-2.0, 0.0, 3.0]))
    tensor([0., 0., 3.])
    """
    return relu.forward(xp, x), x


@fused_relu.defbackward
def relu_backward(xp, y_bar, x):
    return (masked(xp, x > 0, y_bar),)


def pull_slope(xp, y_bar, cache, own=False):
    """``x_bar = y_bar * slope``; the slope is kept as a row, see ``flat``."""
    slope, axes = cache
    g = flat(y_bar, axes)
    x_bar = np.multiply(g, slope, out=g if own else empty_like(slope))
    return (unflat(x_bar, y_bar.shape, axes),)


def with_slope(op: Fused) -> Fused:
    """Declare the backward of a forward ``(xp, x, **params) -> (y, slope)``, and a NumPy kernel."""

    @functools.wraps(op.portable)
    def forward(xp, x, **params):
        axes = axes_in_memory(x)
        row = flat(x, axes)
        y, slope = empty_like(row), empty_like(row)
        for part in _blocks(row.size):
            y[part], slope[part] = op.portable(xp, row[part], **params)
        return unflat(y, x.shape, axes), (slope, axes)

    op.defbackward(lambda xp, y_bar, slope: (y_bar * slope,))
    op.pairs["numpy"] = Pair(forward, pull_slope, _accepts, reuses=True)
    return op


@with_slope
@fused(gelu, pullback=gelu.pullback)
def fused_gelu(xp, x):
    """``ops.gelu`` with one normal distribution function for value and slope.

    >>> mg.fused.gelu(mg.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.15865525,  0.        ,  0.84134475])
    """
    below, gauss = normal(xp, x := floating(x))
    return x * below, below + x * (gauss * (2 * pi) ** -0.5)


@with_slope
@fused(leaky_relu, pullback=leaky_relu.pullback, large_only=True)
def fused_leaky_relu(xp, x, *, alpha=0.01):
    """``ops.leaky_relu`` by products instead of a mask.

    >>> mg.fused.leaky_relu(mg.tensor([-2.0, 3.0]), alpha=0.1)
    tensor([-0.2,  3. ])
    """
    x = floating(x)
    slope = _one_or(x, alpha)
    return x * slope, slope


@with_slope
@fused(elu, pullback=elu.pullback, large_only=True)
def fused_elu(xp, x, *, alpha=1.0):
    """``ops.elu`` by products instead of a mask.

    >>> mg.fused.elu(mg.tensor([-1.0, 2.0]))
    tensor([-0.63212056,  2.        ])
    """
    left = clip.forward(xp, x := floating(x), max=0)
    return clip.forward(xp, x, min=0) + alpha * xp.expm1(left), _one_or(x, alpha * xp.exp(left))


@with_slope
@fused(softplus, pullback=softplus.pullback, large_only=True)
def fused_softplus(xp, x):
    """``ops.softplus`` with one exponential for value and slope.

    >>> mg.fused.softplus(mg.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.00000000e+00, 6.93147181e-01, 1.00000000e+03])
    """
    small = xp.exp(-xp.abs(x := floating(x)))
    return clip.forward(xp, x, min=0) + xp.log1p(small), xp.abs((x > 0) - small / (1 + small))


def _one_or(x, left):
    """1 where ``x > 0``, else ``left``; products are several times as fast as a mask."""
    right = (x > 0).astype(x.dtype)
    return right + (1 - right) * left
