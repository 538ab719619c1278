"""Layers that learn the size of their input from the first call."""

from typing import Any

from minigrad.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from minigrad.nn.conv import Conv1d, Conv2d, Conv3d
from minigrad.nn.layers import Linear
from minigrad.nn.module import Module


class _Lazy(Module):
    """Keeps the arguments; the first call turns the object into the real layer.

    Until then there are no parameters: run one batch before the optimizer is made.
    """

    pending = True
    becomes: type[Module]
    axis = 1  # of x: its length is the missing size

    def __init__(self, *args: Any, **kwargs: Any):
        self.arguments = args, kwargs

    def forward(self, x: Any) -> Any:
        args, kwargs = self.arguments
        layer = self.becomes(x.shape[self.axis], *args, **kwargs)
        names = {name: value for name, value in vars(self).items() if name in _KEPT}
        self.__dict__.clear()
        self.__dict__.update({**vars(layer), **names})
        object.__setattr__(self, "__class__", self.becomes)
        return self.forward(x)

    def extra_repr(self) -> str:
        args, kwargs = self.arguments
        return ", ".join(["?", *map(str, args), *(f"{k}={v}" for k, v in kwargs.items())])


_KEPT = ("training", "_attribute")  # what callers set before the first call


class LazyLinear(_Lazy):
    """``Linear`` without ``in_features``.

    >>> layer = mg.nn.LazyLinear(3)
    >>> _ = layer(np.ones((2, 5)))
    >>> layer
    Linear(5, 3, bias=True)
    """

    becomes, axis = Linear, -1


class LazyConv1d(_Lazy):
    """``Conv1d`` without ``in_channels``."""

    becomes = Conv1d


class LazyConv2d(_Lazy):
    """``Conv2d`` without ``in_channels``."""

    becomes = Conv2d


class LazyConv3d(_Lazy):
    """``Conv3d`` without ``in_channels``."""

    becomes = Conv3d


class LazyBatchNorm1d(_Lazy):
    """``BatchNorm1d`` without ``num_features``."""

    becomes = BatchNorm1d


class LazyBatchNorm2d(_Lazy):
    """``BatchNorm2d`` without ``num_features``."""

    becomes = BatchNorm2d


class LazyBatchNorm3d(_Lazy):
    """``BatchNorm3d`` without ``num_features``."""

    becomes = BatchNorm3d
