"""Standardized weights replace batch norm, and with clipped gradients they learn at its rates.

The networks have ten ReLU layers. Standardized weights keep images distinguishable from layer to
layer and learn well at small rates. Adaptive gradient clipping (AGC) bounds the step of each unit
by the size of its weights; then the rates of batch norm work, too. Clipping alone is not enough.
Source: Brock, De, Smith, Simonyan 2021, arXiv:2102.06171, sections 2 and 4.
"""

# %% Five networks 64-64-...-64-10
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__)
data = mg.train.load_images("digits", dtype="float64")
epochs, rates = (3, [0.1, 0.3]) if run.fast else (10, [0.01, 0.03, 0.1, 0.3, 1.0])
kinds = ("plain", "plain, AGC", "standardized", "standardized, AGC", "batch norm")


def network(kind, depth=10):
    rng, layers = np.random.default_rng(run.seed), [nn.Flatten()]
    for _ in range(depth):
        if kind.startswith("standardized"):
            layers.append(nn.ScaledWSLinear(64, 64, rng=rng))
            nn.init.constant_(layers[-1].gain, nn.RELU_GAIN)  # relu leaves 1 / gain^2 of a variance
        else:
            layers.append(nn.Linear(64, 64, rng=rng))
            nn.init.kaiming_normal_(layers[-1].weight, rng=rng)
        if kind == "batch norm":
            layers.append(nn.BatchNorm1d(64))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(64, 10, rng=rng))


# %% The signal at initialization
# relu makes the means of the units positive. So plain layers pass on what all images have in common
# and less and less of their differences. Standardized weights sum to 0 in every unit, which removes
# the common part. The number is the variance over the images, last layer divided by first.
for kind in ("plain", "standardized", "batch norm"):
    h, variances = mg.tensor(data.train[0]), []
    with nn.frozen_statistics(), mg.no_grad():
        for layer in list(network(kind))[:-1]:
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                variances.append(float(h.numpy().var(axis=0).mean()))
    run.number(f"variance kept over the layers, {kind}", variances[-1] / variances[0])


# %% Training at many rates
# A loss that is no longer finite raises an AnomalyError: that run counts as diverged.
def learn(kind, lr):
    net = network(kind)
    optimizer = mg.optim.SGD(net.parameters(), lr=lr)
    if kind.endswith("AGC"):
        last = list(net)[-1].parameters()  # the paper does not clip the last layer
        optimizer = mg.optim.AGC(optimizer, clipping=0.02, exclude=last)
    options = {"batch_size": 64, "seed": run.seed}
    trainer = mg.train.Trainer(net, optimizer, data.train, data.test, **options)
    try:
        return list(trainer.fit(epochs))[-1].loss
    except mg.errors.AnomalyError:
        return np.inf


fig, ax = demo.figure(height=3.6)
for kind in kinds:
    losses = [learn(kind, lr) for lr in rates]
    for lr, loss in zip(rates, losses, strict=True):
        run.number(f"loss at rate {lr}, {kind}", loss, key=lr == 0.3)
    ax.loglog(rates, np.minimum(losses, 3), "o-", label=kind)
ax.set(xlabel="learning rate", ylabel=f"training loss after {epochs} epochs")
ax.set_xticks(rates, rates)
ax.set_xticks([], minor=True)
ax.set_title("at the top: 3 or more, or diverged")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
run.save("25_normalizer_free.svg", fig)
