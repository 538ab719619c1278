"""The linear layer by ``matmul.cu``, which also adds the bias and sums the cotangent of it."""

from collections.abc import Callable
from functools import cache
from typing import Any

from minigrad.fused.cuda import matmul
from minigrad.fused.cuda.matmul import FILE, INSTANCES
from minigrad.fused.declare import same_floats

__all__ = ["FILE", "INSTANCES", "accepts", "backward", "forward"]
_MAX_PRODUCTS = 1 << 24  # with more multiplications cuBLAS is faster


def accepts(x: Any, w: Any, b: Any = None) -> bool:
    """Whether the kernels serve this call: a small layer of a batch."""
    if x.ndim != 2 or w.ndim != 2 or not same_floats(x, w, b):
        return False
    fits = x.shape[1] == w.shape[1] and (b is None or b.shape == w.shape[:1])
    return fits and 0 < x.shape[0] * w.size <= _MAX_PRODUCTS


def forward(xp: Any, x: Any, w: Any, b: Any = None) -> tuple[Any, tuple]:
    """``ops.linear`` in one product."""
    return matmul.product(xp, x, w.T, b), (x, w, b is not None)


def backward(xp: Any, y_bar: Any, saved: tuple) -> tuple[Callable, ...]:
    """Functions that compute the cotangents of x, w and b, each only where it is needed."""
    x, w, has_bias = saved

    @cache
    def both() -> tuple[Any, Any]:
        return matmul.product_and_sums(xp, y_bar.T, x)

    def x_bar() -> Any:
        return matmul.product(xp, y_bar, w)

    if has_bias:
        return x_bar, lambda: both()[0], lambda: both()[1]
    return x_bar, lambda: matmul.product(xp, y_bar.T, x)
