"""Calling ops: operands of every kind, parameters by position, and calls that are refused."""

import copy
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest

import minigrad as mg
from minigrad import declaration, errors
from minigrad.composite import composite


def leaf(a, name=None, dtype=None):
    return mg.tensor(a, requires_grad=True, name=name, dtype=dtype)


def raises(kind, builtin, *words):
    """``pytest.raises(kind)``, and the error is a ``builtin`` whose text has all ``words``."""

    class Check:
        def __enter__(self):
            self.context = pytest.raises(kind)
            self.caught = self.context.__enter__()
            return self.caught

        def __exit__(self, *info):
            done = self.context.__exit__(*info)
            assert isinstance(self.caught.value, builtin)
            notes = getattr(self.caught.value, "__notes__", ())
            text = "\n".join([str(self.caught.value), *notes])
            missing = [word for word in words if word not in text]
            assert not missing, f"{missing} missing in:\n{text}"
            assert len(str(self.caught.value).splitlines()) <= 4
            return done

    return Check()


# --- accepted calls ------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [2, 2.0, True, np.float64(2), np.int64(2), np.array(2.0)])
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "maximum"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_numbers_are_operands_on_either_side(name, other, shape):
    op, value = getattr(mg.ops, name), np.linspace(0.5, 1.5, int(np.prod(shape))).reshape(shape)
    for left in (True, False):
        x = leaf(value)
        y = op(x, other) if left else op(other, x)
        assert y.requires_grad and y.shape == shape
        y.backward(np.full(shape, 1.5))
        wide = np.asarray(float(other))
        x_bar = mg.vjp(op, *((value, wide) if left else (wide, value)))[1](np.full(shape, 1.5))
        np.testing.assert_allclose(x.grad.data, x_bar[0 if left else 1].data, rtol=1e-15)


@pytest.mark.parametrize("sequence", [[1.0, 2.0], (1.0, 2.0), [1, 2], [[1.0], [2.0]]])
@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "logaddexp"]
)
def test_sequences_are_operands_on_either_side(name, sequence):
    op, array = getattr(mg.ops, name), np.asarray(sequence, float)
    for left in (True, False):
        x, same = leaf([0.5, 1.5]), leaf([0.5, 1.5])
        y = op(x, sequence) if left else op(sequence, x)
        expected = op(same, array) if left else op(array, same)
        np.testing.assert_array_equal(y.data, expected.data)
        seed = np.linspace(1, 2, y.size).reshape(y.shape)
        y.backward(seed)
        expected.backward(seed)
        np.testing.assert_array_equal(x.grad.data, same.grad.data)


@pytest.mark.parametrize("name", ["power", "divide", "logaddexp"])
def test_sequences_go_through_second_order(name):
    op = getattr(mg.ops, name)
    f = lambda t: mg.sum(op([2.0, 3.0], t) * [1.0, -2.0])  # noqa: E731
    g = lambda t: mg.sum(op(np.array([2.0, 3.0]), t) * [1.0, -2.0])  # noqa: E731
    v = ([1.0, 2.0],)
    np.testing.assert_array_equal(
        mg.hvp(f, ([0.5, 1.5],), v)[0].data, mg.hvp(g, ([0.5, 1.5],), v)[0].data
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "logaddexp"]
)
def test_the_dtype_of_one_operand_does_not_limit_the_derivative_by_the_other(name, dtype):
    op, seed = getattr(mg.ops, name), np.array([0.7, -1.3, 2.1])
    wide, narrow = np.array([1.1, 0.3, 2.7]), np.array([3.0, 0.1, 1e-5])
    narrow = np.array([3, 1, 2], dtype) if dtype == "uint8" else narrow.astype(dtype)
    for f, g in (
        (lambda x: op(x, narrow), lambda x: op(x, narrow.astype(float))),
        (lambda x: op(narrow, x), lambda x: op(narrow.astype(float), x)),
    ):
        (x_bar,), (expected,) = mg.vjp(f, wide)[1](seed), mg.vjp(g, wide)[1](seed)
        np.testing.assert_allclose(x_bar.data, expected.data, rtol=1e-15)
        y_dot = mg.jvp(f, wide, seed)[1]
        np.testing.assert_allclose(y_dot.data, mg.jvp(g, wide, seed)[1].data, rtol=1e-15)


