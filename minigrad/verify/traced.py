"""The graph of a forward on plain arrays: it is run once on tensors, which pass for arrays."""

import ast
import gc
import re
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from linecache import getline
from types import CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

import numpy as np

from minigrad.context import setting
from minigrad.core.node import Node, ancestors, leaf
from minigrad.core.sweep import backward_sweep, forward_sweep
from minigrad.errors import DTypeError
from minigrad.observer import Observer, is_ours
from minigrad.ops import concatenate, matmul, sqrt, stack
from minigrad.protocol import tracked
from minigrad.tensor import Tensor
from minigrad.verify.subject import Subject, is_pair

_ZERO = 1e-12  # of the cotangents of other operands: what is left of one that cancels
_LONG = 60  # characters of an expression that are shown

_MADE: ContextVar[list] = ContextVar("tensors that were made in a trace")

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
        # without the text that einsum is given
        parts = [one for one in tree.args if not isinstance(getattr(one, "value", None), str)]
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
        for nodes in self.again():
            for i, node in enumerate(nodes):
                node.origin = replace(node.origin, turn=(i + 1, len(nodes)))

    def again(self) -> list[list[Node]]:
        """The values that the same code made."""
        same: dict[tuple, list[Node]] = {}
        for node in self.consumers:
            if node.origin is not None:
                same.setdefault((node.origin.text, node.origin.lines, node.op), []).append(node)
        return list(same.values())

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


