"""Batch norm and layer norm as one op each: no graph between the statistics and the result."""

from typing import Any, NamedTuple

import numpy as np

from minigrad.fused.declare import Pair, fused, same_floats
from minigrad.fused.layout import from_blocks, is_batch_last, to_blocks
from minigrad.ops.normalization import (
    batch_norm,
    check_batch_norm,
    check_layer_norm,
    layer_norm,
)

PIECE = 65536  # elements that NumPy works on at a time


class Cache(NamedTuple):
    """What a backward needs; ``mean`` and biased ``var``, each (C,), are what layers read."""

    mean: Any
    var: Any
    x: Any  # or its deviations from the mean
    gamma: Any
    inv_std: Any
    layout: Any  # axes, or whether the batch is the last axis in memory
    is_fixed: bool  # evaluation: mean and var were given and are constants


@fused(
    batch_norm,
    pullback=r"\bar x = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} (\bar y - \frac{1}{m} \sum \bar y"
    r" - \hat x\, \frac{1}{m} \sum \bar y \hat x),\quad "
    r"\bar\gamma = \sum \bar y \hat x,\quad \bar\beta = \sum \bar y",
)
def fused_batch_norm(xp, x, gamma, beta, *, mean=None, var=None, axis=None, eps=1e-5):
    """``ops.batch_norm`` with a hand-written backward; higher orders go through the composite.

    Args:
        x: (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W); any ndim >= 2.
        gamma, beta: (C,), aligned with axis 1 of ``x``.
        mean, var: (C,), both or neither; ``var`` does not contain ``eps``.
        axis: the axes that are averaged; None means every axis but 1.
        eps: added to the variance.

    Returns:
        An array of the shape of ``x``.

    Raises:
        ShapeError: other shapes. UsageError: one of ``mean`` and ``var`` without the other.

    Source:
        Ioffe, Szegedy 2015, arXiv:1502.03167, section 3.

    >>> x = mg.tensor([[1.0, 0.0], [3.0, 4.0]])
    >>> mg.fused.batch_norm(x, np.ones(2), np.zeros(2), eps=0.0)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    channels = (-1,) + (1,) * (x.ndim - 2)  # (C,) aligned with axis 1
    axes = tuple(i for i in range(x.ndim) if i != 1) if axis is None else axis
    is_fixed = mean is not None
    if is_fixed:
        mean, var = (xp.asarray(s).reshape(channels) for s in (mean, var))
        xc = x - mean
    else:
        mean = x.mean(axis=axes, keepdims=True)
        xc = x - mean
        var = (xc * xc).mean(axis=axes, keepdims=True)
    inv_std = 1 / xp.sqrt(var + eps)
    gamma = gamma.reshape(channels)
    y = xc * (gamma * inv_std) + beta.reshape(channels)
    return y, Cache(mean, var, xc, gamma, inv_std, axes, is_fixed)


@fused_batch_norm.defbackward
def batch_norm_backward(xp, y_bar, cache):
    _, _, xc, gamma, inv_std, axes, is_fixed = cache
    batch = tuple(i for i in range(xc.ndim) if i != 1)  # gamma and beta are (C,) whatever axes is
    x_hat = xc * inv_std
    gamma_bar, beta_bar = (y_bar * x_hat).sum(batch), y_bar.sum(batch)
    g = y_bar * gamma
    if not is_fixed:
        g = g - g.mean(axes, keepdims=True) - x_hat * (g * x_hat).mean(axes, keepdims=True)
    return g * inv_std, gamma_bar, beta_bar


def _forward(xp, x, gamma, beta, *, mean=None, var=None, axis=None, eps=1e-5):
    """Piece by piece, over (P, C, S) views: what one pass leaves in cache the next one finds."""
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    batch_last, is_fixed = is_batch_last(x), mean is not None
    blocks = to_blocks(x, batch_last)
    count = max(blocks.shape[0] * blocks.shape[2], 1)
    if not is_fixed:
        mean, var = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for p, c in _pieces(blocks):
            mean[c] += _sum(blocks[p, c]) / count
        for p, c in _pieces(blocks):
            xc = blocks[p, c] - mean[c, None].astype(x.dtype)
            var[c] += _sum(xc, xc) / count
    centre = np.asarray(mean, x.dtype)[:, None]
    inv_std = 1 / np.sqrt(np.asarray(var, np.float64) + eps)
    scale = (gamma * inv_std).astype(x.dtype)[:, None]
    y = np.empty(blocks.shape, x.dtype)
    for p, c in _pieces(blocks):
        out = np.subtract(blocks[p, c], centre[c], out=y[p, c])
        out *= scale[c]
        out += beta[c, None]
    cache = Cache(mean, var, blocks, gamma, inv_std, batch_last, is_fixed)
    return from_blocks(y, x.shape, batch_last), cache


def _backward(xp, y_bar, cache):
    mean, _, x, gamma, inv_std, batch_last, is_fixed = cache
    g = to_blocks(y_bar, batch_last)
    centre = np.asarray(mean, x.dtype)[:, None]
    gamma_bar, beta_bar = np.zeros((2, x.shape[1]))
    for p, c in _pieces(x):
        beta_bar[c] += _sum(g[p, c])
        gamma_bar[c] += _sum(g[p, c], x[p, c] - centre[c])
    gamma_bar *= inv_std
    count = max(x.shape[0] * x.shape[2], 1)
    a = (gamma * inv_std).astype(x.dtype)[:, None]
    b = (beta_bar / count).astype(x.dtype)[:, None]
    k = (gamma_bar * inv_std / count).astype(x.dtype)[:, None]
    x_bar = np.empty(x.shape, x.dtype)
    for p, c in _pieces(x):
        out = x_bar[p, c]
        if is_fixed:
            np.multiply(g[p, c], a[c], out=out)
            continue
        np.subtract(x[p, c], centre[c], out=out)
        out *= k[c]
        out += b[c]
        np.subtract(g[p, c], out, out=out)
        out *= a[c]
    x_bar = from_blocks(x_bar, y_bar.shape, batch_last)
    return x_bar, gamma_bar.astype(x.dtype), beta_bar.astype(x.dtype)


def _pieces(blocks):
    """Pairs of slices, of the first axis or of the channels, that fit the second-level cache."""
    outer, channels, inner = blocks.shape
    if outer == 1:
        step = max(PIECE // max(inner, 1), 1)
        return [(slice(None), slice(c, c + step)) for c in range(0, channels, step)]
    step = max(PIECE // max(channels * inner, 1), 1)
    return [(slice(p, p + step), slice(None)) for p in range(0, outer, step)]


def _sum(a, b=None):
    """Sum of ``a``, or of ``a * b``, over the first and last of three axes, in float64 at the end.

    Rows are summed in pairs or by BLAS, so an error does not grow with their length.
    """
    if a.shape[2] == 1:
        a, b = a[:, :, 0], None if b is None else b[:, :, 0]
        return a.sum(0, dtype=np.float64) if b is None else np.einsum("nc,nc->c", a, b)
    rows = a.sum(2) if b is None else np.vecdot(a, b)
    return rows.sum(0, dtype=np.float64)


def accepts(x, gamma, beta, *, axis=None, **_):
    """One floating dtype of at least 32 bits, and every axis but 1 averaged."""
    if x.ndim < 2 or not same_floats(x, gamma, beta):
        return False
    batch = [i for i in range(x.ndim) if i != 1]
    return axis is None or sorted(i % x.ndim for i in np.atleast_1d(axis)) == batch


fused_batch_norm.pairs["numpy"] = Pair(_forward, _backward, accepts)


@fused(
    layer_norm,
    pullback=r"\bar x = \frac{1}{\sqrt{\sigma^2 + \epsilon}} (g - \frac{1}{m} \sum g"
    r" - \hat x\, \frac{1}{m} \sum g \hat x),\quad g = \gamma \bar y,\quad "
    r"\bar\gamma = \sum \bar y \hat x,\quad \bar\beta = \sum \bar y",
)
def fused_layer_norm(xp, x, gamma, beta, *, eps=1e-5):
    """``ops.layer_norm`` with a hand-written backward; higher orders go through the composite.

    Args:
        x: (..., \\*F).
        gamma, beta: (\\*F,), the trailing shape that is averaged over with the biased variance.
        eps: added to the variance.

    Returns:
        An array of the shape of ``x``.

    Raises:
        ShapeError: ``gamma`` or ``beta`` is not the trailing shape of ``x``.

    Source:
        Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4.

    >>> mg.fused.layer_norm(mg.tensor([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=0.0)
    tensor([[-1.,  1.]])
    """
    check_layer_norm(x, gamma, beta)
    axes = tuple(range(-gamma.ndim, 0))
    x_hat = x - x.mean(axis=axes, keepdims=True)
    var = (x_hat * x_hat).mean(axis=axes, keepdims=True)
    inv_std = 1 / xp.sqrt(var + eps)
    x_hat *= inv_std
    y = x_hat * gamma
    y += beta
    return y, (x_hat, gamma, inv_std)


@fused_layer_norm.defbackward
def layer_norm_backward(xp, y_bar, cache):
    x_hat, gamma, inv_std = cache
    axes = tuple(range(-gamma.ndim, 0))
    batch = tuple(range(x_hat.ndim - gamma.ndim))
    products = y_bar * x_hat
    gamma_bar, beta_bar = products.sum(batch), y_bar.sum(batch)
    products *= gamma
    x_bar = y_bar * gamma
    x_bar -= x_bar.mean(axes, keepdims=True)
    x_bar -= x_hat * products.mean(axes, keepdims=True)
    x_bar *= inv_std
    return x_bar, gamma_bar, beta_bar
