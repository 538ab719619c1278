"""What ``minigrad verify TARGET`` can name besides the main job."""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from minigrad.declaration import REGISTRY
from minigrad.errors import UsageError, describe, facts
from minigrad.verify import probes as builtin
from minigrad.verify.campaign import campaign
from minigrad.verify.device import pairs_elsewhere
from minigrad.verify.gradcheck import check_op
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.subject import FAILURES, is_pair

PROBES = {
    "batch_norm": builtin.batch_norm,
    "batch_norm:NC": partial(builtin.batch_norm, "NC"),
    "batch_norm:NCHW": partial(builtin.batch_norm, "NCHW"),
}


def check_all(
    *, order: int = 2, dtypes: tuple[str, ...] = ("float64", "float32"), device: str = "cpu"
) -> Report:
    """Check every declared op and composite; one row each, at its worst comparison."""
    report = Report(f"every op, {' and '.join(dtypes)}, orders 1 to {order}")
    for dtype in dtypes:
        for name in sorted(REGISTRY):
            found = check_op(name, order=order, dtype=dtype, device=device)
            report.rows.append(_one_row(f"{name} {dtype}", found))
            report.findings += found.findings
    return report


def _one_row(name: str, report: Report) -> Row:
    if not report.rows:  # no differentiable input, no case: explained rather than proven
        note = Finding("vacuous", name, message=f"{name}: nothing to differentiate")
        report.notes.append(note)
        return Row(name, "-", 0.0, 0.0, ok=True, verdict="VACUOUS")
    worst = max(
        report.rows,
        key=lambda row: (not row.ok, row.verdict != "VACUOUS", row.error / (row.bound or np.inf)),
    )
    pair = f"{worst.pair}, worst of {len(report.rows)}"
    return Row(name, pair, worst.error, worst.bound, worst.ok, worst.index, worst.verdict)


def check_code(
    target: str, probes: str = "batch_norm", *, dtype: str | None = None, device: str = "cpu"
) -> Report:
    """Run a campaign over ``module:forward,backward`` or ``module:make``.

    Args:
        target: an importable module (the current folder counts) and the names in it: a pair, or a
            function without arguments that makes one.
        probes: the name of the points, ``"batch_norm"``; of one layout, ``"batch_norm:NC"``.
        dtype: only the points whose inputs have this one; None: all.
        device: where the arrays lie that the functions get.

    Raises:
        UsageError: a module, name or set of probes that does not exist; code that fails when it is
            imported; no pair of functions.
    """
    if probes not in PROBES:
        expected = " or ".join(PROBES)
        raise UsageError(facts("verify: --probes", expected=expected, got=repr(probes)))
    points = [p for p in PROBES[probes]() if dtype is None or p[1][0].dtype == dtype]
    report = campaign(pairs_elsewhere(_maker(target), device), points)
    report.title = f"{target} over {report.facts['probes']} points"
    return report


def _maker(target: str) -> Callable[[], tuple[Callable, Callable]]:
    module_name, _, names = target.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
        found = [getattr(module, name.strip()) for name in names.split(",")]
    except FAILURES as error:
        raise _unusable(
            target, "an importable MODULE:forward,backward or MODULE:make", error
        ) from error

    def make() -> tuple[Callable, Callable]:
        expected = "two functions, forward and backward, or one without arguments that makes them"
        try:
            made = found[0]() if len(found) == 1 else tuple(found)
        except FAILURES as error:
            raise _unusable(target, expected, error) from error
        if not is_pair(made) or not all(map(callable, made)):
            raise _unusable(target, expected, describe(made))
        return made[0], made[1]

    return make


def _unusable(target: str, expected: str, got: object) -> UsageError:
    got = f"{type(got).__name__}: {got}" if isinstance(got, BaseException) else got
    return UsageError(facts(f"verify {target}", expected=expected, got=got))
