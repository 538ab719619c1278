"""Every declared op, none skipped: first-order derivatives against differences and each other."""

import inspect

import numpy as np
import pytest
from differences import directional, jacobian, rounding, wide
from strategies import CASES, DECLARED, array, every_case, over_cases, tracked

import minigrad as mg
from minigrad.composite import Composite
from minigrad.core.op import Op
from minigrad.fused.declare import Fused

EPS = np.finfo(np.float64).eps

every_name = pytest.mark.parametrize("name", sorted(DECLARED))


@every_name
def test_every_op_is_documented(name):
    op = DECLARED[name]
    assert op.formula
    assert ">>> " in (inspect.getdoc(op) or ""), "no example"
    if isinstance(op, Op):
        assert op.pullback


@every_name
def test_every_op_has_a_derivative_in_both_modes(name):
    op = DECLARED[name]
    if isinstance(op, Composite):
        return
    assert op.partials or op.vjp
    assert op.partials or op.jvp or op.linear
    assert not (op.partials and op.vjp), "two rules for one derivative"
    if op.partials:
        assert op.signature == "()"


@every_name
def test_signature_arity_cases_and_domain_agree(name):
    op = DECLARED[name]
    if isinstance(op, Op) and op.signature not in ("", "()"):
        assert op.signature.partition("->")[0].count("(") == op.arity
    for case in op.cases:
        assert set(case.params) <= set(op.keywords)
        if case.shapes is None:
            assert isinstance(op, Op) and op.signature, "nothing says which shapes fit"
        elif op.arity is not None:
            assert op.min_arity <= len(case.shapes) <= op.arity
    for i in range(op.arity or 1):
        assert op.domain_of(i).low < op.domain_of(i).high


@every_name
def test_every_op_is_reached_by_its_name(name):
    family = mg.fused if name.startswith("fused_") else mg.ops
    short = name.removeprefix("fused_")
    assert getattr(family, short) is DECLARED[name]
    assert short in family.__all__


@every_case
def test_vjp_equals_differences_of_the_forward(call):
    xs = tracked(call.reals)
    y = call.f(*xs)
    y_bar = call.like(y)
    slopes = [jacobian(call.f, call.reals, i) for i in range(len(xs))]
    largest = max((float(np.abs(j).max(initial=0)) for j, _ in slopes), default=0.0)
    y.backward(y_bar)
    for x, (slope, bound) in zip(xs, slopes, strict=True):
        expected = wide(y_bar).reshape(-1) @ slope
        allowed = np.abs(y_bar).reshape(-1) @ bound + rounding(x.dtype, y_bar, largest, call.reals)
        assert x.grad.shape == x.shape
        error = np.abs(array(x.grad).reshape(-1) - expected)
        assert (error <= allowed).all(), (call, x.name, error, allowed)


@every_case
def test_jvp_equals_differences_of_the_forward(call):
    x_dots = [call.like(x) for x in call.reals]
    y, y_dot = mg.jvp(call.f, tuple(call.reals), tuple(x_dots))
    expected, bound = directional(call.f, call.reals, x_dots)
    assert y_dot.shape == y.shape and y_dot.dtype == y.dtype
    np.testing.assert_array_equal(array(y), array(call.f(*call.reals)))
    largest = max(1.0, float(np.abs(expected).max(initial=0)))
    weights = [1.0] * max(1, sum(x.size for x in x_dots))
    error = np.abs(array(y_dot) - expected)
    assert (error <= bound + rounding(y.dtype, weights, largest, call.reals)).all(), call


@every_case
def test_a_constant_operand_has_a_tangent_of_zero(call):
    xs = tuple(call.reals)
    for i, x in enumerate(xs):
        dots = [np.zeros_like(other) for other in xs]
        dots[i] = call.like(x)
        _, expected = mg.jvp(call.f, xs, tuple(dots))
        f = lambda x, i=i: call.f(*xs[:i], x, *xs[i + 1 :])  # noqa: E731
        _, y_dot = mg.jvp(f, (x,), (dots[i],))
        largest = float(np.abs(array(expected)).max(initial=0))
        error = np.abs(array(y_dot) - array(expected))
        assert (error <= rounding(y_dot.dtype, dots[i], max(1.0, largest), xs)).all(), call


@over_cases(CASES, share=2)  # cheap enough for many seeds: an extremum tests few elements
def test_vjp_and_jvp_are_adjoint(call):
    x_dots = [call.like(x) for x in call.reals]
    y, y_dot = mg.jvp(call.f, tuple(call.reals), tuple(x_dots))
    y_bar = call.like(y)
    _, pullback = mg.vjp(call.f, *call.reals)
    x_bars = pullback(y_bar)
    forward = y_bar * array(y_dot)
    backward = [array(b) * v for b, v in zip(x_bars, x_dots, strict=True)]
    # both sides sum the same products; rounding errors scale with the largest slope, estimated by
    # the largest cotangent or tangent, as the elements of seeds and directions are about 1
    largest = max((float(np.abs(array(b)).max(initial=0)) for b in x_bars), default=0.0)
    largest = max(largest, float(np.abs(array(y_dot)).max(initial=0)))
    terms = np.concatenate([forward.reshape(-1), *(b.reshape(-1) for b in backward)])
    allowed = rounding(np.float64, np.ones(max(terms.size, 1)), largest, call.reals)
    assert abs(forward.sum() - sum(b.sum() for b in backward)) <= allowed, call


@every_case
def test_recorded_sweep_gives_the_numbers_of_the_plain_one(call):
    y, pullback = mg.vjp(call.f, *call.reals)
    y_bar = call.like(y)
    plain = pullback(y_bar)
    _, pullback = mg.vjp(call.f, *call.reals)
    recorded = pullback(mg.tensor(y_bar, requires_grad=True))  # a tracked seed records the sweep
    for a, b in zip(plain, recorded, strict=True):
        assert array(a).dtype == array(b).dtype
        # the same ops in the same order, with two exceptions: a shortcut for Python numbers may
        # round differently, and a fused op runs as its composite (tests/fused has the bounds)
        if isinstance(call.op, Fused):
            assert a.shape == b.shape
            continue
        np.testing.assert_allclose(array(a), array(b), rtol=4 * EPS, atol=0)
    x_dots = [call.like(x) for x in call.reals]
    _, plain_dot = mg.jvp(call.f, tuple(call.reals), tuple(x_dots))
    _, recorded_dot = mg.jvp(call.f, tuple(call.reals), tuple(tracked(x_dots)))
    np.testing.assert_allclose(array(plain_dot), array(recorded_dot), rtol=4 * EPS, atol=0)
