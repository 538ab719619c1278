"""The wrong cotangents of one input, whose cause is sought."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from minigrad.verify.fit import close, tolerance_of
from minigrad.verify.reference import Expected
from minigrad.verify.subject import Subject

_POSITIONS = 8  # elements of y whose one-hot cotangents are pulled back

Hypothesis = tuple[str, np.ndarray]  # a mistake, and the cotangents it gives: one per ``y_bar``


class Response(NamedTuple):
    """The cotangents of an input for a ``y_bar`` that is 1 at one position and 0 elsewhere."""

    position: tuple[int, ...]
    expected: np.ndarray
    bound: np.ndarray
    got: np.ndarray

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The indices of the elements that must not be 0, and of those that are not."""
        return np.argwhere(np.abs(self.expected) > self.bound), np.argwhere(self.got)


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

    @cached_property
    def responses(self) -> list[Response]:
        """The responses to some elements of y, from the first to the last."""
        found, shape = [], self.y_bar.shape[1:]
        for i in np.unique(np.linspace(0, np.prod(shape) - 1, _POSITIONS, dtype=int)):
            one_hot = np.zeros(shape, self.subject.dtype)
            one_hot.reshape(-1)[i] = 1
            position = tuple(int(j) for j in np.unravel_index(i, shape))
            expected, _, bound = self.expected_of(one_hot).of(self.k)
            got = np.asarray(self.subject.pull(one_hot)[self.k])
            found.append(Response(position, expected, bound, got))
        return found

    def is_explained_by(self, other: np.ndarray) -> bool:
        """Whether ``other`` is ``got``, within the tolerance."""
        return close(other, self.got, self.tolerance)

    def cause_in(self, hypotheses: Iterable[Hypothesis]) -> str:
        """The first mistake that gives ``got``; empty where none does."""
        return next((text for text, x_bars in hypotheses if self.is_explained_by(x_bars)), "")
