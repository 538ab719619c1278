"""Layer, group and instance normalization: statistics of each example, not of the batch."""

from math import prod
from typing import Any

import numpy as np

from minigrad.errors import ShapeError, check_number, describe, facts
from minigrad.nn import kernels
from minigrad.nn.batchnorm import StatisticsNorm
from minigrad.nn.layers import affine_parameters, check_groups, ones_and_zeros
from minigrad.nn.module import Module


class LayerNorm(Module):
    """Layer normalization over the trailing axes: ``gamma * (x - mean) / sqrt(var + eps) + beta``.

    Args:
        normalized_shape: lengths of the trailing axes of x that are averaged over; an int for one.
        eps: added to the biased variance.
        elementwise_affine: whether the layer has gamma and beta, of shape ``normalized_shape``.

    Source:
        Ba, Kiros, Hinton 2016, arXiv:1607.06450.

    >>> mg.nn.LayerNorm(2, eps=0.0)(mg.tensor([[1.0, 3.0]])).numpy()
    array([[-1.,  1.]])
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        *,
        dtype: Any = "float64",
    ):
        self.eps = check_number("LayerNorm: eps", eps)
        shape = self.normalized_shape = tuple(np.ravel(normalized_shape).tolist())
        self.weight, self.bias = affine_parameters(shape, dtype, elementwise_affine)

    def forward(self, x: Any) -> Any:
        gamma, beta = self.weight, self.bias
        if gamma is None:
            gamma, beta = ones_and_zeros(self.normalized_shape, x)
        return kernels.layer_norm(x, gamma, beta, eps=self.eps)

    def extra_repr(self) -> str:
        affine = self.weight is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class GroupNorm(Module):
    """Group normalization: each example over each group of channels and all positions.

    One group gives layer normalization over (C, ...), C groups give instance normalization.

    Args:
        num_groups: must divide ``num_channels``.
        num_channels: C of x, (N, C, ...).
        eps: added to the biased variance.
        affine: whether the layer has gamma and beta, one per channel.

    Source:
        Wu, He 2018, arXiv:1803.08494.

    >>> x = mg.tensor([[1.0, 3.0, 10.0, 20.0]])
    >>> mg.nn.GroupNorm(2, 4, eps=0.0)(x).numpy()
    array([[-1.,  1., -1.,  1.]])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: Any = "float64",
    ):
        check_groups(self, "num_groups", num_groups, num_channels)
        self.eps = check_number("GroupNorm: eps", eps)
        self.num_groups, self.num_channels = num_groups, num_channels
        self.weight, self.bias = affine_parameters((num_channels,), dtype, affine)

    def forward(self, x: Any) -> Any:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            expected = f"(N, {self.num_channels}, ...)"
            raise ShapeError(facts("GroupNorm: x", expected=expected, got=describe(x)))
        gamma, beta = self.weight, self.bias
        if gamma is None:
            gamma, beta = ones_and_zeros((self.num_channels,), x)
        return kernels.group_norm(x, gamma, beta, num_groups=self.num_groups, eps=self.eps)

    def extra_repr(self) -> str:
        affine = self.weight is not None
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={affine}"


class _InstanceNorm(StatisticsNorm):
    """Instance normalization; subclasses say how many axes x has."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        dtype: Any = "float64",
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype=dtype)

    def forward(self, x: Any) -> Any:
        self.check(x)
        if not self.uses_batch:
            return self.with_running_statistics(x, *self.gamma_and_beta(x))
        positions = tuple(range(2, x.ndim))
        m = prod(x.shape[2:])
        if m < 2:
            got = f"{m}, in {describe(x)}"
            expected = "2 or more values per channel and example"
            raise ShapeError(facts(f"{type(self).__name__}: x", expected=expected, got=got))
        parameters = self.gamma_and_beta(x)
        y = kernels.group_norm(x, *parameters, num_groups=self.num_features, eps=self.eps)
        if self.training and self.track_running_stats and x.shape[0]:
            mean, var = kernels.batch_statistics(x, positions)
            var = var * (m / (m - 1)) if self.unbiased else var
            self.average(mean.mean(axis=0), var.mean(axis=0), m * x.shape[0])
        return y


class InstanceNorm1d(_InstanceNorm):
    """Instance normalization of (N, C, L); arguments as in ``InstanceNorm2d``."""

    ndims = (3,)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalization of (N, C, H, W): each channel of each example by itself.

    Args:
        num_features: C of x.
        eps: added to the biased variance.
        momentum: weight of the new statistic, if statistics are tracked. None averages all batches
            equally; PyTorch's None leaves the statistics unchanged.
        affine: whether the layer has gamma and beta, one per channel.
        track_running_stats: whether to keep running statistics, averaged over the examples of a
            batch, and to use them in evaluation.

    Attributes:
        running_mean, running_var: (C,), if tracked. num_batches_tracked: an integer; PyTorch's
            stays 0.

    Source:
        Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022.

    >>> x = mg.tensor([[[[1.0, 3.0]]], [[[10.0, 30.0]]]])
    >>> mg.nn.InstanceNorm2d(1, eps=0.0)(x).numpy().ravel()
    array([-1.,  1., -1.,  1.])
    """

    ndims = (4,)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalization of (N, C, D, H, W); arguments as in ``InstanceNorm2d``."""

    ndims = (5,)
