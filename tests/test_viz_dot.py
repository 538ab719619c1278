"""What DOT text says about a graph: cards, edges, clusters, folding, gradients, verdicts."""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import DTypeError, GraphError, UsageError

SEED = np.linspace(-1.0, 1.0, 12).reshape(4, 3)


def batch_norm(**statistics):
    x = mg.tensor(np.sin(np.arange(12.0)).reshape(4, 3), requires_grad=True, name="x")
    gamma = mg.tensor([1.0, 0.5, -2.0], requires_grad=True, name="gamma")
    beta = mg.tensor(np.zeros(3), requires_grad=True, name="beta")
    return mg.batch_norm(x, gamma, beta, **statistics)


def chain(x, n):
    for _ in range(n):
        x = mg.tanh(x)
    return x


def cards(dot):
    """Title -> the HTML of its card."""
    found = re.findall(r"^ *n\d+ \[label=<(.*)>\];$", dot, re.M)
    return {re.search(r"<B>(.*?)</B>", html).group(1): html for html in found}


def numbers(html):
    return re.findall(r'<TD BORDER="1"[^>]*>(?:<FONT[^>]*>)+([^<]*)<', html)


def edges(dot):
    """(title, title) for every edge."""
    titles = dict(re.findall(r"^ *(n\d+) \[label=<.*?<B>(.*?)</B>", dot, re.M))
    return [(titles[a], titles[b]) for a, b in re.findall(r"^ *(n\d+) -> (n\d+)", dot, re.M)]


def scalar(name="x"):
    return mg.tensor(2.0, requires_grad=True, name=name)


# --- cards and formulas --------------------------------------------------------------------------


def test_batch_norm_has_one_card_per_value_with_the_formula_in_operand_names():
    assert list(cards(mg.viz.to_dot(batch_norm()))) == [
        "x",
        "gamma",
        "beta",
        "mean = mean(x, axis=0, keepdims)",
        "xc = x - mean",
        "xc * xc",
        "var = mean(xc * xc, axis=0, keepdims)",
        "var + 1e-05",
        "sqrt(var + 1e-05)",
        "inv_std = reciprocal(sqrt(var + 1e-05))",
        "x_hat = xc * inv_std",
        "gamma * x_hat",
        "y = gamma * x_hat + beta",
    ]


def test_card_shows_shape_dtype_and_every_number_of_a_small_array():
    x = mg.tensor([[1.5, -2.0], [0.0, 4.0]], dtype="float32", requires_grad=True, name="x")
    card = cards(mg.viz.to_dot(mg.sum(x), grads=False))["x"]
    assert "(2, 2) float32 · leaf" in card
    assert numbers(card) == ["1.500", "-2.000", "0", "4.000"]


def test_array_beyond_8_by_8_is_shown_by_statistics_and_an_excerpt():
    x = mg.tensor(np.arange(90.0).reshape(10, 9), requires_grad=True, name="x")
    card = cards(mg.viz.to_dot(mg.sum(x), grads=False))["x"]
    assert all(f">{text}<" in card for text in ("min", "mean", "max", "std", "44.5", "89"))
    assert numbers(card) == ["0", "1", "2", "3", "9", "10", "11", "12", "18", "19", "20", "21"]
    assert "…" in card


def test_values_and_grads_can_be_left_out():
    y = batch_norm()
    y.backward(SEED)
    dot = mg.viz.to_dot(y, values=False, grads=False)
    assert not any(map(numbers, cards(dot).values()))
    assert "gradient" not in dot


@pytest.mark.parametrize(
    ("make", "formula"),
    [
        (lambda a, b: (a + b) * a, "y = (a + b) * a"),
        (lambda a, b: a - (b - a), "y = a - (b - a)"),
        (lambda a, b: a - b - a, "y = a - b - a"),
        (lambda a, b: -(a * b), "y = -(a * b)"),
        (lambda a, b: (-a) ** 2, "y = (-a) ** 2"),
        (lambda a, b: a**-2.0, "y = a ** (-2)"),
        (lambda a, b: 1 / (a / b), "y = 1 / (a / b)"),
        (lambda a, b: mg.exp(a) + 0.25, "y = exp(a) + 0.25"),
        (lambda a, b: mg.maximum(a, b), "y = max(a, b)"),
        (lambda a, b: mg.stack([a, b])[1:, None], "y = stack(a, b)[1:, None]"),
        (lambda a, b: mg.reshape(a, (1, 1)), "y = reshape(a, shape=(1, 1))"),
    ],
)
def test_formula_means_what_was_computed(make, formula):
    y = make(scalar("a"), scalar("b"))
    assert next(reversed(cards(mg.viz.to_dot(y)))) == formula


