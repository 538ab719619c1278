"""Three ways that agree, and what is said of the analytic one where it does not."""

import random

import numpy as np
import pytest

import minigrad as mg
from minigrad.verify import three_way

X = np.array([0.5, -2.0, 3.0])


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda bar: (bar, bar), "2 cotangents, expected 1, one per input"),
        (lambda bar: None, "0 cotangents, expected 1, one per input"),
        (lambda bar: (), "0 cotangents, expected 1, one per input"),
        (lambda bar: (bar.sum(),), r"shape \(\), but x has shape \(3,\)"),
        (lambda bar: (None,), "type NoneType, expected a plain array"),
    ],
)
def test_a_misshapen_analytic_cotangent_is_a_finding(returned, said):
    report = three_way(lambda x: x * x, lambda xp, y_bar, x: returned(2 * x * y_bar), [X])
    (finding,) = report.findings
    assert (finding.kind, finding.cause) == ("shape", "analytic")
    with pytest.raises(mg.errors.VerificationError, match=said):
        report.raise_if_failed()


def test_a_random_function_is_found_out(rng):
    def noisy(x):
        return 2 * x + rng.uniform(size=3)

    report = three_way(noisy, lambda xp, y_bar, x: 2.001 * y_bar, [X])
    (finding,) = report.findings
    assert (finding.kind, finding.cause, report.verdict) == ("nondeterminism", "random", "WRONG")


def test_global_state_that_the_ways_change_is_restored():
    def seeding(x):
        random.seed(0)
        return x * x

    def failing(xp, y_bar, x):
        np.seterr(all="ignore")
        raise KeyError("x")

    before = np.geterr(), random.getstate()
    three_way(seeding, lambda xp, y_bar, x: 2 * x * y_bar, [X]).raise_if_failed()
    with pytest.raises(KeyError):
        three_way(seeding, failing, [X])
    assert (np.geterr(), random.getstate()) == before


@pytest.mark.parametrize("dtype", [complex, object, int])
def test_an_analytic_cotangent_that_is_not_floating_is_a_finding(dtype):
    def analytic(xp, y_bar, x):
        return (2 * x * y_bar + 1j if dtype is complex else (2 * x * y_bar).astype(dtype),)

    (finding,) = three_way(lambda x: x * x, analytic, [X]).findings
    assert (finding.kind, finding.cause) == ("dtype", "analytic")
    assert f"x_bar has dtype {np.dtype(dtype)}, but x has dtype float64" in finding.message


def test_an_analytic_way_that_overwrites_what_it_was_given_harms_no_other():
    def overwriting(xp, y_bar, x):
        y_bar *= 2 * x
        x[...] = 7.0
        return (y_bar,)

    x = X.copy()
    three_way(lambda x: x * x, overwriting, [x]).raise_if_failed()
    assert (x == X).all()


def test_lists_are_inputs_and_integers_are_none():
    by_hand = lambda xp, y_bar, x: (2 * x * y_bar,)  # noqa: E731
    assert three_way(lambda x: x * x, by_hand, [[0.5, 2.0]]).ok
    with pytest.raises(mg.errors.DTypeError, match="three_way: inputs"):
        three_way(lambda x: x * x, by_hand, [[1, 2]])


@pytest.mark.parametrize(("by_hand", "got"), [
    (lambda y_bar, x: (2 * x * y_bar,), "(y_bar, x): too many positional arguments"),
    (lambda xp, y_bar, x: (2 * x * y_bar,), "(xp, y_bar, x): got an unexpected keyword argument"),
    (mg.tanh, "(x): too many positional arguments"),
])  # fmt: skip
def test_an_analytic_way_with_other_arguments_is_bad_usage(by_hand, got):
    with pytest.raises(mg.errors.UsageError) as caught:
        three_way(lambda x, p: x**p, by_hand, [X], names=["x"], p=2)
    headline, *rest = str(caught.value).splitlines()
    assert headline == "three_way: analytic_vjp"
    assert rest[0] == "  expected: arguments (xp, y_bar, x, p=...)"
    assert rest[1].startswith(f"  got:      {got}")


def test_a_function_of_tensors_only_is_bad_usage():
    with pytest.raises(mg.errors.UsageError, match=r"three_way: f\n.*\n.*no attribute 'detach'"):
        three_way(lambda x: x * x.detach(), lambda xp, y_bar, x: (2 * x * y_bar,), [X])


