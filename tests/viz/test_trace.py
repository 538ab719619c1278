"""The steps as data: how many, in which order, with which numbers, and their JSON form."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from viz import graphs

import minigrad as mg
from minigrad.errors import DTypeError, GraphError, SeedError
from minigrad.viz.document import checksum
from minigrad.viz.example import computed
from minigrad.viz.legend import legend
from minigrad.viz.story import Line, tell


def needed(y):
    """The number of op inputs that need a gradient."""
    nodes = mg.core.node.ancestors(y.node)
    return sum(p is not None and p.requires_grad for node in nodes for p in node.parents)


def last_sums(trace):
    """Node -> its gradient at the end of the sweep."""
    return {s.into.node: s.total for s in trace.steps if s.into}


# --- which steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [graphs.batch_norm, graphs.perceptron, graphs.lenet])
def test_steps_are_the_ops_the_seed_and_the_op_inputs_that_need_a_gradient(make):
    y = make()
    trace = mg.viz.trace(y)
    ops = sum(node.op is not None for node in mg.core.node.ancestors(y.node))
    kinds = [step.kind for step in trace.steps]
    assert kinds == ["forward"] * ops + ["seed"] + ["backward"] * needed(y)
    assert len(trace) == ops + 1 + needed(y)


def test_batch_norm_has_26_steps_and_with_a_loss_of_two_ops_30():
    y = graphs.batch_norm()
    assert len(mg.viz.trace(y)) == 10 + 1 + 15
    assert len(mg.viz.trace(mg.sum(y * graphs.SEED))) == 12 + 1 + 17


def test_fan_in_is_counted():
    trace = mg.viz.trace(graphs.batch_norm())
    fan_in = {s.into.name: s.paths for s in trace.steps if s.into}
    assert (fan_in["x"], fan_in["xc"], fan_in["gamma"]) == (2, 3, 1)
    xc = [(s.path, s.paths) for s in trace.steps if s.into and s.into.name == "xc"]
    assert xc == [(1, 3), (2, 3), (3, 3)]


def test_input_whose_contribution_is_zero_is_a_step_that_adds_nothing():
    x = graphs.leaf(3.0, "x")
    trace = mg.viz.trace(mg.sign(x) * 2.0)
    step = trace.steps[-1]
    assert (step.into.name, step.raw, step.total) == ("x", None, None)
    assert len(trace) == 2 + 1 + 2


# --- which numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [graphs.batch_norm, graphs.perceptron, graphs.lenet])
def test_last_running_sum_is_grad_bit_for_bit(make):
    y = make()
    if y.grad is None:
        y.backward()
    found = last_sums(mg.viz.trace(y))
    leaves = [node for node in found if node.op is None]
    assert leaves
    for node in leaves:
        assert found[node].tobytes() == node.grad.numpy().tobytes()


def test_each_running_sum_is_the_one_before_plus_the_contribution():
    trace = mg.viz.trace(graphs.batch_norm())
    for step in trace.steps:
        if step.kind == "backward" and step.before is not None:
            np.testing.assert_array_equal(step.total, step.before + step.contribution)
        elif step.kind == "backward":
            np.testing.assert_array_equal(step.total, step.contribution)


def test_cotangent_that_arrives_is_the_last_running_sum_of_the_op():
    trace = mg.viz.trace(graphs.batch_norm())
    totals = {}
    for step in trace.steps:
        if step.kind == "seed":
            totals[step.value] = step.total
        elif step.kind == "backward":
            assert step.y_bar is totals[step.value]
            totals[step.into] = step.total


def test_unbroadcasting_is_a_sum_over_named_axes():
    document = json.loads(mg.viz.trace(graphs.batch_norm()).to_json())
    names = [value["name"] for value in document["values"]]
    sums = {names[s["into"]]: s["sum"] for s in document["steps"] if s.get("sum")}
    assert sums["gamma"] == "sum over axis 0: (4, 3) -> (3,)"
    assert sums["mean"] == "sum over axis 0: (4, 3) -> (1, 3)"
    bias = graphs.leaf(np.ones((1, 1)), "b")
    y = mg.sum(bias * np.ones((2, 3)))
    step = json.loads(mg.viz.trace(y).to_json())["steps"][-1]
    assert step["sum"] == "sum over axes 0, 1: (2, 3) -> (1, 1)"


def test_seed_is_that_of_backward_or_the_given_one_or_1():
    x = graphs.leaf([1.0, 2.0], "x")
    y = x * x
    with pytest.raises(SeedError, match="none"):
        mg.viz.trace(y)
    np.testing.assert_array_equal(mg.viz.trace(y, [1.0, 10.0]).steps[-1].total, [2.0, 40.0])
    y.backward([3.0, 0.0])
    np.testing.assert_array_equal(mg.viz.trace(y).steps[-1].total, [6.0, 0.0])
    assert mg.viz.trace(mg.sum(x)).steps[1].total == 1.0


def test_tracing_changes_nothing_and_watches_no_other_sweep():
    y = graphs.batch_norm()
    nodes = mg.core.node.ancestors(y.node)
    before = [node.grad for node in nodes]
    mg.viz.trace(y)
    assert [node.grad for node in nodes] == before


@pytest.mark.parametrize(
    ("y", "error"),
    [(mg.tensor([1.0]), GraphError), (np.ones(2), DTypeError), (2.5, DTypeError)],
)
def test_what_has_no_graph_is_refused(y, error):
    with pytest.raises(error, match="trace"):
        mg.viz.trace(y)


def test_leaf_alone_is_its_seed():
    assert [s.kind for s in mg.viz.trace(graphs.leaf(2.0, "x")).steps] == ["seed"]


# --- JSON ----------------------------------------------------------------------------------------

GOLDEN = """\
{"format": "minigrad-trace", "version": 1, "title": "y = x * x",
 "scopes": [{"name": "block", "parent": null}],
 "values": [
  {"id": "n0", "name": "x", "title": "x", "kind": "leaf", "op": null, "call": "", "formula": "",
   "pullback": "", "inputs": [], "scope": null, "shape": [2], "dtype": "float64",
   "requires_grad": true, "array": 0},
  {"id": "n1", "name": "y", "title": "y = x * x", "kind": "op", "op": "multiply", "call": "x * x",
   "formula": "y = x_1 x_2",
   "pullback": "\\\\bar x_1 = \\\\bar y\\\\,x_2,\\\\quad \\\\bar x_2 = \\\\bar y\\\\,x_1",
   "inputs": [0, 0], "scope": 0, "shape": [2], "dtype": "float64", "requires_grad": true,
   "array": 1}],
 "steps": [
  {"kind": "forward", "value": 1},
  {"kind": "seed", "value": 1, "y_bar": 2, "total": 2},
  {"kind": "backward", "value": 1, "input": 0, "into": 0, "y_bar": 2, "raw": 3, "sum": "",
   "contribution": 3, "path": 1, "paths": 2, "total": 3},
  {"kind": "backward", "value": 1, "input": 1, "into": 0, "y_bar": 2, "raw": 3, "sum": "",
   "contribution": 3, "path": 2, "paths": 2, "total": 4}],
 "arrays": [
  {"shape": [2], "dtype": "float64", "values": [3.0, -0.5]},
  {"shape": [2], "dtype": "float64", "values": [9.0, 0.25]},
  {"shape": [2], "dtype": "float64", "values": [1.0, 2.0]},
  {"shape": [2], "dtype": "float64", "values": [3.0, -1.0]},
  {"shape": [2], "dtype": "float64", "values": [6.0, -2.0]}]}
