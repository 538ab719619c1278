"""Is a hand-written backward pass the derivative of its forward pass?"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from minigrad.errors import UsageError, describe, facts
from minigrad.verify import contract
from minigrad.verify.arrays import copied, on_host, restoring
from minigrad.verify.diagnose import cause_of
from minigrad.verify.directions import (
    ALONG_DIRECTIONS,
    Directions,
    are_right,
    nowhere_wrong,
    which_are_sharp,
)
from minigrad.verify.faults import FaultSearch
from minigrad.verify.few_rows import FewRows
from minigrad.verify.judge import Sample, at_kinks, reconsidered, wider
from minigrad.verify.randomness import Seed, generator
from minigrad.verify.reference import Expected, Function, Reference, along
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.subject import (
    BackwardFailed,
    ForwardFailed,
    NoPair,
    Subject,
    are_batch_norms,
    check_names,
    cotangents,
    default_names,
    forward_taking,
)

_SOAK = 100  # identical calls in a check of one point
_MAX_ERROR = 1e-3  # relative to the largest; with a larger error a derivative may be infinite
_NOTES = ("retained", "scratch", "shapes")  # findings that are no faults, but worth knowing


def check_backward(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[[Any, Any], Sequence[Any]],
    inputs: Sequence[Any] | Any,
    *,
    params: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    rng: Seed = 0,
) -> Report:
    """Check a hand-written pair over plain arrays; the engine takes no part in the verdict.

    The cotangents that ``backward`` returns for many kinds of ``y_bar`` are compared with those
    from the Jacobian of ``forward`` by differences; at a point of more than 1,000 numbers, along
    random directions. The bound is derived from the error of the differences and the rounding of
    the summands. There is no tolerance to choose.

    Args:
        forward: ``forward(*inputs, **params) -> (y, cache)``.
        backward: ``backward(y_bar, cache)`` -> one cotangent per input, in a tuple if there are
            several.
        inputs: floating arrays or tensors, or just one.
        params: keyword arguments of ``forward``.
        names: what the report calls the inputs; by default, as ``forward`` calls them.
        rng: seed or ``numpy.random.Generator``.

    Returns:
        A Report; each finding names input, index, expected, got, bound and the likely cause.

    Raises:
        UsageError: an argument is not as described above; or the derivatives of all elements of the
            output are more than 2^25: in float32 by all elements of the inputs, else along all
            directions.

    >>> def forward(x):
    ...     return np.sin(x), x
    >>> def backward(y_bar, x):
    ...     return (y_bar * np.sin(x),)
    >>> mg.verify.check_backward(forward, backward, [np.array([1.0, 2.0])]).ok
    False
    """
    arrays = tuple(on_host("check_backward: inputs", inputs))
    names = tuple(names or default_names(arrays, forward))
    check_names("check_backward: names", names, len(arrays))
    if params is not None and not isinstance(params, Mapping):
        got = describe(params)
        raise UsageError(facts("check_backward: params", expected="a dictionary or None", got=got))
    given = copied(dict(params or {}))
    forward = forward_taking("check_backward: params", forward, len(arrays), given)
    subject = Subject(forward, backward, arrays, given, names)
    report = Point(subject, generator(rng)).examine("check_backward", soak=_SOAK)
    report.facts["shape"] = list(arrays[0].shape)
    return report


def _kind(failure: Exception) -> str:
    """The name of the exception type that the subject raised."""
    return str(failure).partition(":")[0]


class Refused(Exception):
    """Forward accepts the point, but not the calls that differences need."""


class Point:
    """The check of one subject at one point: ``examine`` runs it and returns all results.

    Args:
        subject: the pair to check.
        rng: of the cotangents and other points.
        label: of the findings.
        fresh: a new instance of the pair, whose forward is differenced; ``subject`` if None.
        unseen: an instance that was never called at this point, for ``contract.partly_equal``;
            ``subject`` if None.
    """

    def __init__(
        self,
        subject: Subject,
        rng: np.random.Generator,
        label: str = "",
        fresh: Subject | None = None,
        unseen: Subject | None = None,
    ):
        self.subject, self.rng, self.label = subject, rng, label
        self.fresh, self.unseen = fresh or subject, unseen or subject
        self.findings: list[Finding] = []
        self.notes: list[Finding] = []
        self.first_call: list[Finding] = []  # wrong values in the first call of backward
        self._directions: Directions | None = None  # of a large point, made on demand
        self._last: tuple[Any, Callable[[], Any], list[bytes]] = None, lambda: None, []
        # of _judge: y_bar, the expected cotangents, and the bytes of right ones
        self.search, self.few_rows = FaultSearch(), FewRows(subject)
        self.samples: dict[str, list[Sample]] = {name: [] for name in subject.names}

    def examine(self, title: str = "", *, soak: int = 0) -> Report:
        """Run the check, with ``soak`` identical calls at the end."""
        with contract.restoring_global_state(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.seterr(all="warn")  # a defined state, so that a change by the subject is noticed
            try:
                y = self._first_run()
                if self._can_be_judged(y):
                    self.here = self.fresh.with_copies(), y  # for the reference
                    self._run_parts(y, soak)
            except (ForwardFailed, Refused) as error:
                message = f"forward refuses this point{self._only_narrow()}: {error}"
                self.notes.append(Finding("refused", message=message, cause=_kind(error)))
            except NoPair as error:
                self.findings.append(Finding("shape", message=str(error), cause="no cache"))
        distinct: dict[tuple, Finding] = {}
        for f in self.findings:
            distinct.setdefault((f.kind, f.input, f.cause), f)
        findings = sorted(distinct.values(), key=lambda f: f.kind == "aliasing")  # last
        label = partial(replace, label=self.label)
        return Report(title, [*self._rows()], [*map(label, findings)], [*map(label, self.notes)])

    def _can_be_judged(self, y: Any) -> bool:
        """Whether ``y`` is a finite floating array that equal calls repeat; else adds a finding or
        a note that says why not."""
        if not isinstance(y, np.ndarray) or y.dtype.kind != "f":
            got = str(y.dtype) if isinstance(y, np.ndarray) else type(y).__name__
            message = f"y must be one floating array, got {got}"
            if isinstance(y, (tuple, list)):
                message += ": join several results with np.concatenate, and split y_bar in backward"
            self.findings.append(Finding("dtype", message=message, cause=got))
        elif why := contract.undefined(self.subject.inputs, y):
            self.notes.append(Finding("undefined", message=why))
        else:
            fresh, cause = self.fresh, "random, or depends on earlier calls"
            found = contract.unrepeatable("forward", fresh.value, fresh.inputs, cause)
            self.findings += found
            return not found
        return False

    def _only_narrow(self) -> str:
        """A remark if forward takes this point, but not in float64, which differences need."""
        for dtype in (self.subject.dtype, np.dtype(np.float64)):
            try:
                self.fresh.value(*(x.astype(dtype) for x in self.fresh.inputs))
            except ForwardFailed:
                return " in float64, which the check needs" * (dtype != self.subject.dtype)
        return ""

    @cached_property
    def reference(self) -> Reference:
        """Gives the expected cotangents; made on demand, not for cotangents of a wrong form."""
        try:
            return Reference(*self.here, self.rng)
        except ForwardFailed as error:
            raise Refused(str(error)) from error

    def _run_parts(self, y: np.ndarray, soak: int) -> None:
        self._guarded(self._purity, y)
        self._guarded(self._values, y)
        if not self.findings:  # only the first call was wrong
            self.findings += self.first_call
        if not self.findings:
            self._guarded(self._contract, y, soak)

    def _guarded(self, part: Callable, *args: Any) -> None:
        """Run a part of the check; an exception raised by the subject is a finding."""
        try:
            part(*args)
        except (BackwardFailed, ForwardFailed, NoPair) as error:
            which = "backward" if isinstance(error, BackwardFailed) else "a later forward call"
            finding = Finding("error", message=f"{which} fails: {error}", cause=_kind(error))
            if finding not in self.findings:  # each part may fail in the same way
                self.findings.append(finding)

    def _add(self, found: Iterable[Finding]) -> None:
        for finding in found:
            (self.notes if finding.kind in _NOTES else self.findings).append(finding)

    # --- the numbers -----------------------------------------------------------------------------

    def _values(self, y: np.ndarray) -> None:
        """Compare the cotangents for all kinds of ``y_bar`` with the expected ones."""
        pulled = list(self._pulled(y))
        if not pulled or self._is_decided_along_directions(pulled):
            return
        all_expected = self.reference.all_expected([y_bar for _, y_bar, _ in pulled])
        for (kind, y_bar, x_bars), expected in zip(pulled, all_expected, strict=True):
            for k, name in enumerate(self.subject.names):
                self.samples[name].append(Sample(kind, y_bar, x_bars[k], *expected.of(k)))
        for k, name in enumerate(self.subject.names):
            self.samples[name] = list(self._all_reconsidered(k, self.samples[name]))
            self.findings += self._judged(k, name)

    def _pulled(self, y: np.ndarray) -> Iterator[tuple[str, np.ndarray, list[np.ndarray]]]:
        """All kinds of ``y_bar``, with their cotangents as long as these have the right form."""
        for kind, y_bar in cotangents(y, self.rng):
            x_bars, changed = self.subject.pull_watched(y_bar)
            self.findings += contract.mutated(changed, f" ({kind} y_bar)")
            wrong_form = list(contract.form(self.subject.names, self.subject.inputs, x_bars))
            self.findings += wrong_form
            if any(finding.kind != "aliasing" for finding in wrong_form):
                return  # else it has values that can be judged
            yield kind, y_bar, [np.array(x_bar) for x_bar in x_bars]  # a later call may overwrite

    def _all_reconsidered(self, k: int, samples: list[Sample]) -> Iterator[Sample]:
        """Reconsider the samples up to the first random one that stays wrong: it tells most."""
        is_decided = False
        for sample in samples:
            if not is_decided:
                sample = self._reconsidered(k, sample)
                is_decided = sample.kind == "random" and not sample.ok
            yield sample

    def _judged(self, k: int, name: str) -> Iterator[Finding]:
        """A finding with the likely cause if a sample of input k is wrong."""
        samples = self.samples[name]
        worst = max(samples, key=lambda sample: sample.telling, default=None)
        if worst is None or worst.ok:
            return
        index, expected, got, bound = worst.worst()
        kind, cause = "value", self._cause(k, samples)
        if not np.isfinite(got):
            kind, cause = "domain", f"{got} where the value is finite"
            largest = np.nanmax(np.abs(worst.expected))
            if worst.error[index] > max(abs(expected), _MAX_ERROR * largest):
                cause = f"{got} where finite differences find no finite derivative"
        elif not any(np.any(sample.expected) for sample in samples) and self._is_ignored(k):
            cause = f"forward ignores {name}: other values give the same y"
        elif self._is_unsteady(k, worst):
            kind, cause = "nondeterminism", "an identical call gives another value"
        elif (
            self.subject.dtype.itemsize < 8
            and (wide := self._in_wider(k, worst.y_bar)) is not None
            and worst.vanishes(wide, 1e-3)
        ):
            kind, cause = "precision", "precision: float64 gives the right value"
        message = (
            f"{name}_bar{list(index) or ''} is {got:.9g}, expected {expected:.9g}, "
            f"off by {abs(got - expected):.2e} (bound {bound:.1e}, {worst.kind} y_bar)"
        )
        message += f"; likely cause: {cause}" if cause else ""
        yield Finding(kind, name, index, expected, got, bound, message, cause)

    def _cause(self, k: int, samples: list[Sample]) -> str:
        """The likely cause of wrong cotangents of input k; empty if none is found."""
        kink_faults = [sample.kink_fault for sample in samples if sample.kink_fault]
        if kink_faults:
            return kink_faults[0]
        try:
            cause = self.few_rows.cause(k) if self.reference.is_large else ""
            if cause or self.reference.is_huge or self.reference.is_slow:
                return cause
            return cause_of(self.subject, k, samples, self.reference.expected, self.search)
        except (BackwardFailed, ForwardFailed):  # in a call that the search made
            return ""

    def _is_ignored(self, k: int) -> bool:
        """Whether forward gives the same y at other values of input k."""
        inputs = list(self.fresh.inputs)
        inputs[k] = 2 * inputs[k] + 1
        try:
            return np.array_equal(self.fresh.value(*inputs), self.here[1])
        except ForwardFailed:
            return False

    def _is_unsteady(self, k: int, sample: Sample) -> bool:
        """Whether cotangents of calls with the same ``y_bar`` differ by more than 2 bounds."""
        # several, as a single call may be wrong in the same way by chance
        again = (np.asarray(self.subject.pull(sample.y_bar)[k]) for _ in range(3))
        return any((np.abs(a - sample.got) > 2 * sample.bound).any() for a in again)

    def _in_wider(self, k: int, y_bar: np.ndarray) -> np.ndarray | None:
        """The cotangent that backward computes in wider precision; None if it cannot."""
        dtype = wider(self.subject.dtype)
        wide = self.subject.at([x.astype(dtype) for x in self.subject.inputs])
        try:
            got = np.asarray(wide.pull(y_bar.astype(dtype))[k])
        except (BackwardFailed, ForwardFailed):
            return None
        return got if got.dtype == dtype and got.shape == self.subject.inputs[k].shape else None

    def _reconsidered(self, k: int, sample: Sample) -> Sample:
        """``judge.reconsidered``, and a note for the first sample with kinks."""
        sample = reconsidered(sample, k, self.reference, partial(self._in_wider, k, sample.y_bar))
        if sample.kinks and not any(note.kind == "kink" for note in self.notes):
            message = at_kinks(self.subject.names[k], sample.kinks)
            self.notes.append(Finding("kink", message=message))
        return sample

    # --- large points ----------------------------------------------------------------------------

    def _directions_for(self, x_bars: list[Any]) -> Directions:
        """The directions of a large point, grouped by the first cotangents that are compared."""
        if self._directions is None:
            self._directions = Directions(self.reference, x_bars)
        return self._directions

    def _is_decided_along_directions(self, pulled: list) -> bool:
        """Whether elements need not be compared: a large point is right, or it is huge, or of each
        wrong input a wrong element and the cause are known (without the cause if it is slow)."""
        if not self.reference.tries_directions:
            return False
        directions = self._directions_for(pulled[0][2])
        by_kind = [directions.samples(*each) for each in pulled]
        by_input = {k: [samples[k] for samples in by_kind] for k in range(len(self.samples))}
        is_sharp = which_are_sharp(by_kind[0])
        for k, samples in by_input.items():
            if not (is_sharp[k] and all(sample.ok for sample in samples)):
                worst = max(range(len(samples)), key=lambda i: samples[i].telling)
                by_input[k] = [sample := self._located(k, *pulled[worst])]
                is_enough = not sample.ok and (self.reference.is_slow or self.few_rows.cause(k))
                if not (is_enough or self.reference.is_huge):
                    return False
        self.notes.append(Finding("directions", message=ALONG_DIRECTIONS))
        for k, name in enumerate(self.subject.names):
            self.samples[name] = by_input[k]
            self.findings += self._judged(k, name)
            if np.isnan(by_input[k][0].expected).all() and self.subject.inputs[k].size:
                self.notes.append(nowhere_wrong(name))
        return True

    def _located(self, k: int, kind: str, y_bar: np.ndarray, x_bars: list[Any]) -> Sample:
        """The sample of a wrong element of input k, by bisection."""
        in_wider = partial(self._in_wider, k, y_bar)
        return self._directions_for(x_bars).located(k, kind, y_bar, x_bars, in_wider)

    # --- the contract ----------------------------------------------------------------------------

    def _first_run(self) -> Any:
        """The output of the first forward call; its side effects are findings."""
        given = restoring(self.subject.callers_arrays)
        with given as arrays, contract.restoring_global_state() as changed:
            self.first = y, _ = self.subject.run()
            y = np.array(y) if isinstance(y, (np.ndarray, np.generic)) else y
            state = changed()
        self.findings += contract.forward_purity(arrays, state)
        return y

    def _purity(self, y: np.ndarray) -> None:
        y_bar = self.rng.normal(size=y.shape).astype(y.dtype)
        findings = list(contract.purity(self.subject, self.first, y_bar, self._judge))
        self.first_call = [finding for finding in findings if finding.kind == "value"]
        self._add(finding for finding in findings if finding.kind != "value")

    def _contract(self, y: np.ndarray, soak: int) -> None:
        y_bar = self.rng.normal(size=y.shape).astype(y.dtype)
        others = self._other_points()
        self._add(contract.state(self.subject, y_bar, others, self._judge, self.rng))
        is_kink = any(note.kind == "kink" for note in self.notes)  # other points may have none
        if self.fresh is self.subject and not is_kink:  # a campaign has other points anyway
            self.findings += self._elsewhere()
        self.findings += contract.partly_equal(self.unseen, y_bar, self._judge, self.rng)
        self.findings += contract.layouts(self.subject, y_bar, self._judge)
        self.findings += contract.soak(self.subject, y_bar, self._judge, soak)

    def _judge(self, x_bars: list[Any], y_bar: np.ndarray) -> tuple[str, str]:
        """The first input with a wrong cotangent and what is wrong; ``("", "")`` if none is."""
        for finding in contract.form(self.subject.names, self.subject.inputs, x_bars):
            return finding.input or "a", finding.message
        if self._last[0] is not y_bar:
            self._last = y_bar, cache(partial(self.reference.expected, y_bar)), []
        _, expected, right = self._last
        now = [x_bar.tobytes() for x_bar in x_bars]
        if now == right:
            return "", ""
        if wrong := self._first_wrong(x_bars, y_bar, expected):
            k, sample = wrong
            index, value, got, _ = sample.worst()
            at = f" at {list(index)}" if index else ""
            return self.subject.names[k], f"{got:.9g}{at}, expected {value:.9g}"
        right[:] = now
        return "", ""

    def _first_wrong(
        self, x_bars: list[Any], y_bar: np.ndarray, expected: Callable[[], Expected]
    ) -> tuple[int, Sample] | None:
        """The first input with a wrong element, and its sample; None if all are right."""
        if self.reference.tries_directions:
            samples = self._directions_for(x_bars).samples("", y_bar, x_bars)
            if are_right(samples):
                return None
            for k in (k for k, sample in enumerate(samples) if not sample.ok):
                if not (sample := self._located(k, "", y_bar, x_bars)).ok:
                    return k, sample
            if self.reference.is_huge:
                return None
        for k, x_bar in enumerate(x_bars):
            value, error, bound = expected().of(k)
            sample = self._reconsidered(k, Sample("", y_bar, x_bar, value, error, bound))
            if not sample.ok:
                return k, sample
        return None

    def _elsewhere(self) -> Iterator[Finding]:
        """Nothing that was kept from this point is used at other points.

        A backward may rely on a property of these inputs, such as their order. So it counts as
        wrong only if it is wrong both where they are reversed and where they are a little larger,
        in the same order. The large ones grow more: a common factor may change no derivative.
        """
        reverse = [np.flip(x).copy() for x in self.fresh.inputs]
        top = max(float(np.abs(x).max(initial=1e-30)) for x in self.fresh.inputs)
        larger = [
            (x * (1 + 2**-6 * (1 + np.abs(x) / top))).astype(x.dtype) for x in self.fresh.inputs
        ]
        try:
            name, wrong = self._judged_at(reverse)
            if wrong and all(self._judged_at(larger)):
                message = f"{name}_bar is wrong in a later call with the inputs reversed: {wrong}"
                yield Finding("state", name, message=message, cause="stale buffer")
        except (ForwardFailed, BackwardFailed, NoPair):  # it may be undefined there
            pass

    def _judged_at(self, inputs: list[np.ndarray]) -> tuple[str, str]:
        """``_judge`` at another point, if the derivative along a random direction v is wrong there.

        That is cheap to know: <y_bar, J v> by differences of one variable, against <x_bar, v>. At a
        large point ``_judge`` itself compares along directions.
        """
        there, fresh = self.subject.at(copied(tuple(inputs))), self.fresh.at(inputs)
        y, cache = there.run()
        if contract.undefined(inputs, y):
            return "", ""
        y_bar = self.rng.normal(size=np.shape(y)).astype(y.dtype)
        x_bars, point = there.backward_of(y_bar, cache), Point(there, self.rng, fresh=fresh)
        point.here = fresh, y
        if self.reference.tries_directions or any(contract.form(there.names, inputs, x_bars)):
            return point._judge(x_bars, y_bar)
        directions = [x * self.rng.normal(size=x.shape) for x in inputs]
        line = Function(along(fresh.value, inputs, directions), (np.zeros(1),), there.dtype)
        expected, _, bound = Reference(line, y).expected(y_bar).of(0)
        got = sum((x_bar * v).sum() for x_bar, v in zip(x_bars, directions, strict=True))
        return point._judge(x_bars, y_bar) if abs(got - expected[0]) > bound[0] else ("", "")

    def _other_points(self) -> list[Subject]:
        """A point with other values of the same shape, and one of another shape of equal size."""
        inputs = self.subject.inputs
        noise = [self.rng.normal(size=x.shape).astype(x.dtype) for x in inputs]
        others = [self.subject.at(noise)]
        x = inputs[0]
        if are_batch_norms(inputs) and x.ndim == 2 and len(set(x.shape)) == 2:
            reshaped = [x.reshape(x.shape[::-1])]
            reshaped += [self.rng.normal(size=x.shape[0]).astype(x.dtype) for _ in range(2)]
            others.append(self.subject.at(reshaped))
        return others

    def _rows(self) -> Iterator[Row]:
        are_along_directions = any(note.kind == "directions" for note in self.notes)
        for name, samples in self.samples.items():
            if not samples:
                continue
            worst = max(samples, key=lambda sample: sample.telling)
            index, expected, got, bound = worst.worst()
            wrong = any(finding.input == name for finding in self.findings)
            vacuous = all(s.vacuous for s in samples)
            verdict = "WRONG" if wrong else "VACUOUS" if vacuous else "proven"
            error = abs(got - expected)
            if are_along_directions and np.isfinite(worst.expected).all():
                index = ()
            yield Row(name, "backward/numeric", error, bound, not wrong, index, verdict)
