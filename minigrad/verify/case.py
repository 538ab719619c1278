"""The wrong cotangents of one input, whose cause is sought."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minigrad.verify.fit import close, tolerance_of
from minigrad.verify.reference import Expected
from minigrad.verify.subject import Subject

Hypothesis = tuple[str, np.ndarray]  # a mistake, and the cotangents it gives: one per ``y_bar``


@dataclass(frozen=True)
class Case:
    """The actual and the expected cotangents of one input, for several ``y_bar``.

    Attributes:
        subject: the pair and its point.
        k: the input.
        y_bar: (S, \\*y.shape), random cotangents of y.
        got: (S, \\*shape of input k), the backward's results.
        right: per input, (S, \\*its shape), the expected cotangents.
        expected_of: the expected cotangents of all inputs for any other ``y_bar``.
    """

    subject: Subject
    k: int
    y_bar: np.ndarray
    got: np.ndarray
    right: list[np.ndarray]
    expected_of: Callable[[np.ndarray], Expected]

    @property
    def expected(self) -> np.ndarray:
        """The expected cotangents of input k."""
        return self.right[self.k]

    @cached_property
    def tolerance(self) -> float:
        """How far an explanation may be off, relative to the largest element of ``got``."""
        return tolerance_of(self.got, self.expected)

    def is_explained_by(self, other: np.ndarray) -> bool:
        """Whether ``other`` is ``got``, within the tolerance."""
        return close(other, self.got, self.tolerance)

    def cause_in(self, hypotheses: Iterable[Hypothesis]) -> str:
        """The first mistake that gives ``got``; empty where none does."""
        return next((text for text, x_bars in hypotheses if self.is_explained_by(x_bars)), "")
