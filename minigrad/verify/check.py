"""Is a hand-written backward pass the derivative of its forward pass?"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from minigrad.errors import UsageError, describe, facts
from minigrad.verify import contract
from minigrad.verify.device import floating, one_or_more
from minigrad.verify.diagnose import cause_of
from minigrad.verify.faults import Followed
from minigrad.verify.judge import Sample, reconsidered, wider
from minigrad.verify.randomness import generator
from minigrad.verify.reference import Expected, Function, Reference
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.subject import (
    BackwardFailed,
    ForwardFailed,
    NoPair,
    Subject,
    are_batch_norms,
    check_names,
    copied,
    cotangents,
    default_names,
    taking,
    undone,
)

_SOAK = 100  # identical calls in a check of one point
_KNOWN = 1e-3  # of the largest cotangent: what is off by less is no infinity
_NOTES = ("retained", "scratch")  # what a caller should know of a right pair


def check_backward(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[[Any, Any], Sequence[Any]],
    inputs: Sequence[Any] | Any,
    *,
    params: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    rng: Any = 0,
) -> Report:
    """Check a hand-written pair over plain arrays; the engine takes no part in the verdict.

    The cotangents that ``backward`` returns for many kinds of ``y_bar`` are held against the
    Jacobian of ``forward`` by differences, within a bound that follows from the rounding of what
    cancels and from the error of the differences. There is no tolerance to choose.

    Args:
        forward: ``forward(*inputs, **params) -> (y, cache)``.
        backward: ``backward(y_bar, cache)`` -> one cotangent per input, in a tuple if there are
            several.
        inputs: floating arrays or tensors, or just one.
        params: keyword arguments of ``forward``.
        names: what the report calls the inputs; as ``forward`` does if not given.
        rng: seed or ``numpy.random.Generator``.

    Returns:
        A Report; each finding names input, index, expected, got, bound and the likely cause.

    Raises:
        UsageError: the arguments are none of these, or the point is too large: all inputs times
            the output, in elements, are more than 2^25 pairs.

    >>> def forward(x):
    ...     return np.sin(x), x
    >>> def backward(y_bar, x):
    ...     return (y_bar * np.sin(x),)
    >>> mg.verify.check_backward(forward, backward, [np.array([1.0, 2.0])]).ok
    False
    """
    arrays = tuple(floating("check_backward: inputs", x) for x in one_or_more(inputs))
    names = tuple(names or default_names(arrays, forward))
    check_names("check_backward: names", names, len(arrays))
    if params is not None and not isinstance(params, Mapping):
        got = describe(params)
        raise UsageError(facts("check_backward: params", expected="a dictionary or None", got=got))
    given = copied(dict(params or {}))
    forward = taking("check_backward: params", forward, len(arrays), given)
    subject = Subject(forward, backward, arrays, given, names)
    report = Report("check_backward", facts={"shape": list(arrays[0].shape)})
    point = Point(subject, generator(rng))
    report.rows, report.findings, report.notes = point.examine(soak=_SOAK)
    return report


def _kind(failure: Exception) -> str:
    """The type of what the subject raised."""
    return str(failure).partition(":")[0]


class Refused(Exception):
    """Forward takes the point, but not what tells its derivative."""


class Point:
    """One subject at one point, and what was found there."""

    def __init__(
        self,
        subject: Subject,
        rng: np.random.Generator,
        label: str = "",
        fresh: Subject | None = None,
        unseen: Subject | None = None,
    ):
        self.subject, self.rng, self.label = subject, rng, label
        self.fresh = fresh or subject  # whose forward is differenced: it has seen no other calls
        self.unseen = unseen or subject  # called at other points before this one
        self.findings: list[Finding] = []
        self.notes: list[Finding] = []
        self.first_call: list[Finding] = []
        self._right: tuple[Any, list[bytes]] = None, []  # what was judged right last: y_bar, all
        self._last: tuple[Any, Any] = None, None  # what was expected last: of y_bar, all
        self.followed = Followed()
        self.samples: dict[str, list[Sample]] = {name: [] for name in subject.names}

    def examine(self, *, soak: int = 0) -> tuple[list[Row], list[Finding], list[Finding]]:
        """Rows, findings and notes; ``soak`` is the number of identical calls at the end."""
        with contract.no_trace(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.seterr(all="warn")  # so that a subject that changes it is seen
            try:
                with self._undone():
                    y = self._first_run()
                if not isinstance(y, np.ndarray) or y.dtype.kind != "f":
                    got = str(y.dtype) if isinstance(y, np.ndarray) else type(y).__name__
                    message = f"y must be one floating array, got {got}"
                    if isinstance(y, (tuple, list)):
                        message += ": join several results by np.concatenate, and split y_bar"
                    self.findings.append(Finding("dtype", message=message, cause=got))
                elif why := contract.undefined(self.subject.inputs, y):
                    self._note("undefined", why)
                elif apart := contract.unrepeatable(self.fresh.value, self.fresh.inputs):
                    message = f"forward is no function of its inputs: {apart}"
                    cause = "random, or of earlier calls"
                    self.findings.append(Finding("nondeterminism", message=message, cause=cause))
                else:
                    self.here = self.fresh.untouched(), y
                    self._all_parts(y, soak)
            except (ForwardFailed, Refused) as error:
                message = f"forward refuses this point{self._only_narrow()}: {error}"
                self._note("refused", message, _kind(error))
            except NoPair as error:
                self.findings.append(Finding("shape", message=str(error), cause="no cache"))
        once: dict[tuple, Finding] = {}
        for f in self.findings:
            once.setdefault((f.kind, f.input, f.cause), f)
        found = sorted(once.values(), key=lambda f: f.kind == "aliasing")  # wrong numbers first
        return self._rows(), [self._labelled(f) for f in found], self.notes

    def _only_narrow(self) -> str:
        """Says so where forward takes this point, but not in float64, as differences need it."""
        for dtype in (self.subject.dtype, np.dtype(np.float64)):
            try:
                self.fresh.value(*(x.astype(dtype) for x in self.fresh.inputs))
            except ForwardFailed:
                narrow = dtype != self.subject.dtype
                return " in float64, which it must take to be checked" * narrow
        return ""

    @cached_property
    def reference(self) -> Reference:
        """What is right; made when it is asked for, which no cotangent of a wrong form does."""
        try:
            return Reference(*self.here, self.rng)
        except ForwardFailed as error:
            raise Refused(str(error)) from error

    def _all_parts(self, y: np.ndarray, soak: int) -> None:
        self._guarded(self._purity, y)
        self._guarded(self._values, y)
        if not self.findings:  # later calls are right, the first was not
            self.findings += self.first_call
        if not self.findings:
            self._guarded(self._contract, y, soak)

    def _guarded(self, part: Callable, *args: Any) -> None:
        """Run a part of the check; an exception out of the subject is a finding."""
        try:
            part(*args)
        except (BackwardFailed, ForwardFailed, NoPair) as error:
            which = "backward" if isinstance(error, BackwardFailed) else "a later forward call"
            finding = Finding("error", message=f"{which} fails: {error}", cause=_kind(error))
            if finding not in self.findings:  # each part fails alike
                self.findings.append(finding)

    def _note(self, kind: str, message: str, cause: str = "") -> None:
        self.notes.append(Finding(kind, message=message, cause=cause, label=self.label))

    def _add(self, found: Iterable[Finding]) -> None:
        for finding in found:
            if finding.kind in _NOTES:
                self.notes.append(self._labelled(finding))
            else:
                self.findings.append(finding)

    def _labelled(self, finding: Finding) -> Finding:
        return replace(finding, label=self.label)

    # --- the numbers -----------------------------------------------------------------------------

    def _values(self, y: np.ndarray) -> None:
        kinds = list(cotangents(y, self.rng))
        right: Iterator[Expected] | None = None
        for kind, y_bar in kinds:
            grads, changed = self.subject.watched(y_bar)
            self.findings += contract.mutated(changed, f" ({kind} y_bar)")
            wrong_form = list(contract.form(self.subject.names, self.subject.inputs, grads))
            if wrong_form:
                self.findings += wrong_form
                break
            right = right or self.reference.all_expected([y_bar for _, y_bar in kinds])
            expected = next(right)
            for k, name in enumerate(self.subject.names):
                got = np.array(grads[k])  # a later call may overwrite it
                self.samples[name].append(Sample(kind, y_bar, got, *expected.of(k)))
        for k, name in enumerate(self.subject.names):
            self.samples[name] = list(self._all_reconsidered(k, self.samples[name]))
            self.findings += self._judged(k, name)

    def _all_reconsidered(self, k: int, samples: list[Sample]) -> Iterator[Sample]:
        """As many as it takes: one random sample that stays wrong decides and tells most."""
        decided = False
        for sample in samples:
            seen = sample if decided else self._reconsidered(k, sample)
            decided = decided or (seen.kind == "random" and not seen.ok)
            yield seen

    def _judged(self, k: int, name: str) -> Iterator[Finding]:
        samples = self.samples[name]
        worst = max(samples, key=lambda sample: sample.telling, default=None)
        if worst is None or worst.ok:
            return
        index, expected, got, bound = worst.worst()
        kind = "value"
        try:
            cause = next((s.kink_fault for s in samples if s.kink_fault), "") or cause_of(
                self.subject, k, samples, self.reference.expected, self.followed
            )
        except (BackwardFailed, ForwardFailed):  # of what a fit has tried
            cause = ""
        if not np.isfinite(got):
            kind, cause = "domain", f"{got} where the value is finite"
            if worst.error[index] > max(abs(expected), _KNOWN * np.nanmax(np.abs(worst.expected))):
                cause = f"{got} where differences find no finite derivative"
        elif not any(np.any(sample.expected) for sample in samples) and self._stays(k):
            cause = f"forward gives the same y at other {name}"
        elif self._changes(k, worst):
            kind, cause = "nondeterminism", "an equal call gives another value"
        elif self.subject.dtype.itemsize < 8 and self._vanishes_in_wider(k, worst, 1e-3):
            kind, cause = "precision", "precision: float64 gives the right value"
        message = (
            f"{name}_bar{list(index)} is {got:.9g}, expected {expected:.9g}, "
            f"off by {abs(got - expected):.2e} (bound {bound:.1e}, {worst.kind} y_bar)"
        )
        message += f"; likely cause: {cause}" if cause else ""
        yield Finding(kind, name, index, expected, got, bound, message, cause, self.label)

    def _stays(self, k: int) -> bool:
        """Whether forward gives the same where all of input k is another."""
        inputs = list(self.fresh.inputs)
        inputs[k] = 2 * inputs[k] + 1
        try:
            return np.array_equal(self.fresh.value(*inputs), self.here[1])
        except ForwardFailed:
            return False

    def _changes(self, k: int, sample: Sample) -> bool:
        """Whether other calls with the same ``y_bar`` move a cotangent beyond its bound."""
        for _ in range(3):  # it may as well be wrong again
            again = np.asarray(self.subject.pull(sample.y_bar)[k])
            if (np.abs(again - sample.got) > 2 * sample.bound).any():
                return True
        return False

    def _vanishes_in_wider(self, k: int, sample: Sample, part: float) -> bool:
        wide = self._in_wider(k, sample)
        return wide is not None and sample.vanishes(wide, part)

    def _in_wider(self, k: int, sample: Sample) -> np.ndarray | None:
        """What the same code gives on wider numbers; None where it takes, or returns, none."""
        dtype = wider(self.subject.dtype)
        wide = self.subject.at([x.astype(dtype) for x in self.subject.inputs])
        try:
            got = np.asarray(wide.pull(sample.y_bar.astype(dtype))[k])
        except (BackwardFailed, ForwardFailed):
            return None
        return got if got.dtype == dtype and got.shape == sample.expected.shape else None

    def _reconsidered(self, k: int, sample: Sample) -> Sample:
        """``reconsidered``, with a note on the first kinks."""
        sample = reconsidered(sample, k, self.reference, partial(self._in_wider, k, sample))
        if sample.kinks and not any(note.kind == "kink" for note in self.notes):
            self._note("kink", sample.at_kinks(self.subject.names[k]))
        return sample

    # --- the contract ----------------------------------------------------------------------------

    def _undone(self) -> AbstractContextManager:
        return undone(*(array for _, array in self.subject.owned))

    def _first_run(self) -> Any:
        """The output of the first forward call; what else it did is a finding."""
        before = [x.tobytes() for _, x in self.subject.owned]
        with contract.no_trace() as changed:
            self.first = y, _ = self.subject.run()
            self.findings += contract.forward_purity(self.subject, before, changed())
        return np.array(y) if isinstance(y, (np.ndarray, np.generic)) else y

    def _purity(self, y: np.ndarray) -> None:
        y_bar = self.rng.normal(size=y.shape).astype(y.dtype)
        with self._undone():
            found = list(contract.purity(self.subject, self.first, y_bar, self._judge))
        self.first_call = [finding for finding in found if finding.kind == "value"]
        self._add(finding for finding in found if finding.kind != "value")

    def _contract(self, y: np.ndarray, soak: int) -> None:
        y_bar = self.rng.normal(size=y.shape).astype(y.dtype)
        others = self._other_points()
        self._add(contract.state(self.subject, y_bar, others, self._judge, self.rng))
        is_kink = any(note.kind == "kink" for note in self.notes)  # of which others have none
        if self.fresh is self.subject and not is_kink:  # a campaign has other points
            self.findings += self._elsewhere()
        self.findings += contract.partly_equal(self.unseen, y_bar, self._judge, self.rng)
        self.findings += contract.layouts(self.subject, y_bar, self._judge)
        self.findings += contract.soak(self.subject, y_bar, self._judge, soak)

    def _judge(self, grads: list[Any], y_bar: np.ndarray) -> tuple[str, str]:
        for finding in contract.form(self.subject.names, self.subject.inputs, grads):
            return finding.input or "a", finding.message
        now = [grad.tobytes() for grad in grads]
        if self._right[0] is y_bar and self._right[1] == now:
            return "", ""
        expected = self._expected(y_bar)
        for k, name in enumerate(self.subject.names):
            sample = Sample("", y_bar, grads[k], *expected.of(k))
            if not self._reconsidered(k, sample).ok:
                index, right, got, _ = sample.worst()
                return name, f"{got:.9g} at {list(index)}, expected {right:.9g}"
        self._right = y_bar, now
        return "", ""

    def _expected(self, y_bar: np.ndarray) -> Expected:
        if self._last[0] is not y_bar:
            self._last = y_bar, self.reference.expected(y_bar)
        return self._last[1]

    def _elsewhere(self) -> Iterator[Finding]:
        """Nothing that was kept of this point is used at others.

        What holds for these inputs only, such as an order, the backward may rely on: it is wrong if
        it is so both where they are reversed and where they are a little larger.
        """
        turned = [np.flip(x).copy() for x in self.fresh.inputs]
        larger = [x * x.dtype.type(1 + 2**-6) for x in self.fresh.inputs]
        try:
            name, wrong = self._judged_at(turned)
            if wrong and all(self._judged_at(larger)):
                message = f"{name}_bar is wrong in a later call with these inputs reversed: {wrong}"
                yield Finding("state", name, message=message, cause="stale buffer")
        except (ForwardFailed, BackwardFailed, NoPair):  # it need not be defined there
            pass

    def _judged_at(self, inputs: list[np.ndarray]) -> tuple[str, str]:
        """``_judge`` at another point, if a difference along one random line is off already."""
        there, fresh = self.subject.at(copied(tuple(inputs))), self.fresh.at(inputs)
        y, cache = there.run()
        if contract.undefined(inputs, y):
            return "", ""
        y_bar = self.rng.normal(size=np.shape(y)).astype(y.dtype)
        grads, point = there.backward_of(y_bar, cache), Point(there, self.rng, fresh=fresh)
        point.here = fresh, y
        if any(contract.form(there.names, inputs, grads)):
            return point._judge(grads, y_bar)
        ways = [x * self.rng.normal(size=x.shape) for x in inputs]

        def along(t: np.ndarray) -> np.ndarray:
            return fresh.value(*(x + t[0] * way for x, way in zip(inputs, ways, strict=True)))

        line = Function(along, (np.zeros(1),), self.subject.dtype)
        expected, _, bound = Reference(line, y).expected(y_bar).of(0)
        off = sum((grad * way).sum() for grad, way in zip(grads, ways, strict=True)) - expected[0]
        return point._judge(grads, y_bar) if abs(off) > bound[0] else ("", "")

    def _other_points(self) -> list[Subject]:
        """Other values of the same shape, and another shape of equal size."""
        inputs = self.subject.inputs
        noise = [self.rng.normal(size=x.shape).astype(x.dtype) for x in inputs]
        others = [self.subject.at(noise)]
        x = inputs[0]
        if are_batch_norms(inputs) and x.ndim == 2 and len(set(x.shape)) == 2:
            turned = [x.reshape(x.shape[::-1])]
            turned += [self.rng.normal(size=x.shape[0]).astype(x.dtype) for _ in range(2)]
            others.append(self.subject.at(turned))
        return others

    def _rows(self) -> list[Row]:
        rows = []
        for name, samples in self.samples.items():
            if not samples:
                continue
            worst = max(samples, key=lambda sample: sample.telling)
            index, expected, got, bound = worst.worst()
            wrong = any(finding.input == name for finding in self.findings)
            vacuous = all(s.vacuous for s in samples)
            verdict = "WRONG" if wrong else "VACUOUS" if vacuous else "proven"
            error = abs(got - expected)
            rows.append(Row(name, "backward/numeric", error, bound, not wrong, index, verdict))
        return rows
