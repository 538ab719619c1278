"""Which cotangents are right at a kink.

At a kink the slopes of f to the left and to the right differ. Every number between them is a
subgradient and is accepted, and so is every number up to the limits of slopes at points nearby:
where values tie, the slopes differ with the order in which the ties are broken. Elements at kinks
are judged one by one and then together, by their sum along directions that move all of them.
"""

from collections.abc import Callable, Sequence

import numpy as np

_MANY = 32  # disagreeing elements; with more of them, the first that is at no kink ends the search
_SIGNS = 3  # random signs with which elements at kinks are moved together
_SLACK = 1e-5  # relative; slopes at a kink are known to fewer digits than a derivative
# How far tied values are moved apart, in units of eps. A slope at a kink is the same at both
# distances; the effect of a smooth bend, or of rounding, is not.
_APART = 2.0**26, 2.0**36
_NEAR = 2.0**-5  # the smaller distance, at most: in float32
# Points nearby, as (sign, steps, among): the sign breaks ties in order of the index or against it,
# the other inputs are moved by so many steps, and among says whether the elements of the direction
# also come to other places among their ties.
_NEARBY = (1, 0, True), (1, 64, False), (-1, 64, False)
_FARTHEST_TIE = 8  # so many steps, where other inputs move by 64: a bias outweighs many zeros
_PLACES = 32  # at most so many of these places, besides the element's own

Slopes = tuple[np.ndarray, np.ndarray, np.ndarray]  # two slopes per element of f, and is it a kink


