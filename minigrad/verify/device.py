"""Checked functions that run on another device."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from minigrad.backend import to_device, to_host
from minigrad.tensor import Tensor
from minigrad.verify.arrays import mapped
from minigrad.verify.subject import is_pair


def moved(value: Any, device: str) -> Any:
    """``value`` with every array that ``mapped`` finds in it on ``device``."""
    return mapped(lambda array: to_device(array, device), value)


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
