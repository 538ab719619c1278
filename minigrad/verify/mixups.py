"""Mistakes that show in the values of a backward alone, whatever the function is.

A right backward is linear in ``y_bar``: ``x_bar = J^T y_bar``. Each function here supposes some
mistake in that map and compares the outcome with the actual cotangents. It returns the text of the
mistake, or an empty text where none fits:

* ``untransposed``: the map is J; ``nonlinear``: there is no such map,
* ``explain``: the cotangent of another input; a product with a wrong operand, or a sum over wrong
  axes; paths between elements that are missing, or a mean for a sum; a part of ``y_bar`` that is
  not used; elements that are 0, or have an input as a factor,
* ``permuted``: the right numbers are in the wrong places,
* ``moved``: an operand is reversed or transposed,
* ``local``: each element has a factor of its own,
* ``reach``: an element of ``y_bar`` reaches other elements than it should.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import combinations, permutations

import numpy as np

from minigrad.verify.case import Case, Hypothesis
from minigrad.verify.fit import POWERS, axes_text, close, factor_text
from minigrad.verify.subject import BackwardFailed, ForwardFailed, NoPair, Subject

_ZERO = 1e-6  # relative to the largest element of a cotangent; differences do not give exact zeros
_MOST_AXES = 4  # of an array whose axes are tried in every order
_MOST_SHOWN = 12  # elements of an order
_MOST_DIFFERENCES = 1e7  # between the elements of two arrays along an axis


def explain(case: Case) -> str:
    """The mistake in a map that is linear; empty where none fits."""
    is_map_of_x = case.k == 0 and case.got.shape == case.y_bar.shape
    return (
        case.cause_in(_of_other_inputs(case))
        or "; ".join(filter(None, (product(case), _mixed_axes(case) if is_map_of_x else "")))
        or (_mean_for_sum(case) if is_map_of_x else "")
        or case.cause_in(_part_of_y_bar(case))
        or _factor_of_input(case)
    )


def _of_other_inputs(case: Case) -> Iterator[Hypothesis]:
    for j, name in enumerate(case.subject.names):
        if j != case.k:
            text = f"it is the cotangent of {name}: operands or cotangents in the wrong order"
            yield text, case.right[j]


def moved(case: Case) -> str:
    """got would be right if an input or y_bar were reversed, or had two axes exchanged.

    The pair itself is called with such an operand, which its backward then reads as it should be.
    For the right backward the reverse holds: with such an input it would give ``got``.
    """
    subject, y_bar = case.subject, list(case.y_bar)
    for i, (name, x) in enumerate(zip(subject.names, subject.inputs, strict=True)):
        for words, move in _moves(x.shape):
            before, after = subject.inputs[:i], subject.inputs[i + 1 :]
            there = subject.at([*before, move(x).copy(), *after])
            if _is_right(case, there, y_bar) and _would_give_got(case, there):
                return words.format(name)
    for words, move in _moves(y_bar[0].shape):
        if _is_right(case, subject, [move(each).copy() for each in y_bar]):
            return words.format("y_bar")
    return ""


def _is_right(case: Case, there: Subject, y_bars: list[np.ndarray]) -> bool:
    """Whether the pair gives the expected cotangents at another point, or for other ``y_bar``."""
    with suppress(BackwardFailed, ForwardFailed, NoPair):  # it may be undefined there
        for y_bar, expected in zip(y_bars, case.expected, strict=True):
            got = np.asarray(there.pull(y_bar)[case.k], np.float64)
            if not close(got, expected, case.tolerance):
                return False
        return True
    return False


def _would_give_got(case: Case, there: Subject) -> bool:
    """Whether ``got`` is right at another point, seen along a random direction."""
    v = np.random.default_rng(0).normal(size=case.got[0].shape)
    slope = _slope(there, case.k, v)
    expected = np.tensordot(case.y_bar, slope, slope.ndim)
    return close(expected, np.tensordot(case.got, v, v.ndim), case.tolerance)


def _moves(shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Ways to move the elements of an array to other places of the same shape, with their texts."""
    longer = [i for i, n in enumerate(shape) if n > 1]
    for n in range(1, len(longer) + 1):
        for axes in combinations(longer, n):
            words = f"a flip is missing or extra: right for {{}} reversed along {axes_text(axes)}"
            yield words, partial(np.flip, axis=axes)
    for a, b in combinations(longer, 2):
        if shape[a] == shape[b]:
            words = (
                f"a transpose is missing or extra: right for {{}} with axes {a} and {b} exchanged"
            )
            yield words, partial(np.swapaxes, axis1=a, axis2=b)


