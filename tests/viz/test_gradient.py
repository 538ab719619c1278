"""Gradients in pictures: which one a card shows, and the cotangents along the edges."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest
from viz import graphs
from viz.graphs import batch_norm, leaf, scalar
from viz.reading import cards, numbers

import minigrad as mg
from minigrad.composite import label
from minigrad.viz import render
from minigrad.viz.fold import fold
from minigrad.viz.graph import Recorded
from minigrad.viz.grid import BLANK

# --- gradients -----------------------------------------------------------------------------------


def test_missing_gradient_is_blank_and_named_and_a_zero_one_is_a_0():
    x = scalar()
    y = x * 0.0
    before = cards(mg.viz.to_dot(y))["x"]
    assert "gradient: not computed" in before
    assert [text.strip("\u00a0") for text in numbers(before)] == ["2", ""]
    y.backward()
    after = cards(mg.viz.to_dot(y))["x"]
    assert "not computed" not in after
    assert numbers(after) == ["2", "0"]


def test_gradients_of_intermediate_values_are_the_true_ones():
    x = mg.tensor([1.0, 2.0, 3.0], requires_grad=True, name="x")
    h = label(x * x, "h")
    y = mg.sum(h * h)
    y.backward()
    assert h.grad is None  # backward keeps leaves only
    html = cards(mg.viz.to_dot(y))["h = x * x"]
    assert numbers(html) == ["1", "4", "9", "2", "8", "18"]  # h, then 2 h
    assert h.grad is None


def test_gradients_of_intermediates_in_batch_norm_agree_with_the_chain_rule_by_hand():
    y = batch_norm(swept=False)
    y.backward(graphs.SEED)
    nodes = {node.name: node for node in mg.core.node.ancestors(y.node) if node.name}
    found = mg.viz.gradient.swept(mg.viz.graph.Recorded([y.node]), nodes.values()).gradients
    gamma, inv_std = nodes["gamma"].value, nodes["inv_std"].value
    np.testing.assert_allclose(found[nodes["x_hat"]].array, graphs.SEED * gamma, rtol=1e-14)
    by_inv_std = (graphs.SEED * gamma * nodes["xc"].value).sum(axis=0, keepdims=True)
    np.testing.assert_allclose(found[nodes["inv_std"]].array, by_inv_std, rtol=1e-13)
    by_var = by_inv_std * -0.5 * inv_std**3
    np.testing.assert_allclose(found[nodes["var"]].array, by_var, rtol=1e-12)


def test_seed_is_called_a_seed():
    y = batch_norm(swept=False)
    y.backward(graphs.SEED)
    dot = mg.viz.to_dot(y)
    assert dot.count("gradient (seed)") == 1
    assert "gradient (seed)" in cards(dot)["y = gamma * x_hat + beta"]


def test_seed_of_each_of_several_results_is_called_a_seed_and_told_from_what_came_to_it():
    b = label(scalar() * 2.0, "b")
    c, d = label(b * 3.0, "c"), label(b * 5.0, "d")
    for y in (b, c):
        y.backward()
    found = cards(mg.viz.to_dot([b, c, d]))
    assert "gradient (seed)" in found["c = b * 3"]
    assert "gradient (seed + 1 path)" in found["b = x * 2"]
    assert "seed" not in found["d = b * 5"] and "not computed" in found["d = b * 5"]


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("seeds", ["", "a", "b", "ab", "ba", "bb", "bab"])
def test_results_show_the_gradients_that_their_sweeps_made_whatever_they_retain(retain, seeds):
    x = leaf([1.0, 2.0], "x")
    a = label(x * 3.0, "a")
    b = label(mg.sum(a * a), "b")
    if retain:
        a.retain_grad()
    for name in seeds:
        a.backward([10.0, 20.0]) if name == "a" else b.backward()
    found = cards(mg.viz.to_dot([a, b]))
    m, n = seeds.count("a"), seeds.count("b")
    bars = m * np.array([10.0, 20.0]) + n * np.array([6.0, 12.0])
    title = "a = x * 3"
    assert "several" not in found["x"]
    if not seeds:
        assert "gradient: not computed" in found[title]
        return
    assert numbers(found[title])[2:] == [f"{bar:g}" for bar in bars]
    assert numbers(found["x"])[2:] == [f"{3 * bar:g}" for bar in bars]
    note = "gradient (seed + 2 paths)" if m and n else "gradient (seed)" if m else "gradient"
    assert note in found[title] and ("seed" in found[title]) == bool(m)


def test_overwritten_leaf_leaves_intermediate_gradients_not_available():
    x = scalar()
    y = mg.exp(x * x)
    y.backward()
    x.data = 3.0
    dot = mg.viz.to_dot(y)
    assert "gradient: not available (OverwrittenError)" in cards(dot)["x * x"]


def test_gradients_of_a_sweep_from_elsewhere_are_not_kept_rather_than_not_computed():
    h = scalar() * 2.0
    (h * 3.0).backward()
    dot = mg.viz.to_dot(h)
    assert "gradient: not kept" in cards(dot)["y = x * 2"]
    assert BLANK not in dot  # no place for a gradient that will never come
    assert numbers(cards(dot)["x"]) == ["2", "6"]


def test_leaf_that_has_no_gradient_yet_tells_that_no_sweep_came_through():
    w = scalar("w")
    (w * 3.0).backward()
    found = cards(mg.viz.to_dot(mg.exp(w * scalar())))
    waiting = ("x", "w * x", "y = exp(w * x)")
    assert all("gradient: not computed" in found[title] for title in waiting)
    assert numbers(found["w"]) == ["2", "3"]


def test_result_that_no_sweep_came_to_has_no_gradient_rather_than_0():
    x = mg.tensor([1.0, 2.0], requires_grad=True, name="x")
    y, u = mg.sum(mg.exp(x)), mg.sum(mg.sin(x))
    y.backward()
    shown = cards(mg.viz.to_dot([y, u]))
    assert [title for title, text in shown.items() if "not computed" in text] == [
        "sin(x)",
        "y2 = sum(sin(x))",
    ]


def test_leaf_gradient_that_is_more_than_this_graphs_says_so():
    x = scalar()
    (x * x).backward()
    y = x * 3.0
    y.backward()
    assert "gradient (sum of several sweeps)" in cards(mg.viz.to_dot(y))["x"]
    y = x * x
    y.backward()  # two paths here, but the gradient is a sum of four
    assert "gradient (sum of several sweeps)" in cards(mg.viz.to_dot(y))["x"]


def test_two_backward_calls_on_one_graph_are_consistent():
    x = scalar()
    y = mg.exp(x * 3.0)
    y.backward()
    y.backward()
    assert "several" not in mg.viz.to_dot(y)


def test_drawing_changes_nothing():
    y = batch_norm(swept=False)
    y.backward(graphs.SEED)
    nodes = mg.core.node.ancestors(y.node)
    before = [(node.grad, node.value.copy(), node.keep_grad) for node in nodes]
    mg.viz.to_dot(y)
    for node, (grad, value, keep) in zip(nodes, before, strict=True):
        assert node.grad is grad and node.keep_grad is keep
        np.testing.assert_array_equal(node.value, value)


def test_broken_rule_does_not_stop_the_picture():
    @mg.op(formula="y = x", pullback="none", signature="()")
    def broken_in_test_viz(xp, x):
        return x * 1.0

    try:
        x = scalar()
        h = broken_in_test_viz(x * 1.0)
        h.node.grad = mg.tensor(1.0)
        assert "not available" in mg.viz.to_dot(h)
    finally:
        del mg.REGISTRY["broken_in_test_viz"]


# --- the way back --------------------------------------------------------------------------------


def test_each_edge_that_was_swept_has_a_dashed_one_back_with_the_norm_of_its_contribution():
    y = batch_norm()
    dot = mg.viz.to_dot(y)
    back = re.findall(r"(n\d+ -> n\d+) \[dir=back.* label=<.*?<TD>(.*?)<", dot)
    forward = re.findall(r"^ *(n\d+ -> n\d+)(?: \[(?!dir).*\])?;$", dot, re.M)
    assert sorted(edge for edge, _ in back) == sorted(forward)
    steps = {(s.value, s.input): s for s in mg.viz.trace(y).steps if s.kind == "backward"}
    norms = [mg.viz.grid.number(float(np.linalg.norm(s.contribution))) for s in steps.values()]
    assert sorted(label for _, label in back) == sorted(norms)


@pytest.mark.skipif(not render.renderers(), reason="no Graphviz")
def test_no_norm_covers_a_card_a_title_or_another_norm():
    x, logits = leaf(np.array([1e6 + 1, 1e6]), "x"), leaf(np.array([0.1, -0.2]), "logits")
    loss = mg.ops.binary_cross_entropy_with_logits(logits, np.array([1.0, 0.0]))
    y = mg.sum(x * x / x) + loss * 1e-3
    y.backward()
    svg = ElementTree.fromstring(render.render(mg.viz.to_dot(y), "svg"))
    boxes = [(kind, box) for group in svg.iter(f"{SVG}g") for kind, box in boxes_of(group)]
    norms = [box for kind, box in boxes if kind == "edge"]
    assert len(norms) == 16  # op inputs that need a gradient
    for kind, box in boxes:
        assert [norm for norm in norms if norm is not box and overlap(norm, box)] == [], kind


SVG = "{http://www.w3.org/2000/svg}"


def boxes_of(group):
    """Texts of an edge or a cluster, the outline of a card: (left, top, right, bottom)."""
    kind = group.get("class")
    if kind in ("edge", "cluster"):
        for text in group.iter(f"{SVG}text"):
            if not text.text.strip():
                continue
            x, y, size = (float(text.get(key)) for key in ("x", "y", "font-size"))
            half = 0.55 * size * len(text.text) / 2
            x += 0 if text.get("text-anchor") == "middle" else half
            yield kind, (x - half, y - 0.7 * size, x + half, y)
    if kind == "node":
        points = " ".join(polygon.get("points") for polygon in group.iter(f"{SVG}polygon")).split()
        xs, ys = zip(*(map(float, point.split(",")) for point in points), strict=True)
        yield kind, (min(xs), min(ys), max(xs), max(ys))


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_where_lines_are_many_a_norm_stands_where_fewer_meet_and_bends_none(monkeypatch):
    monkeypatch.setattr("minigrad.viz.dot._SPAN", 0)
    x, w = leaf(np.eye(2), "x"), leaf(np.eye(2), "w")
    y = mg.sum(mg.concatenate([x @ w + w, w @ w]) * mg.concatenate([x, x])) + mg.sum(x * x)
    y.backward()
    dot = mg.viz.to_dot(y)
    back = [line for line in dot.splitlines() if "dir=back" in line]
    # a label in the middle would have room of its own, and every long line adds to the layout
    assert not any(" label=" in line for line in back)
    ends = [re.search(r"(n\d+) -> (n\d+) .* (head|tail)label=<", line).groups() for line in back]
    names = {card.id: card.outputs[0] for card in fold(Recorded([y.node])).cards}
    found = Counter((names[a].name, names[b].op.name, end) for a, b, end in ends)
    assert found["w", "matmul", "head"] == 1  # x @ w: w is used four times
    assert found[None, "concatenate", "tail"] == 2  # its operands are used once
    assert found["w", "matmul", "tail"] == 2  # w @ w: its heads carry positions
    assert found["x", "multiply", "head"] == found["x", "multiply", "tail"] == 1  # x * x: apart


def test_before_backward_and_without_grads_no_edge_runs_back():
    assert "dir=back" not in mg.viz.to_dot(batch_norm(swept=False))
    assert "dir=back" not in mg.viz.to_dot(batch_norm(), grads=False)


def test_fan_in_is_written_as_a_sum_of_paths():
    found = cards(mg.viz.to_dot(batch_norm()))
    assert "gradient (sum of 2 paths)" in found["x"]
    assert "gradient (sum of 3 paths)" in found["xc = x - mean"]
    assert "paths" not in found["gamma"]


def test_gradient_that_a_rule_declares_zero_is_shown_as_zeros():
    h = scalar() * 2.0
    y = mg.sign(h)
    y.backward()
    card = cards(mg.viz.to_dot(y))["x * 2"]
    assert "not computed" not in card and numbers(card) == ["4", "0"]


def test_constant_gets_no_edge_back():
    y = scalar() * np.array([1.0, 2.0])
    y.backward([1.0, 1.0])
    assert mg.viz.to_dot(y).count("dir=back") == 1
