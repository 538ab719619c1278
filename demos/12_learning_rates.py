"""Batch norm lets deep networks learn at rates at which the same networks without it fail.

Each square of the picture is one training run with its depth and learning rate. The range of rates
that work narrows with depth, but far less with batch norm.

Source: Ioffe, Szegedy 2015, section 3.3; Bjorck et al. 2018, arXiv:1806.02375, section 3.
"""

# %% One run
# A ReLU network with hidden layers of 64 units, He initialization and plain SGD.
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=2)
digits = mg.train.load_images("digits")
epochs = 3 if run.fast else 6
rates = 2.0 ** (np.arange(-5, 4, 2) if run.fast else np.arange(-9, 6))


def accuracy(depth, lr, batch_norm):
    """The training accuracy in the last epoch; nan if the loss became infinite or nan."""
    options = {"side": 8, "dtype": "float32", "rng": run.seed}
    if depth == "LeNet":
        net = nn.models.lenet(batch_norm, **options)
    else:
        net = nn.models.mlp(batch_norm, sizes=(64,) * depth, **options)
    optimizer = mg.optim.SGD(net.parameters(), lr=lr)
    trainer = mg.train.Trainer(net, optimizer, digits.train, digits.test, batch_size=64)
    try:
        return list(trainer.fit(epochs))[-1].train_acc
    except mg.errors.AnomalyError:
        return np.nan


# %% The rates that train a network
# A rate trains a network if 80 % of the answers in the last epoch are right; chance is 10 %.

depths = [2, 6] if run.fast else [1, 2, 4, 8, 16, "LeNet"]
maps = {}
for name, batch_norm in (("without batch norm", False), ("with batch norm", True)):
    maps[name] = np.array([[accuracy(d, lr, batch_norm) for lr in rates] for d in depths])
    for depth, row in zip(depths, maps[name], strict=True):
        working = rates[np.nan_to_num(row) >= 0.8]
        layers = depth if depth == "LeNet" else f"depth {depth}"
        run.number(f"smallest and largest rate that trains, {layers}, {name}",
                   [working.min(), working.max()] if len(working) else [])  # fmt: skip

# %% The picture

fig, axes = demo.figure(1, 2, width=8.5, height=3.2, sharey=True)
for ax, (name, grid) in zip(axes, maps.items(), strict=True):
    ax.set_facecolor("black")
    squares = ax.pcolormesh(np.arange(len(rates)), np.arange(len(depths)), grid, vmin=0, vmax=1)
    ax.set(title=name, xlabel="learning rate", xticks=range(0, len(rates), 2))
    ax.set_xticklabels([f"$2^{{{np.log2(lr):.0f}}}$" for lr in rates[::2]])
    ax.set_yticks(range(len(depths)), depths)
axes[0].set_ylabel("hidden layers")
fig.colorbar(squares, ax=axes, label="training accuracy (black: not finite)")
run.save("12_learning_rates.svg", fig)
