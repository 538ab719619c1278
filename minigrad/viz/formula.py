"""Names and formulas: how a picture writes what an op computed.

Named values keep their names. An unnamed result that is short is written out where it is used,
``var = mean(xc * xc)``; a longer one, or one that leaves its scope, is called ``v1``, ``v2`` ...
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
from minigrad.viz.graph import Card, Recorded

_NAME, _OPERANDS, _FORMULA, _INLINE = 40, 6, 80, 20  # characters; operands of one call
_SHORT = _INLINE + 2  # what a name keeps where a formula would not fit; an operand in brackets does
_NESTED = 2  # calls inside one another that are still read at a glance
_ATOM = 9
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}
_UNARY = 3


class Text(NamedTuple):
    """A formula, how tightly its outermost operator binds, and how many calls it nests."""

    text: str
    rank: int = _ATOM
    nested: int = 0

    def inside(self, rank: int) -> str:
        """The text as an operand of an operator that binds like ``rank``."""
        return self.text if self.rank > rank else f"({self.text})"


def shown(text: Any, limit: int = _NAME) -> str:
    """``text`` with every invisible character made visible, its middle cut out beyond ``limit``."""
    text = _cut(str(text), limit)
    if text.isascii() and text.isprintable():
        return text
    rtl = any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in text)
    text = "".join(map(_visible, text))
    # without the isolate it would turn the formula around it, too
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
    # lone surrogates are not XML; format characters reorder or hide their neighbours
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\u200c\u200d":
        return f"⟨U+{code:04X}⟩"
    return "\ufffd" if code & 0xFFFE == 0xFFFE else char


class Formulas:
    """What every value of a graph is called and how it was computed.

    ``operand[node]`` is how other formulas refer to it, ``call[node]`` how it was computed.
    """

    def __init__(self, recorded: Recorded):
        self.recorded = recorded
        self.operand: dict[Node, Text] = {}
        self.call: dict[Node, Text] = {}
        taken = {str(node.name) for node in recorded.order if node.name}
        self._name_of = dict(_told_apart(recorded, taken))
        self._fresh = {prefix: _fresh(prefix, taken) for prefix in ("v", "c", "leaf")}
        self._roots = dict(zip(recorded.roots, self._names_of_roots(taken), strict=True))
        leaving = {x for x, node in recorded.uses() if x.scope is not node.scope}
        for node in recorded.order:
            if node.op is not None:
                self.call[node] = self._call(node)
            self.operand[node] = self._operand(node, node in leaving)

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
        """``y = batch_norm(x, gamma, beta)``: the scope as if it were one call; or its name."""
        name = shown(card.scope.name if card.scope else "")
        if card.kind == "leaves":
            return name
        results = _listed([self.operand[node].text for node in card.outputs])
        given = _listed([self.operand[node].text for node in card.inputs])
        return _cut(f"{results} = {name}({given})", _FORMULA)

    def _names_of_roots(self, taken: set[str]) -> Iterator[str]:
        roots = self.recorded.roots
        if len(roots) == 1 and "y" not in taken:
            return iter(["y"])
        fresh = _fresh("y", taken)
        return iter([next(fresh) for _ in roots])

    def _operand(self, node: Node, leaves_its_scope: bool) -> Text:
        if node in self._name_of:
            return Text(self._name_of[node])
        if node.op is None:
            return Text(next(self._fresh["leaf" if node.requires_grad else "c"]))
        if node in self._roots:
            return Text(self._roots[node])
        call = self.call[node]
        short = len(call.text) <= _INLINE and call.nested <= _NESTED
        return call if short and not leaves_its_scope else Text(next(self._fresh["v"]))

    def _call(self, node: Node) -> Text:
        op, params = node.op, node.params
        xs = [self.operand[x] if isinstance(x, Node) else _number(x)
              for x in self.recorded.operands[node]]  # fmt: skip
        nested = 1 + max((x.nested for x in xs), default=0)
        symbol = op.symbol or op.name
        rank = _RANK.get(symbol)
        if rank and len(xs) == 2:
            pair = xs[0].inside(rank if symbol == "**" else rank - 1), xs[1].inside(rank)
            if sum(map(len, pair)) > 2 * _SHORT:  # lest the operator be what is cut out
                pair = tuple(_cut(operand, _SHORT) for operand in pair)
            return Text(f" {symbol} ".join(pair), rank, nested)
        if rank and len(xs) == 1:
            return Text(symbol + xs[0].inside(_UNARY), _UNARY, nested)
        if symbol == "[]":
            return Text(f"{xs[0].inside(_ATOM - 1)}[{_key(params.get('key'))}]", nested=nested)
        given = [_listed([x.text for x in xs]), *_words(op, params)]
        return Text(_cut(f"{symbol}({', '.join(given)})", _FORMULA), nested=nested)


def _told_apart(recorded: Recorded, taken: set[str]) -> Iterator[tuple[Node, str]]:
    """Each named node with its name; of parameters that share one, the path in their model.

    The second of a name that formulas use gets ``#2``, and so on. Results that nothing uses may
    share a name: no formula could mean the other.
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
    """What the models that still exist call their parameters, of all that ran in this graph."""
    models = {}
    for scope in dict.fromkeys(node.scope for node in recorded.order):
        outermost = None
        while scope is not None:
            outermost, scope = scope.module or outermost, scope.parent
        model = outermost and outermost()
        models |= {} if model is None else {id(model): model}
    found: dict[Node, str] = {}
    for model in models.values():
        with suppress(MinigradError):  # a layer that was never called has no parameters yet
            for path, parameter in model.named_parameters():
                found.setdefault(parameter.node, path)
    return found


