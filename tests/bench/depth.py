"""Layers of batch norm in a row: how time grows with the depth of a graph."""

from typing import Any

import numpy as np

from .contestant import Contestant, host, load, load_torch, value_of

SHAPE = (64, 32)


def _operands(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=SHAPE).astype(dtype), rng.normal(size=SHAPE).astype(dtype)


def _contestant(net: Any, leaves: list[Any], x: Any, seed: Any) -> Contestant:
    last: dict[str, Any] = {}

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        y = net(x)
        y.backward(seed)
        last["y"] = value_of(y)

    def result() -> dict[str, np.ndarray]:
        return host(**last, x_bar=x.grad, first=leaves[0].grad, last=leaves[-2].grad)

    return Contestant(step, result)


def minigrad(depth: int, dtype: str) -> Contestant:
    mg = load("minigrad")
    array, seed = _operands(dtype)
    x = mg.tensor(array, requires_grad=True)
    net = mg.nn.Sequential(*(mg.nn.BatchNorm1d(SHAPE[1], dtype=dtype) for _ in range(depth)))
    return _contestant(net, [*net.parameters(), x], x, mg.tensor(seed))


def torch(depth: int, dtype: str) -> Contestant:
    torch = load_torch()
    array, seed = (torch.tensor(a) for a in _operands(dtype))
    x = array.requires_grad_()
    net = torch.nn.Sequential(*(torch.nn.BatchNorm1d(SHAPE[1]) for _ in range(depth)))
    net.to(getattr(torch, dtype))
    return _contestant(net, [*net.parameters(), x], x, seed)


MAKERS = {"minigrad": minigrad, "minigrad-plain": minigrad, "torch": torch}
