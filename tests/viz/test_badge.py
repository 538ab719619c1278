"""Badges say what was proven, and can fail: a planted wrong rule is seen in red."""

import numpy as np
import pytest
from viz import graphs
from viz.reading import cards

import minigrad as mg

RED = "#b3261e"
ARRAYS = np.sin(np.arange(12.0)).reshape(4, 3), np.array([1.0, 0.5, -2.0]), np.zeros(3)


def drawn(closed_form):
    names = ["x", "gamma", "beta"]
    report = mg.verify.three_way(mg.batch_norm, closed_form, ARRAYS, names=names)
    return cards(mg.viz.to_dot(graphs.batch_norm(), verdicts=mg.viz.verdicts(report)))


def test_three_ways_that_agree_are_three_proven_badges():
    found = drawn(mg.analytic.batch_norm_vjp)
    assert all("✓ proven: " in found[name] for name in ("x", "gamma", "beta"))
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


def test_input_that_nothing_was_proven_of_is_not_run():
    empty = np.ones((0, 3))
    report = mg.verify.gradcheck(lambda x: mg.sum(x), [empty], names=["x"])
    assert all(ok is None for ok, _ in mg.viz.verdicts(report).values())
    dot = mg.viz.to_dot(graphs.leaf(2.0, "x") * 2.0, verdicts={"x": (None, "")})
    assert "– not run" in cards(dot)["x"]
