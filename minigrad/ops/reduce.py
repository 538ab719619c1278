"""Reductions over axes: sum, mean, var, std, max, min, prod, logsumexp; and cumsum.

``axis`` is None (all), an int or a tuple; ``keepdims`` keeps reduced axes with length 1.
"""

from math import prod as product
from operator import index

import numpy as np

from minigrad.composite import composite, constant
from minigrad.core.op import op
from minigrad.declaration import Case, Domain
from minigrad.ops.arithmetic import sqrt
from minigrad.ops.exponential import exp
from minigrad.ops.select import where
from minigrad.ops.shape import (
    astype,
    broadcast_to,
    concatenate,
    flip,
    floating,
    pad,
    reshape,
    transpose,
)

_AXES = (
    Case(((2, 3),)),
    Case(((2, 3),), {"axis": 0}),
    Case(((2, 3),), {"axis": -1, "keepdims": True}),
    Case(((2, 3, 4),), {"axis": (0, 2)}),
    Case(((2, 3, 1),), {"axis": (-1, 0), "keepdims": True}),
    Case(((),)),
)
_EMPTY_RESULT = (Case(((0, 3),), {"axis": 1}),)  # there is no row to reduce
_NO_TERMS = (Case(((0, 3),), {"axis": 0}),)  # reductions over no elements
_FLOAT16 = np.dtype("float16")


def _axes(ndim, axis):
    """``axis`` as a set of non-negative ints."""
    if axis is None or not ndim:  # NumPy accepts axis 0 for a scalar
        return set(range(ndim))
    return {index(a) % ndim for a in (axis if isinstance(axis, tuple) else (axis,))}


def _kept_shape(shape, axis):
    """``shape`` with length 1 for the reduced axes, as with ``keepdims=True``."""
    axes = _axes(len(shape), axis)
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _count(shape, axis):
    """How many elements are reduced to each element of the result."""
    return product(shape[i] for i in _axes(len(shape), axis))


def wide(x):
    """``x``, float16 as float32: counts and squares may exceed 65504, the largest float16."""
    return astype(x, dtype="float32") if x.dtype == _FLOAT16 else x


def narrow(y, x, *others):
    """``y``, computed from ``wide(x)`` and ``others``, in the dtype that ``x`` would give."""
    if x.dtype != _FLOAT16:
        return y
    return astype(y, dtype=np.result_type(x.dtype, *(other.dtype for other in others)))


def over(x, n):
    """``x / n`` for a count ``n``, which float16 may not hold."""
    return wide(x) / n


def _in_float64(method, xp, x, **options):
    """``x.method(**options)``, computed in float64 at least and rounded to the dtype of ``x``:
    NumPy adds float32 along a leading axis one by one."""
    y = getattr(x, method)(dtype=xp.result_type(x.dtype, xp.float64), **options)
    return y.astype(x.dtype) if x.dtype.kind == "f" else y


@op(
    formula=r"y = \sum_i x_i",
    pullback=r"\bar x_i = \bar y",
    symbol="sum",
    linear="jointly",
    cases=_AXES + _EMPTY_RESULT + _NO_TERMS,
)
def sum(xp, x, *, axis=None, keepdims=False):
    """Sum over ``axis``.

    >>> mg.sum(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.])
    """
    return x.sum(axis=axis, keepdims=keepdims)


@sum.defvjp
def sum_vjp(y_bar, y, x, *, axis=None, keepdims=False):
    return (broadcast_to(reshape(y_bar, shape=_kept_shape(x.shape, axis)), shape=x.shape),)


@op(
    formula=r"y = \frac{1}{N} \sum_i x_i",
    pullback=r"\bar x_i = \bar y / N",
    symbol="mean",
    linear="jointly",
    cases=_AXES + _EMPTY_RESULT,
)
def mean(xp, x, *, axis=None, keepdims=False):
    """Arithmetic mean over ``axis``; that of no elements is nan, with NumPy's warning.

    >>> mg.mean(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1.5, 3.5])
    """
    return _in_float64("mean", xp, x, axis=axis, keepdims=keepdims)


@mean.defvjp
def mean_vjp(y_bar, y, x, *, axis=None, keepdims=False):
    share = over(reshape(y_bar, shape=_kept_shape(x.shape, axis)), _count(x.shape, axis))
    return (broadcast_to(share, shape=x.shape),)


