"""Networks of the batch norm literature; the flag ``batch_norm`` builds each with or without it.

``order`` places batch norm ``"before"`` the activation, as in the original paper, or ``"after"``.
"""

from collections.abc import Callable
from math import prod
from typing import Any, Literal

from minigrad import ops
from minigrad.errors import UsageError, facts
from minigrad.nn import init, kernels
from minigrad.nn.activation import ReLU, Sigmoid
from minigrad.nn.batchnorm import BatchNorm1d, BatchNorm2d
from minigrad.nn.container import Sequential
from minigrad.nn.conv import Conv2d, GlobalAvgPool2d, MaxPool2d
from minigrad.nn.layers import Flatten, Identity, Linear
from minigrad.nn.module import Module
from minigrad.nn.random import generator
from minigrad.nn.recurrent import RNN

Order = Literal["before", "after"]


def normalized(norm: Module, activation: Module, batch_norm: bool, order: Order) -> list[Module]:
    """``[activation]``, with ``norm`` before or after it if ``batch_norm`` is true."""
    if order not in ("before", "after"):
        expected = "'before' or 'after'"
        raise UsageError(facts("order of batch norm", expected=expected, got=repr(order)))
    if not batch_norm:
        return [activation]
    return [norm, activation] if order == "before" else [activation, norm]