def test_only_numbers_give_the_number():
    assert float(mg.add(1.0, 2.0)) == 3.0
    assert float(mg.exp(0)) == 1.0
    assert float(mg.sum(2.0)) == 2.0


def test_a_number_exponent_takes_negative_bases():
    x = leaf([-2.0, 3.0])
    mg.sum(x**3).backward()
    np.testing.assert_array_equal(x.grad.data, [12.0, 27.0])
    x = leaf([-2.0, 0.0])
    mg.sum(x**2 + x**1 + x**0).backward()
    np.testing.assert_array_equal(x.grad.data, [-3.0, 1.0])


def test_a_0d_tensor_exponent_gets_its_gradient():
    x, p = leaf(2.0), leaf(3.0)
    (x**p).backward()
    assert x.grad.item() == 12.0
    assert p.grad.item() == pytest.approx(8 * np.log(2), rel=4e-16)
    p = leaf(3.0)
    (2.0**p).backward()
    assert p.grad.item() == pytest.approx(8 * np.log(2), rel=4e-16)


def test_powers_at_zero_have_finite_derivatives():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, p = leaf([0.0, 0.0, 2.0]), leaf([1.0, 2.0, 0.0])
        mg.sum(x**p).backward()
        np.testing.assert_array_equal(x.grad.data, [1.0, 0.0, 0.0])
        np.testing.assert_array_equal(p.grad.data[:2], [0.0, 0.0])


@pytest.mark.parametrize("p", [np.array([0, 1, 2], np.uint16), np.uint64(0)])
def test_one_less_than_an_unsigned_exponent_does_not_wrap_around(p):
    (x_bar,) = mg.vjp(lambda x: mg.power(x, p), [3.0, 3.0, 3.0])[1]([1.0, 1.0, 1.0])
    np.testing.assert_array_equal(x_bar.data, p * 3.0 ** (p - 1.0))


def test_mixed_second_derivative_of_a_power_at_exponent_zero():
    # d/dp d/dx x^p = x^(p-1) (1 + p ln x), which is 1/x at p = 0
    for p in (0.0, np.array([0.0])):
        mixed = mg.jacobian(
            lambda p: mg.grad(lambda x, p: mg.sum(x**p))(np.full(np.shape(p), 2.0), p)
        )
        np.testing.assert_array_equal(mixed(p).data.reshape(-1), [0.5])


