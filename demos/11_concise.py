"""Nine sizes need not be written down: the first batch sets them, and nothing else changes.

Lazy layers take the number of channels or features from their first input. The network then has the
same weights as one with all sizes written down, and trains to the same losses, bit for bit.

Source: Zhang, Lipton, Li, Smola, Dive into Deep Learning 1.0, 8.5, "Concise Implementation".
"""

# %% LeNet-BN without the sizes of inputs
# The code only gives sizes that the data do not determine: channels, units, kernels, strides.
from functools import partial

import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__)


def concise():
    """LeNet with batch norm for images of any size."""
    return nn.Sequential(
        nn.LazyConv2d(6, 3, padding=1), nn.LazyBatchNorm2d(), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.LazyConv2d(16, 3, padding=1), nn.LazyBatchNorm2d(), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(120), nn.LazyBatchNorm1d(), nn.Sigmoid(),
        nn.LazyLinear(84), nn.LazyBatchNorm1d(), nn.Sigmoid(),
        nn.LazyLinear(10),
    )  # fmt: skip


def explicit():
    """The same network for 8 x 8 digits, with every size written down."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 120), nn.BatchNorm1d(120), nn.Sigmoid(),
        nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(),
        nn.Linear(84, 10),
    )  # fmt: skip


# %% The first batch sets the sizes
# Before the first batch there are no parameters, and asking for them is an error. One image is
# enough; in evaluation mode it does not change the running statistics.

digits = mg.train.load_images("digits", dtype="float64")
nn.manual_seed(run.seed)
lazy, large = concise(), concise()
run.number("sizes to fill in", sum("Lazy" in type(m).__name__ for m in lazy), key=True)
try:
    mg.optim.SGD(lazy.parameters(), lr=0.5)
except mg.errors.UsageError as error:
    print(error)
lazy.eval()(digits.test[0][:1])
print(lazy[:2])
run.number("sizes still to fill in", sum("Lazy" in type(m).__name__ for m in lazy), key=True)
large.eval()(np.zeros((1, 1, 28, 28)))
run.number("features found in 8 x 8 images", lazy[9].in_features)
run.number("features found in 28 x 28 images", large[9].in_features)

# %% Both networks learn the same
# The same seed gives the same weights, because the layers draw them in the same order.

nn.manual_seed(run.seed)
losses = []
for net in (lazy, explicit()):
    optimizer = mg.optim.SGD(net.parameters(), lr=0.5)
    trainer = mg.train.Trainer(net, optimizer, digits.train, digits.test, batch_size=64)
    losses.append([epoch.loss for epoch in trainer.fit(1 if run.fast else 4)])
run.number("loss of the last epoch", losses[0][-1])
run.number("largest difference of losses", np.ptp(losses, axis=0).max(), key=True)
run.graph = lazy.eval()(digits.test[0][:1])
draw = partial(mg.viz.draw, run.graph, depth=1, values=False, grads=False)
run.save("11_concise.svg", draw)
