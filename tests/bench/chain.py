"""The cost of one op: a chain of 10,000 scalar ops, forward and backward."""

from typing import Any

import numpy as np

from .contestant import Contestant, host, load, load_torch, value_of


def _steps(x: Any, c: Any, ops: int) -> Any:
    y = x
    for _ in range(ops // 4):
        y = (y * c + x) * x - x
    return y


def _by_backward(make_leaf: Any, c: Any, ops: int) -> Contestant:
    """The chain for libraries that have leaves and ``backward()``."""
    last: dict[str, Any] = {}

    def step() -> None:
        x = make_leaf()
        y = _steps(x, c, ops)
        y.backward()
        last.update(y=value_of(y), x_bar=x.grad)

    return Contestant(step, lambda: host(**last))


def minigrad(ops: int, dtype: str) -> Contestant:
    mg = load("minigrad")
    return _by_backward(lambda: mg.tensor(0.5, dtype=dtype, requires_grad=True), 0.999, ops)


def torch(ops: int, dtype: str) -> Contestant:
    torch = load_torch()
    kind = getattr(torch, dtype)
    return _by_backward(lambda: torch.tensor(0.5, dtype=kind, requires_grad=True), 0.999, ops)


def mygrad(ops: int, dtype: str) -> Contestant:
    my = load("mygrad")
    # multiplied with a Python float it would become float64
    return _by_backward(lambda: my.tensor(0.5, dtype=dtype), np.dtype(dtype).type(0.999), ops)


def autograd(ops: int, dtype: str) -> Contestant:
    derivative = load("autograd").value_and_grad(lambda x: _steps(x, 0.999, ops))
    x = np.dtype(dtype).type(0.5)
    last: dict[str, Any] = {}

    def step() -> None:
        last["y"], last["x_bar"] = derivative(x)

    return Contestant(step, lambda: host(**last))


MAKERS = {
    "minigrad": minigrad,
    "minigrad-plain": minigrad,
    "torch": torch,
    "mygrad": mygrad,
    "autograd": autograd,
}
