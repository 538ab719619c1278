"""The expression in the code under examination that called an op, and how a finding quotes it."""

import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from linecache import getline
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from minigrad.core.node import Node
from minigrad.observer import Observer, is_ours

_LONGEST = 60  # characters of an expression that are shown
_ASSIGNED = re.compile(r"(?:^|;\s*)(\w+) ?=$")  # what may stand before a whole statement's value
_RETURNED = re.compile(r"\breturn$|\blambda\b[^:]*:$")


@dataclass(frozen=True)
class Expression:
    """An expression of the code under examination that called an op.

    Attributes:
        text: the source of the expression.
        name: the variable it is assigned to, if its statement does nothing else.
        is_statement: whether its statement does nothing but assign or return it.
        operands: the source of each argument of its operator, function or method.
        lines: the line it starts in and, inside a function that the forward calls, the line of
            the forward with that call.
        repeat: which of its executions this is, counted from 1, and how many there are.
        calls: the place of the call in the code of each function, the innermost first.
    """

    text: str
    name: str
    is_statement: bool
    operands: tuple[str, ...]
    lines: tuple[int, ...]
    repeat: tuple[int, int] = (1, 1)
    calls: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = f"{self.name} = {self.text}" if self.name else self.text
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        where = f"line {', called in line '.join(map(str, self.lines))}"
        number, count = self.repeat
        if count > 1:
            where += f", time {number} of {count}"
        return f"`{text}` ({where})"


class ExpressionObserver(Observer):
    """Notes the expression that called each op as the ``origin`` of its node.

    Args:
        caller: the function that runs the code under examination.
    """

    def __init__(self, caller: FunctionType):
        self.caller = caller.__code__

    def called(self, op: Any, inputs: list, value: Any, node: Node | None) -> None:
        if node is not None:
            node.origin = _expression(op.name, self.caller)


def _expression(op: str, caller: CodeType) -> Expression | None:
    """The expression that calls an op right now; None if only minigrad's own code does."""
    frame, frames = sys._getframe(1), []  # frames of the code under examination, innermost first
    while frame is not None and frame.f_code is not caller:
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
    first, text, name, is_returned = _evaluated(inner)
    is_statement = bool(name) or is_returned
    for frame in frames[1:]:  # what is returned may be assigned there
        if name or not is_returned:
            break
        *_, name, is_returned = _evaluated(frame)
    operands = _operands(text, inner, op) if text else ()
    calls = tuple(frame.f_lasti for frame in frames)
    lines = (first, *lines[1:])
    return Expression(text or op, name, is_statement, operands, lines, calls=calls)


def _evaluated(frame: FrameType) -> tuple[int, str, str, bool]:
    """The first line and the source of the expression that a frame evaluates right now, the name
    that the statement assigns it to, and whether the statement returns it."""
    code = frame.f_code
    first, last, start, stop = next(islice(code.co_positions(), frame.f_lasti // 2, None))
    if first is None or last is None or start is None:
        return frame.f_lineno, "", "", False
    source = [getline(code.co_filename, i).encode() for i in range(first, last + 1)]
    is_last = source[-1][stop:].strip()[:1] in (b"", b"#", b";")
    is_last = is_last and getline(code.co_filename, last + 1).strip()[:1] != ")"  # of a call
    source[-1] = source[-1][:stop]
    before, source[0] = source[0][:start].decode().strip(), source[0][start:]
    text = " ".join(line.decode().strip() for line in source)
    assigned = _ASSIGNED.search(before) if is_last else None
    is_returned = is_last and _RETURNED.search(before) is not None
    return first, text, assigned[1] if assigned else "", is_returned


def _operands(text: str, frame: FrameType, op: str) -> tuple[str, ...]:
    """The source of each argument of an operator, a function or a method; of each array in the
    list that ``op`` joins, or nothing if the list is made elsewhere."""
    try:
        (statement,) = ast.parse(text).body
    except (SyntaxError, ValueError):
        return ()
    tree: Any = getattr(statement, "value", None)
    parts: list = []
    if isinstance(statement, ast.AugAssign):  # x += 1
        parts = [statement.target, tree]
    elif isinstance(tree, ast.UnaryOp):
        parts = [tree.operand]
    elif isinstance(tree, ast.BinOp):
        parts = [tree.left, tree.right]
    elif isinstance(tree, ast.Call):
        # a string is no operand: the subscripts of einsum
        parts = [arg for arg in tree.args if not isinstance(getattr(arg, "value", None), str)]
        if op in ("concatenate", "stack"):
            parts = getattr(parts[0], "elts", []) if parts else []
            parts = [] if any(isinstance(part, ast.Starred) for part in parts) else parts
        elif isinstance(tree.func, ast.Attribute):
            owner = tree.func.value
            name = owner.id if isinstance(owner, ast.Name) else ""
            module = frame.f_locals.get(name, frame.f_globals.get(name))
            parts = parts if isinstance(module, ModuleType) else [owner, *parts]
    return tuple(map(ast.unparse, parts))


def is_quotable(node: Node) -> bool:
    """Whether a finding can quote a value: it is an input, or made by an expression of the code."""
    return node.op is None or node.origin is not None


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


def every_time(quoted: str, nodes: Sequence[Node] = ()) -> str:
    """``quoted``, but of all executions of repeated code instead of a single one; or of those that
    made ``nodes``."""
    repeats = [node.origin.repeat for node in nodes if node.origin is not None]
    when = "every time"
    if repeats and len(repeats) < repeats[0][1]:
        shown = [str(number) for number, _ in repeats[:3]] + [".."] * (len(repeats) > 3)
        when = f"times {', '.join(shown)} of {repeats[0][1]}"
    return re.sub(r", time \d+ of \d+\)", f", {when})", quoted)
