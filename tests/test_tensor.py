"""Tensors behave as NumPy users and PyTorch users expect."""

import copy
import operator
from typing import NamedTuple

import numpy as np
import pytest

import minigrad as mg
from minigrad import errors
from minigrad.core.node import ancestors

OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}
VALUE = np.array([0.5, 1.0, 2.0])


def leaf(a, name=None, dtype=None):
    return mg.tensor(a, requires_grad=True, name=name, dtype=dtype)


# --- making --------------------------------------------------------------------------------------


def test_tensor_copies_and_keeps_the_dtype_of_its_source():
    for dtype in (np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64, np.bool_):
        source = np.array([1, 0, 1], dtype)
        x = mg.tensor(source)
        assert x.dtype == dtype and x.shape == (3,)
        assert not np.shares_memory(x.data, source)
        assert source.flags.writeable
    assert mg.tensor([1.0, 2.0]).dtype == np.float64
    assert mg.tensor([1, 2]).dtype == np.int64
    assert mg.tensor([1, 2], dtype="float32").dtype == np.float32
    assert mg.tensor(2.5).shape == ()


def test_tensor_of_a_tensor_is_a_detached_copy():
    x = leaf([1.0, 2.0], "x")
    y = mg.tensor(x * 2)
    assert not y.requires_grad and y.data.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_only_floating_tensors_require_gradients(dtype):
    with pytest.raises(errors.DTypeError, match=f"(?s)floating.*weights.*{dtype}") as caught:
        mg.tensor([1, 0], dtype=dtype, requires_grad=True, name="weights")
    assert isinstance(caught.value, TypeError)
    x = mg.tensor([1, 0], dtype=dtype, name="weights")
    with pytest.raises(errors.DTypeError, match=dtype):
        x.requires_grad = True


