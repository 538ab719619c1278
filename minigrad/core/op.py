"""Ops and composites: one declaration each, read by engine, checker, tests, docs and pictures.

An ``Op`` is a forward function on plain arrays with its derivative rule under it. Rules are written
with minigrad's own ops and with operators, so the same rule runs on plain arrays (a first-order
sweep) and on boxes (a recorded sweep, which can be differentiated again).

A ``Composite`` is an ordinary function of ops that has a name in the literature. It has no rule;
what it computes is recorded inside a scope of that name.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from minigrad.backend import MODULES, WEAK, as_array, frozen, namespace
from minigrad.core.node import THREAD, Box, Node, leaf, scope
from minigrad.errors import MinigradError, UsageError, describe, from_operands


@dataclass(frozen=True)
class Domain:
    """The interval on which an input is checked, and what is special in it.

    ``kinks`` are points where the derivative jumps; ``distinct`` asks for values without ties
    (a tie is a kink, too); ``kind`` is ``"bool"`` or ``"index"`` for an input without derivative.
    """

    low: float = -3.0
    high: float = 3.0
    kinks: tuple[float, ...] = ()
    distinct: bool = False
    kind: Literal["real", "bool", "index"] = "real"


@dataclass(frozen=True)
class Case:
    """Parameters an op is checked with, and input shapes (None: any that fit the signature)."""

    shapes: tuple[tuple[int, ...], ...] | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False, kw_only=True)
class Declared:
    """What ops and composites share: documentation that feeds the reference and the pictures."""

    forward: Callable
    formula: str  # LaTeX, y = ...
    symbol: str = ""  # how a drawing writes the call; the name where empty
    domain: tuple[Domain, ...] = (Domain(),)  # per input; the last one repeats
    cases: tuple[Case, ...] = (Case(),)
    source: str = ""  # where the formula comes from, when it is not textbook calculus

    def __post_init__(self):
        functools.update_wrapper(self, self.forward)  # __doc__, __module__ and the like
        self.name = self.forward.__name__
        kinds = [p for p in inspect.signature(self.forward).parameters.values() if p.name != "xp"]
        self.words = [p.name for p in kinds if p.kind is p.KEYWORD_ONLY]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in kinds)
        self.arity = None if variadic else len(kinds) - len(self.words)
        self.__signature__ = inspect.Signature(kinds)
        known = REGISTRY.get(self.name)
        if known is not None and known.forward.__module__ != self.forward.__module__:
            raise UsageError(f"{self.name}: declared before, in {known.forward.__module__}")
        REGISTRY[self.name] = self

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}>"

    def __reduce__(self) -> str:
        return self.name  # pickled by reference, like a function

    def _bind(self, args: tuple, params: dict) -> tuple[tuple, dict]:
        """Accept NumPy's calls: parameters by position, a sequence for a variadic op."""
        n = self.arity
        if n is None:  # concatenate([a, b], 1), einsum("ij->i", a)
            if args and isinstance(args[0], str):
                return args[1:], {self.words[0]: args[0], **params}
            if not args or not isinstance(args[0], (list, tuple)):
                return args, params
            n, args = len(args[0]), (*args[0], *args[1:])
        extra = args[n:]
        if len(args) < n or len(extra) > len(self.words):
            raise TypeError(
                f"{self.name}{self.__signature__}: got {len(args)} positional arguments"
            )
        return args[:n], {**dict(zip(self.words, extra, strict=False)), **params}


REGISTRY: dict[str, Declared] = {}
_NONE: dict[str, Any] = {}  # the parameters of every node that has none


