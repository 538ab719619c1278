"""The same derivative found three ways that share no code: traced, analytic, numeric."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from minigrad.backend import namespace, to_device, to_host
from minigrad.errors import UsageError, facts
from minigrad.tensor import Tensor, tensor
from minigrad.transforms import vjp
from minigrad.verify import contract
from minigrad.verify.check import check_backward
from minigrad.verify.device import floating, moved, one_or_more
from minigrad.verify.judge import Sample, allow_rounding, reconsidered, wider
from minigrad.verify.randomness import generator
from minigrad.verify.reference import Function, Reference
from minigrad.verify.report import Finding, Report, Row, compare
from minigrad.verify.rounding import looks_like_batch_norm, normalization
from minigrad.verify.subject import (
    are_batch_norms,
    check_names,
    coarsest,
    default_names,
    parameter_names,
)

_WAYS = ("traced", "analytic", "numeric")


def three_way(
    f: Callable[..., Tensor],
    analytic_vjp: Callable[..., Sequence[Any]],
    inputs: Sequence[Any] | Any,
    *,
    names: Sequence[str] | None = None,
    rng: Any = 0,
    device: str = "cpu",
    **params: Any,
) -> Report:
    """Hold the traced cotangents of ``f`` against the analytic and the numeric ones.

    * traced: the engine sweeps the graph that ``f`` recorded,
    * analytic: ``analytic_vjp(xp, y_bar, *inputs, **params)``, written by hand,
    * numeric: differences of ``f`` on plain arrays, which neither of the others looks at.

    The cotangent of the result is random: with ones the true x_bar of a normalization is 0.

    Args:
        f: ``f(*inputs, **params)`` on tensors and on plain arrays.
        analytic_vjp: the hand-written pullback, one cotangent per input.
        inputs: floating arrays of one dtype, or just one.
        names: what the report calls them; as ``f`` does if not given.
        rng: seed or ``numpy.random.Generator`` of the cotangent.
        device: where the traced and the analytic way run.
        **params: passed to ``f`` and ``analytic_vjp``.

    Returns:
        A Report with a row for each input and pair of ways; a finding names the odd one out.

    >>> inputs = np.random.default_rng(0).normal(size=(5, 3)), np.ones(3), np.zeros(3)
    >>> mg.verify.three_way(mg.ops.batch_norm, mg.analytic.batch_norm_vjp, inputs).ok
    True
    """
    hosts = [floating("three_way: inputs", x) for x in one_or_more(inputs)]
    names = list(names or parameter_names(f, len(hosts)) or default_names(hosts))
    check_names("three_way: names", names, len(hosts))
    y, pull = _traced(f, hosts, device, params)
    y_bar = generator(rng).normal(size=y.shape).astype(y.dtype)
    cotangents = pull(y_bar)
    report = Report("three ways", facts={"shape": list(hosts[0].shape), "dtype": str(y.dtype)})
    if why := contract.undefined(hosts, y):
        report.notes.append(Finding("undefined", message=why))
        return report
    by_hand = _by_hand(analytic_vjp, (y_bar, *hosts), device, params)
    for finding in contract.form(names, hosts, by_hand):
        if finding.kind == "shape":
            message = f"the analytic way: {finding.message}"
            report.findings.append(replace(finding, message=message, cause="analytic"))
    if report.findings:  # there is nothing to compare
        return report

    def on_arrays(*arrays: np.ndarray) -> Any:
        return f(*arrays, **params)

    function = Function(on_arrays, tuple(hosts), coarsest([y, *hosts]), params)
    try:
        reference = Reference(function, y)
    except AttributeError as error:
        expected = "a function that plain arrays may be given, as differences do"
        raise UsageError(facts("three_way: f", expected=expected, got=str(error))) from error
    if why := reference.undefined:
        report.notes.append(Finding("undefined", message=why))
        return report
    expected = reference.expected(y_bar)
    known = _normalization(y, y_bar, hosts, params)
    wide = _Wide(f, analytic_vjp, hosts, y_bar, device, params, by_hand)
    for k, name in enumerate(names):
        value, error, bound = expected.of(k)
        bound = bound if known is None else known[k] + error
        ways = {"traced": cotangents[k], "analytic": by_hand[k], "numeric": value}
        each = [Sample("random", y_bar, ways[way], value, error, bound) for way in _WAYS[:2]]
        rows, kinks = _compared(name, k, each, reference, wide)
        report.rows += rows
        report.findings += _odd_one_out(rows, ways)
        if kinks:
            message = f"{name}: elements at kinks: {kinks}; any subgradient is accepted"
            report.notes.append(Finding("kink", name, message=message))
    if any(finding.cause == "analytic" for finding in report.findings):
        causes = _causes(f, analytic_vjp, hosts, names, params)
        report.findings = [_with_cause(finding, causes) for finding in report.findings]
    return report


def _compared(
    name: str, k: int, each: list[Sample], reference: Reference, wide: "_Wide"
) -> tuple[list[Row], int]:
    """A row for each pair of ways, and how many elements lie at kinks, where each way may choose.

    ``each`` are the traced and the analytic cotangent of input ``k``, held against the numeric one.
    """
    numeric, error, resolution = each[0].expected, each[0].error, each[0].bound
    each = [
        reconsidered(sample, k, reference, partial(wide.pulled, way, k))
        for way, sample in zip(_WAYS, each, strict=False)
    ]
    traced, analytic = each
    fit = np.all([np.abs(one.got - one.expected) <= one.bound for one in each], axis=0)
    kinks = np.any([one.expected != numeric for one in each], axis=0) & fit
    both = traced.bound + analytic.bound - 2 * error
    apart = replace(traced, expected=analytic.got, error=0 * error, bound=both, kinks=0)
    bound = allow_rounding(apart, k, reference, partial(wide.apart, k)).bound
    chosen = np.where(kinks, traced.got, analytic.got)
    rows = [compare(name, "traced/analytic", traced.got, chosen, bound, resolution=resolution)]
    for way, one in zip(_WAYS, each, strict=False):
        row = compare(name, f"{way}/numeric", one.got, one.expected, one.bound, kinks=one.kinks,
                      resolution=resolution)  # fmt: skip
        rows.append(row)
    return rows, int(kinks.sum())


def _traced(
    f: Callable, hosts: Sequence[np.ndarray], device: str, params: dict
) -> tuple[np.ndarray, Callable[[np.ndarray], list[np.ndarray]]]:
    """The result and the engine's pullback, on arrays of the host."""
    tensors = [tensor(x, requires_grad=True, device=device) for x in hosts]
    there = moved(params, device)
    y, pullback = vjp(lambda *args: f(*args, **there), *tensors)
    return y.numpy(), lambda y_bar: [x_bar.numpy() for x_bar in pullback(to_device(y_bar, device))]