@op(
    formula=r"y = \frac{1}{N - \mathit{ddof}} \sum_i (x_i - \mu)^2",
    pullback=r"\bar x_i = \frac{2}{N - \mathit{ddof}}\,\bar y\,(x_i - \mu)",
    symbol="var",
    cases=(*_AXES, *_EMPTY_RESULT, Case(((4, 3),), {"axis": 0, "ddof": 1})),
)
def var(xp, x, *, axis=None, ddof=0, keepdims=False):
    """Variance over ``axis`` with divisor ``N - ddof``: biased for 0, unbiased for 1.

    Computed in two passes: the mean is subtracted before squaring, so large squares do not cancel.

    >>> mg.var(mg.tensor([1.0, 3.0]), ddof=1)
    tensor(2.)
    """
    return _in_float64("var", xp, x, axis=axis, ddof=ddof, keepdims=keepdims)


@var.defvjp
def var_vjp(y_bar, y, x, *, axis=None, ddof=0, keepdims=False):
    y_bar = reshape(y_bar, shape=_kept_shape(x.shape, axis))
    return (y_bar * _dvar(x, axis, ddof),)


@var.defjvp
def var_jvp(x_dots, y, x, *, axis=None, ddof=0, keepdims=False):
    return sum(_dvar(x, axis, ddof) * x_dots[0], axis=axis, keepdims=keepdims)


def _dvar(x, axis, ddof):
    """2 (x - mean) / (N - ddof). The mean's own derivative drops out: the deviations sum to 0."""
    n = _count(x.shape, axis) - ddof
    return over(2 * (x - mean(x, axis=axis, keepdims=True)), n if n > 0 else 0)  # as np.var


@composite(
    formula=r"y = \sqrt{\frac{1}{N - \mathit{ddof}} \sum_i (x_i - \mu)^2}",
    symbol="std",
    cases=(
        Case(((2, 3),)),
        Case(((4, 3),), {"axis": 0, "ddof": 1}),
        Case(((2, 3, 4),), {"axis": (0, -1), "keepdims": True}),
    ),
)
def std(x, *, axis=None, ddof=0, keepdims=False):
    """Standard deviation over ``axis`` with divisor ``N - ddof``; its derivative at 0 is nan.

    >>> mg.std(mg.tensor([1.0, 3.0]))
    tensor(1.)
    """
    return sqrt(var(x, axis=axis, ddof=ddof, keepdims=keepdims))


@op(
    formula=r"y = \max_i x_i",
    pullback=r"\bar x_i = \bar y\,[x_i = y] / \#\{j : x_j = y\}",
    symbol="max",
    domain=(Domain(distinct=True),),
    cases=_AXES + _EMPTY_RESULT,
)
def max(xp, x, *, axis=None, keepdims=False):
    """Largest element over ``axis``. Ties share the cotangent equally, which is a subgradient.

    Raises:
        ShapeError: a reduction over no elements.

    >>> mg.max(mg.tensor([[1.0, 5.0], [3.0, 4.0]]), axis=1)
    tensor([5., 4.])
    """
    return x.max(axis=axis, keepdims=keepdims)


@op(
    formula=r"y = \min_i x_i",
    pullback=r"\bar x_i = \bar y\,[x_i = y] / \#\{j : x_j = y\}",
    symbol="min",
    domain=(Domain(distinct=True),),
    cases=_AXES + _EMPTY_RESULT,
)
def min(xp, x, *, axis=None, keepdims=False):
    """Smallest element over ``axis``. Ties share the cotangent equally, which is a subgradient.

    Raises:
        ShapeError: a reduction over no elements.

    >>> mg.min(mg.tensor([[1.0, 5.0], [3.0, 4.0]]), axis=1)
    tensor([1., 3.])
    """
    return x.min(axis=axis, keepdims=keepdims)


def _shares(v, y, x, axis):
    """``v`` divided by the number of ties where ``x`` attains the extremum ``y``, 0 elsewhere."""
    attained = x == reshape(y, shape=_kept_shape(x.shape, axis))
    return where(attained, v, 0) / sum(attained, axis=axis, keepdims=True)


@max.defvjp
@min.defvjp
def extremum_vjp(y_bar, y, x, *, axis=None, keepdims=False):
    return (_shares(reshape(y_bar, shape=_kept_shape(x.shape, axis)), y, x, axis),)


@max.defjvp
@min.defjvp
def extremum_jvp(x_dots, y, x, *, axis=None, keepdims=False):
    return sum(_shares(x_dots[0], y, x, axis), axis=axis, keepdims=keepdims)


@op(
    formula=r"y = \prod_i x_i",
    pullback=r"\bar x_i = \bar y \prod_{j \ne i} x_j",
    symbol="prod",
    cases=_AXES + _EMPTY_RESULT + _NO_TERMS,
)
def prod(xp, x, *, axis=None, keepdims=False):
    """Product over ``axis``. The derivative is exact even where elements are zero.

    >>> mg.prod(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([3., 8.])
    """
    return x.prod(axis=axis, keepdims=keepdims)


