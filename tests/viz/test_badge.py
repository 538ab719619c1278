"""Badges show verdicts, and can fail: that of a planted wrong rule is red."""

from io import StringIO

import numpy as np
import pytest
from viz import graphs
from viz.reading import cards

import minigrad as mg
from minigrad.core.node import ancestors
from minigrad.errors import UsageError
from minigrad.verify.report import Row
from minigrad.viz.story import tell

RED = "#b3261e"
ARRAYS = np.sin(np.arange(12.0)).reshape(4, 3), np.array([1.0, 0.5, -2.0]), np.zeros(3)


def drawn(closed_form):
    names = ["x", "gamma", "beta"]
    report = mg.verify.three_way(mg.batch_norm, closed_form, ARRAYS, names=names)
    return cards(mg.viz.to_dot(graphs.batch_norm(), verdicts=mg.viz.verdicts(report)))


def test_three_ways_that_agree_are_three_proven_badges():
    found = drawn(mg.analytic.batch_norm_vjp)
    assert all("✓ proven: traced/" in found[name] for name in ("x", "gamma", "beta"))
    assert not any(RED in html for html in found.values())


def test_planted_mistake_in_the_closed_form_is_red_on_its_input_alone():
    def without_the_mean_path(xp, y_bar, x, gamma, beta, *, eps=1e-5):
        x_bar, gamma_bar, beta_bar = mg.analytic.batch_norm_vjp(xp, y_bar, x, gamma, beta, eps=eps)
        return x_bar + 1e-6, gamma_bar, beta_bar

    found = drawn(without_the_mean_path)
    assert RED in found["x"] and "✗ wrong: " in found["x"]
    assert RED not in found["gamma"] + found["beta"]


@pytest.mark.usefixtures("declared")
def test_planted_wrong_rule_of_an_op_is_red():
    @mg.elementwise(formula="y = x^2", pullback=r"\bar x = 3\,\bar y\,x")
    def badly_squared(xp, x):
        """``x * x``."""
        return x * x

    @badly_squared.defpartials
    def _(y, x):
        return (3 * x,)

    x = graphs.leaf([1.0, 2.0], "x")
    report = mg.verify.gradcheck(lambda x: mg.sum(badly_squared(x)), [x.numpy()], names=["x"])
    dot = mg.viz.to_dot(badly_squared(x), verdicts=mg.viz.verdicts(report))
    assert "✗ wrong: " in cards(dot)["x"] and RED in cards(dot)["x"]


@pytest.fixture
def wrong_tanh(monkeypatch):
    monkeypatch.setattr(mg.ops.tanh, "partials", lambda y, x: (1 - y,))


@pytest.mark.usefixtures("wrong_tanh")
def test_wrong_op_of_a_checked_graph_is_red_where_it_stands_and_right_ones_are_not():
    x = graphs.leaf([0.3, -0.8], "x")
    with np.errstate(invalid="ignore"), mg.scope("block"):
        a, b = mg.tanh(x * 2.0), mg.tanh(x * 2.0)
        a.name, b.name = "a", "b"
        y = a * b + mg.sum(x * mg.log(x))
    verdicts = mg.viz.verdicts(mg.verify.check_graph(y))
    found = cards(mg.viz.to_dot(y, verdicts=verdicts))
    red = {title for title, html in found.items() if RED in html}
    assert red == {title for title, html in found.items() if "✗ wrong: input 0, vjp/num" in html}
    assert red == {"a = tanh(x * 2)", "b = tanh(x * 2)"}
    assert {t for t, html in found.items() if "✓ proven" in html} == {"x * 2", "a * b"}
    assert "– not run: log: its output is not finite at this point" in found["ln(x)"]
    folded = cards(mg.viz.to_dot(y, verdicts=verdicts, depth=0))
    assert "✗ wrong: 2 of 9 ops: tanh, …" in folded["y = block(x)"]


@pytest.mark.usefixtures("renderer")
def test_stepper_says_so_of_a_wrong_rule_and_of_a_gradient_that_is_complete():
    x = graphs.leaf(0.3, "x")
    y = mg.tanh(mg.sin(x) * x)
    verdicts = {y.node: (False, "input 0"), y.node.parents[0]: (True, ""), "x": (False, "")}
    said = [[b.text for b in tell(step).blocks if getattr(b, "kind", "") == "wrong"]
            for step in mg.viz.trace(y, verdicts=verdicts).steps]  # fmt: skip
    wrong = "this rule: ✗ wrong: input 0"
    assert said == [[], [], [], [], [wrong], [], [], ["x_bar: ✗ wrong"]]
    page, lines = mg.viz.step(y, verdicts=verdicts).html, StringIO()
    mg.viz.walk(y, verdicts=verdicts, out=lines)
    assert page.count('["w","this rule: ') == lines.getvalue().count(wrong) == 1
    assert lines.getvalue().count("this rule: ✓ proven") == 2


