"""At a kink every slope between the one-sided ones is a subgradient."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from minigrad.verify.numeric import one_sided_slopes, working_precision

_MANY = 32  # elements that disagree: where so many do, one that is no kink shows a fault
_WAYS = 4  # in which elements at kinks are moved together
_SLACK = 1e-5  # of a slope that is known to fewer digits than a derivative


class Kinks:
    """The kinks of a function at a point, each looked for once.

    Each element of the result may have a subgradient of its own, as each unit of a layer has:
    the slopes are those of the elements, and not of what a cotangent makes of them.

    Args:
        f: plain arrays -> array.
        inputs: the point.
    """

    def __init__(self, f: Callable[..., np.ndarray], inputs: Sequence[np.ndarray]):
        self.f, self.inputs = f, inputs
        self._slopes: dict[tuple, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def between_slopes(
        self,
        k: int,
        y_bar: np.ndarray,
        got: np.ndarray,
        expected: np.ndarray,
        bound: np.ndarray,
    ) -> tuple[np.ndarray, int, str]:
        """``expected`` with each disagreeing element at a kink replaced by the closest subgradient.

        Args:
            k: the input whose cotangent ``got`` is.
            y_bar: the cotangent of the result.
            got, expected, bound: of the shape of input k.

        Returns:
            The expected cotangent, how many elements lie at kinks, and why these are none together.
        """
        with np.errstate(all="ignore"):
            off = np.argwhere(~(np.abs(got - expected) <= bound))
        accepted, kinks = expected.copy(), []
        for where in map(tuple, off):
            low, high, kink = self._range(k, y_bar, (where,), np.ones(1))
            if kink and np.isfinite(got[where]):
                kinks.append(where)
                slack = _SLACK * (high - low)
                accepted[where] = np.clip(got[where], low - slack, high + slack)
            if len(off) > _MANY and accepted[where] != got[where]:
                return expected, 0, ""
        why = self._apart(k, y_bar, got, bound, kinks)
        return (expected, 0, why) if why else (accepted, len(kinks), "")

    def _apart(
        self, k: int, y_bar: np.ndarray, got: np.ndarray, bound: np.ndarray, kinks: list[tuple]
    ) -> str:
        """Why what these elements of ``got`` are together is of no subgradient; empty if it may be.

        Its product with any way in which they are moved lies between the slopes that way. The first
        way is that of all alike.
        """
        if len(kinks) < 2:
            return ""
        at = tuple(np.array(kinks).T)
        rng = np.random.default_rng(0)
        for signs in [np.ones(len(kinks)), *rng.choice([-1.0, 1.0], (_WAYS - 1, len(kinks)))]:
            low, high, _ = self._range(k, y_bar, tuple(kinks), signs)
            total = float((signs * got[at]).sum())
            slack = _SLACK * max(abs(low), abs(high)) + bound[at].sum()
            if not low - slack <= total <= high + slack:
                may = f"{low:.6g}" if high - low <= slack else f"{low:.6g} to {high:.6g}"
                what = f"{len(kinks)} elements tie: together they"
                if (signs < 0).any():
                    what = f"{len(kinks)} elements have kinks in common: with signs they"
                return f"{what} get {total:.6g}, and may get {may}"
        return ""

    def _range(
        self, k: int, y_bar: np.ndarray, places: tuple[tuple, ...], signs: np.ndarray
    ) -> tuple[float, float, bool]:
        """The least and the most slope of <y_bar, f> with these elements moved, and if any jumps.

        Each element of f takes its own one of the two.
        """
        key = k, places, signs.tobytes()
        if key not in self._slopes:
            self._slopes[key] = self._one_sided(k, places, signs)
        left, right, kink = self._slopes[key]
        with np.errstate(all="ignore"):
            ends = y_bar * left, y_bar * right
            low, high = float(np.minimum(*ends).sum()), float(np.maximum(*ends).sum())
        return low, high, bool((kink & (y_bar != 0)).any() and np.isfinite(high - low))

    @cached_property
    def _wide(self) -> list[np.ndarray]:
        return working_precision(self.f, self.inputs)[0]

    def _one_sided(
        self, k: int, places: tuple[tuple, ...], signs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = self._wide[k]
        way = np.zeros(x.shape)
        for where, sign in zip(places, signs, strict=True):
            way[where] = sign

        def along(t: float) -> np.ndarray:
            return np.asarray(self.f(*self._wide[:k], x + t * way, *self._wide[k + 1 :]))

        with np.errstate(all="ignore"):
            y = along(0.0)
            digit = float(np.finfo(y.dtype).eps)
            size = min(abs(float(x[where])) or 1.0 for where in places)
            return one_sided_slopes(along, size, digit, digit * np.abs(y))
