"""The duties of a pair ``forward, backward`` besides the right numbers.

* It does not change its inputs, ``y_bar`` or its cache.
* Its results are arrays of the right shape and dtype, new and writable.
* No result depends on earlier calls, on calls at other points, or on what the caller writes to an
  array that was returned to it.
* It does not change the global state of NumPy or Python.

Each function here checks one of these duties and yields a finding for each violation. A ``Judge``
tells it whether the cotangents of a call are right.
"""

# ruff: noqa: NPY002 (the legacy random state is what a subject may change)
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from minigrad.verify.arrays import arrays_in, restoring, strided
from minigrad.verify.report import Finding
from minigrad.verify.rounding import looks_like_batch_norm
from minigrad.verify.subject import (
    BackwardFailed,
    ForwardFailed,
    NoPair,
    Subject,
)

# (cotangents, y_bar) -> the name of an input and what is wrong with its cotangent, or ("", "")
Judge = Callable[[list[Any], np.ndarray], tuple[str, str]]


def _if_wrong(
    judge: Judge, x_bars: list[Any], y_bar: np.ndarray, kind: str, when: str, cause: str
) -> Iterator[Finding]:
    """A finding of this kind if a cotangent of a call is wrong; ``when`` describes the call."""
    name, wrong = judge(x_bars, y_bar)
    if wrong:
        yield Finding(kind, name, message=f"{name}_bar is wrong {when}: {wrong}", cause=cause)


@contextmanager
def restoring_global_state() -> Iterator[Callable[[], str]]:
    """Restore NumPy's and Python's global state; the yielded function names what has changed."""
    before, state = _global_state(), np.random.get_state(legacy=False)
    try:
        yield lambda: ", ".join(
            name for name, value in _global_state().items() if value != before[name]
        )
    finally:
        np.random.set_state(state)
        random.setstate(before["Python's random state"])
        np.seterr(**before["NumPy's error state"])


def _global_state() -> dict[str, Any]:
    return {
        "NumPy's random state": pickle.dumps(np.random.get_state(legacy=False)),
        "Python's random state": random.getstate(),
        "NumPy's error state": np.geterr(),
    }


def form(names: Sequence[str], inputs: Sequence[np.ndarray], x_bars: Any) -> Iterator[Finding]:
    """The cotangents have the right number, type, shape and dtype, and can be written to."""
    if len(x_bars) != len(inputs):
        returned = f"{len(x_bars)} cotangent{'s' * (len(x_bars) != 1)}"
        message = f"backward returned {returned}, expected {len(inputs)}, one per input"
        yield Finding("shape", message=message, cause="number of cotangents")
        return
    shapes = sorted(x.shape for x in inputs)
    swapped = sorted(getattr(x_bar, "shape", ()) for x_bar in x_bars) == shapes
    for name, x, x_bar in zip(names, inputs, x_bars, strict=True):
        if type(x_bar) is not np.ndarray and not isinstance(x_bar, np.generic):  # a masked array
            got = type(x_bar).__name__
            message = f"{name}_bar has type {got}, expected a plain array"
            yield Finding("shape", name, message=message, cause=got)
        elif x_bar.shape != x.shape:
            message = f"{name}_bar has shape {x_bar.shape}, but {name} has shape {x.shape}"
            yield Finding("shape", name, message=message, cause=_shape_cause(x_bar, x, swapped))
        elif x_bar.dtype != x.dtype:
            message = f"{name}_bar has dtype {x_bar.dtype}, but {name} has dtype {x.dtype}"
            yield Finding("dtype", name, message=message, cause=f"dtype {x_bar.dtype}")
        elif isinstance(x_bar, np.ndarray) and not x_bar.flags.writeable:
            message = f"{name}_bar is read-only: the caller cannot accumulate into it"
            yield Finding("aliasing", name, message=message, cause="not writable")


def _shape_cause(x_bar: Any, x: np.ndarray, swapped: bool) -> str:
    if swapped:
        return "cotangents in the wrong order, or each is transposed"
    if x_bar.ndim == x.ndim and x_bar.shape == x.shape[::-1]:
        return "transposed"
    if [n for n in x_bar.shape if n > 1] == [n for n in x.shape if n > 1]:
        return "an axis of length 1 is extra or missing: keepdims, or a sum over it"
    if x_bar.ndim == x.ndim == 1:
        return "summed over the wrong axis"
    if x_bar.size > x.size:
        return "missing sum over broadcast axes"
    return "too much was summed" if x_bar.size < x.size else "reshaped"


def forward_purity(arrays: Sequence[str | None], state: str) -> Iterator[Finding]:
    """A finding for the global state and each of the caller's arrays that a forward call changed.

    Both are given by their names.
    """
    if state:
        yield Finding("purity", message=f"forward changes {state}", cause="global state")
    for name in arrays:
        message = f"forward changed {name} in place"
        yield Finding("purity", name, message=message, cause="mutated input")