def test_unnamed_result_that_is_too_long_to_repeat_gets_a_number():
    a = mg.tensor(1.0, requires_grad=True, name="a_rather_long_name")
    titles = list(cards(mg.viz.to_dot(mg.exp(mg.sin(a * a)))))
    assert titles[1:3] == ["v1 = a_rather_long_name * a_rather_long_name", "sin(v1)"]


def test_invented_names_avoid_the_names_in_use():
    y = scalar("y") * scalar("c1") * np.ones(2)
    assert list(cards(mg.viz.to_dot(y))) == ["y", "c1", "y * c1", "c2", "y1 = y * c1 * c2"]


def test_index_arrays_and_functions_are_written_without_memory_addresses():
    z = mg.tensor(np.zeros((4, 3)), requires_grad=True, name="z")
    titles = "".join(cards(mg.viz.to_dot(mg.cross_entropy(z, [0, 1, 2, 0]))))
    assert "[[0, 1, 2, 3], [0, 1, 2, 0]]" in titles
    assert " at 0x" not in titles


def test_raw_array_operand_is_a_constant_card_and_a_number_is_not():
    dot = mg.viz.to_dot(scalar() * np.array([1.0, 2.0]) * 3.0)
    assert list(cards(dot)) == ["x", "c1", "x * c1", "y = x * c1 * 3"]
    assert "no gradient asked for" in cards(dot)["c1"]
    assert 'STYLE="dashed"' in cards(dot)["c1"]


# --- edges ---------------------------------------------------------------------------------------


def test_edges_of_batch_norm_are_its_op_inputs():
    y = batch_norm()
    found = edges(mg.viz.to_dot(y))
    nodes = mg.core.node.ancestors(y.node)
    assert len(found) == sum(p is not None for node in nodes for p in node.parents)
    tails = [tail for tail, _ in found]
    assert tails.count("x") == 2
    assert tails.count("xc = x - mean") == 3
    assert found.count(("xc = x - mean", "xc * xc")) == 2


def test_argument_positions_stand_where_the_picture_would_not_tell():
    x = mg.tensor(np.eye(2), requires_grad=True, name="x")
    assert re.findall(r'headlabel="(\d)"', mg.viz.to_dot(x @ x)) == ["1", "2"]
    assert "headlabel" not in mg.viz.to_dot(x * x)
    assert "headlabel" not in mg.viz.to_dot(x @ (x + 1))


# --- clusters and folding ------------------------------------------------------------------------


def clusters(dot):
    return re.findall(r"subgraph (cluster_\d+) \{\n *graph \[label=<<B>(.*?)</B>>", dot)


def test_composites_are_nested_clusters():
    names = ["batch_norm", "mean", "variance", "normalize", "affine"]
    assert clusters(mg.viz.to_dot(batch_norm())) == [
        (f"cluster_{i}", name) for i, name in enumerate(names)
    ]


def test_depth_0_folds_every_outermost_scope_to_one_card():
    dot = mg.viz.to_dot(batch_norm(), depth=0)
    assert list(cards(dot)) == ["x", "gamma", "beta", "y = batch_norm(x, gamma, beta)"]
    assert "10 ops folded · (4, 3), (3,), (3,) → (4, 3)" in dot
    assert clusters(dot) == []
    assert sorted(tail for tail, _ in edges(dot)) == ["beta", "gamma", "x", "x"]


def test_depth_1_shows_the_outermost_cluster_with_folded_cards_inside():
    dot = mg.viz.to_dot(batch_norm(), depth=1)
    assert [name for _, name in clusters(dot)] == ["batch_norm"]
    assert [title for title in cards(dot) if "=" in title] == [
        "mean = mean(x)",
        "xc, var = variance(x, mean)",
        "x_hat = normalize(var, xc)",
        "y = affine(gamma, x_hat, beta)",
    ]
    assert edges(dot).count(("xc, var = variance(x, mean)", "x_hat = normalize(var, xc)")) == 2


