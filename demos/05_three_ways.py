"""With a seed of ones, a batch norm backward that returns 0 for x passes; a random seed catches it.

Traced, analytic and numeric derivatives share no code and agree to rounding. But a check is only as
good as its seed, the cotangent from which the backward pass starts. The seed of `y.sum()` is in the
null space of batch norm.
"""

# %% Three ways to compute one derivative
# Traced: the engine sweeps the graph. Analytic: a formula written by hand. Numeric: finite
# differences of the forward pass. Each row compares two of them, with the allowed difference.
import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
N, C, eps = (6, 3, 1e-5) if run.fast else (64, 32, 1e-5)
x = run.rng.normal(2.0, 3.0, size=(N, C))
gamma, beta = run.rng.normal(1.0, 0.2, size=C), run.rng.normal(size=C)
inputs = (x, gamma, beta)

report = mg.verify.three_way(mg.batch_norm, mg.analytic.batch_norm_vjp, inputs)
print(report)
run.number("pairs that agree", sum(row.ok for row in report.rows))
exact = [row.error for row in report.rows if row.pair == "traced/analytic"]
run.number("traced against analytic", max(exact))

# %% One right and three wrong backward passes
xc = x - x.mean(axis=0)
inv_std = 1 / np.sqrt((xc * xc).mean(axis=0) + eps)
x_hat = xc * inv_std
y = gamma * x_hat + beta


def right(g):
    return inv_std * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0))


def no_variance_path(g):
    return inv_std * (g - g.mean(axis=0))


def statistics_are_constants(g):
    return inv_std * g


def nothing(g):
    return np.zeros_like(g)


# %% Three losses, three seeds
# The seed of sum(y) is all ones. The y of a channel always sum to N beta, whatever x is, so the
# true x_bar is 0. The seed of sum(y^2) / 2 is y itself; its x_bar is of the order of eps. sum(W y)
# is a real test. Errors are relative to inv_std |g|, the size of the terms that cancel.
seeds = {"sum(y)": np.ones((N, C)), "sum(y^2) / 2": y, "sum(W y)": run.rng.normal(size=(N, C))}
ways = (right, no_variance_path, statistics_are_constants, nothing)
errors = np.zeros((len(seeds), len(ways)))
for i, (loss, y_bar) in enumerate(seeds.items()):
    x_bar = mg.vjp(lambda x: mg.batch_norm(x, gamma, beta, eps=eps), x)[1](y_bar)[0].numpy()
    g = gamma * y_bar
    size = abs(inv_std * g).max()
    for k, way in enumerate(ways):
        error = abs(way(g) - x_bar).max() / size
        errors[i, k] = run.number(f"{loss}: {way.__name__}", error, ".1e", key=way is nothing)

# %% The picture
# The errors in the grey band pass a check with a tolerance of 1e-3, as hand-written checks often
# have. An error of 0 is drawn at 1e-17.
fig, axes = demo.figure(1, 3, width=9, height=2.6, sharey=True, sharex=True)
for ax, (loss, row) in zip(axes, zip(seeds, errors, strict=True), strict=True):
    ax.axvspan(1e-18, 1e-3, color=demo.GREY, alpha=0.15, lw=0)
    ax.scatter(np.maximum(row, 1e-17), range(4), c=demo.COLOURS[:4], s=60)
    ax.set(
        xscale="log", xlim=(1e-18, 30), title=f"loss = {loss}", xlabel="error / size of the terms"
    )
axes[0].set(yticks=range(4), yticklabels=[way.__name__.replace("_", " ") for way in ways])
axes[0].invert_yaxis()
run.save("05_three_ways.svg", fig)
