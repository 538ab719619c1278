"""Relative accuracy where finite differences cannot tell: tails, near cancellation, large offsets.

The references are np.longdouble, ``math`` or closed forms. A tolerance counts roundings: ``units``
of eps for the function itself, plus the effect that rounding an argument has on an exponential.
"""

import functools
import math

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend
from minigrad.special import BLOCK

EPS = np.finfo(np.float64).eps
WIDE = np.finfo(np.longdouble).eps < EPS / 100
needs_wide = pytest.mark.skipif(not WIDE, reason="np.longdouble is no wider than float64 here")


def derivative(f, x):
    """The elementwise derivative; the seed has powers of two, so that dividing by it is exact."""
    seed = np.resize(np.array([2.0, -0.5, 4.0], x.dtype), np.shape(x))
    return mg.vjp(f, x)[1](seed)[0].numpy() / seed


def holds(got, expected, units, floor=0.0):
    got, expected = np.asarray(got), np.asarray(expected)
    error = np.abs(got.astype(np.longdouble) - expected)
    limit = units * EPS * np.maximum(np.abs(expected), floor)
    tiny = np.finfo(np.float64).tiny  # below it float64 has no relative accuracy
    bad = (error > limit) & (np.abs(expected) > tiny)
    assert not bad.any(), (got[bad], expected[bad], np.max(error[bad] / np.abs(expected[bad])))


TAIL = np.concatenate([-np.geomspace(1e-12, 700, 60), np.geomspace(1e-12, 700, 60), [0.0]])


@needs_wide
def test_softplus_and_its_derivatives_are_accurate_in_both_tails():
    w = TAIL.astype(np.longdouble)
    small = np.exp(-np.abs(w))
    holds(mg.softplus(TAIL), np.log1p(small) + np.maximum(w, 0), 4)
    sigmoid = np.where(w >= 0, 1, small) / (1 + small)
    holds(derivative(mg.softplus, TAIL), sigmoid, 8)
    second = derivative(mg.grad(lambda t: mg.sum(mg.softplus(t))), TAIL)
    holds(second, small / (1 + small) ** 2, 16)


@needs_wide
def test_sigmoid_and_its_derivatives_are_accurate_in_both_tails():
    w = TAIL.astype(np.longdouble)
    small = np.exp(-np.abs(w))
    holds(mg.sigmoid(TAIL), np.where(w >= 0, 1, small) / (1 + small), 4)
    holds(derivative(mg.sigmoid, TAIL), small / (1 + small) ** 2, 8)


@needs_wide
def test_tanh_and_its_derivative_are_accurate_in_both_tails():
    x = TAIL[np.abs(TAIL) < 350]
    w = x.astype(np.longdouble)
    small = np.exp(-2 * np.abs(w))
    holds(mg.tanh(x), np.tanh(w), 4)
    holds(derivative(mg.tanh, x), 4 * small / (1 + small) ** 2, 8)


@needs_wide
def test_log1p_and_expm1_are_accurate_near_zero():
    x = np.concatenate([np.geomspace(1e-300, 1, 60), -np.geomspace(1e-300, 0.9, 60)])
    w = x.astype(np.longdouble)
    holds(mg.log1p(x), np.log1p(w), 4)
    holds(derivative(mg.log1p, x), 1 / (1 + w), 4, floor=1.0)
    holds(mg.expm1(x), np.expm1(w), 4)
    far = np.linspace(-700, -30, 40)
    holds(derivative(mg.expm1, far), np.exp(far.astype(np.longdouble)), 4)


def test_erf_and_erfc_equal_the_c_library():
    x = np.concatenate([np.linspace(-26, 26, 2001), np.geomspace(1e-300, 1, 100)])
    holds(mg.ops.erf(x), [math.erf(t) for t in x], 4)
    holds(mg.ops.erfc(x), [math.erfc(t) for t in x], 8)
    assert mg.ops.erf(np.array([0.0, -0.0, np.inf, -np.inf])).tolist() == [0.0, 0.0, 1.0, -1.0]
    assert mg.ops.erfc(np.array([0.0, np.inf, -np.inf, 30.0])).tolist() == [1.0, 0.0, 2.0, 0.0]
    assert np.isnan(mg.ops.erf(np.array([np.nan]))).all()
    assert np.isnan(mg.ops.erfc(np.array([np.nan]))).all()


