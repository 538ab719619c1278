"""From a wrong cotangent to its likely cause: the first hypothesis that explains it.

A hypothesis is something that a wrong backward may compute. Most are accepted if they reproduce its
cotangents for every random ``y_bar``, within the tolerance of ``fit.tolerance_of``. The specific
and cheap ones are tried first, the vague ones and those that need a search last, in the order that
``cause_of`` and ``_whole_cause`` give. They are in these modules:

* here: which samples and which elements are wrong, a constant factor, a permutation,
* ``norm_paths``: the three paths of a normalization,
* ``mixups``: mistakes in the map from ``y_bar`` to the cotangent, whatever the function is,
* ``paths``: a path of the traced graph that is missing or has a wrong factor,
* ``faults``: one mistake that explains the errors of all inputs at once.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, combinations, permutations
from math import prod

import numpy as np

from minigrad.verify import mixups, norm_paths
from minigrad.verify.case import Case
from minigrad.verify.faults import FaultSearch
from minigrad.verify.fit import (
    PLAIN_FACTORS,
    POWERS,
    close,
    factor_text,
    mean_factors,
    names_of,
    relative_error,
    root_factors,
    tolerance_of,
)
from minigrad.verify.judge import Sample
from minigrad.verify.reference import Expected
from minigrad.verify.subject import BackwardFailed, Subject, are_batch_norms


def cause_of(
    subject: Subject,
    k: int,
    samples: list[Sample],
    expected_of: Callable[[np.ndarray], Expected],
    search: FaultSearch,
) -> str:
    """The likely cause of the wrong cotangent of input ``k``; empty where nothing fits.

    Args:
        subject: the pair, and the point where it is wrong.
        k: an input.
        samples: its cotangents.
        expected_of: the expected cotangents of all inputs for any ``y_bar``.
        search: of the subject; what it finds for one input serves the others.
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
    factor, place = _factor(subject, got, expected), _place(subject, bad)
    if place and not factor:
        factor_there = _factor(subject, got[:, bad], expected[:, bad])
        if factor_there or bad.sum() == 1:
            return f"{place}: {factor_there}" if factor_there else place
    if len(got) > 1 and got.any() and (got == got[0]).all():
        return "y_bar is missing: the result is the same for every y_bar"
    if any(np.nan_to_num(s.got).any() for s in samples if s.kind == "zero"):  # nan: 0 / 0
        return "a term without y_bar: the result is not zero when y_bar is"
    y_bar = np.stack([np.asarray(s.y_bar, np.float64) for s in random])
    by_input = zip(*(expected_of(each).values for each in y_bar), strict=True)
    right = [np.stack(values).astype(np.float64) for values in by_input]
    right[k] = expected
    case = Case(subject, k, y_bar, got, right, expected_of)
    dtype = random[0].got.dtype
    is_float16 = np.array_equal(got, got.astype(np.float16))  # random numbers are not by chance
    if is_float16 and (cause := _narrow(np.dtype(np.float16), dtype, got, expected)):
        return cause
    if factor:
        return _constant_of_code(case, search, factor) or factor
    cause, between = _whole_cause(case, search)
    cause = cause or _narrow(np.dtype(np.float32), dtype, got, expected)
    return "; ".join(filter(None, (place, cause, between)))


def _constant_of_code(case: Case, search: FaultSearch, factor: str) -> str:
    """The code whose constant is wrong, where ``factor`` is ambiguous: 3/4 may be (N - 1)/N."""
    is_ambiguous = any(words in factor for words in ("constant", "axis size", " or ", "- 1"))
    paths = search.paths(case) if is_ambiguous else None
    return paths.wrong_constant(case.k, _deviation(case.got, case.expected)) if paths else ""


def _whole_cause(case: Case, search: FaultSearch) -> tuple[str, str]:
    """The cause of errors in all elements, and the code between which they arise.

    That code is told only where the cause does not tell the place.
    """
    norm = norm_paths.norm_of(case)
    hypotheses = chain(mixups.untransposed(case), mixups.permuted(case.expected, case.got))
    cause = (norm and norm_paths.explain(norm, case)) or case.cause_in(hypotheses)
    if cause := cause or mixups.nonlinear(case):
        return cause, ""
    paths = search.paths(case)
    is_norm = norm is not None and norm.is_exact
    place, between = paths.wrong_path(case) if paths else "", ""
    if place:
        cause = mixups.product(case)
    else:
        cause = mixups.explain(case)
        cause = cause or (case.cause_in(paths.only_path(case.k)) if paths else "")
        place, between = search.fault(paths) if paths and not is_norm else ("", "")
    if place:
        return "; ".join(filter(None, (cause, place))), ""
    if not cause and paths and (factor := mixups.factor_of(case, paths.quotable_values())):
        return factor, ""
    cause = cause or mixups.moved(case) or mixups.local(case) or mixups.reach(case)
    return cause, between


def _in_float64(subject: Subject, k: int, samples: list[Sample]) -> tuple[Subject, list[Sample]]:
    """The subject and its samples in float64, if it takes that and is wrong there, too."""
    wide = subject.at([x.astype(np.float64) for x in subject.inputs])
    with suppress(BackwardFailed):
        got = [np.asarray(wide.pull(s.y_bar.astype(np.float64))[k]) for s in samples]
        pairs = [(s, replace(s, got=g)) for s, g in zip(samples, got, strict=True)]
        if all(a.got.shape == b.got.shape for a, b in pairs) and not all(b.ok for _, b in pairs):
            return wide, [b for _, b in pairs]
    return subject, samples


