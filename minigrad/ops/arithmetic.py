"""Elementwise arithmetic: + - * / **, square, square root and reciprocal."""

from math import copysign, inf

import numpy as np

from minigrad.core.broadcast import astype
from minigrad.core.op import elementwise
from minigrad.declaration import Domain
from minigrad.ops.exponential import log

_NONZERO = Domain(0.5, 3.0)
_POSITIVE = Domain(0.2, 3.0)
_FAST_EXPONENTS = (-1, 0, 1, 2)  # NumPy computes these without its power function


@elementwise(formula=r"y = x", pullback=r"\bar x = \bar y", symbol="+")
def positive(xp, x):
    """``+x``: the same value as a new node of the graph.

    ``grad`` uses it to tell an argument apart from other uses of the same tensor.

    >>> mg.positive(mg.tensor([1.0, -2.0]))
    tensor([ 1., -2.])
    """
    return +x


@positive.defpartials
def dpositive(y, x):
    return (1,)


@elementwise(formula=r"y = -x", pullback=r"\bar x = -\bar y", symbol="-")
def negative(xp, x):
    """``-x``.

    >>> mg.negative(mg.tensor([1.0, -2.0]))
    tensor([-1.,  2.])
    """
    return -x


@negative.defpartials
def dnegative(y, x):
    return (-1,)


@elementwise(
    formula=r"y = x_1 + x_2",
    pullback=r"\bar x_1 = \bar y,\quad \bar x_2 = \bar y",
    symbol="+",
)
def add(xp, x1, x2):
    """``x1 + x2``; shapes broadcast.

    >>> mg.add(mg.tensor([1.0, 2.0]), 0.5)
    tensor([1.5, 2.5])
    """
    return x1 + x2


@add.defpartials
def dadd(y, x1, x2):
    return 1, 1


@elementwise(
    formula=r"y = x_1 - x_2",
    pullback=r"\bar x_1 = \bar y,\quad \bar x_2 = -\bar y",
    symbol="-",
)
def subtract(xp, x1, x2):
    """``x1 - x2``; shapes broadcast.

    >>> mg.subtract(1.0, mg.tensor([1.0, 2.0]))
    tensor([ 0., -1.])
    """
    return x1 - x2


@subtract.defpartials
def dsubtract(y, x1, x2):
    return 1, -1


@elementwise(
    formula=r"y = x_1 x_2",
    pullback=r"\bar x_1 = \bar y\,x_2,\quad \bar x_2 = \bar y\,x_1",
    symbol="*",
)
def multiply(xp, x1, x2):
    """``x1 * x2``; shapes broadcast.

    >>> mg.multiply(mg.tensor([1.0, 2.0]), [3.0, 4.0])
    tensor([3., 8.])
    """
    return x1 * x2


@multiply.defpartials
def dmultiply(y, x1, x2):
    return x2, x1


@elementwise(
    formula=r"y = x_1 / x_2",
    pullback=r"\bar x_1 = \bar y / x_2,\quad \bar x_2 = -\bar y\,y / x_2",
    symbol="/",
    domain=(Domain(), _NONZERO),
)
def divide(xp, x1, x2):
    """``x1 / x2``; shapes broadcast.

    >>> mg.divide(mg.tensor([1.0, 3.0]), 2.0)
    tensor([0.5, 1.5])
    """
    return x1 / x2


@divide.defpartials
def ddivide(y, x1, x2):
    return lambda: _reciprocal(_like(x2, y)), lambda: y / -x2


def _like(x, y):
    """The operand ``x`` in the dtype of ``y``, which may be more exact; a number stays one."""
    return x if getattr(x, "dtype", y.dtype) == y.dtype else astype(x, dtype=y.dtype)


def _reciprocal(x):
    try:
        return 1 / x
    except ZeroDivisionError:  # a Python 0; the array libraries return inf
        return copysign(inf, x)


@elementwise(
    formula=r"y = x^p",
    pullback=r"\bar x = \bar y\,p\,x^{p-1},\quad \bar p = \bar y\,y \ln x",
    symbol="**",
    domain=(_POSITIVE, Domain(-2.0, 3.0)),
)
def power(xp, x, p):
    """``x ** p``; shapes broadcast.

    If ``p`` is a number, ``x`` may be anything for which ``x ** p`` is defined. The derivative with
    respect to a tensor ``p`` needs ``x >= 0``; at ``x = 0`` it is 0, which is its limit for
    ``p > 0``.

    >>> mg.power(mg.tensor([1.0, -3.0]), 2)
    tensor([1., 9.])
    """
    return _power(x, p)


def _power(x, p):
    """``x ** p``; whole powers by way of ``|x|``, since NumPy is 50 times slower for ``x < 0``.

    The cube is two products, which take a tenth of the time of NumPy's power function.
    """
    is_slow = type(p) in (int, float) and p % 1 == 0 and p not in _FAST_EXPONENTS
    if is_slow and x.__class__ is np.ndarray and x.dtype.kind == "f":
        if p == 3:
            return x * x * x
        y = np.abs(x) ** p
        return np.copysign(y, x, out=y if x.ndim else None) if p % 2 else y
    return x**p


@power.defpartials
def dpower(y, x, p):
    if type(p) in (int, float):  # not a NumPy scalar: it may be the value of a tensor
        return (p * _power(x, p - 1) if p else None), None
    x, p = _like(x, y), _like(p, y)
    # x = 0 is replaced by 1 in the logarithm, and if p = 0 in the base, too: 0 * inf would be nan
    return lambda: p * (x + (x == 0) * (p == 0)) ** (p - 1), lambda: y * log(x + (x == 0))


@elementwise(formula=r"y = x^2", pullback=r"\bar x = 2\,\bar y\,x")
def square(xp, x):
    """``x * x``.

    >>> mg.square(mg.tensor([3.0, -1.0]))
    tensor([9., 1.])
    """
    return x * x


@square.defpartials
def dsquare(y, x):
    return (2 * x,)


@elementwise(
    formula=r"y = \sqrt{x}",
    pullback=r"\bar x = \bar y / (2 y)",
    symbol="sqrt",
    domain=(_POSITIVE,),
)
def sqrt(xp, x):
    """Square root of ``x >= 0``; its derivative at 0 is inf.

    >>> mg.sqrt(mg.tensor([4.0, 9.0]))
    tensor([2., 3.])
    """
    return xp.sqrt(x)


@sqrt.defpartials
def dsqrt(y, x):
    return (1 / (2 * y),)


@elementwise(formula=r"y = 1/x", pullback=r"\bar x = -\bar y\,y^2", domain=(_NONZERO,))
def reciprocal(xp, x):
    """``1 / x``.

    >>> mg.reciprocal(mg.tensor([4.0, -0.5]))
    tensor([ 0.25, -2.  ])
    """
    return 1 / x


@reciprocal.defpartials
def dreciprocal(y, x):
    return (-(y * y),)