def test_erf_and_erfc_of_float32_equal_the_c_library():
    x = np.linspace(-9.1, 9.1, 40_000, dtype="float32")  # more than one block, normal to its end
    wide = x.astype(float)
    for f, known in ((mg.ops.erf, math.erf), (mg.ops.erfc, math.erfc)):
        y, expected = f(x), np.array([known(t) for t in wide])
        # roundings: t and the last steps of the polynomial, its coefficients, exp, two products
        assert y.dtype == x.dtype
        assert (np.abs(y - expected) <= 8 * np.finfo(x.dtype).eps * np.abs(expected)).all()
        edges = f(np.array([0.0, np.inf, -np.inf, 30.0, np.nan], "float32"))
        np.testing.assert_array_equal(edges, f(np.array([0.0, np.inf, -np.inf, 30.0, np.nan])))


def test_erfc_of_blocks_is_that_of_elements_in_the_order_of_memory():
    x = np.asfortranarray(np.linspace(-6, 6, 200 * 400).reshape(200, 400))
    y = mg.ops.erfc(x)
    assert y.flags.f_contiguous
    rows = np.stack([mg.ops.erfc(row) for row in x])
    np.testing.assert_allclose(y, rows, rtol=8 * EPS)
    np.testing.assert_allclose(mg.ops.erfc(x[:, ::2]), rows[:, ::2], rtol=8 * EPS)


def test_only_arrays_on_the_host_are_divided_into_blocks(gpu):
    x = np.linspace(-6, 6, 2 * BLOCK)
    y = mg.ops.erfc(gpu.xp.asarray(x))
    assert isinstance(y, gpu.xp.ndarray)
    np.testing.assert_allclose(backend.to_host(y), mg.ops.erfc(x), rtol=8 * EPS)


def test_erf_is_smooth_across_its_intervals():
    for edge in (0.46875, 4.0):
        around = edge * (1 + np.arange(-4, 5) * EPS)
        for x in (around, -around):
            holds(mg.ops.erf(x), [math.erf(t) for t in x], 4)
            holds(mg.ops.erfc(x), [math.erfc(t) for t in x], 8)


@needs_wide
def test_derivatives_of_erf_and_erfc_are_accurate_in_the_tails():
    # exp(-x^2): the rounding of x^2 is relative, so it costs x^2 units in the exponent
    x = np.linspace(0, 26, 200)
    w = x.astype(np.longdouble)
    expected = 2 / np.sqrt(np.longdouble(math.pi)) * np.exp(-w * w)
    error = np.abs(derivative(mg.erf, x) - expected)
    assert (error <= (4 + x * x) * EPS * expected).all()
    error = np.abs(derivative(mg.ops.erfc, x) + expected)
    assert (error <= (4 + x * x) * EPS * expected).all()


@needs_wide
def test_gelu_and_its_derivative_are_accurate_in_the_left_tail():
    # erfc(z) at z = -x/sqrt(2): z rounds twice, and erfc has the condition number 2 z^2 = x^2
    x = -np.linspace(0.1, 36, 300)
    w = x.astype(np.longdouble)
    z = -w / np.sqrt(np.longdouble(2))
    near = z.astype(np.float64)  # erfc at a float64, continued to z by its derivative
    slope = -2 / np.sqrt(np.longdouble(math.pi)) * np.exp(-(near.astype(np.longdouble) ** 2))
    erfc = np.array([math.erfc(t) for t in near]) + slope * (z - near)
    limit = (8 + x * x) * EPS
    expected = w * erfc / 2
    normal = np.abs(expected) > np.finfo(np.float64).tiny
    assert (np.abs(mg.gelu(x) - expected) <= limit * np.abs(expected))[normal].all()
    density = np.exp(-w * w / 2) / np.sqrt(2 * np.longdouble(math.pi))
    error = np.abs(derivative(mg.gelu, x) - (erfc / 2 + w * density))
    assert (error <= limit * (erfc / 2 + np.abs(w) * density))[normal].all()


@needs_wide
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3, -1e3, 1e6, 1e16])
def test_logaddexp_depends_on_the_difference_only(offset, rng):
    x1, x2 = offset + rng.integers(-30, 30, (2, 50)).astype(np.float64)
    gap = (x1 - x2).astype(np.longdouble)
    expected = np.maximum(x1, x2) + np.log1p(np.exp(-np.abs(gap)))
    holds(mg.logaddexp(x1, x2), expected, 4, floor=1.0)
    first, second = mg.vjp(mg.logaddexp, x1, x2)[1](np.linspace(1, 2, 50))
    weight = 1 / (1 + np.exp(-gap))
    # an exponent of up to 60 in size rounds by up to 30 eps, once or twice
    holds(first.data, np.linspace(1, 2, 50) * weight, 64)
    holds(second.data, np.linspace(1, 2, 50) * (1 / (1 + np.exp(gap))), 64)


