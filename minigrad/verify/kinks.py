"""At a kink every slope between the one-sided ones is a subgradient, or between those nearby."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from minigrad.verify.numeric import one_sided_slopes, working_precision

_MANY = 32  # elements that disagree: where so many do, one that is no kink shows a fault
_WAYS = 3  # in which elements at kinks are moved together
_SLACK = 1e-5  # of a slope that is known to fewer digits than a derivative
_APART = 2.0**18, 2.0**36  # digits between values that tied; of a bend, or rounding, one shows less
_ORDERS = (1, 0, True), (-1, 0, False), (1, 64, False), (-1, 64, False)  # of what _nearby tries
_PLACES = 32  # among them that an element is moved to, at most, besides its own

Slopes = tuple[np.ndarray, np.ndarray, np.ndarray]  # of one side, of the other, whether they jump


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
        self._slopes: dict[tuple, Slopes] = {}

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
            for slopes in (self._one_sided, self._nearby):
                low, high, kink = self._range(slopes, k, y_bar, (where,))
                if kink and np.isfinite(got[where]):
                    slack = _SLACK * (high - low)
                    accepted[where] = np.clip(got[where], low - slack, high + slack)
                if accepted[where] == got[where]:
                    kinks.append(where)
                    break
            if len(off) > _MANY and accepted[where] != got[where]:
                return expected, 0, ""
        why = self._apart(k, y_bar, got, bound, kinks)
        return (expected, 0, why) if why else (accepted, len(kinks), "")

    def _apart(
        self, k: int, y_bar: np.ndarray, got: np.ndarray, bound: np.ndarray, kinks: list[tuple]
    ) -> str:
        """Why what these elements of ``got`` are together is of no subgradient; empty if it may be.

        Its product with any way in which they are moved lies between the slopes that way. Kinks
        that are each one's own move as much together as alone, and any of their slopes will do.
        """
        if len(kinks) < 2 or self._separate(k, kinks):
            return ""
        x = self._wide[0][k]
        equal = list(map(tuple, np.argwhere(np.isin(x, [x[where] for where in kinks]))))
        signed = np.random.default_rng(0).choice([-1.0, 1.0], (_WAYS, len(kinks)))
        low = high = 0.0
        for places, signs in [(equal, np.ones(len(equal))), *((kinks, one) for one in signed)]:
            at, together = tuple(np.array(places).T), places is equal
            total = float((signs * got[at]).sum())
            for slopes in (self._one_sided, self._nearby)[: 1 + together]:
                low, high, _ = self._range(slopes, k, y_bar, tuple(places), signs)
                slack = _SLACK * max(abs(low), abs(high)) + bound[at].sum()
                if low - slack <= total <= high + slack:
                    break
            else:
                if not together and self._turns(k, kinks):
                    return ""  # there may be more subgradients than are known
                may = f"{low:.6g}" if high - low <= slack else f"{low:.6g} to {high:.6g}"
                what = "tie: together they" if together else "have kinks in common: with signs they"
                return f"{len(places)} elements {what} get {total:.6g}, and may get {may}"
        return ""

    def _separate(self, k: int, kinks: list[tuple]) -> bool:
        """Whether these elements move f as much together as alone, to both sides."""
        together = np.array(self._known(self._one_sided, k, tuple(kinks))[:2])
        alone = [np.array(self._known(self._one_sided, k, (where,))[:2]) for where in kinks]
        apart, size = np.abs(together - sum(alone)), np.abs(alone).sum(axis=0).max(axis=0)
        return bool((apart <= _SLACK * size).all())

    def _turns(self, k: int, kinks: list[tuple]) -> bool:
        """Whether an element of f turns up at one kink and down at another, or slopes nearby lie
        beyond the one-sided ones, as that of a middle value does."""
        each = [self._known(self._one_sided, k, (where,)) for where in kinks]
        up, down = (np.any([side * (b - a) * kink > 0 for a, b, kink in each], axis=0)
                    for side in (1, -1))  # fmt: skip
        near = (self._known(self._nearby, k, (where,)) for where in kinks)
        return (up & down).any() or any(
            ((low < np.minimum(a, b)) | (high > np.maximum(a, b))).any()
            for (low, high, _), (a, b, _) in zip(near, each, strict=True)
        )

    def _range(
        self, slopes: Callable[..., Slopes], k: int, y_bar: np.ndarray,
        places: tuple[tuple, ...], signs: np.ndarray | None = None,
    ) -> tuple[float, float, bool]:  # fmt: skip
        """The least and the most slope of <y_bar, f> with these elements moved, and if any jumps.

        Each element of f takes its own one of the two.
        """
        one, other, kink = self._known(slopes, k, places, signs)
        with np.errstate(all="ignore"):
            ends = y_bar * one, y_bar * other
            low, high = float(np.minimum(*ends).sum()), float(np.maximum(*ends).sum())
        return low, high, bool((kink & (y_bar != 0)).any() and np.isfinite(high - low))

    def _known(
        self, slopes: Callable[..., Slopes], k: int, places: tuple[tuple, ...],
        signs: np.ndarray | None = None,
    ) -> Slopes:  # fmt: skip
        signs = np.ones(len(places)) if signs is None else signs
        key = slopes.__name__, k, places, signs.tobytes()
        if key not in self._slopes:
            with np.errstate(all="ignore"):
                self._slopes[key] = slopes(k, places, signs)
        return self._slopes[key]

    @cached_property
    def _wide(self) -> tuple[list[np.ndarray], np.ndarray]:
        return working_precision(self.f, self.inputs)

    def _along(
        self, k: int, places: tuple[tuple, ...], signs: np.ndarray
    ) -> tuple[Callable[..., np.ndarray], float]:
        """``(t, point) -> f`` there, with these elements moved by t; their size."""
        xs = self._wide[0]
        way = np.zeros(xs[k].shape)
        for where, sign in zip(places, signs, strict=True):
            way[where] = sign

        def along(t: float, point: Sequence[np.ndarray] = xs) -> np.ndarray:
            return np.asarray(self.f(*point[:k], point[k] + t * way, *point[k + 1 :]))

        return along, min(abs(float(xs[k][where])) or 1.0 for where in places)

    def _one_sided(self, k: int, places: tuple[tuple, ...], signs: np.ndarray) -> Slopes:
        """The slopes of each element of f to the left and to the right."""
        along, size = self._along(k, places, signs)
        y = along(0.0)
        digit = float(np.finfo(y.dtype).eps)
        return one_sided_slopes(along, size, digit, digit * np.abs(y))

    def _nearby(self, k: int, places: tuple[tuple, ...], signs: np.ndarray) -> Slopes:
        """The least and the most of these and, where they are beyond, of slopes at points nearby.

        Limits of those are subgradients, too. Equal values are there in order of their index, and
        those that are moved come anywhere among them; or the other way round; or other inputs are
        moved as well, and farther, as a bias where a row is zero.
        """
        left, right, kink = self._known(self._one_sided, k, places, signs)
        (xs, noise), (along, size) = self._wide, self._along(k, places, signs)
        y = along(0.0)
        digit, x, ranks = float(np.finfo(y.dtype).eps), xs[k], _ranks(xs[k])
        first, last = (int(end(ranks[where] for where in places)) for end in (min, max))
        among = np.arange(-last, (x == x[places[0]]).sum() - first + 1) + 0.5
        if len(among) > _PLACES:
            among = np.random.default_rng(0).choice(among, _PLACES, replace=False)
        found = []
        for step in np.array(_APART) * digit:
            h, quotients = size * step / 4, []
            for order, ahead, shifts in _ORDERS:
                point = [a + order * step * ahead * _sizes(a) for a in xs]
                point[k] = x + order * step * ranks * _sizes(x)
                for t in size * step * np.array([0, *among] if shifts else [0]):
                    quotients.append((along(t + h, point) - along(t - h, point)) / (2 * h))
            found.append((np.fmin.reduce(quotients), np.fmax.reduce(quotients)))
        rounding = np.maximum(noise, digit * np.abs(y)) / (size * _APART[0] * digit / 4)
        error = 100 * rounding + 2**-10 * np.abs(found).max(axis=(0, 1))
        least, most = np.minimum(left, right), np.maximum(left, right)
        below, above = ((side * (np.array(found)[:, i] - end)) for i, side, end in
                        ((0, -1, least), (1, 1, most)))  # fmt: skip
        lower, higher = ((part.min(axis=0) > error) & (part.max(axis=0) < 2 * part.min(axis=0))
                         for part in (below, above))  # fmt: skip
        low, high = np.where(lower, found[0][0], least), np.where(higher, found[0][1], most)
        return low, high, kink | lower | higher


def _ranks(x: np.ndarray) -> np.ndarray:
    """1, 2, .. for each of several equal elements, in order of their index."""
    flat = x.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ranks = np.empty(flat.size)
    ranks[order] = 1 + np.arange(flat.size) - np.searchsorted(flat[order], flat[order])
    return ranks.reshape(x.shape)


def _sizes(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, 1, np.abs(x))
