"""Many points, one implementation: what a single point cannot show."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.errors import UsageError, describe, facts
from minigrad.verify.check import Point
from minigrad.verify.device import floating, one_or_more
from minigrad.verify.probes import Probe
from minigrad.verify.randomness import generator
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.subject import (
    Subject,
    are_batch_norms,
    copied,
    default_names,
    forward_taking,
    is_pair,
)

_SOAK, _FEW = 1500, 3  # identical calls at one point, and at each of the others


def campaign(make: Callable[[], tuple[Callable, Callable]], probes: Any, *, rng: Any = 0) -> Report:
    """Check an implementation at many points.

    One instance lives through all points, as it would in a program; a fresh one gives the reference
    at each, so what an instance keeps from earlier calls shows as a difference.

    Args:
        make: ``make() -> (forward, backward)``, fresh each time.
        probes: an iterable of ``(label, inputs, params)``, or a hypothesis strategy of such tuples,
            whose failures shrink to a smallest point.
        rng: seed or ``numpy.random.Generator``.

    Returns:
        A Report with one finding per fault, at the smallest point that shows it, with the number of
        points that do; and a row per input, at that point or, where it is right, at its worst.
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
    """One instance of the pair; UsageError where ``make`` makes none."""
    made = make() if callable(make) else make
    if not callable(make) or not is_pair(made) or not all(map(callable, made)):
        expected = "a function without arguments that returns two, forward and backward"
        got = describe(make) if not callable(make) else f"one that returns {describe(made)}"
        raise UsageError(facts("campaign: make", expected=expected, got=got))
    return made[0], made[1]


def _of_arrays(probe: Probe) -> Probe:
    if not isinstance(probe, (tuple, list)) or len(probe) != 3:
        expected = "(label, inputs, params)"
        raise UsageError(facts("campaign: a probe", expected=expected, got=describe(probe)))
    label, inputs, params = probe
    what = f"campaign: inputs of the probe {label!r}"
    return label, tuple(floating(what, x) for x in one_or_more(inputs)), copied(dict(params or {}))


def _examined(
    make: Callable,
    shared: tuple[Callable, Callable],
    probe: Probe,
    soak: int,
    rng: np.random.Generator,
) -> tuple[list[Row], list[Finding], list[Finding]]:
    label, inputs, params = probe
    # points of a batch norm name its operands, whatever forward calls them
    names = default_names(inputs, None if are_batch_norms(inputs) else shared[0])
    what = f"campaign: params of the probe {label!r}"
    one, fresh, unseen = (
        Subject(forward_taking(what, forward, len(inputs), params), backward, inputs, params, names)
        for forward, backward in (shared, _made(make), _made(make))
    )
    return Point(one, rng, label, fresh, unseen).examine(soak=soak)


def _summary(outcomes: list[tuple[Probe, tuple]]) -> Report:
    report = Report("campaign", facts={"probes": len(outcomes)})
    if not outcomes:
        raise UsageError(facts("campaign: probes", expected="at least one", got="none"))
    rows: dict[str, dict[int, Row]] = {}
    faults: dict[tuple, dict[int, Finding]] = {}  # at most one of its kind per probe
    notes: dict[tuple, dict[int, Finding]] = {}
    for i, (found_rows, found_faults, found_notes) in enumerate(outcome for _, outcome in outcomes):
        for row in found_rows:
            rows.setdefault(row.input, {})[i] = row
        for finding in found_faults:
            faults.setdefault((finding.kind, finding.input), {}).setdefault(i, finding)
        for note in found_notes:
            notes.setdefault((note.kind, note.cause), {}).setdefault(i, note)
    probes = dict(enumerate(probe for probe, _ in outcomes))
    report.rows = [_telling(found, probes) for found in rows.values()]
    judged = {i: probes[i] for i, (_, (found, wrong, _)) in enumerate(outcomes) if found or wrong}
    report.findings = [_merged(found, judged) for found in faults.values()]
    report.notes = [_merged(found, probes) for found in notes.values()]
    return report