class _Traced(Tensor):
    """A tensor that passes for an array in more places: elements of it may be assigned, and what
    moves elements, or is written with ops, need not be one."""

    __slots__ = ()

    def __init__(self, array: Any, node: Node | None = None):
        super().__init__(array, node)
        _MADE.get([]).append(ref(self))

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        if func.__name__ in _WRITTEN:
            return _WRITTEN[func.__name__](*args, **kwargs)
        try:
            found = super().__array_function__(func, types, args, kwargs)
        except DTypeError:
            return _moved(func, args, kwargs)
        return _Traced(found) if func.__name__.endswith("_like") else found

    def __getattr__(self, name: str) -> Any:
        """Methods of arrays that tensors have not."""
        if name.startswith("_") or not hasattr(np.ndarray, name) or not hasattr(np, name):
            raise AttributeError(name)
        return lambda *args, **kwargs: getattr(np, name)(self, *args, **kwargs)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Make this the array with other elements; its former self stays in the graph.

        No code is noted for that: elements that stay as they are say nothing about it.
        """
        if not tracked([self, value]):
            super().__setitem__(key, value)
            return
        value = value if isinstance(value, Tensor) else _Traced(np.asarray(value, self.dtype))
        places = np.arange(1, self.size + 1).reshape(self.shape)
        others = np.arange(self.size + 1, self.size + value.size + 1)
        places[key] = others.reshape(value.shape)
        with setting(observer=None):
            new = _flat([self, value])[places]
        self.array, self.node = new.array, new.node


_WRITTEN: dict[str, Callable] = {
    "dot": matmul,
    "norm": lambda x, axis=None, keepdims=False: sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    "outer": lambda x, y: x.flatten()[:, None] * y.flatten(),
}


def _flat(tensors: list) -> Any:
    """A zero, and after it the elements of all of these."""
    return concatenate([np.zeros(1), *(one.reshape(-1) for one in tensors)])


def _moved(func: Callable, args: tuple, kwargs: dict) -> Any:
    """What a function of NumPy makes of tensors whose elements it moves, or adds zeros to.

    It moves their numbers, too: so it is known which element comes from where.
    """
    found: list = []

    def numbers(value: Any) -> Any:
        if tracked(value) and isinstance(value, (list, tuple)):
            return [numbers(one if isinstance(one, Tensor) else _Traced(one)) for one in value]
        if not isinstance(value, Tensor):
            return value
        start = 1 + sum(one.size for one in found)
        found.append(value)
        return np.arange(start, start + value.size).reshape(value.shape)

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [plain(one) for one in value]
        return value.numpy() if isinstance(value, Tensor) else value

    places = func(*map(numbers, args), **kwargs)
    moved, y = _flat(found)[places], func(*map(plain, args), **kwargs)
    if not np.array_equal(moved.numpy(), y):
        raise DTypeError(f"{func.__name__} does more than to move elements")
    return moved


class _NumPy(ModuleType):
    """NumPy for code that is traced: arrays that it fills later are tensors from the start."""

    def __init__(self):
        super().__init__("numpy")
        for name in ("zeros", "empty", "ones", "full"):
            setattr(self, name, self._made_by(getattr(np, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def _made_by(func: Callable) -> Callable:
        def make(*args: Any, **kwargs: Any) -> Any:
            found = func(*args, **kwargs)
            return _Traced(found) if found.dtype.kind == "f" else found

        return make

    def array(self, values: Any, *args: Any, **kwargs: Any) -> Any:
        """A list of tensors is stacked; assignments to a copy do not change a tensor."""
        if isinstance(values, (list, tuple)) and tracked(values):
            return stack([self.array(one) for one in values])
        return values if isinstance(values, Tensor) else np.array(values, *args, **kwargs)


def _with_numpy(forward: Any) -> Any:
    """A function, or a method, and the functions beside it, with another NumPy."""
    func = getattr(forward, "__func__", forward)
    if not isinstance(func, FunctionType):
        return forward
    numpy, names = _NumPy(), dict(func.__globals__)

    def copied(one: FunctionType) -> FunctionType:
        copy = FunctionType(one.__code__, names, one.__name__, one.__defaults__, one.__closure__)
        copy.__kwdefaults__ = one.__kwdefaults__
        return copy

    for name, value in func.__globals__.items():
        if value is np:
            names[name] = numpy
        elif isinstance(value, FunctionType) and value.__globals__ is func.__globals__:
            names[name] = copied(value)
    return MethodType(copied(func), forward.__self__) if func is not forward else copied(func)


def trace(subject: Subject) -> Graph | None:
    """The graph of the forward; None where its result is none of its operations.

    An object whose method it is is copied, lest it keep tensors; what else keeps some gets arrays.
    Raises what the forward raises of tensors, or an op that it calls.
    """
    leaves = [leaf(x, True, name) for x, name in zip(subject.inputs, subject.names, strict=True)]
    made: list[ref] = []
    token = _MADE.set(made)
    try:
        forward = _with_numpy(deepcopy(subject.forward))
        with setting(observer=_Places(), recording=True, scope=None):
            pair = forward(*(_Traced(one.value, one) for one in leaves), **subject.params)
        y: Any = pair[0] if is_pair(pair) else None
        root = y.node if isinstance(y, _Traced) and y.requires_grad else None
        del forward, pair, y
        return Graph(root, leaves) if root is not None else None
    finally:
        _MADE.reset(token)
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


def is_told(node: Node) -> bool:
    """Whether it stands in the code: it is an input, or an expression made it."""
    return node.op is None or node.origin is not None


def is_square(x: Any) -> bool:
    """Whether it has another transpose of the same shape."""
    return np.ndim(x) > 1 and x.shape[-1] == x.shape[-2] > 1


def every_time(text: str) -> str:
    """What is said of code that ran once, for all times that it ran."""
    return re.sub(r", time \d+ of \d+\)", ", every time)", text)


def said(node: Node) -> str:
    """A value as it is written in the code, and the line."""
    if node.op is None:
        return f"`{node.name}`"
    return str(node.origin) if node.origin is not None else f"`{node.op.name}`"


def said_operand(node: Node, i: int) -> str:
    """Operand ``i`` of an op as it is written in the code."""
    texts = node.origin.operands if node.origin is not None else ()
    return f"`{texts[i]}`" if i < len(texts) else f"operand {i}"
