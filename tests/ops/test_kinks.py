"""Kinks and ties take the documented subgradient, in both modes."""

import numpy as np
import pytest

import minigrad as mg

SEED = np.array([1.5, -0.5, 2.0])


def both_modes(f, x, seed):
    """The cotangent of ``x``, checked against the tangent of every unit direction."""
    x = np.asarray(x, float)
    x_bar = mg.vjp(f, x)[1](seed)[0].numpy()
    for k in range(x.size):
        e = np.zeros(x.shape)
        e.reshape(-1)[k] = 1.0
        y_dot = mg.jvp(f, (x,), (e,))[1].numpy()
        assert (y_dot * seed).sum() == x_bar.reshape(-1)[k]
    return x_bar


@pytest.mark.parametrize(
    ("name", "params", "slopes"),
    [
        ("relu", {}, [0.0, 0.0, 1.0]),
        ("absolute", {}, [-1.0, 0.0, 1.0]),
        ("sign", {}, [0.0, 0.0, 0.0]),
        ("leaky_relu", {}, [0.01, 0.01, 1.0]),
        ("leaky_relu", {"alpha": 0.25}, [0.25, 0.25, 1.0]),
        ("elu", {}, [np.exp(-2.0), 1.0, 1.0]),
        ("elu", {"alpha": 0.25}, [0.25 * np.exp(-2.0), 0.25, 1.0]),
    ],
)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_slopes_left_of_at_and_right_of_zero(name, params, slopes, zero):
    f = lambda x: getattr(mg.ops, name)(x, **params)  # noqa: E731
    np.testing.assert_array_equal(both_modes(f, [-2.0, zero, 3.0], SEED), SEED * slopes)