@needs_wide
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3, -1e3, 1e6, 1e16])
def test_softmax_and_its_relatives_depend_on_differences_only(offset, rng):
    base = rng.integers(-20, 20, (6, 5)).astype(np.float64) * 2
    x = base + offset  # exact: even integers below 2^54
    w = base.astype(np.longdouble)
    top = w.max(axis=1, keepdims=True)
    lse = np.log(np.exp(w - top).sum(axis=1, keepdims=True)) + top
    weights = np.exp(w - lse)
    seed = rng.uniform(0.5, 1.5, (6, 1))
    holds(mg.logsumexp(x, axis=1, keepdims=True), lse + offset, 4, floor=1.0)
    pulled = mg.vjp(lambda t: mg.logsumexp(t, axis=1, keepdims=True), x)[1](seed)[0]
    holds(pulled.data, seed * weights, 64)  # the exponent w - lse is up to 80
    for ops in (mg, mg.fused):
        holds(ops.softmax(x, axis=1), weights, 64)
        holds(ops.log_softmax(x, axis=1), w - lse, 8, floor=80.0)
        pulled = mg.vjp(lambda t, f=ops.log_softmax: f(t, axis=1)[:, :1], x)[1](seed)[0]
        holds(pulled.data[:, 1:], -seed * weights[:, 1:], 64)
    labels = rng.integers(0, 5, 6)
    loss = -(w - lse)[np.arange(6), labels].mean()
    holds(mg.cross_entropy(x, labels), loss, 8, floor=80.0)


def test_extreme_arguments_overflow_nowhere():
    far = np.array([-1e150, -1e5, -800.0, 800.0, 1e5, 1e150])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for f in (mg.softplus, mg.sigmoid, mg.tanh, mg.relu, mg.elu, mg.leaky_relu, mg.ops.erf):
            y, pullback = mg.vjp(f, far)
            assert np.isfinite(y.data).all()
            assert np.isfinite(pullback(np.linspace(0.5, 1, 6))[0].data).all()
        for f in (mg.logsumexp, mg.softmax, mg.log_softmax):
            y, pullback = mg.vjp(f, far[1:5])
            assert np.isfinite(y.data).all()
            assert np.isfinite(pullback(np.full(y.shape, 0.5))[0].data).all()


def test_derivatives_at_the_end_of_float32_are_not_zero():
    x = np.float32([-80.0, 80.0])
    assert (derivative(mg.sigmoid, x) > 0).all()
    assert (derivative(mg.tanh, x / 2) > 0).all()
    assert derivative(mg.softplus, x)[0] > 0


def test_variance_of_data_with_a_large_mean_is_exact(rng):
    z = rng.integers(-50, 50, 64).astype(np.float64)
    assert mg.var(2.0**40 + z) == pytest.approx(z.var(), rel=4 * EPS)
    got = mg.vjp(mg.var, 2.0**40 + z)[1](1.5)[0].data
    np.testing.assert_allclose(got, 1.5 * 2 * (z - z.mean()) / 64, rtol=1e-13, atol=1e-4 * EPS)


def test_batch_norm_of_float32_with_a_large_mean_rounds_the_mean_once(rng):
    x = rng.normal(1e3, 1.0, (4096, 3)).astype("float32")
    y = mg.ops.batch_norm(mg.tensor(x), np.ones(3, "float32"), np.zeros(3, "float32")).numpy()
    exact = x.astype("float64")
    mean, std = exact.mean(0), np.sqrt(exact.var(0) + 1e-5)
    x_hat = (exact - mean) / std
    # The rounded mean shifts a column by at most u |mean|; x - mean is exact, as both are so close.
    # Squares, var, var + eps, its square root, the reciprocal and the product round once each.
    bound = 2.0**-24 * (np.abs(mean) / std + 6 * np.abs(x_hat))
    assert (np.abs(y - x_hat) <= bound).all()


def test_mean_and_variance_of_float32_are_rounded_once(rng):
    x = rng.normal(1e3, 1.0, (4096, 3)).astype("float32")
    exact = x.astype("float64")
    for f, reference in (mg.mean, exact.mean(0)), (mg.var, exact.var(0)):
        np.testing.assert_array_equal(f(x, axis=0), reference.astype("float32"))


def test_counts_beyond_float16_divide_a_float16_gradient():
    x = np.tile(np.float16([1.0, -1.0]), 50_000)
    for f, slope in ((mg.mean, 1), (mg.var, 2 * x.astype(float))):
        x_bar = mg.vjp(f, x)[1](np.float16(3.0))[0].data
        assert x_bar.dtype == np.float16  # one rounding, of a number below the smallest normal one
        np.testing.assert_allclose(x_bar, 3e-5 * slope * np.ones(len(x)), rtol=0, atol=2.0**-25)


