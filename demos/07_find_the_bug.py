"""Of six wrong batch norm backwards the checker finds and names all six, a check of sum(y) two.

There is no tolerance to choose. The bound follows from the rounding of the terms that cancel and
the error of the differences, so an error of one part in a million is as clear as a missing term.
"""

# %% One forward, six wrong backwards
# The mistakes: a missing path, a missing factor, a wrong divisor.
from functools import partial

import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
N, C, EPS, NAMES = 12, 3, 1e-5, ("x", "gamma", "beta")


def forward(x, gamma, beta):
    xc = x - x.mean(0)
    var = (xc * xc).mean(0)
    x_hat = xc / np.sqrt(var + EPS)
    return gamma * x_hat + beta, (x, x_hat, var, gamma)


def backward(y_bar, cache, bug=""):
    x, x_hat, var, gamma = cache
    g = y_bar if bug == "gamma forgotten" else gamma * y_bar
    inv_std = 1 / np.sqrt(var if bug == "eps forgotten" else var + EPS)
    by_mean = 0 if bug == "mean taken as constant" else g.mean(0)
    by_var = x_hat * (g * x_hat).mean(0)
    if bug == "variance taken as constant":
        by_var = 0
    if bug == "N - 1 in the variance":
        by_var = by_var * N / (N - 1)
    factor = x if bug == "x for x_hat in gamma_bar" else x_hat
    return inv_std * (g - by_mean - by_var), (y_bar * factor).sum(0), y_bar.sum(0)


BUGS = ("variance taken as constant", "mean taken as constant", "gamma forgotten",
        "N - 1 in the variance", "x for x_hat in gamma_bar", "eps forgotten")  # fmt: skip
x = 1.0 + run.rng.normal(size=(N, C)) * [0.5, 2.0, 5.0]
inputs = (x, run.rng.normal(1.0, 0.3, size=C), run.rng.normal(size=C))
run.number("the right one is proven", mg.verify.check_backward(forward, backward, inputs).ok)

# %% What the checker reports
# Of each report, the finding with the largest ratio of error to bound is shown.
errors = {}
for bug in BUGS:
    report = mg.verify.check_backward(forward, partial(backward, bug=bug), inputs, names=NAMES)
    f = max(report.findings, key=lambda f: abs(f.got - f.expected) / f.bound)
    errors[bug] = abs(f.got - f.expected), f.bound
    run.number(bug, f.cause)
    print(f"    {f.input}{list(f.index)} is {f.got:.7f} instead of {f.expected:.7f}")
run.number("found by the checker", len(errors), key=True)

# %% What a check of sum(y) reports
# It tests the same backwards with a seed of ones and the tolerances of numpy.allclose.
ones = np.ones((N, C))
truth = [j.pull(ones)[0] for j in mg.verify.jacobians(lambda *a: forward(*a)[0], inputs)]
detected = []
for bug in BUGS:
    got = backward(ones, forward(*inputs)[1], bug)
    if not all(np.allclose(a, b) for a, b in zip(got, truth, strict=True)):
        detected.append(bug)
run.number("found by differences of sum(y)", detected, key=True)

# %% How far each error is above its bound
fig, ax = demo.figure(width=8, height=3.2)
for i, (bug, (error, bound)) in enumerate(errors.items()):
    ax.plot([bound, error], [i, i], "|-", ms=14, color=demo.GREY, lw=1)
    ax.plot(error, i, "o", ms=8, color=demo.BLUE)
    ax.annotate("sum(y) finds it, too" if bug in detected else "", (error * 4, i), va="center")
ax.annotate("bound", (errors[BUGS[0]][1], -0.4), ha="center")
ax.annotate("error", (errors[BUGS[0]][0], -0.4), ha="center")
ax.set(xscale="log", xlim=(1e-15, 1e6), yticks=range(6), yticklabels=BUGS, ylim=(5.5, -1))
ax.set_xlabel("error of the element with the largest ratio of error to bound")
run.save("07_find_the_bug.svg", fig)
