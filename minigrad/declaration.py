"""The declaration of an op or composite; read by the checker, tests, reference and drawings."""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from minigrad.errors import DTypeError, UsageError, facts, refusal


class Domain(NamedTuple):
    """The interval on which an input is checked, and its special points.

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
    """Input shapes (None: any that fit the signature) and parameters to check an op with."""

    shapes: tuple[tuple[int, ...], ...] | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False, kw_only=True)
class Declared:
    """Base of ops and composites: a forward function with the facts that describe it."""

    forward: Callable
    formula: str  # LaTeX, y = ...
    symbol: str = ""  # how a drawing writes the call; the name where empty
    domain: tuple[Domain, ...] = (Domain(),)  # per input; the last one repeats
    cases: tuple[Case, ...] = (Case(),)
    source: str = ""  # where the formula comes from, when it is not textbook calculus

    def __post_init__(self):
        wrapper: Any = self
        functools.update_wrapper(wrapper, self.forward)  # __doc__, __module__ and the like
        self.name: str = self.forward.__name__
        params = [p for p in inspect.signature(self.forward).parameters.values() if p.name != "xp"]
        self.keywords = [p.name for p in params if p.kind is p.KEYWORD_ONLY]  # parameter names
        is_variadic = any(p.kind is p.VAR_POSITIONAL for p in params)
        self.arity = None if is_variadic else len(params) - len(self.keywords)  # None: any number
        required = [p for p in params if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
        self.min_arity = len(required)  # operands after these may be left out
        self.__signature__ = inspect.Signature(params)
        earlier = REGISTRY.get(self.name)
        if earlier is not None and earlier.__module__ != self.__module__:
            raise UsageError(f"{self.name}: already declared in {earlier.__module__}")
        for name, kind, least in (("domain", Domain, 1), ("cases", Case, 0)):
            given = getattr(self, name)
            is_tuple = isinstance(given, tuple) and len(given) >= least
            if not is_tuple or not all(isinstance(item, kind) for item in given):
                expected = f"a tuple, such as ({kind.__name__}(...),)"
                raise UsageError(facts(f"{self.name}: {name}", expected=expected, got=given))
        REGISTRY[self.name] = self

    def fitting(self, rule: Callable, *first: str) -> Callable:
        """``rule``, if it can be called with ``first``, the operands and the parameters.

        The package's own rules are taken as they are: looking takes 3 % of its import, and a test
        does it.
        """
        is_own = str(getattr(rule, "__module__", "")).startswith("minigrad.")
        if not is_own and (got := self.refusal(rule, *first)):
            expected = f"arguments ({', '.join(first)}, {str(self.__signature__)[1:]}"
            raise UsageError(facts(f"{self.name}: its rule", expected=expected, got=got))
        return rule

    def refusal(self, rule: Callable, *first: str) -> str:
        """Why ``rule`` cannot be called so; what a call leaves out is left out there, too."""
        parameters, empty = self.__signature__.parameters, inspect.Parameter.empty
        required = tuple(k for k in self.keywords if parameters[k].default is empty)
        calls = [
            ((*first, *range(n)), dict.fromkeys(given))
            for n in dict.fromkeys((self.min_arity or 1, self.arity or 2))
            for given in dict.fromkeys((tuple(self.keywords), required))
        ]
        return refusal(rule, *calls)

    def domain_of(self, i: int) -> Domain:
        """The domain of input ``i``."""
        return self.domain[min(i, len(self.domain) - 1)]

    def checked_on(self) -> list[tuple[str, str]]:
        """Each input with the values it is checked on: ``("x", "[-3, 3]")``."""
        names = [name for name in self.__signature__.parameters if name not in self.keywords]
        checked = []
        for i, name in enumerate(names):
            domain = self.domain_of(i)
            text = {"bool": "booleans", "index": "integers"}.get(domain.kind)
            text = text or f"[{domain.low:g}, {domain.high:g}]"
            checked.append((name, f"{text}{' without ties' if domain.distinct else ''}"))
        return checked

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}>"

    def __reduce__(self) -> str:
        return self.name  # pickled by reference, like a function

    def bind(self, args: tuple, params: dict) -> tuple[tuple, dict]:
        """Bind a call as NumPy allows it; returns ``(operands, parameters)`` as the op needs them.

        Operands may be given by keyword, parameters by position, variadic operands as a sequence.
        """
        n, names = self.arity, list(self.__signature__.parameters)
        while n is not None and len(args) < n and names[len(args)] in params:  # sum(x=a)
            params = dict(params)
            args = (*args, params.pop(names[len(args)]))
        if n is None:  # concatenate([a, b], 1), einsum("ij->i", a)
            if args and isinstance(args[0], str):
                return args[1:], {self.keywords[0]: args[0], **params}
            if not args or not isinstance(args[0], (list, tuple)):
                return args, params
            n, args = len(args[0]), (*args[0], *args[1:])
        extra = args[n:]  # parameters by position: sum(a, 0)
        if len(args) < self.min_arity or len(extra) > len(self.keywords):
            missing = [name for name in names[len(args) : self.min_arity] if name not in params]
            got = f"got {len(args)} positional arguments"
            wrong = f"missing {', '.join(missing)}" if missing else got
            raise DTypeError(f"{self.name}{self.__signature__}: {wrong}")
        given = dict(zip(self.keywords, extra, strict=False))
        if twice := given.keys() & params.keys():
            raise DTypeError(f"{self.name}: {', '.join(sorted(twice))} given twice")
        args = args[:n]
        while n == self.arity and len(args) > self.min_arity and args[-1] is None:
            args = args[:-1]  # None means left out
        return args, {**given, **params}


def core_axes(name: str, signature: str, arity: int | None) -> list[int]:
    """How many core axes each of the ``arity`` inputs has: 2, 2 for ``"(m,k),(k,n)->(m,n)"``.

    Empty if there are none, or if the signature says nothing about shapes.

    Raises:
        UsageError: not a signature of an op ``name`` with so many inputs.
    """
    if signature in ("", "()"):
        return []
    inputs = signature.partition("->")[0][1:-1].split("),(")
    if not _SIGNATURE.fullmatch(signature) or len(inputs) != arity:
        what = "any number of inputs" if arity is None else f"{arity} inputs"
        expected = "the core axes as in (m,k),(k,n)->(m,n), without spaces; (); or nothing"
        got = f"{signature!r} for {what}"
        raise UsageError(facts(f"{name}: signature", expected=expected, got=got))
    return [len(axes.split(",")) if axes else 0 for axes in inputs]


_AXES = r"\((\w+\??(,\w+\??)*)?\)"
_SIGNATURE = re.compile(rf"{_AXES}(,{_AXES})*->{_AXES}")
REGISTRY: dict[str, Declared] = {}
