"""Selection: where, maximum, minimum and clip; absolute value and sign.

The derivative rules select, too, instead of multiplying by a mask: a cotangent that is not passed
on is dropped even if it is inf, as that of a square root at 0 is. Its product with 0 would be nan.
"""

import numpy as np

from minigrad.backend import masked
from minigrad.core.op import elementwise
from minigrad.declaration import Case, Domain

_DISTINCT = (Domain(distinct=True),)
_LARGE = 4096  # elements from which on NumPy's clip takes a third of its maximum's time


@elementwise(
    formula=r"y = x_1 \text{ if } c \text{ else } x_2",
    pullback=r"\bar x_1 = \bar y\,[c],\quad \bar x_2 = \bar y\,[\text{not } c]",
    domain=(Domain(kind="bool"), Domain()),
)
def where(xp, condition, x1, x2):
    """``x1`` where ``condition`` holds, ``x2`` elsewhere; shapes broadcast.

    Args:
        condition: booleans; no derivative.
        x1, x2: values.

    >>> mg.where(np.array([True, False]), mg.tensor([1.0, 2.0]), 0.0)
    tensor([1., 0.])
    """
    if x2.__class__ is int and not x2:  # where(c, x, 0), as derivative rules call it
        return masked(xp, condition, x1)
    return xp.where(condition, x1, x2)


@where.defvjp
def where_vjp(y_bar, y, condition, x1, x2):
    return None, lambda: where(condition != 0, y_bar, 0), lambda: where(condition == 0, y_bar, 0)


@where.defjvp
def where_jvp(x_dots, y, condition, x1, x2):
    _, x1_dot, x2_dot = x_dots
    if x1_dot is None:
        return None if x2_dot is None else where(condition == 0, x2_dot, 0)
    return where(condition != 0, x1_dot, 0 if x2_dot is None else x2_dot)


@elementwise(
    formula=r"y = \max(x_1, x_2)",
    pullback=r"\bar x_1 = \bar y\,([x_1 > x_2] + \frac{1}{2} [x_1 = x_2]),"
    r"\quad \bar x_2 = \bar y\,([x_2 > x_1] + \frac{1}{2} [x_1 = x_2])",
    symbol="max",
    domain=_DISTINCT,
)
def maximum(xp, x1, x2):
    """Elementwise maximum; shapes broadcast. At a tie each operand gets half of the cotangent.

    >>> mg.maximum(mg.tensor([1.0, 5.0]), 3.0)
    tensor([3., 5.])
    """
    return xp.maximum(x1, x2)


@elementwise(
    formula=r"y = \min(x_1, x_2)",
    pullback=r"\bar x_1 = \bar y\,([x_1 < x_2] + \frac{1}{2} [x_1 = x_2]),"
    r"\quad \bar x_2 = \bar y\,([x_2 < x_1] + \frac{1}{2} [x_1 = x_2])",
    symbol="min",
    domain=_DISTINCT,
)
def minimum(xp, x1, x2):
    """Elementwise minimum; shapes broadcast. At a tie each operand gets half of the cotangent.

    >>> mg.minimum(mg.tensor([1.0, 5.0]), 3.0)
    tensor([1., 3.])
    """
    return xp.minimum(x1, x2)


@maximum.defvjp
@minimum.defvjp
def extremum_vjp(y_bar, y, x1, x2):
    return lambda: _share(y_bar, y, x1, x2), lambda: _share(y_bar, y, x2, x1)


@maximum.defjvp
@minimum.defjvp
def extremum_jvp(x_dots, y, x1, x2):
    pairs = zip(x_dots, ((x1, x2), (x2, x1)), strict=True)
    shares = [_share(x_dot, y, *xs) for x_dot, xs in pairs if x_dot is not None]
    return sum(shares[1:], shares[0])


def _share(v, y, x, other):
    """``v`` where ``x`` is the extremum ``y``, half of it at a tie with ``other``; 0 elsewhere."""
    return where(x == y, where(x == other, 0.5 * v, v), 0)


@elementwise(
    formula=r"y = \min(\max(x, \mathit{min}), \mathit{max})",
    pullback=r"\bar x = \bar y\,[\mathit{min} \le x \le \mathit{max}]",
    domain=(Domain(kinks=(-1.0, 0.5)),),
    cases=(
        Case(params={"min": -1.0, "max": 0.5}),
        Case(params={"min": -1.0}),
        Case(params={"max": 0.5}),
    ),
)
def clip(xp, x, *, min=None, max=None):
    """``x`` limited to ``[min, max]``; None means no limit.

    Where ``x`` equals a limit the derivative is 1. The limits themselves are not differentiated.

    >>> mg.clip(mg.tensor([-3.0, 0.0, 3.0]), -1.0, 2.0)
    tensor([-1.,  0.,  2.])
    """
    if xp is np and x.size >= _LARGE and x.dtype.kind == "f":
        return x.clip(-np.inf if min is None else min, np.inf if max is None else max)
    low = x if min is None else xp.maximum(x, min)
    return +low if max is None else xp.minimum(low, max)


@clip.defvjp
def clip_vjp(y_bar, y, x, *, min=None, max=None):
    return (where(y == x, y_bar, 0),)


@clip.defjvp
def clip_jvp(x_dots, y, x, *, min=None, max=None):
    return where(y == x, x_dots[0], 0)


@elementwise(
    formula=r"y = |x|",
    pullback=r"\bar x = \bar y\,\mathrm{sign}(x)",
    symbol="abs",
    domain=(Domain(kinks=(0.0,)),),
)
def absolute(xp, x):
    """``|x|``. The subgradient at 0 is 0.

    >>> mg.absolute(mg.tensor([-2.0, 3.0]))
    tensor([2., 3.])
    """
    return xp.absolute(x)


@absolute.defpartials
def dabsolute(y, x):
    return (sign(x),)


@elementwise(
    formula=r"y = \mathrm{sign}(x)", pullback=r"\bar x = 0", domain=(Domain(kinks=(0.0,)),)
)
def sign(xp, x):
    """The sign of ``x``: -1, 0 or 1. The derivative is 0 everywhere, even at the jump.

    >>> mg.sign(mg.tensor([-2.0, 0.0, 3.0]))
    tensor([-1.,  0.,  1.])
    """
    return xp.sign(x)


@sign.defpartials
def dsign(y, x):
    return (None,)
