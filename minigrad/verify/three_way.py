"""The same derivative by three ways that share no code: traced, analytic, numeric."""

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
from minigrad.verify.arrays import coarsest, on_host
from minigrad.verify.check import check_backward
from minigrad.verify.device import moved
from minigrad.verify.judge import Sample, allow_rounding, at_kinks, reconsidered, wider
from minigrad.verify.randomness import Seed, generator
from minigrad.verify.reference import Function, Reference
from minigrad.verify.report import Finding, Report, Row, compare
from minigrad.verify.rounding import looks_like_batch_norm, normalization
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
    y, pull = _traced(f, hosts, device, params)
    y_bar = generator(rng).normal(size=y.shape).astype(y.dtype)
    cotangents = pull(y_bar)
    report = Report("three ways", facts={"shape": list(hosts[0].shape), "dtype": str(y.dtype)})
    if why := contract.undefined(hosts, y):
        report.notes.append(Finding("undefined", message=why))
        return report
    by_hand = _by_hand(analytic_vjp, (y_bar, *hosts), device, params)
    are_floating = all(getattr(x_bar, "dtype", y.dtype).kind == "f" for x_bar in by_hand)
    for finding in contract.form(names, hosts, by_hand):
        if finding.kind == "shape" or (finding.kind == "dtype" and not are_floating):
            message = f"the analytic way: {finding.message}"
            report.findings.append(replace(finding, message=message, cause="analytic"))
    if report.findings:  # arrays that cannot be compared
        return report

    def on_arrays(*arrays: np.ndarray) -> Any:
        return f(*arrays, **params)

    function = Function(on_arrays, tuple(hosts), coarsest([y, *hosts]), params)
    try:
        if difference := contract.unrepeatable(on_arrays, hosts):
            message = f"f is not a function of its inputs: {difference}"
            report.findings.append(Finding("nondeterminism", message=message, cause="random"))
            return report
        reference = Reference(function, y)
    except AttributeError as error:
        expected = "a function that also takes plain arrays, as finite differences do"
        raise UsageError(facts("three_way: f", expected=expected, got=str(error))) from error
    if why := reference.undefined:
        report.notes.append(Finding("undefined", message=why))
        return report
    expected = reference.expected(y_bar)
    norm_bounds = _normalization_bounds(y, y_bar, hosts, params)
    wide = _Wide(f, analytic_vjp, hosts, y_bar, device, params, by_hand)
    for k, name in enumerate(names):
        value, error, bound = expected.of(k)
        bound = bound if norm_bounds is None else norm_bounds[k] + error
        ways = {"traced": cotangents[k], "analytic": by_hand[k], "numeric": value}
        samples = [Sample("random", y_bar, ways[way], value, error, bound) for way in _WAYS[:2]]
        rows, kinks = _compared(name, k, samples, reference, wide)
        report.rows += rows
        report.findings += _odd_one_out(rows, ways)
        if kinks:
            report.notes.append(Finding("kink", name, message=at_kinks(name, kinks)))
    if any(finding.cause == "analytic" for finding in report.findings):
        causes = _causes(f, analytic_vjp, hosts, names, params)
        report.findings = [_with_cause(finding, causes) for finding in report.findings]
    return report


def _compared(
    name: str, k: int, samples: list[Sample], reference: Reference, wide: "_Wide"
) -> tuple[list[Row], int]:
    """A row for each pair of ways, and the number of elements at kinks.

    ``samples`` are the traced and the analytic cotangent of input ``k``, each with the numeric one
    as the expected. At kinks the two may choose different subgradients.
    """
    numeric, error, resolution = samples[0].expected, samples[0].error, samples[0].bound
    samples = [
        reconsidered(sample, k, reference, partial(wide.pulled, way, k))
        for way, sample in zip(_WAYS, samples, strict=False)
    ]
    traced, analytic = samples
    fits = np.all([np.abs(s.got - s.expected) <= s.bound for s in samples], axis=0)
    is_kink = np.any([s.expected != numeric for s in samples], axis=0) & fits
    bounds = traced.bound + analytic.bound - 2 * error  # neither has an error of differences
    both = replace(traced, expected=analytic.got, error=0 * error, bound=bounds, kinks=0)
    bound = allow_rounding(both, k, reference, partial(wide.traced_beside_analytic, k)).bound
    chosen = np.where(is_kink, traced.got, analytic.got)
    rows = [compare(name, "traced/analytic", traced.got, chosen, bound, resolution=resolution)]
    for way, s in zip(_WAYS, samples, strict=False):
        rows.append(compare(name, f"{way}/numeric", s.got, s.expected, s.bound, kinks=s.kinks,
                            resolution=resolution))  # fmt: skip
    return rows, int(is_kink.sum())


