"""The context of a thread or asyncio task: whether ops are recorded, the scope, the observer."""

from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, TypeVar, overload

from minigrad.errors import UsageError, facts

_F = TypeVar("_F", bound=Callable[..., Any])
_IS_PAUSING = isgeneratorfunction, iscoroutinefunction, isasyncgenfunction


class Scope:
    """One run of a composite (``batch_norm``) or of a named block inside it.

    ``operands`` are the nodes of a composite's operands, None for a plain array.
    ``module`` is a weak reference to the layer or model that runs: a graph keeps no model alive.
    """

    __slots__ = "module", "name", "operands", "parent"

    def __init__(
        self,
        name: str,
        parent: "Scope | None" = None,
        operands: tuple[Any, ...] = (),
        module: Any = None,
    ):
        self.name, self.parent, self.operands, self.module = name, parent, operands, module

    def path(self) -> list["Scope"]:
        """The enclosing scopes and this one, outermost first."""
        scopes, scope = [], self
        while scope is not None:
            scopes.append(scope)
            scope = scope.parent
        return scopes[::-1]


class Context:
    """The state that an op call looks up; replaced as a whole, never changed.

    ``observer`` is an ``observer.Observer``; ``journal`` lists (tensor, array, node) before each
    assignment, for undo; ``outer`` is the context to restore, None for the default.
    """

    __slots__ = "journal", "observer", "outer", "recording", "scope"

    def __init__(self, recording=True, scope=None, observer=None, journal=None, outer=None):
        self.recording, self.scope, self.observer = recording, scope, observer
        self.journal, self.outer = journal, outer


_DEFAULT = Context()
CURRENT = ContextVar("minigrad", default=_DEFAULT)


class setting(ContextDecorator):
    """Change fields of the current context inside a ``with`` block or a decorated function.

    It stores nothing about the blocks that use it: threads, tasks and nested blocks may share one.
    """

    def __init__(self, **values: Any):
        self.values = values

    def __enter__(self) -> None:
        now, values = CURRENT.get(), self.values
        CURRENT.set(
            Context(
                values.get("recording", now.recording),
                values.get("scope", now.scope),
                values.get("observer", now.observer),
                values.get("journal", now.journal),
                now,
            )
        )

    def __exit__(self, *exception: Any) -> None:
        CURRENT.set(CURRENT.get().outer or _DEFAULT)

    def __call__(self, function: _F) -> _F:
        if any(is_pausing(function) for is_pausing in _IS_PAUSING):
            name = getattr(function, "__qualname__", function)  # a functools.partial has none
            got = f"the generator or coroutine {name}, whose body runs later"
            expected = (
                "a function; in a generator or coroutine, a `with` block without yield or await"
            )
            raise UsageError(facts("context decorator", expected=expected, got=got))
        return super().__call__(function)


@overload
def no_grad(function: None = None) -> setting: ...
@overload
def no_grad(function: _F) -> _F: ...
def no_grad(function: Any = None) -> Any:
    """Record nothing in a ``with no_grad():`` block, or in a function decorated with ``@no_grad``.

    Raises:
        UsageError: it decorates a generator or a coroutine, whose body runs after the block ended.
    """
    context = setting(recording=False)
    return context if function is None else context(function)


class scope(setting):
    """Group the ops recorded inside a ``with`` block under ``name``; scopes nest."""

    def __init__(self, name: str, operands: tuple[Any, ...] = (), module: Any = None):
        super().__init__()
        self.name, self.operands, self.module = name, operands, module

    def __enter__(self) -> None:
        now = CURRENT.get()
        inner = Scope(self.name, now.scope, self.operands, self.module)
        CURRENT.set(Context(now.recording, inner, now.observer, now.journal, now))