def test_parameters_may_be_given_by_position_as_in_numpy():
    x = leaf(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(mg.sum(x, 0).data, [3.0, 5.0, 7.0])
    assert mg.reshape(x, (3, 2)).shape == (3, 2)
    np.testing.assert_array_equal(mg.clip(x, 1.0, 2.0).data, np.clip(x.data, 1.0, 2.0))
    assert mg.concatenate([x, x], 1).shape == (2, 6)
    assert mg.stack((x, x), -1).shape == (2, 3, 2)
    np.testing.assert_array_equal(mg.einsum("ij->i", x).data, [3.0, 12.0])
    assert mg.var(x, 1, 1).data.tolist() == [1.0, 1.0]


def test_a_parameter_given_twice_is_refused():
    with pytest.raises(TypeError):
        mg.sum(np.ones((2, 3)), 0, axis=1)


def test_too_few_or_too_many_arguments_are_refused_by_name():
    for call in (
        lambda: mg.add(1.0),
        lambda: mg.exp(1.0, 2.0),
        lambda: mg.sum(1.0, None, False, 3),
        lambda: mg.batch_norm(np.ones((2, 2))),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError, match="axes"):
        mg.sum(np.ones(2), axes=0)


def test_where_reads_any_condition_as_truth():
    for condition in ([True, False], [2, 0], [0.5, 0.0], mg.tensor([2, 0]), mg.tensor([0.5, 0.0])):
        a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        y = mg.where(condition, a, b)
        np.testing.assert_array_equal(y.data, [1.0, 4.0])
        y.backward([5.0, 7.0])
        np.testing.assert_array_equal(a.grad.data, [5.0, 0.0])
        np.testing.assert_array_equal(b.grad.data, [0.0, 7.0])
        x_dot = mg.jvp(lambda a, c=condition: mg.where(c, a, 0.0), ([1.0, 2.0],), ([5.0, 7.0],))[1]
        np.testing.assert_array_equal(x_dot.data, [5.0, 0.0])


@pytest.mark.parametrize("number", [0, 0.0, False, 2, -1, 0.5, True], ids=repr)
def test_where_chooses_between_arrays_and_numbers(number):
    x, condition = np.array([1.0, 3.0]), np.array([True, False])
    for operands in ((x, number), (number, x), (number, number)):
        y, expected = mg.where(condition, *operands), np.where(condition, *operands)
        np.testing.assert_array_equal(y, expected)


def test_untouched_infinite_operands_have_tangent_zero():
    for f in (lambda a: mg.concatenate([a, [np.inf]]), lambda a: mg.stack([a, [np.inf]])):
        _, y_dot = mg.jvp(f, ([1.0],), ([2.0],))
        np.testing.assert_array_equal(y_dot.data.reshape(-1), [2.0, 0.0])


def test_concatenate_of_everything_flattened():
    a = leaf(np.arange(4.0).reshape(2, 2))
    try:
        y = mg.concatenate([a, a], axis=None)
    except errors.MinigradError:
        return  # refusing it is allowed, too
    y.backward(np.arange(8.0))
    np.testing.assert_array_equal(a.grad.data, [[4.0, 6.0], [8.0, 10.0]])


def test_ops_are_pickled_and_copied_by_reference():
    for op in (mg.ops.add, mg.ops.batch_norm):
        assert pickle.loads(pickle.dumps(op)) is op
        assert copy.deepcopy(op) is op
    assert "add" in repr(mg.ops.add)


@pytest.mark.usefixtures("declared")
@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize(
    "signature", ["(n), (n)->()", "(n),(n) -> ()", "(n)->()", "(n),(n),(n)->()", "n,n->", "(n),(n)"]
)
def test_a_signature_that_is_none_or_is_of_other_inputs_is_refused(signature):
    with raises(errors.UsageError, ValueError, "dot: signature", repr(signature), "2 inputs"):

        @mg.op(formula="y", pullback="none", signature=signature)
        def dot(xp, x1, x2):
            return (x1 * x2).sum(-1)


@pytest.mark.parametrize(
    "fields",
    [
        {"domain": declaration.Domain(-5, 5)},
        {"domain": ()},
        {"domain": ((-5, 5),)},
        {"cases": declaration.Case(((2, 3),))},
        {"cases": (((2, 3),),)},
    ],
    ids=str,
)
@pytest.mark.usefixtures("declared")
def test_a_domain_or_case_outside_a_tuple_is_refused(fields):
    (field,) = fields
    with raises(errors.UsageError, ValueError, f"wide: {field}", f"({field[:4].title()}", "tuple"):

        @composite(formula="y = x", **fields)
        def wide(x):
            return x

    assert "wide" not in mg.REGISTRY


@pytest.mark.usefixtures("declared")
def test_an_input_without_core_axes_is_summed_along_all_loop_axes(rng):
    @mg.op(formula="y = s x", pullback="none", signature="(),(n)->(n)")
    def scaled(xp, s, x):
        return x * s[..., None]

    scaled.defvjp(lambda y_bar, y, s, x: (mg.sum(y_bar * x, axis=-1), y_bar * s[..., None]))
    x, s, y_bar = rng.normal(size=(2, 3)), rng.normal(size=1), rng.normal(size=(2, 3))
    (s_bar,) = mg.vjp(lambda s: scaled(s, x), s)[1](y_bar)
    bound = 6 * np.finfo(float).eps * np.abs(y_bar * x).sum()  # eps * N * scale
    np.testing.assert_allclose(s_bar, [np.vdot(y_bar, x)], rtol=0, atol=bound)


@pytest.mark.parametrize(("declare", "rule", "words"), [
    ("defpartials", lambda x: (x,), ("arguments (y, x, *, a=2.0)", "(x): too many")),
    ("defpartials", lambda y, x: (y,), ("(y, x): got an unexpected keyword argument 'a'",)),
    ("defpartials", lambda y, x, *, a: (a,), ("(y, x, *, a): missing a required argument: 'a'",)),
    ("defvjp", lambda y_bar, x, *, a=2.0: (a * y_bar,), ("(y_bar, y, x, *, a=2.0)",)),
    ("defjvp", lambda x_dots, y: x_dots[0], ("(x_dots, y, x, *, a=2.0)",)),
])  # fmt: skip
@pytest.mark.usefixtures("declared")
def test_a_rule_that_cannot_be_called_as_its_forward_is_refused(declare, rule, words):
    @mg.elementwise(formula="y = a x", pullback="a y_bar")
    def scaled(xp, x, *, a=2.0):
        return a * x

    with raises(errors.UsageError, ValueError, "scaled: its rule", *words):
        getattr(scaled, declare)(rule)


@pytest.mark.parametrize(("forward", "rule"), [
    (lambda xp, x, b=None: x, lambda y_bar, y, x: (y_bar,)),
    (lambda xp, x, b=None: x, lambda y_bar, y, x, b: (y_bar, None)),
    (lambda xp, *xs: xs[0], lambda y_bar, y, x: (y_bar,)),
])  # fmt: skip
@pytest.mark.usefixtures("declared")
def test_a_rule_takes_as_many_operands_as_its_forward(forward, rule):
    forward.__name__ = "first"
    first = mg.op(formula="y = x", pullback="y_bar")(forward)
    with raises(errors.UsageError, ValueError, "first: its rule", "arguments (y_bar, y, "):
        first.defvjp(rule)


@pytest.mark.parametrize("name", mg.REGISTRY)
def test_every_rule_of_the_package_can_be_called_as_its_forward_is(name):
    op = mg.REGISTRY[name]
    kinds = {"vjp": ("y_bar", "y"), "jvp": ("x_dots", "y"), "partials": ("y",)}
    rules = {kind: rule for kind in kinds if (rule := getattr(op, kind, None)) is not None}
    assert not any(op.refusal(rule, *kinds[kind]) for kind, rule in rules.items())


def test_a_name_is_declared_once():
    with pytest.raises(errors.UsageError, match="add"):

        @mg.elementwise(formula="y", pullback="x")
        def add(xp, x1, x2):
            return x1


def test_composites_group_their_nodes_in_a_scope():
    x = leaf(np.array([[1.0, 2.0], [3.0, 5.0]]))
    y = mg.batch_norm(x, np.ones(2), np.zeros(2))
    assert [scope.name for scope in y.node.scope.path()] == ["batch_norm", "affine"]
    with mg.scope("outer"):
        z = mg.softmax(x)
    assert [scope.name for scope in z.node.scope.path()] == ["outer", "softmax"]


# --- refused calls -------------------------------------------------------------------------------

A, B = np.ones((4, 3)), np.ones((2, 5))


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "power", "matmul", "mse_loss"])
def test_operands_that_do_not_fit_are_named_with_their_shapes(name):
    a, b = leaf(A, "weights"), mg.tensor(B, name="inputs")
    with raises(errors.ShapeError, ValueError, name, "weights", "(4, 3)", "inputs", "(2, 5)"):
        getattr(mg.ops, name)(a, b)
    with raises(errors.ShapeError, ValueError, name, "weights", "(4, 3)", "ndarray", "(2, 5)"):
        getattr(mg.ops, name)(a, B)
    with raises(errors.ShapeError, ValueError, name, "(4, 3)", "(2, 5)"):
        getattr(mg.ops, name)(A, B)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: mg.reshape(a, (5, 5)),
        lambda a: mg.broadcast_to(a, (2, 3)),
        lambda a: mg.ops.sum_to(a, shape=(2, 3)),
        lambda a: mg.squeeze(a, axis=0),
        lambda a: mg.transpose(a, (0, 0)),
        lambda a: mg.concatenate([a, np.ones((4, 3, 1))]),
        lambda a: mg.stack([a, np.ones(3)]),
        lambda a: mg.einsum("ij,jk", a, np.ones((7, 2))),
        lambda a: mg.einsum("ijk->i", a),
        lambda a: mg.tensordot(a, np.ones((7, 2)), axes=1),
        lambda a: mg.split(a, 3),
        lambda a: mg.pad(a, ((1, 1), (1, 1), (1, 1))),
        lambda a: mg.layer_norm(a, np.ones(4), np.ones(4)),
        lambda a: mg.cross_entropy(a, [0, 1]),
        lambda a: mg.cross_entropy(a[:, :0], [0] * 4),
        lambda a: mg.max(a.reshape(0, 3) if a.size == 0 else a[:0], axis=0),
        lambda a: mg.where(np.ones(5) > 0, a, 0.0),
        lambda a: mg.clip(a, np.zeros(5), None),
    ],
)
def test_parameters_that_do_not_fit_are_refused(call):
    with raises(errors.MinigradError, ValueError):
        call(leaf(A, "weights"))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("sum", lambda a: mg.sum(a, axis=2)),
        ("sum", lambda a: mg.sum(a, axis=(0, 5))),
        ("mean", lambda a: mg.mean(a, axis=-3)),
        ("var", lambda a: a.var(axis=9)),
        ("max", lambda a: mg.max(a, axis=2)),
        ("min", lambda a: mg.min(a, axis=2)),
        ("prod", lambda a: mg.prod(a, axis=2)),
        ("logsumexp", lambda a: mg.logsumexp(a, axis=2)),
        ("cumsum", lambda a: mg.cumsum(a, axis=2)),
        ("flip", lambda a: mg.flip(a, axis=2)),
        ("concatenate", lambda a: mg.concatenate([a, a], axis=2)),
        ("stack", lambda a: mg.stack([a, a], axis=5)),
        ("expand_dims", lambda a: mg.expand_dims(a, 7)),
        ("swapaxes", lambda a: mg.swapaxes(a, 0, 2)),
        ("squeeze", lambda a: mg.squeeze(a, axis=2)),
        ("transpose", lambda a: mg.transpose(a, (0, 2))),
        ("softmax", lambda a: mg.softmax(a, axis=2)),
        ("log_softmax", lambda a: mg.log_softmax(a, axis=2)),
        ("split", lambda a: mg.split(a, 2, axis=2)),
        ("tensordot", lambda a: mg.tensordot(a, a, axes=3)),
        ("tensordot", lambda a: mg.tensordot(a, a, axes=([5], [0]))),
        ("getitem", lambda a: a[7]),
        ("getitem", lambda a: a[0, -4]),
        ("getitem", lambda a: a[[0, 9]]),
        ("getitem", lambda a: a[0, 0, 0]),
        ("getitem", lambda a: a["x"]),
        ("getitem", lambda a: a[np.ones((4, 2)) > 0]),
        ("cross_entropy", lambda a: mg.cross_entropy(a, [0, 1, 2, 3])),
        ("cross_entropy", lambda a: mg.cross_entropy(a, [0, 1, -1, 2])),
    ],
)
def test_an_axis_or_index_outside_its_array_is_named(name, call):
    with raises(errors.BoundsError, IndexError, name):
        call(leaf(A, "weights"))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "flip", "split", "unstack"])