def _fresh(prefix: str, taken: set[str]) -> Iterator[str]:
    return (name for name in (f"{prefix}{i}" for i in count(1)) if name not in taken)


def _listed(texts: list[str]) -> str:
    more = len(texts) - _OPERANDS
    return ", ".join(texts[:_OPERANDS] + ([f"… {more} more"] if more > 0 else []))


def _number(x: Any) -> Text:
    if isinstance(x, np.ndarray):
        x = x[()]
    text = f"{float(x):.6g}" if isinstance(x, (float, np.floating)) else shown(x)
    return Text(text, _UNARY if text.startswith("-") else _ATOM)


def _words(op: Op, params: dict) -> list[str]:
    """Parameters as they would be typed; those that change nothing are left out."""
    declared = op.__signature__.parameters
    return [
        key if value is True else f"{key}={_value(value, key)}"
        for key, value in params.items()
        if value is not None and value is not False and not _same(value, declared[key].default)
    ]


def _same(value: Any, default: Any) -> bool:
    """Whether it is the default, arrays aside."""
    return type(value) is type(default) and not hasattr(value, "shape") and value == default


def _value(value: Any, key: str = "") -> str:
    if key == "axis" and isinstance(value, tuple) and len(value) == 1:
        return _value(value[0])
    if isinstance(value, (list, tuple)):
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"({_listed([_value(item) for item in value])}{comma})"
    if isinstance(value, (bool, int, float, np.generic)):
        return _number(value).text
    if isinstance(value, str):
        return f'"{shown(value)}"'
    if hasattr(value, "shape"):
        return _array(value, listed=not key)
    # never repr(): it may hold a memory address, and two runs would differ
    return shown(getattr(value, "__name__", None) or _dtype(value))


def _dtype(value: Any) -> str:
    return str(value) if isinstance(value, np.dtype) else type(value).__name__


def _array(value: Any, listed: bool) -> str:
    """``float64[6]``, or the numbers of a short index."""
    if listed and isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= _OPERANDS:
        return f"[{', '.join(_number(item).text for item in value)}]"
    return f"{value.dtype}{list(value.shape)}"


def _key(key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return ", ".join(map(_index, parts))


def _index(part: Any) -> str:
    if isinstance(part, slice):
        ends = ["" if end is None else str(end) for end in (part.start, part.stop, part.step)]
        return ":".join(ends[:2] if part.step is None else ends)
    if isinstance(part, (list, tuple)):
        return f"[{_listed(list(map(_index, part)))}]"
    return "..." if part is ... else "None" if part is None else _value(part)