def test_sums_of_exponentials_beyond_float16_are_as_good_as_any(rng):
    x = np.tile(np.float16([0.0, 0.125]), (2, 35_000))
    labels = {"labels": [3, 4]}
    losses = (functools.partial(m.cross_entropy, **labels) for m in (mg.ops, mg.fused))
    for f in (lambda x: mg.logsumexp(x, axis=1), mg.softmax, mg.ops.log_softmax, *losses):
        y, pullback = mg.vjp(f, x)
        exact, reference = mg.vjp(f, x.astype(float))
        y_bar, x_dot = (rng.normal(size=a.shape).astype("float16") for a in (y, x))
        wanted = [exact, *reference(y_bar), mg.jvp(f, x.astype(float), x_dot)[1]]
        for got, value in zip([y, *pullback(y_bar), mg.jvp(f, x, x_dot)[1]], wanted, strict=True):
            # one rounding of a float32 result to float16, whose numbers below 2**-14 are multiples
            # of 2**-24; the far smaller errors of float32 get as much again
            assert got.dtype == np.float16
            assert (np.abs(got.data - value.data) <= 2.0**-10 * np.abs(value.data) + 2.0**-24).all()


@pytest.mark.parametrize("module", [mg.ops, mg.fused])
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_deviations_whose_squares_overflow_float16_are_normalized(module, name, rng):
    x, y_bar = (1000 * rng.normal(size=(20, 5))).astype("float16"), rng.normal(size=(20, 5))
    gamma, beta, y_bar = (a.astype("float16") for a in (*rng.normal(size=(2, 5)), y_bar))
    y, pullback = mg.vjp(getattr(module, name), x, gamma, beta)
    wide = [a.astype("float64") for a in (x, gamma, beta)]
    expected, reference = mg.vjp(getattr(mg.ops, name), *wide)
    means = functools.partial(np.mean, axis=int(name == "layer_norm"), keepdims=True)
    xc = wide[0] - means(wide[0])
    sigma = np.sqrt(means(xc * xc))
    x_hat, g = np.abs(xc / sigma), np.abs(wide[1] * y_bar)
    eps = float(np.finfo("float16").eps)
    # y: x_hat, its product and its sum are rounded; x_bar: a difference of three paths, each of
    # them rounded twice; the others: sums of 20 terms, each of them rounded at most 20 times
    parts = [(g + means(g) + x_hat * means(g * x_hat)) / sigma,
             10 * np.abs(x_hat * y_bar).sum(0), 10 * np.abs(y_bar).sum(0)]  # fmt: skip
    pairs = zip([y, *pullback(y_bar)], [expected, *reference(y_bar)],
                [x_hat * np.abs(wide[1]) + np.abs(wide[2]), *parts], strict=True)  # fmt: skip
    for got, exact, part in pairs:
        assert got.dtype == np.float16
        assert (np.abs(got.data - exact.data) <= 2 * eps * part + 2.0**-24).all()


@pytest.mark.parametrize("p", [3, 4.0, 5, -2, -3])
def test_whole_powers_have_the_sign_of_their_base_to_a_few_roundings(p, rng):
    x = np.concatenate([rng.normal(size=50), [0.0, -0.0, np.inf, -np.inf, np.nan]])
    with np.errstate(divide="ignore"):
        got, expected = mg.power(x, p), np.array([float(v) for v in x]) ** p
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))
    np.testing.assert_allclose(got, expected, rtol=4 * EPS)
    slope = derivative(lambda x: mg.power(x, p), x[:50])
    np.testing.assert_allclose(slope, p * x[:50] ** (p - 1), rtol=8 * EPS)
    assert mg.power(np.array([-2]), 3).dtype.kind == "i"


@pytest.mark.parametrize("p", [0.5, 2.5, -1.5])
def test_other_powers_of_negative_numbers_are_nan(p):
    with np.errstate(invalid="ignore"):
        assert np.isnan(mg.power(np.array([-2.0]), p)).all()


@pytest.mark.parametrize("p", [3, 4, 5.0, -3, -4])
def test_whole_powers_of_a_0d_array_are_those_of_its_number(p):
    x = mg.tensor([-1.5], requires_grad=True)
    (x.squeeze() ** p).backward()  # NumPy squeezes to a 0-d array, which is no NumPy scalar
    assert x.grad.item() == pytest.approx(p * (-1.5) ** (p - 1), rel=4 * EPS)
    assert mg.power(np.array(-1.5), p) == pytest.approx((-1.5) ** p, rel=4 * EPS)