def _by_hand(
    analytic_vjp: Callable, arrays: Sequence[np.ndarray], device: str, params: dict
) -> list[Any]:
    """The analytic cotangents on the host; what they overwrite is not what the others are given."""
    there = moved(tuple(array.copy() for array in arrays), device)
    x_bars = analytic_vjp(namespace(*there), *there, **moved(params, device))
    x_bars = x_bars if isinstance(x_bars, (tuple, list)) else [x_bars]
    return [to_host(x_bar) if hasattr(x_bar, "shape") else x_bar for x_bar in x_bars]


def _normalization(
    y: np.ndarray, y_bar: np.ndarray, hosts: list, params: dict
) -> list[np.ndarray] | None:
    """What a batch norm may round, over any axes and with given statistics; None of another f."""
    given = {k: v for k, v in params.items() if k in ("mean", "var", "axis", "eps")}
    named = are_batch_norms(hosts) and y.shape == hosts[0].shape and {"mean", "axis"} & given.keys()
    if named or looks_like_batch_norm(y, hosts, params):
        return normalization(y_bar, hosts, **given).bounds(y.dtype)
    return None


def _causes(
    f: Callable, analytic_vjp: Callable, hosts: list, names: list[str], params: dict
) -> dict[str | None, str]:
    """The likely cause per input, of the analytic way as a backward of ``f``."""

    def forward(*xs: Any) -> tuple[Any, Any]:
        return f(*xs, **params), xs

    def backward(y_bar: np.ndarray, xs: Any) -> Sequence[Any]:
        return analytic_vjp(np, y_bar, *xs, **params)

    found = check_backward(forward, backward, hosts, names=names).findings
    return {finding.input: finding.cause for finding in reversed(found)}


def _with_cause(finding: Finding, causes: dict[str | None, str]) -> Finding:
    cause = causes.get(finding.input) if finding.cause == "analytic" else ""
    message = f"{finding.message}; likely cause: {cause}"
    return replace(finding, message=message) if cause else finding


class _Wide:
    """The traced and the analytic way in wider numbers, for what does not fit."""

    def __init__(
        self, f: Callable, analytic_vjp: Callable, hosts: list, y_bar: np.ndarray, device: str,
        params: dict, narrow: list,
    ):  # fmt: skip
        dtype = wider(y_bar.dtype)
        self.wide, self.y_bar = [x.astype(dtype) for x in hosts], y_bar.astype(dtype)
        self.f, self.analytic_vjp, self.device, self.params = f, analytic_vjp, device, params
        self.narrow = narrow  # the analytic way as it was

    @cached_property
    def x_bars(self) -> dict[str, list[Any]]:
        """The cotangents; none of a way that takes nothing wider."""
        found: dict[str, list[Any]] = {}
        with suppress(Exception):  # whatever it is that a library says
            found["traced"] = _traced(self.f, self.wide, self.device, self.params)[1](self.y_bar)
        with suppress(Exception):
            arrays = (self.y_bar, *self.wide)
            found["analytic"] = _by_hand(self.analytic_vjp, arrays, self.device, self.params)
        return found

    def apart(self, k: int) -> np.ndarray | None:
        """The analytic cotangent, off by as much as the two ways are."""
        traced, analytic = (self.pulled(way, k) for way in _WAYS[:2])
        return None if traced is None or analytic is None else self.narrow[k] + traced - analytic

    def pulled(self, way: str, k: int) -> np.ndarray | None:
        x_bar = np.asarray(self.x_bars[way][k]) if way in self.x_bars else None
        return x_bar if x_bar is not None and x_bar.dtype == self.y_bar.dtype else None


def _odd_one_out(rows: list, ways: dict) -> list[Finding]:
    """A finding if a pair disagrees; it names the way that disagrees with the two others."""
    wrong = [row for row in rows if not row.ok]
    if not wrong:
        return []
    votes = {way: sum(way in row.pair.split("/") for row in wrong) for way in _WAYS}
    odd = [way for way in _WAYS if votes[way] == 2] if len(wrong) == 2 else []
    worst = wrong[0]
    suspect = f"the {odd[0]} way is the odd one out" if odd else "no way agrees with another"
    if len(wrong) == 1:
        suspect = "the third way lies between them"
    numbers = ", ".join(f"{way} {float(ways[way][worst.index]):.6g}" for way in _WAYS)
    message = f"{worst.input}{list(worst.index)}: {suspect}: {numbers} (bound {worst.bound:.1e})"
    return [Finding("value", worst.input, worst.index, bound=worst.bound, message=message,
                    cause=odd[0] if odd else "")]  # fmt: skip
