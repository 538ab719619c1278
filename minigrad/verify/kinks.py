"""At a kink every slope between the one-sided ones is a subgradient, or between those nearby."""

from collections.abc import Callable, Sequence

import numpy as np

_MANY = 32  # elements that disagree: where so many do, one that is no kink shows a fault
_SIGNS = 3  # ways in which elements at kinks are moved together
_SLACK = 1e-5  # of a slope that is known to fewer digits than a derivative
_APART = 2.0**18, 2.0**36  # digits between values that tied; of a bend, or rounding, one shows less
_ORDERS = (1, 0, True), (1, 64, False), (-1, 64, False)  # of what _nearby tries
_PLACES = 32  # among them that an element is moved to, at most, besides its own

Slopes = tuple[np.ndarray, np.ndarray, np.ndarray]  # of one side, of the other, whether they jump


class Kinks:
    """The kinks of a function at a point, each looked for once.

    Each element of the result may have a subgradient of its own, as each unit of a layer has:
    the slopes are those of the elements, and not of what a cotangent makes of them.

    Args:
        f: plain arrays -> array.
        inputs: the point, in the precision of the differences.
        noise: what each element of f rounds there.
    """

    def __init__(
        self, f: Callable[..., np.ndarray], inputs: Sequence[np.ndarray], noise: np.ndarray
    ):
        self.f, self.inputs, self.noise = f, inputs, noise
        self._slopes: dict[tuple, Slopes] = {}

    @np.errstate(all="ignore")
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
        off = np.argwhere(~(np.abs(got - expected) <= bound))
        accepted, kinks = expected.copy(), []
        for where in map(tuple, off):
            for slopes in (self._one_sided, self._nearby):
                low, high, kink = self._range(slopes, k, y_bar, self._way(k, [where]))
                if kink and np.isfinite(got[where]):
                    slack = _SLACK * (high - low)
                    accepted[where] = np.clip(got[where], low - slack, high + slack)
                if accepted[where] == got[where]:
                    kinks.append(where)
                    break
            if len(off) > _MANY and accepted[where] != got[where]:
                return expected, 0, ""
        why = self._not_together(k, y_bar, got, bound, kinks)
        return (expected, 0, why) if why else (accepted, len(kinks), "")

    def _not_together(
        self, k: int, y_bar: np.ndarray, got: np.ndarray, bound: np.ndarray, kinks: list[tuple]
    ) -> str:
        """Why what these elements of ``got`` are together is of no subgradient; empty if it may be.

        Its product with any way in which they are moved lies between the slopes that way, as that
        of each alone does; of kinks that have no element of f in common it follows from that.
        """
        if len(kinks) < 2:
            return ""
        x = self.inputs[k]
        tied = np.isin(x, [x[where] for where in kinks]).astype(float)
        signed = np.random.default_rng(0).choice([-1.0, 1.0], (_SIGNS, len(kinks)))
        low = high = 0.0
        for way in [tied, *(self._way(k, kinks, signs) for signs in signed)]:
            ties, moved = way is tied, way != 0
            total, room = float((way * got)[moved].sum()), bound[moved].sum()
            for slopes in (self._one_sided, self._nearby) if ties else (self._one_sided,):
                low, high, _ = self._range(slopes, k, y_bar, way)
                slack = _SLACK * max(abs(low), abs(high)) + room
                if low - slack <= total <= high + slack:
                    break
            else:
                if not ties and self._turns(k, kinks):
                    return ""  # there may be more subgradients than are known
                may = f"{low:.6g}" if high - low <= slack else f"{low:.6g} to {high:.6g}"
                what = "tie: together they" if ties else "have kinks in common: with signs they"
                return f"{moved.sum()} elements {what} get {total:.6g}, and may get {may}"
        return ""

    def _turns(self, k: int, kinks: list[tuple]) -> bool:
        """Whether an element of f turns up at one kink and down at another, or slopes nearby lie
        beyond the one-sided ones, as that of a middle value does."""
        left, right, kink, low, high, _ = (
            np.array([self._known(slopes, k, self._way(k, [where]))[i] for where in kinks])
            for slopes in (self._one_sided, self._nearby)
            for i in range(3)
        )
        turn = (right - left) * kink
        beyond = (low < np.minimum(left, right)) | (high > np.maximum(left, right))
        return bool(((turn > 0).any(axis=0) & (turn < 0).any(axis=0)).any() or beyond.any())

    def _range(
        self, slopes: Callable[..., Slopes], k: int, y_bar: np.ndarray, way: np.ndarray
    ) -> tuple[float, float, bool]:
        """The least and the most slope of <y_bar, f> that way, and if any jumps.

        Each element of f takes its own one of the two.
        """
        one, other, kink = self._known(slopes, k, way)
        ends = y_bar * one, y_bar * other
        low, high = float(np.minimum(*ends).sum()), float(np.maximum(*ends).sum())
        return low, high, bool((kink & (y_bar != 0)).any() and np.isfinite(high - low))

    def _known(self, slopes: Callable[..., Slopes], k: int, way: np.ndarray) -> Slopes:
        key = slopes.__name__, k, way.tobytes()
        if key not in self._slopes:
            self._slopes[key] = slopes(k, way)
        return self._slopes[key]

    def _way(self, k: int, places: Sequence[tuple], signs: np.ndarray | float = 1.0) -> np.ndarray:
        """A direction in which only these elements of input k are moved."""
        way = np.zeros(self.inputs[k].shape)
        way[tuple(np.array(places).T)] = signs
        return way

    def _along(self, k: int, way: np.ndarray) -> tuple[Callable[..., np.ndarray], float]:
        """``(t, point) -> f`` at the point with input k moved by t that way; the size of that."""
        xs = self.inputs

        def along(t: float, point: Sequence[np.ndarray] = xs) -> np.ndarray:
            return np.asarray(self.f(*point[:k], point[k] + t * way, *point[k + 1 :]))

        return along, float(_sizes(xs[k])[way != 0].min())

    def _one_sided(self, k: int, way: np.ndarray) -> Slopes:
        """The slopes of each element of f to the left and to the right."""
        return one_sided_slopes(*self._along(k, way))

    def _nearby(self, k: int, way: np.ndarray) -> Slopes:
        """The least and the most of these and, where they are beyond, of slopes at points nearby.

        Limits of those are subgradients, too. Equal values are there in order of their index, and
        those that are moved come anywhere among them; or other inputs are moved as well, and
        farther, to either side, as a bias where a row is zero.
        """
        left, right, kink = self._known(self._one_sided, k, way)
        xs, (along, size) = self.inputs, self._along(k, way)
        y, x, ranks = along(0.0), xs[k], _ranks(xs[k])
        digit, moved = float(np.finfo(y.dtype).eps), way != 0
        first, last = int(ranks[moved].min()), int(ranks[moved].max())
        among = np.arange(-last, (x == x[moved][0]).sum() - first + 1) + 0.5
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
        rounding = np.maximum(self.noise, digit * np.abs(y)) / (size * _APART[0] * digit / 4)
        error = 100 * rounding + 2**-10 * np.abs(found).max(axis=(0, 1))

        def persists(beyond: np.ndarray) -> np.ndarray:
            return (beyond.min(axis=0) > error) & (beyond.max(axis=0) < 2 * beyond.min(axis=0))

        least, most = np.minimum(left, right), np.maximum(left, right)
        lows, highs = np.swapaxes(found, 0, 1)  # of the smaller step, and of the larger one
        lower, higher = persists(least - lows), persists(highs - most)
        low, high = np.where(lower, lows[0], least), np.where(higher, highs[0], most)
        return low, high, kink | lower | higher