@dataclass(eq=False, repr=False, kw_only=True)
class Op(Declared):
    """A primitive with a derivative rule; ``op(*arrays, **params)`` calls and records it.

    ``signature`` names the core dimensions as in NumPy's gufuncs, ``"(m,k),(k,n)->(m,n)"``; loop
    dimensions before them broadcast. ``"()"`` is elementwise; empty: shapes follow no such rule.
    ``linear``: ``"jointly"`` or ``"separately"`` in each input; then no jvp rule is needed.
    """

    pullback: str  # LaTeX, \bar x = ...
    signature: str = ""
    linear: Literal["", "jointly", "separately"] = ""

    def __post_init__(self):
        super().__post_init__()
        self.partials = self.vjp = self.jvp = None  # the rules, declared under the forward
        inputs = self.signature.partition("->")[0]
        self.core = [group.count(",") + 1 for group in inputs.split("),(")]  # dimensions, per input
        if inputs in ("", "()"):
            self.core = []

    def defpartials(self, rule: Callable) -> Callable:
        """Declare ``rule(y, *xs, **params)`` -> one partial derivative per input, elementwise.

        An entry may be a function, called only if that input needs a cotangent, or None where the
        derivative is zero. Gives both the vjp and the jvp.
        """
        self.partials = rule
        return rule

    def defvjp(self, rule: Callable) -> Callable:
        """Declare ``rule(y_bar, y, *xs, **params)`` -> one cotangent (function, None) per input."""
        self.vjp = rule
        return rule

    def defjvp(self, rule: Callable) -> Callable:
        """Declare ``rule(x_dots, y, *xs, **params)`` -> ``y_dot``; a zero tangent is None."""
        self.jvp = rule
        return rule


    def __call__(self, *args: Any, **params: Any) -> Any:
        if len(args) != self.arity:
            args, params = self._bind(args, params)
        box = xp = None
        tracked = mixed = constants = False
        inputs, parents = [], []
        for arg in args:
            node = None
            if isinstance(arg, Box):
                box, node, arg = arg, arg.node, arg.array
                if node is None:
                    constants = True
                elif node.requires_grad:
                    tracked = True
            elif arg.__class__ is not float:
                constants = True
            inputs.append(arg)
            parents.append(node)
            module = MODULES.get(arg.__class__)
            if module is not xp and module is not WEAK:
                mixed, xp = xp is not None, module
        try:
            if xp is None or mixed:
                xp = namespace(*inputs)
            value = self.forward(xp, *inputs, **params) if params else self.forward(xp, *inputs)
        except Exception as error:
            inputs, value = self._recover(args, inputs, params, error)
        context, node = THREAD.context, None
        if tracked and context.recording:
            if constants:
                _own(args, inputs, parents)
            params = {key: frozen(value) for key, value in params.items()} if params else _NONE
            node = Node(self, params, tuple(parents), tuple(inputs), value, context.scope)
        if context.observer is not None:
            context.observer.called(self, inputs, value, node)
        return value if box is None else type(box)(value, node)

    def _recover(self, args: tuple, inputs: list, params: dict, error: Exception) -> tuple:
        """Run again with sequences made arrays; failing that, say what was expected and got."""
        arrays = [as_array(x) if _foreign(x, inputs) else x for x in inputs]
        if any(a is not x for a, x in zip(arrays, inputs, strict=True)):
            try:
                return arrays, self.forward(namespace(*arrays), *arrays, **params)
            except Exception as second:
                error = second
        if isinstance(error, MinigradError):
            error.add_note(f"in {self.name}")
            raise error
        words = ", ".join(f"{key}={describe(value)}" for key, value in params.items())
        operands = tuple(a if isinstance(a, Box) else x for a, x in zip(args, arrays, strict=True))
        call = f"{self.name}({words})" if words else self.name
        raise from_operands(call, operands, self._expected(), error) from error

    def _expected(self) -> str:
        if self.signature == "()":
            return "shapes that broadcast together"
        if self.signature:
            return f"shapes that fit the signature {self.signature}"
        return f"arguments that fit {self.name}{self.__signature__}"


def _foreign(x: Any, inputs: list) -> bool:
    """Whether ``x`` must become an array: a sequence, or a number among nothing but numbers."""
    if isinstance(x, (int, float)):
        return all(isinstance(other, (int, float)) for other in inputs)
    return isinstance(x, (list, tuple)) or not hasattr(x, "dtype")


def _own(args: tuple, inputs: list, parents: list) -> None:
    """Freeze the plain arrays a node will keep, and give constant boxes a leaf."""
    for i, arg in enumerate(args):
        if parents[i] is None:
            if isinstance(arg, Box):
                parents[i] = arg.node = leaf(arg.array)
            elif not isinstance(arg, float):
                inputs[i] = frozen(inputs[i])


@dataclass(eq=False, repr=False, kw_only=True)
class Composite(Declared):
    """A named function of ops; what it records is grouped in a scope of its name."""

    def __call__(self, *args: Any, **params: Any) -> Any:
        args, params = self._bind(args, params) if len(args) != self.arity else (args, params)
        args = tuple(a if hasattr(a, "shape") else as_array(a) for a in args)
        with scope(self.name):
            try:
                return self.forward(*args, **params)
            except MinigradError as error:
                error.add_note(f"in {self.name}({', '.join(describe(a) for a in args)})")
                raise


def op(**fields: Any) -> Callable[[Callable], Op]:
    """Declare the decorated ``forward(xp, *arrays, **params)`` as an op; fields as in ``Op``."""
    return lambda forward: Op(forward=forward, **fields)


def elementwise(**fields: Any) -> Callable[[Callable], Op]:
    """Declare an op that acts on each element by itself; its rule is ``defpartials``."""
    return op(signature="()", **fields)


def composite(**fields: Any) -> Callable[[Callable], Composite]:
    """Declare an ordinary function of ops as a composite."""
    return lambda forward: Composite(forward=forward, **fields)
