"""Batch, layer and group norm as one op each: no graph between the statistics and the result.

Batch norm has a kernel for NumPy. It works on a (P, C, S) view in pieces that stay in cache: one
pass for the sums of x and x^2, one that writes ``y = x * a + b``. Only if the mean of some channel
is so large that ``E[x^2] - E[x]^2`` would cancel does it subtract the means first, and take the
sums of the deviations and their squares.
"""

from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from minigrad.fused.declare import Pair, fused, same_floats
from minigrad.fused.layout import from_blocks, is_batch_last, to_blocks
from minigrad.fused.memory import empty
from minigrad.ops.normalization import (
    all_but_channels,
    batch_norm,
    by_group,
    check_batch_norm,
    check_group_norm,
    check_layer_norm,
    group_norm,
    layer_norm,
    per_channel,
)
from minigrad.ops.reduce import mean as mean_over
from minigrad.ops.reduce import narrow, wide

MIN_SIZE = 16384  # elements below which the portable version is as fast
PIECE = 131072  # elements of a piece
RUN = 8192  # terms of a dot product: BLAS starts threads for longer ones
NEAR_ZERO = 4  # means are not subtracted if all mean^2 <= 4 var: cancellation costs few digits
BUFFER = 512  # elements of a row from which on NumPy is faster without buffers
ROWS = 128  # rows summed in the array's own precision; such partial sums are added in float64


class Cache(NamedTuple):
    """The values a backward needs; layers read ``mean`` and the biased ``var``, each (C,)."""

    mean: Any
    var: Any
    x: Any  # or its deviations from the mean, which may be rounded
    gamma: Any
    inv_std: Any
    layout: Any  # the averaged axes (portable), or whether the batch is the last axis in memory
    is_fixed: bool  # evaluation: mean and var were given and are constants
    x_mean: Any = 0  # the part of the mean not yet subtracted: x_hat = (x - x_mean) * inv_std


