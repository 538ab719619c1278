"""The judgement of one cotangent: does rounding explain its distance from the expected one?

A wide bound hides faults, a narrow one accuses correct code. So the bound starts narrow, and is
widened for one cause after another, the cheapest first, until no element exceeds it:

1. ``expected`` and its error come from differences of the forward (numeric.py) or, where those
   confirm them, from the closed form of batch norm or from complex steps (reference.py),
2. ``bound`` is that error plus the rounding of the cotangent's summands (rounding.py),
3. where 0 is expected: rounding of terms as large as the steepest derivative, which may cancel,
4. cancellation inside a summand, invisible in the summands' sizes; but only if the error
   disappears in wider precision,
5. the effect of rounding the inputs, from differences at points nearby,
6. at kinks: any subgradient (kinks.py).

The allowances of 3 to 5 are added to the bound of 2. That one is kept as ``resolution``: an
expected value below it cannot be told from 0, and a check where all are below it is VACUOUS.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minigrad.verify.reference import Reference
from minigrad.verify.report import Row

_REMAINDER = 0.1  # of an error in wider precision; if it is rounding, a thousandth or less remains


@dataclass(frozen=True)
class Sample:
    """One cotangent of one input: what was computed, and what was expected.

    Attributes:
        kind: the kind of ``y_bar``, such as "random" or "huge".
        got, expected: ``expected`` is nan where nothing is known.
        error: how far ``expected`` itself may be off.
        bound: how far ``got`` may be from ``expected``; includes ``error``.
        kinks: the number of elements where any subgradient is accepted.
        kink_fault: why the elements at kinks belong to no common subgradient; empty if they may.
        resolution: the bound before it was widened, or None: ``expected`` must exceed it to prove
            anything.
    """

    kind: str
    y_bar: np.ndarray
    got: np.ndarray
    expected: np.ndarray
    error: np.ndarray
    bound: np.ndarray
    kinks: int = 0
    kink_fault: str = ""
    resolution: np.ndarray | None = None

    @cached_property
    def excesses(self) -> np.ndarray:
        """Error / bound of each element; 0 where nothing is known."""
        # a value too large for the dtype may come out as inf or nan: not judged
        known = np.abs(self.expected) <= np.finfo(self.got.dtype).max
        return np.where(known, _excess(self.got, self.expected, self.bound), 0)

    @cached_property
    def excess(self) -> float:
        """The largest error / bound."""
        return float(self.excesses.max(initial=0))

    @property
    def ok(self) -> bool:
        return self.excess <= 1

    @property
    def vacuous(self) -> bool:
        """Whether no expected element can be told from 0, so that a wrong rule could pass."""
        resolution = self.bound if self.resolution is None else self.resolution
        return not self.kinks and _vanished(self.got, self.expected, resolution)

    @property
    def telling(self) -> tuple[bool, bool, float, bool]:
        """A sort key: the last sample tells most. Random cotangents explain more than others."""
        _, expected, got, _ = self.worst()
        excess = 0.0 if got == expected else self.excess  # equal once both are rounded to float64
        is_random = self.kind == "random"
        return not self.ok, not self.ok and is_random, excess, is_random

    def worst(self) -> tuple[tuple[int, ...], float, float, float]:
        """Index, expected, got and bound where the error is largest relative to its bound."""
        if not self.got.size:
            return (), 0.0, 0.0, 0.0
        index = np.unravel_index(int(np.argmax(self.excesses)), self.expected.shape)
        at = tuple(int(i) for i in index)
        return at, float(self.expected[at]), float(np.asarray(self.got)[at]), float(self.bound[at])

    def vanishes(self, wide: np.ndarray, part: float, bound: Any = 0.0) -> bool:
        """Whether the errors that are out of bounds disappear in wider precision.

        Args:
            wide: the same cotangent, computed in wider precision.
            part: of an error may remain.
            bound: rounding allowed in this precision; scaled by the ratio of the two eps, it may
                remain, too.
        """
        rounding = bound * float(np.finfo(wide.dtype).eps / np.finfo(self.got.dtype).eps)
        with np.errstate(all="ignore"):
            remaining = np.abs(wide - self.expected)
            allowed = part * np.abs(self.got - self.expected) + self.error + rounding
        return bool(((remaining <= allowed) | (self.excesses <= 1)).all())

    def is_small(self) -> bool:
        """Whether all errors are small enough to be an effect of rounding an input: of the size of
        sqrt(eps), relative to the largest element."""
        limit = np.finfo(self.got.dtype).eps ** 0.5 * np.abs(self.expected).max(initial=0)
        with np.errstate(all="ignore"):
            return bool((np.abs(self.got - self.expected) <= limit).all())


def at_kinks(name: str, kinks: int) -> str:
    """The message of a note: ``kinks`` elements of input ``name`` lie at kinks."""
    return f"{name}: elements at kinks: {kinks}; any subgradient is accepted"


def wider(dtype: np.dtype) -> np.dtype:
    """A dtype of higher precision, in which the rounding errors of ``dtype`` disappear."""
    return np.dtype(np.float64 if dtype.itemsize < 8 else np.longdouble)


InWider = Callable[[], np.ndarray | None]  # -> a cotangent in wider precision, or None


def reconsidered(sample: Sample, k: int, reference: Reference, in_wider: InWider) -> Sample:
    """Steps 3 to 6: ``sample`` of input ``k``, its bound widened for rounding, then for kinks."""
    sample = allow_rounding(sample, k, reference, in_wider)
    if sample.ok or not reference.widens:
        return sample
    accepted, kinks, fault = reference.kinks.between_slopes(
        k, sample.y_bar, sample.got, sample.expected, sample.bound
    )
    return replace(sample, expected=accepted, kinks=kinks, kink_fault=fault)


def allow_rounding(sample: Sample, k: int, reference: Reference, in_wider: InWider) -> Sample:
    """Steps 3 to 5: ``sample``, its bound widened as long as an element is out of bounds.

    Two kinds of rounding do not show in the sizes of the summands: cancellation inside a summand,
    and the effect of rounding the inputs. The first may be as large as a fault. So it is allowed
    only if the error disappears in wider precision or, where that cannot be computed, no larger
    than in the steepest element. That much is always allowed where 0 is expected: an exact 0 has no
    summands, and the error of one like cos(pi / 2) may remain in wider precision.
    """
    if sample.ok or not reference.widens:
        return sample
    sample = replace(sample, resolution=sample.bound)
    y_bar = np.asarray(sample.y_bar, np.longdouble)
    steepest = reference.steepest(k, y_bar)
    vanishing = np.where(np.abs(sample.expected) <= sample.error, steepest, 0)
    sample = replace(sample, bound=sample.bound + vanishing)
    if sample.ok:
        return sample
    wide = in_wider()
    hidden = steepest if wide is None else reference.hidden(k, y_bar)
    if wide is None or sample.vanishes(wide, _REMAINDER, hidden):
        sample = replace(sample, bound=sample.bound + hidden)
    if sample.ok:
        return sample
    may_be_rounding = wide is None or sample.vanishes(wide, 0.5) or sample.is_small()
    if not may_be_rounding:  # nor an effect of it
        return sample
    return replace(sample, bound=sample.bound + reference.conditioning(y_bar)[k])  # costs most


def _underflow(dtype: np.dtype) -> np.floating:
    """The absolute error that is allowed for underflow in ``dtype``."""
    return 64 * np.finfo(dtype).tiny


def _excess(got: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Error / bound of each element; underflow is no error, and nan an infinite one."""
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.longdouble) - expected)
        ratio = np.where(error == 0, 0, error / (bound + _underflow(got.dtype)))
    return np.where(np.isnan(ratio), np.inf, ratio)


