"""Whitening: normalizes the full covariance matrix of the features, not only its diagonal."""

from typing import Any, Literal

import numpy as np

from minigrad import ops
from minigrad.composite import operand
from minigrad.errors import ShapeError, UsageError, check_number, describe, facts
from minigrad.nn.layers import affine_parameters, check_momentum, filled
from minigrad.nn.module import Module
from minigrad.ops.decomposition import cholesky, inv, sqrtm
from minigrad.tensor import Tensor


class Whitening1d(Module):
    """``y = gamma * W (x - mean) + beta`` with ``W (cov + eps I) W^T = I``.

    ``method="zca"`` uses the symmetric ``W = (cov + eps I)^(-1/2)``, which changes the features
    least; ``"cholesky"`` uses ``W = L^-1`` with ``L L^T = cov + eps I``, which removes from feature
    i its correlation with the features before it. Training uses the batch's mean and biased (1/N)
    covariance and differentiates through them; evaluation uses running ones.

    Args:
        num_features: C of x, (N, C) or (N, C, ...).
        method: ``"zca"`` or ``"cholesky"``.
        eps: added to the diagonal of the covariance.
        momentum: weight of the new statistic.
        affine: whether the layer has gamma and beta.

    Attributes:
        running_mean: (C,). running_cov: (C, C), averages the unbiased covariance.

    Raises:
        UsageError: an unknown method. ShapeError: other channels, or a training batch with fewer
            than 2 values per channel.

    Source:
        Huang, Yang, Lang, Deng 2018, Decorrelated Batch Normalization, arXiv:1804.08450.

    >>> x = np.random.default_rng(0).normal(size=(50, 2)) @ [[1.0, 2.0], [0.0, 1.0]]
    >>> y = mg.nn.Whitening1d(2, eps=0.0)(mg.tensor(x)).numpy()
    >>> np.round(y.T @ y / 50, 12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """

    running_mean: Tensor
    running_cov: Tensor

    def __init__(
        self,
        num_features: int,
        method: Literal["zca", "cholesky"] = "zca",
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        *,
        dtype: Any = "float64",
    ):
        if method not in ("zca", "cholesky"):
            expected = "'zca' or 'cholesky'"
            raise UsageError(facts("Whitening1d: method", expected=expected, got=repr(method)))
        self.num_features, self.method = num_features, method
        self.eps = check_number("Whitening1d: eps", eps)
        self.momentum = check_momentum(self, momentum)
        self.weight, self.bias = affine_parameters((num_features,), dtype, affine)
        self.register_buffer("running_mean", filled((num_features,), dtype, "mean"))
        self.register_buffer("running_cov", np.eye(num_features, dtype=dtype))

    def forward(self, x: Any) -> Any:
        if x.ndim < 2 or x.shape[1] != self.num_features:
            expected = f"(N, {self.num_features}) or (N, {self.num_features}, ...)"
            raise ShapeError(facts("Whitening1d: x", expected=expected, got=describe(x)))
        rows, back = _as_rows(operand(x))
        if self.training:
            y = self._train(rows)
        else:
            xc = rows - self.running_mean
            y = ops.matmul(xc, self._whitener(self.running_cov))
        if self.weight is not None and self.bias is not None:
            y = self.weight * y + self.bias
        return back(y)

    def _train(self, rows: Any) -> Any:
        m = rows.shape[0]
        if m < 2:
            got = f"{m}, in {describe(rows)}"
            expected = "2 or more values per channel"
            raise ShapeError(facts("Whitening1d: batch", expected=expected, got=got))
        mean = ops.mean(rows, axis=0)
        xc = rows - mean
        cov = ops.matmul(ops.transpose(xc), xc) / m
        y = ops.matmul(xc, self._whitener(cov))
        weight = self.momentum
        mean, cov = (getattr(a, "array", a) for a in (mean, cov))
        self.update_buffers(
            running_mean=(1 - weight) * self.running_mean.array + weight * mean,
            running_cov=(1 - weight) * self.running_cov.array + weight * (m / (m - 1)) * cov,
        )
        return y

    def _whitener(self, cov: Any) -> Any:
        """``W^T``, by which rows of features are multiplied from the right."""
        if self.method == "zca":
            return inv(sqrtm(cov, shift=self.eps))
        return ops.transpose(inv(cholesky(cov, shift=self.eps)))

    def extra_repr(self) -> str:
        return f"{self.num_features}, method={self.method!r}, eps={self.eps}"


def _as_rows(x: Any) -> tuple[Any, Any]:
    """``x`` (N, C, ...) as rows (N * ..., C), and the function that restores the axes."""
    if x.ndim == 2:
        return x, lambda y: y
    order = (0, *range(2, x.ndim), 1)
    moved = ops.transpose(x, axes=order)
    back = tuple(order.index(i) for i in range(x.ndim))
    rows = ops.reshape(moved, shape=(-1, x.shape[1]))
    return rows, lambda y: ops.transpose(ops.reshape(y, shape=moved.shape), axes=back)
