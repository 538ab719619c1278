"""LeNet needs batch norm at its fully connected layers, and hardly at its convolutions.

This LeNet has four batch norms: at two convolutions and at two fully connected layers. Some are
left out. Others are replaced by one with gamma = 1 and beta = 0 fixed, or by half of one, which
only subtracts the mean or only divides by the standard deviation.

Source: Zhang, Lipton, Li, Smola, Dive into Deep Learning 1.0, section 8.5, exercises 3 to 5.
"""

# %% Replacements for batch norm
from functools import partial

import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=2)
digits = mg.train.load_images("digits")
seeds = range(run.seed, run.seed + (1 if run.fast else 4))


class Half(nn.Module):
    """One half of batch norm, without gamma and beta: x - mean, or x / sqrt(var + eps)."""

    def __init__(self, norm, half):
        self.half = half

    def forward(self, x):
        axis = tuple(i for i in range(x.ndim) if i != 1)
        xc = x - mg.mean(x, axis=axis, keepdims=True)
        if self.half == "mean":
            return xc
        return x / mg.sqrt(mg.mean(xc * xc, axis=axis, keepdims=True) + 1e-5)


def nothing(norm):
    return nn.Identity()


def fixed(norm):
    return type(norm)(norm.num_features, affine=False)


kept = {"none": (), "conv 6": (0,), "conv 16": (1,), "both convolutions": (0, 1),
        "linear 120": (2,), "linear 84": (3,), "both linear layers": (2, 3),
        "all four": (0, 1, 2, 3)}  # fmt: skip
variants = {name: (places, nothing) for name, places in kept.items()} | {
    "all, gamma and beta fixed": ((), fixed),
    "all, mean only": ((), partial(Half, half="mean")),
    "all, deviation only": ((), partial(Half, half="deviation")),
}

# %% Training, learning rate 0.5


def accuracy(keep, other, seed):
    """The training accuracy in the last epoch; ``other`` replaces each norm not in ``keep``."""
    net = nn.models.lenet_bn(side=8, rng=seed)
    norms = [(name, m) for name, m in net.named_children() if hasattr(m, "running_mean")]
    for place, (name, norm) in enumerate(norms):
        if place not in keep:
            setattr(net, name, other(norm))
    optimizer = mg.optim.SGD(net.to(dtype="float32").parameters(), lr=0.5)
    trainer = mg.train.Trainer(net, optimizer, digits.train, digits.test, batch_size=32, seed=seed)
    return list(trainer.fit(1 if run.fast else 8))[-1].train_acc


fig, ax = demo.figure(height=3.8)
for row, (name, variant) in enumerate(variants.items()):
    accuracies = [accuracy(*variant, seed) for seed in seeds]
    shown = ("none", "both convolutions", "both linear layers", "all four")
    run.number(f"training accuracy, {name}", np.mean(accuracies), key=name in shown)
    ax.barh(row, np.mean(accuracies), color=demo.BLUE, alpha=0.4)
    ax.plot(accuracies, [row] * len(accuracies), "o", color=demo.BLUE, markersize=4)
ax.set_yticks(range(len(variants)), variants)
ax.invert_yaxis()
ax.set(xlim=(0, 1.02), xlabel="training accuracy", title="Where LeNet has batch norm")
run.save("15_every_layer.svg", fig)
