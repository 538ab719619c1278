"""What functions of NumPy do with tensors: ``np.exp(x)`` and ``np.sum(x)`` are the ops."""

import operator
from collections.abc import Callable
from typing import Any

from minigrad.backend import as_array, read_only
from minigrad.core.node import Box
from minigrad.declaration import REGISTRY
from minigrad.errors import DTypeError, facts

_RELATIONS: dict[str, Callable] = {
    "equal": operator.eq, "not_equal": operator.ne,
    "less": operator.lt, "less_equal": operator.le,
    "greater": operator.gt, "greater_equal": operator.ge,
    "bitwise_and": operator.and_, "bitwise_or": operator.or_, "bitwise_xor": operator.xor,
}  # fmt: skip
QUERIES = frozenset(  # they drop no derivative: their results have none
    ["all", "allclose", "any", "argmax", "argmin", "argsort", "array2string", "array_equal",
     "array_repr", "array_str", "count_nonzero", "empty_like", "isclose", "isfinite", "isinf",
     "isnan", "ndim", "ones_like", "result_type", "save", "savetxt", "savez", "shape", "size",
     "zeros_like"]
)  # fmt: skip
_UNLIKE = {"cholesky": "reads the lower triangle; minigrad.ops.cholesky takes the symmetric part"}


class _OfClass:
    """An attribute that only the class has: objects say None.

    NumPy asks the class of an operand for ``__array_ufunc__``. CuPy, whose ufuncs take no tensors,
    asks the operand, and leaves ``cupy_array * tensor`` to the tensor where it is None.
    """

    def __init__(self, function: Callable):
        self.function = function

    def __get__(self, instance: Any, owner: type) -> Any:
        return self.function if instance is None else None


class NumPyBox(Box):
    """A box with operators that functions of NumPy take, ufuncs among them."""

    __slots__ = ()

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        """``numpy.f(tensor)`` is the op of that name; what would drop a graph is refused."""
        if func.__name__ in REGISTRY and func.__name__ not in _UNLIKE:
            op: Any = REGISTRY[func.__name__]
            return op(*args, **kwargs)
        return _plainly(func, f"{func.__module__}.", func.__name__, args, kwargs)

    @_OfClass
    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """The same of ufuncs; ``ndarray < tensor``, which calls one, is what ``tensor >`` is."""
        name = ufunc.__name__
        if method != "__call__":
            return _plainly(getattr(ufunc, method), "numpy.", f"{name}.{method}", args, kwargs)
        if name in REGISTRY and not kwargs:
            op: Any = REGISTRY[name]
            return op(*args)
        if name in _RELATIONS and not kwargs:
            x, y = args
            return _RELATIONS[name](x if isinstance(x, Box) else type(self)(as_array(x)), y)
        return _plainly(ufunc, "numpy.", name, args, kwargs)


def _plainly(func: Callable, prefix: str, name: str, args: tuple, kwargs: dict) -> Any:
    """What ``func`` makes of the arrays of tensors; DTypeError where that would drop a graph."""
    if name not in QUERIES and any(map(tracked, (*args, *kwargs.values()))):
        full, words = prefix + name, ", ".join(kwargs)
        reason = _UNLIKE.get(name) or (f"is none with {words}" if name in REGISTRY else "is none")
        remedy = f"use an op of minigrad.ops, or {full}(x.numpy())"
        got = f"{full}, which {reason}"
        raise DTypeError(facts("a tensor with a graph", expected="an op", got=got, remedy=remedy))
    return func(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})


def tracked(value: Any) -> bool:
    """Whether ``value`` is, or holds, a tensor that requires a gradient."""
    if isinstance(value, (list, tuple)):
        return any(map(tracked, value))
    return isinstance(value, Box) and value.node is not None and value.node.requires_grad


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return read_only(value.array) if isinstance(value, Box) else value
