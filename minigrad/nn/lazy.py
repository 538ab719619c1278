"""Layers that learn the size of their input from the first call."""

from inspect import Signature, signature
from typing import Any, ClassVar

from minigrad.context import setting
from minigrad.errors import ShapeError, UsageError, describe, facts, misfit
from minigrad.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from minigrad.nn.conv import Conv1d, Conv2d, Conv3d
from minigrad.nn.layers import Linear
from minigrad.nn.module import Module

_REGISTRIES = ("_parameters", "_buffers", "_modules")


class _Lazy(Module):
    """Keeps its arguments until the first call, which turns the object into the real layer.

    Until then there are no parameters: run one batch before making the optimizer.
    """

    _pending = True
    _real: type[Any]  # the class of the real layer
    _axis = 1  # the axis of x whose length is the missing argument
    __signature__: ClassVar[Signature]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_real" not in vars(cls):
            expected = "nn.Module"
            got = f"Lazy{cls._real.__name__}, whose objects become {cls._real.__name__} when called"
            raise UsageError(facts(f"{cls.__name__}: base class", expected=expected, got=got))
        real = signature(cls._real)
        cls.__signature__ = real.replace(parameters=[*real.parameters.values()][1:])

    def __init__(self, *args: Any, **kwargs: Any):
        try:  # refuse wrong arguments here, not at the call
            self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            text = f"{type(self).__name__}() {error}"
            raise misfit(text, kwargs, self.__signature__) from None
        self.arguments = args, kwargs

    def forward(self, x: Any) -> Any:
        args, kwargs = self.arguments
        if not -x.ndim <= self._axis < x.ndim:
            expected = f"an axis {self._axis}, which sets the layer's size"
            raise ShapeError(facts(f"{type(self).__name__}: x", expected=expected, got=describe(x)))
        with setting(journal=None):  # the initial assignments need not be undone
            layer = self._real(x.shape[self._axis], *args, **kwargs)
        own = {name: value for name, value in vars(self).items() if name != "arguments"}
        for registry in _REGISTRIES:
            getattr(layer, registry).update(own.pop(registry, {}))
        layer.__dict__.update(own)  # ``training``, and what was assigned before this call
        y = layer.forward(x)  # if this raises, self stays lazy
        self.__dict__.clear()
        self.__dict__.update(vars(layer))
        object.__setattr__(self, "__class__", self._real)
        return y

    def extra_repr(self) -> str:
        args, kwargs = self.arguments
        return ", ".join(["?", *map(str, args), *(f"{k}={v}" for k, v in kwargs.items())])


class LazyLinear(_Lazy):
    """``Linear`` without ``in_features``.

    >>> layer = mg.nn.LazyLinear(3)
    >>> _ = layer(np.ones((2, 5)))
    >>> layer
    Linear(5, 3, bias=True)
    """

    _real, _axis = Linear, -1


class LazyConv1d(_Lazy):
    """``Conv1d`` without ``in_channels``."""

    _real = Conv1d


class LazyConv2d(_Lazy):
    """``Conv2d`` without ``in_channels``."""

    _real = Conv2d


class LazyConv3d(_Lazy):
    """``Conv3d`` without ``in_channels``."""

    _real = Conv3d


class LazyBatchNorm1d(_Lazy):
    """``BatchNorm1d`` without ``num_features``."""

    _real = BatchNorm1d


class LazyBatchNorm2d(_Lazy):
    """``BatchNorm2d`` without ``num_features``."""

    _real = BatchNorm2d


class LazyBatchNorm3d(_Lazy):
    """``BatchNorm3d`` without ``num_features``."""

    _real = BatchNorm3d
