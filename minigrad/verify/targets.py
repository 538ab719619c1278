"""The targets of ``minigrad verify TARGET`` besides the main one, batch norm."""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path

from minigrad.declaration import REGISTRY
from minigrad.errors import DTypeError, UsageError, describe, facts
from minigrad.verify import probes as builtin
from minigrad.verify.arrays import on_host
from minigrad.verify.campaign import campaign
from minigrad.verify.check import check_backward
from minigrad.verify.device import pairs_elsewhere
from minigrad.verify.ops import check_op
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
            of_op = check_op(name, order=order, dtype=dtype, device=device)
            report.rows.append(_worst_row(f"{name} {dtype}", of_op))
            report.findings += of_op.findings
    return report


def _worst_row(name: str, report: Report) -> Row:
    if not report.rows:  # no differentiable input, or no case
        return Row(name, "-", 0.0, 0.0, ok=True, verdict="VACUOUS")
    worst = max(report.rows, key=lambda row: row.telling)
    pair = f"{worst.pair}, worst of {len(report.rows)}"
    return Row(name, pair, worst.error, worst.bound, worst.ok, worst.index, worst.verdict)


def check_code(
    target: str, probes: str = "batch_norm", *, dtype: str | None = None, device: str = "cpu"
) -> Report:
    """Run a campaign of ``module:forward,backward`` or ``module:make`` over points of batch norm.

    Args:
        target: an importable module (the current folder counts) and names in it: a pair, or a
            function without arguments that makes one.
        probes: the name of the points: ``"batch_norm"``, or for one layout ``"batch_norm:NC"``.
        dtype: only points whose inputs have this dtype; None: all.
        device: where the arrays are that the functions get.

    Raises:
        UsageError: a module, name or set of probes that does not exist; code that fails on import;
            no pair of functions.
    """
    if probes not in PROBES:
        expected = " or ".join(PROBES)
        raise UsageError(facts("verify: --probes", expected=expected, got=repr(probes)))
    points = [p for p in PROBES[probes]() if dtype is None or p[1][0].dtype == dtype]
    make = _maker(target)
    make()  # outside the try below: its errors have nothing to do with the points
    try:
        report = campaign(pairs_elsewhere(make, device), points)
    except UsageError as error:
        error.add_note(_OTHER_FUNCTIONS)
        raise
    if report.verdict == "VACUOUS":
        report.notes.append(Finding("refused", message=_OTHER_FUNCTIONS))
    report.title = f"{target} over {report.facts['probes']} points"
    return report


_OTHER_FUNCTIONS = (
    "the points here are those of a batch norm: x, gamma, beta and eps; "
    "MODULE:forward,backward,inputs checks any function, at the arrays in inputs"
)


def check_code_at(target: str, *, dtype: str | None = None, device: str = "cpu") -> Report:
    """Run ``check_backward`` on ``module:forward,backward,inputs``.

    Args:
        target: an importable module (the current folder counts) and names in it: a pair, and its
            inputs or a function without arguments that makes them.
        dtype: the inputs are cast to it; None: they keep theirs.
        device: where the arrays are that the functions get.

    Raises:
        UsageError: as for ``check_code``; inputs that are not floating arrays.
    """
    module, _, names = target.partition(":")
    *pair, given = names.split(",")
    make = pairs_elsewhere(_maker(f"{module}:{','.join(pair)}"), device)
    (source,) = _named(f"{module}:{given}")
    what = f"verify {target}: {given}"
    try:
        inputs = on_host(what, source() if callable(source) else source)
    except (DTypeError, UsageError) as error:
        raise UsageError(str(error)) from error
    except FAILURES as error:
        expected = "inputs: floating arrays, or a function without arguments that returns them"
        raise _unusable(target, expected, error) from error
    forward, backward = make()
    report = check_backward(forward, backward, [x.astype(dtype or x.dtype) for x in inputs])
    report.title = target
    return report


def _named(target: str) -> list:
    """The objects that ``module:name,name`` refers to."""
    module_name, _, names = target.partition(":")
    folder, file = Path.cwd(), Path(module_name).resolve()
    if file.suffix == ".py" and file.is_file():
        if "." in file.stem:
            expected = "a file that Python can import: without a dot before that of .py"
            raise _unusable(target, expected, file.name)
        is_inside = file.is_relative_to(folder)
        if not is_inside or any("." in name for name in file.parent.relative_to(folder).parts):
            folder = file.parent  # no package has a dot in its name
        module_name = ".".join(file.relative_to(folder).with_suffix("").parts)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
        return [attrgetter(name.strip())(module) for name in names.split(",")]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # pytest.importorskip, say, raises no Exception
        expected = "an importable MODULE:forward,backward[,inputs] or MODULE:make"
        raise _unusable(target, expected, error) from error


def _maker(target: str) -> Callable[[], tuple[Callable, Callable]]:
    """A function that makes the pair of ``module:forward,backward`` or ``module:make``."""
    functions = _named(target)

    def make() -> tuple[Callable, Callable]:
        expected = "forward and backward, or a function without arguments that returns both"
        try:
            pair = functions[0]() if len(functions) == 1 else tuple(functions)
        except FAILURES as error:
            raise _unusable(target, expected, error) from error
        if not is_pair(pair) or not all(map(callable, pair)):
            got = " and ".join(map(describe, pair)) if is_pair(pair) else describe(pair)
            raise _unusable(target, expected, got)
        return pair[0], pair[1]

    return make


def _unusable(target: str, expected: str, got: object) -> UsageError:
    """The error for a ``target`` that cannot be checked; of an error ``got``, its first line."""
    if isinstance(got, BaseException):
        got = f"{type(got).__name__}: {got}".partition("\n")[0]
    return UsageError(facts(f"verify {target}", expected=expected, got=got))
