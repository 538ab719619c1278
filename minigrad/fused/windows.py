"""Convolution and max pooling as one op each; the geometry is that of ``ops.window``."""

from dataclasses import replace
from math import prod

import numpy as np

from minigrad.fused.declare import Pair, fused
from minigrad.fused.memory import empty
from minigrad.ops.conv import check_conv, col2im, conv, im2col
from minigrad.ops.pool import max_pool, max_unpool, put_winners, winners_of
from minigrad.ops.window import window

PIECE = 5 << 17  # values that NumPy lays out at a time
PLACES, PRODUCTS = 128, 1 << 15  # of a row of outputs, from which it is worth a call of its own


@fused(
    conv,
    pullback=r"\bar x_{n,c,s o + d k - p} \mathrel{+}= \sum_a w_{a,c,k}\, \bar y_{n,a,o},\quad "
    r"\bar w_{a,c,k} = \sum_{n,o} \bar y_{n,a,o}\, x_{n,c,s o + d k - p},\quad "
    r"\bar b = \sum \bar y",
)
def fused_conv(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """``ops.conv`` that keeps no columns: the backward lays them out anew.

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
    geometry = _geometry(w, stride, padding, dilation)
    outputs = window(x.shape, **geometry).outputs
    columns = im2col(x, **geometry)
    rows = _rows(w, groups)
    y = xp.matmul(rows, columns.reshape(groups, rows.shape[2], columns.shape[1]))
    y = xp.moveaxis(y.reshape(w.shape[0], *outputs, x.shape[0]), -1, 0)
    y = y if b is None else y + b.reshape(-1, *(1,) * len(outputs))
    return y, (x, w, b is not None, groups, geometry)


@fused_conv.defbackward
def conv_backward(xp, y_bar, cache):
    x, w, has_bias, groups, geometry = cache
    rows = _rows(w, groups)
    places = y_bar.shape[0] * prod(y_bar.shape[2:])
    g = xp.moveaxis(y_bar, 0, -1).reshape(groups, rows.shape[1], places)

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


def _geometry(w, stride, padding, dilation):
    words = {"stride": stride, "padding": padding, "dilation": dilation}
    return {"kernel_size": tuple(w.shape[2:]), **words}


def _forward(xp, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """A product for each row of the outputs.

    Only what the axes of the kernel but the first read is laid out, by rows of the images: then
    what a row of the outputs reads is a matrix already, of which the next row reads the most again.
    """
    check_conv(x, w, b, groups)
    windows = window(x.shape, **_geometry(w, stride, padding, dilation))
    kept = windows.pad(np, x), x.shape, w, b is not None, groups, windows
    rows = _row_weights(w, groups)
    operands = (x, w) if b is None else (x, w, b)
    places = _places(windows, x.shape[0])
    y = empty((*rows.shape[:2], windows.outputs[0], places), np.result_type(*operands))
    for reads, _ in _pieces(kept, kept[0]):
        for i, matrix in reads:
            np.matmul(rows, _as_matrix(matrix), out=y[:, :, i])
    if b is not None:
        y += b.reshape(*rows.shape[:2], 1, 1)
    return np.moveaxis(y.reshape(w.shape[0], *windows.outputs, x.shape[0]), -1, 0), kept


def _backward(xp, y_bar, cache):
    padded, shape, w, has_bias, groups, windows = cache
    rows = _row_weights(w, groups)
    places = _places(windows, shape[0])
    g = np.moveaxis(y_bar, 0, -1).reshape(*rows.shape[:2], windows.outputs[0], places)

    def x_bar():
        total = empty((shape[1], *windows.padded_sizes, shape[0]), g.dtype)
        total[...] = 0
        for reads, views in _pieces(cache, total, fill=False):
            for i, matrix in reads:
                matrix += np.matmul(rows.swapaxes(1, 2), g[:, :, i]).reshape(matrix.shape)
            for view, of_view in views:
                view += of_view
        return windows.crop(np, total)

    def w_bar():
        total = np.zeros(rows.shape, g.dtype)
        for reads, _ in _pieces(cache, padded):
            for i, matrix in reads:
                total += np.matmul(g[:, :, i], _as_matrix(matrix).swapaxes(1, 2))
        a, c, first, *others = w.shape
        return np.ascontiguousarray(total.reshape(a, first, c, *others).swapaxes(1, 2))

    return (x_bar, w_bar, lambda: g.sum(axis=(2, 3)).reshape(-1)) if has_bias else (x_bar, w_bar)


def _row_weights(w, groups):
    """The weights as matrices, (groups, A / groups, taps), the first axis of the kernel first."""
    return w.swapaxes(1, 2).reshape(groups, w.shape[0] // groups, prod(w.shape[1:]))


def _as_matrix(matrix):
    """What one row of the outputs reads, (groups, taps, places); a copy where it is dilated."""
    groups, reach, values, places = matrix.shape
    return matrix.reshape(groups, reach * values, places)


def _places(windows, n):
    """How many places one row of the outputs has in ``n`` images."""
    return prod(windows.outputs[1:]) * n


def _pieces(kept, images, fill=True):
    """For some rows of the outputs at a time: ``(which, what it reads)`` of each; pairs of views.

    What a row reads, (groups, rows of the images, channels and other axes of the kernel, places),
    is a part of one array. The pairs are of ``images`` (padded) and of that array, which ``fill``
    copies; else it is zero.
    """
    _, shape, w, _, groups, windows = kept
    (outer, *inner), places = windows.outputs, _places(windows, shape[0])
    stride, gap = windows.stride[0], windows.dilation[0]
    span = (windows.kernel[0] - 1) * gap + 1
    taps = prod(windows.kernel[1:])
    step = min(outer, max(PIECE // max(shape[1] * taps * places, 1), 4 * span) // stride + 1)
    high = (step - 1) * stride + span
    array = empty((groups, high, w.shape[1], taps, *inner, shape[0]), images.dtype)
    rows = array.reshape(groups, high, w.shape[1] * taps, places)
    others = {"kernel": (1, *windows.kernel[1:]), "stride": (1, *windows.stride[1:])}
    for start in range(0, outer, step):
        count = min(step, outer - start)
        those = replace(windows, **others, outputs=((count - 1) * stride + span, *inner))
        views = []
        for tap, (_, view) in enumerate(those.views(images[:, start * stride :])):
            of_array = array[:, : those.outputs[0], :, tap].swapaxes(1, 2)
            view = view.reshape(of_array.shape)
            of_array[...] = view if fill else 0
            views.append((view, of_array))
        firsts = range(0, count * stride, stride)
        yield [(start + i, rows[:, k : k + span : gap]) for i, k in enumerate(firsts)], views


def _accepts(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Rows that share what they read, and whose products take longer than calling them."""
    check_conv(x, w, b, groups)
    windows = window(x.shape, **_geometry(w, stride, padding, dilation))
    places = _places(windows, x.shape[0])
    is_large = places >= PLACES and w.size * places >= PRODUCTS
    return is_large and windows.kernel[0] > windows.stride[0]


fused_conv.pairs["numpy"] = Pair(_forward, _backward, _accepts)


@fused(max_pool, pullback=max_pool.pullback)
def fused_max_pool(xp, x, *, kernel_size, stride=None, padding=0, dilation=1):
    """``ops.max_pool`` with a kernel for its backward; ties as there.

    Args:
        x: (N, C, \\*sizes).
        kernel_size, padding, dilation: an int, or one per axis of ``sizes``.
        stride: likewise; None means ``kernel_size``.

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


def _unpool(xp, y_bar, cache):
    """As above, in memory that was used before."""
    winners, shape, geometry = cache
    stride = geometry["kernel_size"] if geometry["stride"] is None else geometry["stride"]
    windows = window(shape, **{**geometry, "stride": stride})
    total = empty((shape[1], *windows.padded_sizes, shape[0]), y_bar.dtype)
    if not windows.is_partition:
        total[...] = 0
    return (put_winners(np, y_bar, winners, windows, total),)


fused_max_pool.pairs["numpy"] = Pair(fused_max_pool.portable, _unpool)