def test_an_axis_error_names_operand_shape_and_axis(name):
    words = {"indices_or_sections": 2} if name == "split" else {}
    expected = (name, "weights", "(4, 3)", "axis 2 is out of bounds")
    with raises(errors.BoundsError, IndexError, *expected):
        getattr(mg.ops, name)(leaf(A, "weights"), axis=2, **words)


@pytest.mark.parametrize(
    "operand",
    [
        1j,
        np.complex64(1j),
        np.array(1j),
        np.array([1j, 2j]),
        "text",
        np.array(["a", "b"]),
        None,
        ...,
        Fraction(1, 2),
        np.array([1, 2], object),
        np.array(["2020-01-01", "2020-01-02"], "M8[D]"),
        {"a": 1},
        np.ma.array([1.0, 2.0], mask=[True, False]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("name", ["add", "multiply", "maximum"])
def test_operands_that_are_no_real_arrays_are_refused_on_either_side(operand, left, name):
    op, x = getattr(mg.ops, name), leaf([1.0, 2.0], "weights")
    with raises(errors.DTypeError, TypeError, name, "weights", "(2,)"):
        _ = op(operand, x) if left else op(x, operand)


@pytest.mark.parametrize("array", [np.array([1j, 2j]), np.array([1, 2], object)], ids=repr)
@pytest.mark.parametrize("left", [True, False])
def test_a_constant_that_is_not_real_does_not_enter_a_graph(array, left):
    x, z = leaf([1.0, 2.0], "weights"), mg.tensor([1.0, 1.0]) * array  # as NumPy computes
    with raises(errors.DTypeError, TypeError, "multiply", "weights", str(array.dtype)):
        _ = z * x if left else x * z
    with raises(errors.DTypeError, TypeError, str(array.dtype)):
        z.name = "z"  # a name needs a node, which would hold the array


@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_a_parameter_that_is_not_real_does_not_enter_a_graph(name):
    for alpha in (1j, np.complex128(1j)):
        with raises(errors.DTypeError, TypeError, f"{name}: alpha", "a real number", "1j"):
            getattr(mg.ops, name)(leaf([1.0, -2.0]), alpha=alpha)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("left", [True, False])
def test_a_matrix_is_refused_or_taken_elementwise(left):
    x, matrix = leaf(np.eye(2) * 2), np.matrix([[1.0, 2.0], [3.0, 4.0]])
    try:
        y = mg.multiply(matrix, x) if left else mg.multiply(x, matrix)
    except errors.DTypeError:
        return
    np.testing.assert_array_equal(y.data, [[2.0, 0.0], [0.0, 8.0]])


@pytest.mark.parametrize("left", [True, False])
def test_sequences_that_hold_tensors_are_refused(left):
    x, pair = leaf([1.0, 2.0]), [leaf(2.0), leaf(3.0)]
    for items in (pair, [pair], tuple(pair)):
        with raises(errors.DTypeError, TypeError, "stack"):
            _ = mg.multiply(items, x) if left else mg.multiply(x, items)
    for call in (mg.sum, mg.mean, mg.softmax, mg.exp):
        with raises(errors.DTypeError, TypeError, "stack"):
            call(pair)


def test_a_cast_to_a_dtype_without_derivative_is_refused_or_detached():
    x = leaf([0.5, 1.7])
    assert not x.astype(int).requires_grad
    with raises(errors.DTypeError, TypeError, "astype"):
        mg.ops.astype(x, "int64")


def test_casts_are_recorded_for_second_order():
    x = np.array([0.5, 1.7], np.float32)
    f = lambda t: mg.sum(mg.sin(t.astype(np.dtype("f8"))) * [1.5, -0.5])  # noqa: E731
    (product,) = mg.hvp(f, (x,), (np.array([1.0, 2.0], np.float32),))
    assert product.dtype == np.float32
    expected = -np.sin(x.astype(float)) * [1.5, -0.5] * [1.0, 2.0]
    assert np.abs(product.data - expected).max() <= 4 * np.finfo(np.float32).eps


def test_mixed_dtypes_give_each_operand_its_own_dtype_back():
    x, w = leaf([1.0, 2.0], dtype="float32"), leaf([3.0, 4.0])
    y = x * w
    assert y.dtype == np.float64
    y.backward([1.0, 2.0])
    assert x.grad.dtype == np.float32 and w.grad.dtype == np.float64
    inner = mg.grad(lambda t: mg.sum(t * t * w.data))
    outer = mg.grad(lambda t: mg.sum(inner(t) * [1.0, 2.0]))(np.float32([1, 2]))
    assert outer.dtype == np.float32
    np.testing.assert_array_equal(outer.data, [6.0, 16.0])


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("sum", "float32"), lambda: np.sum(leaf(A), 0, np.float32)),
        (("multiply", "300", "int8"), lambda: mg.tensor(np.int8([1, 2])) * 300),
        (("multiply", "float16"), lambda: leaf(np.float16([1, 2])) * 10**400),
        (("inv", "float16"), lambda: mg.ops.inv(leaf(np.float16([[2, 0], [0, 2]])))),
    ],
)
def test_an_error_of_types_does_not_speak_of_shapes(words, call):
    with raises(errors.DTypeError, TypeError, *words) as caught:
        call()
    assert "shapes" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("inv", "Singular"), lambda: mg.ops.inv(leaf(np.zeros((2, 2))))),
        (("cholesky", "not positive"), lambda: mg.ops.cholesky(leaf(-np.eye(2)))),
        (("power", "negative integer powers"), lambda: mg.tensor([2]) ** -1),
    ],
)
def test_an_error_of_values_does_not_expect_other_shapes(words, call):
    with raises(errors.MinigradError, ValueError, *words) as caught:
        call()
    assert "expected: shapes" not in str(caught.value)