@prod.defvjp
def prod_vjp(y_bar, y, x, *, axis=None, keepdims=False):
    return (reshape(y_bar, shape=_kept_shape(x.shape, axis)) * _product_of_others(x, axis),)


@prod.defjvp
def prod_jvp(x_dots, y, x, *, axis=None, keepdims=False):
    return sum(_product_of_others(x, axis) * x_dots[0], axis=axis, keepdims=keepdims)


def _product_of_others(x, axis):
    """For each element of ``x`` the product of all others along ``axis``, without a division."""
    axes = sorted(_axes(x.ndim, axis))
    free = [i for i in range(x.ndim) if i not in axes]
    order = (*free, *axes)  # the reduced axes go to the end and are joined into one
    lines = transpose(x, axes=order)
    flat = reshape(lines, shape=(*(x.shape[i] for i in free), _count(x.shape, axis)))
    others = reshape(_others_on_last_axis(flat), shape=lines.shape)
    return transpose(others, axes=tuple(order.index(i) for i in range(x.ndim)))


def _others_on_last_axis(x):
    """``_product_of_others`` along the last axis, in O(n) products.

    Element a_i of the first half and b_i of the second form a pair. The product of all but a_i is
    b_i times the product of all a_j b_j with j != i, which is the same problem of half the size.
    """
    n = x.shape[-1]
    if n <= 1:
        return x**0  # the empty product
    half = (n + 1) // 2
    a, b = x[..., :half], x[..., half:]
    if n % 2:
        b = pad(b, pad_width=((0, 0),) * (x.ndim - 1) + ((0, 1),), constant_values=1.0)
    other_pairs = _others_on_last_axis(a * b)
    return concatenate(other_pairs * b, (other_pairs * a)[..., : n - half], axis=-1)


@op(
    formula=r"y_i = \sum_{j \le i} x_j",
    pullback=r"\bar x_j = \sum_{i \ge j} \bar y_i",
    symbol="cumsum",
    linear="jointly",
    cases=(
        Case(((4,),), {"axis": 0}),
        Case(((2, 3),), {"axis": -1}),
        Case(((2, 3),)),
        Case(((0, 3),), {"axis": 0}),
        Case(((),)),
    ),
)
def cumsum(xp, x, *, axis=None):
    """Cumulative sum along ``axis``; None means that of the flattened array.

    >>> mg.cumsum(mg.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.])
    """
    return xp.cumsum(x, axis=axis)


@cumsum.defvjp
def cumsum_vjp(y_bar, y, x, *, axis=None):
    along = 0 if axis is None else axis
    x_bar = flip(cumsum(flip(y_bar, axis=along), axis=along), axis=along)
    return (reshape(x_bar, shape=x.shape),)


@op(
    formula=r"y = \ln \sum_i e^{x_i}",
    pullback=r"\bar x_i = \bar y\,e^{x_i - y}",
    cases=_AXES + _EMPTY_RESULT,
)
def logsumexp(xp, x, *, axis=None, keepdims=False):
    """``log(sum(exp(x)))`` over ``axis`` without overflow.

    Raises:
        ShapeError: a reduction over no elements.

    >>> mg.logsumexp(mg.tensor([1000.0, 1000.0])).item()
    1000.6931471805599
    """
    z = wide(floating(x))
    largest = z.max(axis=axis, keepdims=True)
    shift = xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))  # inf - inf is nan
    y = narrow(xp.log(xp.exp(z - shift).sum(axis=axis, keepdims=True)) + shift, x)
    return y if index(keepdims) else xp.squeeze(y, axis=tuple(_axes(x.ndim, axis)))


@logsumexp.defvjp
def logsumexp_vjp(y_bar, y, x, *, axis=None, keepdims=False):
    return (reshape(y_bar, shape=_kept_shape(x.shape, axis)) * wide_softmax(x, axis),)


@logsumexp.defjvp
def logsumexp_jvp(x_dots, y, x, *, axis=None, keepdims=False):
    return sum(wide_softmax(x, axis) * x_dots[0], axis=axis, keepdims=keepdims)


def wide_softmax(x, axis):
    """Softmax along ``axis``, in float32 for float16.

    As exp(x - logsumexp(x)) it would lose as many digits as ``|x|`` has before the point.
    """
    e = exp(shifted(wide(x), axis))
    return e / sum(e, axis=axis, keepdims=True)


def shifted(x, axis):
    """``x`` minus its largest element along ``axis``, which is treated as a constant.

    Only for functions that do not change when a constant is added to ``x``: their derivative by way
    of the largest element is 0. If that element is infinite, all their values are nan.
    """
    x = floating(x)
    largest = getattr(x, "array", x).max(axis=axis, keepdims=True)
    return x - constant(largest, "max", x)
