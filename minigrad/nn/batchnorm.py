"""Batch normalization layers and their running statistics.

Conventions, as in PyTorch, for a batch of m values per channel: it is normalized with its biased
(1/m) variance; the running variance averages the unbiased one, which is ``m / (m - 1)`` times as
large (Ioffe & Szegedy 2015, Algorithm 2); ``momentum`` is the weight of the new statistic:
``running = (1 - momentum) * running + momentum * batch``.
"""

from math import prod
from typing import Any

import numpy as np

from minigrad.errors import ShapeError, check_number, describe, facts
from minigrad.fused import foreach
from minigrad.nn import kernels
from minigrad.nn.layers import affine_parameters, check_momentum, filled, ones_and_zeros
from minigrad.nn.module import Module
from minigrad.ops.normalization import all_but_channels


class StatisticsNorm(Module):
    """Base of the layers that keep a running mean and variance per channel of (N, C, ...)."""

    ndims: tuple[int, ...]  # the numbers of axes that x may have
    running_mean: Any = None
    running_var: Any = None
    num_batches_tracked: Any = None
    pooled: Any = None  # a PooledStatistics while set_population_statistics runs

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        unbiased: bool = True,
        dtype: Any = "float64",
    ):
        self.num_features = num_features
        self.eps = check_number(f"{type(self).__name__}: eps", eps)
        self.momentum = None if momentum is None else check_momentum(self, momentum)
        self.affine, self.track_running_stats = affine, track_running_stats
        self.unbiased = unbiased
        self.weight, self.bias = affine_parameters((num_features,), dtype, affine)
        if track_running_stats:
            self.register_buffer("running_mean", filled((num_features,), dtype, "mean"))
            self.register_buffer("running_var", filled((num_features,), dtype, "var", fill=1.0))
            self.register_buffer("num_batches_tracked", np.zeros((), dtype=np.int64))

    @property
    def uses_batch(self) -> bool:
        """Whether the next call normalizes with the statistics of its own batch."""
        return self.training or not self.track_running_stats

    def reset_running_stats(self) -> None:
        """Start over: running mean 0, running variance 1, no batches counted."""
        if self.track_running_stats:
            self.running_mean.data = np.zeros(self.num_features)
            self.running_var.data = np.ones(self.num_features)
            self.num_batches_tracked.data = 0

    def gamma_and_beta(self, x: Any) -> tuple[Any, Any]:
        """The parameters, or ones and zeros in the dtype of ``x`` if ``affine`` is false."""
        if self.affine:
            return self.weight, self.bias
        return ones_and_zeros((self.num_features,), x)

    def with_running_statistics(self, x: Any, gamma: Any, beta: Any) -> Any:
        """``x`` normalized as in evaluation, with the running mean and variance."""
        return kernels.batch_norm(
            x, gamma, beta, mean=self.running_mean, var=self.running_var, eps=self.eps
        )

    def check(self, x: Any) -> None:
        """Raise ShapeError unless ``x`` has the axes and channels of this layer."""
        if x.ndim not in self.ndims or x.shape[1] != self.num_features:
            shapes = {2: "(N, {})", 3: "(N, {}, L)", 4: "(N, {}, H, W)", 5: "(N, {}, D, H, W)"}
            expected = " or ".join(shapes[n].format(self.num_features) for n in self.ndims)
            raise ShapeError(facts(f"{type(self).__name__}: x", expected=expected, got=describe(x)))

    def count(self, x: Any) -> int:
        """The number of values per channel of ``x``; ShapeError below 2, too few for a variance."""
        m = prod(n for i, n in enumerate(x.shape) if i != 1)
        if m < 2:
            raise ShapeError(
                facts(f"{type(self).__name__}: batch", expected="2 or more values per channel",
                      got=f"{m}, in {describe(x)}",
                      remedy="use a larger batch, drop_last=True, or eval() for one example")
            )  # fmt: skip
        return m

    def track(self, x: Any, y: Any, m: int) -> None:
        """Update the running statistics with those of ``x``, which has ``m`` values per channel.

        ``y`` is ``batch_norm(x, ...)``; if it was recorded, its statistics are reused.
        """
        mean, var = kernels.batch_statistics(x, all_but_channels(x), y)
        self.average(mean, var, m, m / (m - 1) if self.unbiased else 1.0)

    def average(self, mean: Any, var: Any, m: int, factor: float = 1.0) -> None:
        """Update the running statistics with ``mean`` and ``factor * var``.

        While population statistics are gathered, ``pooled`` takes both, weighted by ``m``.
        """
        if self.pooled is not None:
            self.pooled.add(mean, factor * var, m)
            return
        batches = self.num_batches_tracked.array
        weight = 1 / (int(batches) + 1) if self.momentum is None else self.momentum
        running = self.running_mean.array, self.running_var.array, batches
        mean, var, batches = foreach.track(running, mean, var, weight, factor)
        self.update_buffers(running_mean=mean, running_var=var, num_batches_tracked=batches)

    def extra_repr(self) -> str:
        options = "eps", "momentum", "affine", "track_running_stats"
        return ", ".join([f"{self.num_features}", *(f"{o}={getattr(self, o)}" for o in options)])


