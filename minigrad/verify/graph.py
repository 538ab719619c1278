"""The graph of a forward: which ops use each value, and sweeps in which some of them are cut."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.context import setting
from minigrad.core.node import Node, ancestors
from minigrad.core.sweep import backward_sweep, forward_sweep
from minigrad.observer import Observer

_ZERO = 1e-12  # a cotangent that cancels, relative to the largest that the same ops pass back

Edge = tuple[Node, int]  # an op call and the number of one of its operands
Changes = dict[Node, dict[str, Any]]  # other values of attributes of nodes


class _Flow(Observer):
    """Notes the cotangent that each edge carries, and the tangent of each node."""

    def __init__(self):
        self.bars: dict[Edge, np.ndarray] = {}
        self.dots: dict[Node, np.ndarray] = {}

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        self.bars[node, i] = x_bar

    def pushed(self, node: Node, x_dots: list, y_dot: Any) -> None:
        if y_dot is not None:
            self.dots[node] = np.asarray(y_dot, np.float64)


class Graph:
    """The graph of a forward at one point.

    Attributes:
        root: the node of y.
        leaves: the inputs.
        consumers: for each value between an input and y the edges that use it: the inputs first,
            then op results, oldest first.
    """

    def __init__(self, root: Node, leaves: list[Node]):
        self.root, self.leaves = root, leaves
        self.consumers = self._find_consumers()
        for node in self._cancelling():
            _assign(without(self.consumers[node]))
        self.consumers = self._find_consumers()
        self._number_repeats()

    def _number_repeats(self) -> None:
        for nodes in self.repeated():
            for i, node in enumerate(nodes):
                node.origin = replace(node.origin, repeat=(i + 1, len(nodes)))

    def repeated(self, by_call: bool = False) -> list[list[Node]]:
        """The values, grouped by the piece of code that made them: several if it is in a loop.

        A line may call a function several times; ``by_call`` tells these calls apart.
        """
        groups: dict[tuple, list[Node]] = {}
        for node in self.consumers:
            if (origin := node.origin) is not None:
                calls = origin.calls if by_call else ()
                groups.setdefault((origin.text, origin.lines, node.op, calls), []).append(node)
        return list(groups.values())

    def loops(self) -> list[list[Node]]:
        """The values of code that runs several times: of all runs, then of one call in a line."""
        groups = self.repeated()
        finer = [nodes for nodes in self.repeated(by_call=True) if nodes not in groups]
        return [nodes for nodes in [*groups, *finer] if len(nodes) > 1]

    def users(self, node: Node) -> list[Node]:
        """The ops that use a value, each once."""
        return list(dict.fromkeys(user for user, _ in self.consumers[node]))

    def _find_consumers(self) -> dict[Node, list[Edge]]:
        nodes = [node for node in ancestors(self.root, self.leaves) if node.requires_grad]
        consumers: dict[Node, list[Edge]] = {node: [] for node in [*self.leaves, *nodes]}
        for node in nodes:
            for i, parent in enumerate(node.parents):
                if parent in consumers:
                    consumers[parent].append((node, i))
        return consumers

    def _cancelling(self) -> list[Node]:
        """Values whose cotangent is always 0, such as the maximum that a softmax subtracts.

        Their derivatives do not matter, and no backward by hand computes them.
        """
        y_bar, cancelling = np.random.default_rng(0).normal(size=self.root.value.shape), []
        _, bars = self.pull(y_bar)
        sizes = {edge: np.abs(bar).max(initial=0) for edge, bar in bars.items()}
        for node, edges in self.consumers.items():
            parts = [bars[edge] for edge in edges if edge in bars]
            if node.op is not None and parts:
                users = self.users(node)
                largest = max(size for (user, _), size in sizes.items() if user in users)
                if largest and np.abs(sum(parts)).max(initial=0) <= _ZERO * largest:
                    cancelling.append(node)
        return cancelling

    def pull(
        self, y_bar: np.ndarray, changes: Changes | None = None
    ) -> tuple[list[np.ndarray], dict[Edge, np.ndarray]]:
        """The cotangents of the inputs, and the part that each edge adds to its operand's.

        ``changes`` are made for this sweep only.
        """
        flow, changes = _Flow(), changes or {}
        before = {node: {name: getattr(node, name) for name in changes[node]} for node in changes}
        _assign(changes)
        try:
            with setting(observer=flow):
                return self.pull_from(self.root, y_bar), flow.bars
        finally:
            _assign(before)

    def pull_from(self, node: Node, bar: np.ndarray) -> list[np.ndarray]:
        """The cotangents of the inputs for the cotangent ``bar`` of ``node``."""
        bars = backward_sweep(node, bar, self.leaves)
        return [as_array(bars[end], end) for end in self.leaves]

    def push(self, end: Node, tangent: np.ndarray) -> dict[Node, np.ndarray]:
        """The tangents of all values that depend on one input, for a tangent of it."""
        flow = _Flow()
        with setting(observer=flow):
            forward_sweep(self.root, {end: tangent})
        return {end: tangent, **flow.dots}


def without(edges: Iterable[Edge]) -> Changes:
    """The changes that cut these edges: their operands become constants."""
    return changed_operands(edges, "parents", lambda parent: None)


def changed_operands(edges: Iterable[Edge], name: str, change: Callable[[Any], Any]) -> Changes:
    """Changes of the ``parents`` or ``inputs`` at these edges."""
    changes: Changes = {}
    for node, i in edges:
        now = changes.setdefault(node, {name: getattr(node, name)})[name]
        changes[node][name] = (*now[:i], change(now[i]), *now[i + 1 :])
    return changes


def _assign(changes: Changes) -> None:
    for node, attributes in changes.items():
        for name, value in attributes.items():
            setattr(node, name, value)


def as_array(bar: Any, node: Node) -> np.ndarray:
    """The cotangent of a node as an array; None stands for zeros."""
    return np.zeros(node.value.shape) if bar is None else np.asarray(bar, np.float64)
