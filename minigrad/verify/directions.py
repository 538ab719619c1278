"""A large point, compared along directions.

The Jacobian of a network by all its weights takes minutes. But ``f(x + V t)`` is a function of few
variables t, and by the chain rule its cotangent is ``V^T x_bar``. Each t moves one group of
elements of one input, by random steps: a wrong element makes the cotangent of its group wrong.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.verify.judge import InWider, Sample, reconsidered
from minigrad.verify.numeric import default_scale
from minigrad.verify.reference import Function, Reference
from minigrad.verify.report import Finding

GROUPS = 8  # of elements of an input
_SHARP, _SHARP_BESIDE_ALL = 1e-6, 1e-9  # bounds, relative to the largest cotangent
ALONG_DIRECTIONS = f"a large point: each input was compared along {GROUPS} random directions"


class Directions(Reference):
    """The reference of ``t -> f(x + V t)``.

    Elements with cotangents of similar size form a group, so that large ones do not hide an error
    in small ones. The function is computed in float64.

    Args:
        whole: the reference of f.
        x_bars: cotangents of all inputs, right or wrong.
        only: a mask per input of the elements that are moved; all if None.
    """

    def __init__(
        self,
        whole: Reference,
        x_bars: Sequence[np.ndarray],
        only: Sequence[np.ndarray] | None = None,
    ):
        rng = np.random.default_rng(0)
        self.whole = whole
        self.inputs = [x.astype(np.float64) for x in whole.subject.inputs]
        self.masks = only or [np.ones(x.shape, bool) for x in self.inputs]
        both = list(zip(self.inputs, self.masks, strict=True))
        self.steps = [rng.normal(size=x.shape) * default_scale(x) * mask for x, mask in both]
        self.groups = [_groups(*each) for each in zip(x_bars, self.masks, strict=True)]
        sizes = (min(GROUPS, int(mask.sum())) for mask in self.masks)
        super().__init__(Function(self._value, tuple(map(np.zeros, sizes)), whole.dtype), whole.y)

    @property
    def widens(self) -> bool:
        """Whether a single element is moved; where the bound of more is too narrow, the elements
        are checked."""
        return sum(mask.sum() for mask in self.masks) == 1

    @property
    def _terms(self) -> int:
        return self.whole._terms

    def moved(self, *ts: Any) -> list[Any]:
        """``x + V t`` for each input; t may be arrays or tensors."""
        inputs = zip(self.inputs, self.steps, self.groups, ts, strict=True)
        return [x + v * t[groups] if t.size else x for x, v, groups, t in inputs]

    def _value(self, *ts: np.ndarray) -> np.ndarray:
        return self.whole.value(*(x.astype(np.float64) for x in self.moved(*ts)))

    def samples(self, kind: str, y_bar: np.ndarray, x_bars: Sequence[np.ndarray]) -> list[Sample]:
        """One per input, of ``V^T x_bar``."""
        expected = self.expected(y_bar)
        pulled = (self.along(k, x_bar) for k, x_bar in enumerate(x_bars))
        return [Sample(kind, y_bar, got, *expected.of(k)) for k, got in enumerate(pulled)]

    def along(self, k: int, x_bar: np.ndarray) -> np.ndarray:
        """``V^T x_bar`` of input k."""
        along = np.zeros(self.subject.inputs[k].shape, x_bar.dtype)
        mask = self.masks[k]
        np.add.at(along, self.groups[k][mask], (x_bar * self.steps[k])[mask])
        return along

    def located(
        self, k: int, kind: str, y_bar: np.ndarray, x_bars: Sequence[np.ndarray], in_wider: InWider
    ) -> Sample:
        """A sample of input k itself, of which one wrong element is known, or none.

        The group that is wrong most is split until it is a single element. ``in_wider`` gives the
        cotangent of input k in wider precision.
        """

        def along_in_wider() -> np.ndarray | None:
            wide = in_wider()
            return None if wide is None else self.along(k, wide)

        sample = self.samples(kind, y_bar, x_bars)[k]
        if self.widens:
            sample = reconsidered(sample, k, self, along_in_wider)
        (group,), *_ = sample.worst()
        members = self.masks[k] & (self.groups[k] == group)
        if not (self.widens or sample.ok):
            only = [np.zeros_like(mask) for mask in self.masks]
            only[k] = members
            part = Directions(self.whole, x_bars, only)
            return part.located(k, kind, y_bar, x_bars, in_wider)
        known, v = members & (not sample.ok), self.steps[k]
        expected, error, bound = (
            np.where(known, a[group] / np.where(known, v, 1), np.nan)
            for a in (sample.expected, sample.error, sample.bound)
        )
        return Sample(kind, y_bar, x_bars[k], expected, np.abs(error), np.abs(bound))


def nowhere_wrong(name: str) -> Finding:
    """A note on a huge input that is not right along directions, but has no wrong element."""
    message = f"{name}: along directions the cotangent is wrong, or not known well, but no wrong"
    message += " element was found: there may be kinks; check a smaller point"
    return Finding("undefined", name, message=message)


def _groups(x_bar: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The number of the group of each element in the mask; 0 for the others."""
    sizes = np.where(mask, np.abs(x_bar), -1)
    first, n = x_bar.size - mask.sum(), max(int(mask.sum()), 1)
    ranks = np.empty(sizes.size, int)
    ranks[np.argsort(sizes, axis=None, kind="stable")] = np.arange(sizes.size) - first
    return (np.maximum(ranks, 0) * min(GROUPS, n) // n).reshape(sizes.shape)


def are_right(samples: Sequence[Sample]) -> bool:
    """Whether all are within their bounds, and the bounds exclude errors that matter."""
    return all(sample.ok for sample in samples) and all(which_are_sharp(samples))


def which_are_sharp(samples: Sequence[Sample]) -> list[bool]:
    """Whether the bounds of each are small beside the cotangents of its input, or of all inputs.

    The samples are those of all inputs for one random ``y_bar``, which weighs all of y. Steps are
    relative to the size of an input, so the cotangents of different inputs compare. Wide bounds, or
    none, are due to elements that can move very little: a probability of 1e-12.
    """
    sizes = [np.abs(sample.expected).max(initial=0) for sample in samples]
    limits = [max(_SHARP * size, _SHARP_BESIDE_ALL * max(sizes)) for size in sizes]
    return [
        bool((sample.bound <= limit).all()) for sample, limit in zip(samples, limits, strict=True)
    ]
