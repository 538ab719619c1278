"""A new op and its kernel are proven to order 3; a rule that is wrong only for x < 0 is detected.

The op is log cosh, a smooth absolute value. Its declaration is a forward, a formula and a rule. The
checker, the drawings, the reference and derivatives of any order all use this declaration.
"""

# %% Declare the op
# The first argument is the array library. 1.0 * x turns integers into floats. ln(cosh(x)) would
# overflow at 711. The rule consists of ops, so it can be differentiated again.
import numpy as np

import minigrad as mg
from minigrad import demo
from minigrad.fused.declare import fused

run = demo.start(__doc__)


@mg.elementwise(formula=r"y = \ln \cosh x", pullback=r"\bar x = \bar y \tanh x")
def log_cosh(xp, x):
    """Smooth absolute value: x^2 / 2 near 0, |x| - ln 2 far away."""
    return xp.abs(1.0 * x) + xp.log1p(xp.expm1(-2 * xp.abs(1.0 * x)) / 2)


@log_cosh.defpartials
def dlog_cosh(y, x):
    return (mg.tanh(x),)


# %% Prove the op
# The points are random. Orders 1 to 3 are compared with finite differences that have an error bar.
run.number("log cosh is proven", mg.verify.check_op(log_cosh, order=3).ok)


# %% A rule that is wrong for x < 0
# y determines tanh^2 x = 1 - e^(-2y), but its root is |tanh x|: right for x > 0, wrong for x < 0.
@mg.elementwise(formula=log_cosh.formula, pullback=r"\bar x = \bar y \sqrt{1 - e^{-2y}}")
def one_sided(xp, x):
    """The same forward with another rule."""
    return log_cosh.forward(xp, x)


@one_sided.defpartials
def done_sided(y, x):
    return (mg.sqrt(-mg.expm1(-2 * y)),)


wrong = mg.verify.check_op(one_sided)
run.number("the rule from y is proven", wrong.ok)
print(f"    {wrong.findings[0].message}")


# %% A kernel: one node, a hand-written backward, the same signature
# It saves tanh x for its backward, which is one product. Higher orders use log_cosh itself.
@fused(log_cosh, pullback=r"\bar x = \bar y \tanh x")
def fast_log_cosh(xp, x):
    """log cosh and its derivative from one exponential."""
    e = xp.expm1(-2 * xp.abs(1.0 * x))
    return xp.abs(1.0 * x) + xp.log1p(e / 2), xp.copysign(e / (2 + e), x)


@fast_log_cosh.defbackward
def fast_backward(xp, y_bar, slope):
    return (y_bar * slope,)


run.number("the kernel is proven", mg.verify.check_op(fast_log_cosh, order=3).ok)

# %% The kernel's derivatives to order 3, computed with `mg.grad`
x, f = np.linspace(-3, 3, 121), fast_log_cosh
fig, ax = demo.figure(width=7, height=3.8)
for name, at, dy in (("y", 105, 0.2), ("1", 110, 0.1), ("2", 60, 0.1), ("3", 73, -0.2)):
    y = f(mg.tensor(x)).numpy()
    (line,) = ax.plot(x, y)
    ax.annotate(name, (x[at], y[at] + dy), color=line.get_color(), ha="center")
    f = mg.grad(lambda x, f=f: mg.sum(f(x)))
run.number("error of the third derivative", abs(y + 2 * np.tanh(x) / np.cosh(x) ** 2).max())
ax.set(xlabel="x", title="y = log cosh x, and its derivatives of order 1, 2, 3")
run.save("29_your_own_op.svg", fig)
