"""Batch norm against its hand-written backward, its identities and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad.analytic import batch_norm, batch_norm_vjp

SHAPES = [(2, 3), (7, 3), (64, 5), (4, 2, 5), (3, 2, 4, 3), (2, 2, 2, 3, 2)]
EPS = np.finfo(np.float64).eps
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def operands(rng, shape, scale=2.0, shift=1.0):
    c = shape[1]
    return (
        rng.normal(shift, scale, shape),
        rng.normal(size=c),
        rng.normal(size=c),
        rng.normal(size=shape),
    )


def summands(x, gamma, y_bar, eps, axis=None, mean=None, var=None):
    """Scales of the rounding errors of x_bar, gamma_bar and beta_bar: their summands' sizes.

    Before cancellation, the direct, the mean and the variance path of x_bar have the size
    r (|g| + mean|g| + |x_hat| mean|g x_hat|). The difference x - mu is off by u |x|, which relative
    to sqrt(var + eps) is the factor 1 + max|x| r. It applies to gamma_bar, too, the sum of
    y_bar x_hat with x_hat = r (x - mu).
    """
    axes = tuple(i for i in range(x.ndim) if i != 1) if axis is None else axis
    others = tuple(i for i in range(x.ndim) if i != 1)
    channels = (1, -1) + (1,) * (x.ndim - 2)
    if mean is None:
        xc = x - x.mean(axis=axes, keepdims=True)
        var = (xc * xc).mean(axis=axes, keepdims=True)
    else:
        xc, var = x - mean.reshape(channels), var.reshape(channels)
    r = 1 / np.sqrt(var + eps)
    x_hat, g = np.abs(xc * r), np.abs(y_bar * gamma.reshape(channels))
    paths = g
    if mean is None:
        paths = g + g.mean(axis=axes, keepdims=True)
        paths = paths + x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
    condition = 1 + np.abs(x).max(axis=axes, keepdims=True) * r
    of_gamma = (np.abs(y_bar) * x_hat * condition).sum(axis=others)
    return (
        r * paths * condition,
        of_gamma + np.abs(y_bar).sum(axis=others) * EPS,
        np.abs(y_bar).sum(axis=others),
    )


def hold_against_analytic(x, gamma, beta, y_bar, **params):
    y, pullback = mg.vjp(lambda *a: mg.ops.batch_norm(*a, **params), x, gamma, beta)
    np.testing.assert_allclose(
        y.data,
        batch_norm(np, x, gamma, beta, **params),
        rtol=0,
        atol=1e-13 * (np.abs(gamma).max() + np.abs(beta).max()) * conditioned(x, params),
    )
    expected = batch_norm_vjp(np, y_bar, x, gamma, beta, **params)
    scales = summands(x, gamma, y_bar, params.get("eps", 1e-5), params.get("axis"),
                      params.get("mean"), params.get("var"))  # fmt: skip
    for got, wanted, scale in zip(pullback(y_bar), expected, scales, strict=True):
        assert got.shape == wanted.shape
        assert (np.abs(got.data - wanted) <= 1e-13 * scale).all()


def conditioned(x, params):
    axes = params.get("axis") or tuple(i for i in range(x.ndim) if i != 1)
    var = params["var"] if "var" in params else x.var(axis=axes)
    r = 1 / np.sqrt(var.min() + params.get("eps", 1e-5))
    return (1 + np.abs(x).max() * r) * (1 + np.sqrt(x.size))  # |x_hat| <= sqrt(N)


@every_shape
@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-1])
def test_traced_equals_analytic_to_1e_13_of_the_summands(shape, eps, rng):
    hold_against_analytic(*operands(rng, shape), eps=eps)


@every_shape
def test_traced_equals_analytic_in_evaluation(shape, rng):
    c = shape[1]
    mean, var = rng.normal(size=c), rng.uniform(0.0, 2.0, c)
    hold_against_analytic(*operands(rng, shape), mean=mean, var=var)


@pytest.mark.parametrize("axis", [(2,), (0,), (0, 2), (0, -1)])
def test_traced_equals_analytic_over_any_axes(axis, rng):
    hold_against_analytic(*operands(rng, (4, 2, 5)), axis=axis)


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-1])
def test_traced_equals_analytic_with_a_constant_column_and_gamma_zero(eps, rng):
    x, gamma, beta, y_bar = operands(rng, (9, 4))
    x[:, 1], x[:, 2], gamma[3] = 0.1, 0.0, 0.0
    hold_against_analytic(x, gamma, beta, y_bar, eps=eps)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(SHAPES),
    st.floats(-6, 6).map(lambda e: 10**e),
    st.floats(-1e3, 1e3),
    st.floats(-12, -1).map(lambda e: 10**e),
)
def test_traced_equals_analytic_at_any_scale_shift_and_eps(seed, shape, scale, shift, eps):
    rng = np.random.default_rng(seed)
    hold_against_analytic(*operands(rng, shape, scale, shift), eps=eps)


@every_shape
def test_x_bar_sums_to_zero_over_the_batch(shape, rng):
    x, gamma, beta, y_bar = operands(rng, shape)
    x_bar = mg.vjp(mg.ops.batch_norm, x, gamma, beta)[1](y_bar)[0].numpy()
    axes = tuple(i for i in range(x.ndim) if i != 1)
    scale = summands(x, gamma, y_bar, 1e-5)[0].sum(axis=axes)
    assert np.abs(x_bar).max() > 1e-3 * np.abs(y_bar * gamma.max()).max() or shape[0] == 2
    assert (np.abs(x_bar.sum(axis=axes)) <= 32 * EPS * scale).all()


@every_shape
def test_x_bar_along_x_hat_vanishes_with_eps(shape, rng):
    # sum x_bar x_hat = r sum(g x_hat) eps / (var + eps), the derivative of a scaling of x
    x, gamma, beta, y_bar = operands(rng, shape)
    eps, axes = 0.1, tuple(i for i in range(x.ndim) if i != 1)
    channels = (1, -1) + (1,) * (x.ndim - 2)
    x_bar = mg.vjp(lambda *a: mg.ops.batch_norm(*a, eps=eps), x, gamma, beta)[1](y_bar)[0].numpy()
    var = x.var(axis=axes, keepdims=True)
    r = 1 / np.sqrt(var + eps)
    x_hat = (x - x.mean(axis=axes, keepdims=True)) * r
    expected = (r * y_bar * gamma.reshape(channels) * x_hat * eps / (var + eps)).sum(axis=axes)
    scale = (summands(x, gamma, y_bar, eps)[0] * np.abs(x_hat)).sum(axis=axes)
    assert (np.abs((x_bar * x_hat).sum(axis=axes) - expected) <= 32 * EPS * scale).all()


@every_shape
@pytest.mark.parametrize("shift", [3.0, -1e4])
def test_a_shift_of_x_changes_nothing(shape, shift, rng):
    x, gamma, beta, y_bar = operands(rng, shape)
    y, pullback = mg.vjp(mg.ops.batch_norm, x, gamma, beta)
    shifted, shifted_pullback = mg.vjp(mg.ops.batch_norm, x + shift, gamma, beta)
    moved = x + shift
    limit = 1e-13 * conditioned(moved, {}) * (np.abs(gamma).max() + np.abs(beta).max())
    assert (np.abs(y.data - shifted.data) <= limit).all()
    scales = summands(moved, gamma, y_bar, 1e-5)
    pairs = zip(pullback(y_bar), shifted_pullback(y_bar), scales, strict=True)
    for before, after, scale in pairs:
        assert (np.abs(before.data - after.data) <= 1e-13 * scale).all()


@every_shape
@pytest.mark.parametrize("factor", [1024.0, 2.0**-20])
def test_a_scaling_of_x_divides_x_bar_when_eps_scales_with_its_square(shape, factor, rng):
    # powers of two: every rounding is the same, so the results are bit-identical
    x, gamma, beta, y_bar = operands(rng, shape)
    _, pullback = mg.vjp(lambda *a: mg.ops.batch_norm(*a, eps=2.0**-16), x, gamma, beta)
    eps = 2.0**-16 * factor**2
    _, scaled = mg.vjp(lambda *a: mg.ops.batch_norm(*a, eps=eps), x * factor, gamma, beta)
    x_bar, gamma_bar, beta_bar = pullback(y_bar)
    x_bar_s, gamma_bar_s, beta_bar_s = scaled(y_bar)
    np.testing.assert_array_equal(x_bar_s.data * factor, x_bar.data)
    np.testing.assert_array_equal(gamma_bar_s.data, gamma_bar.data)
    np.testing.assert_array_equal(beta_bar_s.data, beta_bar.data)


def test_a_large_mean_in_float32_keeps_the_variance(rng):
    # E[x^2] - E[x]^2 would lose everything at mean/std = 1e4; two passes lose u * mean/std
    z = rng.normal(size=(64, 3))
    z = (z - z.mean(0)) / z.std(0)
    x = (1e4 + z).astype(np.float32)
    y = mg.ops.batch_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    assert y.dtype == np.float32
    exact = batch_norm(np, x.astype(np.float64), np.ones(3), np.zeros(3))
    limit = 4 * np.finfo(np.float32).eps * 1e4 * (1 + np.abs(exact).max())
    assert np.abs(y - exact).max() <= limit


def test_analytic_gradient_is_not_the_one_without_the_variance_path(rng):
    # the check can fail: the classic mistake is far outside the bound
    x, gamma, beta, y_bar = operands(rng, (8, 3))
    x_bar = batch_norm_vjp(np, y_bar, x, gamma, beta)[0]
    r = 1 / np.sqrt(x.var(0) + 1e-5)
    g = gamma * y_bar
    wrong = r * (g - g.mean(0))
    assert (np.abs(wrong - x_bar) > 1e6 * 1e-13 * summands(x, gamma, y_bar, 1e-5)[0]).any()
