"""One cotangent, as it was got and as it was expected: is what parts the two rounding?

What a verdict rests on, in the order in which it is asked for, which is that of its cost:

1. ``expected`` and its error: differences of the forward (numeric.py), or the closed form of batch
   norm where those confirm it (reference.py),
2. ``bound``: that error, and what the summands of the cotangent round (rounding.py),
3. where 0 is expected, terms as large as the steepest derivative, which may cancel there,
4. what cancels out of sight, if what is out of bounds vanishes in wider numbers,
5. what the rounding of the inputs does to the cotangent, from differences at points nearby,
6. subgradients, at kinks (kinks.py).

The bounds of 3 to 5 add to that of 2; the first after which nothing is out of bounds decides.
``least`` is the bound of 2: what exceeds that is seen, and where nothing does, nothing is proven.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minigrad.verify.reference import Reference
from minigrad.verify.report import excess, vanished

_LEFT = 0.1  # of an error may be left in wider numbers; of rounding it is a thousandth or less


@dataclass(frozen=True)
class Sample:
    """One cotangent of one input, as it was got and as it was expected.

    Attributes:
        kind: what kind of ``y_bar`` it belongs to.
        got, expected: nan is expected where nothing is known.
        error: how far ``expected`` itself may be off.
        bound: how far ``got`` may be off, which includes that.
        kinks: elements where any subgradient is accepted.
        tie: what elements at kinks must not get together, if they do.
        least: what ``expected`` must exceed to prove anything, where ``bound`` has been widened.
    """

    kind: str
    y_bar: np.ndarray
    got: np.ndarray
    expected: np.ndarray
    error: np.ndarray
    bound: np.ndarray
    kinks: int = 0
    tie: str = ""
    least: np.ndarray | None = None

    @cached_property
    def excess_of(self) -> np.ndarray:
        """Error over bound, per element; 0 where nothing is known."""
        # what the dtype cannot hold may be infinite, or nan
        known = np.abs(self.expected) <= np.finfo(self.got.dtype).max
        return np.where(known, excess(self.got, self.expected, self.bound), 0)

    @cached_property
    def excess(self) -> float:
        return float(self.excess_of.max(initial=0))

    @property
    def ok(self) -> bool:
        return self.excess <= 1

    @property
    def vacuous(self) -> bool:
        """Whether nothing could have been found wrong: no element known, or none left to differ."""
        least = self.bound if self.least is None else self.least
        return not self.kinks and vanished(self.got, self.expected, least)

    @property
    def telling(self) -> tuple[bool, bool, float, bool]:
        """What to sort by: the last one tells most. Random cotangents explain more than others."""
        _, expected, got, _ = self.worst()
        excess = 0.0 if got == expected else self.excess  # of what is there when rounded alike
        is_random = self.kind == "random"
        return not self.ok, not self.ok and is_random, excess, is_random

    def at_kinks(self, name: str) -> str:
        """What is accepted of input ``name``, in words."""
        return f"{name}: elements at kinks: {self.kinks}; any subgradient is accepted"

    def worst(self) -> tuple[tuple[int, ...], float, float, float]:
        """Index, expected, got and bound where the error is largest relative to its bound."""
        if not self.got.size:
            return (), 0.0, 0.0, 0.0
        index = np.unravel_index(int(np.argmax(self.excess_of)), self.expected.shape)
        at = tuple(int(i) for i in index)
        return at, float(self.expected[at]), float(np.asarray(self.got)[at]), float(self.bound[at])

    def vanishes(self, wide: np.ndarray, part: float, bound: Any = 0.0) -> bool:
        """Whether what is out of bounds is gone in wider numbers: but for this part of it.

        Or but for what ``bound``, of what may round in these numbers, comes to in the wider ones.
        """
        rounding = bound * float(np.finfo(wide.dtype).eps / np.finfo(self.got.dtype).eps)
        with np.errstate(all="ignore"):
            left = np.abs(wide - self.expected)
            most = part * np.abs(self.got - self.expected) + self.error + rounding
        return bool(((left <= most) | (self.excess_of <= 1)).all())


def wider(dtype: np.dtype) -> np.dtype:
    """What shows rounding in ``dtype`` by its absence."""
    return np.dtype(np.float64 if dtype.itemsize < 8 else np.longdouble)


InWider = Callable[[], np.ndarray | None]  # a cotangent in wider numbers; None if there is none


def reconsidered(sample: Sample, k: int, reference: Reference, in_wider: InWider) -> Sample:
    """``sample`` of input ``k``, with a bound for all that rounds and, at kinks, subgradients."""
    sample = rounded(sample, k, reference, in_wider)
    if sample.ok or reference.closed:
        return sample
    accepted, kinks, tie = reference.kinks.between_slopes(
        k, sample.y_bar, sample.got, sample.expected, sample.bound
    )
    return replace(sample, expected=accepted, kinks=kinks, tie=tie)


def rounded(sample: Sample, k: int, reference: Reference, in_wider: InWider) -> Sample:
    """``sample``, with a wider bound where what is out of bounds is rounding after all.

    What rounds need not be seen in the summands of a cotangent: what cancels within one, and what
    the rounding of the inputs does to them. The first may be as large as a fault, so it counts for
    what vanishes in wider numbers, or, where there are none, as far as the steepest element goes.
    That far it counts where 0 is expected, in any case: what is exactly 0 has no summands, and of
    cos(pi / 2) wider numbers may leave as much.

    Args:
        sample: a cotangent of input ``k``.
        k: an input.
        reference: what is right.
        in_wider: gives the same cotangent, computed in wider numbers.
    """
    if sample.ok or reference.closed:
        return sample
    sample = replace(sample, least=sample.bound)  # in wider numbers that much is seen
    y_bar = np.asarray(sample.y_bar, np.longdouble)
    steepest = reference.steepest(k, y_bar)
    vanishing = np.where(np.abs(sample.expected) <= sample.error, steepest, 0)
    sample = replace(sample, bound=sample.bound + vanishing)
    if sample.ok:
        return sample
    wide = in_wider()
    hidden = steepest if wide is None else reference.hidden(k, y_bar)
    if wide is None or sample.vanishes(wide, _LEFT, hidden):
        sample = replace(sample, bound=sample.bound + hidden)
    if sample.ok:
        return sample
    return replace(sample, bound=sample.bound + reference.conditioning(y_bar)[k])  # costs most
