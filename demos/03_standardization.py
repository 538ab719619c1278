"""Standardizing two features whose scales differ 5-fold saves 19 of 20 gradient descent steps.

If the contours of the loss are elongated, gradient descent zig-zags; if they are round, it goes
straight to the minimum. The number of steps grows with the condition number of X^T X / N. Source:
LeCun et al. 1998, Efficient BackProp, section 4.3.
"""

# %% Two features, one with five times the scale of the other
# Both are equally important for y; only their units differ.
import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
N = 50 if run.fast else 200
X = run.rng.normal(size=(N, 2)) * [1.0, 5.0]
y = X @ [1.0, 0.2] + 0.1 * run.rng.normal(size=N)


def loss(w, X):
    r = mg.matmul(X, w) - y
    return 0.5 * mg.mean(r * r)


# %% Gradient descent with the best constant step
# The Hessian is X^T X / N. With its eigenvalues l and h the best step is 2 / (l + h): it multiplies
# the distance to the minimum along either eigenvector by (k - 1) / (k + 1), where k = h / l.
def descend(X, gap=1e-6):
    """The path from 0 until the excess loss has shrunk by the factor `gap`, the minimum, and k."""
    low, high = np.linalg.eigvalsh(X.T @ X / N)
    minimum = np.linalg.lstsq(X, y)[0]
    lowest = loss(minimum, X)
    value_and_grad = mg.value_and_grad(loss)
    path = [mg.tensor([0.0, 0.0])]
    first = loss(path[0], X).item() - lowest
    while True:
        value, w_bar = value_and_grad(path[-1], X)
        if value.item() - lowest <= gap * first:
            return np.array([w.numpy() for w in path]), minimum, high / low
        path.append(path[-1] - 2 / (low + high) * w_bar)


# %% Descent with the features as measured, then standardized
# Standardizing means to subtract the mean and divide by the standard deviation. Do this for the
# inputs of a network; batch norm does it for every later layer.
features = {"as measured": X, "standardized": (X - X.mean(0)) / X.std(0)}
runs = {name: descend(Z) for name, Z in features.items()}
for name, (path, _, k) in runs.items():
    run.number(f"condition number, {name}", k)
    run.number(f"steps, {name}", len(path) - 1, key=True)
    predicted = np.log(1e-6) / (2 * np.log((k - 1) / (k + 1)))  # loss ~ distance^2
    run.number(f"steps predicted, {name}", int(np.ceil(predicted)))
as_measured, standardized = (len(path) - 1 for path, _, _ in runs.values())
run.number("steps saved", 1 - standardized / as_measured, ".1%", key=True)

# %% Contours of the loss, and the path of the descent
# Both axes have the same scale, so the contours have their true shape.
fig, axes = demo.figure(2, 1, width=7, height=6.4, sharex=True, height_ratios=[0.8, 1.85])
for ax, (name, (path, minimum, _)), top in zip(axes, runs.items(), [0.55, 1.6], strict=True):
    u, v = np.meshgrid(np.linspace(-0.6, 2.4, 120), np.linspace(-0.25, top, 80))
    height = 0.5 * ((np.stack([u, v], -1) @ features[name].T - y) ** 2).mean(-1)
    ax.contour(u, v, height, 12, colors=demo.GREY, linewidths=0.6)
    ax.plot(*path.T, "o-", ms=3, lw=1, color=demo.BLUE)
    ax.plot(*minimum, "*", ms=12, color=demo.VERMILION)
    ax.set(title=f"{name}: {len(path) - 1} steps", ylabel="$w_2$", aspect="equal")
axes[1].set_xlabel("$w_1$")
run.save("03_standardization.svg", fig)
