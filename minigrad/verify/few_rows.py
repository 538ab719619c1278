"""The cause of a wrong backward at a large point, sought in the first rows of its batch.

The search compares the derivatives of every value of the code, so it takes a small point. Here
those of the engine are the expected ones, if differences along directions agree with them.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from minigrad.verify.arrays import mapped
from minigrad.verify.diagnose import cause_of
from minigrad.verify.directions import Directions, are_right
from minigrad.verify.faults import FaultSearch
from minigrad.verify.graph import Graph
from minigrad.verify.judge import Sample
from minigrad.verify.reference import Expected, Reference
from minigrad.verify.subject import FAILURES, Subject, cotangents
from minigrad.verify.traced import trace

_ROWS = 3, 2  # with two rows, batch statistics hide a lot, but more code can be searched
_OF_ROWS = "(with a batch of"
_BOUND = 1e-9  # of the engine's cotangents, relative to the largest


class FewRows:
    """A large subject with few rows: its first input, the arrays in params and, if that is not
    enough for ``forward``, all inputs of as many rows are cut."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self._causes: dict[int, str] = {}
        self._cuts: dict[int, _Small | None] = {}  # by the number of rows

    def cause(self, k: int) -> str:
        """The likely cause of a wrong cotangent of input ``k``; empty where none is found."""
        if k not in self._causes:
            self._causes[k] = ""
            with suppress(*FAILURES):  # backward may need all rows
                causes = filter(None, (each.cause(k) for each in self._small()))
                cause = self._causes[k] = next(causes, "")
                if cause.startswith("factor") and _OF_ROWS in cause:  # 3 may be an exponent
                    other = next(causes, cause)
                    self._causes[k] = cause if _OF_ROWS in other else other
        return self._causes[k]

    def _small(self) -> Iterator["_Small"]:
        x = self.subject.inputs[0]
        for rows in _ROWS if x.ndim else ():
            if rows not in self._cuts:
                self._cuts[rows] = _cut(self.subject, rows) if rows < len(x) else None
            if small := self._cuts[rows]:
                yield small


class _Small:
    """A subject with so few rows, its output and its graph."""

    def __init__(self, subject: Subject, rows: int, y: np.ndarray, graph: Graph):
        self.subject, self.rows, self.y, self.graph = subject, rows, y, graph
        self.search = FaultSearch()

    def cause(self, k: int) -> str:
        """The likely cause; numbers in it may be those of so few rows, so it says how many."""
        samples = []
        for kind, y_bar in cotangents(self.y, np.random.default_rng(0)):
            got = np.asarray(self.subject.pull(y_bar)[k])
            samples.append(Sample(kind, y_bar, got, *self.expected(y_bar).of(k)))
        if all(sample.ok for sample in samples if sample.kind == "random"):
            return ""
        cause = cause_of(self.subject, k, samples, self.expected, self.search)
        words = re.sub(r"`.*?`|\blines? \d+", "", cause)
        speaks_of_rows = re.search(rf"\b(N|{self.rows}|only (?!the )\w+)\b", words)
        return f"{cause} {_OF_ROWS} {self.rows})" if speaks_of_rows else cause

    def expected(self, y_bar: np.ndarray) -> Expected:
        """The engine's cotangents."""
        values = self.graph.pull(np.asarray(y_bar, np.float64))[0]
        bounds = [np.full(x.shape, _BOUND * np.abs(x).max(initial=0)) for x in values]
        return Expected(values, [np.zeros(x.shape) for x in values], bounds)

    @property
    def is_confirmed(self) -> bool:
        """Whether differences along directions agree with the engine."""
        y_bar = np.random.default_rng(0).normal(size=np.shape(self.y))
        right = self.graph.pull(y_bar)[0]
        whole = Reference(self.subject.with_copies(), self.y, is_large=True)
        directions = Directions(whole, right)
        return are_right(directions.samples("", y_bar, right))


def _cut(subject: Subject, rows: int) -> _Small | None:
    """The subject with so many rows; None if that cannot be had or traced."""

    def cut(array: np.ndarray) -> np.ndarray:
        is_batch = array.ndim and len(array) == len(subject.inputs[0])
        return array[:rows].copy() if is_batch else array

    first, *others = subject.inputs
    params = mapped(cut, dict(subject.params))
    for inputs in (cut(first), *others), tuple(map(cut, subject.inputs)):
        small = replace(subject, inputs=inputs, params=params)
        with suppress(*FAILURES):  # forward may need all rows
            y, graph = small.run()[0], trace(small)
            found = _Small(small, rows, y, graph) if graph is not None else None
            if found and found.is_confirmed:
                return found
    return None
