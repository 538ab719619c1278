"""Derivatives by complex steps: ``f(x + i h) = f(x) + i h f'(x)``, where h^2 is lost to rounding.

One evaluation gives a column of a Jacobian, and no digits cancel. It takes an ``f`` that is
analytic and computes on complex numbers. Some functions of NumPy are not, such as ``abs`` and
``var``, so each Jacobian is confirmed by differences along a random direction.

Source:
    Squire, Trapp 1998, Using complex variables to estimate derivatives of real functions.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from minigrad.verify.numeric import Jacobian, differences
from minigrad.verify.rounding import Rounding

_STEP = 2.0**-330  # h^2 does not underflow, but is far below any rounding


def complex_jacobians(
    f: Callable[..., np.ndarray],
    inputs: Sequence[np.ndarray],
    scales: Sequence[np.ndarray],
    noise: np.ndarray,
    terms: int,
) -> list[Jacobian] | None:
    """The Jacobian by each input, or None if ``f`` does not allow complex steps.

    Args:
        f: plain arrays -> array.
        inputs: float64 arrays.
        scales: per input, the length on which ``f`` varies.
        noise: the rounding error of each element of ``f``.
        terms: the number of terms of the longest sum in a derivative.
    """
    found = []
    for k, (x, scale) in enumerate(zip(inputs, scales, strict=True)):

        def of_input(z: np.ndarray, k: int = k) -> np.ndarray:
            return np.asarray(f(*inputs[:k], z, *inputs[k + 1 :]))

        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                jacobian = _jacobian(of_input, x, np.broadcast_to(scale, x.shape), noise, terms)
        except Exception:  # whatever f raises on complex numbers
            return None
        if not _is_confirmed(jacobian, of_input, x, scale, noise):
            return None
        found.append(jacobian)
    return found


def _jacobian(
    f: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray, scale: np.ndarray, noise: np.ndarray, terms: int,
) -> Jacobian:  # fmt: skip
    """Its errors: the rounding of a derivative, and of terms that cancel in f and do so in f'."""
    value = np.empty((1, noise.size, x.size))
    z = x.astype(np.complex128)
    for j in range(x.size):
        z.reshape(-1)[j] += 1j * _STEP
        y = f(z)
        if y.dtype != np.complex128:
            raise TypeError(f"f({z.dtype}) is {y.dtype}")
        value[0, :, j] = np.imag(y).reshape(-1) / _STEP
        z.reshape(-1)[j] = x.reshape(-1)[j]
    (rounding,) = Rounding([np.abs(value)], terms).bounds(x.dtype)
    of_terms = 4 * noise.reshape(-1, 1) / scale.reshape(1, -1)
    return Jacobian(value, rounding + of_terms, (noise.shape, x.shape))


def _is_confirmed(
    jacobian: Jacobian, f: Callable, x: np.ndarray, scale: np.ndarray, noise: np.ndarray
) -> bool:
    """Whether differences along a random direction v agree with J v."""
    v = scale * np.random.default_rng(0).normal(size=x.shape)
    (line,) = differences(lambda t: f(x + t[0] * v), [np.zeros(1)], [np.ones(1)], noise)
    predicted, room = jacobian.value[0] @ v.reshape(-1), jacobian.error[0] @ np.abs(v.reshape(-1))
    error = np.abs(predicted - line.value[0, :, 0])
    return bool((error <= room + line.error[0, :, 0]).all())
