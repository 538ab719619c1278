"""For batches of 4, a running variance is right with divisor N - 1, and a quarter too low with N.

Training normalizes with the statistics of the batch, evaluation with running averages of them.
Libraries differ in the divisor and in the weights. Source: Ioffe, Szegedy 2015, Alg. 2.
"""

# %% Batches of four from a known distribution
# Mean 5, variance 9, in 64 channels at once, so that the averages below are precise.
import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
N, C, B = 4, 64, 300 if run.fast else 3000
batches = 5 + 3 * run.rng.normal(size=(B, N, C))


def train(**options):
    """A layer after all batches, and its running variances after each batch."""
    layer, history = mg.nn.BatchNorm1d(C, **options), []
    for x in batches:
        layer(x)
        history.append(layer.running_var.numpy())
    return layer, np.array(history)


# %% Which variance is averaged
# Batches are always normalized with 1/N. For the running average, PyTorch and the paper multiply by
# N/(N-1), which makes it unbiased; Keras and d2l do not. `momentum=None` averages all batches
# equally, so the result depends only on the divisor.
histories = {}
for divisor, unbiased in {"1/(N-1)": True, "1/N": False}.items():
    _, histories[divisor] = train(momentum=None, unbiased=unbiased)
    run.number(f"running variance / true one, {divisor}", histories[divisor][-1].mean() / 9)
run.number("standard error of that", np.sqrt(2 / (N - 1) / (B * C)))

# %% The weight of the new batch
# As in PyTorch, running = (1 - momentum) running + momentum batch. In Keras, Chainer and old d2l,
# momentum is the weight of the old value: their 0.9 is 0.1 here, where 0.9 would forget quickly.
for momentum in (0.1, 0.9):
    layer, histories[f"momentum {momentum}"] = train(momentum=momentum)
    noise = (layer.running_mean.numpy() - 5).std() / (3 / np.sqrt(N))
    run.number(f"noise of the running mean / noise of a batch mean, momentum {momentum}", noise)
    run.number(f"in theory, momentum {momentum}", np.sqrt(momentum / (2 - momentum)))
run.number("relative standard error of the noise in 64 channels", 1 / np.sqrt(2 * (C - 1)))
d2l = {"gamma": [1.0], "beta": [0.0], "moving_mean": [0.0], "moving_var": [1.0]}
run.number("d2l's momentum 0.9 as ours", mg.nn.batch_norm_from("d2l", d2l, momentum=0.9).momentum)

# %% Training and evaluation
# Put the same example into two batches. In training, its output depends on the other examples; in
# evaluation it does not. A single example has no variance, so it raises an error in training.
layer, example = train()[0], batches[0, :1]
pairs = [np.concatenate([example, batches[k, 1:]]) for k in (1, 2)]
for mode in ("evaluation", "training"):
    layer.train(mode == "training")
    a, b = (layer(x)[0] for x in pairs)
    run.number(f"change of an example's output with its batch, {mode}", abs(a - b).max())
try:
    layer(example)
except mg.errors.ShapeError as error:
    run.number("a batch of one, training", " ".join(str(error).split()))

# %% Left: the divisors, averaged over the channels. Right: two values of momentum in one channel
fig, (left, right) = demo.figure(1, 2, width=9.5, height=3.4)
batches_seen = np.arange(1, 101)
for ax in (left, right):
    ax.axhline(9, color=demo.BLACK, lw=1, ls="--")
    ax.set(xlabel="batches seen", xlim=(1, 100), ylabel="running variance")
for name, colour in {"1/(N-1)": demo.BLUE, "1/N": demo.VERMILION}.items():
    line = histories[name][:100].mean(axis=1)
    left.plot(batches_seen, line, color=colour)
    left.annotate(name, (75, line[75] - 0.75), color=colour)
left.set(ylim=(0, 11), title="all batches averaged equally (true: 9)")
for name, colour in {"momentum 0.9": demo.SKY, "momentum 0.1": demo.BLUE}.items():
    right.plot(batches_seen, histories[name][:100, 0], color=colour, lw=1.4, label=name)
right.set(title="in one channel", ylim=(0, 1.25 * histories["momentum 0.9"][:100, 0].max()))
right.legend(loc="upper left", ncols=2)
run.save("09_running_statistics.svg", fig)
