"""Exponential, logarithmic and trigonometric functions, tanh and the logistic sigmoid."""

from minigrad.core.op import elementwise
from minigrad.declaration import Domain
from minigrad.ops.shape import floating

_POSITIVE = Domain(0.2, 3.0)


@elementwise(formula=r"y = e^x", pullback=r"\bar x = \bar y\,y")
def exp(xp, x):
    """``e ** x``.

    >>> mg.exp(mg.tensor([0.0, 1.0]))
    tensor([1.        , 2.71828183])
    """
    return xp.exp(x)


@exp.defpartials
def dexp(y, x):
    return (y,)


@elementwise(formula=r"y = e^x - 1", pullback=r"\bar x = \bar y\,e^x")
def expm1(xp, x):
    """``e ** x - 1``, accurate near 0.

    >>> mg.expm1(mg.tensor(1e-20)).item()
    1e-20
    """
    return xp.expm1(x)


@expm1.defpartials
def dexpm1(y, x):
    return (exp(x),)  # y + 1 would round to 0 for x << 0, e^x does not


@elementwise(
    formula=r"y = \ln x", pullback=r"\bar x = \bar y / x", symbol="ln", domain=(_POSITIVE,)
)
def log(xp, x):
    """Natural logarithm of ``x > 0``; -inf at 0.

    >>> mg.log(mg.tensor([1.0, 10.0]))
    tensor([0.        , 2.30258509])
    """
    return xp.log(x)


@log.defpartials
def dlog(y, x):
    return (1 / x,)


@elementwise(
    formula=r"y = \ln(1 + x)", pullback=r"\bar x = \bar y / (1 + x)", domain=(Domain(-0.8, 3.0),)
)
def log1p(xp, x):
    """``log(1 + x)`` for ``x > -1``, accurate near 0.

    >>> mg.log1p(mg.tensor(1e-20)).item()
    1e-20
    """
    return xp.log1p(x)


@log1p.defpartials
def dlog1p(y, x):
    return (1 / (1 + x),)


@elementwise(
    formula=r"y = \ln(e^{x_1} + e^{x_2})",
    pullback=r"\bar x_1 = \bar y\,\sigma(x_1 - x_2),\quad \bar x_2 = \bar y\,\sigma(x_2 - x_1)",
)
def logaddexp(xp, x1, x2):
    """``log(exp(x1) + exp(x2))`` without overflow; shapes broadcast.

    >>> mg.logaddexp(mg.tensor(1000.0), 1000.0).item()
    1000.6931471805599
    """
    return xp.logaddexp(x1, x2)


@logaddexp.defpartials
def dlogaddexp(y, x1, x2):
    return lambda: sigmoid(x1 - x2), lambda: sigmoid(x2 - x1)


@elementwise(formula=r"y = \sin x", pullback=r"\bar x = \bar y \cos x")
def sin(xp, x):
    """Sine of ``x`` in radians.

    >>> mg.sin(mg.tensor([0.0, 1.0]))
    tensor([0.        , 0.84147098])
    """
    return xp.sin(x)


@sin.defpartials
def dsin(y, x):
    return (cos(x),)


@elementwise(formula=r"y = \cos x", pullback=r"\bar x = -\bar y \sin x")
def cos(xp, x):
    """Cosine of ``x`` in radians.

    >>> mg.cos(mg.tensor([0.0, 1.0]))
    tensor([1.        , 0.54030231])
    """
    return xp.cos(x)


@cos.defpartials
def dcos(y, x):
    return (-sin(x),)


@elementwise(
    formula=r"y = \tanh x",
    pullback=r"\bar x = 4\,\bar y\,\sigma(2x)\,\sigma(-2x) = \bar y\,(1-y^2)",
)
def tanh(xp, x):
    """Hyperbolic tangent.

    >>> mg.tanh(mg.tensor([0.0, 1.0]))
    tensor([0.        , 0.76159416])
    """
    return xp.tanh(x)


@tanh.defpartials
def dtanh(y, x):
    s = sigmoid(2 * x)
    return (4 * s * sigmoid(-2 * x),)  # 1 - y^2 would round to 0 for |x| >= 19


@elementwise(
    formula=r"y = \sigma(x) = \frac{1}{1 + e^{-x}}",
    pullback=r"\bar x = \bar y\,\sigma(x)\,\sigma(-x)",
    symbol="σ",
)
def sigmoid(xp, x):
    """Logistic sigmoid, accurate in both tails.

    >>> mg.sigmoid(mg.tensor([0.0, -800.0]))
    tensor([0.5, 0. ])
    """
    x = floating(x)
    return xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-xp.abs(x)))  # no exponential exceeds 1


@sigmoid.defpartials
def dsigmoid(y, x):
    return (y * sigmoid(-x),)  # y * (1 - y) would round to 0 for x >= 37
