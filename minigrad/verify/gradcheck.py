"""Is the derivative that the engine finds the right one? For any function of tensors."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from minigrad.context import no_grad, setting
from minigrad.declaration import REGISTRY, Declared
from minigrad.errors import DTypeError, UsageError, check_count, describe, facts
from minigrad.nn import frozen_statistics
from minigrad.ops import concatenate, reshape
from minigrad.tensor import Tensor, tensor
from minigrad.transforms import jvp, vjp
from minigrad.verify import contract
from minigrad.verify.device import elsewhere, floating, moved, one_or_more
from minigrad.verify.kinks import between_slopes
from minigrad.verify.numeric import Jacobian, default_scale, jacobians
from minigrad.verify.randomness import generator
from minigrad.verify.report import Finding, Report, Row, compare
from minigrad.verify.rounding import Rounding
from minigrad.verify.sample import Sample, samples
from minigrad.verify.subject import check_names

_COTANGENTS = 3


def gradcheck(
    f: Callable[..., Tensor],
    inputs: Sequence[Any],
    *,
    order: int = 1,
    names: Sequence[str] | None = None,
    rng: Any = 0,
) -> Report:
    """Check the derivatives of ``f`` that the engine finds, up to ``order``.

    Per order two rows for each input: the vjp against differences, and the jvp against the vjp by
    ``<y_bar, J x_dot> = <J^T y_bar, x_dot>``. The second alone would prove nothing where both rules
    come from one expression, as in elementwise ops. Order 2 checks the derivative of the
    first-order pullback in the same way, and so on, up to the first order that is wrong.

    Args:
        f: tensors -> one Tensor.
        inputs: floating arrays or tensors, or just one.
        order: 1, 2, 3, ...
        names: what the report calls the inputs.
        rng: seed or ``numpy.random.Generator``.

    Returns:
        A Report. Nothing that ``f`` assigns to tensors (running statistics) outlives the check.

    >>> mg.verify.gradcheck(lambda x: mg.tanh(x) * x, [np.array([0.5, -1.0])], order=2).ok
    True
    """
    arrays = [floating("gradcheck: inputs", x) for x in one_or_more(inputs)]
    names = list(names or [f"input {k}" for k in range(len(arrays))])
    check_names("gradcheck: names", names, len(arrays))
    check_count("gradcheck: order", order)
    rng = generator(rng)
    report = Report(f"gradcheck, order {order}" if order > 1 else "gradcheck")
    f = _without_memory(f)
    with contract.no_trace(), frozen_statistics(), setting(observer=None):
        if apart := contract.unrepeatable(lambda *xs: _value(f, xs), arrays):
            message = f"f is no function of its inputs: {apart}"
            report.findings.append(Finding("nondeterminism", message=message, cause="random"))
            return report
        for k in range(1, order + 1):
            _check_order(report, f, arrays, names, k, rng)
            if report.findings and k < order:
                report.notes.append(_not_judged(k, order))
            if report.notes:
                break
            f = _pullback_of(f, arrays, rng)
    return report


def _not_judged(wrong: int, order: int) -> Finding:
    above = f"order {order} is" if order == wrong + 1 else f"orders {wrong + 1} to {order} are"
    message = f"{above} not judged: order {wrong} is wrong, and what derives from it proves nothing"
    return Finding("vacuous", message=message)


def _without_memory(f: Callable) -> Callable:
    """``f``, after each call of which every tensor it assigned has its former value again."""

    def call(*args: Tensor) -> Tensor:
        journal: list = []
        try:
            with setting(journal=journal):
                y = f(*args)
            if not isinstance(y, Tensor) or y.dtype.kind != "f":
                got = describe(y)
                raise DTypeError(facts("gradcheck: f", expected="one floating Tensor", got=got))
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
    """x -> all cotangents of f at x for one fixed random cotangent, as one vector."""
    y_bar = rng.normal(size=_value(f, arrays).shape)

    def pullback(*args: Tensor) -> Tensor:
        value, pull = vjp(f, *args)
        return concatenate([reshape(x_bar, (-1,)) for x_bar in pull(y_bar.astype(value.dtype))])

    return pullback


def _check_order(
    report: Report, f: Callable, arrays: list, names: list, k: int, rng: np.random.Generator
) -> None:
    def on_arrays(*values: np.ndarray) -> np.ndarray:
        return _value(f, values)

    label = "" if k == 1 else f" (order {k})"
    why = contract.undefined(arrays, on_arrays(*arrays))
    jacobian = [] if why else jacobians(on_arrays, arrays)
    if why or not all(np.isfinite(j.value).all() for j in jacobian):
        why = why or "the function has no finite derivative at this point"
        report.notes.append(Finding("undefined", message=f"{why}{label}"))
        return
    wide = _widest(on_arrays, arrays)
    worst: dict[tuple, tuple[Row, Finding | None]] = {}
    for _ in range(_COTANGENTS):
        compared = _compared(f, on_arrays, arrays, names, jacobian, wide, rng, label)
        for row, finding in compared:
            key = row.input, row.pair
            if key not in worst or _telling(row) > _telling(worst[key][0]):
                worst[key] = row, finding
    for row, finding in worst.values():
        report.rows.append(row)
        report.findings += [finding] if finding is not None else []


def _telling(row: Row) -> tuple[bool, float]:
    """What to sort by: the last one tells most."""
    return row.verdict != "VACUOUS", row.error / row.bound if row.bound else row.error


def _compared(
    f: Callable, on_arrays: Callable, arrays: list, names: list, jacobian: list[Jacobian],
    wide: np.dtype, rng: np.random.Generator, label: str,
) -> Iterator[tuple[Row, Finding | None]]:  # fmt: skip
    y, pull = vjp(f, *arrays)
    y_bar = rng.normal(size=y.shape).astype(y.dtype)
    x_dots = [rng.normal(size=x.shape).astype(x.dtype) for x in arrays]
    x_bars = [x_bar.numpy() for x_bar in pull(y_bar)]
    coarsest = max(y.dtype, *(x.dtype for x in arrays), key=lambda dtype: np.finfo(dtype).eps)
    hidden = cache(lambda: _rounding_size(f, arrays, y_bar, coarsest, wide, rng))
    for k, (name, x_bar) in enumerate(zip(names, x_bars, strict=True)):
        terms = max(y.size, arrays[k].size)
        value, error, size = jacobian[k].pull(y_bar)
        size = np.maximum(size, 0.01 * size.max(initial=0))
        bound = _bounds(size, terms, coarsest) + error
        fits = (np.abs(x_bar - value) <= bound).all()  # then what is hidden need not be known
        bound = bound if fits else bound + _bounds(hidden()[k], terms, coarsest)
        accepted, kinks, _ = between_slopes(on_arrays, arrays, k, y_bar, x_bar, value, bound)
        row = compare(name, f"vjp/numeric{label}", x_bar, accepted, bound, kinks=kinks)
        yield row, _finding(row, x_bar, accepted)
        x_dot = np.where(accepted == value, x_dots[k], 0).astype(x_dots[k].dtype)  # past no kink
        only_k = [x_dot if i == k else np.zeros_like(d) for i, d in enumerate(x_dots)]
        y_dot = jvp(f, arrays, only_k)[1].numpy()
        products = np.vdot(y_bar, y_dot), np.vdot(x_bar, x_dot)
        a, b = (np.asarray(p) if x_dot.any() else np.empty(0) for p in products)
        row = compare(name, f"jvp/vjp{label}", a, b, 2 * (np.abs(x_dot) * bound).sum())
        if fits and not row.ok:
            bound = bound + _bounds(hidden()[k], terms, coarsest)
            row = compare(name, row.pair, a, b, 2 * (np.abs(x_dot) * bound).sum())
        yield row, _finding(row, a, b)


def _bounds(size: np.ndarray, terms: int, dtype: np.dtype) -> np.ndarray:
    return Rounding([size], terms).bounds(dtype)[0]


def _widest(on_arrays: Callable, arrays: list) -> np.dtype:
    """Long double, or float64 where ``on_arrays`` takes nothing wider, as on a GPU."""
    wide = np.dtype(np.longdouble)
    try:
        on_arrays(*(x.astype(wide) for x in arrays))
    except Exception:  # whatever it is that a library says
        return np.dtype(np.float64)
    return wide


def _rounding_size(
    f: Callable, arrays: list, y_bar: np.ndarray, judged: np.dtype, wide: np.dtype,
    rng: np.random.Generator,
) -> list[np.ndarray]:  # fmt: skip
    """Magnitudes of what rounds and cancels on the way, as far as the results do not show it.

    Twelve sweeps: only what does not fit without it asks.

    Two measurements near the point, each linearized: what an error in the inputs does to the
    cotangents (conditioning), and how far a sweep in float32 is from one in ``wide``. A rule that
    is wrong in float32 alone must not excuse itself: where float32 is judged, rounding is what
    separates float32 from float64 and, in proportion, float64 from long double, too, if ``wide`` is
    that.
    """
    small = float(np.finfo(wide).eps ** 0.5)
    u, v = (float(np.finfo(dtype).eps / 2) for dtype in (np.float32, np.float64))
    seed = y_bar.astype(np.float32)

    def cotangents(values: list[np.ndarray]) -> list[np.ndarray]:
        y, pull = vjp(f, *values)
        return [x_bar.numpy().astype(np.longdouble) for x_bar in pull(seed.astype(y.dtype))]

    def errors(a: list[np.ndarray], b: list[np.ndarray], unit: float) -> list[np.ndarray]:
        found = [np.abs(x - y) / unit for x, y in zip(a, b, strict=True)]
        return [np.where(np.isfinite(e), e, 0) for e in found]

    total = [np.zeros(x.shape, np.longdouble) for x in arrays]
    for _ in range(3):
        near = [(x + _nearby(x) * rng.uniform(-1, 1, x.shape)).astype(np.float32) for x in arrays]
        at = [x.astype(wide) for x in near]
        moved = [x * (1 + small * rng.choice([-1, 1], size=x.shape)) for x in at]
        exact = cotangents(at)
        conditioning = errors(cotangents(moved), exact, small)
        single = cotangents(near)
        rounding = errors(single, exact, 8 * u)
        if np.finfo(judged).eps > 2 * v > np.finfo(wide).eps:
            double = cotangents([x.astype(np.float64) for x in near])
            pairs = errors(single, double, 8 * u), errors(double, exact, 8 * v)
            rounding = list(map(np.minimum, *pairs))
        rounding = [np.maximum(r, 0.1 * r.max(initial=0)) for r in rounding]
        total = [
            np.maximum(t, c + r) for t, c, r in zip(total, conditioning, rounding, strict=True)
        ]
    return total


def _nearby(x: np.ndarray) -> np.ndarray:
    """A distance that changes neither the size of an element nor the spread of a channel."""
    return 1e-3 * np.minimum(np.abs(x), default_scale(x))


def _finding(row: Row, got: Any, expected: Any) -> Finding | None:
    if row.ok:
        return None
    right, wrong = float(np.asarray(expected)[row.index]), float(np.asarray(got)[row.index])
    message = (
        f"{row.input}{list(row.index)}, {row.pair}: {wrong:.9g}, expected {right:.9g}, "
        f"off by {row.error:.2e} (bound {row.bound:.1e})"
    )
    return Finding("value", row.input, row.index, right, wrong, row.bound, message)


def check_op(
    declared: Declared | str,
    *,
    order: int = 1,
    dtype: Any = "float64",
    rng: Any = 0,
    device: str = "cpu",
) -> Report:
    """Check a declared op at points drawn from its signature, domains and cases.

    Args:
        declared: an op or composite, or its name.
        order: of derivatives.
        dtype: ``"float64"`` or ``"float32"``.
        rng: seed or ``numpy.random.Generator``.
        device: where the op runs; the differences that it is held against are taken of it, too.

    Raises:
        UsageError: no such op. DeviceError: no such device.

    >>> mg.verify.check_op("tanh", order=2).ok
    True
    """
    if isinstance(declared, str):
        if declared not in REGISTRY:
            raise UsageError(f"no op {declared!r}; `minigrad ops` lists them")
        declared = REGISTRY[declared]
    rng = generator(rng)
    report = Report(f"{declared.name}, {np.dtype(dtype)}, orders 1 to {order}")
    for sample in samples(declared, dtype, rng):
        arrays = [sample.inputs[i] for i in sample.real]
        names = [f"input {i} of {declared.name}({sample})" for i in sample.real]
        call = elsewhere(_call(declared, sample, device), device)
        one = gradcheck(call, arrays, order=order, names=names, rng=rng)
        report.rows += one.rows
        report.findings += one.findings
        report.notes += [note for note in one.notes if note not in report.notes]
    return report


def _call(declared: Declared, sample: Sample, device: str) -> Callable[..., Tensor]:
    """The op as a function of its differentiable inputs, with one result."""
    inputs, params = moved((tuple(sample.inputs), sample.params), device)

    def call(*real: Tensor) -> Tensor:
        args: list[Any] = list(inputs)
        for i, x in zip(sample.real, real, strict=True):
            args[i] = x
        y: Any = declared
        y = y(*args, **params)
        return concatenate([reshape(part, (-1,)) for part in y]) if isinstance(y, list) else y

    return call
