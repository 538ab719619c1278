"""Convolution over any number of image axes, as a matrix product.

``im2col`` copies each window of the images into a column of a matrix; ``conv`` multiplies it by the
kernels, one per row. ``im2col`` and ``col2im`` are linear and each the adjoint of the other, so
with ``matmul`` they give exact derivatives of every order.
"""

from math import prod

from minigrad.composite import composite
from minigrad.core.op import op
from minigrad.declaration import Case
from minigrad.errors import ShapeError, describe, facts
from minigrad.ops.linalg import matmul
from minigrad.ops.shape import reshape, transpose
from minigrad.ops.window import batch_to_front, window

_GEOMETRIES = (
    ((2, 3, 5), {"kernel_size": 2}),
    ((2, 1, 4, 5), {"kernel_size": (2, 3), "stride": (1, 2), "padding": 1}),
    ((1, 2, 5, 4), {"kernel_size": 2, "dilation": (2, 1)}),
    ((3, 2, 2, 2), {"kernel_size": 1}),
    ((1, 1, 3, 2, 3), {"kernel_size": 2, "padding": (0, 1, 0), "stride": 2}),
)


def _im2col_shape(shape, geometry):
    """The shape of ``im2col`` of an array of ``shape``."""
    windows = window(shape, **geometry)
    return (shape[1] * windows.count, prod(windows.outputs) * shape[0])


@op(
    formula=r"y_{ck,\,on} = x_{n,\,c,\,s o + d k - p}",
    pullback=r"\bar x = \mathrm{col2im}(\bar y)",
    linear="jointly",
    cases=tuple(Case((shape,), geometry) for shape, geometry in _GEOMETRIES),
    source="Chellapilla, Puri, Simard 2006, High performance convolutional neural networks",
)
def im2col(xp, x, *, kernel_size, stride=1, padding=0, dilation=1):
    """Copy each window of the zero-padded ``x`` into a column of a matrix.

    Args:
        x: (N, C, \\*sizes), with one axis of ``sizes`` for a signal, two for an image.
        kernel_size, stride, padding, dilation: an int, or one per axis of ``sizes``.

    Returns:
        (C * prod(kernel_size), prod(outputs) * N): rows by channel, then position in the window;
        columns by output position, then image. ``outputs`` is
        ``(sizes + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ShapeError: the window is larger than the padded image.

    >>> mg.ops.im2col(np.array([[[1.0, 2.0, 3.0]]]), kernel_size=2)
    array([[1., 2.],
           [2., 3.]])
    """
    windows = window(x.shape, kernel_size, stride, padding, dilation)
    n, c = x.shape[:2]
    padded, n_columns = windows.pad(xp, x), prod(windows.outputs) * n
    if windows.is_identity:
        return padded.reshape(c, n_columns)
    columns = xp.empty((c, *windows.kernel, *windows.outputs, n), dtype=x.dtype)
    for position, view in windows.views(padded):
        columns[(slice(None), *position)] = view
    return columns.reshape(c * windows.count, n_columns)


@im2col.defvjp
def im2col_vjp(y_bar, y, x, **geometry):
    return (col2im(y_bar, shape=x.shape, **geometry),)


@op(
    formula=r"x_{n,\,c,\,s o + d k - p} \mathrel{+}= y_{ck,\,on},\quad x = 0 \text{ before}",
    pullback=r"\bar y = \mathrm{im2col}(\bar x)",
    linear="jointly",
    cases=tuple(
        Case((_im2col_shape(shape, geometry),), {"shape": shape, **geometry})
        for shape, geometry in _GEOMETRIES
    ),
)
def col2im(xp, y, *, shape, kernel_size, stride=1, padding=0, dilation=1):
    """Add each column to the window it belongs to; overlaps add up. The adjoint of ``im2col``.

    Args:
        y: (C * prod(kernel_size), prod(outputs) * N).
        shape: (N, C, \\*sizes) of the result.
        kernel_size, stride, padding, dilation: as in ``im2col``.

    Raises:
        ShapeError: ``y`` does not have the size of ``im2col`` of an array of ``shape``.

    >>> mg.ops.col2im(np.array([[1.0, 2.0], [2.0, 3.0]]), shape=(1, 1, 3), kernel_size=2)
    array([[[1., 4., 3.]]])
    """
    windows = window(shape, kernel_size, stride, padding, dilation)
    n, c = shape[:2]
    if windows.is_identity:
        return batch_to_front(y.reshape(c, *windows.sizes, n))
    columns = y.reshape(c, *windows.kernel, *windows.outputs, n)
    total = windows.zeros(xp, n, c, y.dtype)
    for position, view in windows.views(total):
        view += columns[(slice(None), *position)]
    return windows.crop(total)