def _place(subject: Subject, bad: np.ndarray) -> str:
    """The wrong elements, if they are few: one element, one row, one channel."""
    if bad.all() or not bad.ndim or bad.size < 3:
        return ""
    indices = np.argwhere(bad)
    if len(indices) == 1:
        return f"only element {[int(i) for i in indices[0]]} is wrong"
    if bad.ndim == 3:
        second = "position on axis 1"
    else:
        second = "channel" if are_batch_norms(subject.inputs) or bad.ndim == 4 else "column"
    kinds = ["row", second, "position on axis 2", "position on axis 3"]
    for axis, kind in enumerate(kinds[: bad.ndim] if bad.ndim > 1 else ()):
        size, wrong = bad.shape[axis], np.unique(indices[:, axis])
        if len(wrong) == size or len(wrong) > max(1, size // 2):
            continue
        if len(wrong) == 1:
            is_last = wrong[0] == size - 1 and size > 2
            return f"only {f'the last {kind}' if is_last else f'{kind} {wrong[0]}'} is wrong"
        noun, _, where = kind.partition(" ")
        numbers = f"{noun}s {[int(i) for i in wrong]} {where}".rstrip()
        return f"only {numbers} are wrong"
    return "only some elements are wrong" if bad.mean() < 0.2 else ""


def _narrow(narrow: np.dtype, dtype: np.dtype, got: np.ndarray, expected: np.ndarray) -> str:
    """An error of the size of rounding in a narrow dtype, in a result that is wider."""
    error = relative_error(got, expected) / float(np.finfo(narrow).eps)
    if dtype.itemsize > narrow.itemsize and 1e-3 < error < 16:
        size = f"an error as large as rounding in {narrow}"
        return f"{size}: lower precision inside, or a small term"
    return ""


def _factor(subject: Subject, got: np.ndarray, expected: np.ndarray) -> str:
    """got = c * expected for one number c."""
    if not np.abs(got).max(initial=0) and np.abs(expected).max(initial=0):
        return "it is zero: nothing is computed, or it is overwritten"
    deviation, tolerance = _deviation(got, expected), tolerance_of(got, expected)
    if not deviation or not close(expected + deviation * expected, got, tolerance):
        return ""
    names = names_of(deviation, _named_factors(subject), tolerance)
    if not names and got[0].size == 1:  # a single number is a multiple of any other
        return ""
    names = names or names_of(deviation, _factors_of_other_sizes(subject), tolerance)
    names = list(dict.fromkeys(names))
    return " or ".join(names[:2]) or f"constant factor {factor_text(deviation)}"


def _deviation(got: np.ndarray, expected: np.ndarray) -> float:
    """c - 1, in all digits, of the best fit got = c * expected; 0 where nothing is expected."""
    norm = float((expected * expected).sum())
    return float(((got - expected) * expected).sum()) / norm if norm else 0.0


def _named_factors(subject: Subject) -> list[tuple[float, str]]:
    """Factors that have a name, the likelier ones first; several may be the same number."""
    shape = subject.inputs[0].shape
    axes = list("NCHW") if len(shape) in (1, 2, 4) else [f"shape[{i}]" for i in range(len(shape))]
    named = list(PLAIN_FACTORS)
    every = [c for n in range(1, len(shape) + 1) for c in combinations(range(len(shape)), n)]
    if len(shape) == 4:
        every.sort(key=lambda axes: 1 in axes)  # channels are rarely averaged over
    for chosen in every:
        size, n = prod(shape[i] for i in chosen), len(chosen)
        name = " ".join(axes[i] for i in chosen) if n < len(shape) or n == 1 else "x.size"
        in_fraction = f"({name})" if " " in name else name
        if size > 1:
            named += mean_factors(size, in_fraction)
        if size > 2:
            ratio, inverse = f"{in_fraction}/({name} - 1)", f"({name} - 1)/{in_fraction}"
            for text, c in ((ratio, size / (size - 1)), (inverse, (size - 1) / size)):
                root = f"factor sqrt({text}): biased and unbiased variance mixed up"
                named += [(c, f"factor {text}"), (c**0.5, root)]
        if size > 1 and n == 1:
            named += root_factors(size, name)
    for name, x in zip(subject.names, subject.inputs, strict=True):
        if x.size == 1 and 1e-99 < abs(c := float(x.reshape(()))) < 1e99:
            named += [(c**n, f"factor {form.format(name)}") for n, form in POWERS]
    return named


def _factors_of_other_sizes(subject: Subject) -> Iterator[tuple[float, str]]:
    """Factors of a mean or sum over axes of y or over an axis of any input, and of the size of one
    axis of x for another."""
    x_shape, y_shape = subject.inputs[0].shape, subject.run()[0].shape
    chosen = (c for n in range(1, len(y_shape) + 1) for c in combinations(y_shape, n))
    for n in [*map(prod, chosen), *{n for x in subject.inputs for n in x.shape}]:
        yield from mean_factors(n) if n > 1 else ()
    for a, b in permutations(set(x_shape) - {0}, 2):
        yield a / b, f"factor {a}/{b}: perhaps the axis size {b} is used instead of {a}"
