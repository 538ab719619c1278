"""DOT text of cards, formulas, edges and verdicts; the same text in every process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from viz import graphs
from viz.graphs import batch_norm, scalar
from viz.reading import cards, edges, numbers

import minigrad as mg
from minigrad.composite import label
from minigrad.errors import DTypeError, GraphError, UsageError

# --- cards and formulas --------------------------------------------------------------------------


def test_batch_norm_has_one_card_per_value_with_the_formula_in_operand_names():
    assert list(cards(mg.viz.to_dot(batch_norm(swept=False)))) == [
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


def test_array_without_elements_is_shown_as_empty():
    y = mg.sum(graphs.leaf(np.ones((0, 3)), "x"))
    assert "empty" in cards(mg.viz.to_dot(y))["x"]


def test_values_and_grads_can_be_left_out():
    y = batch_norm(swept=False)
    y.backward(graphs.SEED)
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
        (lambda a, b: mg.stack([a, b])[[0, 1, 1]], "y = stack(a, b)[[0, 1, 1]]"),
        (
            lambda a, b: mg.broadcast_to(a, (4, 2))[1:3, [0, 1]],
            "y = v1[1:3, [0, 1]]",
        ),
        (lambda a, b: mg.einsum(",->", a, b), "y = einsum(a, b, subscripts=&quot;,-&gt;&quot;)"),
        (lambda a, b: mg.reshape(a, (1, 1)), "y = reshape(a, shape=(1, 1))"),
        (lambda a, b: mg.leaky_relu(a, alpha=0.01), "y = leaky_relu(a)"),
        (lambda a, b: mg.leaky_relu(a, alpha=0.2), "y = leaky_relu(a, alpha=0.2)"),
        (lambda a, b: a.astype("float32"), "y = astype(a, dtype=float32)"),
        (lambda a, b: mg.ops.astype(a, dtype=np.float32), "y = astype(a, dtype=float32)"),
    ],
)
def test_formula_means_what_was_computed(make, formula):
    y = make(scalar("a"), scalar("b"))
    assert next(reversed(cards(mg.viz.to_dot(y)))) == formula


def test_legend_explains_the_colours_and_the_dashed_lines_that_are_there():
    y = batch_norm()
    assert re.findall("Orange|Dashed", mg.viz.to_dot(y)) == ["Orange", "Dashed"]
    assert re.findall("Orange|Dashed", mg.viz.to_dot(y, grads=False)) == ["Orange"]
    assert not re.findall("Orange|Dashed", mg.viz.to_dot(y, values=False, grads=False))


def test_unnamed_result_that_is_too_long_to_repeat_gets_a_number():
    a = mg.tensor(1.0, requires_grad=True, name="a_rather_long_name")
    titles = list(cards(mg.viz.to_dot(mg.exp(mg.sin(a * a)))))
    assert titles[1:3] == ["v1 = a_rather_long_name * a_rather_long_name", "sin(v1)"]


def test_long_names_leave_the_operator_and_the_result_in_sight():
    a, b = (graphs.leaf(np.eye(2), name * 30) for name in ("ab", "cd"))
    y = label(a @ b, "ef" * 30)
    card = list(cards(mg.viz.to_dot(y)).values())[2]
    title = " ".join(re.findall(r"<B>(.*?)</B>", card)).split()
    assert title == [
        "efefefefef…fefefefefef",
        "=",
        "ababababab…bababababab",
        "@",
        "cdcdcdcdcd…dcdcdcdcdcd",
    ]


def test_invented_names_avoid_the_names_in_use():
    y = scalar("y") * scalar("c1") * np.ones(2)
    assert list(cards(mg.viz.to_dot(y))) == ["y", "c1", "y * c1", "c2", "y1 = y * c1 * c2"]


def test_index_arrays_and_functions_are_written_without_memory_addresses():
    z = mg.tensor(np.zeros((4, 3)), requires_grad=True, name="z")
    titles = "".join(cards(mg.viz.to_dot(mg.cross_entropy(z, [0, 1, 2, 0]))))
    assert "[[0, 1, 2, 3], [0, 1, 2, 0]]" in titles
    assert " at 0x" not in titles


def test_array_among_the_parameters_pushes_no_other_out_of_the_title():
    x, ones = graphs.leaf(np.ones((2, 6)), "x"), np.linspace(0.5, 1.5, 6)
    y = mg.fused.batch_norm(x, np.ones(6), ones, mean=ones, var=ones)
    dot = mg.viz.to_dot(y)
    assert "mean=float64[6]," in dot and "var=float64[6])" in dot


def test_raw_array_operand_is_a_constant_card_and_a_number_is_not():
    dot = mg.viz.to_dot(scalar() * np.array([1.0, 2.0]) * 3.0)
    assert list(cards(dot)) == ["x", "c1", "x * c1", "y = x * c1 * 3"]
    assert "no gradient requested" in cards(dot)["c1"]
    assert 'STYLE="dashed"' in cards(dot)["c1"]


# --- edges ---------------------------------------------------------------------------------------


def test_edges_of_batch_norm_are_its_op_inputs():
    y = batch_norm(swept=False)
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
    with mg.scope("square"):
        y = x @ x
    assert "headlabel" not in mg.viz.to_dot(y, depth=0)


def test_many_leaves_of_one_card_stand_in_rows_of_four():
    leaves = [mg.tensor(1.0, requires_grad=True) for _ in range(9)]
    rows = re.findall(r"minlen=(\d)", mg.viz.to_dot(mg.stack(leaves)))
    assert rows == ["2"] * 4 + ["3"]


# --- verdicts ------------------------------------------------------------------------------------


def test_badges_carry_a_word_and_a_symbol_and_the_failing_one_is_red():
    verdicts = {"x": (True, "1e-15"), "gamma": (False, "error 0.3 > 1e-12"), "beta": (None, "")}
    found = cards(mg.viz.to_dot(batch_norm(swept=False), verdicts=verdicts))
    assert "✓ proven: 1e-15" in found["x"]
    assert "✗ wrong: error 0.3 &gt; 1e-12" in found["gamma"]
    assert 'BGCOLOR="#b3261e"' in found["gamma"]
    assert "– not run" in found["beta"]
    assert not any("#b3261e" in found[name] for name in ("x", "beta"))


def test_verdict_on_no_leaf_is_refused():
    with pytest.raises(UsageError, match="gama"):
        mg.viz.to_dot(batch_norm(swept=False), verdicts={"gama": (False, "")})


# --- determinism and wrong input -----------------------------------------------------------------


def test_dot_text_of_a_square_is_the_golden_one():
    x = scalar()
    with mg.scope("block"):
        y = x * x
    golden = Path(__file__).with_name("square.dot").read_text(encoding="utf-8")
    assert mg.viz.to_dot(y, values=False, grads=False) == golden


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
