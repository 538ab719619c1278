"""From a wrong cotangent to the likely cause, by fitting it against what would explain it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, permutations
from math import prod

import numpy as np

from minigrad.verify import mixups, norm_paths
from minigrad.verify.faults import FaultSearch
from minigrad.verify.fit import (
    close,
    factor_text,
    mean_factors,
    relative_error,
    root_factors,
    tolerance_of,
)
from minigrad.verify.judge import Sample
from minigrad.verify.reference import Expected
from minigrad.verify.subject import BackwardFailed, Subject, are_batch_norms

_MOST_AXES = 4  # of which all orders are tried


def cause_of(
    subject: Subject,
    k: int,
    samples: list[Sample],
    expected_of: Callable[[np.ndarray], Expected],
    search: FaultSearch,
) -> str:
    """The likely cause of the wrong cotangent of input ``k``; empty where nothing fits.

    Tried in turn: special cotangents only, a constant factor or nothing computed, a place (one
    element, row or channel), the same for every cotangent, float16 inside, a factor per channel and
    the paths of a normalization, the forward's own operation, a permutation, a path of the graph,
    what ``mixups`` knows, where the errors of all inputs begin, float32 inside.

    Args:
        subject: the pair, and the point where it is wrong.
        k: an input.
        samples: its cotangents.
        expected_of: those of all inputs for any ``y_bar``, as they should be.
        search: what is found for one input serves the others.
    """
    random = [s for s in samples if s.kind == "random" and np.isfinite(s.got).all()]
    if subject.dtype.itemsize < 8:
        subject, random = _in_float64(subject, k, random)
    if not random:
        return ""
    if all(s.ok for s in random):
        kinds = [s.kind for s in samples if not s.ok]
        return f"only for {' and '.join(dict.fromkeys(kinds))} cotangents"
    got = np.stack([np.asarray(s.got, np.float64) for s in random])
    expected = np.stack([np.asarray(s.expected, np.float64) for s in random])
    known = np.isfinite(expected)
    got, expected = np.where(known, got, 0), np.where(known, expected, 0)
    bad = np.any([s.excesses > 1 for s in random], axis=0)
    everywhere, place = _factor(subject, got, expected), _place(subject, bad)
    if place and not everywhere:
        factor = _factor(subject, got[:, bad], expected[:, bad])
        if factor or bad.sum() == 1:
            return f"{place}: {factor}" if factor else place
    if len(got) > 1 and got.any() and (got == got[0]).all():
        return "y_bar is missing: it is the same for every y_bar"
    if any(s.got.any() for s in samples if s.kind == "zero"):
        return "a term without y_bar: it is not zero although y_bar is"
    y_bar = np.stack([np.asarray(s.y_bar, np.float64) for s in random])
    each = zip(*(expected_of(one).values for one in y_bar), strict=True)
    right = [np.stack(values).astype(np.float64) for values in each]  # of every input
    right[k] = expected
    is_coarse = np.array_equal(got, got.astype(np.float16))  # of random numbers few others are
    if is_coarse and (cause := _narrow(np.dtype(np.float16), random[0].got.dtype, got, expected)):
        return cause
    if everywhere:
        unclear = "constant", " or ", "- 1"  # of few numbers 3/4 may be (N - 1)/N, or of a dropout
        is_clear = not any(words in everywhere for words in unclear)
        paths = None if is_clear else search.paths(subject, y_bar, right)
        return (paths and paths.wrong_constant(_ratio(got, expected))) or everywhere
    cause, between = _of_all(subject, k, y_bar, got, right, expected_of, search)
    cause = cause or _narrow(np.dtype(np.float32), random[0].got.dtype, got, expected)
    return "; ".join(filter(None, (place, cause, between)))


def _of_all(
    subject: Subject,
    k: int,
    y_bar: np.ndarray,
    got: np.ndarray,
    right: list[np.ndarray],
    expected_of: Callable[[np.ndarray], Expected],
    search: FaultSearch,
) -> tuple[str, str]:
    """What explains all elements of a cotangent: arrays of it for some ``y_bar``, stacked.

    Where that does not tell the place, the second text is the code between which it is wrong.
    """
    tolerance = tolerance_of(got, right[k])
    norm = norm_paths.norm_of(subject, y_bar, right[0])
    found = (
        (norm and norm_paths.explain(norm, k, y_bar, got, right[k], tolerance))
        or mixups.untransposed(subject, k, y_bar, got, tolerance)
        or _permuted(got, right[k])
        or mixups.nonlinear(subject, k, y_bar, got, tolerance)
    )
    if found:
        return found, ""
    paths = search.paths(subject, y_bar, right)
    where = paths.wrong_path(k, tolerance) if paths else ""
    if where:
        what = mixups.product(subject, y_bar, got, tolerance)
    else:
        what = mixups.explain(subject, k, y_bar, got, right, tolerance, expected_of)
        what = what or (paths.only_path(k, tolerance) if paths else "")
        where = search.fault(paths) if paths and not norm else ""
    if where:
        return "; ".join(filter(None, (what, where))), ""
    what = what or mixups.local(subject, k, y_bar, got, right[k])
    what = what or mixups.reach(subject, k, y_bar.shape[1:], expected_of)
    return what, search.between(paths) if paths and not norm else ""


def _in_float64(subject: Subject, k: int, samples: list[Sample]) -> tuple[Subject, list[Sample]]:
    """The same faults with more digits, where the code takes float64 and is wrong there, too."""
    wide = subject.at([x.astype(np.float64) for x in subject.inputs])
    try:
        found = [np.asarray(wide.pull(s.y_bar.astype(np.float64))[k]) for s in samples]
    except BackwardFailed:
        return subject, samples
    if any(got.shape != s.got.shape for got, s in zip(found, samples, strict=True)):
        return subject, samples
    seen = [replace(s, got=got) for got, s in zip(found, samples, strict=True)]
    return (subject, samples) if all(s.ok for s in seen) else (wide, seen)


def _place(subject: Subject, bad: np.ndarray) -> str:
    """The wrong elements, if they are few: one element, one row, one channel."""
    if bad.all() or not bad.ndim or bad.size < 3:
        return ""
    where = np.argwhere(bad)
    if len(where) == 1:
        return f"only element {[int(i) for i in where[0]]} is wrong"
    second = "channel" if are_batch_norms(subject.inputs) or bad.ndim == 4 else "column"
    second = "position on axis 1" if bad.ndim == 3 else second
    for axis, kind in enumerate(["row", second, "position on axis 2", "position on axis 3"]):
        if axis >= bad.ndim or bad.ndim == 1:
            break
        found = np.unique(where[:, axis])
        if len(found) <= max(1, bad.shape[axis] // 2) and len(found) < bad.shape[axis]:
            if len(found) == 1:
                is_last = found[0] == bad.shape[axis] - 1 and bad.shape[axis] > 2
                return f"only {f'the last {kind}' if is_last else f'{kind} {found[0]}'} is wrong"
            some, _, where = kind.partition(" ")
            numbers = f"{some}s {[int(i) for i in found]} {where}".rstrip()
            return f"only {numbers} are wrong"
    return "only some elements are wrong" if bad.mean() < 0.2 else ""


def _narrow(narrow: np.dtype, dtype: np.dtype, got: np.ndarray, expected: np.ndarray) -> str:
    """An error of the size of rounding in a narrow dtype, in a result that is wider."""
    error = relative_error(got, expected) / float(np.finfo(narrow).eps)
    fits = dtype.itemsize > narrow.itemsize and 1e-3 < error < 16
    size = f"an error as large as rounding in {narrow}"
    return f"{size}: lower precision inside, or a small term" if fits else ""


def _factor(subject: Subject, got: np.ndarray, expected: np.ndarray) -> str:
    """got = c * expected for one number c."""
    if not np.abs(got).max(initial=0) and np.abs(expected).max(initial=0):
        return "it is zero: nothing is computed, or it is overwritten"
    off, tolerance = _ratio(got, expected), tolerance_of(got, expected)
    if not off or not close(expected + off * expected, got, tolerance):
        return ""
    names = [n for v, n in _named_numbers(subject) if abs(1 + off - v) <= tolerance * abs(v)]
    if not names and got[0].size == 1:  # of one number anything is a multiple
        return ""
    others = () if names else _other_sizes(subject)
    names = names or [n for v, n in others if abs(1 + off - v) <= tolerance * abs(v)]
    return " or ".join(list(dict.fromkeys(names))[:2]) or f"constant factor {factor_text(off)}"


def _ratio(got: np.ndarray, expected: np.ndarray) -> float:
    """c - 1, in all digits, of the c by which one is the other; 0 where there is none."""
    norm = float((expected * expected).sum())
    return float(((got - expected) * expected).sum()) / norm if norm else 0.0


def _named_numbers(subject: Subject) -> list[tuple[float, str]]:
    """Factors that have a name, the likelier ones first; several may be the same number."""
    shape = subject.inputs[0].shape
    axes = list("NCHW") if len(shape) in (1, 2, 4) else [f"shape[{i}]" for i in range(len(shape))]
    found = [(-1.0, "sign"), (2.0, "factor 2"), (0.5, "factor 1/2")]
    for n in range(1, len(shape) + 1):
        for chosen in combinations(range(len(shape)), n):
            value = prod(shape[i] for i in chosen)
            name = " ".join(axes[i] for i in chosen) if n < len(shape) or n == 1 else "x.size"
            one = f"({name})" if " " in name else name
            if value > 1:
                found += mean_factors(value, one)
            if value > 2:
                found.append((value / (value - 1), f"factor {one}/({name} - 1)"))
                found.append(((value - 1) / value, f"factor ({name} - 1)/{one}"))
                root = f"factor sqrt({name}/({name} - 1)): the variance is biased, or not"
                found.append(((value / (value - 1)) ** 0.5, root))
            if n == 1 and value > 1:
                found += root_factors(value, name)
    return found


def _other_sizes(subject: Subject) -> Iterator[tuple[float, str]]:
    """Factors by what y is averaged over, and by one axis of x for another."""
    shape, of_y = subject.inputs[0].shape, subject.run()[0].shape
    for n in range(1, len(of_y) + 1):
        for chosen in combinations(of_y, n):
            yield from mean_factors(prod(chosen)) if prod(chosen) > 1 else ()
    for a, b in permutations(set(shape) - {0}, 2):
        yield a / b, f"factor {a}/{b}: perhaps the size {b} of an axis stands for the size {a}"


def _permuted(got: np.ndarray, expected: np.ndarray) -> str:
    """The right numbers in the wrong places."""
    ndim, tolerance = expected.ndim - 1, tolerance_of(got, expected)
    pairs = list(combinations(range(1, ndim + 1), 2))
    for a, b in pairs:
        if close(np.swapaxes(expected, a, b), got, tolerance):
            return f"transposed: axes {a - 1} and {b - 1} are exchanged"
    for axis in range(1, ndim + 1):
        if close(np.flip(expected, axis), got, tolerance):
            return f"reversed along axis {axis - 1}"
        if any(close(np.roll(expected, shift, axis), got, tolerance) for shift in (1, -1)):
            return f"shifted along axis {axis - 1}"
    for a, b in pairs:
        if close(np.flip(expected, (a, b)), got, tolerance):
            return f"reversed along axes {a - 1} and {b - 1}"
    for axes in permutations(range(1, ndim + 1)) if ndim <= _MOST_AXES else ():
        if close(expected.transpose(0, *axes).reshape(expected.shape), got, tolerance):
            order = [a - 1 for a in axes]
            return f"reshaped with its axes in the order {order}: a transpose is missing"
    return ""
