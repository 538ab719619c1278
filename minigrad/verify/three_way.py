"""The same derivative by three ways that share no code: traced, analytic, numeric."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from typing import Any

import numpy as np

from minigrad.backend import namespace, to_device, to_host
from minigrad.errors import UsageError, facts, refusal
from minigrad.tensor import Tensor, tensor
from minigrad.transforms import vjp
from minigrad.verify import contract
from minigrad.verify.arrays import coarsest, copied, on_host
from minigrad.verify.check import check_backward
from minigrad.verify.device import moved
from minigrad.verify.directions import ALONG_DIRECTIONS, Directions, are_right
from minigrad.verify.judge import Sample, allow_rounding, at_kinks, compare, reconsidered, wider
from minigrad.verify.randomness import Seed, generator
from minigrad.verify.reference import Function, Reference
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.subject import check_names, default_names, parameter_names

_WAYS = ("traced", "analytic", "numeric")


@contract.restoring_global_state()
def three_way(
    f: Callable[..., Tensor],
    analytic_vjp: Callable[..., Sequence[Any]],
    inputs: Sequence[Any] | Any,
    *,
    names: Sequence[str] | None = None,
    rng: Seed = 0,
    device: str = "cpu",
    **params: Any,
) -> Report:
    """Compare the traced, the analytic and the numeric cotangents of ``f`` with each other.

    * traced: the engine sweeps the graph that ``f`` recorded,
    * analytic: ``analytic_vjp(xp, y_bar, *inputs, **params)``, written by hand,
    * numeric: differences of ``f`` on plain arrays, which neither of the others uses.

    The cotangent of the result is random: with ones the true x_bar of a normalization is 0.

    Args:
        f: ``f(*inputs, **params)`` on tensors and on plain arrays.
        analytic_vjp: the hand-written pullback, one cotangent per input.
        inputs: floating arrays of one dtype, or just one.
        names: what the report calls the inputs; by default, as ``f`` calls them.
        rng: seed or ``numpy.random.Generator`` of the cotangent.
        device: where the traced and the analytic way run.
        **params: passed to ``f`` and ``analytic_vjp``.

    Returns:
        A Report with a row for each input and pair of ways; a finding names the odd one out.

    >>> inputs = np.random.default_rng(0).normal(size=(5, 3)), np.ones(3), np.zeros(3)
    >>> mg.verify.three_way(mg.ops.batch_norm, mg.analytic.batch_norm_vjp, inputs).ok
    True
    """
    hosts = on_host("three_way: inputs", inputs)
    names = list(names or parameter_names(f, len(hosts)) or default_names(hosts))
    check_names("three_way: names", names, len(hosts))
    arguments = "xp", "y_bar", *names
    if got := refusal(analytic_vjp, (arguments, params)):
        expected = f"arguments ({', '.join([*arguments, *(f'{k}=...' for k in params)])})"
        raise UsageError(facts("three_way: analytic_vjp", expected=expected, got=got))
    both = _Ways(f, analytic_vjp, device, params)
    y, pull = both.traced(hosts)
    y_bar = generator(rng).normal(size=y.shape).astype(y.dtype)
    traced = pull(y_bar)
    report = Report("three ways", facts={"shape": list(hosts[0].shape), "dtype": str(y.dtype)})
    if why := contract.undefined(hosts, y):
        report.notes.append(Finding("undefined", message=why))
        return report
    analytic = both.analytic(y_bar, hosts)
    report.findings += _wrong_form(names, hosts, analytic, y.dtype)
    reference = None if report.findings else _reference(both, hosts, y, report)
    if reference is None:
        return report
    wide = cache(partial(both.in_wider, y_bar, hosts))
    if directions := _agreeing_directions(reference, y_bar, traced, analytic):
        reference, along = directions, directions.along
        traced, analytic = ([*map(along, count(), x_bars)] for x_bars in (traced, analytic))
        report.notes.append(Finding("directions", message=ALONG_DIRECTIONS))
    elif reference.undefined:
        report.notes.append(Finding("undefined", message=reference.undefined))
        return report
    expected = reference.expected(y_bar)
    for k, name in enumerate(names):
        value, error, bound = expected.of(k)
        ways = {"traced": traced[k], "analytic": analytic[k], "numeric": value}
        samples = [Sample("random", y_bar, ways[way], value, error, bound) for way in _WAYS[:2]]
        rows, kinks = _compared(name, k, samples, reference, wide)
        report.rows += [replace(row, index=()) for row in rows] if directions else rows
        report.findings += _odd_one_out(rows, ways)
        if kinks:
            report.notes.append(Finding("kink", name, message=at_kinks(name, kinks)))
    if any(finding.cause == "analytic" for finding in report.findings):
        causes = both.causes(hosts, names)
        report.findings = [_with_cause(finding, causes) for finding in report.findings]
    return report


@dataclass(frozen=True)
class _Ways:
    """A function of tensors and its hand-written pullback, both on one device."""

    f: Callable[..., Any]
    analytic_vjp: Callable[..., Any]
    device: str
    params: dict[str, Any]

    def on_arrays(self, *arrays: np.ndarray) -> Any:
        """``f`` of plain arrays."""
        return self.f(*arrays, **self.params)

    def traced(
        self, hosts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, Callable[[np.ndarray], list[np.ndarray]]]:
        """The result and the engine's pullback, both on arrays of the host."""
        tensors = [tensor(x, requires_grad=True, device=self.device) for x in hosts]
        params = moved(self.params, self.device)
        y, pull = vjp(lambda *args: self.f(*args, **params), *tensors)
        return y.numpy(), lambda y_bar: [
            x_bar.numpy() for x_bar in pull(to_device(y_bar, self.device))
        ]

    def analytic(self, y_bar: np.ndarray, hosts: Sequence[np.ndarray]) -> list[Any]:
        """The analytic cotangents on the host; ``analytic_vjp`` may overwrite its arguments."""
        copies = moved(copied((y_bar, *hosts)), self.device)
        x_bars = self.analytic_vjp(namespace(*copies), *copies, **moved(self.params, self.device))
        if not isinstance(x_bars, (tuple, list)):
            x_bars = [] if x_bars is None else [x_bars]
        return [to_host(x_bar) if hasattr(x_bar, "shape") else x_bar for x_bar in x_bars]

    def in_wider(self, y_bar: np.ndarray, hosts: Sequence[np.ndarray]) -> dict[tuple, np.ndarray]:
        """The cotangents by way and input in wider precision; those not in that dtype left out."""
        dtype = wider(y_bar.dtype)
        y_bar, hosts, by_way = y_bar.astype(dtype), [x.astype(dtype) for x in hosts], {}
        with suppress(Exception):  # libraries raise various types
            by_way["traced"] = self.traced(hosts)[1](y_bar)
        with suppress(Exception):
            by_way["analytic"] = self.analytic(y_bar, hosts)
        found = {(way, k): np.asarray(a) for way in by_way for k, a in enumerate(by_way[way])}
        return {key: x_bar for key, x_bar in found.items() if x_bar.dtype == dtype}

    def causes(self, hosts: Sequence[np.ndarray], names: list[str]) -> dict[str | None, str]:
        """The likely cause per input, from ``check_backward`` of ``f`` with ``analytic_vjp``."""

        def forward(*xs: Any) -> tuple[Any, Any]:
            return self.on_arrays(*xs), xs

        def backward(y_bar: np.ndarray, xs: Any) -> Sequence[Any]:
            return self.analytic_vjp(np, y_bar, *xs, **self.params)

        findings = check_backward(forward, backward, hosts, names=names).findings
        return {finding.input: finding.cause for finding in reversed(findings)}


