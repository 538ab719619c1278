"""Batch norm at orders 1, 2, 3 against truncated Taylor arithmetic, which shares no code with it.

The tolerance is the running error bound of that arithmetic, taylor.Series.e. The engine rounds in
another order; its measured error is below 3 % of the bound.
"""

import numpy as np
import pytest
import taylor
from taylor import Series, multilinear

import minigrad as mg

SHAPES = [(7, 3), (4, 2, 5), (3, 2, 2, 3), (2, 2, 2, 3, 2)]
EPS = np.finfo(np.float64).eps
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_mode = pytest.mark.parametrize("mode", ["train", "eval"])
every_gamma = pytest.mark.parametrize("gamma", ["random", "zero"])


def problem(rng, shape, mode="train", gamma="random"):
    """Arguments (x, gamma, beta[, mean, var]), and the weights W of sum(W * batch_norm(...))."""
    c = shape[1]
    xs = [rng.normal(1.0, 2.0, shape), rng.uniform(0.5, 2.0, c), rng.normal(size=c)]
    if gamma == "zero":
        xs[1] = np.zeros(c)
    if mode == "eval":
        xs += [rng.normal(size=c), rng.uniform(0.5, 2.0, c)]
    return xs, rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def engine(weights, eps=1e-5):
    def f(x, gamma, beta, mean=None, var=None):
        return (mg.ops.batch_norm(x, gamma, beta, mean=mean, var=var, eps=eps) * weights).sum()

    return f


def reference(weights, eps=1e-5):
    def f(x, gamma, beta, mean=None, var=None):
        return (taylor.batch_norm(x, gamma, beta, mean, var, eps=eps) * weights).sum()

    return f


def along(f, d):
    """The derivative of ``f`` along ``d``, as a function again."""
    return lambda *args: mg.jvp(f, args, tuple(d))[1]


def directions_like(rng, xs, k):
    return [[rng.normal(size=x.shape) for x in xs] for _ in range(k)]


def dot(arrays, others):
    return sum(float((np.asarray(a) * b).sum()) for a, b in zip(arrays, others, strict=True))


@every_shape
@every_mode
@every_gamma
def test_gradient_equals_the_first_taylor_coefficient(shape, mode, gamma, rng):
    xs, weights = problem(rng, shape, mode, gamma)
    gradients = mg.grad(engine(weights), argnums=tuple(range(len(xs))))(*xs)
    for i, gradient in enumerate(gradients):
        for k in range(xs[i].size):
            direction = [np.zeros(x.shape) for x in xs]
            direction[i].reshape(-1)[k] = 1.0
            expected, bound = multilinear(reference(weights), xs, [direction])
            got = gradient.numpy().reshape(-1)[k]
            assert abs(got - expected) <= bound


@every_shape
@every_mode
@every_gamma
def test_hessian_vector_product_equals_the_second_taylor_coefficient(shape, mode, gamma, rng):
    xs, weights = problem(rng, shape, mode, gamma)
    u, v = directions_like(rng, xs, 2)
    expected, bound = multilinear(reference(weights), xs, [u, v])
    everything = tuple(range(len(xs)))
    product = mg.hvp(engine(weights), tuple(xs), tuple(u))

    def slope(*args):
        gradients = mg.grad(engine(weights), argnums=everything)(*args)
        return sum((g * d).sum() for g, d in zip(gradients, u, strict=True))

    twice = mg.grad(slope, argnums=everything)(*xs)
    assert abs(dot(product, v) - expected) <= bound
    assert abs(dot(twice, v) - expected) <= bound


@every_shape
@every_mode
@every_gamma
def test_third_derivative_equals_the_third_taylor_coefficient(shape, mode, gamma, rng):
    xs, weights = problem(rng, shape, mode, gamma)
    u, v, w = directions_like(rng, xs, 3)
    expected, bound = multilinear(reference(weights), xs, [u, v, w])

    def curvature(*args):
        product = mg.hvp(engine(weights), args, tuple(u))
        return sum((h * d).sum() for h, d in zip(product, v, strict=True))

    gradients = mg.grad(curvature, argnums=tuple(range(len(xs))))(*xs)
    assert abs(dot(gradients, w) - expected) <= bound
    assert abs(mg.jvp(curvature, tuple(xs), tuple(w))[1].item() - expected) <= bound


