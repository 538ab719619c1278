"""With batches of two, batch norm hardly learns; batch renormalization more than halves its loss.

The rate is proportional to the batch size. Without normalization the batch size then makes little
difference; for batches of two, no normalization is better than both. So the noise of the batch's
mean and variance causes the difference. A batch of one has no variance.
Source: Ioffe 2017, arXiv:1702.03275.
"""

# %% Batches of one and two examples
# With one example, x equals its mean: y is beta for every x, and the gradient is 0. With two, x_hat
# is +1 and -1, so the output only tells which of the two is larger.
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=3)
x, gamma, beta = run.rng.normal(size=(2, 5)), np.ones(5), np.zeros(5)
_, pullback = mg.vjp(lambda x: mg.batch_norm(x, gamma, beta), x[:1])
(x_bar,) = pullback(run.rng.normal(size=(1, 5)))
run.number("one example: largest |x_bar|", abs(x_bar.numpy()).max())
y = mg.batch_norm(x, gamma, beta, eps=0)
run.number("two examples: |x_hat| from, to", [float(abs(y).min()), float(abs(y).max())])
try:
    nn.BatchNorm1d(5)(x[:1])
except mg.errors.ShapeError as error:
    run.number("the layer says of one", str(error).splitlines()[1].strip())

# %% A network 64-64-64-10 on digits
# Batch renormalization works like batch norm for one epoch; over the second, r_max grows to 3 and
# d_max to 5. Then it uses the running statistics, except for deviations beyond these limits.
# The small size has fewer steps, and a rate four times as large to make up for it.
data = mg.train.load_images("digits", dtype="float64")
train = tuple(array[: 480 if run.fast else None] for array in data.train)
epochs, rate = (10, 0.4) if run.fast else (20, 0.1)


def learn(make_norm, batch_size):
    rng, layers = np.random.default_rng(run.seed), [nn.Flatten()]
    for _ in range(2):
        layers += [nn.Linear(64, 64, rng=rng), make_norm(len(train[0]) // batch_size), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(64, 10, rng=rng))
    optimizer = mg.optim.SGD(net.parameters(), lr=rate * batch_size / 64)
    options = {"batch_size": batch_size, "seed": run.seed}
    trainer = mg.train.Trainer(net, optimizer, train, data.test, **options)
    return list(trainer.fit(epochs))[-1]


def renorm(steps):
    def clips(step):
        share = min(max(step / steps - 1, 0), 1)
        return 1 + 2 * share, 5 * share

    return nn.BatchRenorm1d(64, clips=clips)


# %% Loss and accuracy against the batch size
kinds = {
    "no normalization": lambda steps: nn.Identity(),
    "batch norm": lambda steps: nn.BatchNorm1d(64),
    "batch renormalization": renorm,
}
sizes = [2, 64] if run.fast else [2, 4, 8, 16, 32, 64]
fig, (left, right) = demo.figure(1, 2, width=9)
for name, make_norm in kinds.items():
    last = [learn(make_norm, size) for size in sizes]
    for size, epoch in zip(sizes, last, strict=True):
        run.number(f"training loss, batch size {size}, {name}", epoch.loss, key=size == 2)
    left.plot(sizes, [epoch.loss for epoch in last], "o-", label=name)
    right.plot(sizes, [epoch.test_acc for epoch in last], "o-", label=name)
for ax, title in ((left, "training loss"), (right, "test accuracy")):
    ax.set_xscale("log", base=2)
    ax.set(title=f"{title} after {epochs} epochs", xlabel="batch size")
left.legend()
left.set_yscale("log")
run.save("21_small_batches.svg", fig)
