"""The rounding error of a function's values, measured: how far they are from smooth.

Shares no code with the engine. A function that computes with more digits has less noise; that shows
in which precision it should be differenced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

_STEPS = 1e-3, 1e-5, 1e-8, 1e-12
_COARSE_DIGITS = 4  # so many digits of the largest number are rounding
_POINTS = 3 * np.sqrt(np.arange(1.0, 13.0))
_CUBICS = np.linalg.qr(np.vander(_POINTS / 12, 4))[0]  # an orthonormal basis
_CUBIC_RESIDUAL = np.eye(12) - _CUBICS @ _CUBICS.T
_CUBIC_SLOPE = np.linalg.pinv(np.vander(_POINTS, 4))[2]  # at 0


@np.errstate(all="ignore")
def working_precision(
    f: Callable[..., Any], inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Copies of ``inputs`` in long double if ``f`` carries it to its result, else in float64.

    The dtype of the result does not show which: ``f`` may compute in float64 and cast. Its noise
    does. It is returned as the second item, with one number per element of the result; ``scales``
    are the lengths on which ``f`` varies, an array for each input.
    """
    wide = [np.array(x, dtype=np.longdouble, order="C") for x in inputs]
    narrow = [x.astype(np.float64) for x in wide]
    try:
        y = np.asarray(f(*wide))
        if y.dtype != np.longdouble:
            return narrow, noise_of(f, narrow, scales)
        of_wide, of_narrow = (_roughness(f, xs, scales) for xs in (wide, narrow))
    except Exception:  # a kernel that only takes float64, say
        return narrow, noise_of(f, narrow, scales)
    noise, narrow_noise = _least(of_wide, wide), _least(of_narrow, narrow)
    is_carried = 100 * noise.max(initial=0) <= narrow_noise.max(initial=0)
    is_carried |= any(
        (b.shows_rounding and 100 * a.size <= b.size) or ((a.rise > 0) & (b.rise == 0)).any()
        for a, b in zip(of_wide, of_narrow, strict=False)
    )
    if not is_carried:
        return narrow, narrow_noise
    # steps within one coarse digit of f miss its rounding, but what shrinks with eps is rounding
    ratio = float(np.finfo(np.longdouble).eps / np.finfo(np.float64).eps)
    for a, b in zip(of_wide, of_narrow, strict=False):
        is_rounding = np.isfinite(b.noise) & (100 * a.noise <= b.noise)
        noise = np.maximum(noise, np.where(is_rounding, ratio * b.noise, 0))
    return wide, noise


def noise_of(f: Callable, inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray]) -> np.ndarray:
    """The rounding error of each element of ``f``."""
    return _least(_roughness(f, inputs, scales), inputs)


@dataclass(frozen=True)
class _Roughness:
    """How far ``f`` is from smooth at 12 points close together, one number per element of y.

    Attributes:
        noise: 3 times the largest residual of a least-squares cubic; inf where nothing moves.
        slope: of the cubic at the point itself, and ``error`` how far noise may move it.
        rise: the largest change of the values.
        y: the value at the first of the points.
    """

    noise: np.ndarray
    slope: np.ndarray
    error: np.ndarray
    rise: np.ndarray
    y: np.ndarray

    @property
    def size(self) -> float:
        """The noise of the roughest element."""
        return float(self.noise.max(initial=0, where=np.isfinite(self.noise)))

    @property
    def shows_rounding(self) -> bool:
        """Whether the roughest element crosses many coarse digits, so that rounding must show."""
        is_roughest = (self.noise == self.size) & (self.noise > 0)
        return bool((is_roughest & (self.rise > 10 * self.noise)).any())


def _least(measured: Sequence[_Roughness], inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The least roughness, as far points may show curvature.

    But near points may lie within one coarse digit of a term inside ``f``: there 1 + tanh x is a
    constant. Then ``f`` is smooth or does not move, and has another slope than farther out, where
    the digits show as roughness no larger than a few of them.
    """
    y = measured[0].y
    least, floor = np.fmin.reduce([near.noise for near in measured[1:]]), np.zeros(y.shape)
    # f may call a function of float64 although its result is long double
    eps = max(np.finfo(y.dtype).eps, np.finfo(np.float64).eps)
    largest = max(float(np.abs(x).max(initial=0)) for x in (y, *inputs))
    for far, near in combinations(measured, 2):
        is_other_slope = np.abs(near.slope - far.slope) > near.error + far.error
        is_other_slope |= (near.rise == 0) & (far.rise > 0)
        is_digits = far.noise <= _COARSE_DIGITS * eps * largest
        floor = np.fmax(floor, np.where(is_other_slope & is_digits, far.noise, 0))
    smallest = np.finfo(y.dtype).smallest_subnormal  # anything smaller underflows
    return np.maximum(np.fmax(np.where(np.isfinite(least), least, 0), floor), smallest)


def _roughness(
    f: Callable, inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray]
) -> list[_Roughness]:
    """The roughness of ``f`` at points far from each other, and at closer and closer ones.

    The spacing is uneven, else values may round alike between two coarse digits; and all points lie
    on one side of x: about a point of symmetry the rounding is as odd as ``f``, and would cancel.
    Inputs of one shape move apart, else terms of ``f`` that are equal here would stay equal.
    """
    measured: list[_Roughness] = []
    least: Any = np.inf
    for h in _STEPS:
        pairs = zip(scales, inputs, strict=True)
        steps = [h * np.asarray(s) * wiggle(x, k) for k, (s, x) in enumerate(pairs)]
        values = [
            np.array(f(*(x + t * step for x, step in zip(inputs, steps, strict=True))))
            for t in _POINTS
        ]
        rises = np.stack(values) - values[0]  # the common digits would only add rounding
        rise = np.abs(rises).max(axis=0)
        residual = np.abs(np.tensordot(_CUBIC_RESIDUAL, rises, 1)).max(axis=0)
        # an element that never moves tells nothing: the step is lost in a coarser digit within f
        noise = np.where(rise > 0, 3 * residual, np.inf)
        slope, error = np.tensordot(_CUBIC_SLOPE, rises, 1), np.abs(_CUBIC_SLOPE).sum() * noise
        measured.append(_Roughness(noise, slope / h, error / h, rise, values[0]))
        least = np.fmin(least, noise)
        digit = np.finfo(values[0].dtype).eps * np.abs(values[0])
        if h < 1e-5 and not (least > 64 * digit).any():
            break
    return measured


def wiggle(part: np.ndarray, k: int = 0) -> np.ndarray:
    """Distinct numbers in (-1, 1), in an array of the shape of ``part``; others for another k."""
    return np.sin(1.0 + 0.7 * k + np.arange(part.size)).reshape(part.shape)
