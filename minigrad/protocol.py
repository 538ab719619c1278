"""NumPy's functions applied to tensors: ``np.exp(x)`` and ``np.sum(x)`` call the ops."""

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
QUERIES = frozenset(  # functions without a derivative: plain arrays lose nothing
    ["all", "allclose", "any", "argmax", "argmin", "argsort", "array2string", "array_equal",
     "array_repr", "array_str", "count_nonzero", "empty_like", "isclose", "isfinite", "isinf",
     "isnan", "ndim", "ones_like", "result_type", "save", "savetxt", "savez", "shape", "size",
     "zeros_like"]
)  # fmt: skip
_JOINS = "concatenate", "stack"  # NumPy's join the rows of a single array
_DIFFERS = {"cholesky": "reads the lower triangle; minigrad.ops.cholesky uses the symmetric part"}


class _OfClass:
    """An attribute that is a function on the class and None on its instances.

    NumPy looks up ``__array_ufunc__`` on the class of an operand. CuPy, whose ufuncs take no
    tensors, looks it up on the operand; None makes it leave ``cupy_array * tensor`` to the tensor.
    """

    def __init__(self, function: Callable):
        self.function = function

    def __get__(self, instance: Any, owner: type) -> Any:
        return self.function if instance is None else None


class NumPyBox(Box):
    """A box that NumPy's functions accept, ufuncs included."""

    __slots__ = ()

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        """``numpy.f(tensor)`` calls the op of that name; DTypeError if a graph would be lost."""
        if func.__name__ in REGISTRY and func.__name__ not in _DIFFERS:
            op: Any = REGISTRY[func.__name__]
            if op.name in _JOINS and args and not isinstance(args[0], (list, tuple)):
                args = (list(args[0]), *args[1:])
            return op(*args, **kwargs)
        return _on_arrays(func, f"{func.__module__}.", func.__name__, args, kwargs)

    @_OfClass
    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """The same for ufuncs, also for that of ``ndarray < tensor``, which compares tensors."""
        name = ufunc.__name__
        if method != "__call__":
            return _on_arrays(getattr(ufunc, method), "numpy.", f"{name}.{method}", args, kwargs)
        if name in REGISTRY and not kwargs:
            op: Any = REGISTRY[name]
            return op(*args)
        if name in _RELATIONS and not kwargs:
            x, y = args
            return _RELATIONS[name](x if isinstance(x, Box) else type(self)(as_array(x)), y)
        return _on_arrays(ufunc, "numpy.", name, args, kwargs)


def _on_arrays(func: Callable, prefix: str, name: str, args: tuple, kwargs: dict) -> Any:
    """Call ``func`` on the arrays of the tensors; DTypeError if that would drop a graph."""
    if name not in QUERIES and any(map(tracked, (*args, *kwargs.values()))):
        full, reason = prefix + name, _DIFFERS.get(name, "is not an op")
        if name in REGISTRY and name not in _DIFFERS:
            reason += f" if called with {', '.join(kwargs)}"
        remedy = f"use an op of minigrad.ops, or {full}(x.numpy())"
        headline, got = "NumPy function called on a tensor with a graph", f"{full}, which {reason}"
        raise DTypeError(facts(headline, expected="an op", got=got, remedy=remedy))
    return func(*map(_arrays, args), **{key: _arrays(value) for key, value in kwargs.items()})


def tracked(value: Any) -> bool:
    """Whether ``value`` is, or holds, a tensor that requires a gradient."""
    if isinstance(value, (list, tuple)):
        return any(map(tracked, value))
    return isinstance(value, Box) and value.node is not None and value.node.requires_grad


def _arrays(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_arrays, value))
    return read_only(value.array) if isinstance(value, Box) else value