def _wrong_form(
    names: list[str], hosts: Sequence[np.ndarray], x_bars: list[Any], dtype: np.dtype
) -> Iterator[Finding]:
    """What keeps the analytic cotangents from being compared: their shapes or types."""
    are_floating = all(getattr(x_bar, "dtype", dtype).kind == "f" for x_bar in x_bars)
    for finding in contract.form(names, hosts, x_bars):
        if finding.kind == "shape" or (finding.kind == "dtype" and not are_floating):
            message = f"the analytic way: {finding.message}"
            yield replace(finding, message=message, cause="analytic")


def _reference(
    both: _Ways, hosts: Sequence[np.ndarray], y: np.ndarray, report: Report
) -> Reference | None:
    """The numeric way; None, with a finding in the report, where there is none."""
    function = Function(both.on_arrays, tuple(hosts), coarsest([y, *hosts]), both.params)
    try:
        report.findings += contract.unrepeatable("f", both.on_arrays, hosts)
        if report.findings:
            return None
        return Reference(function, y)
    except AttributeError as error:
        expected = "a function that also takes plain arrays, as finite differences do"
        raise UsageError(facts("three_way: f", expected=expected, got=str(error))) from error


def _agreeing_directions(
    reference: Reference, y_bar: np.ndarray, *ways: list[np.ndarray]
) -> Directions | None:
    """The directions of a large point if both ways are right along them; else None."""
    if reference.tries_directions:
        directions = Directions(reference, ways[0])
        if all(are_right(directions.samples("random", y_bar, x_bars)) for x_bars in ways):
            return directions
    return None


