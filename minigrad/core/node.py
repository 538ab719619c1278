"""The recorded graph: how a value remembers the computation that produced it.

A ``Box`` is what a caller holds: an array and the ``Node`` that produced it. A ``Node`` records one
op call. A node is created after its parents, so creation order is a topological order: a sweep
sorts by ``index`` and needs no recursion. References point from results to operands only, never in
a cycle, so reference counting frees a graph as soon as its last result is gone.
"""

from collections.abc import Collection
from itertools import count
from operator import attrgetter
from typing import Any

from minigrad.backend import namespace, real

_next_index = count().__next__


class Node:
    """One op call, ``value = op(*inputs, **params)``, or a leaf, whose ``op`` is None.

    ``parents[i]`` produced ``inputs[i]``; it is None where that input is a plain number or array.
    ``inputs`` and ``value`` are raw arrays, kept for the derivative rule: they must not change.
    """

    # The attributes below are defaults: only a node that sets one of them pays for a __dict__.
    __slots__ = ("__dict__", "index", "inputs", "op", "params", "parents", "scope", "value")
    requires_grad: bool = True  # False for a leaf that is a constant
    overwritten: str = ""  # what was assigned to a leaf's tensor since: "value" or "requires_grad"
    keep_grad: bool = False  # True if `backward` accumulates into `grad`
    grad: Any = None  # the accumulated gradient, a Box
    is_finite: bool = False  # True once the value was checked and has no nan and no inf
    name: str | None = None
    origin: Any = None  # an observer's notes on the call
    needs_rerun: bool = False  # a slot is empty; reading it runs the op again

    def __init__(self, op: Any, params: dict, parents: tuple, inputs: tuple, value: Any, scope):
        self.index = _next_index()
        self.op = op
        self.params = params
        self.parents = parents
        self.inputs = inputs
        self.value = value
        self.scope = scope


class Cached(Node):
    """A call whose op left a ``cache``: its ``pull`` rule needs neither inputs nor value."""

    kinds: tuple  # shape and dtype of each input
    cache: Any

    def drop_cache(self) -> None:
        self.__dict__.pop("cache", None)  # a sweep in another thread may have dropped it already
        self.needs_rerun = True

    def __getattr__(self, name: str) -> Any:
        """Fill an empty slot: rerun this op, after its ancestors with empty slots, oldest first."""
        if name not in ("cache", "inputs", "value"):
            raise AttributeError(f"a node has no {name!r}")
        for node in (node for node in ancestors(self) if node.needs_rerun or node is self):
            node.inputs = xs = tuple(parent.value for parent in node.parents)
            node.value, node.cache = node.op.forward(namespace(*xs), *xs, **node.params)
            node.needs_rerun = False
        return getattr(self, name)


def leaf(value: Any, requires_grad: bool = False, name: str | None = None) -> Node:
    """A new node without an op: for a parameter, or for a constant that a recorded op uses."""
    node = Node(None, {}, (), (), real(value), None)
    node.requires_grad, node.keep_grad, node.name = requires_grad, requires_grad, name
    return node


class Box:
    """A raw array and the node that produced it; an op returns the type of box it is given."""

    __slots__ = ("__weakref__", "array", "node")
    __array_ufunc__: Any = None  # `ndarray * box` must call box.__rmul__, which records it

    def __init__(self, array: Any, node: Node | None = None):
        self.array, self.node = array, node

    shape = property(lambda self: self.array.shape, doc="The length of each axis.")
    ndim = property(lambda self: len(self.array.shape), doc="The number of axes.")
    dtype = property(lambda self: self.array.dtype, doc="The NumPy dtype of the elements.")


def ancestors(root: Node, targets: Collection[Node] = ()) -> list[Any]:
    """``root`` and its ancestors, oldest first; those older than every target are not expanded."""
    oldest = min([node.index for node in targets], default=0)
    seen, stack = {None, root}, [root]  # None is the parent of a plain input
    while stack:
        for parent in stack.pop().parents:
            if parent not in seen:
                seen.add(parent)
                if parent.index >= oldest:
                    stack.append(parent)
    return sorted(seen - {None}, key=attrgetter("index"))