def test_floating_point_errors_are_not_called_shape_errors():
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError) as caught:
        mg.log(leaf([1.0, 0.0]))
    assert not isinstance(caught.value, errors.ShapeError)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            mg.log(leaf([1.0, 0.0]))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "x", [leaf([1.0]), mg.tensor([1.0]), np.ones(1)], ids=["leaf", "", "array"]
)
def test_a_forward_with_several_results_is_refused(monkeypatch, x, n):
    monkeypatch.setattr(declaration, "REGISTRY", {})

    @mg.elementwise(formula="y = x", pullback=r"\bar x = \bar y")
    def several(xp, x):
        return (x,) * n

    with raises(errors.RuleError, RuntimeError, "several: the forward", f"tuple of {n}", "one op"):
        several(x)


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize(
    "x", [leaf([1.0]), mg.tensor([1.0]), np.ones(1)], ids=["leaf", "", "array"]
)
@pytest.mark.parametrize("result", [None, 2.5, [1.0], "text", mg.tensor([1.0])], ids=repr)
def test_a_forward_whose_result_is_no_array_is_refused(x, result):
    @mg.elementwise(formula="y = x", pullback=r"\bar x = \bar y")
    def odd(xp, x):
        return result

    with raises(
        errors.RuleError, RuntimeError, "odd: the forward", "array", errors.describe(result)
    ):
        odd(x)


