"""What is wrong in a backward as a linear map of ``y_bar``, whatever the function is.

It is none; the cotangents of two inputs are exchanged; the Jacobian is not transposed; another
operand is multiplied by, or a wrong axis is summed; a path between elements is missing; a part of
``y_bar`` is not used; each element has a factor of its own; something reaches another place.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np

from minigrad.verify.fit import close, factor_text
from minigrad.verify.reference import Expected
from minigrad.verify.subject import Subject

_POSITIONS = 8  # outputs whose cotangents are followed one by one
_NOTHING = 1e-6  # of the largest element of a cotangent: what differences may leave of a 0


def explain(
    subject: Subject,
    k: int,
    y_bar: np.ndarray,
    got: np.ndarray,
    right: list[np.ndarray],
    tolerance: float,
    expected_of: Callable[[np.ndarray], Expected],
) -> str:
    """Why the cotangents of input ``k`` are wrong; empty where nothing fits.

    Args:
        subject: the pair and its point.
        k: an input.
        y_bar: (S, \\*y.shape), cotangents of y.
        got: (S, \\*shape of input k), what came of each.
        right: per input, (S, \\*its shape), what should have come.
        tolerance: how far an explanation may be off, relative to the largest element.
        expected_of: the cotangents of all inputs for any ``y_bar``, as they should be.
    """
    for j, name in enumerate(subject.names):
        if j != k and close(right[j], got, tolerance):
            return f"it is the cotangent of {name}: operands or cotangents in another order"
    it_is = product(subject, y_bar, got, tolerance)
    flow = _flow(subject, k, y_bar.shape[1:], expected_of) if k == 0 else ""
    return (
        "; ".join(filter(None, (it_is, flow)))
        or (_averaged(subject, y_bar.shape[1:], tolerance, expected_of) if k == 0 else "")
        or _part(k, y_bar, got, tolerance, expected_of)
        or _scaled(subject, got, right[k])
    )


def nonlinear(
    subject: Subject, k: int, y_bar: np.ndarray, got: np.ndarray, tolerance: float
) -> str:
    """got is no linear function of y_bar, as every cotangent is."""
    twice, opposite = (np.asarray(subject.pull(c * y_bar[0])[k], np.float64) for c in (2, -1))
    if close(twice, 4 * got[0], tolerance):
        return "not linear in y_bar, but quadratic: one cotangent is multiplied by another"
    linear = close(-opposite, got[0], tolerance) and close(twice, 2 * got[0], tolerance)
    if not linear:
        return "not linear in y_bar: a mask, an order or a size is taken from it"
    return ""


def product(subject: Subject, y_bar: np.ndarray, got: np.ndarray, tolerance: float) -> str:
    """got = sum(y_bar * operand, axes), for an operand of the call, y or none."""
    operands = {"": np.float64(1), **dict(zip(subject.names, subject.inputs, strict=True))}
    operands["y"] = np.asarray(subject.run()[0])
    for name, operand in operands.items():
        try:
            products = np.broadcast_to(y_bar * operand, y_bar.shape)
        except ValueError:  # it has another shape
            continue
        for axes in _subsets(y_bar.ndim - 1):
            sums = products.sum(axis=tuple(i + 1 for i in axes))
            if sums.size == got.size and close(sums.reshape(got.shape), got, tolerance):
                what = f"y_bar * {name}" if name else "y_bar"
                what = f"the sum of {what} over {_written(axes)}" if axes else what
                return f"it is {what}" + ", reshaped" * (not axes and sums.shape != got.shape)
    return ""


def _subsets(ndim: int) -> Iterator[tuple[int, ...]]:
    for n in range(ndim + 1):
        yield from combinations(range(ndim), n)


def untransposed(
    subject: Subject, k: int, y_bar: np.ndarray, got: np.ndarray, tolerance: float
) -> str:
    """got = J y_bar where J^T y_bar is asked for: the forward's own operation."""
    if y_bar.shape != got.shape:
        return ""
    x = subject.inputs[k]
    step = 1e-3 * np.abs(x).max(initial=1e-30) / np.abs(y_bar).max(initial=1e-30)

    def slope(h: float, way: np.ndarray) -> Any:
        ends = [[*subject.inputs[:k], x + t * way, *subject.inputs[k + 1 :]] for t in (h, -h)]
        return (subject.value(*ends[0]) - subject.value(*ends[1])) / (2 * h)

    along = [(4 * slope(step / 2, way) - slope(step, way)) / 3 for way in y_bar]
    fits = close(np.stack(along), got, tolerance)
    return "not transposed: it is J y_bar, not J^T y_bar, as y_bar @ w is for y_bar @ w.T" * fits


