"""The backward pass of batch norm is one line; it equals the engine's result to 14 decimals.

x_bar = inv_std (g - mean(g) - x_hat mean(g x_hat)) with g = gamma y_bar. The three terms are the
direct path, the path through the mean and the path through the variance. Source: Ioffe, Szegedy
2015, arXiv:1502.03167, section 3.
"""

# %% Forward
# N examples, C channels. Each channel is normalized by the mean and the biased (1/N) variance of
# the batch, then scaled by gamma and shifted by beta. gamma and beta are learned.
import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
N, C, eps = 8, 3, 1e-5
x = run.rng.normal(2.0, 3.0, size=(N, C))
gamma, beta = run.rng.normal(size=C), run.rng.normal(size=C)

xc = x - x.mean(axis=0)
var = (xc * xc).mean(axis=0)
inv_std = 1 / np.sqrt(var + eps)
x_hat = xc * inv_std
y = gamma * x_hat + beta
run.number("means of x_hat", abs(x_hat.mean(axis=0)).max())
run.number("variances of x_hat", x_hat.var(axis=0), ".7f")

# %% Backward, step 1: the affine part
# y = gamma x_hat + beta. So beta_bar is the sum of y_bar, gamma_bar is the sum of y_bar x_hat, and
# the cotangent of x_hat is g = gamma y_bar.
y_bar = run.rng.normal(size=(N, C))
beta_bar = y_bar.sum(axis=0)
gamma_bar = (y_bar * x_hat).sum(axis=0)
g = gamma * y_bar

# %% Backward, step 2: from x_hat to x
# d x_hat = inv_std dxc + xc d inv_std. From inv_std = (var + eps)^(-1/2) and dvar = 2 mean(xc dxc):
# d inv_std = -inv_std^3 mean(xc dxc). With dxc = dx - mean(dx), and since the x_hat sum to 0,
#     d x_hat = inv_std (dx - mean(dx) - x_hat mean(x_hat dx)).
# As a matrix, this is inv_std (I - 1 1^T / N - x_hat x_hat^T / N). The matrix is symmetric, so its
# transpose pulls g back by the same formula:
x_bar = inv_std * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0))

# %% The engine derives the same from primitive ops
inputs = {"x": x, "gamma": gamma, "beta": beta}
tensors = [mg.tensor(a, requires_grad=True, name=name) for name, a in inputs.items()]
run.graph = mg.batch_norm(*tensors, eps=eps)
run.graph.backward(y_bar)
for t, by_hand in zip(tensors, (x_bar, gamma_bar, beta_bar), strict=True):
    difference = abs(t.grad.numpy() - by_hand).max()
    run.number(f"largest difference in {t.name}_bar", difference, key=True)

# %% The eigenvalues of the matrix
# The matrix removes two of N directions: a shift of the whole batch (removed by the mean) and,
# except for eps, a stretch along x_hat (removed by the variance). It scales all others by inv_std.
h = x_hat[:, 0]
direct, by_mean, by_var = np.eye(N), -np.ones((N, N)) / N, -np.outer(h, h) / N
eigenvalues = np.linalg.eigvalsh(direct + by_mean + by_var)
run.number("eigenvalues / inv_std", eigenvalues)
run.number("eps / (var + eps)", eps / (var[0] + eps))
run.number("sum of x_bar", abs(x_bar.sum(axis=0)).max())

# %% The three paths, and their sum
fig, axes = demo.figure(1, 4, width=10, height=2.9, sharey=True)
parts = {"direct: $I$": direct, r"mean: $-\mathbf{1}\mathbf{1}^T\!/N$": by_mean,
         r"variance: $-\hat x\hat x^T\!/N$": by_var, "sum": direct + by_mean + by_var}  # fmt: skip
for ax, (title, matrix) in zip(axes, parts.items(), strict=True):
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set(title=title, xlabel=r"$x_j$ moves", xticks=range(N), yticks=range(N))
axes[0].set_ylabel(r"$\hat x_i$ moves")
fig.colorbar(image, ax=axes, shrink=0.8, label=r"$\partial \hat x_i / \partial x_j$ / inv_std")
run.save("04_batch_norm_by_hand.svg", fig)
