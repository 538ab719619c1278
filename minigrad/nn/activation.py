"""Activations and losses as modules, for ``Sequential``."""

from math import isfinite
from numbers import Real
from typing import Any

from minigrad import ops
from minigrad.errors import UsageError, describe, facts
from minigrad.nn import kernels
from minigrad.nn.module import Module


def _slope(what: str, value: Any) -> float:
    """``value`` as a float; UsageError unless it is a finite number, which may be negative."""
    if not isinstance(value, Real) or not isfinite(value):
        raise UsageError(facts(what, expected="a finite number", got=describe(value)))
    return float(value)


class ReLU(Module):
    """``max(x, 0)``.

    >>> mg.nn.ReLU()(mg.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, x: Any) -> Any:
        return kernels.relu(x)


class LeakyReLU(Module):
    """``max(x, 0) + negative_slope * min(x, 0)``."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = _slope("LeakyReLU: negative_slope", negative_slope)

    def forward(self, x: Any) -> Any:
        return kernels.leaky_relu(x, alpha=self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """``x`` where it is positive, ``alpha * (e^x - 1)`` elsewhere."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = _slope("ELU: alpha", alpha)

    def forward(self, x: Any) -> Any:
        return kernels.elu(x, alpha=self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class GELU(Module):
    """``x * Phi(x)``, Phi the normal distribution function: the exact form."""

    def forward(self, x: Any) -> Any:
        return kernels.gelu(x)


class Sigmoid(Module):
    """``1 / (1 + e^-x)``."""

    def forward(self, x: Any) -> Any:
        return kernels.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Any) -> Any:
        return kernels.tanh(x)


class Softplus(Module):
    """``ln(1 + e^x)``."""

    def forward(self, x: Any) -> Any:
        return kernels.softplus(x)


class Softmax(Module):
    """``e^x / sum(e^x)`` along ``dim``: positive weights that sum to 1."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return kernels.softmax(x, axis=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class CrossEntropyLoss(Module):
    """Mean negative log-likelihood: logits (N, K), integer labels (N,) -> scalar.

    >>> mg.nn.CrossEntropyLoss()(mg.tensor([[0.0, 0.0]]), [1])
    tensor(0.69314718)
    """

    def forward(self, logits: Any, labels: Any) -> Any:
        return kernels.cross_entropy(logits, labels)


class MSELoss(Module):
    """Mean squared difference of two arrays of the same shape -> scalar."""

    def forward(self, prediction: Any, target: Any) -> Any:
        return ops.mse_loss(prediction, target)


class L1Loss(Module):
    """Mean absolute difference of two arrays of the same shape -> scalar."""

    def forward(self, prediction: Any, target: Any) -> Any:
        return ops.l1_loss(prediction, target)


class BCEWithLogitsLoss(Module):
    """Mean binary cross entropy: logits, and targets in [0, 1] of the same shape -> scalar.

    >>> mg.nn.BCEWithLogitsLoss()(mg.tensor([0.0, 0.0]), np.array([0, 1]))
    tensor(0.69314718)
    """

    def forward(self, logits: Any, target: Any) -> Any:
        return kernels.binary_cross_entropy_with_logits(logits, target)
