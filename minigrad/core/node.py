"""The recorded graph: what a value remembers of how it was made.

A ``Box`` is a value a caller holds: an array and the ``Node`` that made it. A ``Node`` records one
op call. A node is younger than its parents, so creation order is a topological order: a sweep
sorts by ``index`` and needs no recursion.

References run from results to operands only, never back, so a graph is freed by reference
counting as soon as its last result goes.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from operator import attrgetter
from typing import Any

_next_index = count().__next__
_by_index = attrgetter("index")


class Scope:
    """One run of a composite (``batch_norm``) or of a named block inside it."""

    __slots__ = ("name", "parent")

    def __init__(self, name: str, parent: "Scope | None" = None):
        self.name = name
        self.parent = parent

    def path(self) -> list["Scope"]:
        """The scopes around this one and itself, outermost first."""
        return [*(self.parent.path() if self.parent else []), self]


class Node:
    """One op call, ``value = op(*inputs, **params)``, or a leaf, whose ``op`` is None.

    ``parents[i]`` made ``inputs[i]``; it is None where that input is a plain number or array.
    ``inputs`` and ``value`` are raw arrays and must not change while the graph lives.
    """

    # __dict__ holds what only a few nodes differ in, under the defaults below
    __slots__ = (
        "__dict__", "__weakref__", "index", "inputs", "op", "params", "parents", "scope", "value",
    )  # fmt: skip

    requires_grad: bool = True  # False for a leaf that is a constant
    overwritten: bool = False  # True once the tensor of this leaf was assigned another value
    keep_grad: bool = False  # whether `backward` stores the gradient here
    grad: Any = None  # the Box it stores
    name: str | None = None
    origin: Any = None  # what an observer noted about the call

    def __init__(self, op: Any, params: dict, parents: tuple, inputs: tuple, value: Any, scope: Any):
        self.index = _next_index()
        self.op = op
        self.params = params
        self.parents = parents
        self.inputs = inputs
        self.value = value
        self.scope = scope


def leaf(value: Any, requires_grad: bool = False, name: str | None = None) -> Node:
    """A node that no op made: a parameter, or a constant that a recorded op used."""
    node = Node(None, {}, (), (), value, None)
    node.requires_grad = node.keep_grad = requires_grad
    node.name = name
    return node


class Box:
    """A raw array and the node that made it; ops return the type of box they were given."""

    __slots__ = ("__weakref__", "array", "node")
    __array_ufunc__ = None  # `ndarray * box` must ask the box, or the graph would be lost

    def __init__(self, array: Any, node: Node | None = None):
        self.array = array
        self.node = node

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def ndim(self) -> int:
        return len(self.array.shape)

    @property
    def dtype(self) -> Any:
        return self.array.dtype


class Observer:
    """Watches calls and rules; ``anomaly_mode`` and the stepper are observers."""

    def called(self, op: Any, inputs: list, value: Any, node: Node | None) -> None:
        """``op(*inputs)`` gave ``value``; ``node`` is None where nothing was recorded."""

    def pulling(self, node: Node, y_bar: Any) -> None:
        """The vjp rule of ``node`` is about to run on the complete cotangent ``y_bar``."""

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        """``raw`` became ``x_bar``, un-broadcast, of input i; ``total`` is its running sum."""


class Context:
    """What an op call looks up: is it recorded, in which scope, and who watches."""

    __slots__ = ("observer", "recording", "scope")

    def __init__(self, recording: bool, scope: Scope | None, observer: Observer | None):
        self.recording = recording
        self.scope = scope
        self.observer = observer


class _Thread(threading.local):
    context = Context(recording=True, scope=None, observer=None)


THREAD = _Thread()


@contextmanager
def setting(**values: Any) -> Iterator[None]:
    """Change fields of this thread's context for the duration of a block."""
    before = THREAD.context
    fields = {name: getattr(before, name) for name in Context.__slots__}
    THREAD.context = Context(**{**fields, **values})
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


def label(box: Any, name: str) -> Any:
    """Name an intermediate value for drawings; plain arrays pass through untouched."""
    if isinstance(box, Box) and box.node is not None:
        box.node.name = name
    return box


def ancestors(root: Node) -> list[Node]:
    """``root`` and everything it was computed from, oldest first."""
    seen = {root}
    stack = [root]
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_by_index)
