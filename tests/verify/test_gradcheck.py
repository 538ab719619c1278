"""What gradcheck sees, what it proves, and what it does not claim."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.verify import gradcheck
from minigrad.verify.subject import default_names


def planted(partials):
    """A check of ``sin`` in float32 with other partials, made from the right ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mg.ops.sin, "partials", lambda y, x: (partials(mg.cos(x)),))
        return gradcheck(mg.sin, [np.array([0.3, 0.7], "f4")])


@pytest.mark.parametrize("wrong_in", [("f4",), ("f4", "f8")], ids=" and ".join)
def test_a_rule_that_is_wrong_in_float32_does_not_excuse_itself(wrong_in):
    dtypes = [np.dtype(name) for name in wrong_in]
    assert planted(lambda c: c).ok
    report = planted(lambda c: c * 1.001 if c.dtype in dtypes else c)
    assert [row.ok for row in report.rows] == [False, True]


def test_what_underflows_is_not_wrong_and_proves_nothing():
    def verdict(x):
        return gradcheck(mg.exp, [np.array(x, "f4")]).verdict

    # e^-99 is 1e-43, and the least normal number of float32 1e-38
    assert verdict([-100.0, -99.0]) == "VACUOUS"
    assert verdict([-100.0, -3.0]) == "PROVEN"


def test_a_rule_in_numpy_is_right_at_order_1_and_a_finding_says_that_order_2_is_not():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mg.ops.sin, "partials", lambda y, x: (np.cos(np.asarray(x)),))
        first, second = (gradcheck(mg.sin, [np.array([0.3, 0.7])], order=k) for k in (1, 2))
    assert first.ok
    assert [finding.message.split(": ")[0] for finding in second.findings] == [
        "x[1], vjp/numeric (order 2)"
    ]


@pytest.mark.parametrize(
    ("order", "said"),
    [(1, []), (2, ["order 2 is not checked"]), (3, ["orders 2 to 3 are not checked"])],
)
def test_no_order_above_a_wrong_one_is_called_proven(monkeypatch, order, said):
    monkeypatch.setattr(mg.ops.sin, "partials", lambda y, x: (1.001 * mg.cos(x),))
    for report in (
        gradcheck(mg.sin, [np.array([0.3, 0.7])], order=order),
        mg.verify.check_op("sin", order=order),
    ):
        assert not any("order" in row.pair for row in report.rows)
        assert [note.message.partition(": ")[0] for note in report.notes] == said


UNDEFINED = {  # a function, its derivative, a point
    "an input": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, [np.nan, 1.0]),
    "an input that is infinite": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, [np.inf, 1.0]),
    "the output": (np.log, lambda x: 1 / x, [-1.0, 1.0]),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", UNDEFINED)
def test_where_something_is_not_finite_nothing_is_right_or_wrong(what):
    f, slope, x = UNDEFINED[what]
    of_both = lambda x: getattr(mg, f.__name__)(x) if hasattr(x, "node") else f(x)  # noqa: E731
    for report in (
        gradcheck(of_both, [np.array(x)], order=2),
        mg.verify.three_way(of_both, lambda xp, y_bar, x: (y_bar * slope(x),), [np.array(x)]),
        mg.verify.check_backward(
            lambda x: (f(x), x), lambda y_bar, x: (y_bar * slope(x),), [np.array(x)]
        ),
    ):
        assert report.verdict == "VACUOUS", str(report)
        (note,) = report.notes
        assert note.kind == "undefined"
        assert note.message == f"{' '.join(what.split()[:2])} is not finite at this point"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinite_slope_is_neither_right_nor_wrong():
    x = np.array([0.0, 1.0])
    root = lambda x: mg.sqrt(x) if hasattr(x, "node") else np.sqrt(x)  # noqa: E731
    by_hand = lambda xp, y_bar, x: (y_bar / (2 * np.sqrt(x)),)  # noqa: E731
    for report in gradcheck(root, [x], order=2), mg.verify.three_way(root, by_hand, [x]):
        assert report.verdict == "VACUOUS", str(report)
        assert [note.message for note in report.notes] == [
            "the function has no finite derivative at this point"
        ]


@pytest.mark.usefixtures("declared")
def test_beside_a_kink_the_jvp_is_still_compared():
    @mg.elementwise(formula=r"y = \max(x, 0)", pullback=r"\bar x = \bar y\,[x > 0]")
    def ramp(xp, x):
        """``max(x, 0)``."""
        return xp.maximum(x, 0)

    @ramp.defvjp
    def _(y_bar, y, x):
        return (y_bar * (x > 0),)

    @ramp.defjvp
    def _(x_dots, y, x):
        return 5 * x_dots[0] * (x > 0)

    report = gradcheck(ramp, [np.array([0.0, 1.0, 2.0, -1.0])])
    assert [(row.pair, row.ok) for row in report.rows] == [
        ("vjp/numeric", True),
        ("jvp/vjp", False),
    ]


