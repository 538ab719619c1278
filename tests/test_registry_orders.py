"""Every declared op, none skipped: derivatives of second and third order.

The reference is finite differences of the *plain* first-order sweep, which test_registry.py checks
against differences of the forward. Under test here are the recorded sweep and its derivatives.
"""

import numpy as np
import pytest
from differences import directional, rounding
from strategies import DECLARED, array, every_case, over_cases

import minigrad as mg
from minigrad.composite import Composite


def flat(arrays):
    """Arrays (or tensors) as one vector."""
    if any(isinstance(a, mg.Tensor) for a in arrays):
        return mg.concatenate([mg.reshape(a, (-1,)) for a in arrays])
    return np.concatenate([np.reshape(a, -1) for a in arrays])


def pulled(call, *args):
    """The cotangents of the operands ``args[:-1]`` for the seed ``args[-1]``, as one vector."""
    *xs, y_bar = args
    return flat(mg.vjp(call.f, *xs)[1](y_bar))


def plain(function):
    """``function`` on plain arrays, for differences."""
    return lambda *arrays: array(function(*arrays))


def limit(bound, slopes, xs):
    """Truncation error of the differences plus rounding error of a rule with such slopes."""
    largest = max(1.0, float(np.abs(slopes).max(initial=0)))
    n = max(1, sum(x.size for x in xs))
    return bound + rounding(np.float64, np.ones(n), largest, xs)


@every_case
def test_forward_over_reverse_equals_differences_of_the_gradient(call):
    xs = [*call.reals, call.like(call.f(*call.reals))]
    x_dots = [call.like(x) for x in xs]
    function = lambda *args: pulled(call, *args)  # noqa: E731
    _, got = mg.jvp(function, tuple(xs), tuple(x_dots))
    expected, bound = directional(plain(function), xs, x_dots)
    assert (np.abs(array(got) - expected) <= limit(bound, expected, xs)).all(), call


@every_case
def test_reverse_over_reverse_equals_differences_of_the_gradient(call):
    xs = [*call.reals, call.like(call.f(*call.reals))]
    x_dots = [call.like(x) for x in xs]
    weights = call.like(flat(call.reals))
    function = lambda *args: (pulled(call, *args) * weights).sum()  # noqa: E731
    gradients = mg.grad(function, argnums=tuple(range(len(xs))))(*xs)
    got = sum((array(g) * v).sum() for g, v in zip(gradients, x_dots, strict=True))
    expected, bound = directional(plain(function), xs, x_dots)
    slopes = np.concatenate([array(g).reshape(-1) for g in gradients])
    assert np.abs(got - expected) <= limit(bound, slopes, xs), call


@every_case
def test_reverse_over_forward_equals_differences_of_the_tangent(call):
    inner = [call.like(x) for x in call.reals]
    weights = call.like(call.f(*call.reals))

    def function(*xs):
        return (mg.jvp(call.f, xs, tuple(inner))[1] * weights).sum()

    xs = call.reals
    x_dots = [call.like(x) for x in xs]
    gradients = mg.grad(function, argnums=tuple(range(len(xs))))(*xs)
    got = sum((array(g) * v).sum() for g, v in zip(gradients, x_dots, strict=True))
    expected, bound = directional(plain(function), xs, x_dots)
    slopes = np.concatenate([np.zeros(1), *(array(g).reshape(-1) for g in gradients)])
    assert np.abs(got - expected) <= limit(bound, slopes, xs), call


@every_case
def test_second_derivatives_are_symmetric(call):
    xs = call.reals
    weights = call.like(call.f(*xs))
    u, v = ([call.like(x) for x in xs] for _ in "uv")
    function = lambda *args: (call.f(*args) * weights).sum()  # noqa: E731
    hessian_u, hessian_v = (mg.hvp(function, tuple(xs), tuple(d)) for d in (u, v))
    v_h_u = sum((array(h) * d).sum() for h, d in zip(hessian_u, v, strict=True))
    u_h_v = sum((array(h) * d).sum() for h, d in zip(hessian_v, u, strict=True))
    products = np.concatenate([array(h).reshape(-1) for h in (*hessian_u, *hessian_v)])
    assert abs(v_h_u - u_h_v) <= limit(0.0, products, xs), call


SMOOTH = [
    name
    for name, op in sorted(DECLARED.items())
    if not isinstance(op, Composite) and op.partials and len(op.domain) <= op.arity
    and all(domain.kind == "real" for domain in op.domain)
]  # fmt: skip


@over_cases([(name, i) for name in SMOOTH for i in range(len(DECLARED[name].cases))])
def test_third_derivatives_of_elementwise_ops_equal_differences_of_second_ones(call):
    weights = call.like(call.f(*call.reals))
    u = tuple(call.like(x) for x in call.reals)
    everything = tuple(range(len(call.reals)))

    def second(*xs):
        function = lambda *args: (call.f(*args) * weights).sum()  # noqa: E731
        return flat(mg.hvp(function, xs, u))

    def third(*xs):
        return mg.grad(lambda *args: (second(*args) * mixing).sum(), argnums=everything)(*xs)

    mixing = call.like(flat(call.reals))
    x_dots = [call.like(x) for x in call.reals]
    got = sum((array(g) * v).sum() for g, v in zip(third(*call.reals), x_dots, strict=True))
    scalar = lambda *xs: (array(second(*xs)) * mixing).sum()  # noqa: E731
    expected, bound = directional(scalar, call.reals, x_dots)
    slopes = np.concatenate([array(g).reshape(-1) for g in third(*call.reals)])
    assert np.abs(got - expected) <= limit(bound, slopes, call.reals), call


@pytest.mark.parametrize("name", ["exp", "sin", "tanh", "sigmoid", "softplus", "gelu", "erf"])
def test_fifth_derivative_of_smooth_ops_equals_the_jvp_of_the_fourth(name, rng):
    x = rng.uniform(-2, 2)
    f = getattr(mg.ops, name)
    for _ in range(4):
        f = mg.grad(f)
    backward = mg.grad(f)(x).item()
    _, forward = mg.jvp(f, (x,), (1.0,))
    expected, bound = directional(lambda t: np.asarray(f(t).array), [np.asarray(x)], [np.ones(())])
    allowed = limit(bound, np.array([backward, expected]), [np.asarray(x)])
    assert abs(backward - expected) <= allowed
    assert abs(forward.item() - expected) <= allowed
