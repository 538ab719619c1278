"""Convolution and max pooling as one op each; the geometry is that of ``ops.window``."""

from functools import partial
from math import prod

import numpy as np

from minigrad.fused import ring
from minigrad.fused.declare import Pair, fused
from minigrad.fused.memory import empty
from minigrad.ops.conv import check_conv, col2im, conv, im2col
from minigrad.ops.pool import max_pool, max_unpool, pool_window, put_winners, winners_of
from minigrad.ops.window import batch_last, batch_to_front, window


@fused(
    conv,
    pullback=r"\bar x_{n,c,s o + d k - p} \mathrel{+}= \sum_a w_{a,c,k}\, \bar y_{n,a,o},\quad "
    r"\bar w_{a,c,k} = \sum_{n,o} \bar y_{n,a,o}\, x_{n,c,s o + d k - p},\quad "
    r"\bar b_a = \sum_{n,o} \bar y_{n,a,o}",
)
def fused_conv(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """``ops.conv`` that does not keep the columns of ``im2col``: the backward makes them again.

    Args:
        x: (N, C, \\*sizes), with one, two, three ... axes of ``sizes``.
        w: (A, C / groups, \\*kernel), A output channels.
        b: (A,), added to each output channel; it may be left out.
        stride, padding, dilation: an int, or one per axis of ``sizes``; padded with zeros.
        groups: output channel a sees only its share of the input channels.

    Returns:
        (N, A, \\*outputs).

    Raises:
        ShapeError: channels or axes that do not fit, or a kernel larger than the padded image.

    >>> mg.fused.conv(mg.tensor([[[1.0, 2.0, 4.0]]]), np.array([[[-1.0, 1.0]]]))
    tensor([[[1., 2.]]])
    """
    check_conv(x, w, b, groups)
    geometry = {"kernel_size": tuple(w.shape[2:])}
    geometry |= {"stride": stride, "padding": padding, "dilation": dilation}
    outputs = window(x.shape, **geometry).outputs
    columns = im2col(x, **geometry)
    rows = _rows(w, groups)
    y = xp.matmul(rows, columns.reshape(groups, rows.shape[2], columns.shape[1]))
    y = batch_to_front(y.reshape(w.shape[0], *outputs, x.shape[0]))
    y = y if b is None else y + b.reshape(-1, *(1,) * len(outputs))
    return y, (x, w, b is not None, groups, geometry)


@fused_conv.defbackward
def conv_backward(xp, y_bar, cache):
    x, w, has_bias, groups, geometry = cache
    rows = _rows(w, groups)
    places = y_bar.shape[0] * prod(y_bar.shape[2:])
    g = batch_last(xp, y_bar).reshape(groups, rows.shape[1], places)

    def x_bar():
        columns = xp.matmul(rows.transpose(0, 2, 1), g)
        columns = columns.reshape(groups * rows.shape[2], g.shape[2])
        return col2im(columns, shape=x.shape, **geometry)

    def w_bar():
        columns = im2col(x, **geometry).reshape(groups, rows.shape[2], g.shape[2])
        return xp.matmul(g, columns.transpose(0, 2, 1)).reshape(w.shape)

    return (x_bar, w_bar, lambda: g.sum(axis=2).reshape(-1)) if has_bias else (x_bar, w_bar)


def _rows(w, groups):
    """The weights as matrices, (groups, A / groups, taps)."""
    return w.reshape(groups, w.shape[0] // groups, prod(w.shape[1:]))


fused_conv.pairs["numpy"] = ring.conv


@fused(max_pool, pullback=max_pool.pullback)
def fused_max_pool(xp, x, *, kernel_size, stride=None, padding=0, dilation=1):
    """``ops.max_pool`` with a kernel for its backward; ties are broken as in ``ops.max_pool``.

    Args:
        x: (N, C, \\*sizes).
        kernel_size, padding, dilation: an int, or one per axis of ``sizes``.
        stride: an int, or one per axis; None means ``kernel_size``.

    Returns:
        (N, C, \\*outputs).

    Raises:
        ShapeError: the window is larger than the padded image.

    >>> mg.fused.max_pool(mg.tensor([[[1.0, 5.0, 2.0, 3.0]]]), kernel_size=2)
    tensor([[[5., 3.]]])
    """
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    geometry["kernel_size"] = kernel_size
    y = max_pool.forward(xp, x, **geometry)
    return y, (winners_of(x, y, **geometry), tuple(x.shape), geometry)


@fused_max_pool.defbackward
def max_pool_backward(xp, y_bar, cache):
    winners, shape, geometry = cache
    return (max_unpool(y_bar, winners=winners, shape=shape, **geometry),)


def _max_pool_backward(xp, y_bar, cache):
    """``max_pool_backward`` into memory of the arena."""
    winners, shape, geometry = cache
    windows = pool_window(shape, **geometry)
    allocate = partial(empty, dtype=y_bar.dtype)
    total = windows.new(allocate, *shape[:2], batch_first=winners.flags.c_contiguous)
    if not windows.is_partition:
        total[...] = 0
    return (put_winners(np, y_bar, winners, windows, total),)


fused_max_pool.pairs["numpy"] = Pair(fused_max_pool.portable, _max_pool_backward)
