"""At a kink every slope between the one-sided ones is a subgradient."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.verify.numeric import one_sided_slopes, working_precision

_MOST = 32  # elements that are looked at; more are no kink but a fault


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
    if not len(off) or len(off) > _MOST:
        return expected, 0
    expected, kinks = expected.copy(), 0
    wide = working_precision(f, inputs)
    for where in map(tuple, off):
        size = abs(float(wide[k][where])) or 1.0
        left, right, kink = one_sided_slopes(_along(f, wide, k, where, y_bar), size)
        if kink:
            kinks += 1
            slack = 1e-5 * abs(right - left)
            low, high = min(left, right) - slack, max(left, right) + slack
            expected[where] = np.clip(got[where], low, high)
    return expected, kinks


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