def undefined(inputs: Sequence[np.ndarray], y: np.ndarray) -> str:
    """Why the point cannot be judged: an input or the output is not finite; else empty."""
    if not all(np.isfinite(x).all() for x in inputs):
        return "an input is not finite at this point"
    return "" if np.isfinite(y).all() else "the output is not finite at this point"


def unrepeatable(
    what: str, f: Callable[..., np.ndarray], inputs: Sequence[np.ndarray], cause: str = "random"
) -> list[Finding]:
    """A finding if ``f``, called ``what``, is no function of its inputs; else none."""
    if not (difference := _difference(f, inputs)):
        return []
    message = f"{what} is not a function of its inputs: {difference}"
    return [Finding("nondeterminism", message=message, cause=cause)]


def _difference(f: Callable[..., np.ndarray], inputs: Sequence[np.ndarray]) -> str:
    """A text that says where equal calls differ by more than rounding; empty if they do not.

    Differences of such a function are noise, and any derivative would lie within their error bar.
    Summation in another order is allowed: it changes y by no more than relative changes of y and of
    the inputs by ``(32 + n) u`` would, n the number of elements of the largest input.
    """
    first, *others = (np.array(f(*inputs)) for _ in range(4))
    for other in others:
        if other.shape != first.shape:
            return f"y has shape {first.shape} in one call, {other.shape} in an identical one"
    if all(other.tobytes() == first.tobytes() for other in others):
        return ""
    u = max(float(np.finfo(a.dtype).eps) for a in (first, *inputs)) / 2
    step, signs = u**0.5, np.random.default_rng(0)  # its effect is far above the rounding of f
    with np.errstate(all="ignore"):
        moved = [x + x * (step * signs.choice([-1, 1], x.shape)).astype(x.dtype) for x in inputs]
        change = f(*moved) - first
        size, effect = (np.abs(a, where=np.isfinite(a), out=np.zeros_like(a)).max(initial=0)
                        for a in (first, change))  # fmt: skip
        # a relative change u of the inputs has the effect (u / step) * effect = step * effect
        bound = (32 + max(x.size for x in inputs)) * (u * size + step * effect)
        for other in others:
            differs = (np.abs(other - first) > bound) | (np.isnan(other) != np.isnan(first))
            if differs.any():
                at = tuple(int(i) for i in np.argwhere(differs)[0])
                values = f"{first[at]:.9g} in one call, {other[at]:.9g} in an identical one"
                return f"y{list(at) or ''} is {values}"
    return ""


def purity(
    subject: Subject, first: tuple[np.ndarray, Any], y_bar: np.ndarray, judge: Judge
) -> Iterator[Finding]:
    """A call changes no array of the caller, and its results share no memory with them.

    ``first`` is ``(y, cache)`` of the very first forward call, before any buffer can be reused.
    """
    (y, cache), seed = first, y_bar.copy()
    made = [y, *arrays_in(cache)]
    before = [a.tobytes() for a in made]
    given = restoring([*subject.callers_arrays, (None, seed)])
    with restoring_global_state() as state, given as changed:
        x_bars = subject.backward_of(seed, cache)
        changes, wrong = state(), ""
        spoils_y, *spoils = (a.tobytes() != b for a, b in zip(made, before, strict=True))
        if any(spoils):
            _, wrong = judge(subject.backward_of(y_bar.copy(), cache), y_bar)
    if changes:
        yield Finding("purity", message=f"backward changes {changes}", cause="global state")
    yield from mutated(changed)
    if spoils_y:
        yield Finding("purity", message="backward changed y in place", cause="mutated output")
    if any(spoils):
        kind = "purity" if wrong else "scratch"  # harmless if a second call is still right
        yield Finding(kind, message="backward changed its cache in place", cause="mutated cache")
    yield from _if_wrong(judge, x_bars, y_bar, "value", "in the first backward call", "first call")
    yield from _sharing(subject, y, x_bars, seed)


