"""Launches of ``conv.cu``."""

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any, NamedTuple

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Device, Launch
from minigrad.fused.cuda.kernels import by_value, sum_rows
from minigrad.fused.cuda.windows import LIMIT, record, windows
from minigrad.fused.declare import same_floats
from minigrad.ops.window import Window

FILE = "conv.cu"
INSTANCES = (
    *(f"conv_{direction}<{real}>" for direction in ("forward", "backward_x", "backward_w")
      for real in ("float", "double")),
    "sum_rows<float>", "sum_rows<double>",
)  # fmt: skip
CHANNELS = 8  # of a tile, as in ``conv.cu``
_LIMIT = 64 * 1024  # bytes of shared memory that every supported GPU can give a block


class Cache(NamedTuple):
    """The values the backward needs."""

    x: Any
    w: Any
    window: Window
    groups: int
    biased: bool
    geometry: Any  # ``struct Conv``


def accepts(x: Any, w: Any, b: Any = None, *, stride=1, padding=0, dilation=1, groups=1) -> bool:
    """Whether the kernels serve this call: the planes of one group fit into shared memory."""
    if x.ndim not in (3, 4) or w.ndim != x.ndim or not same_floats(x, w, b):
        return False
    fits = groups >= 1 and x.shape[1] == w.shape[1] * groups and w.shape[0] % groups == 0
    fits = fits and (b is None or b.shape == w.shape[:1])
    if not fits or 0 in x.shape or 0 in w.shape or x.shape[0] >= LIMIT:
        return False
    window = windows(x.shape, w.shape[2:], stride, padding, dilation)
    sizes = _sizes(x.shape, w.shape, window, groups, 256)
    return max(sizes) * x.dtype.itemsize <= _LIMIT


def forward(
    xp: Any, x: Any, w: Any, b: Any = None, *, stride=1, padding=0, dilation=1, groups=1
) -> tuple[Any, Cache]:
    """``ops.conv`` in one launch."""
    window = windows(x.shape, w.shape[2:], stride, padding, dilation)
    x, w = xp.ascontiguousarray(x), xp.ascontiguousarray(w)
    bias = w if b is None else xp.ascontiguousarray(b)  # a placeholder is not read
    y = xp.empty((x.shape[0], w.shape[0], *window.outputs[-(x.ndim - 2) :]), x.dtype)
    sizes = *x.shape[:2], w.shape[0], groups, b is not None, *record(window)
    cache = Cache(x, w, window, groups, b is not None, by_value(sizes))
    device = kernels.device_of(xp, x)
    tiles = _tiles(w.shape[0], groups)
    slices = _slices(cache, tiles, 16, device)
    size = _sizes(x.shape, w.shape, window, groups, 0)[0]
    # one per two outputs, but not too few to read the weights
    threads = max(_threads(-(-prod(window.outputs) // 2), device), min(128, device.threads))
    launch = Launch(tiles * slices, threads, size * x.itemsize)
    instance = f"conv_forward<{kernels.real(x)}>"
    kernels.run(xp, FILE, instance, launch, x, w, bias, y, cache.geometry, tiles, slices)
    return y, cache


def backward(xp: Any, y_bar: Any, saved: Cache) -> tuple[Callable, ...]:
    """Functions that compute the cotangents of x, w and b, each only where it is needed."""
    y_bar = xp.ascontiguousarray(y_bar, saved.x.dtype)

    @cache
    def sums() -> tuple[Any, Any]:
        return _backward_w(xp, y_bar, saved)

    bars = lambda: _backward_x(xp, y_bar, saved), lambda: sums()[0], lambda: sums()[1]
    return bars if saved.biased else bars[:2]


def _sizes(
    x_shape: tuple, w_shape: tuple, window: Window, groups: int, threads: int
) -> tuple[int, int, int]:
    """Values of shared memory for the forward, the cotangent of x and that of w."""
    padded, outputs = prod(window.padded_sizes), prod(window.outputs)
    in_channels, out_channels = x_shape[1] // groups, w_shape[0] // groups
    sums = 2 * threads * CHANNELS  # doubles, counted as two values each
    return (
        in_channels * (padded + window.count * CHANNELS) + CHANNELS,
        out_channels * (outputs + window.count * CHANNELS),
        max(in_channels * padded + outputs * CHANNELS, sums),
    )


def _backward_x(xp: Any, y_bar: Any, cache: Cache) -> Any:
    x, w, window, groups, _, geometry = cache
    device = kernels.device_of(xp, x)
    tiles = _tiles(x.shape[1], groups)
    slices = _slices(cache, tiles, 16, device)
    size = _sizes(x.shape, w.shape, window, groups, 0)[1]
    threads = _threads(prod(window.sizes), device)
    launch = Launch(tiles * slices, threads, size * x.itemsize)
    x_bar = xp.empty(x.shape, x.dtype)
    instance = f"conv_backward_x<{kernels.real(x)}>"
    kernels.run(xp, FILE, instance, launch, y_bar, w, x_bar, geometry, tiles, slices)
    return x_bar


def _backward_w(xp: Any, y_bar: Any, cache: Cache) -> tuple[Any, Any]:
    """The cotangents of w and b; the second is empty if there is no b."""
    x, w, window, groups, biased, geometry = cache
    device = kernels.device_of(xp, x)
    threads = min(256, device.threads)
    a, taps = w.shape[0], w.shape[1] * window.count
    tiles = _tiles(a, groups)
    width = 2 * min(-(-(taps + biased) // 2), threads)
    chunks = -(-(taps + biased) // width)
    slices = _slices(cache, tiles * chunks, 4, device)
    partials = xp.empty((slices, a * (taps + biased)), "float64")
    size = _sizes(x.shape, w.shape, window, groups, threads)[2]
    launch = Launch(tiles * chunks * slices, threads, size * x.itemsize)
    instance = f"conv_backward_w<{kernels.real(x)}>"
    numbers = (geometry, tiles, chunks, slices, width)
    kernels.run(xp, FILE, instance, launch, y_bar, x, partials, *numbers)
    both = sum_rows(xp, FILE, partials, partials.shape[1:], w.dtype)
    return both[: w.size].reshape(w.shape), both[w.size :]


def _tiles(channels: int, groups: int) -> int:
    """How many tiles of channels there are; see ``struct Tile``."""
    return groups * -(-(channels // groups) // CHANNELS)


def _slices(cache: Cache, blocks: int, per_multiprocessor: int, device: Device) -> int:
    """The number of slices of the batch, each of ``blocks`` blocks, that gives a multiprocessor
    ``per_multiprocessor`` blocks."""
    return max(1, min(cache.x.shape[0], -(-per_multiprocessor * device.multiprocessors // blocks)))


def _threads(places: int, device: Device) -> int:
    """The fewest threads that compute ``places`` in as few rounds as ``device.threads`` would."""
    rounds = -(-places // device.threads)
    return -(-places // (32 * rounds)) * 32
