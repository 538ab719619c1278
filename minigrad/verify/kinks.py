"""At a kink every slope between the one-sided ones is a subgradient."""

from collections.abc import Callable, Sequence
from functools import partial
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
) -> tuple[np.ndarray, int, str]:
    """``expected`` with each disagreeing element at a kink replaced by the closest subgradient.

    Args:
        f: plain arrays -> array.
        inputs: the point.
        k: the input whose cotangent ``got`` is.
        y_bar: the cotangent of the result.
        got, expected, bound: of the shape of input k.

    Returns:
        The expected cotangent, how many elements lie at kinks, and what tied ones must not get.
    """
    with np.errstate(all="ignore"):
        off = np.argwhere(~(np.abs(got - expected) <= bound))
    if not len(off):
        return expected, 0, ""
    accepted, kinks = expected.copy(), {}
    wide, _ = working_precision(f, inputs)
    with np.errstate(all="ignore"):
        y = np.asarray(f(*wide))
        digit = float(np.finfo(y.dtype).eps)
        noise = digit * float(np.abs(y * y_bar).sum())
    along = partial(_along, f, wide, k, y_bar)
    for where in map(tuple, off):
        size = abs(float(wide[k][where])) or 1.0
        left, right, kink = one_sided_slopes(along(where), size, digit, noise)
        if kink and np.isfinite(got[where]):
            kinks[where] = left, right
            slack = 1e-5 * abs(right - left)
            low, high = min(left, right) - slack, max(left, right) + slack
            accepted[where] = np.clip(got[where], low, high)
        if len(off) > _MANY and accepted[where] != got[where]:
            return expected, 0, ""
    one = np.count_nonzero(y_bar) == 1 and len(kinks) > 1
    why = _tie(along, wide[k], kinks, (digit, noise), got, bound) if one else ""
    return (expected, 0, why) if why else (accepted, len(kinks), "")


def _tie(
    along: Callable[[Any], Callable[[float], float]], x: np.ndarray,
    kinks: dict[tuple, tuple[float, float]], precision: tuple[float, float],
    got: np.ndarray, bound: np.ndarray,
) -> str:  # fmt: skip
    """Why what these elements of ``got`` are together is of no subgradient; empty where it may be.

    Kinks that are each one's own move as much together as alone, and any of their slopes will do.
    """
    at = tuple(np.array(list(kinks)).T)
    size = min(abs(float(x[where])) or 1.0 for where in kinks)
    together = np.array(one_sided_slopes(along(at), size, *precision)[:2])
    alone, total = np.sum(list(kinks.values()), axis=0), float(got[at].sum())
    slack = 1e-5 * np.abs([together, alone]).max() + bound[at].sum()
    least, most = together.min(), together.max()
    if (np.abs(together - alone) <= slack).all() or least - slack <= total <= most + slack:
        return ""
    may = f"{least:.6g}" if most - least <= slack else f"{least:.6g} to {most:.6g}"
    return f"{len(kinks)} elements tie: together they get {total:.6g}, and may get {may}"


def _along(
    f: Callable, inputs: list[np.ndarray], k: int, y_bar: np.ndarray, where: Any
) -> Callable[[float], float]:
    """t -> <y_bar, f> with one element, or several, moved by t."""

    def phi(t: float) -> float:
        moved = inputs[k].copy()
        moved[where] += t
        with np.errstate(all="ignore"):
            y = np.asarray(f(*inputs[:k], moved, *inputs[k + 1 :]))
        return (y * y_bar).sum()

    return phi
