"""The graph of a forward on plain arrays: it is run once on tensors, which pass for arrays."""

import ast
import gc
import sys
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from linecache import getline
from types import CellType, FrameType, ModuleType
from typing import Any
from weakref import ref

import numpy as np

from minigrad.context import setting
from minigrad.core.node import Node, ancestors, leaf
from minigrad.core.sweep import backward_sweep, forward_sweep
from minigrad.observer import Observer, is_ours
from minigrad.tensor import Tensor
from minigrad.verify.subject import Subject, is_pair

_ZERO = 1e-12  # of the cotangents of other operands: what is left of one that cancels
_LONG = 60  # characters of an expression that are shown

Edge = tuple[Node, int]  # a node and the number of one of its operands


@dataclass(frozen=True)
class Place:
    """An expression of the code under examination.

    Attributes:
        text: of the expression.
        name: what it is assigned to, if that is all that the line does.
        is_whole: whether the line does nothing else than to assign or to return it.
        operands: the texts of what its operator or its function is applied to.
        lines: the line it starts in, and where that is in a function which the forward calls, the
            line that does so.
        turn: which time it ran, of how many.
    """

    text: str
    name: str
    is_whole: bool
    operands: tuple[str, ...]
    lines: tuple[int, ...]
    turn: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        text = f"{self.name} = {self.text}" if self.name else self.text
        short = text if len(text) <= _LONG else f"{text[:_LONG]}..."
        lines = f"line {', called in line '.join(map(str, self.lines))}"
        return (
            f"`{short}` ({lines}{f', time {self.turn[0]} of {self.turn[1]}' * (self.turn[1] > 1)})"
        )


class _Places(Observer):
    """Notes the expression that called each op."""

    def called(self, op: Any, inputs: list, value: Any, node: Node | None) -> None:
        if node is not None:
            node.origin = _place(op.name)


