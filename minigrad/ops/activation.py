"""Activation functions and the error function."""

from math import pi, sqrt

from minigrad import special
from minigrad.core.op import elementwise
from minigrad.declaration import Case, Domain
from minigrad.ops.exponential import exp, expm1
from minigrad.ops.reduce import narrow, wide
from minigrad.ops.select import clip, where
from minigrad.ops.shape import floating

_KINK_AT_0 = (Domain(kinks=(0.0,)),)


@elementwise(
    formula=r"y = \max(x, 0)",
    pullback=r"\bar x = \bar y\,[x > 0]",
    symbol="relu",
    domain=_KINK_AT_0,
)
def relu(xp, x):
    """Rectified linear unit. The subgradient at 0 is 0.

    >>> mg.relu(mg.tensor([-2.0, 0.0, 3.0]))
    tensor([0., 0., 3.])
    """
    return clip.forward(xp, x, min=0)


@relu.defvjp
def relu_vjp(y_bar, y, x):
    return (where(x > 0, y_bar, 0),)


@relu.defjvp
def relu_jvp(x_dots, y, x):
    return where(x > 0, x_dots[0], 0)


@elementwise(
    formula=r"y = \max(x, 0) + \alpha \min(x, 0)",
    pullback=r"\bar x = \bar y\,([x > 0] + \alpha\,[x \le 0])",
    domain=_KINK_AT_0,
    cases=(Case(), Case(params={"alpha": 0.3})),
)
def leaky_relu(xp, x, *, alpha=0.01):
    """Leaky rectifier: slope 1 for ``x > 0``, otherwise ``alpha``, also at the kink 0.

    >>> mg.leaky_relu(mg.tensor([-2.0, 3.0]), alpha=0.1)
    tensor([-0.2,  3. ])
    """
    return clip.forward(xp, x, min=0) + alpha * clip.forward(xp, x, max=0)


@leaky_relu.defvjp
def leaky_relu_vjp(y_bar, y, x, *, alpha=0.01):
    return (_piecewise(x, y_bar, alpha * y_bar),)


@leaky_relu.defjvp
def leaky_relu_jvp(x_dots, y, x, *, alpha=0.01):
    return _piecewise(x, x_dots[0], alpha * x_dots[0])


def _piecewise(x, right, left):
    """``where(x > 0, right, left)``; masking twice is faster than choosing between two arrays."""
    is_right = x > 0
    return where(is_right, right, 0) + where(is_right == 0, left, 0)


@elementwise(
    formula=r"y = \max(x, 0) + \alpha (e^{\min(x, 0)} - 1)",
    pullback=r"\bar x = \bar y\,([x > 0] + \alpha e^x\,[x \le 0])",
    domain=_KINK_AT_0,
    cases=(Case(), Case(params={"alpha": 0.3})),
    source="Clevert, Unterthiner, Hochreiter 2016, arXiv:1511.07289, eq. 15",
)
def elu(xp, x, *, alpha=1.0):
    """Exponential linear unit. At 0, a kink unless ``alpha = 1``, the left slope ``alpha`` is used.

    >>> mg.elu(mg.tensor([-1.0, 2.0]))
    tensor([-0.63212056,  2.        ])
    """
    x = floating(x)
    return clip.forward(xp, x, min=0) + alpha * xp.expm1(clip.forward(xp, x, max=0))


@elu.defvjp
def elu_vjp(y_bar, y, x, *, alpha=1.0):
    return (_times_slope(y_bar, x, alpha),)


@elu.defjvp
def elu_jvp(x_dots, y, x, *, alpha=1.0):
    return _times_slope(x_dots[0], x, alpha)


def _times_slope(v, x, alpha):
    """``v``, a cotangent of y or a tangent of x, times dy/dx: VJP and JVP are the same product."""
    return _piecewise(x, v, alpha * v * exp(where((x > 0) == 0, x, 0)))


@elementwise(
    formula=r"y = \ln(1 + e^x)",
    pullback=r"\bar x = \bar y\,(1 - e^{-y})",
    domain=(Domain(-30.0, 30.0),),
)
def softplus(xp, x):
    """Smooth rectifier ``log(1 + exp(x))``; its derivative is the logistic sigmoid.

    >>> mg.softplus(mg.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.00000000e+00, 6.93147181e-01, 1.00000000e+03])
    """
    z = wide(floating(x))
    small = xp.exp(-xp.abs(z))  # cannot overflow
    return narrow(clip.forward(xp, z, min=0) + xp.log1p(small), x)


@softplus.defpartials
def dsoftplus(y, x):
    return (-expm1(-y),)  # 1 - exp(-y) would round to 0 for y < 5e-17


@elementwise(
    formula=r"y = \frac{2}{\sqrt\pi} \int_0^x e^{-t^2}\,dt",
    pullback=r"\bar x = \bar y\,\frac{2}{\sqrt\pi} e^{-x^2}",
    source="W. J. Cody 1969, Math. Comp. 23(107), 631-637",
)
def erf(xp, x):
    """Error function, accurate to a few ulps of float64.

    >>> mg.erf(mg.tensor([0.0, 1.0]))
    tensor([0.        , 0.84270079])
    """
    return special.erf(xp, floating(x))


@erf.defpartials
def derf(y, x):
    return (2 / sqrt(pi) * exp(-x * x),)


@elementwise(
    formula=r"y = 1 - \mathrm{erf}(x)",
    pullback=r"\bar x = -\bar y\,\frac{2}{\sqrt\pi} e^{-x^2}",
    source="W. J. Cody 1969, Math. Comp. 23(107), 631-637",
)
def erfc(xp, x):
    """Complementary error function ``1 - erf(x)``, without the cancellation for large ``x``.

    >>> mg.ops.erfc(mg.tensor(10.0)).item()
    2.0884875837625446e-45
    """
    return special.erfc(xp, floating(x))


@erfc.defpartials
def derfc(y, x):
    return (-2 / sqrt(pi) * exp(-x * x),)


@elementwise(
    formula=r"y = x\,\Phi(x),\quad \Phi(x) = \frac{1}{2} \mathrm{erfc}(-x / \sqrt 2)",
    pullback=r"\bar x = \bar y\,(\Phi(x) + x\,\varphi(x)),\quad"
    r" \varphi(x) = e^{-x^2/2} / \sqrt{2\pi}",
    source="Hendrycks, Gimpel 2016, arXiv:1606.08415, the exact form",
)
def gelu(xp, x):
    """Gaussian error linear unit: ``x`` times the standard normal distribution function.

    >>> mg.gelu(mg.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.15865525,  0.        ,  0.84134475])
    """
    return x * (0.5 * special.erfc(xp, x * -(0.5**0.5)))


@gelu.defpartials
def dgelu(y, x):
    return (0.5 * erfc(x * -(0.5**0.5)) + x * (exp(-0.5 * x * x) / sqrt(2 * pi)),)