class PooledStatistics:
    """Averages the means and variances of batches, weighted by their numbers of values."""

    def __init__(self):
        self.count, self.mean, self.var = 0, 0.0, 0.0

    def add(self, mean: Any, var: Any, m: int) -> None:
        """Include a batch of ``m`` values per channel."""
        self.count += m
        self.mean = self.mean + (mean - self.mean) * (m / self.count)
        self.var = self.var + (var - self.var) * (m / self.count)


class _BatchNorm(StatisticsNorm):
    """Batch normalization; subclasses say how many axes x has."""

    def forward(self, x: Any) -> Any:
        self.check(x)
        gamma, beta = self.gamma_and_beta(x)
        if not self.uses_batch:
            return self.with_running_statistics(x, gamma, beta)
        m = self.count(x)
        y = kernels.batch_norm(x, gamma, beta, eps=self.eps)
        if self.training and self.track_running_stats:
            self.track(x, y, m)
        return y


class BatchNorm1d(_BatchNorm):
    """Batch normalization of (N, C) or (N, C, L); arguments as in ``BatchNorm2d``.

    >>> bn = mg.nn.BatchNorm1d(1, momentum=0.5)
    >>> bn(mg.tensor([[1.0], [3.0]])).numpy().round(4)
    array([[-1.],
           [ 1.]])
    >>> bn.running_mean.item(), bn.running_var.item()  # 0.5 * 2; 0.5 * 1 + 0.5 * 2
    (1.0, 1.5)
    """

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of (N, C, H, W): ``y = gamma * (x - mean) / sqrt(var + eps) + beta``.

    In training, mean and biased variance are those of the batch and are differentiated through. In
    evaluation they are the running statistics, which are constants.

    Args:
        num_features: C of x.
        eps: added to the variance.
        momentum: weight of the new statistic; None averages all batches equally.
        affine: whether the layer has gamma and beta.
        track_running_stats: False keeps none; evaluation, too, uses the statistics of the batch.
        unbiased: whether the running variance averages the unbiased variances of the batches or,
            False, the biased ones.
        dtype: of parameters and buffers.

    Attributes:
        weight: gamma, (C,), 1 at the start. bias: beta, (C,), 0 at the start.
        running_mean, running_var: (C,). num_batches_tracked: an integer.

    Raises:
        ShapeError: x has other axes or channels, or a batch whose statistics are needed has fewer
            than 2 values per channel.

    Source:
        Ioffe, Szegedy 2015, arXiv:1502.03167.
    """

    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalization of (N, C, D, H, W); arguments as in ``BatchNorm2d``."""

    ndims = (5,)
