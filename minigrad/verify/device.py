"""The inputs of a check as arrays on the host, and checked functions that run on another device."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from minigrad.backend import to_device, to_host
from minigrad.errors import DTypeError, UsageError, describe, facts
from minigrad.tensor import Tensor
from minigrad.verify.subject import is_pair


def floating(what: str, inputs: Any) -> list[np.ndarray]:
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
        return [_floating(what, x) for x in values]
    expected = "an array, a tensor, or a sequence of one or more"
    raise UsageError(facts(what, expected=expected, got=describe(inputs)))


def _floating(what: str, x: Any) -> np.ndarray:
    array = np.array(to_host(getattr(x, "array", x)) if hasattr(x, "shape") else x)
    if array.dtype.kind != "f":
        remedy = "x.astype(float); pass indices and flags as params, or fix them in the function"
        raise DTypeError(facts(what, expected="floating arrays", got=array.dtype, remedy=remedy))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def moved(value: Any, device: str) -> Any:
    """``value`` with every array in it, also in tuples and dictionaries, on ``device``."""
    if isinstance(value, dict):
        return {key: moved(entry, device) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(entry, device) for entry in value)
    return to_device(value, device) if isinstance(value, np.ndarray) else value


def elsewhere(f: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """``f`` for tensors on the host, computed on ``device``; the transfers are in the graph."""
    if device == "cpu":
        return f
    return lambda *xs: f(*(x.to(device) for x in xs)).to("cpu")


def pairs_elsewhere(make: Callable, device: str) -> Callable:
    """``make() -> (forward, backward)`` for arrays on the host, computed on ``device``.

    Raises:
        DeviceError: there is no such device.
    """
    if device == "cpu":
        return make
    to_device(np.zeros(1), device)  # raises here, else the functions would be blamed

    def make_moved() -> tuple[Callable, Callable]:
        forward, backward = make()

        @wraps(forward)
        def forward_moved(*inputs: np.ndarray, **params: Any) -> Any:
            result = forward(*moved(inputs, device), **moved(params, device))
            return (to_host(result[0]), result[1]) if is_pair(result) else result

        def backward_moved(y_bar: np.ndarray, cache: Any) -> tuple:
            x_bars = backward(to_device(y_bar, device), cache)
            return tuple(None if x_bar is None else to_host(x_bar) for x_bar in x_bars)

        return forward_moved, backward_moved

    return make_moved