@pytest.mark.parametrize(("slope", "ok"), [(0.0, True), (0.3, True), (1.1, False)])
def test_at_a_kink_each_way_may_take_its_own_subgradient(slope, ok):
    def by_hand(xp, y_bar, x):
        return (y_bar * np.where(x == 0, slope, x > 0),)

    report = three_way(mg.relu, by_hand, [np.array([-1.0, 0.0, 2.0])])
    assert report.ok is ok, str(report)
    if ok:
        assert [note.kind for note in report.notes] == ["kink"]
    else:
        assert [finding.cause for finding in report.findings] == ["analytic"]


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_parameter_named_axis_makes_no_batch_norm(factor, rng):
    def by_hand(xp, y_bar, x, axis):
        y = xp.exp(x) / xp.exp(x).sum(axis, keepdims=True)
        return (factor * y * (y_bar - (y_bar * y).sum(axis, keepdims=True)),)

    report = three_way(mg.ops.softmax, by_hand, [rng.normal(size=(3, 4))], axis=1)
    assert report.ok is (factor == 1), str(report)


@pytest.mark.parametrize("factor", [1.0, 1.001])
@pytest.mark.parametrize("params", [{"mean": 2.0}, {"mean": np.zeros(3)}, {"axis": "rows"}])
def test_parameters_named_mean_or_axis_make_no_batch_norm(params, factor, rng):
    def scaled(x, gamma, beta, mean=1.0, axis=None):
        return gamma * (x - mean) + beta

    def by_hand(xp, y_bar, x, gamma, beta, mean=1.0, axis=None):
        return y_bar * gamma * factor, (y_bar * (x - mean)).sum(0), y_bar.sum(0)

    inputs = [rng.normal(size=shape) for shape in ((5, 3), 3, 3)]
    report = three_way(scaled, by_hand, inputs, **params)
    assert report.ok is (factor == 1), str(report)


def test_what_is_wrong_with_the_analytic_way_is_told(rng):
    def without_variance(xp, y_bar, x, gamma, beta, eps=1e-5):
        _, gamma_bar, beta_bar = mg.analytic.batch_norm_vjp(xp, y_bar, x, gamma, beta, eps=eps)
        g = y_bar * gamma / xp.sqrt(x.var(axis=0) + eps)
        return g - g.mean(axis=0), gamma_bar, beta_bar

    inputs = rng.normal(size=(5, 3)), rng.normal(size=3), rng.normal(size=3)
    (finding,) = three_way(mg.ops.batch_norm, without_variance, inputs).findings
    assert finding.cause == "analytic"
    assert finding.message.endswith("; likely cause: missing variance path")


def test_it_is_told_with_the_code_of_the_function(rng):
    def f(x, w):
        h = np.tanh(x @ w) if isinstance(x, np.ndarray) else mg.tanh(x @ w)
        return h * h

    def without_a_square(xp, y_bar, x, w):
        h = xp.tanh(x @ w)
        a_bar = 2 * h * y_bar * (1 - h)
        return a_bar @ w.T, x.T @ a_bar

    inputs = list(rng.normal(size=(2, 3, 3)))
    report = three_way(f, without_a_square, inputs, names=["x", "w"])
    for finding in report.findings:
        assert "local derivative of `mg.tanh(x @ w)` (line " in finding.message
        assert finding.message.endswith("should be 1 - y^2, not 1 - y, where y is its value")


def detached(x):
    return x if isinstance(x, np.ndarray) else x.detach()


@pytest.mark.parametrize(
    ("f", "analytic", "said"),
    [
        (lambda x: x * detached(x), lambda xp, y_bar, x: 3 * x * y_bar, "no two ways agree: "),
        # differences in float64 leave room for errors that the two others do not
        (lambda x: mg.exp(mg.ops.astype(x, dtype="float64")),
         lambda xp, y_bar, x: xp.exp(x) * y_bar * (1 + 3e-14), "the third way lies between: "),
    ],
)  # fmt: skip
def test_no_way_is_blamed_where_none_is_the_odd_one_out(f, analytic, said):
    (finding,) = three_way(f, analytic, [X]).findings
    assert said in finding.message
    assert not finding.cause
