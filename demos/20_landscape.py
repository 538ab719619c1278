"""Along its gradient the loss varies over ten times less with batch norm, and so does the gradient.

At every tenth step one looks ahead, half to four steps far: the bands are the losses met there, the
change of the gradient, and that change per length, the Lipschitz constant that limits learning
rates. Source: Santurkar, Tsipras, Ilyas, Madry 2018, arXiv:1805.11604, section 3.1, figure 4.
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
# From the parameters w with the gradient g, at w - eta g for every eta: the loss L, how far the
# gradient is from g, and that distance divided by the length eta |g| of the way.
etas = lr * np.array([0.5, 1, 2, 4])


def value_and_gradient(net, x, y):
    net.zero_grad()
    loss = mg.cross_entropy(net(x), y)
    loss.backward()
    return loss.item(), [p.grad.numpy() for p in net.parameters()]


def look_ahead(net, x, y, g):
    parameters = list(net.parameters())
    w, seen = [p.numpy() for p in parameters], []
    with nn.frozen_statistics():
        for eta in etas:
            for p, w_p, g_p in zip(parameters, w, g, strict=True):
                p.data = w_p - eta * g_p
            L, g_there = value_and_gradient(net, x, y)
            distance = np.linalg.norm(flat(g_there) - flat(g))
            seen.append((L, distance, distance / (eta * np.linalg.norm(flat(g)))))
    for p, w_p, g_p in zip(parameters, w, g, strict=True):
        p.data, p.grad = w_p, g_p
    return seen


def learn(batch_norm):
    net = nn.models.mlp(batch_norm, side=8, sizes=(50,) * 5, rng=run.seed)
    optimizer = mg.optim.SGD(net.parameters(), lr=lr)
    data = mg.data.TensorDataset(*train)
    loader = mg.data.DataLoader(data, 128, shuffle=True, drop_last=True, seed=run.seed)
    batches = (batch for _ in range(steps) for batch in loader)
    seen = []
    for step, (x, y) in zip(range(steps), batches, strict=False):
        _, g = value_and_gradient(net, mg.tensor(x), y)
        if step % 10 == 0:
            seen.append(look_ahead(net, mg.tensor(x), y, g))
        optimizer.step()
    return np.array(seen)  # (times, etas, 3)


# %% Bands over the training
names = ("loss", "change of the gradient", "change per length of the way")
fig, axes = demo.figure(1, 3, width=10, height=3.4)
for batch_norm, kind in ((False, "without BN"), (True, "with BN")):
    seen = learn(batch_norm)
    low, high = seen.min(1), seen.max(1)
    run.number(f"range of the loss along the gradient, {kind}", (high - low)[:, 0].mean(), key=True)
    run.number(f"largest change of the gradient, {kind}", high[:, 1].mean(), key=True)
    run.number(f"largest change per length, {kind}", high[:, 2].mean())
    for i, ax in enumerate(axes):
        ax.fill_between(10 * np.arange(len(low)), low[:, i], high[:, i], alpha=0.6, label=kind)
        ax.set(title=names[i], xlabel="step", yscale="log")
axes[0].legend()
run.save("20_landscape.svg", fig)