@pytest.mark.parametrize(
    "source",
    [
        [1j, 2j],
        "text",
        ["a", "b"],
        None,
        ...,
        [...],
        [1.0, None],
        {"a": 1},
        np.array([1, 2], object),
        np.array(["2020"], "M8[Y]"),
        np.ma.array([1.0, 2.0], mask=[True, False]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_what_is_not_real_numbers_is_refused(source, requires_grad):
    for dtype in (None, "float32"):
        with pytest.raises(errors.DTypeError) as caught:
            mg.tensor(source, dtype=dtype, requires_grad=requires_grad)
        assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("dtype", ["foo", object, "complex128", (1, 2)], ids=str)
def test_what_is_no_dtype_of_real_numbers_is_refused(dtype):
    for make in (
        lambda: mg.tensor([1.0], dtype=dtype),
        lambda: leaf([1.0]).astype(dtype),
        lambda: mg.nn.Linear(2, 1, dtype=dtype),
        lambda: mg.nn.BatchNorm1d(2, affine=False, dtype=dtype),
    ):
        with pytest.raises(errors.DTypeError, match="real numbers"):
            make()


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        ([300], "int8", "300"),
        ([-1], "uint64", "-1"),
        ([1.5, np.nan], "int64", "NaN"),
        (np.inf, "int64", "infinity"),
    ],
)
def test_a_number_that_the_dtype_cannot_hold_is_refused(value, dtype, said):
    with pytest.raises(errors.DTypeError, match=f"numbers that {dtype} can hold\n.*{said}"):
        mg.tensor(value, dtype=dtype)


def test_ragged_sequences_and_lists_of_tensors_are_refused():
    with pytest.raises(errors.ShapeError):
        mg.tensor([[1.0], [2.0, 3.0]])
    for items in ([leaf(1.0)], [[leaf(1.0)]], (leaf(1.0), 2.0)):
        with pytest.raises(errors.DTypeError, match="stack"):
            mg.tensor(items)
    with pytest.raises(errors.DTypeError, match="real numbers"):
        mg.tensor([1.0, None])


# --- operators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", OPERATORS)
@pytest.mark.parametrize(
    "other",
    [
        2,
        2.5,
        np.float64(2.5),
        np.int32(2),
        np.float32(2.5),
        VALUE + 1,
        (VALUE + 1)[:, None],
        [1.0, 2.0, 3.0],
    ],
    ids=["int", "float", "float64", "int32", "float32", "ndarray", "column", "list"],
)
def test_operators_keep_the_graph_on_either_side(symbol, other):
    op, raw = OPERATORS[symbol], np.asarray(other, float)
    for left in (True, False):
        x = leaf(VALUE)
        y = op(x, other) if left else op(other, x)
        expected = op(VALUE, raw) if left else op(raw, VALUE)
        assert isinstance(y, mg.Tensor) and y.requires_grad
        np.testing.assert_allclose(y.data, expected, rtol=1e-15)
        y.backward(np.linspace(1, 2, y.size).reshape(y.shape))
        assert x.grad.shape == x.shape


def test_matmul_keeps_the_graph_on_either_side():
    x, raw = leaf(np.arange(6.0).reshape(2, 3)), np.arange(6.0).reshape(3, 2)
    for y in (x @ raw, raw @ x):
        assert isinstance(y, mg.Tensor) and y.requires_grad
    np.testing.assert_array_equal((x @ raw).data, x.data @ raw)
    np.testing.assert_array_equal((raw @ x).data, raw @ x.data)


@pytest.mark.parametrize("symbol", OPERATORS)
@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_python_numbers_do_not_widen(symbol, shape, dtype):
    x = leaf(np.ones(shape), dtype=dtype)
    for number in (2, 2.0, True):
        for y in (OPERATORS[symbol](x, number), OPERATORS[symbol](number, x)):
            assert y.dtype == dtype
            y.backward(np.full(shape, 2.0))
            assert x.grad.dtype == dtype
            assert mg.grad(lambda t, n=number: mg.sum(OPERATORS[symbol](t, n)))(x).dtype == dtype


def test_augmented_assignment_makes_a_new_tensor():
    x = leaf([1.0, 2.0])
    y = x
    y += 1
    assert y is not x and x.data.tolist() == [1.0, 2.0] and y.requires_grad
    array = np.ones(2)
    with pytest.raises(TypeError):
        array += x  # cannot keep a graph in a plain array


def test_a_step_in_place_that_would_change_no_parameter_is_refused():
    w = mg.tensor([1.0, 2.0], requires_grad=True, name="w")
    (w * w).sum().backward()
    with pytest.raises(mg.errors.GraphError, match=r"(?s)has a gradient.*no_grad.*'?w'?"):
        w -= 0.1 * w.grad
    with pytest.raises(mg.errors.GraphError, match="has a gradient"):
        w *= 0.9
    assert w.data.tolist() == [1, 2]
    x = mg.tensor([3.0, 4.0], requires_grad=True)
    y = w
    y *= x  # not an update: it depends on the tracked x
    assert y.node.op.name == "multiply"
    with mg.no_grad():
        w -= 0.1 * w.grad
    assert w.data.tolist() == [0.8, 1.6]


def test_augmented_assignment_under_no_grad_changes_a_parameter_and_nothing_else():
    w, constant = leaf([1.0, 2.0]), mg.tensor([1.0, 2.0])
    layer = mg.nn.Linear(2, 1, bias=False)
    weight, before = layer.weight, layer.weight.numpy()
    graph = mg.sum(w * w)
    with mg.no_grad():
        for p in (w, constant):
            p -= np.array([0.5, 0.25])
            p *= 4
        layer.weight += 1
        with pytest.raises(errors.ShapeError, match="assignment"):
            layer.weight /= np.ones((3, 2))
    assert w.data.tolist() == [2.0, 7.0] and w.requires_grad and w.is_leaf
    assert constant.data.tolist() == [1.0, 2.0]
    assert layer.weight is weight and np.array_equal(weight.data, before + 1)
    with pytest.raises(errors.OverwrittenError):
        graph.backward()


def test_augmented_assignment_under_no_grad_changes_frozen_parameters_and_buffers():
    live, norm = mg.nn.Linear(2, 1, rng=0), mg.nn.BatchNorm1d(2)
    average = copy.deepcopy(live).requires_grad_(False)
    live.weight.data = live.weight.numpy() + 1
    expected = 0.5 * average.weight.numpy() + 0.5 * live.weight.numpy()
    for e in average.parameters():
        before = e
        e += 1  # outside no_grad it makes a new tensor
        assert e is not before
    with mg.no_grad():
        for e, p in zip(average.parameters(), live.parameters(), strict=True):
            e *= 0.5
            e += 0.5 * p
        for b in norm.buffers():
            b += 1
    np.testing.assert_array_equal(average.weight.data, expected)
    assert not average.weight.requires_grad
    assert norm.running_mean.data.tolist() == [1.0, 1.0] and norm.num_batches_tracked.item() == 1


@pytest.mark.parametrize("symbol", ["iadd", "isub", "imul", "itruediv", "ipow", "imatmul"])
def test_every_augmented_assignment_under_no_grad_changes_the_parameter(symbol):
    w, other = leaf([[2.0, 1.0], [0.5, 4.0]]), np.array([[1.0, 2.0], [3.0, 0.5]])
    expected = getattr(operator, symbol.removeprefix("i"))(w.numpy(), other)
    before = w
    with mg.no_grad():
        w = getattr(operator, symbol)(w, other)
    assert w is before and w.is_leaf and w.requires_grad
    np.testing.assert_array_equal(w.data, expected)


def test_unary_operators():
    x = leaf([-1.0, 2.0])
    assert (-x).data.tolist() == [1.0, -2.0]
    assert (+x).data.tolist() == [-1.0, 2.0] and (+x).node is not x.node
    assert abs(x).data.tolist() == [1.0, 2.0]


def test_operators_that_do_not_exist_raise_type_errors():
    x = leaf([1.0, 2.0])
    for op in (operator.floordiv, operator.mod, operator.and_):
        with pytest.raises(TypeError):
            op(x, 2)


@pytest.mark.parametrize("other", [1.0, VALUE[::-1].copy(), [1.0, 1.0, 3.0]])
def test_comparisons_give_unrecorded_boolean_tensors(other):
    x = leaf(VALUE)
    for op in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        for left in (True, False):
            y = op(x, other) if left else op(np.asarray(other), x)
            expected = op(VALUE, other) if left else op(np.asarray(other), VALUE)
            assert isinstance(y, mg.Tensor) and y.dtype == bool and not y.requires_grad
            np.testing.assert_array_equal(y.data, expected)
    assert (x == leaf(VALUE)).all()


@pytest.mark.parametrize("dtype", [bool, "int64", "uint8"])
def test_masks_combine_as_in_numpy(dtype):
    a, b = np.array([0, 0, 1, 1], dtype), np.array([0, 1, 0, 1], dtype)
    for op in (operator.and_, operator.or_, operator.xor):
        for left, right in ((mg.tensor(a), mg.tensor(b)), (mg.tensor(a), b), (a, mg.tensor(b))):
            y = op(left, right)
            assert isinstance(y, mg.Tensor) and y.dtype == a.dtype
            np.testing.assert_array_equal(y.data, op(a, b))
    np.testing.assert_array_equal((~mg.tensor(a)).data, ~a)
    for op in (lambda x: ~x, lambda x: x & True):
        with pytest.raises(errors.DTypeError, match=r"(?s)bitwise_.*booleans.*x \(2,\) float64"):
            op(mg.tensor([1.0, 2.0], name="x"))


def test_what_wants_to_compare_itself_with_arrays_does_so_with_tensors():
    """``__array_ufunc__ = None`` says so to NumPy; pytest.approx has it."""
    x, near = leaf(VALUE), VALUE * (1 + 1e-9)
    assert x == pytest.approx(near) and pytest.approx(near) == x
    assert x != pytest.approx(VALUE + 1.0) and not x == pytest.approx(VALUE + 1.0)  # noqa: SIM201
    assert x.sum() == pytest.approx(VALUE.sum())


def test_comparison_of_what_does_not_fit_is_an_error_of_ours():
    with pytest.raises(errors.ShapeError):
        _ = leaf(VALUE) < np.ones(5)
    for other in (None, "a"):
        with pytest.raises(errors.DTypeError) as caught:
            _ = leaf(VALUE, "x") < other
        assert str(caught.value).splitlines() == [
            "less",
            "  expected: numbers",
            f"  got:      x (3,) float64 and {other!r}",
        ]


def test_no_tensor_is_none():
    x = leaf(VALUE)
    assert (x == None) is False and (x != None) is True  # noqa: E711
    assert [None, x].index(x) == 1


# --- the container -------------------------------------------------------------------------------

GRID = np.arange(12.0).reshape(3, 4)
KEYS = [
    0,
    -1,
    (1, 2),
    slice(None, None, -1),
    (..., 0),
    (None, 1),
    (slice(0, 2), slice(1, None, 2)),
    [0, 2, 0],
    ([0, 1], [2, 2]),
    (np.array([[0], [2]]), np.array([1, 1, 3])),
    (slice(None), [3, 3, 0]),
    GRID > 4,
    (GRID > 4).tolist(),
    (GRID[:, 0] > 0, 1),
    np.int64(2),
    np.array(1),
    True,
    (),
    slice(1, 1),
    np.array([], int),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_numpys_and_its_gradient_scatters(key, rng):
    x = leaf(GRID)
    y = x[key]
    expected = np.asarray(GRID[key])
    np.testing.assert_array_equal(y.data, expected)
    seed = rng.normal(size=expected.shape)
    y.backward(seed)
    scattered = np.zeros_like(GRID)
    np.add.at(scattered, key, seed)
    np.testing.assert_array_equal(x.grad.data, scattered)
    hessian = mg.hvp(lambda t: mg.sum(t[key] ** 2 * seed), GRID, GRID)
    np.testing.assert_allclose(hessian.data, 2 * scattered * GRID, rtol=1e-15)


@pytest.mark.parametrize("key", [[2, 0], 1, [[0], [1]], [1], [[2]]])
def test_tensors_are_indices(key):
    x = leaf(GRID)
    np.testing.assert_array_equal(x[mg.tensor(key)].data, GRID[np.array(key)])
    np.testing.assert_array_equal(x[mg.tensor(key), 0].data, GRID[np.array(key), 0])
    np.testing.assert_array_equal(x[x > 5].data, GRID[GRID > 5])
    np.testing.assert_array_equal(GRID[mg.tensor(key).data], GRID[np.array(key)])
    np.testing.assert_array_equal(GRID[mg.tensor(key)], GRID[np.array(key)])
    np.testing.assert_array_equal(GRID[:, mg.tensor(key)], GRID[:, np.array(key)])
    assert [10, 20, 30][mg.tensor(2)] == 30
    with pytest.raises(errors.DTypeError):
        _ = [10, 20, 30][mg.tensor(1.0)]


def test_iteration_yields_recorded_rows():
    x = leaf(GRID)
    rows = list(x)
    assert len(x) == len(rows) == 3
    (rows[0] * 2 + rows[2]).backward([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(x.grad.data[0], [2.0, 4.0, 6.0, 8.0])
    np.testing.assert_array_equal(x.grad.data[1:], [[0.0] * 4, [1.0, 2.0, 3.0, 4.0]])
    a, b, c = x
    assert c.shape == (4,) and a.requires_grad and b.requires_grad


@pytest.mark.parametrize("n", [0, 1, 8, 9, 17, 100])
def test_iteration_yields_all_rows_of_many(n):
    x = leaf(np.arange(2.0 * n).reshape(n, 2))
    assert [row.tolist() for row in x] == [row.tolist() for row in mg.unstack(x)] == x.tolist()


@pytest.mark.parametrize("cut", [list, mg.unstack], ids=["iteration", "unstack"])
def test_the_gradient_of_a_loop_over_n_slices_costs_n_log_n(cut):
    n, seed = 512, np.random.default_rng(0).normal(size=512)
    x = leaf(np.arange(512.0))
    y = mg.stack(cut(x))
    cuts = [node for node in ancestors(y.node) if node.op is mg.ops.getitem]
    # the vjp of a slice fills an array of the size it was cut from; each of the 3 levels (8^3 = n)
    # cuts 8 pieces from each array
    assert sum(node.inputs[0].size for node in cuts) == 8 * 3 * n
    y.backward(seed)
    np.testing.assert_array_equal(x.grad.data, seed)


def test_a_0d_tensor_has_no_length_and_no_items():
    with pytest.raises(TypeError, match="len: a 0-d tensor has no length"):
        len(leaf(1.0))
    with pytest.raises(TypeError, match="iteration over a 0-d tensor"):
        iter(leaf(1.0))


def test_assignment_to_items_replaces_the_value():
    x = mg.tensor([1.0, 2.0, 3.0])
    x[1] = 5.0
    x[[0, 2]] = mg.tensor([7.0, 8.0])
    assert x.data.tolist() == [7.0, 5.0, 8.0]
    y = mg.tensor(1.0)
    y[()] = 2.0
    assert y.item() == 2.0


def test_assignments_that_do_not_fit_are_refused():
    x = leaf([1.0, 2.0], "x")
    for assign in (
        lambda: setattr(x, "data", [1.0]),
        lambda: setattr(x, "data", 1.0),
        lambda: x.__setitem__(slice(None), [1.0, 2.0, 3.0]),
        lambda: setattr(x, "grad", [1.0]),
    ):
        with pytest.raises(errors.ShapeError):
            assign()
    with pytest.raises(errors.BoundsError):
        x[9] = 1.0
    for bad in ("text", 1j, ..., None):
        with pytest.raises(errors.DTypeError):
            x.data = [bad, bad]
        with pytest.raises(errors.DTypeError, match=r"assignment to x \(2,\) float64"):
            x[0] = bad
    assert x.data.tolist() == [1.0, 2.0]


def test_assignment_keeps_dtype_name_and_requires_grad():
    x = leaf([1.0, 2.0], "w", dtype="float32")
    x.data = [3, 4]
    assert x.dtype == np.float32 and x.name == "w" and x.requires_grad
    assert x.data.tolist() == [3.0, 4.0]


def test_an_assigned_array_stays_that_of_the_caller():
    x, array = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    x.data = array
    array[0] = 5.0
    assert x.data.tolist() == [3.0, 4.0]


def test_membership_asks_the_values():
    x = mg.tensor([1.0, 2.0])
    assert 2.0 in x and 3.0 not in x and None not in x


# --- conversions ---------------------------------------------------------------------------------


def test_python_numbers_come_from_tensors_of_one_element():
    for x in (leaf(2.5), leaf([2.5]), leaf([[2.5]])):
        assert float(x) == 2.5 and int(x) == 2 and bool(x) and x.item() == 2.5
        assert f"{x:.2f}" == "2.50"
    assert type(mg.tensor(3).item()) is int
    for use in (float, int, bool, lambda x: x.item()):
        with pytest.raises(ValueError, match=r"\(2,\)") as caught:
            use(leaf([1.0, 2.0]))
        assert isinstance(caught.value, errors.ShapeError)
    with pytest.raises(errors.ShapeError, match=r"(?s)bool: .*any\(\) or x\.all\(\)"):
        _ = 1 if leaf([1.0, 2.0]) > 1.5 else 0


def test_numpy_asarray_converts_as_asked():
    x = leaf([1.5, 2.5])
    view = np.asarray(x)
    assert type(view) is np.ndarray and np.shares_memory(view, x.data)
    assert not view.flags.writeable
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    copied = np.array(x)
    assert copied.flags.writeable and not np.shares_memory(copied, x.data)
    assert np.shares_memory(np.asarray(x, copy=False), x.data)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.float32, copy=False)
    assert x.numpy().flags.writeable
    assert x.tolist() == [1.5, 2.5]
    assert np.asarray(leaf(1.5)).shape == ()


def test_another_library_takes_a_copy_that_it_may_change():
    x = leaf([1.5, 2.5])
    y = np.from_dlpack(x * 1.0)  # the graph stays behind, as with np.asarray
    y += 1
    assert y.tolist() == [2.5, 3.5] and x.tolist() == [1.5, 2.5]
    view = np.from_dlpack(x, copy=False)
    assert np.shares_memory(view, x.data) and not view.flags.writeable
    for scalar in (leaf(1.5), leaf([1.0, 0.5]).sum()):
        assert np.from_dlpack(scalar).shape == ()


def test_torch_takes_tensors():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    for take in (torch.as_tensor, torch.tensor, torch.asarray, torch.from_dlpack):
        y = take(x)
        assert y.dtype == torch.float64 and y.tolist() == x.tolist()
        y += 1
        assert x.tolist() == [[1, 2], [3, 4]] and take(x.sum()).item() == 10


def test_a_tensor_of_torch_with_a_graph_is_refused_as_torch_words_it():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs, x = torch.ones(3, requires_grad=True), leaf([1.0, 2.0, 3.0])
    for take in (mg.tensor, mg.exp, x.__lt__, x.__add__, mg.nn.Linear(3, 2)):
        with pytest.raises(errors.DTypeError, match=r"cannot convert .*tensor\.detach\(\)"):
            take(theirs)
    with pytest.raises(errors.DTypeError, match=r"argument 0: cannot convert .* BFloat16"):
        mg.grad(mg.sum)(torch.ones(3, dtype=torch.bfloat16))


NOT_OPS = {
    "median": lambda x: np.median(x),
    "median, by name": lambda x: np.median(a=x),
    "allclose": lambda x: np.allclose(x, b=x),
    "weights": lambda x: np.average(np.asarray(x), weights=x),
    "cholesky": lambda x: np.linalg.cholesky(x),
}


@pytest.mark.parametrize("f", NOT_OPS.values(), ids=NOT_OPS)
def test_a_numpy_function_that_is_no_op_computes_as_numpy_does_or_refuses_a_graph(f):
    value = np.array([[4.0, 0.0], [2.0, 5.0]])
    np.testing.assert_array_equal(f(mg.tensor(value)), f(value))
    if f is not NOT_OPS["allclose"]:
        with pytest.raises(errors.DTypeError, match=r"use an op of minigrad.ops, or numpy\."):
            f(leaf(value))


UFUNCS = [name for name in mg.REGISTRY if isinstance(getattr(np, name, None), np.ufunc)]


@pytest.mark.parametrize("name", UFUNCS)
def test_a_ufunc_is_the_op_of_its_name(name):
    f, op = getattr(np, name), mg.REGISTRY[name]
    xs = [np.array([[0.25, 0.5], [0.75, 0.125]]), np.array([[0.5, 0.5], [0.25, 0.75]])][: f.nin]
    for tensors in ([leaf(x) for x in xs], [*xs[:-1], leaf(xs[-1])], [leaf(xs[0]), *xs[1:]]):
        y = f(*tensors)
        assert y.node.op is op
        np.testing.assert_array_equal(y.data, op(*xs))
    assert isinstance(f(*map(mg.tensor, xs)), mg.Tensor)


def test_operators_of_arrays_and_numpy_scalars_give_tensors():
    x, n = leaf([2.0, 3.0]), mg.tensor(2)
    for other in (VALUE[:2], np.float64(2.0), np.float32(2.0), np.int64(2)):
        for op in OPERATORS.values():
            assert op(other, x).node.parents[1] is x.node
        assert type(other**n) is type(other == x) is type(other < n) is mg.Tensor
        np.testing.assert_array_equal((other <= x).data, np.asarray(other) <= x.data)
    assert (np.ones(2, int) & n).data.tolist() == [0, 0]
    with pytest.raises(errors.ShapeError, match="less"):
        np.ones(3) < x  # noqa: B015


@pytest.mark.parametrize("join", [np.concatenate, np.stack])
def test_numpy_joins_the_rows_of_a_single_tensor(join, rng):
    value = rng.normal(size=(2, 3))
    x, y_bar = leaf(value), rng.normal(size=join(value).shape)
    y = join(x)
    np.testing.assert_array_equal(y.data, join(value))
    y.backward(y_bar)
    np.testing.assert_array_equal(x.grad.data, y_bar.reshape(2, 3))


NO_OPS = {  # NumPy's functions that are no ops: the error names them
    "floor": lambda x: np.floor(x),
    "fmod": lambda x: np.fmod(np.ones(2), x),
    "remainder": lambda x: np.ones(2) % x,
    "add.reduce": lambda x: np.add.reduce(x),
    "multiply.outer": lambda x: np.multiply.outer([1.0, 2.0], x),
    "exp": lambda x: np.exp(x, dtype="float32"),
    "sqrt": lambda x: np.sqrt(x, where=[True, True], out=np.ones(2)),
    "add": lambda x: operator.iadd(np.ones(2), x),
}


@pytest.mark.parametrize("name", NO_OPS)
def test_a_ufunc_that_is_no_op_computes_as_numpy_does_or_refuses_a_graph(name):
    value = np.array([2.25, 3.0])
    y = NO_OPS[name](mg.tensor(value))
    assert type(y) is type(NO_OPS[name](value))
    np.testing.assert_array_equal(y, NO_OPS[name](value))
    with pytest.raises(errors.DTypeError, match=rf"or numpy\.{name}\(x\.numpy\(\)\)"):
        NO_OPS[name](leaf(value))
    with pytest.raises(
        errors.DTypeError, match=r"numpy\.add, which is not an op if called with out"
    ):
        np.add(value, value, out=leaf(value))


def test_a_ufunc_that_asks_takes_a_graph_and_cupy_is_left_to_the_tensor():
    x = leaf([1.0, np.nan])
    assert np.isnan(x).tolist() == [False, True]
    assert np.less(x, 2.0).data.tolist() == [True, False]
    assert np.greater([0.0, 2.0], x).data.tolist() == [False, False]
    assert x.__array_ufunc__ is None  # so that CuPy's arrays defer to the tensor


@pytest.mark.parametrize("x", [2.0, [[1.0, 0.0, 3.0], [4.0, 5.0, 0.0]]], ids=["scalar", "matrix"])
@pytest.mark.parametrize("name", ["argmax", "argmin", "any", "all"])
def test_questions_keep_reduced_axes_where_asked(name, x):
    x = leaf(x)
    for axis in (None, *range(x.ndim)):
        y = getattr(x, name)(axis=axis, keepdims=True)
        expected = getattr(np, name)(x.data, axis=axis, keepdims=True)
        assert y.shape == expected.shape and y.data.tolist() == expected.tolist()
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected"):
        getattr(x, name)(dim=0)


@pytest.mark.parametrize("name", ["argmax", "argsort", "any", "count_nonzero", "zeros_like"])
def test_a_numpy_function_without_a_derivative_takes_a_graph(name):
    value = np.array([3.0, 0.0, 5.0])
    found = getattr(np, name)(leaf(value) * 1.0)
    assert not isinstance(found, mg.Tensor)
    np.testing.assert_array_equal(found, getattr(np, name)(value))


def test_data_of_a_0d_tensor_is_an_array():
    x = leaf(1.5)
    assert isinstance(x.data, np.ndarray) and x.data.shape == ()
    assert x.numpy().shape == ()


def test_repr_is_readable_and_complete():
    x = leaf([[1.0, 2.0], [3.0, 4.0]], "x")
    assert repr(x) == "tensor([[1., 2.],\n        [3., 4.]], name='x', requires_grad=True)"
    assert repr(x * 2) == "tensor([[2., 4.],\n        [6., 8.]], op=multiply)"
    assert repr(mg.tensor(1.5)) == "tensor(1.5)"
    assert repr(mg.tensor([1, 2])) == "tensor([1, 2])"
    assert repr(mg.tensor([True])) == "tensor([ True])"
    assert repr(mg.tensor([1.0], dtype="float32")) == "tensor([1.], dtype=float32)"
    assert repr(mg.tensor([1], dtype="int8")) == "tensor([1], dtype=int8)"
    assert repr(mg.tensor(np.zeros((0, 3)))) in ("tensor([], shape=(0, 3))", "tensor([])")
    assert f"{x}" == repr(x) == str(x)
    with np.printoptions(precision=2):
        assert repr(mg.tensor(1 / 3.0).reshape(1)) == "tensor([0.33])"
    assert len(repr(mg.tensor(np.zeros(10**6)))) < 200


def test_shape_facts():
    x = leaf(GRID)
    assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((3, 4), 2, 12, np.float64, "cpu")
    assert leaf(1.0).size == 1 and mg.tensor(np.zeros((0, 3))).size == 0


def test_reshaping_methods():
    x = leaf(np.arange(6.0))
    assert x.reshape(2, 3).shape == x.reshape((2, 3)).shape == x.reshape([2, -1]).shape == (2, 3)
    assert x.reshape(-1).shape == (6,) and x.reshape(np.array([2, 3])).shape == (2, 3)
    y = x.reshape(1, 2, 3)
    assert y.T.shape == (3, 2, 1) and y.transpose().shape == (3, 2, 1)
    assert y.transpose(1, 0, 2).shape == y.transpose((1, 0, 2)).shape == (2, 1, 3)
    assert y.squeeze().shape == (2, 3) and y.swapaxes(0, 2).shape == (3, 2, 1)
    assert y.flatten().shape == (6,) and y.flatten(1).shape == (1, 6) == y.flatten(-2).shape
    assert mg.tensor(np.zeros((0, 2, 3))).flatten(1).shape == (0, 6) and leaf(1.0).flatten().ndim
    assert leaf(1.0).reshape(1, 1).shape == (1, 1) and leaf([[1.0]]).reshape(()).shape == ()


@pytest.mark.parametrize("axes", [0, -1, (0,), [-1], None], ids=repr)
def test_the_transpose_of_a_vector_is_the_vector(axes):
    x, y_bar = leaf(VALUE), np.array([0.5, -2.0, 3.0])
    y = x.transpose(axes)
    y.backward(y_bar)
    assert (y == x).all() and (x.grad == y_bar).all()


@pytest.mark.parametrize("start", [2, -3])
def test_flatten_names_an_axis_that_is_not_there(start):
    with pytest.raises(errors.BoundsError, match="flatten: start"):
        leaf(GRID).flatten(start)


def test_functions_are_methods_too():
    x = mg.tensor([[0.5, 2.0], [1.0, 3.0]], requires_grad=True)
    named = "exp", "log", "log_softmax", "relu", "sigmoid", "softmax", "sqrt", "square", "tanh"
    for name in ("abs", *named):
        op = mg.ops.absolute if name == "abs" else getattr(mg.ops, name)
        assert getattr(x, name)().node.op is op(x).node.op
        assert np.array_equal(getattr(x, name)().numpy(), op(x.numpy()))
    assert np.array_equal(x.softmax(0).numpy(), mg.softmax(x, axis=0).numpy())
    assert x.matmul(x.T).node.op is mg.matmul


def test_reducing_methods_agree_with_numpy():
    x, array = leaf(GRID), GRID
    for name in ("sum", "mean", "var", "std", "max", "min", "prod"):
        for params in ({}, {"axis": 0}, {"axis": (0, 1)}, {"axis": -1, "keepdims": True}):
            got, expected = getattr(x, name)(**params), getattr(array, name)(**params)
            np.testing.assert_array_equal(got.data, expected)
            assert got.shape == np.shape(expected)
    assert x.sum(0).shape == (4,) and x.var(0, 1).shape == (4,)
    np.testing.assert_array_equal(x.cumsum(axis=0).data, array.cumsum(axis=0))
    np.testing.assert_array_equal(x.clip(2, 5).data, array.clip(2, 5))
    assert x.argmax().item() == 11 and x.argmin(axis=0).data.tolist() == [0] * 4
    assert (x > 3).any().item() is True and (x > 3).all().item() is False


def test_astype_is_differentiable_between_floats_only():
    x = leaf([1.0, 2.0])
    y = x.astype(np.float32)
    assert y.dtype == np.float32 and y.requires_grad
    y.backward([1.0, 2.0])
    assert x.grad.dtype == np.float64
    assert not x.astype(int).requires_grad


@pytest.mark.parametrize(
    "name", ["sum", "prod", "max", "min", "logsumexp", "softmax", "log_softmax"]
)
def test_a_scalar_has_an_axis_0_where_numpy_says_so(name):
    x = mg.tensor(3.0, requires_grad=True)
    (getattr(mg, name)(x, axis=0) * 2.0).backward()
    assert x.grad.item() == (0.0 if "softmax" in name else 2.0)


@pytest.mark.parametrize(
    ("name", "params"),
    [("pad", {"pad_width": 1, "constant_values": 2.0}), ("leaky_relu", {"alpha": 0.5})],
)
def test_a_parameter_that_would_lose_its_gradient_is_refused(name, params):
    key = list(params)[-1]
    tracked = {**params, key: mg.tensor(params[key], requires_grad=True)}
    with pytest.raises(mg.errors.GraphError, match=rf"{name}: {key}\n.*without requires_grad"):
        getattr(mg, name)(np.ones(2), **tracked)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("pad", {"pad_width": 1, "constant_values": 2.0}),
        ("leaky_relu", {"alpha": 0.5}),
        ("clip", {"min": 0.0, "max": [1.0, 2.0]}),
        ("max", {"axis": 1}),
        ("var", {"axis": 0, "ddof": 1}),
        ("ops.getitem", {"key": [1, 1]}),
        ("reshape", {"shape": [4, 1]}),
    ],
)
def test_tensors_without_history_are_parameters(name, params):
    op, value = operator.attrgetter(name)(mg), np.array([[-1.0, 0.5], [1.5, 3.0]])
    x_bars = []
    for given in (params, {key: mg.tensor(param) for key, param in params.items()}):
        x = leaf(value)
        y = op(x, **given)
        y.backward(np.arange(1.0, 1 + y.size).reshape(y.shape))
        x_bars.append(x.grad.data)
    np.testing.assert_array_equal(*x_bars)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "logsumexp", "softmax"])
