"""Ops that rearrange elements; all but ``pad`` with a constant other than 0 are linear."""

from itertools import pairwise

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from minigrad.composite import composite
from minigrad.core.broadcast import astype, broadcast_to, sum_to
from minigrad.core.op import op
from minigrad.declaration import Case
from minigrad.errors import UsageError
from minigrad.ops.index import getitem

__all__ = [
    "astype", "broadcast_to", "concatenate", "expand_dims", "flip", "pad", "reshape", "split",
    "squeeze", "stack", "sum_to", "swapaxes", "transpose", "unstack",
]  # fmt: skip


def floating(x):
    """``x`` with integers and booleans as float64, for functions whose values are not integers."""
    return astype(x, dtype="float64") if x.dtype.kind in "biu" else x


@op(
    formula=r"y = \mathrm{reshape}(x)",
    pullback=r"\bar x = \mathrm{reshape}(\bar y)",
    linear="jointly",
    cases=(
        Case(((2, 6),), {"shape": (3, 4)}),
        Case(((2, 6),), {"shape": (-1,)}),
        Case(((),), {"shape": (1, 1)}),
        Case(((0, 3),), {"shape": (3, 0)}),
    ),
)
def reshape(xp, x, *, shape):
    """The elements of ``x`` in C order in another ``shape``; one entry may be -1.

    >>> mg.reshape(mg.tensor([1.0, 2.0, 3.0, 4.0]), (2, 2))
    tensor([[1., 2.],
            [3., 4.]])
    """
    return xp.reshape(x, shape)


@reshape.defvjp
def reshape_vjp(y_bar, y, x, *, shape):
    return (reshape(y_bar, shape=x.shape),)


@op(
    formula=r"y = x^\mathsf{T}",
    pullback=r"\bar x = \bar y^\mathsf{T}",
    symbol="transpose",
    linear="jointly",
    cases=(Case(((2, 3, 4),)), Case(((2, 3, 4),), {"axes": (1, -1, 0)}), Case(((),))),
)
def transpose(xp, x, *, axes=None):
    """Permute the axes of ``x``; None reverses them.

    >>> mg.transpose(mg.tensor([[1.0, 2.0]]))
    tensor([[1.],
            [2.]])
    """
    return xp.transpose(x, axes)


@transpose.defvjp
def transpose_vjp(y_bar, y, x, *, axes=None):
    if axes is not None and x.ndim > 1:  # a vector has one order only, and its axes may be 0
        order = [a % len(axes) for a in axes]
        axes = tuple(order.index(i) for i in range(len(order)))
    return (transpose(y_bar, axes=axes),)


@op(
    formula=r"y_{ji} = x_{ij}",
    pullback=r"\bar x_{ij} = \bar y_{ji}",
    linear="jointly",
    cases=(Case(((2, 3, 4),), {"axis1": 0, "axis2": -1}),),
)
def swapaxes(xp, x, *, axis1, axis2):
    """Exchange two axes of ``x``.

    >>> mg.swapaxes(mg.tensor(np.zeros((2, 3, 4))), 0, 2).shape
    (4, 3, 2)
    """
    return xp.swapaxes(x, axis1, axis2)


@swapaxes.defvjp
def swapaxes_vjp(y_bar, y, x, *, axis1, axis2):
    return (swapaxes(y_bar, axis1=axis1, axis2=axis2),)


@op(
    formula=r"y = \mathrm{squeeze}(x)",
    pullback=r"\bar x = \mathrm{reshape}(\bar y)",
    linear="jointly",
    cases=(Case(((1, 3, 1),)), Case(((1, 3, 1),), {"axis": 0}), Case(((1, 1),), {"axis": (0, 1)})),
)
def squeeze(xp, x, *, axis=None):
    """Drop axes of length 1; None drops all of them.

    >>> mg.squeeze(mg.tensor([[[1.0], [2.0]]])).shape
    (2,)
    """
    return xp.squeeze(x, axis=axis)


@squeeze.defvjp
def squeeze_vjp(y_bar, y, x, *, axis=None):
    return (reshape(y_bar, shape=x.shape),)


