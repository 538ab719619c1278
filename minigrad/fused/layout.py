"""How arrays (N, C, ...) lie in memory, as three axes that a kernel can walk without copies."""

from math import prod
from typing import Any


def is_batch_last(x: Any) -> bool:
    """Whether N is the fastest axis in memory, as convolution leaves it; C order otherwise."""
    return not x.flags.c_contiguous and x.transpose(*range(1, x.ndim), 0).flags.c_contiguous


def to_blocks(x: Any, batch_last: bool) -> Any:
    """(N, C, \\*sizes) as (P, C, S) in C order: (N, C, prod(sizes)), or (1, C, prod(sizes) * N).

    A view where ``x`` lies in memory that way, a copy otherwise.
    """
    if batch_last:
        x = x.transpose(*range(1, x.ndim), 0)
        return x.reshape(1, x.shape[0], prod(x.shape[1:]))
    return x.reshape(*x.shape[:2], prod(x.shape[2:]))


def from_blocks(blocks: Any, shape: tuple[int, ...], batch_last: bool) -> Any:
    """The view of shape (N, C, \\*sizes) of what ``to_blocks`` made of such an array."""
    if batch_last:
        folded = blocks.reshape(*shape[1:], shape[0])
        return folded.transpose(len(shape) - 1, *range(len(shape) - 1))
    return blocks.reshape(shape)


def axes_in_memory(x: Any) -> tuple[int, ...]:
    """The axes of ``x``, the one with the longest steps first."""
    return tuple(sorted(range(x.ndim), key=lambda i: -x.strides[i]))


def flat(x: Any, axes: tuple[int, ...]) -> Any:
    """``x`` as one row, its axes in this order; a view where ``x`` lies in memory that way."""
    return x.transpose(axes).reshape(-1)


def unflat(row: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """The view of shape ``shape`` of what ``flat`` made of such an array."""
    folded = row.reshape([shape[i] for i in axes])
    return folded.transpose([axes.index(i) for i in range(len(axes))])
