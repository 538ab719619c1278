"""Choosing between values: where, maximum, minimum, clip, and the sign they come from."""

from minigrad.core.op import elementwise
from minigrad.declaration import Case, Domain

_DISTINCT = (Domain(distinct=True),)


@elementwise(
    formula=r"y = x_1\ (c),\quad x_2\ (\text{not } c)",
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
    return xp.where(condition, x1, x2)


@where.defpartials
def dwhere(y, condition, x1, x2):
    return None, lambda: condition != 0, lambda: condition == 0


@elementwise(
    formula=r"y = \max(x_1, x_2)",
    pullback=r"\bar x_1 = \bar y\,([x_1 > x_2] + \frac{1}{2} [x_1 = x_2])",
    symbol="max",
    domain=_DISTINCT,
)
def maximum(xp, x1, x2):
    """The larger of two; shapes broadcast. At a tie each gets half of the cotangent.

    >>> mg.maximum(mg.tensor([1.0, 5.0]), 3.0)
    tensor([3., 5.])
    """
    return xp.maximum(x1, x2)


@maximum.defpartials
def dmaximum(y, x1, x2):
    return lambda: _share(x1 > x2, x1 == x2), lambda: _share(x2 > x1, x1 == x2)


@elementwise(
    formula=r"y = \min(x_1, x_2)",
    pullback=r"\bar x_1 = \bar y\,([x_1 < x_2] + \frac{1}{2} [x_1 = x_2])",
    symbol="min",
    domain=_DISTINCT,
)
def minimum(xp, x1, x2):
    """The smaller of two; shapes broadcast. At a tie each gets half of the cotangent.

    >>> mg.minimum(mg.tensor([1.0, 5.0]), 3.0)
    tensor([1., 3.])
    """
    return xp.minimum(x1, x2)


@minimum.defpartials
def dminimum(y, x1, x2):
    return lambda: _share(x1 < x2, x1 == x2), lambda: _share(x2 < x1, x1 == x2)


def _share(wins, ties):
    return where(ties, 0.5, where(wins, 1.0, 0.0))


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
    """``x`` limited to ``[min, max]``; None means no limit. The limits get no derivative.

    At the limits themselves the derivative 1 is used.

    >>> mg.clip(mg.tensor([-3.0, 0.0, 3.0]), -1.0, 2.0)
    tensor([-1.,  0.,  2.])
    """
    low = x if min is None else xp.maximum(x, min)
    return +low if max is None else xp.minimum(low, max)


@clip.defpartials
def dclip(y, x, *, min=None, max=None):
    return (y == x,)


@elementwise(
    formula=r"y = |x|",
    pullback=r"\bar x = \bar y\,\mathrm{sign}(x)",
    symbol="abs",
    domain=(Domain(kinks=(0.0,)),),
)
def absolute(xp, x):
    """``|x|``. At the kink 0 the subgradient 0 is used.

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
    """-1, 0 or 1. The derivative is 0 everywhere, also at the jump.

    >>> mg.sign(mg.tensor([-2.0, 0.0, 3.0]))
    tensor([-1.,  0.,  1.])
    """
    return xp.sign(x)


@sign.defpartials
def dsign(y, x):
    return (None,)
