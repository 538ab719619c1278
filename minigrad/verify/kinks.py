"""At a kink every slope between the one-sided ones is a subgradient."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.verify.numeric import one_sided_slopes, working_precision

_MANY = 32  # elements that disagree: where so many do, one that is no kink shows a fault


def between_slopes(
    f: Callable[..., np.ndarray],
    inputs: Sequence[np.ndarray],
    k: int,
    y_bar: np.ndarray,
    got: np.ndarray,
    expected: np.ndarray,
    bound: np.ndarray,
) -> tuple[np.ndarray, int]:
    """``expected`` with each disagreeing element at a kink replaced by the closest subgradient.

    Args:
        f: plain arrays -> array.
        inputs: the point.
        k: the input whose cotangent ``got`` is.
        y_bar: the cotangent of the result.
        got, expected, bound: of the shape of input k.

    Returns:
        The expected cotangent, and how many elements lie at kinks.
    """
    with np.errstate(all="ignore"):
        off = np.argwhere(~(np.abs(got - expected) <= bound))
    if not len(off):
        return expected, 0
    accepted, kinks = expected.copy(), 0
    wide, _ = working_precision(f, inputs)
    with np.errstate(all="ignore"):
        y = np.asarray(f(*wide))
        digit = float(np.finfo(y.dtype).eps)
        noise = digit * float(np.abs(y * y_bar).sum())
    for where in map(tuple, off):
        size = abs(float(wide[k][where])) or 1.0
        phi = _along(f, wide, k, where, y_bar)
        left, right, kink = one_sided_slopes(phi, size, digit, noise)
        if kink:
            kinks += 1
            slack = 1e-5 * abs(right - left)
            low, high = min(left, right) - slack, max(left, right) + slack
            accepted[where] = np.clip(got[where], low, high)
        if len(off) > _MANY and accepted[where] != got[where]:
            return expected, 0
    return accepted, kinks


def _along(
    f: Callable, inputs: list[np.ndarray], k: int, where: Any, y_bar: np.ndarray
) -> Callable[[float], float]:
    """t -> <y_bar, f> with one element moved by t."""

    def phi(t: float) -> float:
        moved = inputs[k].copy()
        moved[where] += t
        with np.errstate(all="ignore"):
            y = np.asarray(f(*inputs[:k], moved, *inputs[k + 1 :]))
        return (y * y_bar).sum()

    return phi
