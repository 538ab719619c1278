"""A bias before batch norm is dead: its gradient is exactly 0, and nothing is lost without it.

The mean that batch norm subtracts contains the bias. The gradients of LeNet's parameters show this.
The biases of a trained network can be removed by moving each one into the running mean.

Source: Ioffe, Szegedy 2015, section 3.2: "the bias b can be ignored".
"""

# %% The gradient is exactly 0
# Small integers in a batch of 8 make every mean, root and quotient exact in binary. So the gradient
# of b is not just small, but exactly 0. The gradient of W is not 0.
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__)

x, y_bar = np.zeros((8, 2)), run.rng.integers(-9, 10, size=(8, 2))
x[:4] = [[2, 0], [-2, 0], [0, 2], [0, -2]]  # each column: mean 0, variance 1
W = mg.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True, name="W")
b = mg.tensor([3.0, -5.0], requires_grad=True, name="b")
y = mg.batch_norm(x @ W + b, np.array([2.0, -3.0]), np.array([7.0, 1.0]), eps=0.0)
(y_bar * y).sum().backward()
run.number("gradient of b, nothing rounded", b.grad, key=True)
run.number("gradient of W, nothing rounded", W.grad)

# %% The gradients of LeNet
# In general, rounding leaves about 1e-16. The bias of the last layer does have a gradient, because
# no batch norm follows.

images = mg.train.load_images("digits", dtype="float64")
net = nn.models.lenet(side=8, rng=run.seed)
layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
for layer in layers:
    nn.init.normal_(layer.bias, rng=run.rng)  # LeNet starts at 0, which would prove little
at_start = [layer.bias.numpy().copy() for layer in layers[:4]]

mg.cross_entropy(net(images.train[0][:256]), images.train[1][:256]).backward()
sizes = np.array([[abs(p.grad.numpy()).max() for p in (m.weight, m.bias)] for m in layers])
run.number("largest gradient of the four dead biases", sizes[:4, 1].max(), key=True)
run.number("largest gradient of the last bias", sizes[4, 1])
run.number("smallest of the layers' largest weight gradients", sizes[:, 0].min())

# %% Dead biases do not move in training
# All other parameters change.

trainer = mg.train.Trainer(
    net, mg.optim.SGD(net.parameters(), lr=0.5), *(images.train, images.test), batch_size=64
)
list(trainer.fit(1 if run.fast else 10))
moved = [abs(m.bias.numpy() - b).max() for m, b in zip(layers, at_start, strict=False)]
run.number("largest movement of a dead bias in training", max(moved))

# %% An equivalent network without the biases
# (W x + b) - running_mean = W x - (running_mean - b), so each bias can move into the running mean.

before = net.eval()(images.test[0]).numpy()
norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
run.number("parameters removed", sum(m.bias.size for m in layers[:4]))
for layer, norm in zip(layers, norms, strict=False):
    norm.running_mean.data = norm.running_mean.numpy() - layer.bias.numpy()
    layer.bias = None
after = net(images.test[0]).numpy()
run.number("largest logit", abs(before).max())
run.number("largest change of a logit", abs(after - before).max(), key=True)

# %% The picture

fig, ax = demo.figure(height=3.2)
names = ["conv 6", "conv 16", "linear 120", "linear 84", "linear 10\n(no batch norm)"]
for j, (text, marker) in enumerate((("weight", "o"), ("bias", "D"))):
    ax.scatter(np.arange(5) + 0.1 * j, np.maximum(sizes[:, j], 1e-20), marker=marker, s=50)
    ax.annotate(text, (0.1 * j, sizes[0, j]), (9, 0), textcoords="offset points", va="center")
ax.set(yscale="log", ylim=(1e-20, 10), xticks=range(5), xticklabels=names, xlim=(-0.4, 4.4))
ax.set(ylabel="largest |gradient|", title="A bias in front of batch norm has no gradient")
run.save("17_dead_bias.svg", fig)