def test_folding_changes_no_name():
    with mg.scope("block"):
        h = mg.exp(scalar() * scalar("w"))
    y = h + 1
    assert "v1 = exp(x * w)" in cards(mg.viz.to_dot(y))
    assert "v1 = block(x, w)" in cards(mg.viz.to_dot(y, depth=0))
    assert all("y = v1 + 1" in cards(mg.viz.to_dot(y, depth=depth)) for depth in (None, 0))


def test_more_than_300_cards_fold_to_a_smaller_depth_and_the_picture_says_so():
    x = scalar()
    with mg.scope("long"):
        y = chain(x, 400)
    dot = mg.viz.to_dot(mg.exp(y))
    assert len(cards(dot)) == 3
    assert "402 cards are too many to read: folded to depth 0" in dot


def test_exactly_300_cards_do_not_fold():
    assert len(re.findall(r"\[label=", mg.viz.to_dot(chain(scalar(), 299), values=False))) == 300


def test_chain_of_50_000_ops_is_drawn_small_and_fast():
    y = chain(scalar(), 50_000)
    y.backward()
    start = time.perf_counter()
    dot = mg.viz.to_dot(y)
    assert time.perf_counter() - start < 5  # under 1 s on a quiet machine
    assert len(dot) < 200_000
    assert "… 49,902 more ops folded" in dot
    assert "the middle folded" in dot


def test_many_edges_into_a_folded_middle_are_one_that_says_how_many():
    x = y = scalar()
    for _ in range(1000):
        y = y * x
    dot = mg.viz.to_dot(y)
    assert re.search(r'headlabel="× \d{3}"', dot)
    assert dot.count("->") < 300


def test_leaf_with_a_verdict_is_not_hidden_in_the_folded_middle():
    leaves = [scalar(f"w{i}") for i in range(400)]
    y = mg.sum(mg.stack(leaves))
    dot = mg.viz.to_dot(y, verdicts={"w200": (False, "0.3")})
    assert "w200" in cards(dot)
    assert "w201" not in cards(dot)


def test_deeply_nested_scopes_need_no_recursion():
    def nested(x):
        scopes = []
        for i in range(1500):
            scopes.append(mg.scope(f"s{i}"))
            scopes[-1].__enter__()
        y = mg.exp(x)
        for inner in reversed(scopes):
            inner.__exit__(None, None, None)
        return y

    assert "s1499" in mg.viz.to_dot(nested(scalar()))


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
    h = mg.core.node.label(x * x, "h")
    y = mg.sum(h * h)
    y.backward()
    assert h.grad is None  # backward keeps leaves only
    html = cards(mg.viz.to_dot(y))["h = x * x"]
    assert numbers(html) == ["1", "4", "9", "2", "8", "18"]  # h, then 2 h
    assert h.grad is None


def test_gradients_of_intermediates_in_batch_norm_agree_with_the_chain_rule_by_hand():
    y = batch_norm()
    y.backward(SEED)
    nodes = {node.name: node for node in mg.core.node.ancestors(y.node) if node.name}
    found = mg.viz.gradient.gradients(mg.viz.graph.Recorded([y.node]), nodes.values())
    gamma, inv_std = nodes["gamma"].value, nodes["inv_std"].value
    np.testing.assert_allclose(found[nodes["x_hat"]].array, SEED * gamma, rtol=1e-14)
    by_inv_std = (SEED * gamma * nodes["xc"].value).sum(axis=0, keepdims=True)
    np.testing.assert_allclose(found[nodes["inv_std"]].array, by_inv_std, rtol=1e-13)
    by_var = by_inv_std * -0.5 * inv_std**3
    np.testing.assert_allclose(found[nodes["var"]].array, by_var, rtol=1e-12)


def test_seed_is_called_a_seed():
    y = batch_norm()
    y.backward(SEED)
    dot = mg.viz.to_dot(y)
    assert dot.count("gradient (seed)") == 1
    assert "gradient (seed)" in cards(dot)["y = gamma * x_hat + beta"]


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
    assert numbers(cards(dot)["x"]) == ["2", "6"]


