"""With batch norm a network learns from all five scales of initial weights, without it from one.

The scales multiply He's standard deviation by 1/16, 1/4, 1, 4 and 16. The network learns from a
scale if it classifies more than half of the test images correctly for every random draw.

Source: Ioffe, Szegedy 2015, section 3.3; Mishkin, Matas 2015, arXiv:1511.06422, section 4.
"""

# %% One run
# 64-64-64-64-10 with ReLU, learning rate 0.1. If the loss becomes infinite or nan, the accuracy
# counts as that of guessing, 1 of 10.
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=1)
digits = mg.train.load_images("digits")
scales = [1 / 16, 1 / 4, 1, 4, 16]
seeds = range(run.seed, run.seed + (2 if run.fast else 8))


def accuracy(scale, batch_norm, seed):
    """The accuracy on the test data after training."""
    net = nn.models.mlp(batch_norm, side=8, sizes=(64, 64, 64), dtype="float32", rng=seed)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = scale * layer.weight.numpy()
    optimizer = mg.optim.SGD(net.parameters(), lr=0.1)
    trainer = mg.train.Trainer(net, optimizer, digits.train, digits.test, batch_size=64, seed=seed)
    try:
        return list(trainer.fit(3 if run.fast else 10))[-1].test_acc
    except mg.errors.AnomalyError:
        return 0.1


# %% Five scales
# Without knowledge of the right scale, you must expect the worst of all runs.

results = {}
for name, batch_norm in (("with batch norm", True), ("without", False)):
    rows = np.array([[accuracy(s, batch_norm, seed) for seed in seeds] for s in scales])
    run.number(f"mean test accuracy per scale, {name}", rows.mean(axis=1), ".3f")
    run.number(f"lowest, {name}", rows.min(axis=1), ".3f")
    run.number(f"highest, {name}", rows.max(axis=1), ".3f")
    run.number(f"scales that it learns from, {name}", np.sum(rows.min(axis=1) > 0.5))
    results[name] = rows

# %% The picture

fig, ax = demo.figure(height=3.4)
for (name, rows), colour in zip(results.items(), (demo.BLUE, demo.VERMILION), strict=True):
    ax.plot(scales, rows.mean(axis=1), color=colour)
    ax.plot(scales, rows, ".", color=colour, alpha=0.6)
    ax.text(scales[3], rows[3].max() + 0.04, name, color=colour)
ax.set(xscale="log", ylim=(0, 1.1), ylabel="test accuracy")
ax.set_xticks(scales, ["1/16", "1/4", "1", "4", "16"])
ax.minorticks_off()
ax.set_xlabel("standard deviation of the initial weights, in units of He's")
run.save("13_initial_weights.svg", fig)
