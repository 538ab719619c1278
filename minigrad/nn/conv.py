"""Convolution and pooling layers."""

from math import prod
from typing import Any

from minigrad import ops
from minigrad.errors import ShapeError, describe, facts
from minigrad.nn import init, kernels
from minigrad.nn.layers import check_groups, parameter, reset_
from minigrad.nn.module import Module
from minigrad.ops.window import geometry


class _Conv(Module):
    """Base of ``Conv1d``, ``Conv2d`` and ``Conv3d``."""

    axes: int  # the number of spatial axes

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        check_groups(self, "groups", groups, in_channels, out_channels)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        kernel, *_ = geometry(self.axes, kernel_size, stride, padding, dilation)
        shape = (out_channels, in_channels // groups, *kernel)
        self.weight = parameter(shape, dtype, "weight")
        self.bias: Any = parameter((out_channels,), dtype, "bias") if bias else None
        reset_(self, prod(shape[1:]), rng)

    def forward(self, x: Any) -> Any:
        return self.convolve(x, self.weight)

    def convolve(self, x: Any, weight: Any) -> Any:
        """The convolution with ``weight``, plus the bias."""
        channels = weight.shape[1] * self.groups
        if x.ndim != self.axes + 2 or x.shape[1] != channels:
            expected = f"(N, {channels}, ...) with {self.axes} axes after the channels"
            raise ShapeError(facts(f"{type(self).__name__}: x", expected=expected, got=describe(x)))
        return kernels.conv(x, weight, self.bias, stride=self.stride, padding=self.padding,
                            dilation=self.dilation, groups=self.groups)  # fmt: skip

    def extra_repr(self) -> str:
        out_channels, per_group, *kernel = self.weight.shape
        sizes = f"{per_group * self.groups}, {out_channels}, kernel_size={tuple(kernel)}"
        defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        changed = [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join([sizes, *changed, f"bias={self.bias is not None}"])


class Conv1d(_Conv):
    """Cross-correlation of signals (N, C, L) with learned kernels; arguments as in ``Conv2d``."""

    axes = 1


class Conv2d(_Conv):
    """Cross-correlation of images (N, C, H, W) with learned kernels.

    Args:
        in_channels, out_channels: C of the input and of the result.
        kernel_size, stride, padding, dilation: an int, or one per axis.
        groups: number of groups; each group of output channels sees its own share of the input
            channels only.
        bias: whether to add a learned number per output channel.
        dtype: of the parameters.
        rng: Generator or seed of the initial values; None: the default generator.

    Attributes:
        weight: (out_channels, in_channels / groups, \\*kernel). bias: (out_channels,) or None. Both
            are uniform within 1 / sqrt(fan_in) at the start, PyTorch's default; fan_in is the
            number of inputs of an output element, in_channels / groups * prod(kernel).

    Raises:
        UsageError: channels that are not divisible by ``groups``.

    >>> mg.nn.Conv2d(1, 6, kernel_size=5, padding=2)(np.zeros((2, 1, 28, 28))).shape
    (2, 6, 28, 28)
    """

    axes = 2


class Conv3d(_Conv):
    """Cross-correlation of volumes (N, C, D, H, W); arguments as in ``Conv2d``."""

    axes = 3


def _check_images(layer: Module, x: Any) -> None:
    if x.ndim != 4:
        headline = f"{type(layer).__name__}: x"
        raise ShapeError(facts(headline, expected="(N, C, H, W)", got=describe(x)))


class MaxPool2d(Module):
    """Largest value of each window of (N, C, H, W); see ``ops.max_pool``.

    Args:
        kernel_size: an int or (height, width).
        stride: likewise; None: ``kernel_size``.
        padding, dilation: likewise.

    >>> mg.nn.MaxPool2d(2)(mg.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[4.]]]])
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1):
        geometry(2, kernel_size, kernel_size if stride is None else stride, padding, dilation)
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation

    def forward(self, x: Any) -> Any:
        _check_images(self, x)
        return kernels.max_pool(x, kernel_size=self.kernel_size, stride=self.stride,
                                padding=self.padding, dilation=self.dilation)  # fmt: skip

    def extra_repr(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return sizes if self.dilation == 1 else f"{sizes}, dilation={self.dilation}"


class AvgPool2d(Module):
    """Mean of each window of (N, C, H, W), padded zeros included; see ``ops.avg_pool``.

    The padding may exceed half a window, which PyTorch refuses; a window of nothing but padding has
    mean 0.

    >>> mg.nn.AvgPool2d(2)(mg.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[2.5]]]])
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        geometry(2, kernel_size, kernel_size if stride is None else stride, padding, 1)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Any) -> Any:
        _check_images(self, x)
        return kernels.avg_pool(
            x, kernel_size=self.kernel_size, stride=self.stride, padding=self.padding
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class GlobalAvgPool2d(Module):
    """(N, C, H, W) -> (N, C): the mean of each channel.

    >>> mg.nn.GlobalAvgPool2d()(mg.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[2.5]])
    """

    def forward(self, x: Any) -> Any:
        _check_images(self, x)
        return ops.mean(x, axis=(2, 3))
