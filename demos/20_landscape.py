"""With batch norm, loss and gradient vary over ten times less along the direction of the gradient.

At every tenth step we look ahead by half a step to four steps. The bands show the losses there, the
change of the gradient, and this change per length, a Lipschitz constant that limits learning rates.
Source: Santurkar, Tsipras, Ilyas, Madry 2018, arXiv:1805.11604, section 3.1, figure 4.
"""

# %% The same network with and without batch norm: 64-50-50-50-50-50-10, ReLU
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=1)
steps, lr = (100 if run.fast else 1000), 0.1
train = mg.train.load_images("digits", dtype="float64").train


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays])


# %% Looking ahead
# At w - eta g, for each eta, with parameters w and their gradient g, compute: the loss L, how far
# the gradient there is from g, and this distance divided by the length eta |g| of the step.
etas = lr * np.array([0.5, 1, 2, 4])


def value_and_gradient(net, x, y):
    net.zero_grad()
    loss = mg.cross_entropy(net(x), y)
    loss.backward()
    return loss.item(), [p.grad.numpy() for p in net.parameters()]


def look_ahead(net, x, y, g):
    parameters = list(net.parameters())
    w, measured = [p.numpy() for p in parameters], []
    with nn.frozen_statistics():
        for eta in etas:
            for p, w_p, g_p in zip(parameters, w, g, strict=True):
                p.data = w_p - eta * g_p
            L, g_there = value_and_gradient(net, x, y)
            distance = np.linalg.norm(flat(g_there) - flat(g))
            measured.append((L, distance, distance / (eta * np.linalg.norm(flat(g)))))
    for p, w_p, g_p in zip(parameters, w, g, strict=True):
        p.data, p.grad = w_p, g_p
    return measured


def learn(batch_norm):
    net = nn.models.mlp(batch_norm, side=8, sizes=(50,) * 5, rng=run.seed)
    optimizer = mg.optim.SGD(net.parameters(), lr=lr)
    data = mg.data.TensorDataset(*train)
    loader = mg.data.DataLoader(data, 128, shuffle=True, drop_last=True, seed=run.seed)
    batches = (batch for _ in range(steps) for batch in loader)
    measured = []
    for step, (x, y) in zip(range(steps), batches, strict=False):
        _, g = value_and_gradient(net, mg.tensor(x), y)
        if step % 10 == 0:
            measured.append(look_ahead(net, mg.tensor(x), y, g))
        optimizer.step()
    return np.array(measured)  # (times, etas, 3)


# %% Bands over the course of training
names = ("loss", "change of the gradient", "change per length of the step")
fig, axes = demo.figure(1, 3, width=10, height=3.4)
for batch_norm, kind in ((False, "without BN"), (True, "with BN")):
    measured = learn(batch_norm)
    low, high = measured.min(1), measured.max(1)
    run.number(f"range of the loss along the gradient, {kind}", (high - low)[:, 0].mean(), key=True)
    run.number(f"largest change of the gradient, {kind}", high[:, 1].mean(), key=True)
    run.number(f"largest change per length, {kind}", high[:, 2].mean())
    for i, ax in enumerate(axes):
        ax.fill_between(10 * np.arange(len(low)), low[:, i], high[:, i], alpha=0.6, label=kind)
        ax.set(title=names[i], xlabel="step", yscale="log")
axes[0].legend()
run.save("20_landscape.svg", fig)