def _sharing(
    subject: Subject, y: np.ndarray, x_bars: list[Any], y_bar: np.ndarray
) -> Iterator[Finding]:
    """Results share no memory with the arguments of the call, and the next call changes none.

    ``y`` and ``x_bars`` are the results of the call for ``y_bar``.
    """
    with restoring(subject.callers_arrays) as changed:
        y2, cache2 = subject.run()
        kept = {"y": y, "y_bar": y_bar, **dict(zip(subject.names, x_bars, strict=False))}
        values = {key: np.array(kept[key]).tobytes() for key in kept}
        later = subject.backward_of(y_bar.copy(), cache2)
        spoiled = [key for key in kept if np.array(kept[key]).tobytes() != values[key]]
    views = [name for name, x in zip(subject.names, subject.inputs, strict=True) if _share(y, x)]
    for name in views:
        message = f"y is a view of {name}: a write to one changes the other; return a copy"
        yield Finding("aliasing", name, message=message, cause="a view of an input")
    if not views and _share(y, y2):
        message = "y of one call shares memory with y of the next"
        yield Finding("aliasing", message=message, cause="shared with a later call")
    for key in spoiled:
        name = None if key in ("y", "y_bar") else key
        message = f"{f'{name}_bar' if name else key} of one call is changed by the next call"
        yield Finding("aliasing", name, message=message, cause="shared with a later call")
    for name in changed:
        message = f"{name} of one call is changed by the next call"
        yield Finding("purity", name, message=message, cause="mutated input")
    others = {"y": y, "y_bar": y_bar, **dict(zip(subject.names, subject.inputs, strict=True))}
    yield from _aliasing(subject, x_bars, others, later)


def mutated(names: Sequence[str | None], when: str = "") -> Iterator[Finding]:
    """A finding for each name of an array that a call changed; None stands for y_bar."""
    for name in names:
        what = "backward changed y_bar" if name is None else f"{name} was changed"
        cause = "mutated cotangent" if name is None else "mutated input"
        yield Finding("purity", name, message=f"{what} in place{when}", cause=cause)


def _aliasing(
    subject: Subject, x_bars: list[Any], others: dict[str, np.ndarray], later: list[Any]
) -> Iterator[Finding]:
    """A cotangent shares memory with none of ``others``, of ``later``, or of ``x_bars``."""
    for k, (name, x_bar) in enumerate(zip(subject.names, x_bars, strict=False)):
        for other, array in others.items():
            if _share(x_bar, array):
                cause = f"shares memory with {other}"
                yield Finding("aliasing", name, message=f"{name}_bar {cause}", cause=cause)
        if any(_share(x_bar, g) for g in later):
            message = f"{name}_bar of one call shares memory with the result of the next"
            yield Finding("aliasing", name, message=message, cause="shared with a later call")
        if any(_share(x_bar, g) for g in x_bars[k + 1 :]):
            message = f"{name}_bar shares memory with another cotangent"
            yield Finding("aliasing", name, message=message, cause="shared between cotangents")


def _share(a: Any, b: Any) -> bool:
    arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return arrays and np.may_share_memory(a, b) and np.shares_memory(a, b)


def state(subject: Subject, y_bar: np.ndarray, others: list[Subject], judge: Judge,
          rng: np.random.Generator) -> Iterator[Finding]:  # fmt: skip
    """No result depends on other calls, or on what the caller writes to returned arrays."""

    def finding(when: str, cause: str, x_bars: list[Any], seed: Any = y_bar) -> Iterator[Finding]:
        return _if_wrong(judge, x_bars, seed, "state", when, cause)

    y, cache = subject.run()
    first = subject.backward_of(y_bar, cache)
    for x_bar in first:
        if isinstance(x_bar, np.ndarray) and x_bar.flags.writeable:
            x_bar[...] = -7.5  # as the caller may
    second = subject.backward_of(y_bar, cache)
    yield from finding("in a second call with the same cache", "repeated call", second)
    for name, a, b in zip(subject.names, first, second, strict=False):
        if _share(a, b):
            message = f"{name}_bar of two calls with the same cache shares memory"
            yield Finding("aliasing", name, message=message, cause="shared with a later call")
    other_bar = rng.normal(size=y_bar.shape).astype(y_bar.dtype)
    yield from finding("in a later call with the same cache and another y_bar", "repeated call",
                       subject.backward_of(other_bar, cache), other_bar)  # fmt: skip
    yield from finding("after the caller wrote to an earlier cotangent", "stale buffer",
                       subject.pull(y_bar))  # fmt: skip
    y, cache = subject.run()
    if isinstance(y, np.ndarray) and y.flags.writeable:
        normalizes = looks_like_batch_norm(y, subject.inputs, subject.params)
        y[...] = 1e3
        try:
            name, wrong = judge(subject.backward_of(y_bar, cache), y_bar)
        except BackwardFailed as error:  # it may refuse such a y
            name, wrong = subject.names[0], str(error)
        if wrong:  # tanh or softmax keep their y for good reason, a normalization does not
            kind = "state" if normalizes else "retained"
            message = f"{name}_bar depends on the y that forward returned: a write to y changes it"
            yield Finding(kind, name, message=message, cause="reads y after returning it")
    for other in others:
        yield from _interleaved(subject, y_bar, other, finding, rng)