def lenet(
    batch_norm: bool = True,
    *,
    side: int = 28,
    classes: int = 10,
    order: Order = "before",
    dtype: Any = "float64",
    rng: init.Seed = None,
) -> Sequential:
    """LeNet with sigmoids, as in Dive into Deep Learning 0.17, section 7.5.

    Conv 6@5x5, BN, sigmoid, max pool 2; conv 16@5x5, BN, sigmoid, max pool 2; linear 120, BN,
    sigmoid; linear 84, BN, sigmoid; linear 10. Weights start Glorot uniform, biases at 0.

    Args:
        batch_norm: False leaves out every BN.
        side: height and width of the images (N, 1, side, side). Below 28, where two 5x5 kernels
            would leave little, the kernels are 3x3 with a padding of 1.
        classes: number of outputs.
        order: BN before or after the activation.

    Source:
        Zhang, Lipton, Li, Smola, Dive into Deep Learning 0.17, section 7.5.

    >>> mg.nn.models.lenet()(np.zeros((2, 1, 28, 28))).shape
    (2, 10)
    """
    rng = generator(rng)
    kernel, padding = (5, 0) if side >= 28 else (3, 1)
    shrinkage = kernel - 1 - 2 * padding  # of height and width by one convolution
    last_side = ((side - shrinkage) // 2 - shrinkage) // 2
    options = {"padding": padding, "dtype": dtype, "rng": rng}

    def block(layer: Module, norm: Module, *pool: Module) -> list[Module]:
        return [layer, *normalized(norm, Sigmoid(), batch_norm, order), *pool]

    def linear(n: int, m: int) -> Linear:
        return Linear(n, m, dtype=dtype, rng=rng)

    net = Sequential(
        *block(Conv2d(1, 6, kernel, **options), BatchNorm2d(6, dtype=dtype), MaxPool2d(2)),
        *block(Conv2d(6, 16, kernel, **options), BatchNorm2d(16, dtype=dtype), MaxPool2d(2)),
        Flatten(),
        *block(linear(16 * last_side * last_side, 120), BatchNorm1d(120, dtype=dtype)),
        *block(linear(120, 84), BatchNorm1d(84, dtype=dtype)),
        linear(84, classes),
    )
    return _initialize(net, init.xavier_uniform_, rng)


def _initialize(net: Any, draw: Callable[..., Any], rng: Any) -> Any:
    """Initialize all weights of ``net`` with ``draw``, all biases with 0; return ``net``."""
    for module in net.modules():
        if isinstance(module, (Linear, Conv2d)):
            draw(module.weight, rng=rng)
            if module.bias is not None:
                init.zeros_(module.bias)
    return net


def mlp(
    batch_norm: bool = True,
    *,
    side: int = 28,
    sizes: tuple[int, ...] = (300, 100),
    classes: int = 10,
    order: Order = "before",
    dtype: Any = "float64",
    rng: init.Seed = None,
) -> Sequential:
    """The Keras-style multilayer perceptron 784-300-100-10 with ReLU.

    >>> mg.nn.models.mlp()(np.zeros((2, 1, 28, 28))).shape
    (2, 10)
    """
    rng = generator(rng)
    layers: list[Module] = [Flatten()]
    width = side * side
    for size in sizes:
        layers.append(Linear(width, size, dtype=dtype, rng=rng))
        layers += normalized(BatchNorm1d(size, dtype=dtype), ReLU(), batch_norm, order)
        width = size
    net = Sequential(*layers, Linear(width, classes, dtype=dtype, rng=rng))
    return _initialize(net, init.kaiming_normal_, rng)


class ResidualBlock(Module):
    """``relu(x + BN(conv(relu(BN(conv(x))))))``, both convolutions 3x3.

    Where the shapes differ, ``x + ...`` becomes ``BN(conv(x)) + ...`` with a 1x1 convolution.

    Args:
        in_channels, out_channels: C of input and result.
        stride: of the first 3x3 and of the 1x1 convolution.
        batch_norm: False leaves out every BN.

    Source:
        He, Zhang, Ren, Sun 2015, arXiv:1512.03385, figure 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        batch_norm: bool = True,
        *,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        options = {"bias": not batch_norm, "dtype": dtype, "rng": generator(rng)}
        norm = [BatchNorm2d(out_channels, dtype=dtype) for _ in range(3 if batch_norm else 0)]
        self.path = Sequential(
            Conv2d(in_channels, out_channels, 3, stride, 1, **options),
            *norm[:1],
            ReLU(),
            Conv2d(out_channels, out_channels, 3, 1, 1, **options),
            *norm[1:2],
        )
        self.shortcut: Module = Identity()
        if stride > 1 or in_channels != out_channels:
            projection = Conv2d(in_channels, out_channels, 1, stride, **options)
            self.shortcut = Sequential(projection, *norm[2:])

    def forward(self, x: Any) -> Any:
        return kernels.relu(self.path(x) + self.shortcut(x))


def resnet(
    batch_norm: bool = True,
    *,
    side: int = 28,
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 1,
    classes: int = 10,
    dtype: Any = "float64",
    rng: init.Seed = None,
) -> Sequential:
    """A small residual network for one-channel images, in the CIFAR form of He et al.

    A 3x3 convolution, then ``blocks`` residual blocks per width, each width after the first at half
    the resolution, a global mean and a linear layer: ``2 * blocks * len(widths) + 2`` layers with
    weights, 1x1 convolutions not counted.

    Source:
        He, Zhang, Ren, Sun 2015, arXiv:1512.03385, section 4.2.

    >>> mg.nn.models.resnet(widths=(4, 8))(np.zeros((2, 1, 8, 8))).shape
    (2, 10)
    """
    rng = generator(rng)
    stem = Conv2d(1, widths[0], 3, 1, 1, bias=not batch_norm, dtype=dtype, rng=rng)
    norm = [BatchNorm2d(widths[0], dtype=dtype)] if batch_norm else []
    body: list[Module] = []
    width = widths[0]
    for i, new in enumerate(widths):
        for j in range(blocks):
            stride = 2 if i and not j else 1
            body.append(ResidualBlock(width, new, stride, batch_norm, dtype=dtype, rng=rng))
            width = new
    head = Linear(width, classes, dtype=dtype, rng=rng)
    net = Sequential(stem, *norm, ReLU(), *body, GlobalAvgPool2d(), head)
    for module in net.modules():
        if isinstance(module, Conv2d):
            init.kaiming_normal_(module.weight, rng=rng)
    return net


class RowRNN(Module):
    """A recurrent network that reads an image row by row and classifies the last state.

    Args:
        batch_norm: whether to normalize the input of the recurrence, over examples and rows.
        side: width of the images (N, 1, side, side) or (N, side * side).
        hidden: size of the state.
        classes: number of outputs.

    >>> mg.nn.models.RowRNN(side=8, hidden=4)(np.zeros((2, 1, 8, 8))).shape
    (2, 10)
    """

    def __init__(
        self,
        batch_norm: bool = True,
        *,
        side: int = 28,
        hidden: int = 64,
        classes: int = 10,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        rng = generator(rng)
        self.side = side
        self.rnn = RNN(side, hidden, batch_norm=batch_norm, dtype=dtype, rng=rng)
        self.head = Linear(hidden, classes, dtype=dtype, rng=rng)

    def forward(self, x: Any) -> Any:
        rows = prod(x.shape[1:]) // self.side
        _, last = self.rnn(ops.reshape(x, shape=(x.shape[0], rows, self.side)))
        return self.head(last)


def lenet_bn(**options: Any) -> Sequential:
    """``lenet(batch_norm=True)``."""
    return lenet(True, **options)


def mlp_bn(**options: Any) -> Sequential:
    """``mlp(batch_norm=True)``."""
    return mlp(True, **options)
