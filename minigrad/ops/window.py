"""Sliding windows: which elements a convolution or a pooling reads for each of its outputs.

The loops run over the few positions inside a window and process that position of all windows at
once. In convolutions the batch is the last and fastest axis in memory, so that even the rows of a
5 x 5 output are long contiguous runs. The arrays keep their logical order (N, C, ...); only their
strides differ, so elementwise ops between two convolutions keep the layout and nothing is
transposed in between. ``ops.pool`` keeps the order in memory that it finds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from math import inf, prod
from operator import index
from typing import Any

import numpy as np

from minigrad.errors import ShapeError, facts

_APART = 2048  # bytes; addresses that are a multiple of this apart share two sets of a first-level
_LINES = 16  # cache, which hold so many lines
_PIECE = 512  # elements of each image that a transposition copies at a time


@dataclass(frozen=True)
class Window:
    """The geometry of one pass over images (N, C, \\*sizes); tuples with one entry per axis."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many positions a window has."""
        return prod(self.kernel)

    @property
    def padded_sizes(self) -> tuple[int, ...]:
        return tuple(n + 2 * p for n, p in zip(self.sizes, self.padding, strict=True))

    @property
    def inner(self) -> "Window":
        """The same windows without the first image axis."""
        return Window(**{name: values[1:] for name, values in vars(self).items()})

    @property
    def is_identity(self) -> bool:
        """Whether every output reads exactly the element at its own position."""
        return self.outputs == self.sizes and not any(self.padding)

    @property
    def is_disjoint(self) -> bool:
        """Whether no two windows share an element."""
        axes = zip(self.kernel, self.dilation, self.stride, strict=True)
        return all(s > d * (k - 1) for k, d, s in axes)

    @property
    def is_partition(self) -> bool:
        """Whether each element of the padded image is in exactly one window."""
        covered = tuple(m * k for m, k in zip(self.outputs, self.kernel, strict=True))
        return self.is_disjoint and covered == self.padded_sizes

    def new(self, allocate: Callable, n: int, c: int, batch_first: bool = False) -> Any:
        """(C, \\*padded_sizes, N), made by ``allocate(shape)``.

        In memory its slowest axis is C or, if ``batch_first``, N.
        """
        if batch_first:
            return batch_to_end(allocate((n, c, *self.padded_sizes)))
        return allocate((c, *self.padded_sizes, n))

    def pad(self, xp: Any, x: Any, fill: float = 0.0, batch_first: bool = False) -> Any:
        """(N, C, \\*sizes) -> (C, \\*padded_sizes, N), in the order of ``new``; if there is nothing
        to pad, a view, or what ``batch_last`` returns if that pays."""
        is_padded = any(self.padding)
        reads = prod(self.outputs) * self.count  # of an image's channel
        if batch_first or (reads < prod(self.sizes) and not is_padded):
            xt = batch_to_end(x)
        else:
            xt = batch_last(xp, x)
        if not is_padded:
            return xt
        if fill == -inf and x.dtype.kind in "iu":
            fill = np.iinfo(x.dtype).min
        allocate = partial(xp.full, fill_value=fill, dtype=x.dtype)
        padded = self.new(allocate, *x.shape[:2], batch_first=batch_first)
        padded[self._inside()] = xt
        return padded

    def crop(self, padded: Any) -> Any:
        """(C, \\*padded_sizes, N) -> (N, C, \\*sizes), a view."""
        return batch_to_front(padded[self._inside()])

    def zeros(self, xp: Any, n: int, c: int, dtype: Any, batch_first: bool = False) -> Any:
        """Zeros of shape (C, \\*padded_sizes, N), in the order of ``new``."""
        return self.new(partial(xp.zeros, dtype=dtype), n, c, batch_first)

    def cuts(self) -> tuple[tuple[tuple[int, ...], tuple[slice, ...]], ...]:
        """``(position, cut)``: ``padded[cut]`` is the view of ``position``, as in ``views``."""
        return _cuts(self)

    def views(self, padded: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
        """``(position, view)``: the elements at that position of all windows, (C, \\*outputs, N).

        ``padded`` is (C, \\*padded_sizes, N); the positions in a window come in row-major order.
        """
        for position, cut in self.cuts():
            yield position, padded[cut]

    def _inside(self) -> tuple[slice, ...]:
        ends = zip(self.padding, self.sizes, strict=True)
        return (slice(None), *(slice(p, p + n) for p, n in ends))


def batch_to_end(x: Any) -> Any:
    """(N, C, \\*sizes) -> (C, \\*sizes, N), a view; ``moveaxis`` takes six times as long."""
    return x.transpose(*range(1, x.ndim), 0)


def batch_to_front(x: Any) -> Any:
    """(C, \\*sizes, N) -> (N, C, \\*sizes), a view."""
    return x.transpose(x.ndim - 1, *range(x.ndim - 1))


@lru_cache(maxsize=128)
def _cuts(windows: Window) -> tuple[tuple[tuple[int, ...], tuple[slice, ...]], ...]:
    fields = windows.dilation, windows.stride, windows.outputs
    cuts = []
    for position in product(*map(range, windows.kernel)):
        axes = zip(position, *fields, strict=True)
        cut = (slice(k * d, k * d + (m - 1) * s + 1, s) for k, d, s, m in axes)
        cuts.append((position, (slice(None), *cut)))
    return tuple(cuts)


def batch_last(xp: Any, x: Any) -> Any:
    """(N, C, \\*sizes) -> (C, \\*sizes, N): a view, or a copy where reading the view would be slow.

    It reads the same place of all images, one after another. If these are a multiple of 2048 bytes
    apart, as 32 x 32 images are, the cache maps them to so few of its sets that it loses a line
    before the next element in it is read. Then images are copied through a buffer that has other
    distances, which takes 0.16 to 0.8 of the time; at 1024 bytes it may take longer.
    """
    xt = batch_to_end(x)
    if xp is not np or not x.flags.c_contiguous:
        return xt
    n = len(x)
    if n <= _LINES or x.strides[0] % _APART:
        return xt
    rows = x.reshape(n, -1)
    copy, buffer = np.empty(rows.shape[::-1], x.dtype), np.empty((n, _PIECE + 16), x.dtype)
    for start in range(0, rows.shape[1], _PIECE):
        piece = rows[:, start : start + _PIECE]
        spare = buffer[:, : piece.shape[1]]
        spare[...] = piece
        copy[start : start + _PIECE] = spare.T
    return copy.reshape(xt.shape)


def window(
    shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Window:
    """The windows over images of ``shape`` (N, C, \\*sizes); an int applies to every axis.

    Raises:
        ShapeError: no image axes, parameters that do not fit them, or a window larger than the
            padded image.
    """
    sizes = tuple(shape[2:])
    if not sizes:
        raise ShapeError(facts("window: x", expected="(N, C, L, ...)", got=tuple(shape)))
    return _window(sizes, *geometry(len(sizes), kernel_size, stride, padding, dilation))


@lru_cache(maxsize=1024)
def _window(sizes: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple) -> Window:
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    # how far a window can move along each axis
    ranges = [n + 2 * p - extent for n, p, extent in zip(sizes, padding, extents, strict=True)]
    if min(ranges) < 0:
        got = f"{tuple(extents)} on images {sizes} padded by {padding}"
        raise ShapeError(facts("window: extent", expected="at most the padded image", got=got))
    outputs = tuple(r // s + 1 for r, s in zip(ranges, stride, strict=True))
    return Window(sizes, kernel, stride, padding, dilation, outputs)


def geometry(
    n: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[tuple[int, ...], ...]:
    """The four parameters as tuples of ``n`` ints, one per image axis.

    Raises:
        ShapeError: a parameter that does not fit ``n`` axes.
    """
    return (
        per_axis("kernel_size", kernel_size, n, least=1),
        per_axis("stride", stride, n, least=1),
        per_axis("padding", padding, n, least=0),
        per_axis("dilation", dilation, n, least=1),
    )


def per_axis(name: str, value: Any, n: int, least: int) -> tuple[int, ...]:
    """``value``, an int or ``n`` ints that are at least ``least``, as a tuple of ``n`` ints."""
    if value.__class__ is int and value >= least:
        return (value,) * n
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    try:
        ints = tuple(map(index, values))
    except TypeError:
        ints = ()
    if len(ints) != n or min(ints, default=least) < least:
        expected = f"an int or {n} ints >= {least}"
        raise ShapeError(facts(f"window: {name}", expected=expected, got=repr(value)))
    return ints