def permuted(expected: np.ndarray, got: np.ndarray) -> Iterator[Hypothesis]:
    """The right numbers in the wrong places; the first axis holds several cotangents."""
    axes = range(1, expected.ndim)
    pairs = list(combinations(axes, 2))
    for a, b in pairs:
        yield f"transposed: axes {a - 1} and {b - 1} are exchanged", np.swapaxes(expected, a, b)
    for axis in axes:
        yield f"reversed along axis {axis - 1}", np.flip(expected, axis)
        for shift in (1, -1):
            yield f"shifted along axis {axis - 1}", np.roll(expected, shift, axis)
    for a, b in pairs:
        yield f"reversed along axes {a - 1} and {b - 1}", np.flip(expected, (a, b))
    for order in permutations(axes) if len(axes) <= _MOST_AXES else ():
        text = f"reshaped with its axes in the order {[a - 1 for a in order]}"
        moved = expected.transpose(0, *order).reshape(expected.shape)
        yield f"{text}: a transpose is missing", moved
    for axis in axes:
        order = _order(np.moveaxis(expected, axis, 0), np.moveaxis(got, axis, 0))
        if order and order != sorted(order):
            shown = str(order[:_MOST_SHOWN])[:-1] + (", ...]" if order[_MOST_SHOWN:] else "]")
            yield f"in another order along axis {axis - 1}: {shown}", np.take(expected, order, axis)


def _order(expected: np.ndarray, got: np.ndarray) -> list[int]:
    """Which element of ``expected`` each one of ``got`` is, or is nearest to; empty if two are the
    same, or if there are too many."""
    if expected.shape != got.shape or len(got) * got.size > _MOST_DIFFERENCES:
        return []
    n = len(got)
    nearest = [int(np.abs(expected - one).reshape(n, -1).max(axis=1).argmin()) for one in got]
    return nearest if len(set(nearest)) == n else []


def nonlinear(case: Case) -> str:
    """got is no linear function of y_bar, as every cotangent is."""
    twice, opposite = (
        np.asarray(case.subject.pull(c * case.y_bar[0])[case.k], np.float64) for c in (2, -1)
    )
    got, tolerance = case.got[0], case.tolerance
    if close(twice, 4 * got, tolerance):
        return "not linear in y_bar, but quadratic: one cotangent is multiplied by another"
    if close(-opposite, got, tolerance) and close(twice, 2 * got, tolerance):
        return ""
    return "not linear in y_bar: a mask, an order or a size depends on it"


def product(case: Case) -> str:
    """got = sum(y_bar * operand, axes), for an operand of the call, y or none."""
    return case.cause_in(_products(case))


def _products(case: Case) -> Iterator[Hypothesis]:
    subject, y_bar, shape = case.subject, case.y_bar, case.got.shape
    operands = {"": np.float64(1), **dict(zip(subject.names, subject.inputs, strict=True))}
    operands["y"] = np.asarray(subject.run()[0])
    for name, operand in operands.items():
        try:
            products = np.broadcast_to(y_bar * operand, y_bar.shape)
        except ValueError:  # it has another shape
            continue
        for axes in _subsets(y_bar.ndim - 1):
            sums = products.sum(axis=tuple(i + 1 for i in axes))
            if sums.size == case.got.size:
                what = f"y_bar * {name}" if name else "y_bar"
                what = f"the sum of {what} over {axes_text(axes)}" if axes else what
                reshaped = ", reshaped" * (not axes and sums.shape != shape)
                yield f"it is {what}{reshaped}", sums.reshape(shape)


