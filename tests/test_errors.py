"""The exception tree and the layout of its texts."""

import inspect

import numpy as np
import pytest

import minigrad as mg
from minigrad import errors

CLASSES = [
    cls
    for cls in vars(errors).values()
    if inspect.isclass(cls) and issubclass(cls, Exception)
]  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_one_root_a_docstring_and_a_place_in_the_tree(cls):
    assert issubclass(cls, errors.MinigradError)
    assert inspect.getdoc(cls)
    assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize("cls", [c for c in CLASSES if c is not errors.MinigradError])
def test_every_error_is_also_the_builtin_a_caller_expects(cls):
    builtin = [b for b in cls.__mro__ if b.__module__ == "builtins" and b is not Exception]
    assert builtin[0] is not BaseException
    shown = [line for line in errors.__doc__.splitlines() if cls.__name__ in line]
    assert "(" not in shown[0] or shown[0].partition("(")[2].partition(")")[0] in {
        b.__name__ for b in builtin
    }


def test_facts_are_laid_out_in_at_most_four_lines():
    text = errors.facts("op: what happened", expected=(2, 3), got="(3, 2)", remedy="turn it")
    assert text.splitlines() == [
        "op: what happened",
        "  expected: (2, 3)",
        "  got:      (3, 2)",
        "  remedy:   turn it",
    ]
    assert len(errors.facts("a", expected=1, got=2).splitlines()) == 3


@pytest.mark.parametrize(
    ("operand", "expected"),
    [
        (np.ones((4, 3)), "ndarray (4, 3) float64"),
        (2.5, "2.5"),
        (None, "None"),
        (list(range(1000)), "list"),
    ],
    ids=["array", "number", "None", "long"],
)
def test_operands_are_described_by_name_shape_and_dtype(operand, expected):
    assert errors.describe(operand) == expected


def test_tensors_are_described_by_their_name():
    x = mg.tensor(np.ones((4, 3), np.float32), name="weights")
    assert errors.describe(x) == "weights (4, 3) float32"
    assert errors.describe(mg.tensor(1)) == "Tensor () int64"


@pytest.mark.parametrize("join", [mg.concatenate, mg.stack], ids=repr)
def test_a_call_without_operands_says_so(join):
    for args in ((), ([],)):
        with pytest.raises(errors.ShapeError, match=r"(?s)need at least one array.*no operands"):
            join(*args)
    with pytest.raises(errors.DTypeError, match=r"missing x$"):
        mg.exp()
    with pytest.raises(errors.DTypeError, match=r"missing gamma$"):
        mg.batch_norm(mg.tensor([[1.0, 2.0]]), beta=[1.0, 2.0])


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min", "prod", "logsumexp"])
def test_keepdims_is_no_list_of_weights(name):
    for keepdims in ([0.5, 2.0], None):
        with pytest.raises(errors.DTypeError, match=rf"^{name}\(axis=0, keepdims="):
            getattr(mg.ops, name)(mg.tensor([[1.0], [2.0]]), 0, keepdims=keepdims)


@pytest.mark.parametrize(
    "call",
    [
        lambda n: n & 1000,
        lambda n: n.__setitem__(0, 1000),
        lambda n: n.argmax(axis=2**64),
        lambda n: mg.clip(n, 0, 1000),
        lambda n: mg.softmax(n, axis=2**64),
    ],
)
def test_a_number_that_does_not_fit_is_an_error_of_ours(call):
    with pytest.raises(errors.DTypeError, match=r"\(1,\) int8"):
        call(mg.tensor([1], dtype="int8"))


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (
            lambda x: x.sum(dim=1, keepdim=True),
            "use axis= instead of dim=, use keepdims= instead of keepdim=",
        ),
        (lambda x: mg.softmax(x, dim=1), "use axis= instead of dim="),
        (lambda x: mg.logsumexp(x * 2.0, dim=1), "use axis= instead of dim="),
        (lambda x: x.max(axis=1, keepdim=True), "use keepdims= instead of keepdim="),
        (lambda x: x.argmax(dim=1), "use axis= instead of dim="),
        (
            lambda x: x.any(dim=1, keepdim=True),
            "use axis= instead of dim=, use keepdims= instead of keepdim=",
        ),
    ],
    ids=["sum", "softmax", "logsumexp", "max", "argmax", "any"],
)
def test_a_word_of_torch_is_answered_by_that_of_numpy(call, remedy):
    with pytest.raises(errors.DTypeError) as caught:
        call(mg.tensor(np.ones((2, 3)), requires_grad=True))
    text = str(caught.value)
    assert text.endswith(f"\n  remedy:   {remedy}") and text.count("\n") == 3


def test_no_remedy_names_a_parameter_that_a_function_lacks():
    x = mg.tensor([1.0], requires_grad=True)
    for call in (lambda: mg.exp(x, dim=0), lambda: mg.nn.Flatten(dim=1), lambda: x.argmax(p=1)):
        with pytest.raises(errors.DTypeError, match=r"unexpected") as caught:
            call()
        assert "instead of" not in str(caught.value)


def test_an_error_of_an_op_has_at_most_four_lines(declared):
    @mg.op(formula="y", pullback="x")
    def refusing(xp, x, *, remedy):
        raise errors.ShapeError(errors.facts("refusing: x", expected=1, got=2, remedy=remedy))

    for remedy, last in ("", "operands: ndarray (3,) float64"), ("turn it", "remedy:   turn it"):
        with pytest.raises(errors.ShapeError) as caught:
            refusing(np.ones(3), remedy=remedy)
        lines = str(caught.value).splitlines()
        assert len(lines) == 4 and lines[0] == "refusing: x" and lines[-1] == f"  {last}"


def test_numbers_among_the_operands_of_a_fused_op_are_shown():
    with pytest.raises(errors.DTypeError, match=r"(?s)batch_norm: .*ndarray \(3, 4\).*1\.0, 0\.0"):
        mg.fused.batch_norm(np.ones((3, 4)), 1.0, 0.0)


@pytest.mark.parametrize("device", [0, np.float32, None], ids=repr)
def test_what_is_no_name_of_a_device_is_refused(device):
    with pytest.raises(errors.DeviceError, match="'cuda'"):
        mg.tensor([1.0]).to(device)


def test_the_text_of_a_wrong_cotangent_is_the_documented_one(declared):
    @mg.op(formula="Y", pullback="A", signature="(m,k),(k,n)->(m,n)")
    def product(xp, a, b):
        return a @ b

    product.defvjp(lambda y_bar, y, a, b: (None, np.ones((2, 3))))
    b = mg.tensor(np.ones((3, 2)), requires_grad=True)
    with pytest.raises(errors.RuleError) as caught:
        product(np.ones((2, 3)), b).backward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert str(caught.value).splitlines() == [
        "product: the vjp rule returned a cotangent of the wrong shape for input 1",
        "  expected: (3, 2), the shape of the input (signature (m,k),(k,n)->(m,n))",
        "  got:      (2, 3)",
    ]