def _telling(rows: dict[int, Row], probes: dict[int, Probe]) -> Row:
    """The row of the point that a finding would name, or the worst of those that are right."""
    wrong = {i: row for i, row in rows.items() if not row.ok}
    wrong = {i: row for i, row in wrong.items() if not row.error <= row.bound} or wrong
    if wrong:
        return wrong[_smallest(wrong, probes)]
    return max(rows.values(), key=lambda row: row.telling)


def _smallest(found: Iterable[int], probes: dict[int, Probe]) -> int:
    return min(found, key=lambda i: _size(probes[i]))


def _size(probe: Probe) -> int:
    return probe[1][0].size


def _merged(found: dict[int, Finding], everywhere: dict[int, Probe]) -> Finding:
    """One finding for a fault that shows at several points: its smallest point, its extent."""
    finding = found[_smallest(found, everywhere)]
    causes = [f.cause for f in found.values()]
    # what fits at most points; where nothing does, what fits a few of them by chance misleads
    common = max(dict.fromkeys(causes), key=lambda cause: (causes.count(cause), bool(cause)))
    only = _only([everywhere[i] for i in found], list(everywhere.values()))
    cause = "; ".join(part for part in (common, only) if part)
    message, likely = finding.message, f"; likely cause: {common}"
    if finding.cause != common:  # the smallest point may be too small to tell
        message = message.removesuffix(f"; likely cause: {finding.cause}")
        message += likely * any(f.message.endswith(likely) for f in found.values())
    extent = f"{finding.label}: {message} [{len(found)} of {len(everywhere)} points"
    return replace(finding, cause=cause, message=f"{extent}{', ' + only if only else ''}]")


def _only(bad: list[Probe], everywhere: list[Probe]) -> str:
    """A property that all failing points have and most points with it fail."""
    if any(probe[1][0].ndim < 2 for probe in everywhere):  # there is no channel to speak of
        return ""
    labels = {probe[0] for probe in bad}
    good = [probe for probe in everywhere if probe[0] not in labels]
    shared = {
        name: sum(map(holds, good)) for name, holds in _PROPERTIES.items() if all(map(holds, bad))
    }
    shared = {name: count for name, count in shared.items() if count < len(good)}
    if not shared:
        return ""
    name = min(shared, key=lambda key: shared[key])
    if shared[name] > len(bad):
        return ""
    return f"only {name}" if not shared[name] else f"only {name}, not always"


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
    "eps above 1e-5": lambda p: p[2].get("eps", 0) > 1e-5,
    "Fortran order": lambda p: "Fortran" in p[0],
    "negative gamma": lambda p: "gamma negative" in p[0],
    "gamma 0": lambda p: "gamma 0" in p[0],
    "an outlier": lambda p: "outlier" in p[0],
    "a constant channel": lambda p: "constant" in p[0],
    "more than 32 values": lambda p: p[1][0].size // max(p[1][0].shape[1], 1) > 32,
}


def _searched(make: Callable, strategy: Any, rng: np.random.Generator) -> Report:
    """Let hypothesis draw points; report the smallest that fails."""
    from hypothesis import HealthCheck, Phase, given, settings

    outcomes: list[tuple[Probe, tuple]] = []
    seed = int(rng.integers(2**32))

    def examined(probe: Probe, soak: int) -> list[Finding]:
        outcomes.append(
            (probe, _examined(make, _made(make), probe, soak, np.random.default_rng(seed)))
        )
        return outcomes[-1][1][1]

    patient = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    @settings(
        max_examples=60,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=patient,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def every_point_is_right(probe: Probe) -> None:
        assert not examined(_of_arrays(probe), _FEW)

    try:
        every_point_is_right()
        assert not examined(max((probe for probe, _ in outcomes), key=_size), _SOAK)
    except AssertionError:
        return _summary(outcomes[-1:])  # of those that fail, hypothesis ends with the smallest
    return _summary(outcomes)
