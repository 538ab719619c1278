"""Fused ops: one kernel where a composite runs many ops, with the composite's signature.

A kernel is a pair of functions on plain arrays, like the pair that ``verify.check_backward`` takes
but with the array module first: ``forward(xp, *arrays, **params) -> (y, cache)`` and
``backward(xp, y_bar, cache) -> one cotangent per array``. In place of a cotangent that may not be
needed, a backward may return a function that computes it. The backward is first order only:
recorded sweeps and tangents use the composite instead, so higher orders are right without a second
hand-written rule.
"""

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from minigrad.backend import as_array, frozen, namespace, runs_kernels
from minigrad.context import CURRENT, setting
from minigrad.core.node import Box, leaf
from minigrad.core.op import Op
from minigrad.core.sweep import backward_sweep, forward_sweep
from minigrad.declaration import Declared
from minigrad.errors import (
    MinigradError,
    RuleError,
    UsageError,
    describe,
    facts,
    from_operands,
)
from minigrad.ops.shape import reshape
from minigrad.protocol import tracked

MIN_COMPILED = 4096  # elements of the largest operand from which on numba's kernels are used
KINDS = ("numba", "cuda", "numpy", "portable")  # the order of preference
_FLOATS = {np.dtype("float32"), np.dtype("float64")}
_allowed: ContextVar[tuple[str, ...]] = ContextVar("kernels", default=KINDS)
_is_fork = False  # numba's thread pool does not survive a fork: a child computes without numba


def _note_fork() -> None:
    global _is_fork
    _is_fork = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@contextmanager
def use(*kinds: str) -> Iterator[None]:
    """Choose which kernels fused ops may use inside a ``with`` block.

    Args:
        kinds: any of ``"numba"``, ``"cuda"``, ``"numpy"`` and ``"portable"``. With none of them,
            every fused op runs its composite, and a drawing shows the ops inside.

    >>> with mg.fused.use("numpy"):
    ...     mg.fused.sigmoid(mg.tensor([0.0]))
    tensor([0.5])
    """
    if unknown := set(kinds) - set(KINDS):
        raise UsageError(f"no such kernels: {sorted(unknown)}; there are {', '.join(KINDS)}")
    token = _allowed.set(tuple(kind for kind in KINDS if kind in kinds))
    try:
        yield
    finally:
        _allowed.reset(token)


class Pair(NamedTuple):
    """A forward and its backward; ``accepts(*arrays, **params)`` says whether they serve a call.

    Nothing else refers to the arrays that a backward returns. A backward that ``reuses`` also takes
    ``own=True``: nothing else refers to y_bar then, and it may write x_bar over it.
    """

    forward: Callable
    backward: Callable
    accepts: Callable[..., bool] = lambda *arrays, **params: True
    reuses: bool = False


# modules imported at first use; each has a table PAIRS: name of a composite -> Pair
_LAZY = {"numba": "minigrad.fused.compiled", "cuda": "minigrad.fused.cuda"}