@every_shape
@every_mode
@every_gamma
@pytest.mark.parametrize("order", [1, 2, 3])
def test_nested_derivatives_along_a_line_equal_the_series(order, shape, mode, gamma, rng):
    xs, weights = problem(rng, shape, mode, gamma)
    (u,) = directions_like(rng, xs, 1)
    series = reference(weights)(*(Series.line(x, d, order) for x, d in zip(xs, u, strict=True)))

    def line(t):
        return engine(weights)(*(x + t * d for x, d in zip(xs, u, strict=True)))

    backward = forward = line
    for _ in range(order):
        backward = mg.grad(backward)
        forward = along(forward, [1.0])
    expected, bound = series.derivative(order), series.error(order)
    assert abs(backward(0.0).item() - expected) <= bound
    assert abs(forward(0.0).item() - expected) <= bound


@pytest.mark.parametrize("eps", [1e-12, 1e-8, 1e-5, 1e-3, 1e-1])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_constant_column_is_right_at_every_eps(order, eps, rng):
    xs, weights = problem(rng, (6, 3))
    xs[0][:, 1] = 0.1  # its mean rounds: 6 * 0.1 / 6 is not 0.1
    ds = directions_like(rng, xs, order)
    expected, bound = multilinear(reference(weights, eps), xs, ds)
    got = engine(weights, eps)
    for d in ds:
        got = along(got, d)
    assert abs(got(*xs).item() - expected) <= bound


def test_one_row_normalizes_to_beta_and_passes_no_gradient_to_x(rng):
    x, gamma, beta = rng.normal(size=(1, 4)), rng.normal(size=4), rng.normal(size=4)
    xs = [mg.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    y = mg.ops.batch_norm(*xs)
    np.testing.assert_array_equal(y.data, beta[None])
    seed = rng.normal(size=(1, 4))
    y.backward(seed)
    np.testing.assert_array_equal(xs[0].grad.data, np.zeros((1, 4)))
    np.testing.assert_array_equal(xs[1].grad.data, np.zeros(4))
    np.testing.assert_array_equal(xs[2].grad.data, seed[0])


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-1, 10.0])
def test_two_rows_have_the_closed_form(eps, rng):
    # x = m +- d: x_hat = +- d r with r = (d^2 + eps)^(-1/2), and d x_hat / d d = eps r^3, hence
    # x_bar = +- gamma (y_bar_1 - y_bar_2) / 2 * eps r^3
    x, gamma, beta = rng.normal(size=(2, 5)), rng.normal(size=5), rng.normal(size=5)
    seed = rng.normal(size=(2, 5))
    d = (x[0] - x[1]) / 2
    r = 1 / np.sqrt(d * d + eps)
    y, pullback = mg.vjp(lambda *a: mg.ops.batch_norm(*a, eps=eps), x, gamma, beta)
    x_bar, gamma_bar, beta_bar = (a.numpy() for a in pullback(seed))
    first = gamma * (seed[0] - seed[1]) / 2 * eps * r**3
    summands = np.abs(gamma * seed).max(axis=0) * r  # they cancel, down to first
    limit = 32 * EPS * (1 + np.abs(x).max(axis=0) * r) * summands
    assert (np.abs(x_bar - [first, -first]) <= limit).all()
    x_hat = np.array([d * r, -d * r])
    limit = 32 * EPS * (1 + np.abs(x).max(axis=0) * r)
    assert (np.abs(y.data - (gamma * x_hat + beta)) <= limit * (np.abs(gamma) + np.abs(beta))).all()
    assert (np.abs(gamma_bar - (seed * x_hat).sum(0)) <= limit * np.abs(seed).sum(0)).all()
    np.testing.assert_array_equal(beta_bar, seed.sum(0))


def test_gamma_zero_stops_the_gradient_of_x_but_not_its_derivative_by_gamma(rng):
    xs, weights = problem(rng, (5, 2), gamma="zero")
    x_bar = mg.grad(engine(weights))
    np.testing.assert_array_equal(x_bar(*xs).data, np.zeros((5, 2)))
    mixed = mg.jacobian(lambda gamma: x_bar(xs[0], gamma, xs[2]))(xs[1])  # d x_bar / d gamma
    one = mg.grad(engine(weights))(xs[0], np.ones(2), xs[2])  # x_bar is linear in gamma
    diagonal = np.einsum("ncc->nc", mixed.data)
    r = 1 / np.sqrt(xs[0].var(axis=0).min() + 1e-5)
    summand = 3 * np.abs(weights).max() * r * (1 + np.abs(xs[0]).max() * r)  # three paths, |x_hat|
    np.testing.assert_allclose(diagonal, one.data, rtol=0, atol=16 * EPS * summand)


