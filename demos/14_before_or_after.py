"""LeNet learns faster at small rates with batch norm after the sigmoid, at large rates before it.

Before the sigmoid, batch norm keeps it out of saturation. After the sigmoid, batch norm gives the
next layer inputs of variance 1, about 20 times that of a sigmoid's outputs. The gradients are
larger, and too large at lower rates. With ReLU the effect is the same, but weak.

Source: Ioffe, Szegedy 2015, section 3.2 (before); Mishkin et al. 2016, arXiv:1606.02228 (after).
"""

# %% The variance of a sigmoid's outputs
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=2)
digits = mg.train.load_images("digits")
rates = 2.0 ** (np.array([-3, -1, 1]) if run.fast else np.arange(-5, 3))
seeds = range(run.seed, run.seed + (1 if run.fast else 3))
guess = np.log(10)  # the loss of guessing, with ten equal probabilities

z = np.random.default_rng(0).normal(size=100_000)
run.number("variance of the sigmoid of N(0, 1)", np.var(mg.sigmoid(z)))

# %% One run


def training_loss(make, order, lr, seed):
    """The mean over the last epoch, at most the loss of guessing; also that if training fails."""
    net = make(side=8, order=order, dtype="float32", rng=seed)
    optimizer = mg.optim.SGD(net.parameters(), lr=lr)
    trainer = mg.train.Trainer(net, optimizer, digits.train, digits.test, batch_size=32, seed=seed)
    try:
        return min(guess, [epoch.loss for epoch in trainer.fit(2 if run.fast else 6)][-1])
    except mg.errors.AnomalyError:
        return guess


# %% Two networks, two places
# LeNet has sigmoids. The perceptron 64-64-64-64-10 has ReLUs, which do not saturate.


def perceptron(**options):
    """A perceptron with batch norm at three hidden layers of 64 units."""
    return nn.models.mlp_bn(sizes=(64, 64, 64), **options)


fig, axes = demo.figure(1, 2, width=8, height=3.2, sharey=True)
networks = {"LeNet, sigmoid": nn.models.lenet_bn, "perceptron, ReLU": perceptron}
for ax, (name, make) in zip(axes, networks.items(), strict=True):
    for order, colour in (("before", demo.BLUE), ("after", demo.VERMILION)):
        losses = [[training_loss(make, order, lr, seed) for seed in seeds] for lr in rates]
        means = np.mean(losses, axis=1)
        label = f"training loss, {name}, {order}, lr {rates[0]:g} to {rates[-1]:g}"
        run.number(label, means, key=True)
        ax.plot(rates, means, color=colour)
        ax.plot(rates, losses, ".", color=colour)
        above = "bottom" if order == "before" else "top"
        ax.text(rates[0], means[0], f"\n{order}\n", color=colour, va=above)
    ax.axhline(guess, color=demo.GREY, linewidth=0.8, linestyle="--")
    ax.set(title=name, xlabel="learning rate", xscale="log", yscale="log", ylim=(0.01, 4))
    ax.minorticks_off()
    ax.set_xticks(rates, [f"$2^{{{np.log2(lr):.0f}}}$" for lr in rates])
axes[0].set_ylabel("training loss")
axes[0].text(rates[0], guess, "guessing", color=demo.GREY, va="bottom")
run.save("14_before_or_after.svg", fig)
