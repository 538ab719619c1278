"""Batch norm averages over every axis but the channels': one output depends on N H W inputs.

For (N, C) there is one mean per feature. For images, one filter computes all H W pixels of a
channel, so they share one mean, and all positions are treated equally. Source: Ioffe, Szegedy 2015,
section 3.2.
"""

# %% Four layouts, one rule: the mean runs over every axis but 1
import numpy as np
from matplotlib.colors import ListedColormap

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
N, C, L = 4, 3, 5
layouts = {"(N, C)": (N, C), "(N, C, L)": (N, C, L), "(N, C, H, W)": (N, C, L, L),
           "(N, C, D, H, W)": (N, C, 2, L, L)}  # fmt: skip
layers = (mg.nn.BatchNorm1d, mg.nn.BatchNorm1d, mg.nn.BatchNorm2d, mg.nn.BatchNorm3d)


def gradient_of_first(f, x):
    """The gradient of the first element of f(x)."""
    y, pullback = mg.vjp(f, x)
    first = np.zeros(y.shape)
    first.flat[0] = 1.0
    return pullback(first)[0].numpy()


# %% The inputs that one output depends on, found by differentiation
# A cotangent that is 1 at one output element is pulled back to x. Where the result is not 0, the
# output depends on x.
maps = {}
for (name, shape), layer in zip(layouts.items(), layers, strict=True):
    maps[name] = gradient_of_first(layer(C), run.rng.normal(size=shape))
    run.number(f"{name}: inputs of one output", int((maps[name] != 0).sum()), key=True)
    run.number(f"{name}: outside its channel", int((maps[name][:, 1:] != 0).sum()))

# %% Each pixel counts as an example: (N, C, H, W) is treated like (N H W, C)
x = run.rng.normal(size=(N, C, L, L))
gamma, beta = run.rng.normal(size=C), run.rng.normal(size=C)
y = mg.batch_norm(x, gamma, beta)
rows = mg.batch_norm(np.moveaxis(x, 1, -1).reshape(-1, C), gamma, beta)
by_rows = np.moveaxis(rows.reshape(N, L, L, C), -1, 1)
run.number("images against rows, largest difference", abs(y - by_rows).max())

# %% One mean per pixel would break the shift equivariance of a convolution
# Shift one image of the batch by one pixel (cyclically). Its normalized image should only shift,
# too. It does with one mean per channel; with one mean per pixel, `axis=(0,)`, it changes.
shifted = x.copy()
shifted[0] = np.roll(x[0], 1, axis=-1)
for name, axis in {"one mean per channel": (0, 2, 3), "one mean per pixel": (0,)}.items():
    before = np.roll(mg.batch_norm(x, gamma, beta, axis=axis)[0], 1, axis=-1)
    after = mg.batch_norm(shifted, gamma, beta, axis=axis)[0]
    run.number(f"{name}: shifted image changes by", abs(after - before).max())

# %% The picture: the output (red), the inputs it depends on (blue), all others (grey)
fig, axes = demo.figure(1, 4, width=11, height=3.9, width_ratios=[6, 18, 18, 36])
colours = ListedColormap(["#dddddd", demo.BLUE, demo.VERMILION])
for ax, (name, x_bar) in zip(axes, maps.items(), strict=True):
    kinds = (x_bar != 0).astype(float)
    kinds.flat[0] = 2.0
    depth = kinds.shape[2] if kinds.ndim == 5 else 1  # its slices stand side by side
    tiles = kinds.reshape(N, C, depth, -1, kinds.shape[-1] if kinds.ndim > 2 else 1)
    tiles = np.pad(tiles, [(0, 0)] * 3 + [(0, 1), (0, 1)], constant_values=np.nan)
    rows, columns = tiles.shape[3], depth * tiles.shape[4]
    plane = tiles.transpose(0, 3, 1, 2, 4).reshape(N * rows, C * columns)
    ax.pcolormesh(plane, cmap=colours, vmin=0, vmax=2, edgecolors="white", linewidth=0.5)
    ax.set(title=name, xlabel="channel", aspect="equal", frame_on=False)
    ax.set_xticks((np.arange(C) + 0.5) * columns - 0.5, range(C))
    ax.set_yticks((np.arange(N) + 0.5) * rows - 0.5, range(N))
    ax.tick_params(length=0)
    ax.invert_yaxis()
axes[0].set_ylabel("example")
fig.suptitle("red: one output, blue: the inputs it depends on", fontsize=11)
run.save("08_axes.svg", fig)
