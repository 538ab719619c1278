"""Measures works: a row of the table for each pair of contestants."""

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from .contestant import Missing
from .measure import Child, Spread, by_turns, ratio
from .works import Pair, Work

# malloc returns freed memory to the system at once, so that resident memory is memory in use
_TIGHT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
STEPS = 5  # whose peak memory is measured


@dataclass(frozen=True)
class Row:
    """One line of the table; ``missing`` says why there is no figure.

    ``ours`` and ``theirs`` are medians: seconds, bytes, or examples per second. For growth the
    figure is a slope, and they are the times of the smallest and of the largest size.
    """

    work: Work
    pair: Pair
    figure: Spread | None = None
    ours: float | None = None
    theirs: float | None = None
    missing: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets the limit; None without a limit or a figure."""
        if self.figure is None or self.pair.limit is None:
            return None
        if self.work.kind == "rate":
            return self.figure.median >= self.pair.limit
        return self.figure.median <= self.pair.limit


def rows(work: Work, rounds: int, seconds: float, report: Callable[[str], None]) -> Iterator[Row]:
    """Measure ``work``; ``report`` gets messages about the progress."""
    report(work.title)
    if work.kind == "growth":
        for pair in work.pairs:
            yield _growth(work, pair, rounds, seconds, report)
        return
    if work.kind == "memory":
        found, missing = _peaks(work, max(1, rounds // 5))
    else:
        found, missing = _times(work, rounds, seconds)
    for pair in work.pairs:
        reason = missing.get(pair.ours) or missing.get(pair.theirs)
        if reason:
            yield Row(work, pair, missing=reason)
        elif work.kind == "rate":
            rates = [work.size["batch"] / t for t in found[pair.ours]]
            yield Row(work, pair, Spread.of(rates), statistics.median(rates))
        else:
            ours, theirs = found[pair.ours], found[pair.theirs]
            middle = statistics.median(ours), statistics.median(theirs)
            yield Row(work, pair, ratio(ours, theirs), *middle)


def _times(work: Work, rounds: int, seconds: float) -> tuple[dict, dict[str, str]]:
    """Seconds per round of every contestant, and why some are missing."""
    missing: dict[str, str] = {}
    turns = {}
    with ExitStack() as stack:
        for name in work.names:
            child = stack.enter_context(Child(name))
            try:
                child.ask("prepare", key="", work=work.maker, size=work.size)
                child.ask("burst", key="", seconds=0.0)  # loads and compiles
                turns[name] = child, ""
            except Missing as reason:
                missing[name] = str(reason)
        return by_turns(turns, rounds, seconds), missing


def _peaks(work: Work, repeats: int) -> tuple[dict, dict[str, str]]:
    """Bytes that steps add to the memory of fresh processes of every contestant, and why some are
    missing."""
    found: dict[str, list[float]] = {name: [] for name in work.names}
    missing: dict[str, str] = {}
    for _ in range(repeats):
        for name in work.names:
            if name in missing:
                continue
            with Child(name, _TIGHT) as child:
                try:
                    child.ask("prepare", key="small", work=work.maker, size=work.small)
                    child.ask("burst", key="small", seconds=0.0)
                    child.ask("forget", key="small")
                    child.ask("prepare", key="", work=work.maker, size=work.size)
                    found[name].append(child.ask("peak", key="", steps=STEPS))
                except Missing as reason:
                    missing[name] = str(reason)
    return found, missing


def _growth(
    work: Work, pair: Pair, rounds: int, seconds: float, report: Callable[[str], None]
) -> Row:
    """The slope of the straight line through log time against log size."""
    name, values = work.vary
    with Child(pair.ours) as child:
        try:
            for value in values:
                size = {**work.size, name: value}
                child.ask("prepare", key=str(value), work=work.maker, size=size)
                child.ask("burst", key=str(value), seconds=0.0, least=1)
        except Missing as reason:
            return Row(work, pair, missing=str(reason))
        turns = {str(value): (child, str(value)) for value in values}
        times = by_turns(turns, max(3, rounds // 3), seconds)
    middle = [statistics.median(found) for found in times.values()]
    report(f"  {pair.ours}, ms: " + " ".join(f"{1e3 * t:.3g}" for t in middle))
    slopes = [
        statistics.linear_regression(
            [math.log(value) for value in values], [math.log(t) for t in round_]
        ).slope
        for round_ in zip(*times.values(), strict=True)
    ]
    return Row(work, pair, Spread.of(slopes), middle[0], middle[-1])
