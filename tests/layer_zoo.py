"""Every layer of minigrad.nn with an input that fits, for the tests that go over all of them."""

import inspect
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from minigrad import nn
from minigrad.nn import kernels, models


@dataclass
class Specimen:
    """A layer, of which ``make`` makes a new one, and the shape of an input."""

    name: str
    make: object
    shape: tuple
    far: float = 0.0  # least distance of inputs from each other: kinks of max and relu lie at ties
    offset: float = 0.0

    def __repr__(self):
        return self.name

    def x(self, rng):
        x = rng.normal(self.offset, 1.5, self.shape)
        if self.far:  # distinct values in random order, none near 0
            grid = (np.arange(x.size) - x.size // 2 + 0.5) * self.far
            x = rng.permutation(grid).reshape(self.shape)
        return x

    def modes(self):
        """Training, and evaluation if a part of the layer reads ``self.training``."""
        classes = {c for m in self.make().modules() for c in type(m).__mro__ if c is not nn.Module}
        return [True, False] if any(map(_reads_its_mode, classes)) else [True]

    def layer(self, seed=3):
        """A new layer whose parameters and buffers differ from their initial values."""
        nn.manual_seed(seed)
        layer = self.make()
        rng = np.random.default_rng(seed)
        for _, p in layer.named_parameters():
            p.data = p.numpy() + 0.3 * rng.normal(size=p.shape)
        for name, b in layer.named_buffers():
            if b.dtype.kind == "f":
                b.data = _state(name, b.numpy(), rng)
        return layer


@cache  # reading source takes some 20 ms
def _reads_its_mode(layer_class):
    own = layer_class.__module__.startswith("minigrad.")
    return own and "self.training" in inspect.getsource(layer_class)


def _state(name, value, rng):
    if "cov" in name:
        a = rng.normal(size=value.shape) * 0.3
        return value + a @ a.T
    if "var" in name or "scale" in name:
        return value * rng.uniform(0.5, 2.0, value.shape)
    return value + 0.3 * rng.normal(size=value.shape)


def _always(r, d):
    return lambda step: (r, d)


def _steep_whitening(method):
    return lambda: nn.Whitening1d(3, method=method, eps=1e-2)


IMAGES, SIGNALS, VOLUMES = (3, 2, 5, 4), (4, 2, 6), (2, 2, 3, 3, 2)
ZOO = [
    Specimen("Linear", lambda: nn.Linear(3, 4), (5, 3)),
    Specimen("Linear without bias", lambda: nn.Linear(3, 4, bias=False), (2, 5, 3)),
    Specimen("Conv1d", lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), SIGNALS),
    Specimen("Conv2d", lambda: nn.Conv2d(2, 4, (2, 3), padding=1, dilation=(1, 2)), IMAGES),
    Specimen("Conv2d grouped", lambda: nn.Conv2d(2, 4, 2, stride=2, groups=2), IMAGES),
    Specimen("Conv3d", lambda: nn.Conv3d(2, 2, 2, padding=(1, 0, 1)), VOLUMES),
    Specimen("MaxPool2d", lambda: nn.MaxPool2d(2), IMAGES, far=0.1),
    Specimen("MaxPool2d overlapping", lambda: nn.MaxPool2d(3, 1, 1), IMAGES, far=0.1),
    Specimen("AvgPool2d", lambda: nn.AvgPool2d(2, 1, 1), IMAGES),
    Specimen("GlobalAvgPool2d", nn.GlobalAvgPool2d, IMAGES),
    Specimen("Flatten", nn.Flatten, IMAGES),
    Specimen("Identity", nn.Identity, IMAGES),
    Specimen("Dropout", lambda: nn.Dropout(0.4, rng=5), (6, 5)),
    Specimen("ReLU", nn.ReLU, (4, 3), far=0.1),
    Specimen("LeakyReLU", lambda: nn.LeakyReLU(0.2), (4, 3), far=0.1),
    Specimen("ELU", lambda: nn.ELU(0.5), (4, 3), far=0.1),
    Specimen("GELU", nn.GELU, (4, 3)),
    Specimen("Sigmoid", nn.Sigmoid, (4, 3)),
    Specimen("Tanh", nn.Tanh, (4, 3)),
    Specimen("Softplus", nn.Softplus, (4, 3)),
    Specimen("Softmax", nn.Softmax, (4, 3)),
    Specimen("BatchNorm1d", lambda: nn.BatchNorm1d(3), (7, 3), offset=2.0),
    Specimen("BatchNorm1d on signals", lambda: nn.BatchNorm1d(2, eps=1e-3), SIGNALS),
    Specimen("BatchNorm2d", lambda: nn.BatchNorm2d(2), IMAGES),
    Specimen("BatchNorm2d without affine", lambda: nn.BatchNorm2d(2, affine=False), IMAGES),
    Specimen("BatchNorm3d", lambda: nn.BatchNorm3d(2), VOLUMES),
    Specimen("LayerNorm", lambda: nn.LayerNorm((2, 6)), SIGNALS),
    Specimen(
        "LayerNorm without affine", lambda: nn.LayerNorm(6, elementwise_affine=False), SIGNALS
    ),
    Specimen("GroupNorm", lambda: nn.GroupNorm(2, 4), (3, 4, 3, 2)),
    Specimen("InstanceNorm1d", lambda: nn.InstanceNorm1d(2, affine=True), SIGNALS),
    Specimen("InstanceNorm2d", lambda: nn.InstanceNorm2d(2, track_running_stats=True), IMAGES),
    Specimen("InstanceNorm3d", lambda: nn.InstanceNorm3d(2), VOLUMES),
    Specimen("BatchRenorm1d clipped", lambda: nn.BatchRenorm1d(3, clips=_always(1.1, 0.1)), (7, 3)),
    Specimen("BatchRenorm2d", lambda: nn.BatchRenorm2d(2, clips=_always(9.0, 9.0)), IMAGES),
    Specimen("Whitening1d zca", _steep_whitening("zca"), (9, 3)),
    Specimen("Whitening1d cholesky", _steep_whitening("cholesky"), (9, 3)),
    Specimen("Whitening1d on images", lambda: nn.Whitening1d(2), IMAGES),
    Specimen(
        "ProbabilityIntegralNorm1d",
        lambda: nn.ProbabilityIntegralNorm1d(2, quantiles=5),
        (8, 2),
        far=0.2,
    ),
    Specimen("RNNCell", lambda: nn.RNNCell(3, 2), (4, 3)),
    Specimen("RNN", lambda: _last(nn.RNN(3, 2)), (4, 3, 3)),
    Specimen("RNN with batch norm", lambda: _last(nn.RNN(3, 2, batch_norm=True)), (4, 3, 3)),
    Specimen("ScaledWSLinear", lambda: nn.ScaledWSLinear(4, 3), (5, 4)),
    Specimen("ScaledWSConv2d", lambda: nn.ScaledWSConv2d(2, 3, 2), IMAGES),
    Specimen("ResidualBlock", lambda: models.ResidualBlock(2, 3, 2), (3, 2, 4, 4)),
    Specimen("LeNet", lambda: models.lenet(side=8, classes=3), (4, 1, 8, 8)),
    Specimen("RowRNN", lambda: models.RowRNN(side=4, hidden=3, classes=2), (3, 1, 4, 4)),
]


def pinned(layer, x):
    """Fix batch renorm's r and d, constants of its gradient, at their values for ``x``."""
    for module in layer.modules():
        if isinstance(module, (nn.BatchRenorm1d, nn.BatchRenorm2d)) and module.training:
            axes = tuple(i for i in range(x.ndim) if i != 1)
            constants = module._corrections(*kernels.batch_statistics(x, axes))
            module._corrections = lambda mean, var, constants=constants: constants
    return layer


def in_modes(specimens):
    """Parametrize a test over ``specimens``, each in each of its modes."""
    chosen = [(s, training) for s in specimens for training in s.modes()]
    ids = [f"{'train' if training else 'eval'}-{s}" for s, training in chosen]
    return pytest.mark.parametrize(("specimen", "training"), chosen, ids=ids)


class _last(nn.Module):
    """The states of a recurrent layer as one tensor."""

    def __init__(self, rnn):
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]
