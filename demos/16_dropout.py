"""Batch norm does not replace dropout: it learns wrong labels by heart, dropout far fewer of them.

200 digits, each mislabelled with probability 0.3, are learned with batch norm, with dropout, with
both and with neither. With both, variances are smaller in evaluation than in training (variance
shift).

Source: Ioffe, Szegedy 2015, section 3.4 (which hopes that batch norm may replace dropout); Li et
al. 2018, arXiv:1801.05134 (variance shift).
"""

# %% Wrong labels
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__)
digits = mg.train.load_images("digits")
seeds = range(run.seed, run.seed + (1 if run.fast else 5))

x, labels = digits.train[0][:200], digits.train[1][:200].copy()
wrong = run.rng.random(200) < 0.3
labels[wrong] = (labels[wrong] + run.rng.integers(1, 10, wrong.sum())) % 10
run.number("wrong labels of 200", wrong.sum())

# %% One network
# 64-128-128-10 with ReLU, dropout with p = 0.5 after each ReLU, learning rate 0.1.


def train(batch_norm, dropout, seed):
    """The network, and its test accuracy after each epoch."""
    net = nn.models.mlp(batch_norm, side=8, sizes=(128, 128), dtype="float32", rng=seed)
    for name, module in net.named_children():
        if dropout and isinstance(module, nn.ReLU):
            setattr(net, name, nn.Sequential(module, nn.Dropout(0.5, rng=seed)))
    optimizer = mg.optim.SGD(net.parameters(), lr=0.1)
    trainer = mg.train.Trainer(net, optimizer, (x, labels), digits.test, batch_size=32, seed=seed)
    accuracies = [epoch.test_acc for epoch in trainer.fit(40 if run.fast else 80)]
    return net.eval(), accuracies


def variance_shift(net):
    """Variance in evaluation / running variance, of the inputs of the second batch norm."""
    *before, norm = list(net)[:6]
    h = x
    for module in before:
        h = module(h)
    return np.mean(np.var(h.numpy(), axis=0) / norm.running_var.numpy())


# %% Alone and together

fig, (left, right) = demo.figure(1, 2, width=8.5, height=3.4, width_ratios=[3, 2])
variants = {
    "none": (False, False),
    "dropout": (False, True),
    "batch norm": (True, False),
    "both": (True, True),
}
for i, (name, variant) in enumerate(variants.items()):
    nets, curves = zip(*(train(*variant, seed) for seed in seeds), strict=True)
    by_heart = [np.mean(net(x).numpy().argmax(1)[wrong] == labels[wrong]) for net in nets]
    curve, colour = np.mean(curves, axis=0), demo.COLOURS[i]
    run.number(f"test accuracy, {name}", curve[-1])
    run.number(f"wrong labels learned by heart, {name}", np.mean(by_heart), key=True)
    if variant[0]:
        shift = np.mean([variance_shift(net) for net in nets])
        run.number(f"variance in evaluation / running variance, {name}", shift)
    left.plot(range(1, len(curve) + 1), curve, color=colour)
    left.text(0.98, 0.79 + 0.065 * i, name, color=colour, ha="right", transform=left.transAxes)
    right.barh(i, np.mean(by_heart), color=colour)
    right.plot(by_heart, [i] * len(by_heart), "k.")
left.set(xlabel="epoch", ylabel="test accuracy", ylim=(0.5, 1))
right.set(
    xlabel="wrong labels learned by heart", yticks=range(4), yticklabels=variants, xlim=(0, 1)
)
run.save("16_dropout.svg", fig)