def _compared(
    name: str, k: int, samples: list[Sample], reference: Reference, wide: Callable[[], dict]
) -> tuple[list[Row], int]:
    """A row for each pair of ways, and the number of elements at kinks.

    ``samples`` are the traced and the analytic cotangent of input ``k``, each with the numeric one
    as the expected. At kinks the two may choose different subgradients.
    """
    numeric, error, resolution = samples[0].expected, samples[0].error, samples[0].bound
    samples = [
        reconsidered(sample, k, reference, lambda way=way: wide().get((way, k)))
        for way, sample in zip(_WAYS, samples, strict=False)
    ]
    traced, analytic = samples
    fits = np.all([np.abs(s.got - s.expected) <= s.bound for s in samples], axis=0)
    is_kink = np.any([s.expected != numeric for s in samples], axis=0) & fits
    bounds = traced.bound + analytic.bound - 2 * error  # neither has an error of differences
    both = replace(traced, expected=analytic.got, error=0 * error, bound=bounds, kinks=0)

    def difference() -> np.ndarray | None:  # of the two in wider precision, as far from analytic
        a, b = (wide().get((way, k)) for way in _WAYS[:2])
        return None if a is None or b is None else analytic.got + a - b

    bound = allow_rounding(both, k, reference, difference).bound
    chosen = np.where(is_kink, traced.got, analytic.got)
    rows = [compare(name, "traced/analytic", traced.got, chosen, bound, resolution=resolution)]
    for way, s in zip(_WAYS, samples, strict=False):
        rows.append(compare(name, f"{way}/numeric", s.got, s.expected, s.bound, kinks=s.kinks,
                            resolution=resolution))  # fmt: skip
    return rows, int(is_kink.sum())


def _with_cause(finding: Finding, causes: dict[str | None, str]) -> Finding:
    cause = causes.get(finding.input) if finding.cause == "analytic" else ""
    message = f"{finding.message}; likely cause: {cause}"
    return replace(finding, message=message) if cause else finding


def _odd_one_out(rows: list, ways: dict) -> list[Finding]:
    """A finding if a pair disagrees; it names the way that disagrees with the two others."""
    wrong = [row for row in rows if not row.ok]
    if not wrong:
        return []
    first, odd = wrong[0], ""
    if len(wrong) == 1:
        suspect = f"{first.pair} disagree, the third way lies between"
    elif len(wrong) == 2:
        (odd,) = (way for way in _WAYS if all(way in row.pair.split("/") for row in wrong))
        suspect = f"the {odd} way is the odd one out"
    else:
        suspect = "no two ways agree"
    numbers = ", ".join(f"{way} {float(ways[way][first.index]):.6g}" for way in _WAYS)
    place = f"{first.input}{list(first.index) or ''}"
    message = f"{place}: {suspect}: {numbers} (bound {first.bound:.1e})"
    return [
        Finding("value", first.input, first.index, bound=first.bound, message=message, cause=odd)
    ]
