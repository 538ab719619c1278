"""Compares kernel pairs with a reference in extended precision; bounds follow from their code.

``u`` is the eps of the dtype in which a kernel computes.
"""

from typing import NamedTuple

import numpy as np

import minigrad as mg
from minigrad.analytic import batch_norm, batch_norm_vjp
from minigrad.fused.cuda import PAIRS


def wide(array):
    """In longdouble, so that rounding of the reference is negligible; integers as they are."""
    if array is None or array.dtype.kind != "f":
        return array
    return array.astype(np.longdouble)


class Result(NamedTuple):
    """The results of a pair, on the host."""

    y: np.ndarray
    bars: tuple
    cache: tuple


def run(gpu, name, xs, y_bar, place=None, **params):
    """Forward and backward of the pair ``name`` on copies that ``place`` puts on the device."""
    pair, place = PAIRS[name], place or gpu.array
    params = {k: place(v) if isinstance(v, np.ndarray) else v for k, v in params.items()}
    arrays = [place(x) for x in xs]
    assert pair.accepts(*arrays, **params)
    y, cache = pair.forward(gpu.xp, *arrays, **params)
    bars = pair.backward(gpu.xp, place(y_bar), cache)
    bars = tuple(bar() if callable(bar) else bar for bar in bars)
    found = Result(gpu.host(y), tuple(None if b is None else gpu.host(b) for b in bars), cache)
    assert found.y.dtype == y_bar.dtype and found.y.shape == y_bar.shape
    for bar, x in zip(found.bars, xs, strict=True):
        assert bar is None or (bar.dtype == x.dtype and bar.shape == x.shape)
    return found


def assert_within(got, expected, bound, what):
    """Every element of ``got`` is within ``bound`` of ``expected``; nan only where expected."""
    error = np.abs(wide(got) - expected)
    bad = ~(error <= bound) & ~(np.isnan(got) & np.isnan(expected))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        count = f"{what}: {bad.sum()} of {bad.size} elements, first at {where}"
        at = [np.broadcast_to(a, got.shape)[where] for a in (got, expected, bound)]
        raise AssertionError(f"{count}\n  got {at[0]!r}, expected {at[1]}, bound {at[2]}")


# --- batch norm ----------------------------------------------------------------------------------


def normal(shape, dtype, rng, mean=0.0, std=1.0):
    """x, gamma, beta and y_bar for a channel axis 1."""
    x = (rng.normal(size=shape) * std + mean).astype(dtype)
    gamma, beta = (rng.uniform(0.5, 2, shape[1]).astype(dtype) for _ in range(2))
    gamma *= rng.choice([-1, 1], shape[1]).astype(dtype)
    return (x, gamma, beta), rng.normal(size=shape).astype(dtype)


def check_normalized(found, references, y_bar, x, gamma, beta, centre, inv_std, axes, dtype):
    """Hold batch or layer norm against ``references`` = (y, x_bar, gamma_bar, beta_bar).

    D = max|x - centre| inv_std is an upper bound of |x_hat|. Sums of 18 terms in the dtype move the
    mean by up to (18 + 2) u D standard deviations. Squares are of differences from the first value
    of a thread, for values in random order twice the squared deviations, so inv_std moves by
    (18 + 3 / 2) u. 4 roundings follow per element. Together this is below 40 u D, times another D
    for float64, in which sums across threads are no more precise than the values, and cancel by a
    factor of D^2. In the backward the same error of x_hat is multiplied with the magnitudes of the
    summands before they cancel.
    """
    u = np.finfo(dtype).eps
    spread = np.abs(wide(x) - centre)
    d = 1 + (spread.max(axes, keepdims=True) * inv_std)
    d = d * d if dtype == np.float64 else d
    hat, g = spread * inv_std, np.abs(wide(y_bar) * gamma)
    mean_g, mean_gh = g.mean(axes, keepdims=True), (g * hat).mean(axes, keepdims=True)
    bounds = [
        40 * u * (d * np.abs(gamma) + np.abs(beta)),
        40 * u * d * inv_std * (g + mean_g * (1 + d) + d * mean_gh),
    ]
    others = tuple(i for i in range(x.ndim) if gamma.shape[i] == 1)
    sums = (np.abs(wide(y_bar)) * d).sum(others), np.abs(wide(y_bar)).sum(others)
    bounds += [40 * u * s for s in sums]
    names = ("y", "x_bar", "gamma_bar", "beta_bar")
    for name, got, expected, bound in zip(
        names, (found.y, *found.bars), references, bounds, strict=True
    ):
        assert_within(got, expected, bound, name)


def check_batch_norm(gpu, xs, y_bar, eps=1e-5, mean=None, var=None, place=None):
    """One call of batch norm, in training or (with mean and var) in evaluation."""
    given = {"mean": mean, "var": var} if mean is not None else {}
    found = run(gpu, "batch_norm", xs, y_bar, place, eps=eps, **given)
    x, gamma, beta = map(wide, xs)
    fixed = {k: wide(v) for k, v in given.items()}
    y = batch_norm(np, x, gamma, beta, eps=eps, **fixed)
    bars = batch_norm_vjp(np, wide(y_bar), x, gamma, beta, eps=eps, **fixed)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    channels = (1, -1) + (1,) * (x.ndim - 2)
    mu = wide(mean) if given else x.mean(axes)
    biased = wide(var) if given else ((x - mu.reshape(channels)) ** 2).mean(axes)
    parameters = [p.reshape(channels) for p in (gamma, beta, mu, 1 / np.sqrt(biased + eps))]
    check_normalized(found, (y, *bars), y_bar, xs[0], *parameters, axes, xs[0].dtype)
    if not given:
        u = np.finfo(x_dtype := xs[0].dtype).eps
        largest = np.abs(x - mu.reshape(channels)).max(axes)
        for name, expected, bound in (
            ("mean", mu, 18 * u * largest + u * np.abs(mu)),
            ("var", biased, 40 * u * largest**2),
        ):
            got = gpu.host(getattr(found.cache, name))
            assert got.dtype == x_dtype
            assert_within(got, expected, bound, name)
    return found


def check_layer_norm(gpu, x, gamma, beta, y_bar, eps=1e-5):
    """One call of layer norm over the trailing axes of ``gamma``."""
    found = run(gpu, "layer_norm", (x, gamma, beta), y_bar, eps=eps)
    boxes = [mg.tensor(wide(a)) for a in (x, gamma, beta)]
    y, pullback = mg.vjp(lambda *a: mg.layer_norm(*a, eps=eps), *boxes)
    references = [y.data, *(bar.data for bar in pullback(wide(y_bar)))]
    axes = tuple(range(x.ndim - gamma.ndim, x.ndim))
    lead = (1,) * (x.ndim - gamma.ndim)
    mu = wide(x).mean(axes, keepdims=True)
    inv_std = 1 / np.sqrt(((wide(x) - mu) ** 2).mean(axes, keepdims=True) + eps)
    gamma, beta = (wide(p).reshape(lead + p.shape) for p in (gamma, beta))
    check_normalized(found, references, y_bar, x, gamma, beta, mu, inv_std, axes, x.dtype)
