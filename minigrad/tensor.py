"""Tensor: a box with operators, methods and ``.backward()``."""

import functools
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from minigrad import backend, ops
from minigrad.composite import Composite
from minigrad.context import CURRENT
from minigrad.core.node import Box, leaf
from minigrad.core.op import Op
from minigrad.core.sweep import backward_sweep
from minigrad.errors import (
    BoundsError,
    DTypeError,
    GraphError,
    LibraryMismatchError,
    ShapeError,
    describe,
    facts,
    hinting,
    kind_of,
    of_one_library,
    pytorch_remedy,
)
from minigrad.fused.declare import Fused
from minigrad.operators import binary, in_place
from minigrad.ops.shape import slices
from minigrad.protocol import NumPyBox, tracked
from minigrad.seed import as_seed
from minigrad.spelling import NAMES, Absent

_ADDING = threading.Lock()  # two threads that add to the grad of one leaf would lose a term
if hasattr(os, "register_at_fork"):  # a child cannot wait for a thread that it does not have
    _free = _ADDING.release
    os.register_at_fork(before=_ADDING.acquire, after_in_parent=_free, after_in_child=_free)


def _query(name: str, doc: str) -> Callable[..., "Tensor"]:
    """The method ``name`` of arrays, which has no derivative, as a method of tensors."""

    def query(self: Any, axis: Any = None, *, keepdims: bool = False, **unexpected: Any) -> Any:
        if unexpected:
            headline = f"{name}() got an unexpected keyword argument"
            got = ", ".join(f"{key}=" for key in unexpected)
            remedy = pytorch_remedy(unexpected, ("axis", "keepdims"))
            raise DTypeError(facts(headline, expected="axis=, keepdims=", got=got, remedy=remedy))
        try:
            return type(self)(getattr(self.array, name)(axis=axis, keepdims=keepdims))
        except (IndexError, OverflowError, TypeError, ValueError) as error:
            text = f"{name}(axis={axis}) of {describe(self)}: {error}"
            raise kind_of(error)(text) from error

    query.__name__ = query.__qualname__ = name
    query.__doc__ = f"{doc}, over ``axis`` or all axes; unrecorded."
    return query


def _method(op: Op | Composite) -> Callable[..., "Tensor"]:
    """``op`` as a method: the tensor is its first operand."""
    call = op.__call__

    def method(self: Any, *args: Any, **params: Any) -> Any:
        return call(self, *args, **params)

    return functools.update_wrapper(method, op)


def _operators(op: Op) -> tuple[Callable[..., "Tensor"], Callable[..., "Tensor"]]:
    """``op`` as an operator and as its reflection, typed to return Tensors."""
    return binary(op)


def _unrecorded(name: str) -> Callable[..., "Tensor"]:
    """The array libraries' function ``name`` as a binary operator without a derivative."""

    def operator(self: Any, other: Any) -> Any:
        if other is None and name in ("equal", "not_equal"):
            return NotImplemented  # as in PyTorch, no tensor is None
        if not isinstance(other, Box) and getattr(other, "__array_ufunc__", ...) is None:
            return NotImplemented  # so it asks NumPy's arrays, too: pytest.approx compares itself
        try:
            array = _operand(other)
            xp = backend.namespace(self.array, array)
            return type(self)(getattr(xp, name)(self.array, array))
        except (OverflowError, TypeError, ValueError) as error:
            kind, got = kind_of(error), f"{describe(self)} and {describe(other)}"
            expected = "booleans or integers" if name.startswith("bitwise") else "numbers"
            remedy = ""
            if kind is ShapeError:
                expected = "operands that broadcast together"
            elif kind is LibraryMismatchError:
                expected, remedy = of_one_library((self, other), error)
            reason, has_facts, _ = str(error).partition("\n")
            # the facts of ``error`` are about one of the arrays: those below replace them
            headline = name if has_facts else f"{name}: {reason}"
            raise kind(facts(headline, expected=expected, got=got, remedy=remedy)) from error

    return operator


