"""An operator does what the op does, whatever its operands and wherever it is called."""

import operator
import types
from contextlib import nullcontext
from itertools import product

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend
from minigrad.context import CURRENT, scope, setting
from minigrad.core.node import Node, leaf
from minigrad.errors import LibraryMismatchError
from minigrad.observer import Observer


class Calls(Observer):
    """Keeps the op, inputs and value of the last call."""

    last = None

    def called(self, op, inputs, value, node):
        self.last = op, [np.asarray(x).tobytes() for x in inputs], np.asarray(value).tobytes()


OPERATORS = {
    operator.add: mg.ops.add,
    operator.sub: mg.ops.subtract,
    operator.mul: mg.ops.multiply,
    operator.truediv: mg.ops.divide,
    operator.pow: mg.ops.power,
    operator.matmul: mg.ops.matmul,
}
TENSORS = {
    "scalar": lambda: mg.tensor(2.0, requires_grad=True),
    "float32": lambda: mg.tensor(1.5, dtype="float32", requires_grad=True),
    "vector": lambda: mg.tensor([1.0, 2.0], requires_grad=True),
    "matrix": lambda: mg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
    "misfit": lambda: mg.tensor([1.0, 2.0, 3.0], requires_grad=True),
    "result": lambda: mg.exp(mg.tensor([0.5, 1.0], requires_grad=True)),
    "constant": lambda: mg.tensor([3.0, 4.0]),
    "named constant": lambda: mg.tensor([3.0, 4.0], name="c"),
    "integers": lambda: mg.tensor([3, 4]),
}
OTHERS = {
    "float": lambda: 0.5,
    "int": lambda: 2,
    "bool": lambda: True,
    "numpy scalar": lambda: np.float32(0.5),
    "array": lambda: np.array([0.5, 0.25]),
    "list": lambda: [0.5, 0.25],
    "text": lambda: "0.5",
    "none": lambda: None,
}
CONTEXTS = {
    "recording": nullcontext,
    "not recording": mg.no_grad,
    "in a scope": lambda: scope("here"),
    "observed": lambda: setting(observer=Calls()),
}
PAIRS = [*product(TENSORS, TENSORS), *product(TENSORS, OTHERS), *product(OTHERS, TENSORS)]


def outcome(call, a, b):
    """The result or error of ``call(a, b)``, in a form that can be compared."""
    try:
        y = call(a, b)
    except Exception as error:
        return type(error), str(error)
    seen = getattr(CURRENT.get().observer, "last", None)
    value = (seen, type(y), type(y.array), y.dtype, y.shape, y.array.tobytes())
    return value, recorded(y.node)


def recorded(node: Node | None):
    if node is None:
        return None
    inputs = [(type(x), np.asarray(x).tobytes()) for x in node.inputs]
    frozen = [not x.flags.writeable for x in node.inputs if isinstance(x, np.ndarray)]
    return node.op, node.params, node.parents, inputs, frozen, node.scope, node.requires_grad


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("symbol", OPERATORS, ids=lambda f: f.__name__)
def test_an_operator_is_its_op(symbol, context):
    kinds = TENSORS | OTHERS
    with CONTEXTS[context]():
        for left, right in PAIRS:
            a, b = kinds[left](), kinds[right]()
            found = outcome(symbol, a, b)
            assert found == outcome(OPERATORS[symbol], a, b), f"{left} {symbol.__name__} {right}"


class Foreign(np.ndarray):
    """An array of another library."""


@pytest.mark.parametrize("symbol", OPERATORS, ids=lambda f: f.__name__)
def test_operands_of_two_libraries_do_not_mix(symbol, monkeypatch):
    xp = types.ModuleType("foreign")
    vars(xp).update(vars(np), asarray=np.asanyarray)  # asanyarray keeps the class
    library = backend.Library(xp, (Foreign,), lambda a: "cpu", np.asarray, lambda a, device: a)
    monkeypatch.setitem(backend._LIBRARIES, Foreign, library)
    monkeypatch.setitem(backend.MODULES, Foreign, xp)
    array = np.ones((2, 2)).view(Foreign)
    foreign, own = mg.Tensor(array, leaf(array, True)), TENSORS["matrix"]()
    assert type(symbol(foreign, foreign).array) is Foreign
    for a, b in ((own, foreign), (foreign, own)):
        with pytest.raises(LibraryMismatchError, match=OPERATORS[symbol].name):
            symbol(a, b)
