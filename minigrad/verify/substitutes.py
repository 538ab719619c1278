"""Which wrong value the backward of an op reads, in the place of an operand or the result.

The rule of an op reads its operands, its result and the cotangent of its result. Each of these
parts is replaced in turn by other values of the graph, or by its transpose. The mistake is found if
the rule then gives cotangents that explain the errors of all inputs. A mistake in a loop is made in
every iteration, so there all calls of the op are changed at once; reversed parts are tried, too.

``overwritten`` looks for another kind of mistake: ``=`` in the place of ``+=``.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from minigrad.core.node import Node, ancestors
from minigrad.core.sweep import backward_sweep
from minigrad.verify.expression import every_time, is_quotable, name_of, quote, quote_operand
from minigrad.verify.graph import Edge, as_array
from minigrad.verify.origin import Errors

_TRIES = 1000  # at most so many substitutes are tried
_RESULT, _BAR = -1, -2  # parts of a rule that are no operands: the result and its cotangent
_OTHER = "{source} is used instead of {part}"
_TRANSPOSED = "a .T is missing or extra at {part}"
_LEFT_OUT = "the factor {part} is left out"
_PRODUCTS = ("multiply", "matmul", "einsum")
_FACTORS = ("multiply", "divide", "einsum")  # whose operands one may forget


class Substitute(NamedTuple):
    """Other values in the place of one part of a rule.

    Attributes:
        nodes: the op calls whose rule reads them: one, or all of a piece of code in a loop.
        part: the number of an operand, ``_RESULT`` or ``_BAR``.
        form: the text of the mistake, with gaps.
        values: one per node; for ``_BAR`` it is an array of cotangents, one per ``y_bar``.
        source: the code that made the values.
    """

    nodes: list[Node]
    part: int
    form: str
    values: list
    source: str = ""

    @property
    def part_text(self) -> str:
        texts = {_RESULT: "the result", _BAR: "the cotangent of the result"}
        return texts.get(self.part) or quote_operand(self.nodes[0], self.part)

    def text(self, source: str, where: str) -> str:
        mistake = self.form.format(source=source, part=self.part_text)
        return f"{mistake} in the backward of {where}"


class Substitutes:
    """Wrong values in rules that explain the errors of all inputs."""

    def __init__(self, errors: Errors):
        self.errors, self.graph, self.paths = errors, errors.graph, errors.paths

    @property
    def _limit(self) -> int:
        """How many substitutes are tried: all rules of the graph may run for each of them."""
        return min(_TRIES, self.errors.most_sweeps)

    # --- in one op -------------------------------------------------------------------------------

    def in_one_op(
        self, operands: Sequence[Node], without: set[Node], cotangents: bool = False
    ) -> str:
        """The wrong value in the rule of one op that explains the errors.

        Empty if several parts of rules could be wrong in that way, as products commute.

        Args:
            operands: the ops that use these values are examined.
            without: the results of ops that are not examined.
            cotangents: whether to try other cotangents for that of the result, not other values.
        """
        edges = [edge for parent in operands for edge in self.graph.consumers[parent]]
        edges = [edge for edge in edges if edge[0] not in without and is_quotable(edge[0])]
        candidates = self._other_cotangents if cotangents else self._other_values
        tried = islice(((edge, s) for edge in edges for s in candidates(edge[0])), self._limit)
        found: dict[tuple[Node, int, str], list[Substitute]] = {}
        for edge, s in tried:
            is_own = s.form == _LEFT_OUT and s.part == edge[1]  # x and y of x / y
            if not is_own and self.errors.explained_by(edge, self._pulled(edge, s)):
                found.setdefault((edge[0], s.part, s.form), []).append(s)
        if len(found) != 1:
            return ""
        ((first, *others),) = found.values()
        sources = [s.source for s in (first, *others)]
        if first.part_text in sources:  # two values of one name
            return ""
        return first.text(" or ".join(sources[:2]), quote(first.nodes[0]))

    def _pulled(self, edge: Edge, s: Substitute) -> Iterator[np.ndarray | None]:
        """The cotangents of an edge's operand with a substitute in the rule, one per ``y_bar``."""
        (node, i), parent = edge, edge[0].parents[edge[1]]
        (value,) = s.values
        xs, y = _replaced(node, s.part, value)
        parents = tuple(parent if n == i else None for n in range(len(node.parents)))
        wrong = Node(node.op, node.params, parents, xs, y, None)
        for bar in value if s.part == _BAR else self.paths.bars(node):
            yield backward_sweep(wrong, bar, [parent])[parent]

    def _other_values(self, node: Node) -> Iterator[Substitute]:
        """Other values of the same shape for operands and result, and transposes of the parts."""
        moves_elements = node.op.signature != "()"
        for part, x in [*enumerate(node.inputs), (_RESULT, node.value)]:
            for other in self._values if np.ndim(x) else ():
                value = other.value.T if _is_transpose(node, part) else other.value
                if value.shape == x.shape and other.value is not x:
                    yield Substitute([node], part, _OTHER, [value], quote(other))
            if moves_elements and _is_square(x):
                yield Substitute([node], part, _TRANSPOSED, [np.swapaxes(x, -1, -2)])
            if part >= 0 and node.op.name in _FACTORS:
                yield Substitute([node], part, _LEFT_OUT, [np.ones_like(x)])
        if moves_elements and _is_square(node.value):
            bars = np.swapaxes(np.stack(self.paths.bars(node)), -1, -2)
            yield Substitute([node], _BAR, _TRANSPOSED, [bars])

    def _other_cotangents(self, node: Node) -> Iterator[Substitute]:
        """Cotangents that a backward knows before that of the result; of equal ones the first."""
        seen, later = [np.stack(self.paths.bars(node))], set(ancestors(node))
        for other in self._values:
            bars = np.stack(self.paths.bars(other))
            is_new = bars.shape == seen[0].shape and np.ptp(bars[0]) and other not in later
            if is_new and not any(np.array_equal(bars, each) for each in seen):
                seen.append(bars)
                yield Substitute([node], _BAR, _OTHER, [bars], f"the cotangent of {quote(other)}")

    @cached_property
    def _values(self) -> list[Node]:
        """The values of the code, those with a name first."""
        return sorted(filter(is_quotable, self.graph.consumers), key=lambda node: not name_of(node))

    # --- in repeated code ------------------------------------------------------------------------

    def in_repeated_code(self) -> str:
        """The wrong value in the rule of an op, the same in every run of a piece of code."""
        groups = self.graph.loops()
        tries = (s for s in self._repeated(groups) if self._matters(s))
        for s in islice(tries, self._limit):
            if self._explains(s):
                return s.text(s.source, every_time(quote(s.nodes[0]), s.nodes))
        return ""

    @staticmethod
    def _repeated(groups: list[list[Node]]) -> Iterator[Substitute]:
        """The mistakes that need no other value first, then other values, in products first."""
        for nodes in groups:
            for part in _parts(nodes):
                own = [_part(node, part) for node in nodes]
                if part >= 0 and nodes[0].op.name in _FACTORS:
                    yield Substitute(nodes, part, _LEFT_OUT, [np.ones_like(x) for x in own])
                if _is_square(own[0]):
                    turned = [np.swapaxes(x, -1, -2) for x in own]
                    yield Substitute(nodes, part, _TRANSPOSED, turned)
        sources = [(others, i) for others in groups for i in _parts(others)]
        for nodes in sorted(groups, key=lambda nodes: nodes[0].op.name not in _PRODUCTS):
            for part in _parts(nodes):
                own = [_part(node, part) for node in nodes]
                seen = {tuple(map(id, own))}
                for others, i in sources if np.ndim(own[0]) else ():
                    values = [_part(node, i) for node in others]
                    is_new = tuple(map(id, values)) not in seen
                    if is_new and list(map(np.shape, values)) == list(map(np.shape, own)):
                        seen.add(tuple(map(id, values)))
                        text = every_time(quote(others[0]), others)
                        text = text if i < 0 else f"{quote_operand(others[0], i)} in {text}"
                        yield Substitute(nodes, part, _OTHER, values, text)

    def _matters(self, s: Substitute) -> bool:
        """Whether a rule gives other cotangents with these values; that of a sum reads none.

        The first and the last run stand for all of them.
        """
        for i in (0, -1):
            node = s.nodes[i]
            bar, known = self.paths.bars(node)[0], [p for p in node.parents if p is not None]
            xs, y = _replaced(node, s.part, s.values[i])
            wrong = Node(node.op, node.params, node.parents, xs, y, None)
            right, other = (backward_sweep(end, bar, known) for end in (node, wrong))
            if any(not np.array_equal(as_array(right[p], p), as_array(other[p], p)) for p in known):
                return True
        return False

    def _explains(self, s: Substitute) -> bool:
        """Whether a sweep with these values in the rules gives the actual cotangents."""
        changes = {}
        for node, value in zip(s.nodes, s.values, strict=True):
            inputs, result = _replaced(node, s.part, value)
            changes[node] = {"inputs": inputs, "value": result}
        return self.errors.arise_if(changes)

    # --- in an accumulation ----------------------------------------------------------------------

    def overwritten(self) -> Iterator[str]:
        """Indexing that takes an element repeatedly, where only its last cotangent counts, or none
        of those of other paths."""
        for edge in (edge for edges in self.graph.consumers.values() for edge in edges):
            node, bars = edge[0], self.paths.bars(edge[0])
            if node.op.name == "getitem" and is_quotable(node):
                last = [np.zeros(node.parents[0].value.shape) for _ in bars]
                if self.errors.explained_by(edge, _assigned(last, node, bars)):
                    again = f"an element that {quote(node)} takes repeatedly counts only once"
                    yield f"{again}: = instead of +=, or no np.add.at"
                parent = node.parents[0]
                others = [other for other in self.graph.consumers[parent] if other != edge]
                if others:
                    total = _assigned(self.paths.bars(parent, others), node, bars)
                    wrong_by = map(np.subtract, total, self.paths.bars(parent))
                    if self.errors.arise_from(parent, wrong_by):
                        over = f"what {quote(node)} passes back overwrites the other paths"
                        yield f"{over} to {quote(parent)}: = instead of +="