def test_leaf_gradient_that_is_more_than_this_graphs_says_so():
    x = scalar()
    (x * x).backward()
    y = x * 3.0
    y.backward()
    assert "gradient (sum of several sweeps)" in cards(mg.viz.to_dot(y))["x"]


def test_two_backward_calls_on_one_graph_are_consistent():
    x = scalar()
    y = mg.exp(x * 3.0)
    y.backward()
    y.backward()
    assert "several" not in mg.viz.to_dot(y)


def test_drawing_changes_nothing():
    y = batch_norm()
    y.backward(SEED)
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


# --- verdicts ------------------------------------------------------------------------------------


def test_badges_carry_a_word_and_a_symbol_and_the_failing_one_is_red():
    verdicts = {"x": (True, "1e-15"), "gamma": (False, "error 0.3 > 1e-12"), "beta": (None, "")}
    found = cards(mg.viz.to_dot(batch_norm(), verdicts=verdicts))
    assert "✓ proven: 1e-15" in found["x"]
    assert "✗ wrong: error 0.3 &gt; 1e-12" in found["gamma"]
    assert 'BGCOLOR="#b3261e"' in found["gamma"]
    assert "– not run" in found["beta"]
    assert not any("#b3261e" in found[name] for name in ("x", "beta"))


def test_verdict_on_no_leaf_is_refused():
    with pytest.raises(UsageError, match="gama"):
        mg.viz.to_dot(batch_norm(), verdicts={"gama": (False, "")})


# --- determinism and wrong input -----------------------------------------------------------------

PROGRAM = """
import sys
import numpy as np, minigrad as mg
junk = [mg.tensor(0.0, requires_grad=True) * 2 for _ in range(int(sys.argv[1]))]
x = mg.tensor(np.arange(12.0).reshape(4, 3), requires_grad=True, name="x")
y = mg.batch_norm(x, np.ones(3), mg.tensor(np.zeros(3)), mean=np.zeros(3), var=np.ones(3))
z = mg.cross_entropy(mg.batch_norm(y, np.ones(3), np.zeros(3)), [0, 1, 2, 0])
z.backward()
for depth in (None, 0, 1):
    sys.stdout.buffer.write(mg.viz.to_dot([z, y], depth=depth).encode())
"""


def test_dot_text_of_two_processes_is_byte_identical():
    texts = []
    for seed in ("1", "2"):  # hash seeds; other numbers of nodes made before
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        words = [sys.executable, "-c", PROGRAM, seed]
        done = subprocess.run(words, env=environment, capture_output=True, check=True, timeout=60)
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert len(texts[0]) > 10_000


def test_dot_text_needs_no_package_but_numpy():
    program = (
        "import sys, minigrad as mg\n"
        "mg.viz.to_dot(mg.tensor(1.0, requires_grad=True) * 2)\n"
        "assert not {'graphviz', 'pygraphviz', 'typer', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_several_results_share_one_picture():
    x = scalar()
    h = mg.exp(x)
    assert list(cards(mg.viz.to_dot([h * 2.0, h * 3.0]))) == [
        "x", "exp(x)", "y1 = exp(x) * 2", "y2 = exp(x) * 3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("y", "error", "text"),
    [
        (mg.tensor([1.0]), GraphError, "requires_grad=True"),
        (mg.tensor([1.0], name="c"), GraphError, "nothing was recorded"),
        ([], GraphError, "empty"),
        (np.ones(2), DTypeError, "ndarray"),
        (2.5, DTypeError, "expected: a tensor"),
    ],
)
def test_what_has_no_graph_is_refused_with_the_facts(y, error, text):
    with pytest.raises(error, match=text):
        mg.viz.to_dot(y)


@pytest.mark.parametrize("depth", [-1, 1.5, "all"])
def test_wrong_depth_is_refused(depth):
    with pytest.raises(UsageError, match="depth"):
        mg.viz.to_dot(scalar() * 2.0, depth=depth)


def test_leaf_alone_is_one_card():
    assert list(cards(mg.viz.to_dot(scalar()))) == ["x"]
