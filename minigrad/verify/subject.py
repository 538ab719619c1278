"""The pair ``forward, backward`` that is checked, at one point."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import Parameter, signature
from typing import Any

import numpy as np

from minigrad.errors import UsageError, describe, facts
from minigrad.verify.arrays import arrays_of, coarsest, copied, restoring, strided

FAILURES = (Exception, SystemExit)  # what checked code may raise: all but an interrupt


@dataclass(frozen=True)
class Subject:
    """``forward(*inputs, **params) -> (y, cache)`` and ``backward(y_bar, cache) -> cotangents``."""

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[[Any, Any], Sequence[Any]]
    inputs: tuple[np.ndarray, ...]
    params: Mapping[str, Any]
    names: tuple[str, ...]

    def run(self) -> tuple[np.ndarray, Any]:
        """One forward call.

        Raises:
            ForwardFailed: whatever ``forward`` raised.
            NoPair: it did not return ``(y, cache)``.
        """
        return self._call(self.inputs, self.params)

    def pull(self, y_bar: np.ndarray) -> list[Any]:
        """One forward and one backward call; changes of their arguments are undone."""
        return self.pull_watched(y_bar)[0]

    def pull_watched(self, y_bar: np.ndarray) -> tuple[list[Any], list[str | None]]:
        """``pull``, and the names of the caller's arrays that it changed; None stands for y_bar."""
        with restoring([(None, y_bar), *self.callers_arrays]) as changed:
            x_bars = self.backward_of(y_bar, self.run()[1])
        return x_bars, changed

    def backward_of(self, y_bar: np.ndarray, cache: Any) -> list[Any]:
        """One backward call on an existing cache; a single cotangent need not be in a tuple.

        Raises:
            BackwardFailed: whatever ``backward`` raised, or it returned no cotangent per input.
        """
        try:
            result = self.backward(y_bar, cache)
            if result is not None and not self._is_single(result):
                return list(result)
            if len(self.inputs) == 1 and hasattr(result, "shape"):
                return [result]
        except FAILURES as error:
            hint = _read_only_hint(y_bar, error) or self._order_hint(y_bar, cache)
            why = f"{type(error).__name__}: {error}{hint}"
            raise BackwardFailed(why) from error
        got = "None (is a `return` missing?)" if result is None else describe(result)
        raise BackwardFailed(f"it must return a tuple of cotangents: got {got}")

    def _order_hint(self, y_bar: np.ndarray, cache: Any) -> str:
        """A remark if ``backward`` takes its arguments in the other order, as in PyTorch."""
        with suppress(*FAILURES):
            result: Any = self.backward(cache, y_bar.copy())
            x_bars = [result] if hasattr(result, "shape") else list(result)
            if [*map(np.shape, x_bars)] == [x.shape for x in self.inputs]:
                return (
                    "; it runs as backward(cache, y_bar), but is called as backward(y_bar, cache)"
                )
        return ""

    def _is_single(self, result: Any) -> bool:
        """Whether ``result`` is a dict, or an array that does not stack one cotangent per input."""
        if isinstance(result, Mapping):
            return True
        stacks = [(len(self.inputs), *x.shape) for x in self.inputs]
        return hasattr(result, "shape") and tuple(result.shape) not in stacks

    def value(self, *inputs: np.ndarray) -> np.ndarray:
        """The output at other inputs, of which forward gets copies; raises as ``run`` does."""
        return np.asarray(self._call(copied(inputs), copied(self.params))[0])

    def _call(self, inputs: Sequence[np.ndarray], params: Mapping[str, Any]) -> tuple[Any, Any]:
        try:
            result = self.forward(*inputs, **params)
        except FAILURES as error:
            raise ForwardFailed(f"{type(error).__name__}: {error}") from error
        if not is_pair(result):
            raise NoPair(f"forward must return (y, cache), got {_described(result)}")
        y, cache = result
        # a loss may be a Python float, which has no dtype of its own
        return (np.array(y, coarsest(inputs)) if type(y) is float else y), cache

    def at(self, inputs: Sequence[np.ndarray]) -> "Subject":
        """The same pair at another point."""
        return replace(self, inputs=tuple(inputs))

    def with_copies(self) -> "Subject":
        """The same pair at the same point, on arrays that it shares with nobody."""
        return replace(self, inputs=copied(self.inputs), params=copied(self.params))

    @cached_property
    def callers_arrays(self) -> list[tuple[str, np.ndarray]]:
        """Names and arrays that belong to the caller: the inputs, and the arrays in params.

        Arrays that ``forward`` adds to a dictionary in params (running statistics) are not among
        them: they are its own.
        """
        given = [(name, a) for name, value in self.params.items() for a in arrays_of(value)]
        return [*zip(self.names, self.inputs, strict=True), *given]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the inputs with the least precision."""
        return coarsest(self.inputs)


class ForwardFailed(Exception):
    """The subject's forward raised; never leaves this package."""


class NoPair(Exception):
    """The subject's forward did not return ``(y, cache)``; never leaves this package."""


class BackwardFailed(Exception):
    """The subject's backward raised; never leaves this package."""


def is_pair(result: Any) -> bool:
    """Whether ``result`` is a tuple or list of two, such as ``(y, cache)``; no array is."""
    return isinstance(result, (tuple, list)) and len(result) == 2


