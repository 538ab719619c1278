"""Scaled weight standardization, used in place of batch norm in normalizer-free networks."""

from functools import wraps
from math import prod
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.nn import init
from minigrad.nn.conv import Conv2d
from minigrad.nn.layers import Linear, affine, parameter

RELU_GAIN = float(np.sqrt(2 / (1 - 1 / np.pi)))  # 1 / the standard deviation of relu(N(0, 1))


def standardized(weight: Any, gain: Any, eps: float = 1e-4) -> Any:
    """``gain * (W - mean) / sqrt(max(var * fan_in, eps))``, statistics per output unit.

    The weights of a unit then have mean 0 and sum of squares ``gain^2``: uncorrelated inputs of
    equal mean and equal variance give an output of mean 0 and ``gain^2`` times that variance.

    Args:
        weight: (out, in) or (out, in, \\*kernel).
        gain: (out,).
        eps: floor of ``var * fan_in``.

    Source:
        Brock, De, Smith, Simonyan 2021, arXiv:2102.06171, eq. 1 and appendix D.

    >>> w = mg.nn.standardized(mg.tensor([[1.0, 2.0, 6.0]]), np.ones(1)).numpy()
    >>> bool(abs(w.sum()) < 1e-15 and abs((w**2).sum() - 1) < 1e-15)
    True
    """
    axes = tuple(range(1, weight.ndim))
    fan_in = prod(weight.shape[1:])
    centred = weight - ops.mean(weight, axis=axes, keepdims=True)
    var = ops.mean(centred * centred, axis=axes, keepdims=True)
    scale = ops.maximum(var * fan_in, eps) ** -0.5
    return centred * (scale * ops.reshape(gain, shape=(-1,) + (1,) * len(axes)))


class ScaledWSLinear(Linear):
    """``Linear`` with standardized weights; arguments as in ``Linear``.

    Attributes:
        gain: (out_features,), learned, 1 at the start.

    >>> mg.nn.ScaledWSLinear(4, 2)(np.zeros((1, 4))).shape
    (1, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        super().__init__(in_features, out_features, bias, dtype=dtype, rng=rng)
        self.gain = parameter((out_features,), dtype, "gain", fill=1.0)
        init.normal_(self.weight, 0.0, max(in_features, 1) ** -0.5, rng)

    def forward(self, x: Any) -> Any:
        return affine(x, standardized(self.weight, self.gain), self.bias)


class ScaledWSConv2d(Conv2d):
    """``Conv2d`` with standardized weights; arguments as in ``Conv2d``.

    Attributes:
        gain: (out_channels,), learned, 1 at the start.

    >>> mg.nn.ScaledWSConv2d(3, 2, 3)(np.zeros((1, 3, 5, 5))).shape
    (1, 2, 3, 3)
    """

    @wraps(Conv2d.__init__)
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.gain = parameter(self.weight.shape[:1], self.weight.dtype, "gain", fill=1.0)

    def forward(self, x: Any) -> Any:
        return self.convolve(x, standardized(self.weight, self.gain))