@col2im.defvjp
def col2im_vjp(x_bar, x, y, *, shape, **geometry):
    return (im2col(x_bar, **geometry),)


@composite(
    formula=r"y_{n,\,a,\,o} = \sum_{c,\,k} w_{a,\,c,\,k}\, x_{n,\,c,\,s o + d k - p} + b_a",
    symbol="conv",
    cases=(
        Case(((2, 2, 5), (3, 2, 2))),
        Case(((2, 2, 5), (3, 2, 2), (3,))),
        Case(((2, 1, 4, 5), (2, 1, 2, 3), (2,)), {"stride": (1, 2), "padding": 1}),
        Case(((1, 4, 4, 4), (2, 2, 2, 2)), {"groups": 2, "dilation": 2}),
        Case(((2, 2, 3, 3), (4, 1, 2, 2)), {"groups": 2, "padding": (0, 1)}),
        Case(((2, 3, 2, 2), (2, 3, 1, 1))),
        Case(((1, 1, 2, 3, 3), (2, 1, 2, 2, 2)), {"padding": (1, 0, 0), "stride": 2}),
    ),
)
def conv(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Convolution in the sense of neural networks: cross-correlation, without kernel flipping.

    Args:
        x: (N, C, \\*sizes), with one, two, three ... axes of ``sizes``.
        w: (A, C / groups, \\*kernel), A output channels.
        b: (A,), one per output channel; optional.
        stride, padding, dilation: an int, or one per axis of ``sizes``; padding is with zeros.
        groups: the channels are divided into this many groups, and each output channel sees only
            the ``C / groups`` input channels of its group.

    Returns:
        (N, A, \\*outputs); see ``im2col``.

    Raises:
        ShapeError: channels or axes that do not fit, or a kernel larger than the padded image.

    >>> mg.ops.conv(mg.tensor([[[1.0, 2.0, 4.0]]]), np.array([[[-1.0, 1.0]]]))
    tensor([[[1., 2.]]])
    """
    check_conv(x, w, b, groups)
    n, a = x.shape[0], w.shape[0]
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    kernel = tuple(w.shape[2:])
    outputs = window(x.shape, kernel, **geometry).outputs
    columns = im2col(x, kernel_size=kernel, **geometry)
    taps = columns.shape[0] // groups  # the number of products that each output sums
    rows = reshape(w, shape=(a, taps))
    if groups > 1:
        columns = reshape(columns, shape=(groups, taps, columns.shape[1]))
        rows = reshape(rows, shape=(groups, a // groups, taps))
    y = reshape(matmul(rows, columns), shape=(a, *outputs, n))
    y = transpose(y, axes=(y.ndim - 1, *range(y.ndim - 1)))
    return y if b is None else y + reshape(b, shape=(a,) + (1,) * (y.ndim - 2))


def check_conv(x, w, b, groups):
    """Raise ShapeError unless the operands fit."""
    if x.ndim != w.ndim or x.ndim < 3:
        expected = "x (N, C, L, ...) and w (A, C, K, ...) with equally many axes"
        raise ShapeError(facts("conv: operands", expected=expected, got=_x_and_w(x, w)))
    if groups < 1 or x.shape[1] % groups or w.shape[0] % groups:
        expected = f"input and output channels divisible by groups={groups}"
        raise ShapeError(facts("conv: channels", expected=expected, got=_x_and_w(x, w)))
    if w.shape[1] * groups != x.shape[1]:
        expected = f"w.shape[1] == {x.shape[1] // groups}, channels of x divided by groups={groups}"
        raise ShapeError(facts("conv: channels", expected=expected, got=_x_and_w(x, w)))
    if b is not None and tuple(b.shape) != (w.shape[0],):
        got = f"b {describe(b)}, w {describe(w)}"
        raise ShapeError(
            facts("conv: b", expected=f"({w.shape[0]},), one per output channel", got=got)
        )


def _x_and_w(x, w):
    return f"x {describe(x)}, w {describe(w)}"
