"""Max and average pooling.

The winner of a window is the position of its first maximum. For fixed winners max pooling is
linear: ``take_pooled`` reads there, and its adjoint ``max_unpool`` adds there.
"""

import numpy as np

from minigrad import backend
from minigrad.core.op import op
from minigrad.declaration import Case, Domain
from minigrad.errors import ShapeError, facts
from minigrad.ops.shape import floating
from minigrad.ops.window import batch_to_end, batch_to_front, window

_GEOMETRIES = (
    ((2, 3, 4, 4), {"kernel_size": 2}),
    ((2, 1, 5), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ((1, 2, 5, 4), {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 1)}),
)
_DILATED = ((1, 1, 5, 5), {"kernel_size": 2, "stride": 1, "dilation": 2})
_WINNERS = np.array([[[[0, 3, 1], [2, 0, 1], [3, 3, 2]]]], dtype=np.uint8)  # for _DILATED


def pool_window(shape, kernel_size, stride, padding, dilation=1):
    """The windows; a stride of None means ``kernel_size``, so that they tile the image."""
    return window(shape, kernel_size, kernel_size if stride is None else stride, padding, dilation)


def _padded(xp, x, windows, fill=0.0):
    """(C, \\*padded_sizes, N) with the order in memory of ``x``, which results then have, too."""
    return windows.pad(xp, x, fill, batch_first=x.flags.c_contiguous)


@op(
    formula=r"y_{n,\,c,\,o} = \max_k x_{n,\,c,\,s o + d k - p}",
    pullback=r"\bar x_i = \sum_o \bar y_o\,[x_i \text{ is the first maximum of window } o]",
    domain=(Domain(distinct=True),),
    cases=tuple(Case((shape,), geometry) for shape, geometry in (*_GEOMETRIES, _DILATED)),
)
def max_pool(xp, x, *, kernel_size, stride=None, padding=0, dilation=1):
    """The largest value of each window; padding never wins.

    At a tie the first maximum in row-major order gets the whole cotangent, which is a subgradient
    and PyTorch's choice. If a window holds a nan, or only -inf, the cotangent goes to its first
    position, and is lost if that position is padding.

    Args:
        x: (N, C, \\*sizes).
        kernel_size, padding, dilation: an int, or one per axis of ``sizes``.
        stride: likewise; None means ``kernel_size``.

    Returns:
        (N, C, \\*outputs) with
        ``outputs = (sizes + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ShapeError: the window is larger than the padded image, or one holds only padding.

    >>> mg.ops.max_pool(mg.tensor([[[1.0, 5.0, 2.0, 3.0]]]), kernel_size=2)
    tensor([[[5., 3.]]])
    """
    windows = check_max_pool(x, kernel_size, stride, padding, dilation)
    largest = None
    for _, view in windows.views(_padded(xp, x, windows, -xp.inf)):
        largest = +view if largest is None else xp.maximum(largest, view, out=largest)
    return batch_to_front(largest)


