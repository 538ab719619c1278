"""Names and formulas: how a picture writes the way a value was computed.

Named values keep their names. An unnamed result that is short is written out where it is used,
``var = mean(xc * xc)``; one that is longer, or used outside its scope, is called ``v1``, ``v2`` ...
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from minigrad.core.node import Node
from minigrad.core.op import Op
from minigrad.errors import MinigradError
from minigrad.viz.fold import Card
from minigrad.viz.graph import Recorded

_NAME, _FORMULA = 40, 80  # characters of a name and of a formula; the middle of more is cut out
_INLINE, _NESTED = 20, 2  # characters and nested calls of a result that is written out where used
_SHORT = _INLINE + 2  # of a name where a formula is too long; a result in brackets is not cut
_OPERANDS = 6  # operands of one call that are listed
# how tightly operators bind; a name, a number or a call needs no parentheses anywhere
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}
_UNARY, _ATOM = 3, 9


class Text(NamedTuple):
    """A formula, how tightly its outermost operator binds, and how many calls it nests."""

    text: str
    rank: int = _ATOM
    nested: int = 0

    def inside(self, rank: int) -> str:
        """The text as an operand, in parentheses unless it binds more tightly than ``rank``."""
        return self.text if self.rank > rank else f"({self.text})"


def shown(text: Any, limit: int = _NAME) -> str:
    """``text`` with invisible characters made visible; its middle is cut out beyond ``limit``."""
    text = _cut(str(text), limit)
    if text.isascii() and text.isprintable():
        return text
    rtl = any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in text)
    text = "".join(map(_visible, text))
    # isolated, lest it turn the formula around it from right to left, too
    return f"\u200e\u2068{text}\u2069" if rtl else text


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def _visible(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    # lone surrogates are not XML; format characters reorder or hide their neighbours, except the
    # joiners U+200C and U+200D, which belong to words and emoji
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\u200c\u200d":
        return f"⟨U+{code:04X}⟩"
    return "\ufffd" if code & 0xFFFE == 0xFFFE else char


class Formulas:
    """The names of all values of a graph and the formulas by which they were computed.

    ``operand[node]`` is how other formulas refer to the value: its name, or its formula if that is
    short. ``call[node]`` is the formula of the result of an op.
    """

    def __init__(self, recorded: Recorded):
        self.recorded = recorded
        self.operand: dict[Node, Text] = {}
        self.call: dict[Node, Text] = {}
        taken = {str(node.name) for node in recorded.order if node.name}
        self._given = dict(_distinct_names(recorded, taken))
        self._numbered = {prefix: _numbered(prefix, taken) for prefix in ("v", "c", "leaf")}
        self._roots = dict(zip(recorded.roots, self._names_of_roots(taken), strict=True))
        used_outside = {x for x, node in recorded.uses() if x.scope is not node.scope}
        for node in recorded.order:
            if node.op is not None:
                self.call[node] = self._call(node)
            self.operand[node] = self._operand(node, node in used_outside)

    def title(self, node: Node) -> str:
        """``x_hat = xc * inv_std``; the name alone for a leaf, the formula alone if unnamed."""
        name = self.operand[node].text
        if node.op is None or self.operand[node] is self.call[node]:
            return name
        call = self.call[node].text
        if len(f"{name} = {call}") > _FORMULA:
            name = _cut(name, _SHORT)
        return _cut(f"{name} = {call}", _FORMULA)

    def title_of_scope(self, card: Card) -> str:
        """``y = batch_norm(x, gamma, beta)``: a folded scope as one call; a name for parameters."""
        name = shown(card.name)
        if card.kind == "leaves":
            return name
        results = _listed([self.operand[node].text for node in card.outputs])
        given = _listed([self.operand[node].text for node in card.inputs])
        return _cut(f"{results} = {name}({given})", _FORMULA)

    def _names_of_roots(self, taken: set[str]) -> Iterator[str]:
        roots = self.recorded.roots
        if len(roots) == 1 and "y" not in taken:
            return iter(["y"])
        names = _numbered("y", taken)
        return iter([next(names) for _ in roots])

    def _operand(self, node: Node, used_outside: bool) -> Text:
        if node in self._given:
            return Text(self._given[node])
        if node.op is None:
            return Text(next(self._numbered["leaf" if node.requires_grad else "c"]))
        if node in self._roots:
            return Text(self._roots[node])
        call = self.call[node]
        short = len(call.text) <= _INLINE and call.nested <= _NESTED
        return call if short and not used_outside else Text(next(self._numbered["v"]))

    def _call(self, node: Node) -> Text:
        op, params = node.op, node.params
        xs = [self.operand[x] if isinstance(x, Node) else _number(x)
              for x in self.recorded.operands[node]]  # fmt: skip
        nested = 1 + max((x.nested for x in xs), default=0)
        symbol = op.symbol or op.name
        rank = _RANK.get(symbol)
        if rank and len(xs) == 2:
            left = xs[0].inside(rank if symbol == "**" else rank - 1)  # a - b - c is (a - b) - c
            right = xs[1].inside(rank)
            if len(left) + len(right) > 2 * _SHORT:  # lest the operator be cut out
                left, right = _cut(left, _SHORT), _cut(right, _SHORT)
            return Text(f"{left} {symbol} {right}", rank, nested)
        if rank and len(xs) == 1:
            return Text(symbol + xs[0].inside(_UNARY), _UNARY, nested)
        if symbol == "[]":
            return Text(f"{xs[0].inside(_ATOM - 1)}[{_index(params.get('key'))}]", nested=nested)
        given = [_listed([x.text for x in xs]), *_keywords(op, params)]
        return Text(_cut(f"{symbol}({', '.join(given)})", _FORMULA), nested=nested)


def _distinct_names(recorded: Recorded, taken: set[str]) -> Iterator[tuple[Node, str]]:
    """Each named node with a name that no other operand has.

    Of operands that share a name, parameters get their path in the model instead. After the first,
    those that still share one get ``#2``, ``#3`` ... Results that nothing uses may share a name,
    because no formula refers to them.
    """
    used = {x for x, _ in recorded.uses()}
    names = {node: shown(node.name) for node in recorded.order if node.name}
    uses = Counter(name for node, name in names.items() if node in used)
    paths = _paths(recorded) if max(uses.values(), default=0) > 1 else {}
    numbers: dict[str, Iterator[int]] = {}
    for node, name in names.items():
        if uses[name] > 1 and node in paths:
            name = shown(paths[node])
        if name in numbers:
            name = next(s for i in numbers[name] if (s := f"{name}#{i}") not in taken)
        elif node in used:
            numbers[name] = count(2)
        yield node, name


def _paths(recorded: Recorded) -> dict[Node, str]:
    """The path of each parameter in the models that ran in this graph and still exist."""
    models = {}
    for path in recorded.paths.values():
        outermost = next((scope.module for scope in path if scope.module), None)  # a weak reference
        model = outermost() if outermost else None
        if model is not None:
            models[id(model)] = model
    paths: dict[Node, str] = {}
    for model in models.values():
        with suppress(MinigradError):  # a layer that was never called has no parameters yet
            for path, parameter in model.named_parameters():
                paths.setdefault(parameter.node, path)
    return paths


def _numbered(prefix: str, taken: set[str]) -> Iterator[str]:
    return (name for name in (f"{prefix}{i}" for i in count(1)) if name not in taken)


def _listed(texts: list[str]) -> str:
    more = len(texts) - _OPERANDS
    return ", ".join(texts[:_OPERANDS] + ([f"… {more} more"] if more > 0 else []))


def _number(x: Any) -> Text:
    text = literal(x)
    return Text(text, _UNARY if text.startswith("-") else _ATOM)


def literal(x: Any, digits: int = 6) -> str:
    """A number as it stands in a formula; a float with so many significant ``digits``."""
    if isinstance(x, np.ndarray):
        x = x[()]
    # -0.0 + 0.0 is 0.0
    return f"{float(x) + 0.0:.{digits}g}" if isinstance(x, (float, np.floating)) else shown(x)


def _keywords(op: Op, params: dict) -> list[str]:
    """``["axis=0", "keepdims"]``: the parameters of a call, except None, False and defaults."""
    declared = op.__signature__.parameters
    return [
        key if value is True else f"{key}={_value(value, key)}"
        for key, value in params.items()
        if value is not None
        and value is not False
        and not _is_default(value, declared[key].default)
    ]


def _is_default(value: Any, default: Any) -> bool:
    """Whether a parameter has its default value; arrays are never compared."""
    return type(value) is type(default) and not hasattr(value, "shape") and value == default


def _value(value: Any, key: str = "") -> str:
    """The value of the parameter ``key``, or a part of a tuple or an index, as text."""
    if key == "axis" and isinstance(value, tuple) and len(value) == 1:
        return _value(value[0])
    if isinstance(value, (list, tuple)):
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"({_listed([_value(item) for item in value])}{comma})"
    if isinstance(value, (bool, int, float, np.generic)):
        return literal(value)
    if isinstance(value, str):
        return f'"{shown(value)}"'
    if isinstance(value, np.dtype):  # it has a shape, too, as has a class such as np.float32
        return shown(str(value))
    if hasattr(value, "shape") and not isinstance(value, type):
        return _array(value, listed=not key)
    # never repr(): it may hold a memory address, and two runs would differ
    return shown(getattr(value, "__name__", None) or type(value).__name__)


def _array(value: Any, listed: bool) -> str:
    """``float64[6]``; if ``listed``, the numbers of a short vector."""
    if listed and isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= _OPERANDS:
        return f"[{', '.join(literal(item) for item in value)}]"
    return f"{value.dtype}{list(value.shape)}"


def _index(key: Any) -> str:
    """An index as it stands between the brackets."""
    parts = key if isinstance(key, tuple) else (key,)
    return ", ".join(map(_part_of_index, parts))


def _part_of_index(part: Any) -> str:
    if isinstance(part, slice):
        ends = ["" if end is None else str(end) for end in (part.start, part.stop, part.step)]
        return ":".join(ends[:2] if part.step is None else ends)
    if isinstance(part, (list, tuple)):
        return f"[{_listed(list(map(_part_of_index, part)))}]"
    if part is None:
        return "None"
    return "..." if part is ... else _value(part)
