"""How much rounding error a right backward pass may show.

A backward-stable algorithm is off by a few units in the last place of each *summand* of a
cotangent, however small their sum is. The bound of an element is

    ``(32 + M) * u * conditioning * magnitude``

* u: the unit roundoff of the dtype, eps / 2,
* M: the number of terms in the longest sum; adding them one by one may give an error of M u,
* 32: the roundings of some dozen operations on each side of the comparison,
* magnitude: the sum of the absolute summands,
* conditioning: the factor by which the summands amplify a relative error in x.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from minigrad.analytic import batch_norm
from minigrad.verify.subject import are_batch_norms


@dataclass(frozen=True)
class Rounding:
    """Magnitude times conditioning of each cotangent's elements; ``terms`` is the M above."""

    sizes: list[np.ndarray]
    terms: int

    def bounds(self, dtype: Any) -> list[np.ndarray]:
        """The bound of each element of each cotangent, for results in ``dtype``."""
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
    """The rounding of batch norm's backward pass.

    ``x_bar = inv_std (g - mean(g) - x_hat mean(g x_hat))`` with ``g = gamma y_bar`` has the
    magnitude ``inv_std (|g| + mean|g| + |x_hat| mean|g x_hat|)``. An error u|x| in a deviation
    x - mu causes an error ``u max|x| / sqrt(var + eps)`` in x_hat, and a relative error of that
    size in inv_std.
    """
    x, gamma, beta = (np.asarray(a, dtype=np.longdouble) for a in inputs)
    y_bar = np.abs(np.asarray(y_bar, dtype=np.longdouble))
    all_but_1 = tuple(i for i in range(x.ndim) if i != 1)
    axes = all_but_1 if axis is None else axis

    def aligned(p: Any) -> np.ndarray:
        return np.asarray(p, np.longdouble).reshape((-1,) + (1,) * (x.ndim - 2))

    of_batch = mean is None
    mu = x.mean(axis=axes, keepdims=True) if of_batch else aligned(mean)
    variance = ((x - mu) ** 2).mean(axis=axes, keepdims=True) if of_batch else aligned(var)
    inv_std = 1 / np.sqrt(variance + eps)
    x_hat = np.abs((x - mu) * inv_std)
    amplification = (np.abs(x).max(axis=axes, keepdims=True, initial=0) + np.abs(mu)) * inv_std
    with np.errstate(all="ignore"):  # x_hat may also be computed from y: (y - beta) / gamma
        shift = np.abs(aligned(beta) / aligned(gamma))
    amplification = amplification + np.where(np.isfinite(shift), shift, 0)
    g = y_bar * np.abs(aligned(gamma))
    magnitude = g
    if of_batch:
        variance_path = x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
        magnitude = g + g.mean(axis=axes, keepdims=True) + variance_path
    sizes = [
        magnitude * inv_std * (1 + amplification),
        (y_bar * (x_hat + amplification)).sum(axis=all_but_1),
        y_bar.sum(axis=all_but_1),
    ]
    return Rounding(sizes, x.size // max(x.shape[1], 1))


def parameters_of_batch_norm(params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``params`` that would be parameters of a batch norm."""
    return {name: params[name] for name in ("mean", "var", "axis", "eps") if name in params}


def looks_like_batch_norm(
    y: np.ndarray, inputs: Sequence[np.ndarray], params: Mapping[str, Any]
) -> bool:
    """Whether ``y`` is roughly batch norm of ``(x, gamma, beta)``; eps may be added elsewhere."""
    if not are_batch_norms(inputs) or y.shape != inputs[0].shape or not y.size:
        return False
    x, gamma, beta = (np.asarray(a, dtype=np.longdouble) for a in inputs)
    given = parameters_of_batch_norm(params)
    if not isinstance(given.get("eps", 1e-5), Real):
        return False
    with np.errstate(all="ignore"):
        try:
            reference = batch_norm(np, x, gamma, beta, **given)
        except Exception:  # to another function, mean or axis may be anything
            return False
        shift = beta.reshape((-1,) + (1,) * (x.ndim - 2))
        spread = np.abs(reference - shift).max()
        size = np.abs(gamma).max() + np.abs(beta).max()
        return bool(np.abs(y - reference).max() <= 0.5 * spread + 1e-3 * size)