def _place(op: str) -> Place | None:
    """The expression that calls an op; None where no code of somebody else's does."""
    frame, frames = sys._getframe(1), []
    while frame is not None and frame.f_code is not trace.__code__:
        frames += [] if is_ours(frame) else [frame]
        frame = frame.f_back
    if not frames:
        return None
    inner, lines = frames[0], (frames[0].f_lineno, *(frame.f_lineno for frame in frames[1:][-1:]))
    code = inner.f_code
    first, last, start, stop = next(islice(code.co_positions(), inner.f_lasti // 2, None))
    if first is None or last is None or start is None:
        return Place(op, "", False, (), lines)
    source = [getline(code.co_filename, i).encode() for i in range(first, last + 1)]
    after, source[-1] = source[-1][stop:].strip(), source[-1][:stop]
    before, source[0] = source[0][:start].decode().strip(), source[0][start:]
    text = " ".join(line.decode().strip() for line in source)
    name = before.removesuffix(" =")
    name = name if name != before and name.isidentifier() and not after else ""
    is_whole = bool(name) or (before == "return" and not after)
    operands = _operands(text, inner) if text else ()
    return Place(text or op, name, is_whole, operands, (first, *lines[1:]))


def _operands(text: str, frame: FrameType) -> tuple[str, ...]:
    """The texts of what an operator, a function or a method is applied to."""
    try:
        tree: Any = ast.parse(text, mode="eval").body
    except SyntaxError:  # an assignment such as x += 1
        return ()
    parts: list = []
    if isinstance(tree, ast.UnaryOp):
        parts = [tree.operand]
    elif isinstance(tree, ast.BinOp):
        parts = [tree.left, tree.right]
    elif isinstance(tree, ast.Call):
        parts = tree.args
        if len(parts) == 1 and isinstance(parts[0], (ast.List, ast.Tuple)):
            parts = parts[0].elts
        if isinstance(tree.func, ast.Attribute):
            owner = tree.func.value
            module = frame.f_globals.get(owner.id) if isinstance(owner, ast.Name) else None
            parts = parts if isinstance(module, ModuleType) else [owner, *parts]
    return tuple(map(ast.unparse, parts))


class _Flow(Observer):
    """The cotangents that edges carry, and the tangents of nodes."""

    def __init__(self):
        self.bars: dict[Edge, np.ndarray] = {}
        self.dots: dict[Node, np.ndarray] = {}

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        self.bars[node, i] = x_bar

    def pushed(self, node: Node, x_dots: list, y_dot: Any) -> None:
        if y_dot is not None:
            self.dots[node] = np.asarray(y_dot, np.float64)


class Graph:
    """What a forward computed at one point.

    Attributes:
        root: made y.
        leaves: the inputs.
        consumers: the edges to each value that leads from an input to y; the inputs come first,
            then the oldest.
    """

    def __init__(self, root: Node, leaves: list[Node]):
        self.root, self.leaves = root, leaves
        self.consumers = self._consumers()
        for node in self._cancelling():
            self._cut(self.consumers[node])
        self.consumers = self._consumers()
        self._count_turns()

    def _count_turns(self) -> None:
        """Tell apart what the same code made, time after time."""
        same: dict[tuple, list[Node]] = {}
        for node in self.consumers:
            if node.origin is not None:
                same.setdefault((node.origin, node.op), []).append(node)
        for nodes in same.values():
            for i, node in enumerate(nodes):
                node.origin = replace(node.origin, turn=(i + 1, len(nodes)))

    def _consumers(self) -> dict[Node, list[Edge]]:
        nodes = [node for node in ancestors(self.root, self.leaves) if node.requires_grad]
        consumers: dict[Node, list[Edge]] = {node: [] for node in [*self.leaves, *nodes]}
        for node in nodes:
            for i, parent in enumerate(node.parents):
                if parent in consumers:
                    consumers[parent].append((node, i))
        return consumers

    def _cancelling(self) -> list[Node]:
        """Values whose cotangent is 0, such as the maximum that a softmax subtracts.

        Whatever their derivatives are, nothing comes of it, and no backward by hand follows them.
        """
        bars, found = self.pull(np.random.default_rng(0).normal(size=self.root.value.shape))[1], []
        sizes = {edge: np.abs(bar).max(initial=0) for edge, bar in bars.items()}
        for node, edges in self.consumers.items():
            parts = [bars[edge] for edge in edges if edge in bars]
            if node.op is not None and parts:
                users = {user for user, _ in edges}
                beside = max(size for (user, _), size in sizes.items() if user in users)
                if np.abs(sum(parts)).max(initial=0) <= _ZERO * beside:
                    found.append(node)
        return found

    @staticmethod
    def _cut(edges: Iterable[Edge]) -> None:
        """Make constants of operands."""
        for node, i in edges:
            node.parents = (*node.parents[:i], None, *node.parents[i + 1 :])

    def pull(self, y_bar: np.ndarray) -> tuple[list[np.ndarray], dict[Edge, np.ndarray]]:
        """The cotangents of the inputs, and what each edge adds to that of its operand."""
        flow = _Flow()
        with setting(observer=flow):
            found = backward_sweep(self.root, y_bar, self.leaves)
        return [known(found[one], one) for one in self.leaves], flow.bars

    def pull_from(self, node: Node, bar: np.ndarray, end: Node) -> np.ndarray:
        """The cotangent of the input ``end`` that a cotangent ``bar`` of ``node`` gives."""
        return known(bar if node is end else backward_sweep(node, bar, [end])[end], end)

    def pull_without(self, edges: Iterable[Edge], y_bar: np.ndarray) -> list[np.ndarray]:
        """The cotangents of the inputs but for the paths over some edges."""
        before = {node: node.parents for node, _ in edges}
        self._cut(edges)
        try:
            return self.pull(y_bar)[0]
        finally:
            for node, parents in before.items():
                node.parents = parents

    def push(self, end: Node, way: np.ndarray) -> dict[Node, np.ndarray]:
        """The tangents of values for a tangent of one input; zeros are left out."""
        flow = _Flow()
        with setting(observer=flow):
            forward_sweep(self.root, {end: way})
        return {end: way, **flow.dots}


def known(bar: Any, node: Node) -> np.ndarray:
    """A cotangent as an array; None is zero."""
    return np.zeros(node.value.shape) if bar is None else np.asarray(bar, np.float64)


def trace(subject: Subject) -> Graph | None:
    """The graph of the forward; None where its result is none of its operations.

    An object whose method it is is copied, lest it keep tensors; what else keeps some gets arrays.
    Raises what the forward raises of tensors, or an op that it calls.
    """
    leaves = [leaf(x, True, name) for x, name in zip(subject.inputs, subject.names, strict=True)]
    made: list[ref] = []

    class Traced(Tensor):
        __slots__ = ()

        def __init__(self, array: Any, node: Node | None = None):
            super().__init__(array, node)
            made.append(ref(self))

    try:
        forward = deepcopy(subject.forward)
        with setting(observer=_Places(), recording=True, scope=None):
            pair = forward(*(Traced(one.value, one) for one in leaves), **subject.params)
        y: Any = pair[0] if is_pair(pair) else None
        root = y.node if isinstance(y, Traced) and y.requires_grad else None
        del forward, pair, y
        return Graph(root, leaves) if root is not None else None
    finally:
        _give_back([tensor for one in made if (tensor := one()) is not None])


def _give_back(kept: list[Tensor]) -> None:
    """Put arrays where these tensors are still held: in lists, dicts, attributes and closures."""
    arrays = {id(tensor): tensor.numpy() for tensor in kept}
    for holder in gc.get_referrers(*kept) if kept else ():
        if isinstance(holder, CellType):
            holder.cell_contents = arrays[id(holder.cell_contents)]
        elif isinstance(holder, list) and holder is not kept:
            holder[:] = [arrays.get(id(item), item) for item in holder]
        elif not isinstance(holder, (list, FrameType)):
            items = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
            items.update({name: arrays[id(t)] for name, t in items.items() if id(t) in arrays})


def said(node: Node) -> str:
    """A value as it is written in the code, and the line."""
    if node.op is None:
        return f"`{node.name}`"
    return str(node.origin) if node.origin is not None else f"`{node.op.name}`"


def said_operand(node: Node, i: int) -> str:
    """Operand ``i`` of an op as it is written in the code."""
    texts = node.origin.operands if node.origin is not None else ()
    return f"`{texts[i]}`" if i < len(texts) else f"operand {i}"