@op(
    formula=r"y = \mathrm{expand}(x)",
    pullback=r"\bar x = \mathrm{reshape}(\bar y)",
    linear="jointly",
    cases=(Case(((2, 3),), {"axis": 1}), Case(((),), {"axis": 0}), Case(((3,),), {"axis": (0, 2)})),
)
def expand_dims(xp, x, *, axis):
    """Insert axes of length 1 at the positions ``axis`` of the result.

    >>> mg.expand_dims(mg.tensor([1.0, 2.0]), 1).shape
    (2, 1)
    """
    return xp.expand_dims(x, axis)


@expand_dims.defvjp
def expand_dims_vjp(y_bar, y, x, *, axis):
    return (reshape(y_bar, shape=x.shape),)


@op(
    formula=r"y = (x_1 \mid x_2 \mid \dots)",
    pullback=r"\bar x_i = \bar y\,[\text{rows of } x_i]",
    linear="jointly",
    cases=(
        Case(((2, 3), (1, 3), (4, 3)), {"axis": 0}),
        Case(((2, 1), (2, 3)), {"axis": -1}),
        Case(((2, 0), (2, 3)), {"axis": 1}),
    ),
)
def concatenate(xp, *xs, axis=0):
    """Join arrays, given as a sequence or one by one, along an existing ``axis``.

    >>> mg.concatenate([mg.tensor([1.0]), mg.tensor([2.0, 3.0])])
    tensor([1., 2., 3.])
    """
    if axis is None:
        raise ValueError("axis must be an int; flatten the operands to join them as vectors")
    return xp.concatenate(xs, axis=axis)


@concatenate.defvjp
def concatenate_vjp(y_bar, y, *xs, axis=0):
    axis = axis % y.ndim
    cotangents, start = [], 0
    for x in xs:
        stop = start + x.shape[axis]
        cotangents.append(getitem(y_bar, key=(slice(None),) * axis + (slice(start, stop),)))
        start = stop
    return tuple(cotangents)


@op(
    formula=r"y_i = x_i",
    pullback=r"\bar x_i = \bar y_i",
    linear="jointly",
    cases=(Case(((2, 3), (2, 3)), {"axis": 1}), Case(((), (), ()), {"axis": 0})),
)
def stack(xp, *xs, axis=0):
    """Join arrays of one shape, given as a sequence or one by one, along a new ``axis``.

    >>> mg.stack([mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])], axis=1)
    tensor([[1., 3.],
            [2., 4.]])
    """
    return xp.stack(xs, axis=axis)


@stack.defvjp
def stack_vjp(y_bar, y, *xs, axis=0):
    before = (slice(None),) * (axis % y.ndim)
    return tuple(getitem(y_bar, key=(*before, i)) for i in range(len(xs)))


@composite(
    formula=r"y_i = x_i",
    cases=(Case(((3, 2),)), Case(((2, 10),), {"axis": -1})),
)
def unstack(x, *, axis=0):
    """The slices of ``x`` along ``axis``; the inverse of ``stack``.

    A backward pass through a loop over the n slices takes O(n log n); through a loop over ``x[i]``
    it takes O(n^2), since each ``x[i]`` has a cotangent of the size of ``x``.

    Returns:
        A list of views of ``x``.

    >>> a, b = mg.unstack(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    >>> b
    tensor([2., 4.])
    """
    axis = normalize_axis_index(axis, x.ndim)
    return list(slices(x, (slice(None),) * axis, x.shape[axis]))


_PARTS = 8  # pieces cut from one array at a time; any number from 3 to 16 takes about as long


