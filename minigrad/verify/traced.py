"""The graph of a forward on plain arrays, each op with the code that called it.

``trace`` runs the forward once on tensors in the place of arrays. As the forward is written for
NumPy, these tensors accept more than others: assignments to elements (``_Traced``), functions of
NumPy that only rearrange elements (``_rearranged``), arrays that are allocated first and filled
later (``_NumPy``). An observer notes the expression behind each op. Afterwards
arrays replace the tensors that the code under examination kept.
"""

import gc
from collections.abc import Callable
from contextvars import ContextVar
from copy import deepcopy
from types import CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

import numpy as np

from minigrad.context import setting
from minigrad.core.node import Node, leaf
from minigrad.errors import DTypeError
from minigrad.ops import cholesky, concatenate, exp, inv, log, logsumexp, matmul, sqrt, stack
from minigrad.protocol import tracked
from minigrad.tensor import Tensor
from minigrad.verify.expression import ExpressionObserver
from minigrad.verify.graph import Graph
from minigrad.verify.subject import Subject, is_pair

_TENSORS: ContextVar[list] = ContextVar("weak references to all tensors made in a trace")


class _Traced(Tensor):
    """A tensor that stands for an array in more places than other tensors do.

    Its elements may be assigned, and it is taken by functions of NumPy that only rearrange
    elements or that a few ops can express.
    """

    __slots__ = ()

    def __init__(self, array: Any, node: Node | None = None):
        super().__init__(array, node)
        _TENSORS.get([]).append(ref(self))

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        if func.__name__ in _BY_OPS:
            return _BY_OPS[func.__name__](*args, **kwargs)
        try:
            found = super().__array_function__(func, types, args, kwargs)
        except DTypeError:
            return _rearranged(func, args, kwargs)
        return _Traced(found) if func.__name__.endswith("_like") else found

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if name in _BY_OPS and "out" not in kwargs:
            return _BY_OPS[name](*args, **kwargs)
        return Tensor.__array_ufunc__(self, ufunc, method, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """A method of arrays that tensors lack, by the function of NumPy of that name."""
        if name.startswith("_") or not hasattr(np.ndarray, name) or not hasattr(np, name):
            raise AttributeError(name)
        return lambda *args, **kwargs: getattr(np, name)(self, *args, **kwargs)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Tensor:
        """A cast; ``copy=False`` and such, which arrays take, change nothing here."""
        return super().astype(dtype)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Become a new node with these elements replaced; the old node stays in the graph.

        The new node has no origin, so no finding points to the assignment: the elements that it
        leaves alone say nothing about it.
        """
        if not tracked([self, value]):
            super().__setitem__(key, value)
            return
        value = value if isinstance(value, Tensor) else _Traced(np.asarray(value, self.dtype))
        places = np.arange(1, self.size + 1).reshape(self.shape)
        others = np.arange(self.size + 1, self.size + value.size + 1)
        places[key] = others.reshape(value.shape)
        with setting(observer=None):
            new = _flat([self, value])[places]
        self.array, self.node = new.array, new.node


_BY_OPS: dict[str, Callable] = {
    "cholesky": cholesky,  # of the symmetric part: the right cotangents if the matrix is symmetric
    "cosh": lambda x: (exp(x) + exp(-x)) / 2,
    "diff": lambda x, axis=-1: _difference(x, axis),
    "dot": matmul,
    "full_like": lambda x, value: np.zeros(x.shape) + value,
    "hstack": lambda parts: _joined(np.hstack, parts, int(np.ndim(parts[0]) > 1), 1),
    "hypot": lambda x, y: sqrt(x * x + y * y),
    "log10": lambda x: log(x) / np.log(10),
    "log2": lambda x: log(x) / np.log(2),
    "logaddexp.reduce": lambda x, axis=0: logsumexp(x, axis=axis),
    "norm": lambda x, axis=None, keepdims=False: sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    "outer": lambda x, y: x.flatten()[:, None] * y.flatten(),
    "sinh": lambda x: (exp(x) - exp(-x)) / 2,
    "solve": lambda a, b: inv(a) @ b,
    "vdot": lambda x, y: (x.flatten() * y.flatten()).sum(),
    "vstack": lambda parts: _joined(np.vstack, parts, 0, 2),
}


def _difference(x: Any, axis: int) -> Any:
    before = (slice(None),) * (axis % x.ndim)
    return x[(*before, slice(1, None))] - x[(*before, slice(-1))]


def _joined(func: Callable, parts: Any, axis: int, least: int) -> Any:
    """``func(parts)``, one op if it adds no axes: if all parts have ``least`` axes or more."""
    if min(map(np.ndim, parts)) < least:
        return _rearranged(func, (parts,), {})
    return concatenate(parts, axis=axis)


def _flat(tensors: list) -> Any:
    """A zero, followed by the elements of all these tensors."""
    return concatenate([np.zeros(1), *(x.reshape(-1) for x in tensors)])


def _rearranged(func: Callable, args: tuple, kwargs: dict) -> Any:
    """The result of a function of NumPy that rearranges elements, or adds zeros to them.

    The function is applied to the numbers of the elements instead, 1, 2, .., and 0 for a zero.
    That gives the index of each element of the result, and so the result as an indexing op.
    """
    operands: list = []

    def numbers(value: Any) -> Any:
        if tracked(value) and isinstance(value, (list, tuple)):
            return [numbers(x if isinstance(x, Tensor) else _Traced(x)) for x in value]
        if not isinstance(value, Tensor):
            return value
        start = 1 + sum(x.size for x in operands)
        operands.append(value)
        return np.arange(start, start + value.size).reshape(value.shape)

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [plain(x) for x in value]
        return value.numpy() if isinstance(value, Tensor) else value

    places = func(*map(numbers, args), **kwargs)
    moved, y = _flat(operands)[places], func(*map(plain, args), **kwargs)
    if not np.array_equal(moved.numpy(), y):
        raise DTypeError(f"{func.__name__} does more than move elements")
    return moved


class _NumPy(ModuleType):
    """NumPy for code that is traced: arrays that it fills later are tensors from the start."""

    def __init__(self):
        super().__init__("numpy")
        for name in ("zeros", "empty", "ones", "full"):
            setattr(self, name, self._allocating(getattr(np, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def _allocating(func: Callable) -> Callable:
        def allocate(*args: Any, **kwargs: Any) -> Any:
            array = func(*args, **kwargs)
            return _Traced(array) if array.dtype.kind == "f" else array

        return allocate

    def array(self, values: Any, *args: Any, **kwargs: Any) -> Any:
        """A list of tensors is stacked; a copy of a tensor shares its node until it is changed."""
        if isinstance(values, (list, tuple)) and tracked(values):
            return stack([self.array(x) for x in values])
        if isinstance(values, Tensor):
            return _Traced(values.array, values.node)
        return np.array(values, *args, **kwargs)


def _with_numpy(forward: Any) -> Any:
    """A copy of a function or method, and of the functions of its module, that uses ``_NumPy``."""
    func = getattr(forward, "__func__", forward)
    if not isinstance(func, FunctionType):
        return forward
    numpy, names = _NumPy(), dict(func.__globals__)

    def copied(f: FunctionType) -> FunctionType:
        copy = FunctionType(f.__code__, names, f.__name__, f.__defaults__, f.__closure__)
        copy.__kwdefaults__ = f.__kwdefaults__
        return copy

    for name, value in func.__globals__.items():
        if value is np:
            names[name] = numpy
        elif isinstance(value, FunctionType) and value.__globals__ is func.__globals__:
            names[name] = copied(value)
    return MethodType(copied(func), forward.__self__) if func is not forward else copied(func)


def trace(subject: Subject) -> Graph | None:
    """The graph of the forward; None where its result does not come from ops on tensors.

    A method runs on a copy of its object, so that the object itself keeps no tensors; wherever else
    the code keeps tensors, arrays replace them.
    Raises whatever the forward, or an op that it calls, raises when run on tensors.
    """
    leaves = [leaf(x, True, name) for x, name in zip(subject.inputs, subject.names, strict=True)]
    made: list[ref] = []
    token = _TENSORS.set(made)
    try:
        forward = _with_numpy(deepcopy(subject.forward))
        with setting(observer=ExpressionObserver(trace), recording=True, scope=None):
            pair = forward(*(_Traced(x.value, x) for x in leaves), **subject.params)
        y: Any = pair[0] if is_pair(pair) else None
        root = y.node if isinstance(y, _Traced) and y.requires_grad else None
        del forward, pair, y
        return Graph(root, leaves) if root is not None else None
    finally:
        _TENSORS.reset(token)
        _replace_by_arrays([tensor for each in made if (tensor := each()) is not None])


def _replace_by_arrays(kept: list[Tensor]) -> None:
    """Put arrays where these tensors are still held: in lists, dicts, attributes and closures."""
    arrays = {id(tensor): tensor.numpy() for tensor in kept}
    for holder in gc.get_referrers(*kept) if kept else ():
        if isinstance(holder, CellType):
            holder.cell_contents = arrays[id(holder.cell_contents)]
        elif isinstance(holder, list) and holder is not kept:
            holder[:] = [arrays.get(id(item), item) for item in holder]
        elif not isinstance(holder, (list, FrameType)):
            items = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
            items.update({name: arrays[id(t)] for name, t in items.items() if id(t) in arrays})
