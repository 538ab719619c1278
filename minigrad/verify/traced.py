"""The graph of a forward on plain arrays, each op with the code that called it.

``trace`` runs the forward once on tensors in the place of arrays. As the forward is written for
NumPy, these tensors accept more than others: assignments to elements (``_Traced``), functions of
NumPy that only rearrange elements (``_rearranged``), arrays that are allocated first and filled
later (``_NumPy``). An observer notes the expression behind each op (``Expression``). Afterwards
arrays replace the tensors that the code under examination kept.
"""

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

_ZERO = 1e-12  # a cotangent that cancels, relative to the largest that the same ops pass back
_LONGEST = 60  # characters of an expression that are shown

_TENSORS: ContextVar[list] = ContextVar("weak references to all tensors made in a trace")

Edge = tuple[Node, int]  # an op call and the number of one of its operands


@dataclass(frozen=True)
class Expression:
    """An expression of the code under examination that called an op.

    Attributes:
        text: the source of the expression.
        name: the variable it is assigned to, if its line does nothing else.
        is_statement: whether its line does nothing but assign or return it.
        operands: the source of each argument of its operator, function or method.
        lines: the line it starts in and, inside a function that the forward calls, the line of
            the forward with that call.
        repeat: which of its executions this is, counted from 1, and how many there are.
    """

    text: str
    name: str
    is_statement: bool
    operands: tuple[str, ...]
    lines: tuple[int, ...]
    repeat: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        text = f"{self.name} = {self.text}" if self.name else self.text
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        where = f"line {', called in line '.join(map(str, self.lines))}"
        number, count = self.repeat
        if count > 1:
            where += f", time {number} of {count}"
        return f"`{text}` ({where})"


class _Expressions(Observer):
    """Notes the expression that called each op as the ``origin`` of its node."""

    def called(self, op: Any, inputs: list, value: Any, node: Node | None) -> None:
        if node is not None:
            node.origin = _expression(op.name)