@fused(
    batch_norm,
    pullback=r"\bar x = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} (\bar y"
    r" - \frac{1}{N} \sum_i \bar y_i - \hat x\,\frac{1}{N} \sum_i \bar y_i \hat x_i),\quad "
    r"\bar\gamma = \sum_i \bar y_i \hat x_i,\quad \bar\beta = \sum_i \bar y_i",
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
    mean, var = (s if s is None else xp.asarray(s) for s in (mean, var))
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    channels = (-1,) + (1,) * (x.ndim - 2)  # (C,) aligned with axis 1
    axes = all_but_channels(x) if axis is None else axis
    is_fixed = mean is not None
    if is_fixed:
        mean, var = (xp.reshape(s, channels) for s in (mean, var))
        xc = x - mean
    else:
        xc = wide(x)
        mean = _mean(xp, xc, axes)
        xc = xc - mean
        var = _mean(xp, xc * xc, axes)
    inv_std = 1 / xp.sqrt(var + eps)
    gamma = gamma.reshape(channels)
    y = xc * (gamma * inv_std) + beta.reshape(channels)
    y = y if is_fixed else narrow(y, x, gamma, beta)
    return y, Cache(mean, var, xc, gamma, inv_std, axes, is_fixed)


def _mean(xp, x, axes):
    return mean_over.forward(xp, x, axis=axes, keepdims=True)


@fused_batch_norm.defbackward
def batch_norm_backward(xp, y_bar, cache):
    _, _, xc, gamma, inv_std, axes, is_fixed, _ = cache
    batch = all_but_channels(xc)  # gamma and beta are (C,) whatever axes is
    x_hat = xc * inv_std
    gamma_bar, beta_bar = (y_bar * x_hat).sum(batch), y_bar.sum(batch)
    g = y_bar * gamma
    if not is_fixed:
        g = g - _mean(xp, g, axes) - x_hat * _mean(xp, g * x_hat, axes)
    return g * inv_std, gamma_bar, beta_bar


def _forward(xp, x, gamma, beta, *, mean=None, var=None, axis=None, eps=1e-5):
    """One pass for the moments, one for ``y = x * a + b``; two more if means are subtracted.

    In evaluation, moments need no pass.
    """
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    batch_last, is_fixed = is_batch_last(x), mean is not None
    xc = to_blocks(x, batch_last)
    pieces = _pieces(xc)
    # where x^2 overflows the limit is not finite, and the mean is subtracted
    with np.errstate(over="ignore", invalid="ignore"):
        mean, var = np.asarray([mean, var], np.float64) if is_fixed else _moments(xc, pieces)
        limit = NEAR_ZERO * var
        is_near_zero = ((mean * mean <= limit) & (limit < np.inf)).all()
    xc_mean = mean
    if not is_near_zero:
        blocks, xc, centre = xc, empty(xc.shape, x.dtype), mean.astype(x.dtype)
        for p, c in pieces:
            np.subtract(blocks[p, c], centre[c, None], out=xc[p, c])
        xc_mean = mean - centre
        if not is_fixed:
            xc_mean, var = _moments(xc, pieces)
            mean = centre + xc_mean
    inv_std = 1 / np.sqrt(var + eps)
    scale = gamma * inv_std
    y = empty(xc.shape, x.dtype)
    a, b = (v.astype(x.dtype)[:, None] for v in (scale, beta - xc_mean * scale))
    with _unbuffered(xc):
        for p, c in pieces:
            out = np.multiply(xc[p, c], a[c], out=y[p, c])
            out += b[c]
    cache = Cache(mean, var, xc, gamma, inv_std, batch_last, is_fixed, xc_mean)
    return from_blocks(y, x.shape, batch_last), cache


def _backward(xp, y_bar, cache, own=False):
    """One pass for the sums, one for ``x_bar = a * (y_bar - (k * xc + b))``.

    b is the mean path and k the variance path; in evaluation both are absent.
    """
    _, _, xc, gamma, inv_std, batch_last, is_fixed, xc_mean = cache
    g, pieces = to_blocks(y_bar, batch_last), _pieces(xc)
    gamma_bar, beta_bar = np.zeros((2, xc.shape[1]))
    for p, c in pieces:
        _add_sum(beta_bar[c], g[p, c])
        _add_sum(gamma_bar[c], g[p, c], xc[p, c])
    gamma_bar -= xc_mean * beta_bar
    gamma_bar *= inv_std
    count = max(xc.shape[0] * xc.shape[2], 1)
    k = gamma_bar * inv_std / count
    coefficients = gamma * inv_std, beta_bar / count - xc_mean * k, k
    a, b, k = (v.astype(xc.dtype)[:, None] for v in coefficients)
    x_bar = g if own else empty(xc.shape, xc.dtype)
    spare = empty(xc[pieces[0]].shape, xc.dtype) if own and pieces and not is_fixed else None
    with _unbuffered(xc):
        for p, c in pieces:
            bars, part, out = g[p, c], xc[p, c], x_bar[p, c]
            if not is_fixed:
                target = out if spare is None else spare[: len(part), : part.shape[1]]
                paths = np.multiply(part, k[c], out=target)
                paths += b[c]
                bars = np.subtract(bars, paths, out=out)
            np.multiply(bars, a[c], out=out)
    x_bar = from_blocks(x_bar, y_bar.shape, batch_last)
    return x_bar, gamma_bar.astype(xc.dtype), beta_bar.astype(xc.dtype)


def _pieces(blocks):
    """Slices of the first axis and of the channels, as pairs; each cuts out some PIECE elements."""
    outer, channels, inner = blocks.shape
    if outer == 1:
        step = max(PIECE // max(inner, 1), 1)
        return [(slice(None), slice(c, c + step)) for c in range(0, channels, step)]
    step = max(PIECE // max(channels * inner, 1), 1)
    return [(slice(p, p + step), slice(None)) for p in range(0, outer, step)]


@contextmanager
def _unbuffered(blocks):
    """Keep NumPy from copying broadcast operands into its buffers of 8192 elements, if rows are
    long: they need no buffers."""
    row = blocks.shape[2] if blocks.shape[2] > 1 else blocks.shape[1]
    before = np.setbufsize(BUFFER) if row >= BUFFER else np.getbufsize()
    try:
        yield
    finally:
        np.setbufsize(before)


def _moments(blocks, pieces):
    """Mean and biased variance of each channel."""
    total, squares = np.zeros((2, blocks.shape[1]))
    for p, c in pieces:
        part = blocks[p, c]
        _add_sum(total[c], part)
        _add_sum(squares[c], part, part)
    count = max(blocks.shape[0] * blocks.shape[2], 1)
    total /= count
    squares /= count
    squares -= total * total
    return total, np.maximum(squares, 0)


def _add_sum(total, a, b=None):
    """Add to ``total`` the sums of ``a``, or of ``a * b``, over the first and last of three axes.

    At most ROWS rows, or RUN terms of a row, are summed in the array's own precision, and these
    partial sums in float64, so the error does not grow with the size. A plain sum is computed as a
    product with ones, which takes half as long as ``sum``.
    """
    if a.shape[2] == 1:
        a, b = a[:, :, 0], None if b is None else b[:, :, 0]
        for start in range(0, len(a), ROWS):
            cut = slice(start, start + ROWS)
            if b is None:
                total += np.ones(len(a[cut]), a.dtype) @ a[cut]
            else:
                total += np.einsum("nc,nc->c", a[cut], b[cut])
    else:
        b = np.ones(a.shape[2], a.dtype) if b is None else b
        for start in range(0, a.shape[2], RUN):
            cut = (..., slice(start, start + RUN))
            total += np.vecdot(a[cut], b[cut]).sum(0, dtype=np.float64)


def accepts(x, gamma, beta, *, mean=None, var=None, axis=None, **_):
    """Whether all operands are of one dtype, float32 or float64, and every axis but 1 averaged."""
    if x.ndim < 2 or not same_floats(x, gamma, beta, mean, var):
        return False
    if axis is None:
        return True
    axes = np.atleast_1d(axis)
    exist = all(-x.ndim <= i < x.ndim for i in axes)
    return exist and sorted(i % x.ndim for i in axes) == [0, *range(2, x.ndim)]


def _accepts(x, *parameters, **params):
    return x.size >= MIN_SIZE and accepts(x, *parameters, **params)


fused_batch_norm.pairs["numpy"] = Pair(_forward, _backward, _accepts, reuses=True)


@fused(
    layer_norm,
    pullback=r"\bar x = \frac{1}{\sqrt{\sigma^2 + \epsilon}} (g - \frac{1}{F} \sum_j g_j"
    r" - \hat x\,\frac{1}{F} \sum_j g_j \hat x_j),\quad g = \gamma \bar y,\quad "
    r"\bar\gamma_j = \sum_n \bar y_{nj} \hat x_{nj},\quad \bar\beta_j = \sum_n \bar y_{nj}",
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
    x_hat = wide(x)
    x_hat = x_hat - _mean(xp, x_hat, axes)
    var = (x_hat * x_hat).mean(axis=axes, keepdims=True)
    inv_std = 1 / xp.sqrt(var + eps)
    x_hat *= inv_std
    y = x_hat * gamma
    y += beta
    return narrow(y, x, gamma, beta), (x_hat, gamma, inv_std)


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


@fused(
    group_norm,
    pullback=r"\bar x = \frac{1}{\sqrt{\sigma^2 + \epsilon}} (g - \frac{1}{m} \sum_i g_i"
    r" - \hat x\,\frac{1}{m} \sum_i g_i \hat x_i),\quad g = \gamma \bar y,\quad "
    r"\bar\gamma = \sum_n \bar y_n \hat x_n,\quad \bar\beta = \sum_n \bar y_n",
)
def fused_group_norm(xp, x, gamma, beta, *, num_groups, eps=1e-5):
    """``ops.group_norm`` with a hand-written backward; higher orders go through the composite.

    A batch norm, with a channel for each group of each example, normalizes.

    Args:
        x: (N, C) or (N, C, ...).
        gamma, beta: (C,), aligned with axis 1 of ``x``.
        num_groups: number of groups of C / num_groups neighbouring channels.
        eps: added to the variance.

    Returns:
        An array of the shape of ``x``.

    Raises:
        ShapeError: other shapes. UsageError: groups that do not divide the channels.

    Source:
        Wu, He 2018, arXiv:1803.08494, eq. 7.

    >>> x = mg.tensor([[1.0, 3.0, 10.0, 20.0]])
    >>> mg.fused.group_norm(x, np.ones(4), np.zeros(4), num_groups=2, eps=0.0)
    tensor([[-1.,  1., -1.,  1.]])
    """
    check_group_norm(x, gamma, beta, num_groups)
    n, groups, m = by_group(x, num_groups)
    rows = wide(x).reshape(1, n * groups, m)
    if groups == x.shape[1]:  # the rows are channels: the batch norm scales and shifts them, too
        scale, shift = (p.reshape(1, -1).repeat(n, axis=0).reshape(-1) for p in (gamma, beta))
        y, saved = fused_batch_norm.forward(xp, rows, scale, shift, eps=eps)
        return narrow(y.reshape(x.shape), x, gamma, beta), (None, gamma, rows.shape, saved)
    ones, zeros = (f(n * groups, dtype=rows.dtype) for f in (xp.ones, xp.zeros))
    x_hat, saved = fused_batch_norm.forward(xp, rows, ones, zeros, eps=eps)
    x_hat = x_hat.reshape(x.shape)
    y = x_hat * per_channel(gamma, x)
    y += per_channel(beta, x)
    return narrow(y, x, gamma, beta), (x_hat, gamma, rows.shape, saved)


@fused_group_norm.defbackward
def group_norm_backward(xp, y_bar, cache):
    x_hat, gamma, rows, saved = cache
    if x_hat is None:
        x_bar, *parameters = fused_batch_norm.pull(wide(y_bar).reshape(rows), saved, own=False)
        gamma_bar, beta_bar = (p.reshape(-1, gamma.size).sum(0) for p in parameters)
    else:
        batch = all_but_channels(x_hat)
        gamma_bar, beta_bar = (y_bar * x_hat).sum(batch), y_bar.sum(batch)
        g = xp.multiply(y_bar, per_channel(gamma, x_hat), dtype=x_hat.dtype)
        x_bar, *_ = fused_batch_norm.pull(g.reshape(rows), saved, own=True)
    return x_bar.reshape(y_bar.shape), gamma_bar, beta_bar