def slices(x, before, n):
    """The ``n`` slices of ``x`` along the axis behind ``before``, which is one ``:`` per axis.

    Many slices are cut in stages, into at most ``_PARTS`` each, so that the backward pass adds
    cotangents of the size of a part, not of ``x``.
    """
    if n <= _PARTS:
        yield from (getitem(x, key=(*before, i)) for i in range(n))
        return
    step = -(-n // _PARTS)
    for i in range(0, n, step):
        part = getitem(x, key=(*before, slice(i, i + step)))
        yield from slices(part, before, min(step, n - i))


@composite(
    formula=r"y_1, y_2, \dots = \mathrm{split}(x)",
    cases=(
        Case(((6, 2),), {"indices_or_sections": np.int64(3)}),
        Case(((2, 5),), {"indices_or_sections": (1, 3), "axis": 1}),
    ),
)
def split(x, *, indices_or_sections, axis=0):
    """Cut ``x`` along ``axis`` into a number of equal sections, or before each of the indices.

    Returns:
        A list of views of ``x``.

    Raises:
        UsageError: ``x`` cannot be cut into that many equal sections.

    >>> [part.shape for part in mg.split(mg.tensor(np.zeros((6, 2))), 3)]
    [(2, 2), (2, 2), (2, 2)]
    """
    axis = normalize_axis_index(axis, x.ndim)
    n, cuts = x.shape[axis], indices_or_sections
    if isinstance(cuts, (int, np.integer)):
        if cuts < 1 or n % cuts:
            raise UsageError(
                f"split: cannot cut axis {axis} of length {n} into {cuts} equal sections"
            )
        cuts = range(n // cuts, n, n // cuts)
    before = (slice(None),) * axis
    edges = [0, *cuts, n]
    return [getitem(x, key=(*before, slice(*pair))) for pair in pairwise(edges)]


@op(
    formula=r"y = (0 \mid x \mid 0)",
    pullback=r"\bar x = \bar y\,[\text{inside}]",
    cases=(
        Case(((2, 3),), {"pad_width": 1}),
        Case(((2, 3),), {"pad_width": ((0, 1), (2, 0)), "constant_values": 1.5}),
        Case(((3,),), {"pad_width": (1, 2)}),
        Case(((2, 3),), {"pad_width": ((1,), (2,))}),
        Case(((2, 3),), {"pad_width": np.array([1, 2])}),
    ),
)
def pad(xp, x, *, pad_width, mode="constant", constant_values=0.0):
    """Surround ``x`` with a constant; ``pad_width`` as in ``numpy.pad``.

    Args:
        x: any shape.
        pad_width: an int, ``(before, after)`` or one such pair per axis: whatever broadcasts to
            (ndim, 2).
        mode: only ``"constant"``.
        constant_values: the number to pad with.

    >>> mg.pad(mg.tensor([1.0, 2.0]), (1, 2))
    tensor([0., 1., 2., 0., 0.])
    """
    if mode != "constant":
        raise UsageError(f"pad: mode must be 'constant', not {mode!r}")
    pairs = _pairs(pad_width, x.ndim) or 0  # a scalar has no axis to pad
    return xp.pad(x, pairs, mode=mode, constant_values=constant_values)


def _pairs(pad_width, ndim):
    """``(before, after)`` for each axis."""
    return tuple(map(tuple, np.broadcast_to(pad_width, (ndim, 2)).tolist()))


@pad.defvjp
def pad_vjp(y_bar, y, x, *, pad_width, mode="constant", constant_values=0.0):
    pairs = zip(_pairs(pad_width, x.ndim), x.shape, strict=True)
    inside = tuple(slice(before, before + n) for (before, _), n in pairs)
    return (getitem(y_bar, key=inside),)


@pad.defjvp
def pad_jvp(x_dots, y, x, *, pad_width, mode="constant", constant_values=0.0):
    return pad(x_dots[0], pad_width=pad_width)  # the constant has tangent 0


@op(
    formula=r"y_i = x_{n-1-i}",
    pullback=r"\bar x_i = \bar y_{n-1-i}",
    linear="jointly",
    cases=(Case(((2, 3),)), Case(((2, 3),), {"axis": 1}), Case(((2, 3, 2),), {"axis": (0, -1)})),
)
def flip(xp, x, *, axis=None):
    """Reverse the order along ``axis`` (an int, a tuple, or None for all).

    >>> mg.flip(mg.tensor([1.0, 2.0, 3.0]))
    tensor([3., 2., 1.])
    """
    return xp.flip(x, axis=axis)


@flip.defvjp
def flip_vjp(y_bar, y, x, *, axis=None):
    return (flip(y_bar, axis=axis),)
