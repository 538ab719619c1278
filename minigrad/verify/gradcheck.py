"""Checks of the derivatives that the engine computes, for any function of tensors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from minigrad.context import no_grad, setting
from minigrad.errors import DTypeError, check_count, describe, facts
from minigrad.nn import frozen_statistics
from minigrad.ops import concatenate, reshape
from minigrad.tensor import Tensor, tensor
from minigrad.transforms import jvp, vjp
from minigrad.verify import contract
from minigrad.verify.arrays import coarsest, on_host
from minigrad.verify.directions import ALONG_DIRECTIONS, Directions, nowhere_wrong, which_are_sharp
from minigrad.verify.judge import Sample, compare, reconsidered, wider
from minigrad.verify.randomness import Seed, generator
from minigrad.verify.reference import Function, Reference
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.subject import check_names, is_pair, parameter_names

_COTANGENTS = 3  # random ones per order; the worst is reported


def gradcheck(
    f: Callable[..., Tensor],
    inputs: Sequence[Any] | Any,
    *,
    order: int = 1,
    names: Sequence[str] | None = None,
    rng: Seed = 0,
) -> Report:
    """Check the derivatives of ``f`` that the engine computes, up to ``order``.

    Each order adds two rows per input: the vjp against differences, and the jvp against the vjp by
    ``<y_bar, J x_dot> = <J^T y_bar, x_dot>``. The second alone would prove nothing where both rules
    come from one expression, as in elementwise ops. Order 2 checks the derivative of the
    first-order pullback in the same way, and so on, up to the first order that is wrong.

    Args:
        f: tensors -> one Tensor.
        inputs: floating arrays or tensors, or just one.
        order: 1, 2, 3, ...
        names: what the report calls the inputs; by default, as ``f`` calls them.
        rng: seed or ``numpy.random.Generator``.

    Returns:
        A Report. Tensors that ``f`` assigns to (running statistics) are restored.

    >>> mg.verify.gradcheck(lambda x: mg.tanh(x) * x, [np.array([0.5, -1.0])], order=2).ok
    True
    """
    arrays = on_host("gradcheck: inputs", inputs)
    n = len(arrays)
    names = list(names or parameter_names(f, n) or [f"input {k}" for k in range(n)])
    check_names("gradcheck: names", names, n)
    check_count("gradcheck: order", order)
    rng = generator(rng)
    report = Report(f"gradcheck, order {order}" if order > 1 else "gradcheck")
    f = _without_memory(f)
    with contract.restoring_global_state(), frozen_statistics(), setting(observer=None):
        report.findings += contract.unrepeatable("f", lambda *xs: _value(f, xs), arrays)
        if report.findings:
            return report
        for k in range(1, order + 1):
            _check_order(report, f, arrays, names, k, rng)
            if report.findings and k < order:
                report.notes.append(_not_checked(k, order))
            if report.findings or any(note.kind == "undefined" for note in report.notes):
                break
            f = _pullback_of(f, arrays, rng)
    return report


def _not_checked(wrong: int, order: int) -> Finding:
    above = f"order {order} is" if order == wrong + 1 else f"orders {wrong + 1} to {order} are"
    message = f"{above} not checked: order {wrong} is wrong, and higher orders derive from it"
    return Finding("vacuous", message=message)


def _without_memory(f: Callable) -> Callable:
    """``f``, but after each call the tensors that it assigned to are restored."""

    def call(*args: Tensor) -> Tensor:
        journal: list = []
        try:
            with setting(journal=journal):
                y = f(*args)
            if not isinstance(y, Tensor) or y.dtype.kind != "f":
                remedy = "check_backward checks a forward that returns (y, cache)" * is_pair(y)
                raise DTypeError(
                    facts("gradcheck: f", expected="one floating Tensor", got=describe(y),
                          remedy=remedy)
                )  # fmt: skip
            return y
        finally:
            for box, array, node in reversed(journal):
                box.array, box.node = array, node
                if node is not None:
                    node.overwritten = ""

    return call


def _value(f: Callable, arrays: Sequence[np.ndarray]) -> np.ndarray:
    with no_grad():
        return f(*map(tensor, arrays)).numpy()


def _pullback_of(f: Callable, arrays: list[np.ndarray], rng: np.random.Generator) -> Callable:
    """A function of x: the cotangents of f at x, for a fixed random y_bar, as one vector."""
    y_bar = rng.normal(size=_value(f, arrays).shape)

    def pullback(*args: Tensor) -> Tensor:
        value, pull = vjp(f, *args)
        return concatenate([reshape(x_bar, (-1,)) for x_bar in pull(y_bar.astype(value.dtype))])

    return pullback


def _check_order(
    report: Report, f: Callable, arrays: list, names: list, k: int, rng: np.random.Generator
) -> None:
    """Add the rows, findings and notes of order ``k``; from 2 on ``f`` is a pullback."""

    def on_arrays(*values: np.ndarray) -> np.ndarray:
        return _value(f, values)

    label = "" if k == 1 else f" (order {k})"
    y = on_arrays(*arrays)
    if why := contract.undefined(arrays, y):
        report.notes.append(Finding("undefined", message=f"{why}{label}"))
        return
    reference = Reference(Function(on_arrays, tuple(arrays), coarsest([y, *arrays])), y)
    point = f, arrays, names, reference, rng, label
    if reference.tries_directions and _along_directions(report, *point):
        return
    if why := reference.undefined:
        report.notes.append(Finding("undefined", message=f"{why}{label}"))
        return
    found = _worst(*point)
    report.rows += [row for row, _ in found]
    report.findings += [finding for _, finding in found if finding is not None]


def _along_directions(
    report: Report, f: Callable, arrays: list, names: list, reference: Reference,
    rng: np.random.Generator, label: str,
) -> bool:  # fmt: skip
    """Compare a large point along directions, and locate wrong elements.

    False, and nothing is added to the report, if elements must be compared: if bounds are wide, or
    no wrong element is located, as at kinks. At a huge point they cannot be compared.
    """
    y, pull = vjp(f, *arrays)
    y_bar = rng.normal(size=y.shape).astype(y.dtype)
    x_bars = [x_bar.numpy() for x_bar in pull(y_bar)]
    directions = Directions(reference, x_bars)
    is_sharp = all(which_are_sharp(directions.samples("random", y_bar, x_bars)))
    if not is_sharp and not reference.is_huge:
        return False
    ts = list(directions.subject.inputs)
    found = _worst(lambda *ts: f(*directions.moved(*ts)), ts, names, directions, rng, label)
    notes = [Finding("directions", message=f"{ALONG_DIRECTIONS}{label}")]
    wide = _Wide(f, arrays, y_bar, reference.dtype)
    for i, (row, finding) in enumerate(found):
        index: tuple[int, ...] = ()
        if finding is not None and row.index:  # of a direction
            k = names.index(row.input)
            sample = directions.located(k, "random", y_bar, x_bars, partial(wide.pulled, k))
            if sample.ok and not reference.is_huge:
                return False
            notes += [nowhere_wrong(row.input)] if sample.ok else []
            index, right, wrong, bound = sample.worst()
            verdict = "VACUOUS" if sample.ok else "WRONG"
            row = Row(row.input, row.pair, abs(wrong - right), bound, sample.ok, index, verdict)
            finding = _finding(row, x_bars[k], sample.expected)
        found[i] = replace(row, index=index), finding
    report.notes += notes
    report.rows += [row for row, _ in found]
    report.findings += [finding for _, finding in found if finding is not None]
    return True


def _worst(
    f: Callable, arrays: list, names: list, reference: Reference, rng: np.random.Generator,
    label: str,
) -> list[tuple[Row, Finding | None]]:  # fmt: skip
    """``_compared`` for several random cotangents; the worst of each row."""
    worst: dict[tuple, tuple[Row, Finding | None]] = {}
    for _ in range(_COTANGENTS):
        for row, finding in _compared(f, arrays, names, reference, rng, label):
            key = row.input, row.pair
            if key not in worst or row.telling > worst[key][0].telling:
                worst[key] = row, finding
    return [*worst.values()]


def _compared(
    f: Callable, arrays: list, names: list, reference: Reference, rng: np.random.Generator,
    label: str,
) -> Iterator[tuple[Row, Finding | None]]:  # fmt: skip
    """Two rows per input for one random ``y_bar``, each with its finding if it is wrong."""
    y, pull = vjp(f, *arrays)
    y_bar = rng.normal(size=y.shape).astype(y.dtype)
    x_dots = [rng.normal(size=x.shape).astype(x.dtype) for x in arrays]
    x_bars = [x_bar.numpy() for x_bar in pull(y_bar)]
    expected = reference.expected(y_bar)
    wide = _Wide(f, arrays, y_bar, reference.dtype)
    for k, (name, x_bar) in enumerate(zip(names, x_bars, strict=True)):
        sample = Sample("random", y_bar, x_bar, *expected.of(k))
        sample = reconsidered(sample, k, reference, partial(wide.pulled, k))
        bound = sample.bound
        row = compare(name, f"vjp/numeric{label}", x_bar, sample.expected, bound,
                      kinks=sample.kinks, resolution=sample.resolution)  # fmt: skip
        yield row, _finding(row, x_bar, sample.expected)
        is_smooth = sample.expected == expected.values[k]  # no subgradient was chosen
        x_dot = np.where(is_smooth, x_dots[k], 0).astype(x_dots[k].dtype)
        only_k = [x_dot if i == k else np.zeros_like(d) for i, d in enumerate(x_dots)]
        y_dot = jvp(f, arrays, only_k)[1].numpy()
        products = np.vdot(y_bar, y_dot), np.vdot(x_bar, x_dot)
        by_jvp, by_vjp = (np.asarray(p) if x_dot.any() else np.empty(0) for p in products)
        # each of the two products is off by at most |x_dot| . bound
        row = compare(name, f"jvp/vjp{label}", by_jvp, by_vjp, 2 * (np.abs(x_dot) * bound).sum())
        if not row.ok and wide.agrees(k, only_k, 0.1 * row.error):
            bound = bound + (reference.conditioning(y_bar)[k] + reference.hidden(k, y_bar))
            row = compare(name, row.pair, by_jvp, by_vjp, 2 * (np.abs(x_dot) * bound).sum())
        yield row, _finding(row, by_jvp, by_vjp)


class _Wide:
    """The same derivatives in wider precision than ``dtype``, computed on demand."""

    def __init__(self, f: Callable, arrays: list, y_bar: np.ndarray, dtype: np.dtype):
        dtype = wider(dtype)
        self.f, self.y_bar = f, y_bar.astype(dtype)
        self.arrays = [x.astype(dtype) for x in arrays]

    @cached_property
    def x_bars(self) -> list[np.ndarray]:
        """The cotangents; none if ``f`` does not take, or does not keep, the wider dtype."""
        try:
            y, pull = vjp(self.f, *self.arrays)
            x_bars = [x_bar.numpy() for x_bar in pull(self.y_bar.astype(y.dtype))]
        except Exception:  # libraries raise various types, as on a GPU
            return []
        return x_bars if coarsest([y.numpy(), *x_bars]) == self.y_bar.dtype else []

    def pulled(self, k: int) -> np.ndarray | None:
        return self.x_bars[k] if self.x_bars else None

    def agrees(self, k: int, x_dots: list[np.ndarray], tolerance: float) -> bool:
        """Whether jvp and vjp of input k differ by no more than ``tolerance``."""
        if not self.x_bars:
            return False
        y_dot = jvp(self.f, self.arrays, x_dots)[1].numpy()
        products = np.vdot(self.y_bar, y_dot), np.vdot(self.x_bars[k], x_dots[k])
        return bool(abs(np.subtract(*products)) <= tolerance)


def _finding(row: Row, got: Any, expected: Any) -> Finding | None:
    if row.ok:
        return None
    right, wrong = float(np.asarray(expected)[row.index]), float(np.asarray(got)[row.index])
    message = (
        f"{row.input}{list(row.index) or ''}, {row.pair}: got {wrong:.9g}, expected {right:.9g}, "
        f"off by {row.error:.2e} (bound {row.bound:.1e})"
    )
    return Finding("value", row.input, row.index, right, wrong, row.bound, message)