def _flow(
    subject: Subject, k: int, shape: tuple[int, ...], expected_of: Callable[[np.ndarray], Expected]
) -> str:
    """The axes along which an element of y_bar reaches other elements, and those it should."""
    if subject.inputs[k].shape != shape:
        return ""
    got: set[int] = set()
    right: set[int] = set()
    for own in _spread(shape):
        reached = _reached(subject, k, shape, own, expected_of)
        for axes, places in zip((right, got), reached, strict=True):
            away = places != own
            axes.update(np.flatnonzero(away.any(axis=0)).tolist())
    missing, extra = right - got, got - right
    if missing and extra:
        return f"y_bar is mixed along {_written(extra)}, not along {_written(missing)}"
    if missing:
        return f"paths between elements along {_written(missing)} are missing"
    return f"y_bar is mixed along {_written(extra)}, too" if extra else ""


def _averaged(
    subject: Subject,
    shape: tuple[int, ...],
    tolerance: float,
    expected_of: Callable[[np.ndarray], Expected],
) -> str:
    """What elements of y_bar give to others is a mean for a sum, or a sum for a mean."""
    if subject.inputs[0].shape != shape:
        return ""
    right, got = [], []
    for own in _spread(shape):
        one_hot = _one_hot(shape, own, subject.dtype)
        others = np.ones(shape, bool)
        others[own] = False
        right.append(np.asarray(expected_of(one_hot).values[0], np.float64)[others])
        got.append(np.asarray(subject.pull(one_hot)[0], np.float64)[others])
    where = "in the paths between elements: perhaps"
    for n in set(shape) - {1}:
        if close(np.stack(right) / n, np.stack(got), tolerance):
            return f"factor 1/{n} {where} a sum became a mean"
        if close(np.stack(right) * n, np.stack(got), tolerance):
            return f"factor {n} {where} a mean became a sum"
    return ""