class Tensor(NumPyBox):
    """An array that remembers how it was computed. Make one with ``minigrad.tensor``.

    Operators, indexing and methods follow NumPy; results record the ops that made them when an
    operand has ``requires_grad``. The array itself never changes in place: assignment replaces it.
    """

    __slots__ = ()

    # --- the value -------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """The raw array; read-only on NumPy. Assign to replace it (leaves only).

        ``w.data -= step`` would change the array in place, so NumPy raises "read-only". Write
        ``w.data = w.data - step`` instead.
        """
        array = self.array
        return backend.read_only(np.asarray(array) if isinstance(array, np.generic) else array)

    @data.setter
    def data(self, value: Any) -> None:
        self._replace(value)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:<n>"``."""
        return backend.device_of(self.array)

    @property
    def T(self) -> "Tensor":
        """The tensor with its axes in reverse order."""
        return ops.transpose(self)

    def numpy(self) -> np.ndarray:
        """A writable copy on the host."""
        return np.array(backend.to_host(self.array))

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.size != 1:
            raise ShapeError(facts("item: tensor", expected="one element", got=describe(self)))
        return backend.to_host(self.array).item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return backend.to_host(self.array).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.device != "cpu":
            raise DTypeError(f"numpy.asarray: {describe(self)} is on {self.device}; use .numpy()")
        return np.array(self.data, dtype=dtype, copy=copy)

    def __dlpack__(self, *, copy: bool | None = None, **params: Any) -> Any:
        """For ``torch.from_dlpack`` and ``torch.as_tensor``: a copy, which PyTorch may change."""
        return (self.data if copy is False else self.data.copy()).__dlpack__(**params)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("len: a 0-d tensor has no length")
        return self.shape[0]

    def __iter__(self) -> "Iterator[Tensor]":
        if not self.shape:
            raise DTypeError("iteration over a 0-d tensor")
        return slices(self, (), len(self))

    def __bool__(self) -> bool:
        if self.size != 1:
            got, remedy = describe(self), "use x.any() or x.all()"
            raise ShapeError(facts("bool: tensor", expected="one element", got=got, remedy=remedy))
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.shape or self.dtype.kind not in "iu":  # not (1,) either, as in NumPy
            raise DTypeError(f"an index must be an integer, not {describe(self)}")
        return self.item()

    def __contains__(self, value: Any) -> bool:
        return value is not None and bool((self == value).any())

    def __repr__(self) -> str:
        host = backend.to_host(self.array)
        notes = []
        if host.dtype not in (np.float64, np.int64, np.bool_):
            notes.append(f"dtype={host.dtype}")
        if self.device != "cpu":
            notes.append(f"device={self.device!r}")
        if self.name:
            notes.append(f"name={self.name!r}")
        if self.requires_grad:
            notes.append("requires_grad=True" if self.is_leaf else f"op={self.node.op.name}")
        text = np.array2string(host, separator=", ", prefix="tensor(")
        return f"tensor({', '.join([text, *notes])})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The drawing of the graph in a notebook; text if nothing can be drawn."""
        return importlib.import_module("minigrad.viz").mimebundle(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    # --- the graph -------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor. Assignable on leaves."""
        return self.node is not None and self.node.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not self.is_leaf:
            raise self._not_a_leaf("requires_grad")
        if value and not self.requires_grad:  # older graphs hold it as a constant
            _check_differentiable(self.dtype, self.name)
            self._renew("requires_grad", self.array, True)
        elif self.node is not None:
            self.node.requires_grad = self.node.keep_grad = bool(value)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made this tensor."""
        return self.node is None or self.node.op is None

    @property
    def name(self) -> str | None:
        """The name of this tensor in drawings and errors."""
        return self.node.name if self.node is not None else None

    @name.setter
    def name(self, value: str | None) -> None:
        if self.node is None:
            self.node = leaf(self.array)
        self.node.name = value

    @property
    def grad(self) -> "Tensor | Any":
        """The gradient that ``backward`` accumulated; None before, or if none is kept."""
        return self.node.grad if self.node is not None else None

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            value = type(self)(self._converted(value, "grad: assigned value"))
        if self.node is None:
            raise GraphError(f"grad: {describe(self)} does not require a gradient")
        self.node.grad = value

    def zero_grad(self) -> None:
        """Set ``grad`` to None."""
        if self.node is not None:
            self.node.grad = None

    def retain_grad(self) -> "Tensor":
        """Keep ``.grad`` of this intermediate result in later ``backward`` calls."""
        if not self.requires_grad:
            raise GraphError(f"retain_grad: {describe(self)} does not require a gradient")
        self.node.keep_grad = True
        return self

    @hinting
    def backward(self, seed: Any = None) -> None:
        """Add the derivative of ``sum(seed * self)`` to ``.grad`` of every leaf it came from.

        The graph is kept: a second call adds the same amount again. The seed is added to
        ``self.grad``, too. A leaf of the graph on which the value does not depend gets zeros.

        Args:
            seed: the cotangent of this tensor, of its shape; 1 for a scalar if None.

        Raises:
            GraphError: nothing was recorded.
            SeedError: a seed that is missing, of another shape, or not finite.
            OverwrittenError: a tensor in the graph was assigned after it was recorded.
        """
        if self.node is None or not self.node.requires_grad:
            raise GraphError(
                facts("backward: nothing was recorded for this tensor",
                      expected="a result of operands with requires_grad=True",
                      got=describe(self))
            )  # fmt: skip
        cotangents = backward_sweep(self.node, as_seed(seed, self))
        with _ADDING:
            for node, x_bar in cotangents.items():
                x_bar = backend.zeros_like(node.value) if x_bar is None else x_bar
                node.grad = type(self)(x_bar if node.grad is None else node.grad.array + x_bar)

    def detach(self) -> "Tensor":
        """The same value without its history."""
        return type(self)(self.array)

    def _replace(self, value: Any, own: bool = False) -> None:
        """Give this leaf a new value; a sweep over a graph that used the old one will raise.

        ``own``: nobody else holds the array, so no copy is needed.
        """
        if not self.is_leaf:
            raise self._not_a_leaf("assignment")
        new = self._converted(value, "assignment: value", own)
        journal = CURRENT.get().journal
        if journal is not None:
            journal.append((self, self.array, self.node))
        if self.node is not None:
            self._renew("value", new, self.requires_grad)
        self.array = new

    def _converted(self, value: Any, what: str, own: bool = False) -> Any:
        """``value`` as an array of the shape, dtype and device of this tensor."""
        if own and backend.is_like(value, self.array):
            return backend.frozen(value, own)
        new = backend.to_device(backend.as_array(getattr(value, "array", value)), self.device)
        if new.shape != self.shape:
            raise ShapeError(facts(what, expected=self.shape, got=new.shape))
        return new.astype(self.dtype) if new.dtype != self.dtype else backend.frozen(new, own)

    def _renew(self, what: str, array: Any, requires_grad: bool) -> None:
        """Give this leaf a new node; ``what`` changed, so graphs with the old one are invalid."""
        old, self.node = self.node, leaf(array, requires_grad, self.name)
        if old is not None:
            self.node.grad, old.overwritten = old.grad, what

    def _not_a_leaf(self, what: str) -> GraphError:
        got = f"a result of {self.node.op.name}" if self.node is not None else "no graph"
        return GraphError(
            facts(what, expected="a leaf tensor", got=got, remedy="use x.detach() first")
        )

    def __setitem__(self, key: Any, value: Any) -> None:
        if tracked(value):
            got = f"{describe(value)} with requires_grad"
            raise GraphError(
                facts("assignment: value", expected="a value without requires_grad", got=got,
                      remedy="assign w.detach(), or build the result with minigrad.where")
            )  # fmt: skip
        new = np.array(self.array) if isinstance(self.array, np.generic) else self.array.copy()
        try:
            value = _operand(value)
            is_number = isinstance(value, (int, float))
            value = value if is_number else backend.to_device(value, self.device)
            xp = backend.namespace(new)
            new[backend.checked_key(xp, new, _key(key))] = value
        except (IndexError, OverflowError, TypeError, ValueError) as error:
            raise kind_of(error)(f"assignment to {describe(self)}: {error}") from error
        self._replace(new)

    def __reduce__(self) -> tuple:
        if not self.is_leaf:
            raise self._not_a_leaf("pickle, copy")
        grad = None if self.grad is None else self.grad.numpy()
        return _rebuild, (self.numpy(), self.requires_grad, self.name, self.device, grad)

    # --- moving and converting -------------------------------------------------------------------

    def to(self, device: str) -> "Tensor":
        """This tensor on ``"cpu"``, ``"cuda"`` or ``"cuda:<n>"``; differentiable."""
        here = backend.is_on(self.array, device)
        return self if here else ops.to_device(self, device=device)

    def astype(self, dtype: Any) -> "Tensor":
        """This tensor cast to ``dtype``; differentiable between floating dtypes."""
        dtype = backend.as_dtype(dtype)
        if dtype.kind != "f":
            return type(self)(self.array.astype(dtype))
        return ops.astype(self, dtype=dtype)

    def copy(self) -> "Tensor":
        """A result with the same value: a new node of the graph, not a new leaf."""
        return ops.positive(self)

    # --- operators -------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> "Tensor":
        return ops.getitem(self, key=_key(key))

    __pos__ = _method(ops.positive)
    __neg__ = _method(ops.negative)
    __abs__ = _method(ops.absolute)
    __add__, __radd__ = _operators(ops.add)
    __sub__, __rsub__ = _operators(ops.subtract)
    __mul__, __rmul__ = _operators(ops.multiply)
    __truediv__, __rtruediv__ = _operators(ops.divide)
    __pow__, __rpow__ = _operators(ops.power)
    __matmul__, __rmatmul__ = _operators(ops.matmul)
    __iadd__, __isub__ = in_place(__add__), in_place(__sub__)
    __imul__, __itruediv__ = in_place(__mul__), in_place(__truediv__)
    __ipow__, __imatmul__ = in_place(__pow__), in_place(__matmul__)

    # Comparisons, and & | ^ ~ of masks, have no derivative: they return unrecorded tensors.

    __eq__: Callable[..., Any] = _unrecorded("equal")  # not Tensor: object returns a bool
    __ne__: Callable[..., Any] = _unrecorded("not_equal")
    __lt__, __le__ = _unrecorded("less"), _unrecorded("less_equal")
    __gt__, __ge__ = _unrecorded("greater"), _unrecorded("greater_equal")
    __and__ = __rand__ = _unrecorded("bitwise_and")
    __or__ = __ror__ = _unrecorded("bitwise_or")
    __xor__ = __rxor__ = _unrecorded("bitwise_xor")
    __hash__ = object.__hash__

    def __invert__(self) -> "Tensor":
        all_ones = int(~self.dtype.type(0)) if self.dtype.kind in "iu" else True
        return self ^ all_ones

    # --- methods, as NumPy's arrays have them ----------------------------------------------------

    sum = _method(ops.sum)
    mean = _method(ops.mean)
    var = _method(ops.var)
    std = _method(ops.std)
    max = _method(ops.max)
    min = _method(ops.min)
    prod = _method(ops.prod)
    cumsum = _method(ops.cumsum)
    clip = _method(ops.clip)
    swapaxes = _method(ops.swapaxes)
    squeeze = _method(ops.squeeze)
    abs, exp, log = _method(ops.absolute), _method(ops.exp), _method(ops.log)  # as in PyTorch
    sqrt, square, matmul = _method(ops.sqrt), _method(ops.square), _method(ops.matmul)
    relu, sigmoid, tanh = _method(ops.relu), _method(ops.sigmoid), _method(ops.tanh)
    softmax, log_softmax = _method(ops.softmax), _method(ops.log_softmax)

    def reshape(self, *shape: Any) -> "Tensor":
        """The same elements in another shape; one length may be -1."""
        return ops.reshape(self, shape=_unpacked(shape))

    @hinting
    def flatten(self, start: int = 0) -> "Tensor":
        """The elements along one axis; the axes before ``start`` stay."""
        if not -self.ndim <= start < max(self.ndim, 1):
            headline, expected = "flatten: start", f"an axis of {describe(self)}"
            raise BoundsError(facts(headline, expected=expected, got=start))
        return ops.reshape(self, shape=(*self.shape[:start], prod(self.shape[start:])))

    def transpose(self, *axes: Any) -> "Tensor":
        """The axes in the given order, which names them all; reversed without arguments."""
        return ops.transpose(self, axes=_unpacked(axes) if axes else None)

    argmax = _query("argmax", "The index of the largest element")
    argmin = _query("argmin", "The index of the smallest element")
    any = _query("any", "Whether an element is true")
    all = _query("all", "Whether every element is true")

    def __dir__(self) -> list[str]:
        return [name for name in object.__dir__(self) if hasattr(type(self), name)]


# names of PyTorch that Tensor lacks: the AttributeError says what to write instead
for _name in NAMES.union(ops.__all__).difference(dir(Tensor)):
    setattr(Tensor, _name, Absent(_name))
Fused.box = Tensor


def tensor(
    array_like: Any,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    name: str | None = None,
    device: str | None = None,
) -> Tensor:
    """Make a leaf tensor from a copy of ``array_like``.

    Args:
        array_like: number, nested sequence, array of any known library, or tensor (detached).
        dtype: NumPy dtype; None keeps that of the source (Python floats: float64).
        requires_grad: whether ``backward`` computes ``.grad``; needs a floating dtype.
        name: its name in drawings and errors.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:<n>"``; None keeps that of the source.

    Raises:
        DTypeError: not numbers, or ``requires_grad`` with a dtype that is not floating.

    >>> mg.tensor([[1, 2], [3, 4]], dtype="float32", requires_grad=True, name="x")
    tensor([[1., 2.],
            [3., 4.]], dtype=float32, name='x', requires_grad=True)
    """
    source = array_like.array if isinstance(array_like, Box) else array_like
    array = backend.as_array(source, dtype)
    if requires_grad:
        _check_differentiable(array.dtype, name)
    array = backend.frozen(array if device is None else backend.to_device(array, device))
    result = Tensor(array)
    if requires_grad or name:
        result.node = leaf(array, requires_grad, name)
    return result


def _operand(value: Any) -> Any:
    """``value``, to be compared with or assigned to a tensor, as an array; numbers stay as is."""
    array = getattr(value, "array", value)
    return array if isinstance(array, (int, float)) else backend.as_array(array)


def _check_differentiable(dtype: Any, name: str | None) -> None:
    if dtype.kind != "f":
        expected, got = "a floating dtype", f"{name or 'tensor'} of dtype {dtype}"
        remedy = "write 2.0 instead of 2, or x.astype(float)"
        raise DTypeError(facts("requires_grad", expected=expected, got=got, remedy=remedy))


def _rebuild(array: Any, requires_grad: bool, name: str | None, device: str, grad: Any) -> Tensor:
    result = tensor(array, requires_grad=requires_grad, name=name, device=device)
    if grad is not None:
        result.node = result.node or leaf(result.array)
        result.grad = backend.to_device(grad, device)
    return result


def _key(key: Any) -> Any:
    """The index ``key`` with tensors replaced by their arrays."""
    if isinstance(key, tuple):
        return tuple(_key(part) for part in key)
    return key.array if isinstance(key, Box) else key


def _unpacked(args: tuple) -> Any:
    """The tuple ``args``, or its only element: reshape(2, 3) or reshape((2, 3))."""
    return args[0] if len(args) == 1 else args