def _assigned(x_bars: list[np.ndarray], node: Node, bars: list[np.ndarray]) -> list[np.ndarray]:
    """Cotangents of an operand, with those of elements that ``node`` takes from it assigned."""
    for x_bar, bar in zip(x_bars, bars, strict=True):
        x_bar[node.params["key"]] = bar
    return x_bars


def _is_transpose(node: Node, part: int) -> bool:
    """Whether an operand is the transpose of another value, as in ``x @ w.T``."""
    parent = node.parents[part] if part >= 0 else None
    return parent is not None and parent.op is not None and parent.op.name == "transpose"


def _is_square(x: Any) -> bool:
    """Whether the transpose of the last two axes of ``x`` is another array of the same shape."""
    return np.ndim(x) > 1 and x.shape[-1] == x.shape[-2] > 1


def _parts(nodes: list[Node]) -> range:
    """The result and the operands of these calls; only those that each of them has."""
    return range(_RESULT, min(len(node.inputs) for node in nodes))


def _part(node: Node, part: int) -> Any:
    return node.value if part == _RESULT else node.inputs[part]


def _replaced(node: Node, part: int, value: Any) -> tuple[tuple, Any]:
    """Operands and result of a node with one of them replaced; ``_BAR`` leaves both."""
    if part == _RESULT and node.op.name == "tanh":  # its rule reads x, not y
        return (np.arctanh(value),), value
    xs = tuple(value if n == part else x for n, x in enumerate(node.inputs))
    return xs, value if part == _RESULT else node.value
