"""What is current in this thread: whether ops are recorded, in which scope, and who watches."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, eq=False, slots=True)
class Scope:
    """One run of a composite (``batch_norm``) or of a named block inside it."""

    name: str
    parent: "Scope | None" = None

    def path(self) -> list["Scope"]:
        """The scopes around this one and itself, outermost first."""
        return [*(self.parent.path() if self.parent else []), self]


@dataclass(frozen=True, slots=True)
class Context:
    """What an op call looks up: is it recorded, in which scope, and who watches."""

    recording: bool = True
    scope: Scope | None = None
    observer: Any = None  # an ``observer.Observer``


class _Thread(threading.local):
    context = Context()


THREAD = _Thread()


@contextmanager
def setting(**values: Any) -> Iterator[None]:
    """Change fields of this thread's context for the duration of a block."""
    before = THREAD.context
    THREAD.context = replace(before, **values)
    try:
        yield
    finally:
        THREAD.context = before


def no_grad():
    """Record nothing inside a ``with`` block, or in a function decorated with ``@no_grad()``."""
    return setting(recording=False)


def scope(name: str):
    """Group the ops recorded inside a ``with`` block under ``name``; scopes nest."""
    return setting(scope=Scope(name, THREAD.context.scope))