def _spread(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Some positions, from the first to the last."""
    for position in np.unique(np.linspace(0, np.prod(shape) - 1, _POSITIONS, dtype=int)):
        yield tuple(int(i) for i in np.unravel_index(position, shape))


def _part(
    k: int,
    y_bar: np.ndarray,
    got: np.ndarray,
    tolerance: float,
    expected_of: Callable[[np.ndarray], Expected],
) -> str:
    """got is what a part of y_bar gives: the last of a loop that overwrites, say."""
    parts = {"the first": slice(0, 1), "the last": slice(-1, None), "all but the first":
             slice(1, None), "all but the last": slice(0, -1)}  # fmt: skip
    for axis in range(y_bar.ndim - 1):
        for name, part in parts.items() if y_bar.shape[axis + 1] > 1 else ():
            at = (*(slice(None),) * axis, part)
            masked = np.zeros_like(y_bar)
            for one, whole in zip(masked, y_bar, strict=True):
                one[at] = whole[at]
            values = [np.asarray(expected_of(one).values[k], np.float64) for one in masked]
            if close(np.stack(values), got, tolerance):
                return f"only {name} of y_bar along axis {axis} counts: = for +=, or a slice"
    return ""


def _factors(got: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Elements and factors less 1, in all digits, if got = c * expected for every y_bar."""
    least = _NOTHING * np.abs(expected).max(initial=0)
    known = (np.abs(expected) > least).all(axis=0)
    if len(got) < 2 or not known.any() or (np.abs(got) > least)[:, ~known].any():
        return None
    off = (got - expected)[:, known] / expected[:, known]
    return (known, off[0]) if close(off[0], off[1], 1e-3) else None


def _scaled(subject: Subject, got: np.ndarray, expected: np.ndarray) -> str:
    """got = c * expected where c is zero for some elements, or a power of an input."""
    known, off = _factors(got, expected) or (None, None)
    if known is None or off is None:
        return ""
    kept, missing = np.abs(off) < _NOTHING, np.abs(off + 1) < _NOTHING
    if missing.any() and (kept | missing).all():
        first = [int(i) for i in np.argwhere(known)[missing][0]]
        return f"zero in {missing.sum()} of {missing.size} elements, the first is {first}"
    for name, operand in zip(subject.names, subject.inputs, strict=True):
        for power, form in (1, "{}"), (-1, "1/{}"), (2, "{}^2"), (-2, "1/{}^2"):
            if operand.shape == known.shape and operand[known].all():
                rest = (1 + off) / np.asarray(operand[known], np.float64) ** power
                if rest.size > 1 and np.ptp(rest) <= 1e-6 * np.abs(rest).max():
                    return f"factor {form.format(name)} in each element"
    return ""


def local(
    subject: Subject, k: int, y_bar: np.ndarray, got: np.ndarray, expected: np.ndarray
) -> str:
    """got = c * expected with a factor c per element that is the same for every y_bar."""
    known, off = _factors(got, expected) or (None, None)
    if known is None or off is None or y_bar.shape != got.shape:  # any is, of few outputs
        return ""
    worst = tuple(np.argwhere(known)[np.abs(off).argmax()])
    right, came = (bars[(..., *worst)] / y_bar[(..., *worst)] for bars in (expected, got))
    most = float(off[np.abs(off).argmax()])
    if close(right[:1], right[1:2], 1e-3):
        digits = max(4, 2 - int(np.floor(np.log10(abs(most)))))  # in which they differ
        it_is = f"{came[0]:.{digits}g} at {subject.inputs[k][worst]:.4g}"
        return f"the local derivative is wrong: {it_is}, where it is {right[0]:.{digits}g}"
    place = f"{factor_text(most)} at {[int(i) for i in worst]}"
    return f"a factor in each element, the same for every y_bar, such as {place}"


def reach(
    subject: Subject, k: int, shape: tuple[int, ...], expected_of: Callable[[np.ndarray], Expected]
) -> str:
    """Which elements one element of y_bar reaches, and which it should."""
    for own in _spread(shape):
        reached = _reached(subject, k, shape, own, expected_of)
        right, got = ({tuple(place) for place in places.tolist()} for places in reached)
        y, x, missing, extra = list(own), subject.names[k], right - got, got - right
        if missing and extra:
            return f"y_bar{y} must reach {_listed(right)} of {x}_bar, and reaches {_listed(got)}"
        if extra:
            off = f"y{y} does not depend on {_listed(extra)} of {x}, which y_bar{y} reaches"
            return f"{off}: a mask, an index or an axis is wrong"
        if missing:
            off = f"y_bar{y} does not reach {_listed(missing)} of {x}_bar, as it should"
            return f"{off}: a path is missing, or = stands for +="
    return ""


def _reached(
    subject: Subject,
    k: int,
    shape: tuple[int, ...],
    own: tuple,
    expected_of: Callable[[np.ndarray], Expected],
) -> tuple[np.ndarray, np.ndarray]:
    """Where the cotangent of input ``k`` must not be 0 for a ``y_bar`` of 0 but at ``own``, and
    where it is not: (elements, axes) each."""
    one_hot = _one_hot(shape, own, subject.dtype)
    expected = expected_of(one_hot)
    right = np.abs(expected.values[k]) > expected.bounds[k]
    return np.argwhere(right), np.argwhere(np.asarray(subject.pull(one_hot)[k]))


def _one_hot(shape: tuple[int, ...], own: tuple, dtype: np.dtype) -> np.ndarray:
    one_hot = np.zeros(shape, dtype)
    one_hot[own] = 1
    return one_hot


def _listed(places: set[tuple[int, ...]]) -> str:
    shown = ", ".join(str(list(place)) for place in sorted(places)[:3])
    return f"{shown} and {len(places) - 3} more" if len(places) > 3 else shown


def _written(axes: Any) -> str:
    numbers = " and ".join(str(axis) for axis in sorted(axes))
    return f"{'axes' if len(axes) > 1 else 'axis'} {numbers}"
