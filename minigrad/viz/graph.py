"""The recorded graph behind some results, as pictures and traces walk through it."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import numpy as np

from minigrad.core.node import Box, Node, ancestors, leaf
from minigrad.errors import DTypeError, GraphError, describe, facts


class Recorded:
    """The graph behind ``roots``, oldest node first, with a leaf for every array that had no node.

    ``operands[node][i]`` is the node of input ``i``, or the input itself if it is a number.
    ``paths[scope]`` are the scopes around a node in ``scope``, outermost first.
    """

    def __init__(self, roots: Iterable[Node]):
        self.roots = list(dict.fromkeys(roots))
        self.operands: dict[Node, list[Any]] = {}
        nodes = {node for root in self.roots for node in ancestors(root)}
        for node in sorted(nodes, key=attrgetter("index")):
            pairs = zip(node.parents, node.inputs, strict=True)
            operands = [_operand(parent, x) for parent, x in pairs]
            for x in operands:
                if isinstance(x, Node):
                    self.operands.setdefault(x, [])  # for a leaf made just now
            self.operands[node] = operands
        self.order = list(self.operands)
        scopes = dict.fromkeys(node.scope for node in self.order)
        self.paths = {scope: scope.path() if scope else [] for scope in scopes}

    def uses(self) -> Iterable[tuple[Node, Node]]:
        """The pair (operand, node) for every op input that is not a number."""
        for node in self.order:
            for x in self.operands[node]:
                if isinstance(x, Node):
                    yield x, node


def root_of(who: str, y: Any, expected: str = "a tensor") -> Node:
    """The node of ``y``, a result that was recorded; errors begin with ``who``, the caller."""
    if not isinstance(y, Box):
        raise DTypeError(facts(f"{who}: y", expected=expected, got=describe(y)))
    if y.node is None or not y.node.requires_grad:
        raise GraphError(
            facts(f"{who}: nothing was recorded for this tensor",
                  expected="a result of operands with requires_grad=True", got=describe(y),
                  remedy="make a leaf with mg.tensor(..., requires_grad=True) and compute again")
        )  # fmt: skip
    return y.node


def _operand(parent: Node | None, x: Any) -> Any:
    if parent is not None:
        return parent
    is_number = not hasattr(x, "shape") or (isinstance(x, (np.generic, np.ndarray)) and not x.ndim)
    return x if is_number else leaf(x)