@pytest.mark.usefixtures("renderer")
def test_step_over_a_folded_call_says_which_of_its_rules_is_wrong():
    x = graphs.leaf([0.3, -0.8], "x")
    with mg.scope("block"):
        y = mg.tanh(mg.sin(x) * x)
    y.backward([1.0, 2.0])
    product, sine = y.node.parents[0], y.node.parents[0].parents[0]
    verdicts = {y.node: (False, ""), product: (True, ""), sine: (True, ""), "x": (True, "")}
    page = mg.viz.step(y, verdicts=verdicts).html
    assert '["w","these rules: \\u2717 wrong: 1 of 3 ops: tanh"],["o","x_bar: \\u2713 pr' in page
    right = mg.viz.step(y, verdicts={**verdicts, y.node: (True, "")}).html
    assert '["o","these rules: \\u2713 proven: 3 of 3 ops"]' in right


@pytest.mark.usefixtures("wrong_tanh")
def test_wrong_op_does_not_disappear_in_the_middle_of_a_long_graph():
    y = x = graphs.leaf(0.5, "x")
    for i in range(400):
        y = mg.tanh(y) if i in (200, 201) else y + x
    report = mg.verify.Report("", ops={
        node: mg.verify.Report("", [Row("tanh, input 0", "", 1.0, 0.0, node.op.name != "tanh")])
        for node in ancestors(y.node) if node.op is not None
    })  # fmt: skip
    html = " ".join(cards(mg.viz.to_dot(y, verdicts=mg.viz.verdicts(report))).values())
    assert html.count("✗ wrong: input 0") == 1
    assert html.count("✗ wrong: 1 of 301 ops: tanh") == 1


def test_verdict_on_an_op_of_another_graph_is_refused():
    x = graphs.leaf(0.5, "x")
    verdicts = mg.viz.verdicts(mg.verify.check_graph(mg.sin(x)))
    for show in (mg.viz.to_dot, mg.viz.trace):
        with pytest.raises(UsageError, match="sin of another graph"):
            show(mg.sin(x), verdicts=verdicts)


@pytest.mark.parametrize(
    "verdicts",
    [mg.verify.Report("title"), {"x": True}, ["x"], {0: (True, "")}, {mg.tensor(1.0): (True, "")}],
)
def test_what_is_no_table_of_verdicts_is_refused(verdicts):
    with pytest.raises(UsageError, match=r"viz\.verdicts\(report\)"):
        mg.viz.to_dot(graphs.scalar() * 2.0, verdicts=verdicts)


def test_input_that_nothing_was_proven_of_is_not_run():
    empty = np.ones((0, 3))
    report = mg.verify.gradcheck(lambda x: mg.sum(x), [empty], names=["x"])
    assert all(ok is None for ok, _ in mg.viz.verdicts(report).values())
    dot = mg.viz.to_dot(graphs.leaf(2.0, "x") * 2.0, verdicts={"x": (None, "")})
    assert "– not run" in cards(dot)["x"]


def test_of_several_comparisons_that_failed_the_worst_is_shown():
    rows = [Row("x", pair, error, 1.0, ok=False) for pair, error in (("a/b", 2.0), ("b/c", 8.0))]
    shown = mg.viz.verdicts(mg.verify.Report("", rows))["x"]
    assert shown == (False, "b/c: 8.0e+00 (bound 1.0e+00)")


@pytest.mark.parametrize("ok", [True, False])
def test_verdict_of_a_comparison_in_numpy_is_shown_as_one_of_python(ok):
    x = graphs.leaf(0.5, "x")
    with mg.scope("block"):
        y = mg.tanh(x)
    shown = []
    for boolean in (bool, np.bool_):
        verdicts = {key: (boolean(ok), "") for key in (y.node, "x")}
        told = tell(mg.viz.trace(y, verdicts=verdicts).steps[2])
        shown.append((mg.viz.to_dot(y, depth=0, verdicts=verdicts), str(told.blocks)))
    assert shown[0] == shown[1]
