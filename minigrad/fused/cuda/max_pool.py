"""Launches of ``max_pool.cu``."""

from math import prod
from typing import Any, NamedTuple

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.windows import LIMIT, record, spread, windows
from minigrad.fused.declare import same_floats
from minigrad.ops.pool import check_max_pool

FILE = "max_pool.cu"
_PLACES = {"unsigned char": "uint8", "int": "int32"}
INSTANCES = tuple(
    f"max_pool_{direction}<{real}, {place}>"
    for direction in ("forward", "backward")
    for real in ("float", "double")
    for place in _PLACES
)


class Cache(NamedTuple):
    """The values the backward needs."""

    winners: Any  # the row-major place of the maximum in each window
    geometry: Any
    shape: tuple[int, ...]  # of x
    place: str  # the C++ name of the dtype of winners


def accepts(x: Any, **geometry: Any) -> bool:
    """Whether the kernels serve this call: signals and images."""
    return x.ndim in (3, 4) and same_floats(x) and x.size > 0 and prod(x.shape[2:]) < LIMIT


def forward(
    xp: Any, x: Any, *, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> tuple[Any, Cache]:
    """``ops.max_pool`` and the place of each maximum."""
    check_max_pool(x, kernel_size, stride, padding, dilation)
    stride = kernel_size if stride is None else stride
    window = windows(x.shape, kernel_size, stride, padding, dilation)
    x = xp.ascontiguousarray(x)
    shape = (*x.shape[:2], *window.outputs[-(x.ndim - 2) :])
    place = "unsigned char" if window.count <= 256 else "int"
    y, winners = xp.empty(shape, x.dtype), xp.empty(shape, _PLACES[place])
    geometry = kernels.by_value(record(window))
    _run(xp, "forward", place, (x, y, winners), y.shape, geometry)
    return y, Cache(winners, geometry, x.shape, place)


def backward(xp: Any, y_bar: Any, cache: Cache) -> tuple[Any]:
    """Each cotangent goes to the place of the maximum of its window."""
    y_bar = xp.ascontiguousarray(y_bar)
    x_bar = xp.empty(cache.shape, y_bar.dtype)
    _run(xp, "backward", cache.place, (y_bar, cache.winners, x_bar), cache.shape, cache.geometry)
    return (x_bar,)


def _run(xp: Any, direction: str, place: str, arrays: tuple, shape: tuple, geometry: Any) -> None:
    """Launch a thread per element of ``shape``."""
    planes = prod(shape[:2])
    device = kernels.device_of(xp, arrays[0])
    launch, together, parts = spread(planes, prod(shape[2:]), device)
    instance = f"max_pool_{direction}<{kernels.real(arrays[0])}, {place}>"
    kernels.run(xp, FILE, instance, launch, *arrays, planes, geometry, together, parts)