def _interleaved(
    subject: Subject, y_bar: np.ndarray, other: Subject, finding: Callable, rng: np.random.Generator
) -> Iterator[Finding]:
    """forward here, forward and backward there, backward here."""
    _, cache = subject.run()
    try:
        y2, cache2 = other.run()
    except ForwardFailed:  # it may refuse the other point
        return
    there = f"{other.names[0]} {other.inputs[0].shape}"
    when = f"if a call with {there} comes between forward and backward"
    when += " (return all that backward needs as its cache)"
    yield from finding(when, "stale buffer", subject.backward_of(y_bar, cache))
    _, cache = subject.run()
    other.run()
    try:
        other.backward_of(rng.normal(size=y2.shape).astype(y2.dtype), cache2)
    except BackwardFailed as error:
        if other.inputs[0].shape == subject.inputs[0].shape:
            raise
        message = f"forward takes {there}, too, but backward fails there: {error}"
        yield Finding("shapes", message=message, cause="written for these shapes")
    yield from finding(when, "stale buffer", subject.backward_of(y_bar, cache))


def partly_equal(
    subject: Subject, y_bar: np.ndarray, judge: Judge, rng: np.random.Generator
) -> Iterator[Finding]:
    """No result is cached under a key that holds only a part of the inputs and params.

    The pair is called at points that share a part of them with this point, then at this point
    itself, in arrays that held other numbers before. Points that share less come first, so that an
    entry is made at a point that shares its key and nothing else. A pair that was called at this
    point before may hold the right entry; then only a cache by identity of the arrays is found.
    """
    other_params = {k: 2 * v + 1 for k, v in subject.params.items() if isinstance(v, float)}
    refilled = subject.at([_rearranged(x, rng) for x in subject.inputs])
    choices = list(zip(refilled.inputs, subject.inputs, strict=True))
    choices += [({**subject.params, **other_params}, subject.params)] if other_params else []
    for shared in sorted({0, 1, 2, len(choices) - 1}):
        for same in combinations(range(len(choices)), shared):
            chosen = [pair[i in same] for i, pair in enumerate(choices)]
            params = chosen.pop() if other_params else subject.params
            with suppress(ForwardFailed, BackwardFailed, NoPair):  # it may be undefined there
                replace(subject, inputs=tuple(chosen), params=params).pull(y_bar)
    for array, x in zip(refilled.inputs, subject.inputs, strict=True):
        array[...] = x
    after = "after calls with some of the same values, and one with other values in the same arrays"
    yield from _if_wrong(judge, refilled.pull(y_bar), y_bar, "state", after, "stale buffer")


def _rearranged(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``x`` with its middle half reversed; random numbers if that changes nothing.

    Its ends and its sum stay the same: a cache with such a key takes it for ``x``.
    """
    other = np.array(x, order="C")
    between = other.reshape(-1)[x.size // 4 : x.size - x.size // 4]
    between[:] = between[::-1].copy()
    return rng.normal(size=x.shape).astype(x.dtype) if (other == x).all() else other


def soak(subject: Subject, y_bar: np.ndarray, judge: Judge, calls: int) -> Iterator[Finding]:
    """Many identical calls: each must be right, and none may reuse the arrays of the first."""
    first: list[bytes] = []
    kept: list[Any] = []  # the results of the first call: as long as they live, they are not reused
    for call in range(calls):
        with restoring([(None, y_bar), *subject.callers_arrays]):
            y, cache = subject.run()
            x_bars = subject.backward_of(y_bar, cache)
        results = [y, *x_bars]
        for name, a in zip((None, *subject.names), kept, strict=False):
            if any(_share(a, b) for b in results):
                what = f"{name}_bar" if name else "y"
                message = f"{what} of a call shares memory with a result {call} calls later"
                yield Finding("aliasing", name, message=message, cause="shared with a later call")
                return
        kept = kept or results
        now = [np.asarray(x_bar).tobytes() for x_bar in x_bars]
        if now == first:  # already judged
            continue
        first = first or now
        when = f"in call {call + 1} of {calls} identical calls"
        if found := [*_if_wrong(judge, x_bars, y_bar, "nondeterminism", when, "non-determinism")]:
            yield from found
            return


def layouts(subject: Subject, y_bar: np.ndarray, judge: Judge) -> Iterator[Finding]:
    """The memory layout of an input does not matter."""
    for kind, arrange in (("Fortran-ordered", _columns_first), ("strided", strided)):
        moved = subject.at([arrange(x) for x in subject.inputs])
        try:
            x_bars, changed = moved.pull_watched(y_bar)
        except ForwardFailed:  # it may refuse this layout
            continue
        yield from mutated(changed, f" where inputs are {kind}")
        inputs = f"{kind} inputs"
        yield from _if_wrong(judge, x_bars, y_bar, "value", f"for {inputs}", inputs)


def _columns_first(x: np.ndarray) -> np.ndarray:
    return np.array(x, order="F")  # np.asfortranarray would give a scalar an axis