def one_sided_slopes(f: Callable[[float], np.ndarray], scale: float) -> Slopes:
    """Slopes of a function of one variable at 0 from the left and from the right.

    Args:
        f: the function; its value is an array.
        scale: the size of what its variable is added to.

    Returns:
        ``(left, right, kink)`` per element; ``kink`` says that both converged, to different values,
        and that their difference is there at every smaller step as well, as far as rounding lets it
        be seen.
    """
    steps, middle = scale * 2.0 ** -np.arange(8, 20), f(0.0)
    digit = float(np.finfo(middle.dtype).eps)
    noise = digit * np.abs(middle)
    right = np.stack([(f(h) - middle) / h for h in steps])
    left = np.stack([(middle - f(-h)) / h for h in steps])
    slopes, errors = [], []
    for ladder in (left, right):
        linear = 2 * ladder[1:] - ladder[:-1]  # cancels the curvature
        change = np.abs(np.diff(linear, axis=0))
        best = change.argmin(axis=0)[None]
        slopes.append(np.take_along_axis(linear, best + 1, 0)[0])
        rounding = 5 * noise / steps[best[0] + 2]
        errors.append(np.maximum(np.take_along_axis(change, best, 0)[0], rounding))
    jump, most = slopes[1] - slopes[0], np.abs(slopes).max(axis=0)
    kink = np.isfinite(jump) & (np.abs(jump) > np.maximum(100 * sum(errors), 1e-6 * most))
    # Within a sharp but smooth bend the jump shrinks with the step. What cancels inside f may round
    # 2^12 times as much as f itself; with steps above 2^16 digits that changes it by an eighth.
    for h in scale * 2.0 ** -np.arange(20, 64, 4):
        seen = kink & (8 * noise / h <= np.abs(jump) / 4)
        if h < 2**16 * digit * scale or not seen.any():
            break
        changed = np.abs((f(h) - 2 * middle + f(-h)) / h - jump) > np.abs(jump) / 2
        kink = kink & ~(seen & changed)
    return *slopes, kink


def _ranks(x: np.ndarray) -> np.ndarray:
    """1, 2, .. for each of several equal elements, in order of their index."""
    flat = x.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ranks = np.empty(flat.size)
    ranks[order] = 1 + np.arange(flat.size) - np.searchsorted(flat[order], flat[order])
    return ranks.reshape(x.shape)


def _sizes(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, 1, np.abs(x))