class Kinks:
    """The kinks of a function at a point; slopes along each direction are computed once.

    Each element of the result may have a subgradient of its own, as each unit of a layer has:
    slopes are those of the elements of f, before a cotangent weights them.

    Args:
        f: plain arrays -> array.
        inputs: the point, in the precision of the differences.
        noise: the rounding noise of each element of f there.
    """

    def __init__(
        self, f: Callable[..., np.ndarray], inputs: Sequence[np.ndarray], noise: np.ndarray
    ):
        self.f, self.inputs, self.noise = f, inputs, noise
        self._cache: dict[tuple, Slopes] = {}

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
            The expected cotangent, the number of elements at kinks, and why those elements, each
            a subgradient, are no subgradient together (empty if they may be).
        """
        disagreeing = np.argwhere(~(np.abs(got - expected) <= bound))
        accepted, kinks = expected.copy(), []
        for index in map(tuple, disagreeing):
            for slopes in (self._one_sided, self._nearby):
                low, high, kink = self._range(slopes, k, y_bar, self._direction(k, [index]))
                if kink and np.isfinite(got[index]):
                    slack = _SLACK * (high - low)
                    accepted[index] = np.clip(got[index], low - slack, high + slack)
                if accepted[index] == got[index]:
                    kinks.append(index)
                    break
            if len(disagreeing) > _MANY and accepted[index] != got[index]:
                return expected, 0, ""
        why = self._not_together(k, y_bar, got, bound, kinks)
        return (expected, 0, why) if why else (accepted, len(kinks), "")

    def _not_together(
        self, k: int, y_bar: np.ndarray, got: np.ndarray, bound: np.ndarray, kinks: list[tuple]
    ) -> str:
        """Why these elements of ``got`` are no subgradient together; empty if they may be one.

        Like each element alone, <direction, got> has to lie between the slopes along any direction
        that moves all of them. For kinks of different elements of f that follows by itself.
        """
        if len(kinks) < 2:
            return ""
        x = self.inputs[k]
        tied = np.isin(x, [x[index] for index in kinks]).astype(float)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (_SIGNS, len(kinks)))
        low = high = 0.0
        for direction in [tied, *(self._direction(k, kinks, each) for each in signs)]:
            is_tie, moved = direction is tied, direction != 0
            total, room = float((direction * got)[moved].sum()), bound[moved].sum()
            for slopes in (self._one_sided, self._nearby) if is_tie else (self._one_sided,):
                low, high, _ = self._range(slopes, k, y_bar, direction)
                slack = _SLACK * max(abs(low), abs(high)) + room
                if low - slack <= total <= high + slack:
                    break
            else:
                if not is_tie and self._turns(k, kinks):
                    return ""  # there may be subgradients beyond these slopes
                allowed = f"{low:.6g}" if high - low <= slack else f"{low:.6g} to {high:.6g}"
                what = "tie: their sum" if is_tie else "have kinks in common: their signed sum"
                return f"{moved.sum()} elements {what} is {total:.6g}, expected {allowed}"
        return ""

    def _turns(self, k: int, kinks: list[tuple]) -> bool:
        """Whether an element of f is convex at one kink and concave at another, or slopes nearby
        lie beyond the one-sided ones, as those of a median do."""
        left, right, kink, low, high, _ = (
            np.array([self._cached(slopes, k, self._direction(k, [index]))[i] for index in kinks])
            for slopes in (self._one_sided, self._nearby)
            for i in range(3)
        )
        bend = (right - left) * kink
        beyond = (low < np.minimum(left, right)) | (high > np.maximum(left, right))
        return bool(((bend > 0).any(axis=0) & (bend < 0).any(axis=0)).any() or beyond.any())

    def _range(
        self, slopes: Callable[..., Slopes], k: int, y_bar: np.ndarray, direction: np.ndarray
    ) -> tuple[float, float, bool]:
        """Smallest and largest slope of <y_bar, f> along a direction, and whether it has a kink.

        Each element of f contributes one of its own two slopes: the one that makes the sum smaller
        or larger, respectively.
        """
        first, second, kink = self._cached(slopes, k, direction)
        ends = y_bar * first, y_bar * second
        low, high = float(np.minimum(*ends).sum()), float(np.maximum(*ends).sum())
        return low, high, bool((kink & (y_bar != 0)).any() and np.isfinite(high - low))

    def _cached(self, slopes: Callable[..., Slopes], k: int, direction: np.ndarray) -> Slopes:
        key = slopes.__name__, k, direction.tobytes()
        if key not in self._cache:
            self._cache[key] = slopes(k, direction)
        return self._cache[key]

    def _direction(
        self, k: int, indices: Sequence[tuple], signs: np.ndarray | float = 1.0
    ) -> np.ndarray:
        """The direction that moves these elements of input k, and no others."""
        direction = np.zeros(self.inputs[k].shape)
        direction[tuple(np.array(indices).T)] = signs
        return direction

    def _along(self, k: int, direction: np.ndarray) -> tuple[Callable[..., np.ndarray], float]:
        """``(t, point) -> f`` with input k moved by t times a direction, and the scale of t: the
        smallest element that is moved."""
        xs = self.inputs

        def along(t: float, point: Sequence[np.ndarray] = xs) -> np.ndarray:
            return np.asarray(self.f(*point[:k], point[k] + t * direction, *point[k + 1 :]))

        return along, float(_sizes(xs[k])[direction != 0].min())

    def _one_sided(self, k: int, direction: np.ndarray) -> Slopes:
        """The slopes of each element of f to the left and to the right."""
        return one_sided_slopes(*self._along(k, direction))

    def _nearby(self, k: int, direction: np.ndarray) -> Slopes:
        """Smallest and largest of the one-sided slopes and, if beyond these, of those nearby.

        Limits of slopes at points nearby are subgradients, too. There, values that tie are moved
        apart in order of their index, and the elements of the direction come anywhere among their
        ties; or the other inputs are moved as well and farther, to either side, such as a bias
        where a row is zero.
        """
        left, right, kink = self._cached(self._one_sided, k, direction)
        xs, (along, size) = self.inputs, self._along(k, direction)
        y, x, ranks = along(0.0), xs[k], _ranks(xs[k])
        eps, moved = float(np.finfo(y.dtype).eps), direction != 0
        first, last = int(ranks[moved].min()), int(ranks[moved].max())
        places = np.arange(-last, (x == x[moved][0]).sum() - first + 1) + 0.5
        if len(places) > _PLACES:
            places = np.random.default_rng(0).choice(places, _PLACES, replace=False)
        distances = min(_APART[0] * eps, _NEAR), _APART[1] * eps
        extremes = []  # for each of them: smallest and largest slope
        for step in distances:
            h, quotients = size * step / 4, []
            for sign, steps, among in _NEARBY:
                point = [a + sign * step * steps * _sizes(a) for a in xs]
                apart = ranks if among else ranks * min(1, _FARTHEST_TIE / ranks.max())
                point[k] = x + sign * step * apart * _sizes(x)
                for t in size * step * np.array([0, *places] if among else [0]):
                    quotients.append((along(t + h, point) - along(t - h, point)) / (2 * h))
            extremes.append((np.fmin.reduce(quotients), np.fmax.reduce(quotients)))
        rounding = np.maximum(self.noise, eps * np.abs(y)) / (size * distances[0] / 4)
        error = 100 * rounding + 2**-10 * np.abs(extremes).max(axis=(0, 1))

        def persists(beyond: np.ndarray) -> np.ndarray:
            """Where slopes are beyond the one-sided ones by about the same at both distances."""
            return (beyond.min(axis=0) > error) & (beyond.max(axis=0) < 2 * beyond.min(axis=0))

        smaller, larger = np.minimum(left, right), np.maximum(left, right)
        lows, highs = np.swapaxes(extremes, 0, 1)
        lower, higher = persists(smaller - lows), persists(highs - larger)
        low, high = np.where(lower, lows[0], smaller), np.where(higher, highs[0], larger)
        return low, high, kink | lower | higher


def one_sided_slopes(f: Callable[[float], np.ndarray], scale: float) -> Slopes:
    """Slopes of a function of one variable at 0 from the left and from the right.

    Difference quotients at steps that halve are extrapolated linearly; the estimate that changes
    least from one step to the next is the slope, and its change the error.

    Args:
        f: the function; its value is an array.
        scale: the size of the number that the variable is added to.

    Returns:
        ``(left, right, kink)`` per element. At a kink both slopes converged to different values,
        and their difference persists at every smaller step at which rounding lets it be seen.
    """
    steps, middle = scale * 2.0 ** -np.arange(8, 20), f(0.0)
    eps = float(np.finfo(middle.dtype).eps)
    noise = eps * np.abs(middle)
    right = np.stack([(f(h) - middle) / h for h in steps])
    left = np.stack([(middle - f(-h)) / h for h in steps])
    slopes, errors = [], []
    for quotients in (left, right):
        linear = 2 * quotients[1:] - quotients[:-1]  # cancels the curvature
        change = np.abs(np.diff(linear, axis=0))
        best = change.argmin(axis=0)[None]
        slopes.append(np.take_along_axis(linear, best + 1, 0)[0])
        rounding = 5 * noise / steps[best[0] + 2]
        errors.append(np.maximum(np.take_along_axis(change, best, 0)[0], rounding))
    jump, size = slopes[1] - slopes[0], np.abs(slopes).max(axis=0)
    kink = np.isfinite(jump) & (np.abs(jump) > np.maximum(100 * sum(errors), 1e-6 * size))
    # Within a sharp but smooth bend the jump shrinks with the step. Cancellation inside f may
    # amplify rounding by 2^12; at steps above 2^16 eps that changes the jump by an eighth.
    for h in scale * 2.0 ** -np.arange(20, 64, 4):
        seen = kink & (8 * noise / h <= np.abs(jump) / 4)
        if h < 2**16 * eps * scale or not seen.any():
            break
        changed = np.abs((f(h) - 2 * middle + f(-h)) / h - jump) > np.abs(jump) / 2
        kink = kink & ~(seen & changed)
    return *slopes, kink


def _ranks(x: np.ndarray) -> np.ndarray:
    """The rank of each element among its equals, 1, 2, .., in order of their index."""
    flat = x.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ranks = np.empty(flat.size)
    ranks[order] = 1 + np.arange(flat.size) - np.searchsorted(flat[order], flat[order])
    return ranks.reshape(x.shape)


def _sizes(x: np.ndarray) -> np.ndarray:
    """What a step is relative to: the absolute value, and 1 for a zero."""
    return np.where(x == 0, 1, np.abs(x))