def test_tensors_are_parts_of_parameters(name):
    op, axis = getattr(mg.ops, name), mg.tensor(1)
    x = leaf([[-1.0, 0.5, 2.0], [1.5, 3.0, 0.0]])
    y = op(x, axis=(axis,))
    axis[()] = 0  # too late to change the recorded call
    y.backward(seed := np.arange(1.0, 1 + y.size).reshape(y.shape))
    (x_bar,) = mg.vjp(lambda x: op(x, axis=1), x.data)[1](seed)
    np.testing.assert_array_equal(x.grad.data, x_bar.data)


def test_tracked_tensors_in_a_list_are_not_assigned():
    x, w = mg.tensor([1.0, 2.0], requires_grad=True), mg.tensor([0.0, 0.0])
    with pytest.raises(mg.errors.GraphError, match="without requires_grad"):
        w[:] = [x[0] * 2.0, x[1]]


class Size(NamedTuple):
    h: int
    w: int


def test_parameters_may_be_named_tuples():
    x = mg.tensor(np.arange(6.0), requires_grad=True)
    assert x.reshape(Size(3, 2)).sum(axis=Size(0, 1)).item() == 15.0


def test_a_parameter_that_can_be_read_only_once_is_there_for_the_rules():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    mg.flip(x, axis=iter((0, 1))).backward([[1.0, 2.0], [3.0, 4.0]])
    assert x.grad.tolist() == [[4.0, 3.0], [2.0, 1.0]]


@pytest.mark.parametrize(
    ("shape", "axis", "kind"),
    [
        ((2, 3), 5, errors.BoundsError),
        ((2, 3), "x", errors.DTypeError),
        ((0, 3), None, errors.ShapeError),
    ],
)
def test_what_has_no_largest_element_is_said_in_our_words(shape, axis, kind):
    with pytest.raises(kind, match=r"argmax\(axis="):
        mg.tensor(np.zeros(shape)).argmax(axis=axis)
