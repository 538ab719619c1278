"""Launches of ``sigmoid.cu``."""

from typing import Any

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import elementwise
from minigrad.fused.declare import same_floats

FILE = "sigmoid.cu"
INSTANCES = tuple(
    f"sigmoid_{direction}<{layout}>"
    for direction in ("forward", "backward")
    for layout in ("float, 4", "float, 1", "double, 2", "double, 1")
)


def accepts(x: Any) -> bool:
    """Whether the kernels serve this call."""
    return same_floats(x) and x.size > 0


def forward(xp: Any, x: Any) -> tuple[Any, tuple]:
    """``1 / (1 + e^-x)``."""
    y = xp.empty(x.shape, x.dtype)
    x = xp.ascontiguousarray(x)  # of shape (1,) where x has no axes
    _run(xp, "forward", x, y)
    return y, (x,)


def backward(xp: Any, y_bar: Any, cache: tuple) -> tuple[Any]:
    """``x_bar = y_bar t / (1 + t)^2`` with ``t = e^-|x|``."""
    (x,) = cache
    x_bar = xp.empty(y_bar.shape, x.dtype)
    _run(xp, "backward", xp.ascontiguousarray(y_bar, x.dtype), x, x_bar)
    return (x_bar,)


def _run(xp: Any, direction: str, *arrays: Any) -> None:
    x = arrays[0]
    width = 16 // x.dtype.itemsize if kernels.is_aligned(*arrays) else 1
    launch = elementwise(-(-x.size // width), kernels.device_of(xp, x))
    instance = f"sigmoid_{direction}<{kernels.real(x)}, {width}>"
    kernels.run(xp, FILE, instance, launch, *arrays, x.size)
