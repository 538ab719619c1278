"""Mini-batches need few epochs, like single examples, and few steps, like the full batch.

A machine that computes one example after another takes time in proportion to epochs, a machine that
computes any batch at once in proportion to steps. Real machines are in between. A machine with 64
lanes computes 64 examples at once, so a step takes ceil(batch size / 64) units of work.
Mini-batches take the least work.
Source: Bottou, Curtis, Nocedal 2018, arXiv:1606.04838, section 3.3; McCandlish, Kaplan, Amodei
2018, arXiv:1812.06162, for steps against examples.
"""

# %% A linear classifier of digits, whose loss is convex
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__)
images, labels = mg.train.load_images("digits", dtype="float64").train
X = images.reshape(-1, 64)[: 480 if run.fast else None]
y = labels[: len(X)]
N, target = len(X), 0.15


# %% Descent until the loss over all examples is at most 0.15
# The loss is computed ten times per epoch, or at every step if an epoch has fewer than ten.
def descend(batch_size, lr):
    linear = nn.Linear(64, 10, rng=run.seed)
    optimizer = mg.optim.SGD(linear.parameters(), lr=lr)
    data = mg.data.TensorDataset(X, y)
    loader = mg.data.DataLoader(data, batch_size, shuffle=True, drop_last=True, seed=run.seed)
    every = max(len(loader) // 10, 1)
    path = []  # rows of (epochs, steps, work with 64 lanes, loss)
    batches = (batch for _ in range(100) for batch in loader)
    for steps, (x_batch, y_batch) in enumerate(batches):
        if steps % every == 0:
            with mg.no_grad():
                loss = mg.cross_entropy(linear(mg.tensor(X)), y).item()
            path.append((steps / len(loader), steps, steps * -(-batch_size // 64), loss))
            if not target < loss < 100:
                break
        optimizer.zero_grad()
        mg.cross_entropy(linear(mg.tensor(x_batch)), y_batch).backward()
        optimizer.step()
    return np.array(path)


# %% Each batch size with its best rate
# Rates are a factor of 2 apart; the best one reaches the target after the fewest epochs.
kinds = {
    "one example": (1, [0.1, 0.2, 0.4, 0.8]),
    "64 examples": (64, [4.0, 8.0, 16.0]),
    "all examples": (N, [4.0, 8.0, 16.0, 32.0]),
}
fig, axes = demo.figure(1, 3, width=10, height=3.4, sharey=True)
for kind, (batch_size, rates) in kinds.items():
    paths = {lr: descend(batch_size, lr) for lr in rates}
    reached = {lr: path for lr, path in paths.items() if path[-1, 3] <= target}
    lr = min(reached, key=lambda lr: reached[lr][-1, 0])
    run.number(f"rate, {kind}", lr)
    units = ("epochs", "steps", "work of 64 lanes")
    for unit, ax, column in zip(units, axes, reached[lr].T, strict=False):
        run.number(f"{unit}, {kind}", column[-1], key=unit in ("epochs", "steps"))
        ax.loglog(column[1:], reached[lr][1:, 3], label=kind)
        ax.set(xlabel=unit)
axes[0].set_ylabel("loss over all examples")
axes[1].legend()
run.save("27_batch_sizes.svg", fig)
