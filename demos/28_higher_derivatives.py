"""Detaching the mean inside the variance keeps batch norm's gradient right, but not its curvature.

At order 1 the dropped term is 0, so no gradient check finds the mistake. The reference for orders 2
and 3 is a polynomial through values of the forward pass (Trefethen 2013, Approximation Theory).
"""

# %% Batch norm along one line
# L(t) = sum(W * batch_norm(x + t v)) is a function of one number, so its derivatives of any order
# are numbers, too. W is random, because with ones every derivative would be 0.
from importlib.util import find_spec

import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
x, v, W = run.rng.normal(size=(3, 32, 4))  # with 8, a variance may nearly vanish at a complex t
v = v + 1.0  # so that the mean of the batch moves, too


def batch_norm(x):
    return mg.batch_norm(x, np.ones(4), np.zeros(4), eps=1e-5)


def detached_mean(x):
    mu = mg.mean(x, axis=0)
    var = mg.mean(mg.square(x - mu.detach()), axis=0)  # the shortcut: mu is treated as a constant
    return (x - mu) / mg.sqrt(var + 1e-5)


def derivative(norm, order, t=0.0):
    f = lambda t: mg.sum(W * norm(x + t * v))  # noqa: E731
    for _ in range(order):
        f = mg.grad(f)
    return f(t).item()


# %% A reference without derivative rules
# L is analytic, so the polynomial through its values at 21 Chebyshev points is L, up to rounding.
values = np.vectorize(lambda t: (W * batch_norm(x + t * v)).sum())
polynomial = np.polynomial.Chebyshev.interpolate(values, 20, domain=[-0.2, 0.2])
exact = [polynomial.deriv(k)(0.0) for k in (1, 2, 3)]

# %% Three orders, two ways to write one function
# dvar = 2 mean((x - mu) (dx - dmu)), and (x - mu) sums to 0, so dmu drops out: at order 1 detaching
# is exact. But the derivative of dvar contains the term mean(dmu dmu), which detaching drops.
for norm in (batch_norm, detached_mean):
    for k in (1, 2, 3):
        error = abs(derivative(norm, k) / exact[k - 1] - 1)
        run.number(f"relative error of {norm.__name__}, order {k}", error, ".1e", key=k < 3)

# %% The same in PyTorch
# It has formulas for orders 1 and 2; order 3 comes from differentiating the formula of order 2.
if find_spec("torch"):
    import torch

    tx, tv, tW = map(torch.tensor, (x, v, W))
    for k in (1, 2, 3):
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        y = torch.nn.functional.batch_norm(tx + t * tv, None, None, training=True)
        slope = (tW * y).sum()
        for _ in range(k):
            (slope,) = torch.autograd.grad(slope, t, create_graph=True)
        error = abs(slope.item() / exact[k - 1] - 1)
        run.number(f"relative error of torch, order {k}", error, ".1e")
else:
    print("torch is not installed: its kernel is not shown")

# %% The derivatives along the line: only those of order 1 agree
ts = np.linspace(-0.5, 0.5, 15 if run.fast else 61)
fig, axes = demo.figure(1, 3, width=10, height=3, sharex=True)
for k, ax in zip((1, 2, 3), axes, strict=True):
    for norm, colour, width in ((detached_mean, demo.VERMILION, 4), (batch_norm, demo.BLUE, 1.5)):
        line = [derivative(norm, k, t) for t in ts]
        ax.plot(ts, line, color=colour, lw=width, label=norm.__name__.replace("_", " "))
    ax.set(title=f"derivative of order {k}", xlabel="t", ylabel=f"d$^{k}$L / dt$^{k}$")
axes[1].legend()
run.save("28_higher_derivatives.svg", fig)