@dataclass(eq=False, repr=False, kw_only=True)
class Fused(Op):
    """An op that runs a kernel; ``composite`` computes the same as a graph of ops."""

    composite: Any  # a Composite, or an Op with another rule
    large_only: bool = False  # small arrays and a GPU use the composite, which is as fast
    box: ClassVar[type[Box]] = Box  # becomes Tensor, whose operators the composites need

    def __post_init__(self):
        super().__post_init__()
        self.portable, self.forward = self.forward, self._forward
        self.pull, self.vjp, self.jvp = self._pull, self._vjp, self._jvp
        self.pairs: dict[str, Any] = {}  # kind -> Pair, or None where there is no such kernel

    def defbackward(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Declare ``rule(xp, y_bar, cache)``, the backward of the declared forward."""
        self.pairs["portable"] = Pair(self.portable, rule)
        return rule

    def __call__(self, *args: Any, **params: Any) -> Any:
        if self.large_only and not (args and _is_large(args[0])):
            return self.composite(*args, **params)
        if len(args) != self.arity or (args and args[-1] is None):
            args, params = self.bind(args, params)
        if not _allowed.get() or any(map(tracked, params.values())):
            return self.composite(*args, **params)
        boxes = [arg for arg in args if isinstance(arg, Box)]
        if len(boxes) < len(args) and CURRENT.get().recording and any(map(tracked, boxes)):
            # the cache would hold arrays that the caller may still change
            box = type(boxes[0])
            try:
                args = tuple(a if isinstance(a, Box) else box(frozen(as_array(a))) for a in args)
            except MinigradError as error:
                raise from_operands(self, args, params, error) from error
        return super().__call__(*args, **params)

    def choose(self, xp: Any, arrays: tuple, params: dict) -> Pair:
        """The pair of the first allowed kind that accepts the call; the portable one if none."""
        try:
            size = max([array.size for array in arrays])
        except AttributeError:
            raise TypeError("operands must be arrays, not numbers") from None
        for kind in _allowed.get():
            if _runs_on(kind, xp, size):
                if kind in _LAZY and kind not in self.pairs:
                    pairs = importlib.import_module(_LAZY[kind]).PAIRS
                    self.pairs[kind] = pairs.get(self.composite.name)
                pair = self.pairs.get(kind)
                if pair is not None and pair.accepts(*arrays, **params):
                    return pair
        if "portable" not in self.pairs:
            headline, rule = f"{self.name}: the kernel", f"@{self.name}.defbackward"
            expected = f"a backward, declared with {rule}"
            raise RuleError(facts(headline, expected=expected, got="a forward alone"))
        return self.pairs["portable"]

    def _forward(self, xp: Any, *arrays: Any, **params: Any) -> tuple[Any, Any]:
        pair = self.choose(xp, arrays, params)
        if pair is self.pairs.get("portable") and (widened := _widened(arrays)):
            arrays, pair = widened, self.choose(xp, widened, params)
        result = pair.forward(xp, *arrays, **params)
        if not isinstance(result, tuple) or len(result) != 2 or not hasattr(result[0], "shape"):
            shown = f"({', '.join(map(describe, result))})" if isinstance(result, tuple) else None
            headline = f"{self.name}: the forward function's result"
            expected, got = "a tuple (y, cache), y an array", shown or describe(result)
            raise RuleError(facts(headline, expected=expected, got=got))
        y, cache = result
        return y, (pair, cache)

    def _pull(self, y_bar: Any, cache: tuple, own: bool) -> tuple:
        pair, saved = cache
        options = {"own": True} if own and pair.reuses else {}
        return pair.backward(namespace(y_bar), y_bar, saved, **options)

    def _vjp(self, y_bar: Any, y: Any, *xs: Any, **params: Any) -> tuple:
        copies, y = self._composed(xs, params)
        if y.node is None:  # all operands are constants
            return (None,) * len(xs)
        targets = [copy.node for copy in copies if copy.node is not None]
        cotangents = backward_sweep(y.node, y_bar, targets, record=True)
        return tuple(cotangents.get(copy.node) for copy in copies)

    def _jvp(self, x_dots: tuple, y: Any, *xs: Any, **params: Any) -> Any:
        with setting(recording=True):
            copies, y = self._composed(xs, params)
        pairs = zip(copies, x_dots, strict=True)
        tangents = {copy.node: x_dot for copy, x_dot in pairs if x_dot is not None}
        is_recorded = isinstance(next(iter(tangents.values())), Box)
        return forward_sweep(y.node, tangents, record=is_recorded)

    def _composed(self, xs: tuple, params: dict) -> tuple[list, Any]:
        """Copies of the operands on fresh nodes, where a sweep ends, and the composite of them."""
        boxes = [x if isinstance(x, Box) else self.box(x, leaf(x, True)) for x in xs]
        copies = [reshape(x, shape=x.shape) for x in boxes]
        return copies, self.composite(*copies, **params)


def fused(
    composite: Declared, *, pullback: str, large_only: bool = False
) -> Callable[[Callable], Fused]:
    """Declare the decorated ``forward(xp, *arrays, **params) -> (y, cache)`` as a fused op.

    Formula, domain, cases and source are those of ``composite``; the forward computes with any
    array module. ``pullback`` is LaTeX, as in ``Op``.
    """
    return lambda forward: Fused(
        forward=forward,
        composite=composite,
        large_only=large_only,
        pullback=pullback,
        signature=getattr(composite, "signature", ""),
        formula=composite.formula,
        symbol=composite.symbol or composite.name,
        domain=composite.domain,
        cases=composite.cases,
        source=composite.source,
    )


def same_floats(*arrays: Any) -> bool:
    """Whether all operands are arrays of one dtype, float32 or float64.

    Those that were left out (None) do not count. A list, as of statistics, is not an array.
    """
    dtype = arrays[0].dtype
    others = [a for a in arrays if a is not None and getattr(a, "dtype", None) != dtype]
    return dtype in _FLOATS and not others


def _widened(arrays: tuple) -> tuple | None:
    """All floats in the widest type if types are mixed, which only the portable kernel takes; else
    None."""
    floats = {a.dtype for a in arrays if a.dtype.kind == "f"}
    if len(floats) < 2:
        return None
    wide = np.result_type(*floats)
    return tuple(a.astype(wide, copy=False) if a.dtype.kind == "f" else a for a in arrays)


def _is_large(x: Any) -> bool:
    """Whether ``x`` is, or holds, a NumPy array so large that working block by block pays."""
    array = x.array if isinstance(x, Box) else x
    return array.__class__ is np.ndarray and array.size >= 2 * MIN_COMPILED


def _runs_on(kind: str, xp: Any, size: int) -> bool:
    """Whether kernels of ``kind`` can take arrays of ``xp``, the largest of ``size`` elements."""
    if kind == "numba":  # small arrays are not worth its import and its threads
        return xp is np and size >= MIN_COMPILED and not _is_fork and has_numba()
    if kind == "cuda":
        return runs_kernels(xp)
    return kind == "portable" or xp is np


@cache
def has_numba() -> bool:
    """Whether numba can be imported; a warning says why not where it is installed but broken."""
    try:
        import numba  # noqa: F401
    except Exception as error:  # a version that does not fit NumPy raises ImportError, or worse
        if isinstance(error, ModuleNotFoundError) and error.name == "numba":
            return False
        warnings.warn(f"numba cannot be imported, so NumPy is used: {error}", stacklevel=2)
        return False
    return True