def _vanished(got: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> bool:
    """Whether no expected element differs from 0 by more than the bound: nothing is proven then."""
    with np.errstate(all="ignore"):
        differs = np.abs(expected) > bound + _underflow(got.dtype)
        return not bool((np.isfinite(expected) & differs).any())


def compare(
    name: str, pair: str, a: Any, b: Any, bound: Any, *, kinks: int = 0, resolution: Any = None
) -> Row:
    """Compare two cotangents element by element; the row describes the worst element.

    The row is vacuous if no element of ``b`` exceeds ``resolution`` (by default ``bound``); but not
    at ``kinks``, where 0 is one slope of several.
    """
    a, b = np.asarray(a), np.asarray(b)
    bound = np.broadcast_to(np.asarray(bound, dtype=np.longdouble), a.shape)
    if not a.size:
        return Row(name, pair, 0.0, 0.0, ok=True, verdict="VACUOUS")
    ratio = _excess(a, b, bound)
    index = tuple(map(int, np.unravel_index(int(np.argmax(ratio)), a.shape)))
    ok = bool(ratio[index] <= 1)
    error = float(np.abs(a[index].astype(np.longdouble) - b[index]))
    error = math.inf if math.isnan(error) else error
    vacuous = not kinks and _vanished(a, b, bound if resolution is None else resolution)
    verdict = "WRONG" if not ok else "VACUOUS" if vacuous else "proven"
    return Row(name, pair, error, float(bound[index]), ok, index, verdict)
