"""The rounding error of a function's values, measured: how far they are from smooth.

Shares no code with the engine. A function that computes with more digits has less noise; that shows
in which precision it should be differenced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_STEPS = 1e-3, 1e-5, 1e-8, 1e-12
_FARTHEST = 5e-3  # up to the first steps of the differences
_COARSE_DIGITS = 4  # so many digits of the largest number are rounding


def _basis(points: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the polynomials of degree 0 to 5 at these points."""
    basis = np.vander(points.astype(np.longdouble) / 12, 6, increasing=True)
    for k, column in enumerate(basis.T):  # np.linalg has no long double
        for _ in range(2):
            column -= basis[:, :k] @ (basis[:, :k].T @ column)
        column /= np.sqrt(column @ column)
    return basis


_ROOTS = 3 * np.sqrt(np.arange(1.0, 13.0))
_ON_ONE_SIDE, _ON_BOTH_SIDES = (
    (points, _basis(points)) for points in (_ROOTS, _ROOTS * np.resize([1, -1], 12))
)


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
    noise = _noise(of_wide, f, wide, scales)
    narrow_noise = _noise(of_narrow, f, narrow, scales)
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


@np.errstate(all="ignore")
def noise_of(f: Callable, inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray]) -> np.ndarray:
    """The rounding error of each element of ``f``."""
    return _noise(_roughness(f, inputs, scales), f, inputs, scales)


@dataclass(frozen=True)
class _Roughness:
    """How far ``f`` is from smooth at 12 points close together, one number per element of y.

    Attributes:
        noise: 3 times the largest residual of a least-squares cubic; inf where nothing moves.
        is_smooth: whether a polynomial of degree 5 leaves less than a tenth of that residual. It
            does where the residual is curvature; of a step between two of the points, as rounding
            has, it leaves at least a sixth.
        rise: the largest change of the values.
        y: the value at the first of the points.
    """

    noise: np.ndarray
    is_smooth: np.ndarray
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


def _noise(
    measured: Sequence[_Roughness],
    f: Callable, inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray],
) -> np.ndarray:  # fmt: skip
    """The least roughness, as far points may show curvature; but at least that of coarse digits.

    Near points may lie within one coarse digit of a term inside ``f``: there 1 + tanh x is a
    constant. Then ``f`` looks smoother than it is, or does not move at all. Farther out the digits
    show, at all larger distances, as a roughness no larger than a few of them. It is no curvature:
    that one is smooth, or nearer points show it and it grows with h^4, or up to 1e3 times as much
    where ``f`` is like an exponential.
    """
    y = measured[0].y
    least = np.fmin.reduce([near.noise for near in measured[1:]])
    noise = np.where(np.isfinite(least), least, 0)
    # f may call a function of float64 although its result is long double
    eps = max(np.finfo(y.dtype).eps, np.finfo(np.float64).eps)
    digits = _COARSE_DIGITS * eps * max(float(np.abs(x).max(initial=0)) for x in (y, *inputs))
    from_far = np.fmin.accumulate([each.noise for each in measured])
    curvature = np.zeros(y.shape)  # over h^4, the largest seen at nearer points
    for h, each, least in reversed(list(zip(_STEPS, measured, from_far, strict=False))):
        is_coarse = ~each.is_smooth & (each.noise > 1e3 * curvature * h**4) & (least <= digits)
        noise = np.where(is_coarse, np.fmax(noise, least), noise)
        curvature = np.fmax(curvature, np.where(each.is_smooth, each.noise, 0) / h**4)
    is_still = np.all([each.rise == 0 for each in measured], axis=0)
    if is_still.any():
        rise = _roughness_at(f, inputs, scales, _FARTHEST).rise
        noise = np.where(is_still, np.where(rise <= digits, rise, 0), noise)
    smallest = np.finfo(y.dtype).smallest_subnormal  # anything smaller underflows
    return np.maximum(noise, smallest)


def _roughness(
    f: Callable, inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray]
) -> list[_Roughness]:
    """The roughness of ``f`` at points far from each other, and at closer and closer ones."""
    measured: list[_Roughness] = []
    least: Any = np.inf
    for h in _STEPS:
        measured.append(_roughness_at(f, inputs, scales, h))
        least, y = np.fmin(least, measured[-1].noise), measured[-1].y
        if h < 1e-5 and not (least > 64 * np.finfo(y.dtype).eps * np.abs(y)).any():
            break
    return measured


def _roughness_at(
    f: Callable, inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray], h: float
) -> _Roughness:
    """The roughness of ``f`` at 12 points as far apart as ``h`` times the scales.

    The spacing is uneven, else values may round alike between two coarse digits. Far points lie on
    both sides of x, as those of the differences do; near ones on one side, as beside a kink the
    other is of no use. Inputs of one shape move apart, else terms of ``f`` that are equal here
    would stay equal.
    """
    points, basis = _ON_BOTH_SIDES if h >= _STEPS[0] else _ON_ONE_SIDE
    pairs = zip(scales, inputs, strict=True)
    steps = [(h * s * wiggle(x, k)).astype(x.dtype) for k, (s, x) in enumerate(pairs)]
    values = [
        np.array(f(*(x + t * step for x, step in zip(inputs, steps, strict=True)))) for t in points
    ]
    rises = np.stack(values) - values[0]  # the common digits would only add rounding
    rise = np.abs(rises).max(axis=0)
    residuals = []
    for part in np.split(basis.astype(rises.dtype), [4], axis=1):
        rises = rises - np.tensordot(part, np.tensordot(part.T, rises, 1), 1)
        residuals.append(np.abs(rises).max(axis=0))
    # an element that never moves tells nothing: the step is lost in a coarser digit within f
    noise = np.where(rise > 0, 3 * residuals[0], np.inf)
    return _Roughness(noise, 10 * residuals[1] < residuals[0], rise, values[0])


def wiggle(part: np.ndarray, k: int = 0) -> np.ndarray:
    """Distinct numbers in (-1, 1), in an array of the shape of ``part``; others for another k."""
    return np.sin(1.0 + 0.7 * k + np.arange(part.size)).reshape(part.shape)
