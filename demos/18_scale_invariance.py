"""Multiplying the weights before batch norm by a keeps the outputs and divides the gradient by a.

So the gradient is orthogonal to W, SGD steps make W longer, and only the ratio lr / |W|^2 matters.

Source: Ioffe, Szegedy 2015, section 3.3; van Laarhoven 2017, arXiv:1706.05350.
"""

# %% A network with one batch norm
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__)
train = mg.train.load_images("digits", dtype="float64").train
images, labels = train[0][:256], train[1][:256]


def network(a=1.0, batch_norm=True, eps=0.0):
    """A 64-32-10 network, its first weight W times a and without a dead bias; and W."""
    net = nn.models.mlp(batch_norm, side=8, sizes=(32,), rng=run.seed)
    net[1].bias, net[2].eps = None, eps  # without batch norm, net[2] is a ReLU and ignores eps
    net[1].weight.data = a * net[1].weight.numpy()
    return net, net[1].weight


def sweep(net):
    """The loss; the gradients are stored in the parameters."""
    net.zero_grad()
    loss = mg.cross_entropy(net(images), labels)
    loss.backward()
    return loss.item()


# %% Weights eight times as large
# Multiplying by a power of two is exact, and with eps = 0 nothing sets a scale: all bits agree.

(net, W), (net8, W8) = network(), network(8.0)
run.number("change of the loss, W -> 8 W", sweep(net8) - sweep(net))
W_bar = W.grad.numpy()
run.number("largest |8 grad(8 W) - grad(W)|", abs(8 * W8.grad.numpy() - W_bar).max())
cosine = np.vdot(W.numpy(), W_bar) / np.linalg.norm(W.numpy()) / np.linalg.norm(W_bar)
run.number("cosine of W and its gradient", cosine)

# %% Scales over eight decades
# eps sets a scale: where the variance is smaller than eps, the invariance ends.

fig, ax = demo.figure(height=3.6)
scales = 10.0 ** np.arange(-4, 4.1, 1.0 if run.fast else 0.25)
kinds = {"eps = 0": (True, 0.0), "eps = 1e-5": (True, 1e-5), "no batch norm": (False,)}
for name, kind in kinds.items():
    nets = [network(a, *kind) for a in scales]
    norms = [(sweep(net), np.linalg.norm(W.grad.numpy()))[1] for net, W in nets]
    slope = np.polyfit(np.log(scales), np.log(norms), 1)[0]
    run.number(f"slope of log |grad| over log a, {name}", slope, ".6f")
    ax.loglog(scales, norms)
    ax.annotate(name, (scales[0], norms[0]), (6, 6), textcoords="offset points")
ax.set(xlabel="a, the factor of W", ylabel="|gradient of W|")
run.save("18_scale_invariance.svg", fig)

# %% Every step lengthens W
# The step is orthogonal to W, so by Pythagoras |W_new|^2 = |W|^2 + (lr |grad|)^2. Training 4 W with
# 16 lr is equivalent to training W with lr: the losses are the same, bit for bit.

losses, ratios = [], []
for a in (1.0, 4.0):
    net, W = network(a)
    lr, others = 0.5 * a**2, list(net.parameters())[1:]
    optimizer = mg.optim.SGD([{"params": [W], "lr": lr}, {"params": others}], lr=0.5)
    start = expected = np.vdot(W.numpy(), W.numpy())
    for _ in range(20 if run.fast else 300):
        losses.append(sweep(net))
        expected += np.sum((lr * W.grad.numpy()) ** 2)
        optimizer.step()
    ratios += [np.vdot(W.numpy(), W.numpy()) / start, expected / start]
first, second = np.split(np.array(losses), 2)
run.number("|W|^2 after training / before", ratios[0], ".6f")
run.number("the same by Pythagoras", ratios[1], ".6f")
run.number("largest difference of losses, (W, lr) against (4 W, 16 lr)", abs(first - second).max())