@pytest.mark.usefixtures("declared")
def test_the_last_operand_of_an_op_may_be_none():
    @mg.op(formula="y = x + b", pullback="none", linear="jointly")
    def shifted(xp, x, b=None):
        return x + 0.5 if b is None else x + b

    x = leaf([1.0])
    assert shifted(x, None).item() == shifted(x).item() == shifted(x, b=None).item() == 1.5
    assert len(shifted(x, None).node.parents) == 1


@pytest.mark.usefixtures("declared")
def test_an_op_and_a_composite_may_have_no_operands():
    @mg.op(formula="y = 1", pullback="none")
    def one(xp, *, n):
        return xp.ones(n)

    @composite(formula="y = 1")
    def ones(*, n):
        return one(n=n)

    assert one(n=3).shape == ones(n=3).shape == (3,)


@pytest.mark.usefixtures("declared")
def test_a_forward_may_return_a_number_for_numbers_and_a_subclass_of_an_array():
    class Array(np.ndarray):
        pass

    @mg.elementwise(formula="y = x", pullback=r"\bar x = \bar y")
    def same(xp, x):
        return x if isinstance(x, float) else x.view(Array)

    assert same(2.5) == 2.5
    assert same(leaf([2.5])).item() == 2.5


def test_errors_inside_a_composite_name_it():
    with raises(errors.BoundsError, IndexError, "softmax", "logits", "(4, 3)", "axis"):
        mg.softmax(leaf(A, "logits"), axis=5)
    with raises(errors.ShapeError, ValueError, "batch_norm", "gamma", "(2,)", "(3,)"):
        mg.batch_norm(leaf(A, "images"), np.ones(2), np.ones(3))
    with raises(errors.DTypeError, TypeError, "batch_norm", "images", "real numbers", "None"):
        mg.batch_norm(leaf(A, "images"), None, np.ones(3))
