"""Views of arrays that follow their order in memory, so that kernels walk them without copies.

``to_blocks`` gives (N, C, ...) three axes (P, C, S), ``flat`` gives any array a single axis.
"""

from math import prod
from typing import Any

from minigrad.ops.window import batch_to_end, batch_to_front


def is_batch_last(x: Any) -> bool:
    """Whether N is the fastest axis in memory, as in results of convolution."""
    return not x.flags.c_contiguous and batch_to_end(x).flags.c_contiguous


def to_blocks(x: Any, batch_last: bool) -> Any:
    """(N, C, \\*sizes) as (N, C, prod(sizes)), or (1, C, prod(sizes) * N) if the batch is last.

    A view where ``x`` already has this order in memory, a copy otherwise.
    """
    if batch_last:
        x = batch_to_end(x)
        return x.reshape(1, x.shape[0], prod(x.shape[1:]))
    return x.reshape(*x.shape[:2], prod(x.shape[2:]))


def from_blocks(blocks: Any, shape: tuple[int, ...], batch_last: bool) -> Any:
    """The inverse of ``to_blocks``: a view of shape (N, C, \\*sizes)."""
    if batch_last:
        return batch_to_front(blocks.reshape(*shape[1:], shape[0]))
    return blocks.reshape(shape)


def axes_in_memory(x: Any) -> tuple[int, ...]:
    """The axes of ``x`` in the order of their strides, the largest first."""
    return tuple(sorted(range(x.ndim), key=lambda i: -x.strides[i]))


def flat(x: Any, axes: tuple[int, ...]) -> Any:
    """``x`` as one row, with its axes in this order; a view where memory has this order."""
    return x.transpose(axes).reshape(-1)


def unflat(row: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """The inverse of ``flat``: a view of shape ``shape``."""
    folded = row.reshape([shape[i] for i in axes])
    return folded.transpose([axes.index(i) for i in range(len(axes))])
