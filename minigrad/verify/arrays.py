"""The arrays of a check: its inputs, and those inside params, caches and results."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np

from minigrad.backend import to_host
from minigrad.errors import DTypeError, UsageError, describe, facts


def on_host(what: str, inputs: Any) -> list[np.ndarray]:
    """Copies of the inputs on the host, in native byte order, as results have it.

    A single array, tensor or number is one input.

    Raises:
        UsageError: ``inputs`` is neither that nor a sequence of at least one.
        DTypeError: one of them is not floating. Both messages name them as ``what``.
    """
    if hasattr(inputs, "shape") or np.isscalar(inputs):
        inputs = [inputs]
    is_sequence = hasattr(inputs, "__iter__") and not isinstance(inputs, Mapping)
    if values := list(inputs) if is_sequence else []:
        return [_on_host(what, x) for x in values]
    expected = "an array, a tensor, or a sequence of one or more"
    raise UsageError(facts(what, expected=expected, got=describe(inputs)))


def _on_host(what: str, x: Any) -> np.ndarray:
    array = np.array(to_host(getattr(x, "array", x)) if hasattr(x, "shape") else x)
    if array.dtype.kind != "f":
        remedy = "x.astype(float); pass indices and flags as params, or fix them in the function"
        raise DTypeError(facts(what, expected="floating arrays", got=array.dtype, remedy=remedy))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def coarsest(arrays: Sequence[np.ndarray]) -> np.dtype:
    """The dtype with the least precision: a result of all arrays is rounded in it."""
    return max((x.dtype for x in arrays), key=lambda dtype: np.finfo(dtype).eps)


def arrays_in(thing: Any, depth: int = 4) -> Iterator[np.ndarray]:
    """Every array inside a cache; tuples, lists, dicts and attributes of objects are searched."""
    if isinstance(thing, np.ndarray):
        yield thing
        return
    if isinstance(thing, Mapping):
        items = thing.values()
    elif isinstance(thing, (tuple, list)):
        items = thing
    elif isinstance(thing, (ModuleType, Callable, str, int, float)):
        return
    else:
        items = _attributes(thing).values()
    for item in items if depth else ():
        yield from arrays_in(item, depth - 1)


def _attributes(thing: Any) -> dict[str, Any]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    named = dict(getattr(thing, "__dict__", {}))
    for name in slots:
        with suppress(AttributeError, TypeError):  # not set, or special such as __weakref__
            named[name] = getattr(thing, name)
    return named


def mapped(f: Callable[[np.ndarray], Any], value: Any) -> Any:
    """``value`` with ``f`` of every array in it, also inside lists, tuples and dictionaries."""
    if isinstance(value, np.ndarray):
        return f(value)
    if isinstance(value, dict):
        return {key: mapped(f, entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(mapped(f, entry) for entry in value)
    return value


def copied(value: Any) -> Any:
    """``value`` with a copy of every array that ``mapped`` finds in it."""
    return mapped(lambda array: array.copy(), value)


def arrays_of(value: Any) -> list[np.ndarray]:
    """The arrays that ``mapped`` finds in ``value``."""
    found: list[np.ndarray] = []
    mapped(found.append, value)
    return found


@contextmanager
def restoring(named: Iterable[tuple[str | None, np.ndarray]]) -> Iterator[list[str | None]]:
    """Restore these arrays at the end; the list is then filled with the names of changed ones."""
    before, changed = [(name, array, array.copy()) for name, array in named], []
    try:
        yield changed
    finally:
        for name, array, old in before:
            if array.flags.writeable and array.tobytes() != old.tobytes():
                array[...] = old
                changed.append(name)


def strided(x: np.ndarray) -> np.ndarray:
    """A copy that occupies every second element of a larger array; a scalar as it is."""
    if not x.ndim:
        return x
    copy = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    copy[...] = x
    return copy
