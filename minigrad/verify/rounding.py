"""How much rounding a right backward pass may show.

A backward-stable algorithm commits a few units in the last place of each *summand*, so what cancels
matters, not what is left. The bound of an element is

    ``(32 + M) * u * conditioning * magnitude``

with u the unit roundoff of the dtype, M the number of terms in the longest sum (an error of M u is
what adding them one by one may give), 32 the roundings of some dozen operations on each side, the
magnitude the sum of the absolute summands, and the conditioning what an error u in x does to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.analytic import batch_norm
from minigrad.verify.subject import are_batch_norms


@dataclass(frozen=True)
class Rounding:
    """The summands of each cotangent: magnitude times conditioning, and the length of the sums."""

    sizes: list[np.ndarray]
    terms: int

    def bounds(self, dtype: Any) -> list[np.ndarray]:
        """One bound per element of each cotangent for results in ``dtype``."""
        u = np.finfo(dtype).eps / 2
        return [(32 + self.terms) * u * size for size in self.sizes]


def normalization(
    y_bar: np.ndarray,
    inputs: Sequence[np.ndarray],
    *,
    mean: Any = None,
    var: Any = None,
    axis: Any = None,
    eps: float = 1e-5,
) -> Rounding:
    """The summands of batch norm's backward pass.

    ``x_bar = inv_std (g - mean(g) - x_hat mean(g x_hat))`` has the magnitude
    ``inv_std (|g| + mean|g| + |x_hat| mean|g x_hat|)``. An error u|x| in a deviation x - mu is
    an error ``u max|x| / sqrt(var + eps)`` in x_hat, and as large a relative one in inv_std.
    """
    x, gamma, beta = (np.asarray(a, dtype=np.longdouble) for a in inputs)
    y_bar = np.abs(np.asarray(y_bar, dtype=np.longdouble))
    axes = tuple(i for i in range(x.ndim) if i != 1) if axis is None else axis
    others = tuple(i for i in range(x.ndim) if i != 1)

    def aligned(p: Any) -> np.ndarray:
        return np.asarray(p, np.longdouble).reshape((-1,) + (1,) * (x.ndim - 2))

    statistics = mean is None
    mu = x.mean(axis=axes, keepdims=True) if statistics else aligned(mean)
    variance = ((x - mu) ** 2).mean(axis=axes, keepdims=True) if statistics else aligned(var)
    inv_std = 1 / np.sqrt(variance + eps)
    x_hat = np.abs((x - mu) * inv_std)
    amplified = (np.abs(x).max(axis=axes, keepdims=True, initial=0) + np.abs(mu)) * inv_std
    with np.errstate(all="ignore"):  # x_hat may also be taken from y: (y - beta) / gamma
        shift = np.abs(aligned(beta) / aligned(gamma))
    amplified = amplified + np.where(np.isfinite(shift), shift, 0)
    g = y_bar * np.abs(aligned(gamma))
    x_size = g
    if statistics:
        variance_path = x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
        x_size = g + g.mean(axis=axes, keepdims=True) + variance_path
    sizes = [
        x_size * inv_std * (1 + amplified),
        (y_bar * (x_hat + amplified)).sum(axis=others),
        y_bar.sum(axis=others),
    ]
    return Rounding(sizes, x.size // max(x.shape[1], 1))


def looks_like_batch_norm(y: np.ndarray, inputs: Sequence[np.ndarray], params: dict) -> bool:
    """Whether ``y`` is batch norm of ``(x, gamma, beta)`` up to details, such as where eps goes."""
    if not are_batch_norms(inputs) or y.shape != inputs[0].shape or not y.size:
        return False
    x, gamma, beta = (np.asarray(a, dtype=np.longdouble) for a in inputs)
    eps = params.get("eps", 1e-5)
    with np.errstate(all="ignore"):
        reference = batch_norm(np, x, gamma, beta, eps=eps)
        shift = beta.reshape((-1,) + (1,) * (x.ndim - 2))
        spread = np.abs(reference - shift).max()
        size = np.abs(gamma).max() + np.abs(beta).max()
        return bool(np.abs(y - reference).max() <= 0.5 * spread + 1e-3 * size)