def _subsets(ndim: int) -> Iterator[tuple[int, ...]]:
    for n in range(ndim + 1):
        yield from combinations(range(ndim), n)


def untransposed(case: Case) -> Iterator[Hypothesis]:
    """got = J y_bar where J^T y_bar is asked for: the forward's own operation.

    J y_bar is the derivative of the forward along y_bar, here by extrapolated differences.
    """
    if case.y_bar.shape == case.got.shape:
        text = "not transposed: it is J y_bar, not J^T y_bar, like y_bar @ w instead of y_bar @ w.T"
        yield text, np.stack([_slope(case.subject, case.k, each) for each in case.y_bar])


def _slope(subject: Subject, k: int, direction: np.ndarray) -> np.ndarray:
    """The derivative of the forward along a direction of input k, by extrapolated differences."""
    before, x, after = subject.inputs[:k], subject.inputs[k], subject.inputs[k + 1 :]
    step = 1e-3 * np.abs(x).max(initial=1e-30) / np.abs(direction).max(initial=1e-30)

    def slope(h: float) -> np.ndarray:
        right, left = (subject.value(*before, x + s * h * direction, *after) for s in (1, -1))
        return (right - left) / (2 * h)

    return (4 * slope(step / 2) - slope(step)) / 3


def _mixed_axes(case: Case) -> str:
    """y_bar is mixed along other axes than it should be."""
    right: set[int] = set()
    got: set[int] = set()
    for response in case.responses:
        for axes, places in zip((right, got), response.places, strict=True):
            axes.update(np.flatnonzero((places != response.position).any(axis=0)).tolist())
    missing, extra = right - got, got - right
    if missing and extra:
        return f"y_bar is mixed along {axes_text(extra)}, not along {axes_text(missing)}"
    if missing:
        return f"paths between elements along {axes_text(missing)} are missing"
    return f"y_bar is also mixed along {axes_text(extra)}" if extra else ""


def _mean_for_sum(case: Case) -> str:
    """Other elements of y_bar contribute a mean instead of a sum, or a sum instead of a mean."""
    shape = case.y_bar.shape[1:]
    at = [np.ravel_multi_index(response.position, shape) for response in case.responses]
    right, got = (
        np.stack([np.delete(x_bar, i) for x_bar, i in zip(x_bars, at, strict=True)])
        for x_bars in zip(*((r.expected, r.got) for r in case.responses), strict=True)
    )
    where = "in the paths between elements: perhaps"
    for n in set(shape) - {1}:
        if close(right / n, got, case.tolerance):
            return f"factor 1/{n} {where} a sum became a mean"
        if close(right * n, got, case.tolerance):
            return f"factor {n} {where} a mean became a sum"
    return ""


def _part_of_y_bar(case: Case) -> Iterator[Hypothesis]:
    """got is the cotangent of a part of y_bar: the last of a loop that overwrites, say."""
    y_bar, everything = case.y_bar, slice(None)
    parts = {"the first": slice(0, 1), "the last": slice(-1, None), "all but the first":
             slice(1, None), "all but the last": slice(0, -1)}  # fmt: skip
    for axis in range(y_bar.ndim - 1):
        for name, part in parts.items() if y_bar.shape[axis + 1] > 1 else ():
            index = (everything,) * (axis + 1) + (part,)
            masked = np.zeros_like(y_bar)
            masked[index] = y_bar[index]
            values = [np.asarray(case.expected_of(m).values[case.k], np.float64) for m in masked]
            text = f"only {name} of y_bar along axis {axis} counts: = instead of +=, or a slice"
            yield text, np.stack(values)


Factors = tuple[np.ndarray, np.ndarray]  # a mask of elements, and c - 1 of these, in all digits


def _deviations(case: Case) -> Factors | None:
    """The factor c of each element that is not 0, if got = c * expected for every ``y_bar``."""
    got, expected = case.got, case.expected
    zero = _ZERO * np.abs(expected).max(initial=0)
    nonzero = (np.abs(expected) > zero).all(axis=0)
    if len(got) < 2 or not nonzero.any() or (np.abs(got) > zero)[:, ~nonzero].any():
        return None
    deviation = (got - expected)[:, nonzero] / expected[:, nonzero]
    return (nonzero, deviation[0]) if close(deviation[0], deviation[1], 1e-3) else None