def _read_only_hint(y_bar: np.ndarray, error: BaseException) -> str:
    """A remark if ``error`` may come from writing to a read-only ``y_bar``."""
    is_read_only = "read-only" in str(error) and not y_bar.flags.writeable
    return "; this y_bar belongs to the caller and is read-only: copy it" * is_read_only


def _described(result: Any) -> str:
    is_sequence = isinstance(result, (tuple, list))
    return f"a {type(result).__name__} of {len(result)}" if is_sequence else describe(result)


def forward_taking(what: str, forward: Callable, n: int, params: Mapping[str, Any]) -> Callable:
    """``forward``, adapted so that it can be called with ``n`` inputs and ``**params``.

    ``*args`` take the values of params. If eps is the only one, it goes to the one parameter whose
    name contains "eps", or, with the mode, into a dictionary ``bn_param`` as in CS231n.

    Raises:
        UsageError: ``forward`` does not take ``params``, which the message calls ``what``, or
            needs more.
    """
    try:
        parameters = signature(forward).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return forward
    kinds, names = {p.kind for p in parameters}, [p.name for p in parameters][n:]
    variable = Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD
    needed = [p.name for p in [*parameters][n:] if p.default is p.empty and p.kind not in variable]
    missing = [name for name in needed if name not in params]
    if not missing and (Parameter.VAR_KEYWORD in kinds or set(params) <= set(names)):
        return forward
    if Parameter.VAR_POSITIONAL in kinds and not missing:
        return lambda *inputs, **given: forward(*inputs, *given.values())
    eps_names = [name for name in names if "eps" in name.lower()]
    if list(params) == ["eps"] and len(eps_names) == 1:
        return lambda *inputs, eps: forward(*inputs, **{eps_names[0]: eps})
    if list(params) == ["eps"] and names == ["bn_param"]:
        return lambda *inputs, eps: forward(*inputs, {"mode": "train", "eps": eps})
    after = f"its {n} input{'s' * (n > 1)}"
    expected = f"parameters of forward after {after}: {', '.join(names) or 'none'}"
    remedy = f"pass {' and '.join(missing)} as an input or in params" if missing else ""
    raise UsageError(facts(what, expected=expected, got=", ".join(params) or "none", remedy=remedy))


def are_batch_norms(inputs: Sequence[np.ndarray]) -> bool:
    """Whether the shapes are (N, C, ...), (C,) and (C,)."""
    if len(inputs) != 3 or inputs[0].ndim < 2:
        return False
    return inputs[1].shape == inputs[2].shape == inputs[0].shape[1:2]


def parameter_names(f: Callable | None, n: int) -> tuple[str, ...]:
    """The names of the first ``n`` positional parameters of ``f``; empty if it has fewer."""
    try:
        parameters = signature(f).parameters.values() if f else ()
    except (TypeError, ValueError):
        return ()
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    names = tuple(p.name for p in parameters if p.kind in positional)[:n]
    return names if len(names) == n else ()


def default_names(inputs: Sequence[np.ndarray], forward: Callable | None = None) -> tuple[str, ...]:
    """The parameter names of ``forward``; else ``x, gamma, beta`` if the shapes are those of a
    batch norm; else ``input 0`` and so on.

    An input named ``y`` or ``y_bar`` would be taken for the output or its cotangent.
    """
    names, taken = parameter_names(forward, len(inputs)), ("y", "y_bar")
    if are_batch_norms(inputs) and not (names and {*names}.isdisjoint(taken)):
        return ("x", "gamma", "beta")
    names = names or taken[:1] * len(inputs)
    return tuple(f"input {k}" if name in taken else name for k, name in enumerate(names))


def check_names(what: str, names: Sequence[str], n: int) -> None:
    """Raise UsageError unless there are ``n`` different names."""
    are_names = all(isinstance(name, str) for name in names)
    if not are_names or len(names) != n or len(set(names)) < n:
        expected = f"a different name (a str) per input, {n} in all"
        raise UsageError(facts(what, expected=expected, got=list(names)))


def cotangents(y: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Cotangents of several kinds, with their names: some faults show for one kind only."""
    dtype, shape = y.dtype, y.shape
    normal = rng.normal(size=shape).astype(dtype)
    yield "random", normal
    yield "random", rng.normal(size=shape).astype(dtype)
    for position in {0, y.size - 1, int(rng.integers(max(y.size, 1)))} if y.size else ():
        one_hot = np.zeros(shape, dtype)
        one_hot.reshape(-1)[position] = 1
        yield "one-hot", one_hot
    yield "sparse", np.where(rng.random(shape) < 0.3, normal, 0).astype(dtype)
    scale = {"float16": 1e2, "float32": 1e10}.get(str(dtype), 1e30)
    yield "huge", (normal * scale).astype(dtype)
    yield "tiny", (normal / scale).astype(dtype)
    yield "zero", np.zeros(shape, dtype)
    yield "ones", np.ones(shape, dtype)
    if shape:
        yield "non-contiguous", strided(normal)
        yield "Fortran-ordered", np.asfortranarray(normal)
        yield "reversed", normal[:: -1 if len(normal) > 1 else 1]  # one row has no direction
        yield "positive", np.abs(normal)
        eighths = np.round(8 * normal) / 8  # whose sums are exact
        yield "zero-sum", eighths - eighths[::-1]
        yield "read-only broadcast", np.broadcast_to(normal[:1], shape)