"""


def test_json_of_a_square_is_the_golden_one():
    x = graphs.leaf([3.0, -0.5], "x")
    with mg.scope("block"):
        y = x * x
    assert json.loads(mg.viz.trace(y, [1.0, 2.0]).to_json()) == json.loads(GOLDEN)


PROGRAM = """
import sys
import warnings
sys.path.insert(0, sys.argv[2])
import minigrad as mg
from viz import graphs
junk = [mg.tensor(0.0, requires_grad=True) * 2 for _ in range(int(sys.argv[1]))]
with mg.fused.use("numpy", "portable"):  # numba takes seconds to load
    for make in (graphs.batch_norm, graphs.lenet):
        sys.stdout.write(mg.viz.trace(make()).to_json())
"""


def test_json_of_two_processes_is_byte_identical():
    folder = os.path.dirname(os.path.dirname(__file__))
    texts = []
    for seed in ("1", "2"):  # hash seeds; other numbers of nodes made before
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        words = [sys.executable, "-c", PROGRAM, seed, folder]
        done = subprocess.run(words, env=environment, capture_output=True, check=True, timeout=60)
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert len(texts[0]) > 50_000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_read_back_bit_for_bit(dtype):
    numbers = np.array([0.1, 1 / 3, -0.0, 1e-45, 3e38, 1e-7], dtype=dtype)
    y = mg.sum(mg.tensor(numbers, requires_grad=True, name="x"))
    array = json.loads(mg.viz.trace(y).to_json())["arrays"][0]
    assert np.array(array["values"], dtype=array["dtype"]).tobytes() == numbers.tobytes()


def test_numbers_that_are_not_finite_are_strings():
    y = mg.sum(graphs.leaf([np.nan, np.inf, -np.inf, 1.0], "x"))
    document = json.loads(mg.viz.trace(y).to_json(), parse_constant=pytest.fail)
    assert document["arrays"][0]["values"] == ["nan", "inf", "-inf", 1.0]


def test_a_graph_with_nan_is_stepped_without_a_warning():
    with np.errstate(all="ignore"):
        y = mg.sum(mg.log(graphs.leaf([0.0, -1.0], "x")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "nan" in mg.viz.step(y).html


def test_large_array_is_statistics_an_excerpt_and_a_checksum():
    numbers = np.arange(90.0).reshape(9, 10)
    y = mg.sum(graphs.leaf(numbers, "x"))
    array = json.loads(mg.viz.trace(y).to_json())["arrays"][0]
    assert array["statistics"] == {"min": "0", "mean": "44.5", "max": "89", "std": "26"}
    assert array["excerpt"] == numbers[:3, :4].tolist()
    assert array["sha256"] == checksum(numbers)
    assert "values" not in array


def test_numbers_and_arrays_that_were_never_tensors_are_told_apart():
    y = graphs.leaf([1.0, 2.0], "x") * np.array([3.0, 4.0]) + 0.5
    values = json.loads(mg.viz.trace(y, [1.0, 1.0]).to_json())["values"]
    assert [value["kind"] for value in values] == ["leaf", "constant", "op", "op"]
    assert values[3]["inputs"] == [2, {"number": 0.5}]


@pytest.mark.parametrize("number", [2, np.int64(2), 2.0])
def test_a_whole_number_is_no_position_of_a_value(number):
    trace = mg.viz.trace(graphs.leaf(1.0, "x") * number)
    product = trace.values[1]
    assert json.loads(trace.to_json())["values"][1]["inputs"] == [0, {"number": float(number)}]
    assert f"x₂ = {number:g}" in legend(product)
    assert computed(product) == f"1 * {number:g} = {number:g}"


@pytest.mark.parametrize("number", [1234567, True, 0.5, -0.0])
def test_a_number_looks_the_same_in_title_legend_and_row(number):
    trace = mg.viz.trace(graphs.leaf(1.0, "x") + number)
    story = tell(trace.steps[0])
    text = story.title.removeprefix("y = x + ")
    assert f"x₂ = {text}" in story.blocks[0].legend
    assert story.blocks[-1].items[2] == text
    assert computed(trace.values[1]).startswith(f"1 + {text} = ")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda x: x + 1e-5, "0.82761 + 1e-05 = 0.82762"),
        (lambda x: x + 1e-20, "0.8276 + 1e-20 = 0.8276"),  # equal in float64, too
        (lambda x: x * 2.0, "0.8276 * 2 = 1.655"),
        (lambda x: x * 10**20, "0.8276 * 100000000000000000000 = 8.276e+19"),  # beyond int64
        (lambda x: mg.tanh(x * 1e-3), "tanh(0.00082761) = 0.0008276098"),
        (lambda x: mg.maximum(x, 0.5), "max(0.8276, 0.5) = 0.8276"),
        (lambda x: -x, "-0.8276"),
        (lambda x: x * 0.0 + -0.0, "0 + 0 = 0"),  # as tables write it
        (mg.leaky_relu, "leaky_relu(0.8276) = 0.8276"),
    ],
)
def test_example_has_the_digits_that_tell_a_result_from_its_operands(make, text):
    trace = mg.viz.trace(make(graphs.leaf(0.82761, "x")))
    assert text in computed(trace.values[-1])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (mg.leaky_relu, "alpha = 0.01"),
        (lambda x: mg.leaky_relu(x, alpha=0.3), "alpha = 0.3"),
        (mg.elu, "alpha = 1"),
        (mg.ops.var, "ddof = 0"),
        (lambda x: mg.clip(x, 0.0), "min = 0"),
    ],
)
def test_legend_says_what_a_parameter_of_the_formula_is_when_none_was_given_too(make, text):
    trace = mg.viz.trace(make(graphs.scalar()))
    assert legend(trace.values[-1]) == text


@pytest.mark.parametrize("make", [mg.stack, mg.concatenate])
def test_input_of_many_that_a_cotangent_passes_is_named_with_its_number(make):
    y = make([graphs.leaf([1.0], name) for name in "abc"])
    trace = mg.viz.trace(y, np.ones(y.shape))
    formulas = [tell(step).blocks[0] for step in trace.steps[2:5]]
    assert [formula.legend for formula in formulas] == [
        f"xᵢ = {name}, i = {i}" for i, name in enumerate("abc", 1)
    ]


@pytest.mark.parametrize(
    ("make", "letters", "shown", "numbers"),
    [
        (lambda x: mg.where(np.eye(2) > 0, 3.0, x), "c = c1", ["c1"], "c = True → 0"),
        (lambda x: 2 * x, "x₁ = 2", [], "x₁ = 2 → 2"),
        (
            lambda x: mg.ops.max_pool(x[None, None], kernel_size=2),
            "p = 0, d = 1",
            ["x[None, None]"],
            "",
        ),
        (lambda x: mg.einsum("ij,jk->ik", x, np.eye(2)), "xᵢ = x, i = 1", ["c1"], ""),
    ],
)
def test_step_back_shows_what_its_rule_reads(make, letters, shown, numbers):
    y = make(graphs.leaf([[1.0, 2.0], [3.0, 4.0]], "x"))
    trace = mg.viz.trace(y, np.ones(y.shape))
    back = next(step for step in trace.steps if step.kind == "backward")
    formula, *lines, row, _ = tell(back).blocks
    assert letters in formula.legend
    assert [item.caption for item in row.items[2:-2:2]] == shown
    assert numbers in "".join(line.text for line in lines)


def test_no_line_of_a_step_without_elements_is_empty():
    y = graphs.leaf(np.ones((1, 3)), "x") + np.ones((0, 3))
    trace = mg.viz.trace(y, np.ones(y.shape))
    blocks = [block for step in trace.steps for block in tell(step).blocks]
    assert all(block.text for block in blocks if isinstance(block, Line))


def test_a_rule_may_return_a_tensor(declared):
    @mg.elementwise(formula="y = 3 x", pullback=r"\\bar x = 3 \\bar y")
    def triple(xp, x):
        """Three times ``x``."""
        return 3 * x

    triple.defpartials(lambda y, x: (mg.tensor(3.0),))
    x = mg.tensor(2.0, requires_grad=True, name="x")
    assert mg.viz.trace(triple(x)).steps[-1].total == 3.0