def _factor_of_input(case: Case) -> str:
    """got = c * expected where c is zero for some elements, or a power of an input."""
    factors = _deviations(case)
    if factors is None:
        return ""
    nonzero, deviation = factors
    is_right, is_missing = np.abs(deviation) < _ZERO, np.abs(deviation + 1) < _ZERO
    if is_missing.any() and (is_right | is_missing).all():
        first = [int(i) for i in np.argwhere(nonzero)[is_missing][0]]
        return f"zero in {is_missing.sum()} of {is_missing.size} elements, first at {first}"
    for name, x in zip(case.subject.names, case.subject.inputs, strict=True):
        for form, ratio in _ratios(factors, x) if x.size > 1 else ():
            if ratio.size > 1 and np.ptp(ratio) <= 1e-6 * np.abs(ratio).max():
                return f"factor {form.format(name)} in each element"
    return ""


def factor_of(case: Case, values: Iterable[tuple[str, str, np.ndarray]]) -> str:
    """got = c * expected where c is a power of a value of the code, or its reciprocal."""
    factors = _deviations(case)
    if factors is None or np.ptp(factors[1]) <= 1e-6:
        return ""
    for v, quoted, value in values:
        for form, ratio in _ratios(factors, value):
            if (np.abs(ratio - 1) < 1e-6).all():
                return f"factor {form.format(v)} in each element: {v} is the value of {quoted}"
    return ""


def _ratios(factors: Factors, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The factors by each power of x, with its text; none if x has another shape, or a 0 there."""
    nonzero, deviation = factors
    x = x.reshape(nonzero.shape) if x.size == nonzero.size else x
    with suppress(ValueError):
        x = np.broadcast_to(np.asarray(x, np.float64), nonzero.shape)[nonzero]
        for power, form in POWERS if x.all() else ():
            yield form, (1 + deviation) / x**power


def local(case: Case) -> str:
    """got = c * expected with a factor c per element that is the same for every y_bar."""
    factors, y_bar = _deviations(case), case.y_bar
    if factors is None or y_bar.shape != case.got.shape:  # with few outputs any got is of this kind
        return ""
    nonzero, deviation = factors
    worst = np.abs(deviation).argmax()
    index, largest = tuple(np.argwhere(nonzero)[worst]), float(deviation[worst])
    right, got = (bars[(..., *index)] / y_bar[(..., *index)] for bars in (case.expected, case.got))
    if close(right[:1], right[1:2], 1e-3):  # y_bar of an element reaches that element only
        digits = max(4, 2 - int(np.floor(np.log10(abs(largest)))))  # in which the two differ
        it_is = f"{got[0]:.{digits}g} at {case.subject.inputs[case.k][index]:.4g}"
        return f"the local derivative is wrong: {it_is}, should be {right[0]:.{digits}g}"
    place = f"{factor_text(largest)} at {[int(i) for i in index]}"
    return f"a factor per element, the same for every y_bar, such as {place}"


def reach(case: Case) -> str:
    """An element of y_bar reaches other elements than it should."""
    x = case.subject.names[case.k]
    for response in case.responses:
        right, got = (set(map(tuple, places.tolist())) for places in response.places)
        y, missing, extra = list(response.position) or "", right - got, got - right
        if missing and extra:
            return f"y_bar{y} should reach {_listed(right)} of {x}_bar, but reaches {_listed(got)}"
        if extra:
            off = f"y_bar{y} reaches {_listed(extra)} of {x}_bar, but y{y} does not depend on it"
            return f"{off}: a mask, an index or an axis is wrong"
        if missing:
            off = f"y_bar{y} should reach {_listed(missing)} of {x}_bar, but does not"
            return f"{off}: a path is missing, or = instead of +="
    return ""


def _listed(places: set[tuple[int, ...]]) -> str:
    shown = ", ".join(str(list(place)) for place in sorted(places)[:3])
    return f"{shown} and {len(places) - 3} more" if len(places) > 3 else shown