def test_statistics_given_by_keyword_are_differentiated(rng):
    (x, gamma, beta, mean, var), weights = problem(rng, (5, 2), "eval")
    mean_t, var_t = (mg.tensor(a, requires_grad=True) for a in (mean, var))
    y = mg.ops.batch_norm(x, gamma, beta, mean=mean_t, var=var_t, eps=1e-3)
    y.backward(weights)
    r = 1 / np.sqrt(var + 1e-3)
    expected = -(weights * gamma * r).sum(0)
    np.testing.assert_allclose(mean_t.grad.data, expected, rtol=0, atol=64 * EPS * 5 * 2 * r.max())
    expected = (weights * gamma * (x - mean) * -0.5 * r**3).sum(0)
    scale = np.abs(weights * gamma * (x - mean) * r**3).sum()
    np.testing.assert_allclose(var_t.grad.data, expected, rtol=0, atol=64 * EPS * scale)


def test_wrong_operands_are_refused_by_name(rng):
    x = mg.tensor(rng.normal(size=(4, 3)), name="images")
    ones = np.ones(3)
    with pytest.raises(mg.errors.ShapeError, match=r"batch_norm: gamma[\s\S]*\(3,\)[\s\S]*\(2,\)"):
        mg.ops.batch_norm(x, np.ones(2), ones)
    with pytest.raises(mg.errors.ShapeError, match=r"batch_norm: beta"):
        mg.ops.batch_norm(x, ones, np.ones((1, 3)))
    with pytest.raises(mg.errors.ShapeError, match=r"batch_norm: x[\s\S]*\(4,\)"):
        mg.ops.batch_norm(np.ones(4), ones, ones)
    with pytest.raises(mg.errors.UsageError, match="var is missing"):
        mg.ops.batch_norm(x, ones, ones, mean=ones)
    with pytest.raises(mg.errors.UsageError, match="mean is missing"):
        mg.ops.batch_norm(x, ones, ones, var=ones)
    with pytest.raises(mg.errors.BoundsError, match="mean"):
        mg.ops.batch_norm(x, ones, ones, axis=(7,))


@pytest.mark.parametrize("ops", [mg.ops, mg.fused], ids=["ops", "fused"])
@pytest.mark.parametrize(
    ("name", "shapes", "params", "text"),
    [
        ("layer_norm", [(2, 3), (2,), (3,)], {}, "operands\n.*trailing shape"),
        ("layer_norm", [(2, 3), (3,), (2,)], {}, "operands\n.*trailing shape"),
        ("layer_norm", [(3,), (2, 3), (2, 3)], {}, "operands\n.*trailing shape"),
        ("layer_norm", [(2, 3), (), ()], {}, "operands\n.*trailing shape"),
        ("group_norm", [(4,), (4,), (4,)], {"num_groups": 2}, r"x\n.*\(N, C\)"),
        ("group_norm", [(2, 4), (2,), (4,)], {"num_groups": 2}, r"gamma\n.*\(4,\)"),
        ("group_norm", [(2, 4), (4,), (2,)], {"num_groups": 2}, r"beta\n.*\(4,\)"),
        *[("group_norm", [(2, 4), (4,), (4,)], {"num_groups": n}, "num_groups\n.*divides the 4")
          for n in (-2, 0, 3, 2.0)],
    ],
    ids=str,
)  # fmt: skip
def test_layer_and_group_norm_refuse_wrong_operands_by_name(ops, name, shapes, params, text):
    error = mg.errors.UsageError if "divides" in text else mg.errors.ShapeError
    with pytest.raises(error, match=f"{name}: {text}"):
        getattr(ops, name)(*map(np.ones, shapes), **params)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2)], ids=str)
def test_given_statistics_keep_their_names(shape, rng):
    mean, var = (mg.tensor(np.ones(3), name=f"running_{name}") for name in ("mean", "var"))
    mg.ops.batch_norm(mg.tensor(rng.normal(size=shape)), np.ones(3), np.ones(3), mean=mean, var=var)
    assert (mean.name, var.name) == ("running_mean", "running_var")


def test_parameters_may_be_sequences():
    y = mg.ops.batch_norm(
        [[1.0, 2.0]], [1.0, 1.0], [0.0, 0.0], mean=[1.0, 0.0], var=[1.0, 4.0], eps=0
    )
    np.testing.assert_array_equal(y, [[0.0, 1.0]])
