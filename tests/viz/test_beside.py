"""The derived backward pass drawn beside the one written by hand."""

import re

import numpy as np
import pytest
from viz import graphs

import minigrad as mg
from minigrad.errors import MinigradError, ShapeError

NAMES = ("x", "gamma", "beta")


def batch_norm(argnum=0):
    arrays = np.sin(np.arange(12.0)).reshape(4, 3), np.array([1.0, 0.5, -2.0]), np.zeros(3)
    return mg.viz.beside(
        mg.batch_norm,
        mg.analytic.batch_norm_vjp,
        arrays,
        argnum=argnum,
        names=NAMES,
        seed=graphs.SEED,
    )


@pytest.mark.parametrize("argnum", [0, 1, 2])
def test_both_ways_give_the_gradient(argnum):
    y = graphs.batch_norm()
    leaves = {node.name: node for node in mg.core.node.ancestors(y.node)}
    expected = leaves[NAMES[argnum]].grad.numpy()
    for found in batch_norm(argnum):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-14)


def test_picture_has_both_side_by_side_with_their_numbers_of_ops():
    both = batch_norm()
    dot = mg.viz.to_dot(both)
    counts = dict(re.findall(r"graph \[label=<<B>(.*?)</B><FONT[^>]*> +(\d+) ops?<", dot))
    for name, y in zip(("derived by the sweep", "written by hand"), both, strict=True):
        ops = sum(node.op is not None for node in mg.core.node.ancestors(y.node))
        assert int(counts[name]) == ops
    assert int(counts["derived by the sweep"]) > int(counts["written by hand"]) > 10
    assert "∇ variance" in counts
    assert dot.count("<B>x_bar = ") == 2


def test_forward_ops_that_the_cotangent_does_not_need_are_not_drawn():
    x_bar, _ = batch_norm()
    names = [node.name for node in mg.core.node.ancestors(x_bar.node)]
    assert "x_hat" not in names and "inv_std" in names


def test_closed_form_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="beside"):
        mg.viz.beside(mg.square, lambda xp, y_bar, x: (mg.sum(x * y_bar),), [np.ones(3)])


@pytest.mark.parametrize(
    ("closed_form", "given", "says"),
    [
        (lambda xp, y_bar, x: (x,), {"names": ["a", "b"]}, "beside: names"),
        (lambda xp, y_bar, x: (x,), {"argnum": 1}, "beside: argnum"),
        (lambda xp, y_bar, x: x, {}, r"closed form\n  expected: a tuple of 1"),
        (lambda xp, y_bar, x: (x, x), {}, "closed form"),
        (lambda xp, y_bar, x: (np.ones(3),), {}, "closed form"),
    ],
)
def test_what_does_not_fit_the_inputs_is_named(closed_form, given, says):
    with pytest.raises(MinigradError, match=says):
        mg.viz.beside(mg.square, closed_form, [np.ones(3)], **given)


def test_recorded_gradient_is_a_graph_like_any_other():
    x = graphs.leaf([1.0, 2.0], "x")
    w = graphs.leaf([3.0, 4.0], "w")
    gradient = mg.grad(lambda x: mg.sum(mg.sin(x) * w))(x)
    titles = re.findall(r"^ *n\d+ \[label=<.*?<B>(.*?)</B>", mg.viz.to_dot(gradient), re.M)
    assert titles[-1].startswith("y = ") and "cos" in " ".join(titles)
    assert len(mg.viz.trace(gradient, [1.0, 1.0]).steps) > 3