def _expression(op: str) -> Expression | None:
    """The expression that calls an op right now; None if only minigrad's own code does."""
    frame, frames = sys._getframe(1), []  # frames of the code under examination, innermost first
    while frame is not None and frame.f_code is not trace.__code__:
        if not is_ours(frame):
            frames.append(frame)
        frame = frame.f_back
    if not frames:
        return None
    inner, outer = frames[0], frames[-1]
    lines = inner.f_lineno, outer.f_lineno
    code = inner.f_code
    if (code.co_filename, lines[0]) == (outer.f_code.co_filename, lines[1]):
        lines = lines[:1]  # one frame, or two in a line: a list comprehension has its own
    first, last, start, stop = next(islice(code.co_positions(), inner.f_lasti // 2, None))
    if first is None or last is None or start is None:
        return Expression(op, "", False, (), lines)
    source = [getline(code.co_filename, i).encode() for i in range(first, last + 1)]
    after, source[-1] = source[-1][stop:].strip(), source[-1][:stop]
    before, source[0] = source[0][:start].decode().strip(), source[0][start:]
    text = " ".join(line.decode().strip() for line in source)
    name = before.removesuffix(" =")
    name = name if name != before and name.isidentifier() and not after else ""
    is_statement = bool(name) or (before == "return" and not after)
    operands = _operands(text, inner) if text else ()
    return Expression(text or op, name, is_statement, operands, (first, *lines[1:]))


def _operands(text: str, frame: FrameType) -> tuple[str, ...]:
    """The source of each argument of an operator, a function or a method."""
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
        # a string is no operand: the subscripts of einsum
        parts = [arg for arg in tree.args if not isinstance(getattr(arg, "value", None), str)]
        if len(parts) == 1 and isinstance(parts[0], (ast.List, ast.Tuple)):
            parts = parts[0].elts
        if isinstance(tree.func, ast.Attribute):
            owner = tree.func.value
            module = frame.f_globals.get(owner.id) if isinstance(owner, ast.Name) else None
            parts = parts if isinstance(module, ModuleType) else [owner, *parts]
    return tuple(map(ast.unparse, parts))


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
            self._cut(self.consumers[node])
        self.consumers = self._find_consumers()
        self._number_repeats()

    def _number_repeats(self) -> None:
        for nodes in self.repeated():
            for i, node in enumerate(nodes):
                node.origin = replace(node.origin, repeat=(i + 1, len(nodes)))

    def repeated(self) -> list[list[Node]]:
        """The values, grouped by the piece of code that made them: several if it is in a loop."""
        groups: dict[tuple, list[Node]] = {}
        for node in self.consumers:
            if node.origin is not None:
                groups.setdefault((node.origin.text, node.origin.lines, node.op), []).append(node)
        return list(groups.values())

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
                users = {user for user, _ in edges}
                largest = max(size for (user, _), size in sizes.items() if user in users)
                if np.abs(sum(parts)).max(initial=0) <= _ZERO * largest:
                    cancelling.append(node)
        return cancelling

    @staticmethod
    def _cut(edges: Iterable[Edge]) -> None:
        """Make these operands constants."""
        for node, i in edges:
            node.parents = (*node.parents[:i], None, *node.parents[i + 1 :])

    def pull(self, y_bar: np.ndarray) -> tuple[list[np.ndarray], dict[Edge, np.ndarray]]:
        """The cotangents of the inputs, and the part that each edge adds to its operand's."""
        flow = _Flow()
        with setting(observer=flow):
            bars = backward_sweep(self.root, y_bar, self.leaves)
        return [as_array(bars[end], end) for end in self.leaves], flow.bars

    def pull_from(self, node: Node, bar: np.ndarray, end: Node) -> np.ndarray:
        """The cotangent of the input ``end`` for the cotangent ``bar`` of ``node``."""
        return as_array(bar if node is end else backward_sweep(node, bar, [end])[end], end)

    def pull_without(self, edges: Iterable[Edge], y_bar: np.ndarray) -> list[np.ndarray]:
        """The cotangents of the inputs without the paths through some edges."""
        before = {node: node.parents for node, _ in edges}
        self._cut(edges)
        try:
            return self.pull(y_bar)[0]
        finally:
            for node, parents in before.items():
                node.parents = parents

    def push(self, end: Node, tangent: np.ndarray) -> dict[Node, np.ndarray]:
        """The tangents of all values that depend on one input, for a tangent of it."""
        flow = _Flow()
        with setting(observer=flow):
            forward_sweep(self.root, {end: tangent})
        return {end: tangent, **flow.dots}


def as_array(bar: Any, node: Node) -> np.ndarray:
    """The cotangent of a node as an array; None stands for zeros."""
    return np.zeros(node.value.shape) if bar is None else np.asarray(bar, np.float64)


class _Traced(Tensor):
    """A tensor that stands for an array in more places than other tensors do.

    Its elements may be assigned, and it is taken by functions of NumPy that only rearrange
    elements or that a few ops can express.
    """

    __slots__ = ()

    def __init__(self, array: Any, node: Node | None = None):
        super().__init__(array, node)
        _TENSORS.get([]).append(ref(self))

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        if func.__name__ in _BY_OPS:
            return _BY_OPS[func.__name__](*args, **kwargs)
        try:
            found = super().__array_function__(func, types, args, kwargs)
        except DTypeError:
            return _rearranged(func, args, kwargs)
        return _Traced(found) if func.__name__.endswith("_like") else found

    def __getattr__(self, name: str) -> Any:
        """A method of arrays that tensors lack, by the function of NumPy of that name."""
        if name.startswith("_") or not hasattr(np.ndarray, name) or not hasattr(np, name):
            raise AttributeError(name)
        return lambda *args, **kwargs: getattr(np, name)(self, *args, **kwargs)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Become a new node with these elements replaced; the old node stays in the graph.

        The new node has no origin, so no finding points to the assignment: the elements that it
        leaves alone say nothing about it.
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


_BY_OPS: dict[str, Callable] = {
    "dot": matmul,
    "norm": lambda x, axis=None, keepdims=False: sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    "outer": lambda x, y: x.flatten()[:, None] * y.flatten(),
}


def _flat(tensors: list) -> Any:
    """A zero, followed by the elements of all these tensors."""
    return concatenate([np.zeros(1), *(x.reshape(-1) for x in tensors)])


def _rearranged(func: Callable, args: tuple, kwargs: dict) -> Any:
    """The result of a function of NumPy that rearranges elements, or adds zeros to them.

    The function is applied to the numbers of the elements instead, 1, 2, .., and 0 for a zero.
    That gives the index of each element of the result, and so the result as an indexing op.
    """
    operands: list = []

    def numbers(value: Any) -> Any:
        if tracked(value) and isinstance(value, (list, tuple)):
            return [numbers(x if isinstance(x, Tensor) else _Traced(x)) for x in value]
        if not isinstance(value, Tensor):
            return value
        start = 1 + sum(x.size for x in operands)
        operands.append(value)
        return np.arange(start, start + value.size).reshape(value.shape)

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [plain(x) for x in value]
        return value.numpy() if isinstance(value, Tensor) else value

    places = func(*map(numbers, args), **kwargs)
    moved, y = _flat(operands)[places], func(*map(plain, args), **kwargs)
    if not np.array_equal(moved.numpy(), y):
        raise DTypeError(f"{func.__name__} does more than move elements")
    return moved


class _NumPy(ModuleType):
    """NumPy for code that is traced: arrays that it fills later are tensors from the start."""

    def __init__(self):
        super().__init__("numpy")
        for name in ("zeros", "empty", "ones", "full"):
            setattr(self, name, self._allocating(getattr(np, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def _allocating(func: Callable) -> Callable:
        def allocate(*args: Any, **kwargs: Any) -> Any:
            array = func(*args, **kwargs)
            return _Traced(array) if array.dtype.kind == "f" else array

        return allocate

    def array(self, values: Any, *args: Any, **kwargs: Any) -> Any:
        """A list of tensors is stacked; a copy of a tensor shares its node until it is changed."""
        if isinstance(values, (list, tuple)) and tracked(values):
            return stack([self.array(x) for x in values])
        if isinstance(values, Tensor):
            return _Traced(values.array, values.node)
        return np.array(values, *args, **kwargs)


def _with_numpy(forward: Any) -> Any:
    """A copy of a function or method, and of the functions of its module, that uses ``_NumPy``."""
    func = getattr(forward, "__func__", forward)
    if not isinstance(func, FunctionType):
        return forward
    numpy, names = _NumPy(), dict(func.__globals__)

    def copied(f: FunctionType) -> FunctionType:
        copy = FunctionType(f.__code__, names, f.__name__, f.__defaults__, f.__closure__)
        copy.__kwdefaults__ = f.__kwdefaults__
        return copy

    for name, value in func.__globals__.items():
        if value is np:
            names[name] = numpy
        elif isinstance(value, FunctionType) and value.__globals__ is func.__globals__:
            names[name] = copied(value)
    return MethodType(copied(func), forward.__self__) if func is not forward else copied(func)


def trace(subject: Subject) -> Graph | None:
    """The graph of the forward; None where its result does not come from ops on tensors.

    A method runs on a copy of its object, so that the object itself keeps no tensors; wherever else
    the code keeps tensors, arrays replace them.
    Raises whatever the forward, or an op that it calls, raises when run on tensors.
    """
    leaves = [leaf(x, True, name) for x, name in zip(subject.inputs, subject.names, strict=True)]
    made: list[ref] = []
    token = _TENSORS.set(made)
    try:
        forward = _with_numpy(deepcopy(subject.forward))
        with setting(observer=_Expressions(), recording=True, scope=None):
            pair = forward(*(_Traced(x.value, x) for x in leaves), **subject.params)
        y: Any = pair[0] if is_pair(pair) else None
        root = y.node if isinstance(y, _Traced) and y.requires_grad else None
        del forward, pair, y
        return Graph(root, leaves) if root is not None else None
    finally:
        _TENSORS.reset(token)
        _replace_by_arrays([tensor for each in made if (tensor := each()) is not None])


def _replace_by_arrays(kept: list[Tensor]) -> None:
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


def is_quotable(node: Node) -> bool:
    """Whether a finding can quote a value: it is an input, or made by an expression of the code."""
    return node.op is None or node.origin is not None


def is_square(x: Any) -> bool:
    """Whether the transpose of the last two axes of ``x`` is another array of the same shape."""
    return np.ndim(x) > 1 and x.shape[-1] == x.shape[-2] > 1


def quote(node: Node) -> str:
    """The code that made a value, with its line; the name of an input."""
    if node.op is None:
        return f"`{node.name}`"
    return str(node.origin) if node.origin is not None else f"`{node.op.name}`"


def quote_operand(node: Node, i: int) -> str:
    """The code of operand ``i`` of an op."""
    texts = node.origin.operands if node.origin is not None else ()
    return f"`{texts[i]}`" if i < len(texts) else f"operand {i}"


def name_of(node: Node) -> str:
    """The variable that the code assigns a value to; empty if there is none, or several."""
    return (node.origin.name if node.origin is not None else node.name) or ""


def every_time(quoted: str) -> str:
    """``quoted``, but of all executions of repeated code instead of a single one."""
    return re.sub(r", time \d+ of \d+\)", ", every time)", quoted)
