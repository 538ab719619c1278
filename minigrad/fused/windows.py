"""Convolution and max pooling as one op each; the geometry is that of ``ops.window``."""

from minigrad.fused.declare import fused
from minigrad.ops.conv import check_conv, col2im, conv, im2col
from minigrad.ops.pool import max_pool, max_unpool, winners_of
from minigrad.ops.window import window

_PART = 1024  # columns of one matrix product


@fused(
    conv,
    pullback=r"\bar x_{n,\,c,\,s o + d k - p} \mathrel{+}= \sum_a w_{a,\,c,\,k}\,"
    r"\bar y_{n,\,a,\,o},\quad "
    r"\bar w_{a,\,c,\,k} = \sum_{n,\,o} \bar y_{n,\,a,\,o}\, x_{n,\,c,\,s o + d k - p}",
)
def fused_conv(xp, x, w, *, stride=1, padding=0, dilation=1, groups=1):
    """``ops.conv`` that keeps no columns: the backward lays them out anew.

    Args:
        x: (N, C, \\*sizes), with one, two, three ... axes of ``sizes``.
        w: (A, C / groups, \\*kernel), A output channels.
        stride, padding, dilation: an int, or one per axis of ``sizes``; padded with zeros.
        groups: output channel a sees only its share of the input channels.

    Returns:
        (N, A, \\*outputs).

    Raises:
        ShapeError: channels or axes that do not fit, or a kernel larger than the padded image.

    >>> mg.fused.conv(mg.tensor([[[1.0, 2.0, 4.0]]]), np.array([[[-1.0, 1.0]]]))
    tensor([[[1., 2.]]])
    """
    check_conv(x, w, groups)
    kernel = tuple(w.shape[2:])
    geometry = {
        "kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation
    }  # fmt: skip
    outputs = window(x.shape, **geometry).outputs
    columns = im2col(x, **geometry)
    y = xp.empty((w.shape[0], columns.shape[1]), dtype=xp.result_type(x, w))
    rows = w.reshape(groups, w.shape[0] // groups, -1)
    xp.matmul(rows, _parts(columns, groups), out=_parts(y, groups))
    y = xp.moveaxis(y.reshape(w.shape[0], *outputs, x.shape[0]), -1, 0)
    return y, (x, w, groups, geometry)


@fused_conv.defbackward
def conv_backward(xp, y_bar, cache):
    x, w, groups, geometry = cache
    g = _parts(xp.moveaxis(y_bar, 0, -1).reshape(w.shape[0], -1), groups)

    def x_bar():
        rows = w.reshape(groups, w.shape[0] // groups, -1)
        columns = xp.empty((groups * rows.shape[2], g.shape[0] * g.shape[3]), dtype=g.dtype)
        xp.matmul(rows.transpose(0, 2, 1), g, out=_parts(columns, groups))
        return col2im(columns, shape=x.shape, **geometry)

    def w_bar():
        columns = _parts(im2col(x, **geometry), groups)
        total = xp.matmul(columns, g.transpose(0, 1, 3, 2)).sum(0)
        return total.transpose(0, 2, 1).reshape(w.shape)

    return x_bar, w_bar


def _parts(matrix, groups):
    """(groups * R, M) as (P, groups, R, M / P): short products stay in cache, whole ones do not."""
    count = matrix.shape[1]
    parts = count // _PART if count % _PART == 0 else 1
    return matrix.reshape(groups, -1, parts, count // max(parts, 1)).transpose(2, 0, 1, 3)


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
    return max_pool.forward(xp, x, **geometry), (x, geometry)


@fused_max_pool.defbackward
def max_pool_backward(xp, y_bar, cache):
    x, geometry = cache
    largest = max_pool.forward(xp, x, **geometry)  # again: whoever has y may have changed it
    winners = winners_of(x, largest, **geometry)
    return (max_unpool(y_bar, winners=winners, shape=x.shape, **geometry),)
