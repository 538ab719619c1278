"""Batch norm cuts the drift of a layer's inputs over 20-fold, its gradient's change 2- to 8-fold.

Both measures are called internal covariate shift, but they disagree: how far the inputs of the last
hidden activation drift, and how much a step of the layers below changes a layer's gradient. Source:
Ioffe, Szegedy 2015, figure 1; Santurkar et al. 2018, arXiv:1805.11604, definition 2.1.
"""

# %% Three hidden layers of 100 units, batches of 60 digits, as in Ioffe and Szegedy
# Sigmoids start with four times Xavier's weights. With his own and no batch norm, they do not learn
# for hundreds of steps; over 2,000 the gradient then changes as much with batch norm as without.
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=1)
steps, data = 200 if run.fast else 2000, mg.train.load_images("digits", dtype="float64")


def network(activation, batch_norm):
    rng, layers = np.random.default_rng(run.seed), [nn.Flatten()]
    for n in (64, 100, 100):
        linear = nn.Linear(n, 100, rng=rng)
        nn.init.xavier_uniform_(linear.weight, 4 if activation is nn.Sigmoid else 1, rng=rng)
        layers += [linear] + batch_norm * [nn.BatchNorm1d(100)] + [activation()]
    return nn.Sequential(*layers, nn.Linear(100, 10, rng=rng))


# %% Two measures, taken at every tenth step
# u is the input of the last hidden activation, with the statistics of the batch as in training.
# With batch norm, its mean is exactly beta and moves only as beta is trained.
# change = |G' - G| / |G|, where G is the gradient of the last hidden layer's weights, and G' is the
# same gradient on the same batch after only the layers below have made their step.
def change(net, before, W, G, x, y):
    below = {k: v for k, v in net.state_dict().items() if int(k.split(".")[0]) < int(W[0])}

    def loss(w):
        return mg.cross_entropy(nn.functional_call(net, {**before, **below, W: w}, x), y)

    return np.linalg.norm(mg.grad(loss)(before[W]) - G) / np.linalg.norm(G)


def learn(activation, batch_norm, lr):
    net, us, changes = network(activation, batch_norm), [], []
    W = f"{len(net) - 3 - batch_norm}.weight"  # the name of the last hidden layer's weights
    optimizer = mg.optim.SGD(net.parameters(), lr=lr)
    loader = mg.data.DataLoader(mg.data.TensorDataset(*data.train), 60, shuffle=True, seed=run.seed)
    batches = (batch for _ in range(steps) for batch in loader)
    for step, (x, y) in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        mg.cross_entropy(net(mg.tensor(x)), y).backward()
        before, G = net.state_dict(), dict(net.named_parameters())[W].grad.numpy()
        optimizer.step()
        if step % 10 == 0:
            with nn.frozen_statistics(), mg.no_grad():
                us.append(nn.Sequential(*list(net)[:-2])(mg.tensor(data.test[0])).numpy())
                changes.append(change(net, before, W, G, x, y))
    return np.array(us), np.array(changes)


# %% ReLUs and sigmoids; the picture shows the inputs of the unit with the median drift
fig, axes = demo.figure(1, 3, width=10, height=3.4)
for activation, lr in ((nn.ReLU, 0.1), (nn.Sigmoid, 0.5)):
    for ax, batch_norm in zip(axes, (False, True), strict=False):
        us, changes = learn(activation, batch_norm, lr)
        drift = abs(us.mean(1) - us[0].mean(0)).max(0) / us.std(1).mean(0)  # for each unit
        kind = f"{activation.__name__}, {'with' if batch_norm else 'without'} BN"
        run.number(f"drift of the mean in standard deviations, {kind}", drift.mean(), key=True)
        run.number(f"change of the gradient, {kind}", changes.mean(), key=True)
        smooth = np.convolve(changes, np.ones(10) / 10, "valid")  # over 100 steps
        axes[2].semilogy(50 + 10 * np.arange(len(smooth)), smooth, label=kind)
        if activation is nn.Sigmoid:
            quantiles = np.quantile(us[..., np.argsort(drift)[50]], [0.15, 0.5, 0.85], axis=1)
            ax.plot(10 * np.arange(len(us)), quantiles.T, color=demo.BLUE)
            ax.set(title=f"inputs, {kind}", xlabel="step", ylim=(-5, 5))
axes[0].set_ylabel("15th, 50th and 85th percentile")
axes[2].set(title="change of the gradient", xlabel="step", ylim=(1e-3, 2))
axes[2].legend()
run.save("19_covariate_shift.svg", fig)
