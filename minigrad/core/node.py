"""The recorded graph: what a value remembers of how it was made.

A ``Box`` is a value a caller holds: an array and the ``Node`` that made it. A ``Node`` records one
op call. A node is younger than its parents, so creation order is a topological order: a sweep
sorts by ``index`` and needs no recursion. References run from results to operands only, so a graph
is freed by reference counting as soon as its last result goes.
"""

from collections.abc import Collection
from itertools import count
from operator import attrgetter
from typing import Any

from minigrad.backend import namespace, real

_next_index = count().__next__


class Node:
    """One op call, ``value = op(*inputs, **params)``, or a leaf, whose ``op`` is None.

    ``parents[i]`` made ``inputs[i]``; it is None where that input is a plain number or array.
    ``inputs`` and ``value`` are raw arrays and must not change while the graph lives.
    """

    # __dict__ holds what only a few nodes set, over the defaults below; it costs the others nothing
    __slots__ = ("__dict__", "index", "inputs", "op", "params", "parents", "scope", "value")
    requires_grad: bool = True  # False for a leaf that is a constant
    overwritten: str = ""  # what of a leaf's tensor was assigned since: value, requires_grad
    keep_grad: bool = False  # whether `backward` stores the gradient here
    grad: Any = None  # the Box it stores
    is_finite: bool = False  # whether somebody looked, and found no nan and no inf
    name: str | None = None
    origin: Any = None  # what an observer noted about the call
    is_lean: bool = False  # whether a slot is empty, to be filled when somebody asks for it

    def __init__(self, op: Any, params: dict, parents: tuple, inputs: tuple, value: Any, scope):
        self.index = _next_index()
        self.op = op
        self.params = params
        self.parents = parents
        self.inputs = inputs
        self.value = value
        self.scope = scope


class Cached(Node):
    """A call whose op left a ``cache`` for its rule: operands and value need not be kept."""

    kinds: tuple  # shape and dtype of each input
    cache: Any

    def forget(self) -> None:
        """Drop the cache, unless the sweep of another thread was faster."""
        self.__dict__.pop("cache", None)
        self.is_lean = True

    def __getattr__(self, name: str) -> Any:
        """Fill an empty slot: the ops behind this node that have one run again, oldest first."""
        if name not in ("cache", "inputs", "value"):
            raise AttributeError(f"a node has no {name!r}")
        for node in (node for node in ancestors(self) if node.is_lean or node is self):
            node.inputs = xs = tuple(parent.value for parent in node.parents)
            node.value, node.cache = node.op.forward(namespace(*xs), *xs, **node.params)
            node.is_lean = False
        return getattr(self, name)


def leaf(value: Any, requires_grad: bool = False, name: str | None = None) -> Node:
    """A node that no op made: a parameter, or a constant that a recorded op used."""
    node = Node(None, {}, (), (), real(value), None)
    node.requires_grad, node.keep_grad, node.name = requires_grad, requires_grad, name
    return node


class Box:
    """A raw array and the node that made it; ops return the type of box they were given."""

    __slots__ = ("__weakref__", "array", "node")
    __array_ufunc__: Any = None  # `ndarray * box` must ask the box, or the graph would be lost

    def __init__(self, array: Any, node: Node | None = None):
        self.array, self.node = array, node

    shape = property(lambda self: self.array.shape, doc="The length of each axis.")
    ndim = property(lambda self: len(self.array.shape), doc="The number of axes.")
    dtype = property(lambda self: self.array.dtype, doc="The NumPy dtype of the elements.")


def ancestors(root: Node, ends: Collection[Node] = ()) -> list[Any]:
    """``root`` and what it was made from, oldest first, down to nodes older than all ``ends``."""
    since = min([node.index for node in ends], default=0)
    seen, stack = {None, root}, [root]
    while stack:
        for parent in stack.pop().parents:
            if parent not in seen:
                seen.add(parent)
                if parent.index >= since:
                    stack.append(parent)
    return sorted(seen - {None}, key=attrgetter("index"))
