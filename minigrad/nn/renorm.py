"""Batch renormalization: training and evaluation compute the same function, except for clipping."""

from collections.abc import Callable
from typing import Any

from minigrad import backend
from minigrad.nn import kernels
from minigrad.nn.batchnorm import StatisticsNorm
from minigrad.ops.normalization import all_but_channels


def clip_schedule(step: int) -> tuple[float, float]:
    """``(r_max, d_max)`` of the paper's schedule after ``step`` batches.

    (1, 0), which is batch normalization, for the first 5,000 batches; then both grow linearly,
    r_max to 3 at batch 40,000 and d_max to 5 at batch 25,000.

    >>> mg.nn.clip_schedule(5000), mg.nn.clip_schedule(15000), mg.nn.clip_schedule(10**6)
    ((1.0, 0.0), (1.5714285714285714, 2.5), (3.0, 5.0))
    """
    r = min(max((step - 5000) / 35000, 0.0), 1.0)
    d = min(max((step - 5000) / 20000, 0.0), 1.0)
    return 1 + 2 * r, 5 * d


class _BatchRenorm(StatisticsNorm):
    """Batch renormalization; subclasses say how many axes x has."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        clips: Callable[[int], tuple[float, float]] = clip_schedule,
        dtype: Any = "float64",
    ):
        super().__init__(num_features, eps, momentum, affine, unbiased=False, dtype=dtype)
        self.clips = clips

    def forward(self, x: Any) -> Any:
        self.check(x)
        gamma, beta = self.gamma_and_beta(x)
        if not self.training:
            return self.with_running_statistics(x, gamma, beta)
        m = self.count(x)
        mean, var = kernels.batch_statistics(x, all_but_channels(x))
        r, d = self._corrections(mean, var)
        # gamma * (x_hat * r + d) + beta, as a batch norm with another scale and shift
        y = kernels.batch_norm(x, gamma * r, gamma * d + beta, eps=self.eps)
        self.average(mean, var, m)
        return y

    def _corrections(self, mean: Any, var: Any) -> tuple[Any, Any]:
        """r and d, clipped, as plain arrays: nothing is differentiated through them."""
        xp = backend.namespace(mean)
        r_max, d_max = self.clips(int(self.num_batches_tracked))
        std = xp.sqrt(self.running_var.array + self.eps)
        r = xp.sqrt(var + self.eps) / std
        d = (mean - self.running_mean.array) / std
        return xp.clip(r, 1 / r_max, r_max), xp.clip(d, -d_max, d_max)


class BatchRenorm1d(_BatchRenorm):
    """Batch renormalization of (N, C) or (N, C, L): ``y = gamma * (x_hat * r + d) + beta``.

    ``r = std_batch / std_running`` and ``d = (mean_batch - mean_running) / std_running`` are
    clipped and treated as constants in the gradient. Without clipping, ``x_hat * r + d`` is exactly
    x normalized with the running statistics, those from before this batch.

    Args:
        num_features, eps, momentum, affine, dtype: as in ``BatchNorm2d``.
        clips: function of the number of batches seen, returns ``(r_max, d_max)``: r is clipped to
            [1 / r_max, r_max], d to [-d_max, d_max].

    Source:
        Ioffe 2017, arXiv:1702.03275, Algorithm 1. The paper averages std itself; here std_running
        is the root of a running biased variance plus eps.

    >>> layer = mg.nn.BatchRenorm1d(1, clips=lambda step: (10.0, 10.0))
    >>> x = mg.tensor([[1.0], [3.0]])
    >>> layer(x).numpy().round(4).ravel()  # the running mean is 0 and the variance 1: y = x
    array([1., 3.])
    """

    ndims = (2, 3)


class BatchRenorm2d(_BatchRenorm):
    """Batch renormalization of (N, C, H, W); arguments as in ``BatchRenorm1d``."""

    ndims = (4,)