def _traced(
    f: Callable, hosts: Sequence[np.ndarray], device: str, params: dict
) -> tuple[np.ndarray, Callable[[np.ndarray], list[np.ndarray]]]:
    """The result and the engine's pullback, both on arrays of the host."""
    tensors = [tensor(x, requires_grad=True, device=device) for x in hosts]
    params = moved(params, device)
    y, pullback = vjp(lambda *args: f(*args, **params), *tensors)
    return y.numpy(), lambda y_bar: [x_bar.numpy() for x_bar in pullback(to_device(y_bar, device))]


def _by_hand(
    analytic_vjp: Callable, arrays: Sequence[np.ndarray], device: str, params: dict
) -> list[Any]:
    """The analytic cotangents on the host; ``analytic_vjp`` gets copies, which it may overwrite."""
    copies = moved(tuple(array.copy() for array in arrays), device)
    x_bars = analytic_vjp(namespace(*copies), *copies, **moved(params, device))
    x_bars = x_bars if isinstance(x_bars, (tuple, list)) else [x_bars]
    return [to_host(x_bar) if hasattr(x_bar, "shape") else x_bar for x_bar in x_bars]


def _normalization_bounds(
    y: np.ndarray, y_bar: np.ndarray, hosts: list, params: dict
) -> list[np.ndarray] | None:
    """The bounds for a batch norm, over any axes or with given statistics; None for another f."""
    names = ("mean", "var", "axis", "eps")
    if not looks_like_batch_norm(y, hosts, params, names):
        return None
    given = {name: params[name] for name in names if name in params}
    return normalization(y_bar, hosts, **given).bounds(y.dtype)


def _causes(
    f: Callable, analytic_vjp: Callable, hosts: list, names: list[str], params: dict
) -> dict[str | None, str]:
    """The likely cause per input, from ``check_backward`` of ``f`` with ``analytic_vjp``."""

    def forward(*xs: Any) -> tuple[Any, Any]:
        return f(*xs, **params), xs

    def backward(y_bar: np.ndarray, xs: Any) -> Sequence[Any]:
        return analytic_vjp(np, y_bar, *xs, **params)

    findings = check_backward(forward, backward, hosts, names=names).findings
    return {finding.input: finding.cause for finding in reversed(findings)}


def _with_cause(finding: Finding, causes: dict[str | None, str]) -> Finding:
    cause = causes.get(finding.input) if finding.cause == "analytic" else ""
    message = f"{finding.message}; likely cause: {cause}"
    return replace(finding, message=message) if cause else finding


class _Wide:
    """The traced and the analytic cotangents in wider precision, computed on demand."""

    def __init__(
        self, f: Callable, analytic_vjp: Callable, hosts: list, y_bar: np.ndarray, device: str,
        params: dict, narrow: list,
    ):  # fmt: skip
        dtype = wider(y_bar.dtype)
        self.wide, self.y_bar = [x.astype(dtype) for x in hosts], y_bar.astype(dtype)
        self.f, self.analytic_vjp, self.device, self.params = f, analytic_vjp, device, params
        self.narrow = narrow  # the analytic cotangents in the original precision

    @cached_property
    def x_bars(self) -> dict[str, list[Any]]:
        """The cotangents; a way that does not take the wider dtype is left out."""
        x_bars: dict[str, list[Any]] = {}
        with suppress(Exception):  # libraries raise various types
            x_bars["traced"] = _traced(self.f, self.wide, self.device, self.params)[1](self.y_bar)
        with suppress(Exception):
            arrays = (self.y_bar, *self.wide)
            x_bars["analytic"] = _by_hand(self.analytic_vjp, arrays, self.device, self.params)
        return x_bars

    def traced_beside_analytic(self, k: int) -> np.ndarray | None:
        """``narrow`` plus the difference of the two ways in wider precision."""
        traced, analytic = (self.pulled(way, k) for way in _WAYS[:2])
        return None if traced is None or analytic is None else self.narrow[k] + traced - analytic

    def pulled(self, way: str, k: int) -> np.ndarray | None:
        """The cotangent of input ``k`` by one way; None if it is not in the wider dtype."""
        x_bar = np.asarray(self.x_bars[way][k]) if way in self.x_bars else None
        return x_bar if x_bar is not None and x_bar.dtype == self.y_bar.dtype else None


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
