"""Normalization by the probability integral transform: every channel becomes uniform."""

from typing import Any

import numpy as np

from minigrad import backend, ops
from minigrad.composite import operand
from minigrad.errors import ShapeError, check_count, check_number, describe, facts
from minigrad.nn.layers import affine_parameters, check_momentum, filled
from minigrad.nn.module import Module
from minigrad.ops.shape import floating
from minigrad.tensor import Tensor


class ProbabilityIntegralNorm1d(Module):
    """``y = gamma * sqrt(12) (F(x) - 1/2) + beta``, F the distribution function of the channel.

    F(x) is uniform on (0, 1) whatever the distribution of x. So ``sqrt(12) (F(x) - 1/2)`` has mean
    0 and variance 1, and no outlier exceeds ``sqrt(3)``. F is a smooth estimate,
    ``F(x) = mean_k Phi((x - q_k) / (bandwidth * s))``, with the K quantiles q_k of the channel at
    the probabilities ``(k + 1/2) / K``, their standard deviation s and the normal distribution
    function Phi. Training takes the q_k from the batch and differentiates them; evaluation uses
    running quantiles.

    Args:
        num_features: C of x, (N, C).
        quantiles: their number K, 2 or more.
        bandwidth: width of the smoothing in units of s.
        momentum: weight of the new quantiles.
        eps: added to the variance of the quantiles.
        affine: whether the layer has gamma and beta.

    Raises:
        UsageError: a number out of its range.
        ShapeError: x is not (N, C) with two rows or more in training.

    Source:
        Zhang, Lipton, Li, Smola, Dive into Deep Learning 0.17, section 7.5, exercise 7.

    >>> x = np.random.default_rng(0).exponential(size=(1000, 1))  # far from normal
    >>> y = mg.nn.ProbabilityIntegralNorm1d(1, quantiles=50, bandwidth=0.05)(mg.tensor(x)).numpy()
    >>> bool(np.abs(np.quantile(y, [0.1, 0.5, 0.9]) / 12**0.5 + 0.5 - [0.1, 0.5, 0.9]).max() < 0.02)
    True
    """

    running_quantiles: Tensor

    def __init__(
        self,
        num_features: int,
        quantiles: int = 16,
        bandwidth: float = 0.2,
        momentum: float = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: Any = "float64",
    ):
        kind = type(self).__name__
        check_count(f"{kind}: quantiles", quantiles, least=2)  # a single one has no spread
        self.num_features, self.quantiles = num_features, quantiles
        self.bandwidth = check_number(f"{kind}: bandwidth", bandwidth, positive=True)
        self.eps = check_number(f"{kind}: eps", eps)
        self.momentum = check_momentum(self, momentum)
        self.weight, self.bias = affine_parameters((num_features,), dtype, affine)
        initial = filled((quantiles, num_features), dtype, "quantiles")
        initial += np.linspace(-1.5, 1.5, quantiles, dtype=initial.dtype)[:, None]
        self.register_buffer("running_quantiles", initial)

    def forward(self, x: Any) -> Any:
        if x.ndim != 2 or x.shape[1] != self.num_features or (self.training and x.shape[0] < 2):
            expected = f"(N, {self.num_features}), N >= 2 in training"
            raise ShapeError(facts(f"{type(self).__name__}: x", expected=expected, got=describe(x)))
        x = floating(operand(x))  # quantiles of integers are fractions
        q = self._quantiles(x) if self.training else self.running_quantiles
        y = self._transform(x, q)
        if self.training:
            old, new = self.running_quantiles.array, getattr(q, "array", q)
            weight = self.momentum
            self.update_buffers(running_quantiles=(1 - weight) * old + weight * new)
        return y if self.weight is None or self.bias is None else self.weight * y + self.bias

    def _quantiles(self, x: Any) -> Any:
        """The quantiles (K, C), linear between order statistics; the order is locally constant."""
        array = getattr(x, "array", x)
        xp = backend.namespace(array)
        n, k = x.shape[0], self.quantiles
        order = xp.argsort(array, axis=0)
        ranks = np.clip((np.arange(k) + 0.5) / k * n - 0.5, 0, n - 1)  # fractional, from 0
        low = np.minimum(ranks.astype(int), n - 2)
        low, fraction = xp.asarray(low), xp.asarray((ranks - low)[:, None], dtype=array.dtype)
        columns = xp.arange(x.shape[1])
        below, above = x[order[low], columns], x[order[low + 1], columns]
        return below + (above - below) * fraction

    def _transform(self, x: Any, q: Any) -> Any:
        centred = q - ops.mean(q, axis=0, keepdims=True)
        spread = ops.sqrt(ops.mean(centred * centred, axis=0, keepdims=True) + self.eps)
        z = (ops.expand_dims(x, axis=1) - q) / (self.bandwidth * spread)  # (N, K, C)
        distribution = ops.mean(0.5 * ops.erfc(z * -(0.5**0.5)), axis=1)
        return (distribution - 0.5) * 12**0.5

    def extra_repr(self) -> str:
        return f"{self.num_features}, quantiles={self.quantiles}, bandwidth={self.bandwidth}"