def check_max_pool(x, kernel_size, stride=None, padding=0, dilation=1):
    """The windows; ShapeError if one holds only padding and so has no maximum."""
    windows = pool_window(x.shape, kernel_size, stride, padding, dilation)
    if not any(windows.padding):
        return windows
    fields = windows.sizes, windows.kernel, windows.stride, windows.padding, windows.dilation
    for n, k, s, p, d in zip(*fields, strict=True):
        for start in range(-p, n + p - d * (k - 1), s):
            first = max(0, -(start // d))  # the first position in the window that is not before x
            if first >= k or start + first * d >= n:
                expected = "windows that each contain an element of x"
                got = f"one that begins at {start} of {n}, kernel_size {k}, dilation {d}"
                raise ShapeError(facts("window: padding", expected=expected, got=got))
    return windows


@max_pool.defvjp
def max_pool_vjp(y_bar, y, x, **geometry):
    return (max_unpool(y_bar, winners=winners_of(x, y, **geometry), shape=x.shape, **geometry),)


@max_pool.defjvp
def max_pool_jvp(x_dots, y, x, **geometry):
    return take_pooled(x_dots[0], winners=winners_of(x, y, **geometry), **geometry)


def winners_of(x, y, *, kernel_size, stride=None, padding=0, dilation=1):
    """For each output the position of its value in the window: integers of the shape of ``y``."""
    x, y = getattr(x, "array", x), getattr(y, "array", y)
    xp = backend.namespace(x)
    windows = pool_window(x.shape, kernel_size, stride, padding, dilation)
    views = [view for _, view in windows.views(_padded(xp, x, windows, -xp.inf))]
    largest = batch_to_end(y)
    # position k of K has the code K - k: the first of several maxima has the largest code
    codes = xp.zeros_like(largest, dtype="uint8" if windows.count <= 255 else "int32")
    for k, view in enumerate(views):
        wins = (view == largest).view("uint8")  # converting the bools would take many times as long
        xp.maximum(codes, wins * codes.dtype.type(windows.count - k), out=codes)
    winners = (windows.count - codes) % windows.count  # with a nan nothing matches: position 0
    return backend.read_only(batch_to_front(winners))


@op(
    formula=r"x_i = \sum_o y_o\,[i = \text{winner of window } o]",
    pullback=r"\bar y_o = \bar x_{\text{winner of window } o}",
    linear="jointly",
    cases=(Case(((1, 1, 3, 3),), {"winners": _WINNERS, "shape": _DILATED[0], **_DILATED[1]}),),
)
def max_unpool(xp, y, *, winners, shape, kernel_size, stride=None, padding=0, dilation=1):
    """Add each value at the position ``winners`` of its window, in an array of zeros.

    Args:
        y: (N, C, \\*outputs).
        winners: integers of the shape of ``y``: row-major positions in the window.
        shape: (N, C, \\*sizes) of the result.
        kernel_size, stride, padding, dilation: as in ``max_pool``.

    >>> winners = np.array([[[1, 1]]])
    >>> mg.ops.max_unpool(
    ...     np.array([[[5.0, 3.0]]]), winners=winners, shape=(1, 1, 4), kernel_size=2
    ... )
    array([[[0., 5., 0., 3.]]])
    """
    windows = pool_window(shape, kernel_size, stride, padding, dilation)
    batch_first = winners.flags.c_contiguous
    total = windows.zeros(xp, shape[0], shape[1], y.dtype, batch_first)
    return put_winners(xp, y, winners, windows, total)


def put_winners(xp, y, winners, windows, total):
    """Add each value at its winner to ``total``, (C, \\*padded_sizes, N).

    Disjoint windows are overwritten instead: if they cover ``total``, it may be uninitialized.

    Returns:
        A view (N, C, \\*sizes) of ``total``, without the padding.
    """
    y, winners = batch_to_end(y), batch_to_end(winners)
    for k, (_, view) in enumerate(windows.views(total)):
        if windows.is_disjoint:
            backend.masked(xp, winners == k, y, out=view)
        else:
            view += backend.masked(xp, winners == k, y)
    return windows.crop(total)


@max_unpool.defvjp
def max_unpool_vjp(x_bar, x, y, *, winners, shape, **geometry):
    return (take_pooled(x_bar, winners=winners, **geometry),)


@op(
    formula=r"y_o = x_{\text{winner of window } o}",
    pullback=r"\bar x_i = \sum_o \bar y_o\,[i = \text{winner of window } o]",
    linear="jointly",
    cases=(Case((_DILATED[0],), {"winners": _WINNERS, **_DILATED[1]}),),
)
def take_pooled(xp, x, *, winners, kernel_size, stride=None, padding=0, dilation=1):
    """The value at the position ``winners`` of each window; the adjoint of ``max_unpool``.

    Args:
        x: (N, C, \\*sizes).
        winners: integers (N, C, \\*outputs): row-major positions in the window.
        kernel_size, stride, padding, dilation: as in ``max_pool``.

    >>> x = np.array([[[1.0, 5.0, 2.0, 3.0]]])
    >>> mg.ops.take_pooled(x, winners=np.array([[[0, 1]]]), kernel_size=2)
    array([[[1., 3.]]])
    """
    windows = pool_window(x.shape, kernel_size, stride, padding, dilation)
    winners = batch_to_end(winners)
    y = xp.zeros_like(winners, dtype=x.dtype)
    for k, (_, view) in enumerate(windows.views(_padded(xp, x, windows))):
        y += backend.masked(xp, winners == k, view)
    return batch_to_front(y)


@take_pooled.defvjp
def take_pooled_vjp(y_bar, y, x, *, winners, **geometry):
    return (max_unpool(y_bar, winners=winners, shape=x.shape, **geometry),)


@op(
    formula=r"y_{n,\,c,\,o} = \frac{1}{K} \sum_k x_{n,\,c,\,s o + k - p}",
    pullback=r"\bar x_i = \frac{1}{K} \sum_o \bar y_o\,[i \in \text{window } o]",
    linear="jointly",
    cases=tuple(Case((shape,), geometry) for shape, geometry in _GEOMETRIES),
)
def avg_pool(xp, x, *, kernel_size, stride=None, padding=0):
    """The mean of each window; padding counts as zeros, as in PyTorch.

    Args:
        x: (N, C, \\*sizes).
        kernel_size, padding: an int, or one per axis of ``sizes``.
        stride: likewise; None means ``kernel_size``.

    Returns:
        (N, C, \\*outputs) with ``outputs = (sizes + 2 padding - kernel_size) // stride + 1``.

    Raises:
        ShapeError: the window is larger than the padded image.

    >>> mg.ops.avg_pool(mg.tensor([[[1.0, 5.0, 2.0, 4.0]]]), kernel_size=2)
    tensor([[[3., 3.]]])
    """
    windows, x = pool_window(x.shape, kernel_size, stride, padding), floating(x)
    views = [view for _, view in windows.views(_padded(xp, x, windows))]
    total = views[0] + 0  # a new array
    for view in views[1:]:
        total += view
    total /= windows.count
    return batch_to_front(total)


@avg_pool.defvjp
def avg_pool_vjp(y_bar, y, x, **geometry):
    return (avg_unpool(y_bar, shape=x.shape, **geometry),)


def _pooled_shape(shape, geometry):
    """The shape of ``avg_pool`` of an array of ``shape``."""
    return (*shape[:2], *pool_window(shape, **{"stride": None, "padding": 0, **geometry}).outputs)


@op(
    formula=r"x_i = \frac{1}{K} \sum_o y_o\,[i \in \text{window } o]",
    pullback=r"\bar y_o = \frac{1}{K} \sum_k \bar x_{s o + k - p}",
    linear="jointly",
    cases=tuple(
        Case((_pooled_shape(shape, geometry),), {"shape": shape, **geometry})
        for shape, geometry in _GEOMETRIES
    ),
)
def avg_unpool(xp, y, *, shape, kernel_size, stride=None, padding=0):
    """Spread each value evenly over its window; the adjoint of ``avg_pool``.

    Args:
        y: (N, C, \\*outputs).
        shape: (N, C, \\*sizes) of the result.
        kernel_size, stride, padding: as in ``avg_pool``.

    >>> mg.ops.avg_unpool(np.array([[[3.0, 4.0]]]), shape=(1, 1, 4), kernel_size=2)
    array([[[1.5, 1.5, 2. , 2. ]]])
    """
    windows = pool_window(shape, kernel_size, stride, padding)
    share = batch_to_end(y) / windows.count
    total = windows.zeros(xp, shape[0], shape[1], y.dtype, batch_first=y.flags.c_contiguous)
    for _, view in windows.views(total):
        view += share
    return windows.crop(total)


@avg_unpool.defvjp
def avg_unpool_vjp(x_bar, x, y, *, shape, **geometry):
    return (avg_pool(x_bar, **geometry),)
