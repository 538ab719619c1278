"""One implementation at many points: finds faults that a single point cannot show."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from minigrad.errors import UsageError, describe, facts
from minigrad.verify.arrays import copied, on_host
from minigrad.verify.check import Point
from minigrad.verify.probes import Probe
from minigrad.verify.randomness import Seed, generator
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.subject import (
    Subject,
    are_batch_norms,
    default_names,
    forward_taking,
    is_pair,
)

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]\d+)?")  # in a cause
_SOAK, _FEW = 1500, 3  # identical calls at one point, and at each of the others


def campaign(
    make: Callable[[], tuple[Callable, Callable]], probes: Any, *, rng: Seed = 0
) -> Report:
    """Check an implementation at many points.

    One instance is called at all points, as it would be in a program. At each point a fresh one
    gives the reference, so values that the first keeps from earlier calls show as a difference.

    Args:
        make: ``make() -> (forward, backward)``, fresh each time.
        probes: an iterable of ``(label, inputs, params)``, or a hypothesis strategy of such tuples,
            whose failures shrink to a smallest point.
        rng: seed or ``numpy.random.Generator``.

    Returns:
        A Report with one finding per fault, at the smallest point that shows it, and the number of
        points that do; and a row per input: at that point or, if it is right, at its worst point.
    """
    rng = generator(rng)
    shared = _made(make)
    if hasattr(probes, "example") and hasattr(probes, "map"):
        return _searched(make, probes, rng)
    return _summary(
        [
            (probe, _examined(make, shared, probe, _FEW if i else _SOAK, rng))
            for i, probe in enumerate(map(_of_arrays, probes))
        ]
    )


def _made(make: Callable) -> tuple[Callable, Callable]:
    """A new instance of the pair; UsageError if ``make`` does not return one."""
    pair = make() if callable(make) else make
    if not callable(make) or not is_pair(pair) or not all(map(callable, pair)):
        expected = "a function without arguments that returns (forward, backward)"
        got = describe(make) if not callable(make) else f"a function that returns {describe(pair)}"
        raise UsageError(facts("campaign: make", expected=expected, got=got))
    return pair[0], pair[1]


def _of_arrays(probe: Probe) -> Probe:
    if not isinstance(probe, (tuple, list)) or len(probe) != 3:
        expected = "(label, inputs, params)"
        raise UsageError(facts("campaign: a probe", expected=expected, got=describe(probe)))
    label, inputs, params = probe
    arrays = tuple(on_host(f"campaign: inputs of the probe {label!r}", inputs))
    return str(label), arrays, copied(dict(params or {}))


def _examined(
    make: Callable,
    shared: tuple[Callable, Callable],
    probe: Probe,
    soak: int,
    rng: np.random.Generator,
) -> Report:
    label, inputs, params = probe
    # at points of a batch norm the inputs are x, gamma, beta, whatever forward calls them
    names = default_names(inputs, None if are_batch_norms(inputs) else shared[0])
    what = f"campaign: params of the probe {label!r}"
    subject, fresh, unseen = (
        Subject(forward_taking(what, forward, len(inputs), params), backward, inputs, params, names)
        for forward, backward in (shared, _made(make), _made(make))
    )
    return Point(subject, rng, label, fresh, unseen).examine(soak=soak)


def _summary(outcomes: list[tuple[Probe, Report]]) -> Report:
    """One report on all points; dictionaries map the number of a point to its result there."""
    report = Report("campaign", facts={"probes": len(outcomes)})
    if not outcomes:
        raise UsageError(facts("campaign: probes", expected="at least one probe", got="none"))
    rows: dict[str, dict[int, Row]] = {}
    faults: dict[tuple, dict[int, Finding]] = {}  # at most one of each kind per point
    notes: dict[tuple, dict[int, Finding]] = {}
    judged: dict[int, Probe] = {}
    for i, (probe, here) in enumerate(outcomes):
        for row in here.rows:
            rows.setdefault(row.input, {})[i] = row
        for fault in here.findings:
            faults.setdefault((fault.kind, fault.input), {}).setdefault(i, fault)
        for note in here.notes:
            notes.setdefault((note.kind, note.cause), {}).setdefault(i, note)
        if here.rows or here.findings:
            judged[i] = probe
    probes = dict(enumerate(probe for probe, _ in outcomes))
    report.rows = [_shown_row(by_point, probes) for by_point in rows.values()]
    report.findings = [_merged(by_point, judged) for by_point in faults.values()]
    report.notes = [_merged(by_point, probes) for by_point in notes.values()]
    return report


def _shown_row(rows: dict[int, Row], probes: dict[int, Probe]) -> Row:
    """The row of the smallest point that is wrong; the worst row if all are right."""
    wrong = {i: row for i, row in rows.items() if not row.ok}
    # if possible one with a wrong number, not only a violated contract
    wrong = {i: row for i, row in wrong.items() if not row.error <= row.bound} or wrong
    if wrong:
        return wrong[_smallest(wrong, probes)]
    return max(rows.values(), key=lambda row: row.telling)


def _smallest(points: Iterable[int], probes: dict[int, Probe]) -> int:
    return min(points, key=lambda i: _size(probes[i]))


def _size(probe: Probe) -> int:
    return probe[1][0].size


def _merged(findings: dict[int, Finding], probes: dict[int, Probe]) -> Finding:
    """The finding at the smallest of the points that show a fault, and at which points it shows."""
    finding = findings[_smallest(findings, probes)]
    common = _common([f.cause for f in findings.values()], finding.cause)
    only = _only([probes[i] for i in findings], list(probes.values()))
    cause = "; ".join(part for part in (common, only) if part)
    message = finding.message
    if finding.cause != common:  # the smallest point may be too small to show the cause
        ending = "; likely cause: {}".format
        message = message.removesuffix(ending(finding.cause))
        if common and any(f.message.endswith(ending(f.cause)) for f in findings.values()):
            message += ending(common)
    extent = f"{finding.label}: {message} [{len(findings)} of {len(probes)} points"
    return replace(finding, cause=cause, message=f"{extent}{', ' + only if only else ''}]")


def _common(causes: list[str], shown: str) -> str:
    """The most frequent cause, even if it is none: one that fits a few points by chance misleads.

    If twice as many agree with each other but for their numbers, that one, with "..." for numbers
    that differ; or ``shown``, if it is one of these and all numbers differ.
    """
    gap = "\0"
    forms = [_NUMBER.sub(gap, cause) for cause in causes]
    cause, form = (
        max(dict.fromkeys(texts), key=lambda text: (texts.count(text), bool(text)))
        for texts in (causes, forms)
    )
    alike = [_NUMBER.findall(c) for c, f in zip(causes, forms, strict=True) if f == form]
    if len(alike) <= 2 * causes.count(cause):
        return cause
    numbers = [{*column} for column in zip(*alike, strict=True)]
    if all(len(each) > 1 for each in numbers) and _NUMBER.sub(gap, shown) == form:
        return shown
    columns = iter(numbers)
    return re.sub(gap, lambda _: "..." if len(each := next(columns)) > 1 else each.pop(), form)


def _only(bad: list[Probe], probes: list[Probe]) -> str:
    """A property of all failing points that few others have: at most as many, and not all."""
    if any(probe[1][0].ndim < 2 for probe in probes):  # the properties speak of channels
        return ""
    labels = {probe[0] for probe in bad}
    good = [probe for probe in probes if probe[0] not in labels]
    shared_by = {
        name: sum(map(holds, good)) for name, holds in _PROPERTIES.items() if all(map(holds, bad))
    }
    shared_by = {name: count for name, count in shared_by.items() if count < len(good)}
    if not shared_by:
        return ""
    name = min(shared_by, key=lambda key: shared_by[key])
    if shared_by[name] > len(bad):
        return ""
    return f"only {name}" if not shared_by[name] else f"only {name}, but not always"


_PROPERTIES: dict[str, Callable[[Probe], bool]] = {
    "float32": lambda p: p[1][0].dtype == np.float32,
    "float64": lambda p: p[1][0].dtype == np.float64,
    "odd N": lambda p: p[1][0].shape[0] % 2 == 1,
    "even N": lambda p: p[1][0].shape[0] % 2 == 0,
    "(N, C)": lambda p: p[1][0].ndim == 2,
    "(N, C, H, W)": lambda p: p[1][0].ndim == 4,
    "N = C": lambda p: p[1][0].shape[0] == p[1][0].shape[1],
    "N = 1": lambda p: p[1][0].shape[0] == 1,
    "N = 2": lambda p: p[1][0].shape[0] == 2,
    "H = W": lambda p: p[1][0].ndim == 4 and p[1][0].shape[2] == p[1][0].shape[3],
    "H != W": lambda p: p[1][0].ndim == 4 and p[1][0].shape[2] != p[1][0].shape[3],
    "large offsets": lambda p: "offset" in p[0],
    "small scales": lambda p: any(s in p[0] for s in ("scale 1e-06", "scale 0.001", "0 small")),
    "large scales": lambda p: "scale 1e+06" in p[0] or "scale 1000" in p[0],
    "eps above 1e-5": lambda p: isinstance(eps := p[2].get("eps"), Real) and float(eps) > 1e-5,
    "Fortran order": lambda p: "Fortran" in p[0],
    "negative gamma": lambda p: "gamma negative" in p[0],
    "gamma 0": lambda p: "gamma 0" in p[0],
    "an outlier": lambda p: "outlier" in p[0],
    "a constant channel": lambda p: "constant" in p[0],
    "more than 32 values": lambda p: p[1][0].size // max(p[1][0].shape[1], 1) > 32,
}


class _PointFailed(Exception):
    """Tells hypothesis to go on with smaller points."""


def _searched(make: Callable, strategy: Any, rng: np.random.Generator) -> Report:
    """Let hypothesis draw points, and report on the smallest that fails."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Flaky

    outcomes: list[tuple[Probe, Report]] = []
    seed = int(rng.integers(2**32))

    def examined(probe: Probe, soak: int) -> list[Finding]:
        report = _examined(make, _made(make), probe, soak, np.random.default_rng(seed))
        outcomes.append((probe, report))
        return report.findings

    patient = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    @settings(max_examples=60, database=None, deadline=None, derandomize=True,
              suppress_health_check=patient, phases=[Phase.generate, Phase.shrink])  # fmt: skip
    @given(strategy)
    def every_point_is_right(probe: Probe) -> None:
        if examined(_of_arrays(probe), _FEW):
            raise _PointFailed

    try:
        every_point_is_right()
    except (_PointFailed, Flaky):  # Flaky: the same point failed once, and not again
        failed = [outcome for outcome in outcomes if outcome[1].findings]
        if not failed:  # the strategy is at fault
            raise
        return _summary(failed[-1:])  # hypothesis ends with the smallest failing point
    fails = examined(max((probe for probe, _ in outcomes), key=_size), _SOAK)
    return _summary(outcomes[-1:] if fails else outcomes)