@pytest.mark.parametrize("x", [np.zeros((0, 2)), np.zeros(())], ids=["no elements", "a kink alone"])
def test_a_row_that_compared_nothing_is_vacuous(x):
    report = gradcheck(mg.relu, [x])
    assert report.rows[1].verdict == "VACUOUS"
    assert report.verdict == ("PROVEN" if x.size else "VACUOUS")


def test_batch_norm_far_from_zero_is_proven_in_float32(rng):
    x = (1e4 + rng.normal(size=(8, 3))).astype("f4")
    gamma, beta = rng.normal(size=(2, 3)).astype("f4")
    gradcheck(lambda x: mg.batch_norm(x, gamma, beta), [x]).raise_if_failed()


@pytest.mark.parametrize("seed", [4, 5])
def test_both_ways_through_a_sum_that_cancels_may_round_apart(seed):
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=shape).astype("f4") for shape in ((7, 3), (3,), (3,))]
    gradcheck(lambda *xs: mg.sum(mg.batch_norm(*xs)), inputs, rng=seed).raise_if_failed()


def test_an_input_in_float32_rounds_the_cotangents_of_the_others(rng):
    x, w = rng.normal(size=4), rng.normal(size=4).astype("f4")
    gradcheck(lambda x, w: mg.exp(x) * mg.sin(w), [x, w], order=2).raise_if_failed()


@pytest.mark.parametrize(
    ("f", "got"), [(lambda x: (x,) * 20, "tuple"), (lambda x: x.numpy(), r"ndarray \(2,\)")]
)
def test_a_function_that_returns_no_tensor_is_refused(f, got):
    with pytest.raises(mg.errors.DTypeError, match=f"one floating Tensor\n  got:      {got}"):
        gradcheck(f, [np.ones(2)])


def test_a_pair_is_sent_to_check_backward():
    with pytest.raises(mg.errors.DTypeError, match=r"\n  remedy:   check_backward checks"):
        gradcheck(lambda x: (x * x, x), [np.ones(2)])


def test_inputs_are_called_as_the_function_calls_them():
    x, w = np.array([0.5, -1.0]), np.array([2.0, 3.0])

    def vjp(xp, y_bar, x, w):
        return y_bar * w, y_bar * x

    def names(report):
        return list(dict.fromkeys(row.input for row in report.rows))

    assert names(gradcheck(lambda x, w: x * w, [x, w])) == ["x", "w"]
    assert names(mg.verify.three_way(lambda x, w: x * w, vjp, [x, w])) == ["x", "w"]
    assert names(gradcheck(lambda x, *more: x * more[0], [x, w])) == ["input 0", "input 1"]


@pytest.mark.parametrize(
    ("forward", "names"),
    [
        (lambda a, b, c, eps=0: a, ("a", "b", "c")),
        (lambda a, *others: a, ("x", "gamma", "beta")),
        (lambda a, b, *, c: a, ("x", "gamma", "beta")),
        (lambda y, w, b: y, ("x", "gamma", "beta")),  # its output is y
    ],
)
def test_the_inputs_of_a_pair_are_named_by_forward_or_else_by_their_shapes(forward, names):
    assert default_names((np.ones((5, 3)), np.ones(3), np.ones(3)), forward) == names


def test_only_a_target_that_is_called_like_the_output_is_named_by_its_number():
    inputs = np.ones(3), np.ones((5, 3)), np.ones(5)
    assert default_names(inputs, lambda w, x, y: x @ w - y) == ("w", "x", "input 2")


def test_gradcheck_proves_orders_one_to_three():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 2))
    report = gradcheck(lambda x: mg.batch_norm(x, np.ones(2), np.zeros(2)), [x], order=3)
    assert report.ok, str(report)
    assert {row.pair for row in report.rows} >= {"vjp/numeric", "vjp/numeric (order 3)"}


@pytest.mark.parametrize(("dtype", "size"), [("float64", 1e-9), ("float32", 1e-4)])
def test_gradcheck_names_a_wrong_rule(dtype, size):
    x = np.linspace(0.2, 1.0, 5).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mg.ops.tanh, "partials", lambda y, x: ((1 - y * y) * (1 + size),))
        report = gradcheck(mg.tanh, [x])
    assert not report.ok
    assert report.findings[0].input == "x"
    assert gradcheck(mg.tanh, [x]).ok


@pytest.mark.parametrize("name", sorted(mg.REGISTRY))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_op_is_proven_at_order_one(name, dtype):
    report = mg.verify.check_op(name, dtype=dtype)
    flat = name == "sign" and report.verdict == "VACUOUS"  # 0 is all its derivative can be
    assert report.ok or not report.rows or flat, str(report)
