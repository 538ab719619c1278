"""Launches of ``conv.cu``."""

from collections.abc import Callable
from typing import Any, NamedTuple

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Device, Launch
from minigrad.fused.cuda.kernels import sum_rows
from minigrad.fused.cuda.windows import RECORD, record, windows
from minigrad.ops.window import Window

FILE = "conv.cu"
INSTANCES = (
    *(f"conv_{way}<{real}>" for way in ("forward", "backward_x", "backward_w")
      for real in ("float", "double")),
    "sum_rows<float>", "sum_rows<double>",
)  # fmt: skip
CHANNELS = 8  # that a thread computes at once
_RECORD = [(name, "int32") for name in ("n", "c", "a", "groups", "biased")] + RECORD


class Cache(NamedTuple):
    """What the backward needs."""

    x: Any
    w: Any
    found: Window
    groups: int
    biased: bool


def accepts(x: Any, w: Any, b: Any = None, *, stride=1, padding=0, dilation=1, groups=1) -> bool:
    """Whether the kernels serve this call: the planes of one group fit into shared memory."""
    operands = (x, w) if b is None else (x, w, b)
    if x.ndim not in (3, 4) or w.ndim != x.ndim or not kernels.is_real(*operands):
        return False
    fits = groups >= 1 and x.shape[1] == w.shape[1] * groups and w.shape[0] % groups == 0
    fits = fits and (b is None or b.shape == w.shape[:1])
    if not fits or 0 in x.shape or 0 in w.shape:
        return False
    found = windows(x.shape, w.shape[2:], stride, padding, dilation)
    sizes = _sizes(x.shape, w.shape, found, groups, 256)
    return max(sizes) * x.dtype.itemsize <= kernels.LARGE


def forward(
    xp: Any, x: Any, w: Any, b: Any = None, *, stride=1, padding=0, dilation=1, groups=1
) -> tuple[Any, Cache]:
    """``ops.conv``; see there."""
    found = windows(x.shape, w.shape[2:], stride, padding, dilation)
    x, w = xp.ascontiguousarray(x), xp.ascontiguousarray(w)
    bias = w if b is None else xp.ascontiguousarray(b)  # w is not read as one
    y = xp.empty((x.shape[0], w.shape[0], *found.outputs[-(x.ndim - 2) :]), x.dtype)
    cache = Cache(x, w, found, groups, b is not None)
    _per_image(xp, "forward", cache, x, w, bias, y)
    return y, cache


def backward(xp: Any, y_bar: Any, cache: Cache) -> tuple[Callable, ...]:
    """Functions that compute the cotangents of x, w and b, each only where it is needed."""
    y_bar = xp.ascontiguousarray(y_bar, cache.x.dtype)

    def x_bar() -> Any:
        result = xp.empty(cache.x.shape, cache.x.dtype)
        _per_image(xp, "backward_x", cache, y_bar, cache.w, result)
        return result

    def b_bar() -> Any:
        planes = y_bar.reshape(*y_bar.shape[:2], -1)
        return planes.sum(axis=2).sum(axis=0)  # at once, CuPy sums it in very few blocks

    bars = x_bar, lambda: _backward_w(xp, y_bar, cache), b_bar
    return bars if cache.biased else bars[:2]


def _sizes(
    x_shape: tuple, w_shape: tuple, found: Window, groups: int, threads: int
) -> tuple[int, int, int]:
    """Values of shared memory for the forward, the cotangent of x and that of w."""
    inputs, outputs = found.sizes[0] * found.sizes[1], found.outputs[0] * found.outputs[1]
    channels, kernels_ = x_shape[1] // groups, w_shape[0] // groups
    sums = 2 * threads * CHANNELS  # doubles, counted as two values each
    return (
        channels * (inputs + found.count * CHANNELS),
        kernels_ * (outputs + found.count * CHANNELS),
        max(channels * inputs + outputs * CHANNELS, sums),
    )


def _per_image(xp: Any, way: str, cache: Cache, *arrays: Any) -> None:
    """The forward and the cotangent of x: blocks walk over images."""
    source, result = arrays[0], arrays[-1]
    device, found, groups = kernels.device_of(xp, source), cache.found, cache.groups
    is_forward = way == "forward"
    channels = result.shape[1] // groups
    tiles = groups * -(-channels // CHANNELS)
    slices = max(1, min(cache.x.shape[0], -(-16 * device.multiprocessors // tiles)))
    places = found.outputs if is_forward else found.sizes
    threads = _threads(places[0] * places[1], device)
    size = _sizes(cache.x.shape, cache.w.shape, found, groups, 0)[0 if is_forward else 1]
    launch = Launch(tiles * slices, threads, size * source.dtype.itemsize)
    instance = f"conv_{way}<{kernels.real(source)}>"
    kernels.run(xp, FILE, instance, launch, *arrays, _geometry(cache), tiles, slices)


def _backward_w(xp: Any, y_bar: Any, cache: Cache) -> Any:
    x, w, found, groups, _ = cache
    device = kernels.device_of(xp, x)
    threads = min(256, device.threads)
    a, taps = w.shape[0], w.shape[1] * found.count
    tiles = groups * -(-(a // groups) // CHANNELS)
    width = min(taps, threads)
    chunks = -(-taps // width)
    slices = max(1, min(x.shape[0], -(-8 * device.multiprocessors // (tiles * chunks))))
    partials = xp.empty((slices, a * taps), "float64")
    size = _sizes(x.shape, w.shape, found, groups, threads)[2]
    launch = Launch(tiles * chunks * slices, threads, size * x.dtype.itemsize)
    instance = f"conv_backward_w<{kernels.real(x)}>"
    numbers = (_geometry(cache), tiles, chunks, slices, width)
    kernels.run(xp, FILE, instance, launch, y_bar, x, partials, *numbers)
    return sum_rows(xp, FILE, partials, w.shape, w.dtype)


def _geometry(cache: Cache) -> Any:
    n, c = cache.x.shape[:2]
    return kernels.by_value(
        (n, c, cache.w.shape[0], cache.groups, cache.biased, *record(cache.found)), _RECORD
    )


def _threads(places: int, device: Device) -> int:
    """As few threads as compute ``places`` in as few rounds as ``device.threads`` would need."""
    rounds = -(-places // min(256, device.threads))
    return -(-places // (32 * rounds)) * 32