@pytest.mark.parametrize(
    ("limits", "slopes"),
    [
        ((-1.0, 1.0), [0.0, 1.0, 1.0, 1.0, 0.0]),
        ((-1.0, None), [0.0, 1.0, 1.0, 1.0, 1.0]),
        ((None, 1.0), [1.0, 1.0, 1.0, 1.0, 0.0]),
        ((None, None), [1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_clip_passes_the_cotangent_at_its_limits(limits, slopes):
    seed = np.linspace(1, 2, 5)
    x_bar = both_modes(lambda x: mg.clip(x, *limits), [-2.0, -1.0, 0.0, 1.0, 2.0], seed)
    np.testing.assert_array_equal(x_bar, seed * slopes)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
@pytest.mark.parametrize("limits", [(-1, 1), (0, None), (None, 0), (None, None), (1, -1)])
def test_clip_of_a_large_array_equals_that_of_its_rows(limits, dtype):
    x = np.random.default_rng(0).normal(size=(8, 1024)) * 3
    x[0, :3] = 0.0 if dtype == "int64" else [np.nan, np.inf, -np.inf]
    x = x.astype(dtype)
    y = mg.clip(x, *limits)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, np.stack([mg.clip(row, *limits) for row in x]))


def test_clip_limits_may_be_arrays_that_broadcast_x():
    x_bar = both_modes(
        lambda x: mg.clip(x, np.array([[0.0], [2.0]]), 3.0), [1.0, 2.0, 4.0], np.tile(SEED, (2, 1))
    )
    np.testing.assert_array_equal(x_bar, SEED * [1.0, 2.0, 0.0])


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ([3.0, 3.0, 1.0], [0.5, 0.5, 0.0]),
        ([3.0, 3.0, 3.0], [1 / 3] * 3),
        ([1.0, 3.0, 2.0], [0.0, 1.0, 0.0]),
        ([0.0, -0.0, -1.0], [0.5, 0.5, 0.0]),
    ],
)
def test_ties_of_extrema_share_equally(name, values, shares):
    sign = 1.0 if name == "max" else -1.0
    f = lambda x: getattr(mg.ops, name)(sign * x)  # noqa: E731
    _, pullback = mg.vjp(f, values)
    np.testing.assert_allclose(pullback(2.0)[0].data, sign * 2.0 * np.array(shares), rtol=4e-16)
    assert pullback(2.0)[0].data.sum() == pytest.approx(sign * 2.0, rel=4e-16)


def test_ties_of_extrema_are_counted_per_line():
    x = np.array([[1.0, 1.0], [0.0, 1.0]])
    x_bar = both_modes(lambda t: mg.max(t, axis=1), x, np.array([3.0, 5.0]))
    np.testing.assert_array_equal(x_bar, [[1.5, 1.5], [0.0, 5.0]])
    x_bar = mg.vjp(lambda t: mg.max(t, axis=0, keepdims=True), x)[1]([[3.0, 5.0]])[0]
    np.testing.assert_array_equal(x_bar.data, [[3.0, 2.5], [0.0, 2.5]])
    x_bar = mg.vjp(lambda t: mg.max(t), x)[1](3.0)[0]
    np.testing.assert_array_equal(x_bar.data, [[1.0, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties_of_two_operands_share_half_and_half(name):
    op = getattr(mg.ops, name)
    a, b = mg.vjp(op, [1.0, 2.0, 3.0], [1.0, 0.0, 5.0])[1](SEED)
    wins = np.array([0.5, 1.0, 0.0]) if name == "maximum" else np.array([0.5, 0.0, 1.0])
    np.testing.assert_array_equal(a.data, SEED * wins)
    np.testing.assert_array_equal(b.data, SEED * (1 - wins))
    x = mg.tensor([1.0], requires_grad=True)
    op(x, x).backward([2.0])
    np.testing.assert_array_equal(x.grad.data, [2.0])


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, False, np.float64(0.0)], ids=repr)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_quotient_by_zero_has_an_infinite_derivative_whatever_the_type_of_the_zero(zero):
    slope = np.copysign(np.inf, zero)
    np.testing.assert_array_equal(mg.grad(lambda x: x / zero)(2.0).data, slope)
    np.testing.assert_array_equal(mg.jvp(lambda x: x / zero, (2.0,), (-1.5,))[1].data, -slope)


@pytest.mark.parametrize("ddof", [3, 4])
@pytest.mark.filterwarnings("ignore")
def test_a_variance_with_no_degree_of_freedom_is_infinite_and_so_are_its_derivatives(ddof):
    x, v = np.array([1.0, 2.0, 6.0]), np.array([1.5, -0.5, 2.0])
    np.testing.assert_array_equal(mg.var(x, ddof=ddof), np.inf)
    x_bar = mg.vjp(lambda t: mg.var(t, ddof=ddof), x)[1](1.5)[0]
    np.testing.assert_array_equal(x_bar.data, [-np.inf, -np.inf, np.inf])
    assert not np.isfinite(mg.hvp(lambda t: mg.var(t, ddof=ddof), x, v).data).any()


def test_kinks_have_second_derivative_zero():
    x = np.array([-1.0, 0.0, 0.0, 2.0])
    weights = np.array([1.0, -2.0, 0.5, 3.0])
    for f in (mg.relu, mg.absolute, mg.sign, lambda t: mg.clip(t, 0.0, 2.0), mg.leaky_relu):
        product = mg.hvp(lambda t, f=f: mg.sum(f(t) * weights), x, weights)
        np.testing.assert_array_equal(product.data, np.zeros(4))
    for f in (mg.max, mg.min):
        product = mg.hvp(lambda t, f=f: 1.5 * f(t), x, weights)
        np.testing.assert_array_equal(product.data, np.zeros(4))


@pytest.mark.parametrize(("n", "zeros"), [(n, k) for n in (1, 2, 3, 5, 8) for k in (0, 1, 2, n)])
def test_prod_is_differentiated_exactly_where_elements_are_zero(n, zeros, rng):
    x = rng.integers(1, 5, n).astype(float)
    x[rng.permutation(n)[:zeros]] = 0.0  # at most n of them
    others = [np.prod(np.delete(x, i)) for i in range(n)]
    np.testing.assert_array_equal(both_modes(mg.prod, x, 1.5), 1.5 * np.array(others))
    pairs = [[0 if i == j else np.prod(np.delete(x, [i, j])) for j in range(n)] for i in range(n)]
    hessian = mg.jacobian(mg.grad(mg.prod))(x)
    np.testing.assert_array_equal(hessian.data, pairs)


def test_where_stops_the_branch_that_is_not_taken():
    # the classic guard: sqrt never sees the 0 of the branch that is not taken
    x = np.array([0.0, 4.0])
    safe = lambda t: mg.where(x > 0, mg.sqrt(mg.where(x > 0, t, 1.0)), 0.0)  # noqa: E731
    np.testing.assert_array_equal(mg.vjp(safe, x)[1]([2.0, 2.0])[0].data, [0.0, 0.5])


def _in_windows(pool, x, **geometry):
    return pool(mg.stack([x, np.zeros(2)], axis=-1)[:, None], kernel_size=2, **geometry)[:, 0, 0]


RECTIFIED = {
    "relu": mg.relu,
    "clip": lambda x: mg.clip(x, 0.0),
    "where": lambda x: mg.where(x > 0, x, 0.0),
    "where, else": lambda x: mg.where(x <= 0, 0.0, x),
    "maximum": lambda x: mg.maximum(0.0, x),
    "minimum": lambda x: -mg.minimum(-x, 0.0),
    "max": lambda x: mg.max(mg.stack([x, np.zeros(2)]), axis=0),
    "min": lambda x: -mg.min(mg.stack([-x, np.zeros(2)]), axis=0),
    "max_pool": lambda x: _in_windows(mg.ops.max_pool, x),
    "max_pool, overlapping": lambda x: _in_windows(mg.ops.max_pool, x, stride=1),
    "fused max_pool": lambda x: _in_windows(mg.fused.max_pool, x),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("rectified", RECTIFIED.values(), ids=RECTIFIED)
def test_what_a_choice_does_not_pass_is_dropped_even_where_it_is_infinite(rectified):
    """Written as a product with a mask it would be inf * 0 = nan."""
    root = lambda x: mg.sqrt(rectified(x))  # noqa: E731
    np.testing.assert_array_equal(mg.vjp(root, [-1.0, 4.0])[1]([2.0, 3.0])[0].data, [0.0, 0.75])
    y_dot = mg.jvp(lambda x: rectified(mg.sqrt(x) - 1.0), ([0.0, 9.0],), ([2.0, 3.0],))[1]
    np.testing.assert_array_equal(y_dot.data, [0.0, 0.5])
    hessian = mg.jacobian(mg.grad(lambda x: mg.sum(root(x) * [2.0, 3.0])))([-1.0, 4.0])
    np.testing.assert_array_equal(hessian.data, [[0.0, 0.0], [0.0, -3 / 32]])
