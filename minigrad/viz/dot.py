"""A picture as DOT text. The same graph gives the same text, in any process."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import chain, islice, repeat
from numbers import Integral
from typing import Any

from minigrad.core.node import Box, Node
from minigrad.errors import GraphError, UsageError, facts
from minigrad.viz.badge import (
    BADGES,
    Verdict,
    Verdicts,
    verdict_text,
    verdicts_by_node,
    worst_of_ops,
)
from minigrad.viz.formula import Formulas, shown
from minigrad.viz.gradient import CONSTANT, MISSING, Gradient, Swept, swept
from minigrad.viz.graph import Card, Cluster, Edge, Picture, Recorded, picture, root_of
from minigrad.viz.grid import SIDE, Cell, Grid, blank, grid, number

_SANS = "Helvetica,Arial,sans-serif"
_MONO = "Courier New,Courier,monospace"  # 0.6 em wide in every substitute: nothing is clipped
# Points. Graphviz rounds the advance of each letter to a pixel. At 13.5 points those of Helvetica
# are whole pixels; of the whole numbers, which POINT-SIZE takes, 11 loses least.
_TITLE_SIZE, _NUMBER_SIZE, _SIZE = 13.5, 12, 11
_GREY, _LINE, _INK = "#555555", "#8a8f98", "#1f2328"
_FAINT = "#d0d4da"
_BACK = "#b54700"  # of what runs backward, here and in the stepper
_COLOURS = "Orange is positive, blue negative, on a scale of each array's own."
_DASHED = "Dashed: the cotangents on their way back, with their norms."
_ROOM = "    "  # beside a line, for the one that runs back
_GAP = {"none": "0.32", "beside": "0.36", "on": "0.5"}  # inches between rows, by where norms stand
_REACH = {"tail": 2.6, "head": 1.7}  # from the end of a line to its norm, past an arrowhead
_SPAN = 200  # rows that edges span; with more, room for all norms would take the layout seconds
_HEADS = {
    "leaf": "#dfe3ea",
    "leaves": "#dfe3ea",
    "op": "#f2f4f7",
    "scope": "#d9d9d9",
    "gap": "#d9d9d9",
}
_LEVELS = ("#f7f8fa", "#eceff3", "#e1e5eb")  # behind clusters, by how deep they are nested
_OUTPUTS = 3  # values that one folded card shows
_LISTED = 20  # of many parameters that one card stands for
_TITLE = 44  # characters in a line of a title
_MANY = 60  # cards; with more, arrays beyond 4 x 4 are shown by an excerpt
_ABREAST = 4  # leaves of one card that stand side by side; more make further rows
_WIDE = 4  # columns; a wider gradient stands below its value, not beside it


def to_dot(
    y: Box | Sequence[Box],
    *,
    depth: int | None = None,
    values: bool = True,
    grads: bool = True,
    verdicts: Verdicts | None = None,
) -> str:
    """Describe the graph that computed ``y`` in DOT, the language of Graphviz.

    Every value is a card: how it was computed, shape, dtype, its numbers and its gradient. Every op
    input is an edge. Composites and scopes are clusters. More than 300 cards fold by themselves.

    Args:
        y: a result, or several, whose graph was recorded.
        depth: levels of nested scopes that are opened; deeper ones fold to one card. None: all.
        values, grads: whether the cards show the numbers, and the gradients.
        verdicts: name of a leaf, or node of an op -> (whether its gradient, or its rule, was
            proven, text), as ``minigrad.viz.verdicts`` finds them; None is "not run".

    Raises:
        GraphError: nothing was recorded for ``y``.
        UsageError: ``depth`` is negative, or a verdict is about nothing in the graph.

    >>> x = mg.tensor(3.0, requires_grad=True, name="x")
    >>> mg.viz.to_dot(x * x).count("n0 -> n1")
    2
    """
    if depth is not None and (not isinstance(depth, Integral) or depth < 0):
        raise UsageError(facts("draw: depth", expected="None, 0, 1, 2 ...", got=repr(depth)))
    recorded = Recorded(_roots(y))
    found = verdicts_by_node("draw", verdicts, recorded)
    wrong = (node for node, (ok, _) in found.items() if node.op is not None and ok is False)
    pins = {node for node in found if node.op is None} | set(islice(wrong, 1))
    visible = picture(recorded, depth, pinned=lambda node: node in pins)
    return _Writer(recorded, visible, values, grads, found).text()


def _roots(y: Any) -> list[Node]:
    boxes = list(y) if isinstance(y, (list, tuple)) else [y]
    if not boxes:
        raise GraphError("draw: an empty list of tensors has no graph")
    return [root_of("draw", box, "a tensor, or a list of tensors") for box in boxes]


class _Writer:
    """Writes one picture: clusters and cards in creation order, then the edges."""

    def __init__(
        self,
        recorded: Recorded,
        visible: Picture,
        values: bool,
        grads: bool,
        verdicts: Mapping[Node, Verdict],
    ):
        nodes = [n for card in visible.cards for n in card.outputs if card.kind != "gap"]
        self.visible, self.values, self.verdicts = visible, values, verdicts
        self.weights = visible.weights()
        self.side = SIDE if len(visible.cards) <= _MANY else SIDE // 2
        self.formulas = Formulas(recorded)
        self.swept = swept(recorded, nodes) if grads else Swept({}, {}, Counter())
        self.roots = set(recorded.roots)

    def text(self) -> str:
        # straight lines run under the cards; else no card may hide the norm beside it
        straight = "nslimit=1 splines=line outputorder=edgesfirst"
        routing = straight if self.visible.tangled() else "nslimit=4 outputorder=nodesfirst"
        routing += " newrank=true" * bool(self.weights)
        small = len(self.visible.cards) <= _MANY and self.visible.span() <= _SPAN
        where = ("beside" if small else "on") if self.swept.norms else "none"
        lines = [
            "digraph minigrad {",
            f'  graph [fontname="{_SANS}" fontsize={_TITLE_SIZE} bgcolor="white" '
            f"rankdir=TB nodesep=0.3 ranksep={_GAP[where]} pad=0.15 labelloc=t "
            f"nslimit1=4 mclimit=0.5 {routing}];",
            f'  node [shape=plain fontname="{_SANS}" fontsize={_TITLE_SIZE} fontcolor="{_INK}"];',
            f'  edge [color="{_LINE}" arrowsize=0.7 fontname="{_SANS}" fontsize={_SIZE}];',
        ]
        lines += self._notes()
        lines += self._body()
        lines += self._lines(small)
        return "\n".join([*lines, "}", ""])

    def _lines(self, small: bool) -> list[str]:
        """The edges, and the ways back beside them; in ``small`` pictures norms have room."""
        lines: list[str] = []
        leaves: Counter[Card] = Counter()
        pairs: Counter[tuple[Card, Card]] = Counter()
        leaving = Counter(edge.tail for edge in self.visible.edges)
        arriving = Counter(edge.head for edge in self.visible.edges)
        for edge, weight in zip(self.visible.edges, self.weights or repeat(1), strict=False):
            row = 0
            if edge.tail.kind == "leaf":
                row = leaves[edge.head] // _ABREAST
                leaves[edge.head] += 1
            # without room, where fewer lines meet; not beside a position, nor two of a pair
            ends = ["head", "tail"]
            first = arriving[edge.head] > leaving[edge.tail]
            end = "tail" if edge.position else ends[(first + pairs[edge.tail, edge.head]) % 2]
            pairs[edge.tail, edge.head] += 1
            back = _way_back(edge, self.swept.norms, "" if small else end)
            lines += [_edge(edge, row, weight, apart=small and bool(back)), *back]
        return lines

    def _notes(self) -> list[str]:
        """The legend above the picture, and what folded by itself."""
        colours = self.values or any(_has_room(found) for found in self.swept.gradients.values())
        legend = [_COLOURS] * colours + [_DASHED] * bool(self.swept.norms)
        notes = [_b(self.visible.note)] * bool(self.visible.note)
        notes += [_font(escaped(line)) for line in legend]
        return [f"  label=<{_captioned(*notes)}>;"] if notes else []

    def _body(self) -> list[str]:
        """Cards and clusters; a stack instead of recursion, as scopes may nest deep."""
        lines, stack = [], [(self.visible.top, 0, False)]
        while stack:
            cluster, depth, closing = stack.pop()
            indent = "  " * depth
            if closing:
                lines.append(indent + "}")
                continue
            if cluster.scope is not None:
                lines += _opening(cluster, indent, depth)
                stack.append((cluster, depth, True))
            for card in cluster.cards:
                lines.append(f"{indent}  {card.id} [label=<{self._card(card)}>];")
            stack += [(inner, depth + 1, False) for inner in reversed(cluster.clusters)]
        return lines

    def _card(self, card: Card) -> str:
        if card.kind == "gap":
            return self._gap(card)
        if card.kind == "leaves":
            return self._leaves(card)
        node = card.outputs[0]
        folded = card.kind == "scope"
        title = self.formulas.title_of_scope(card) if folded else self.formulas.title(node)
        head = '<BR ALIGN="LEFT"/>'.join(f"<B>{line}</B>" for line in wrapped(title, _TITLE))
        head += '<BR ALIGN="LEFT"/>' if len(title) > _TITLE else ""  # a last line is centred else
        rows = [_row(f"{'▸ ' if folded else ''}{head}", f'BGCOLOR="{_HEADS[card.kind]}"')]
        if folded or not self.values:
            about = _about_scope(card) if folded else _about(node)
            rows.append(_row(_font(escaped(about))))
        rows += self._badge(card)
        for output in _main(card):
            name = f"{self.formulas.operand[output].text} " if len(card.outputs) > 1 else ""
            rows += self._numbers(output, name, folded)
        if (more := len(card.outputs) - _OUTPUTS) > 0:
            rows.append(_row(_font(f"… {more} more result{'s' * (more > 1)}")))
        return _frame(rows, card, thick=not self.roots.isdisjoint(card.members))

    def _gap(self, card: Card) -> str:
        first, *rest = gap(card)
        rows = [_row(_b(first), f'BGCOLOR="{_HEADS["gap"]}"'), *(_row(_font(x)) for x in rest)]
        rows += self._badge(card)
        return _frame(rows, card, thick=False)

    def _leaves(self, card: Card) -> str:
        title = _b(f"▸ {self.formulas.title_of_scope(card)}")
        rows = [_row(title, f'BGCOLOR="{_HEADS["leaves"]}"')]
        uses = chain(*(edge.uses for edge in self.visible.edges if edge.tail is card))
        operands = self.formulas.recorded.operands
        for leaf in islice(dict.fromkeys(operands[node][i] for node, i in uses), _LISTED):
            text = f"{self.formulas.operand[leaf].text} {_shape(leaf)} {leaf.value.dtype}"
            rows.append(_row(_font(escaped(text))))
        if (more := len(card.members) - _LISTED) > 0:
            rows.append(_row(_font(f"… {more} more")))
        return _frame(rows, card, thick=False)

    def _badge(self, card: Card) -> list[str]:
        """What was proven of it, or of the ops that it stands for."""
        if card.kind in ("leaf", "op"):
            verdict = self.verdicts.get(card.outputs[0])
        else:
            ops = [node for node in card.members if node.op is not None and node in self.verdicts]
            verdict = worst_of_ops((node.op.name, self.verdicts[node]) for node in ops)
        return [] if verdict is None else [_badge(*verdict)]

    def _numbers(self, node: Node, name: str, folded: bool) -> list[str]:
        """The value of ``node`` and its gradient, beside each other where there is room."""
        gradient = self.swept.gradients.get(node)
        numbers = grid(node.value, self.side)
        blocks = []
        if self.values:
            blocks.append(_block(name + ("value" if folded else f"value {_about(node)}"), numbers))
        elif name:
            blocks.append(_font(escaped(f"{name}{_about(node)}")))
        if gradient is not None:
            blocks.append(self._gradient(gradient, node))
        columns = len(numbers.rows[0]) if numbers.rows else 1
        if columns > _WIDE or gradient is None or not _has_room(gradient):
            return [_row(block) for block in blocks]
        cells = "".join(f'<TD ALIGN="LEFT" VALIGN="TOP">{block}</TD>' for block in blocks)
        return [_row(_table(f"<TR>{cells}</TR>", 4))] if cells else []  # captions do not touch

    def _gradient(self, gradient: Gradient, node: Node) -> str:
        if not _has_room(gradient):
            head = "gradient: " * (gradient.note != CONSTANT)
            return _font(escaped(head + gradient.note))
        if gradient.array is None:
            return _block(f"gradient: {gradient.note}", blank(node.value, self.side))
        paths = self.swept.paths[node]
        note = gradient.note or f"sum of {paths} paths" * (paths > 1)
        caption = f"gradient ({note})" if note else "gradient"
        return _block(caption, grid(gradient.array, self.side))


def _opening(cluster: Cluster, indent: str, depth: int) -> list[str]:
    color = _LEVELS[min(depth, len(_LEVELS)) - 1]
    name = _b(shown(cluster.scope.name if cluster.scope else ""))
    name += _font(f"  {_ops(cluster.ops)}")
    return [
        f"{indent}subgraph {cluster.id} {{",
        f'{indent}  graph [label=<{name}> labeljust=l style="rounded,filled" '
        f'fillcolor="{color}" color="{_LINE}" margin=8];',
    ]


def _edge(edge: Edge, row: int, weight: int, apart: bool) -> str:
    attributes = []
    if edge.count > 1:  # no card is as small as that of a gap: many lines come near at its end
        end = "tail" if edge.head.kind == "gap" else "head"
        attributes += [f"{end}label=<{_chip(f'× {edge.count:,}')}> labelangle=0 labeldistance=2.6"]
    elif edge.position:
        attributes += [f'headlabel="{edge.position}" labeldistance=1.8']
    attributes += [f"minlen={row + 1}"] * bool(row) + [f"weight={weight}"] * (weight > 1)
    attributes += [f'label="{_ROOM}"'] * apart
    listed = f" [{' '.join(attributes)}]" if attributes else ""
    return f"  {edge.tail.id} -> {edge.head.id}{listed};"


def _way_back(edge: Edge, norms: Mapping[tuple[Node, int], float], end: str) -> list[str]:
    """A second line beside the edge for what passed it on the way back, with its norm.

    The layout keeps room for a norm that has no ``end`` to stand at. Where that takes too long it
    is a label of an end, with a background, on the line itself.
    """
    passed = [norms[use] for use in edge.uses if use in norms]
    if not passed:
        return []
    line = f'dir=back style=dashed color="{_BACK}" fontcolor="{_BACK}"'
    if end:  # no constraint: then the layout keeps the two lines together
        line += " constraint=false"
    if len(edge.uses) == 1:
        line += f" {end}label=<{_chip(number(passed[0]))}>"
        line += f" labelangle=0 labeldistance={_REACH[end]}" if end else ""
    return [f"  {edge.tail.id} -> {edge.head.id} [{line}];"]


def _chip(text: str) -> str:
    """A label that stands on a line."""
    return _table(f"<TR><TD>{text}</TD></TR>", 0, attributes='BGCOLOR="white"')


def _main(card: Card) -> list[Node]:
    """The outputs that a card has room for, its last among them: it is what the call returned."""
    return [*card.outputs[:-1][: _OUTPUTS - 1], card.outputs[-1]]


def _about(node: Node) -> str:
    kind = "" if node.op is not None else " · leaf" if node.requires_grad else " · constant"
    return f"{_shape(node)} {node.value.dtype}{kind}"


def _about_scope(card: Card) -> str:
    shapes = [_shape(node) for node in card.inputs]
    given = ", ".join(shapes[:4] + ["…"] * (len(shapes) > 4)) or "nothing"
    made = ", ".join(map(_shape, _main(card)))
    hidden = f" and {_leaves(card.leaves)}" if card.leaves else ""
    return f"{_ops(card.ops)}{hidden} folded · {given} → {made}"


def gap(card: Card) -> list[str]:
    """What the middle of a long graph says in place of its cards, in one line or two."""
    counts = [_ops(card.ops, "more ")] if card.ops else []
    counts += [_leaves(card.leaves, "more " * (not counts))] if card.leaves else []
    return [f"… {counts[0]} folded", *(f"and {count}" for count in counts[1:])]


def _ops(n: int, more: str = "") -> str:
    return f"{n:,} {more}op{'s' * (n != 1)}"


def _leaves(n: int, more: str = "") -> str:
    return f"{n:,} {more}{'leaf' if n == 1 else 'leaves'}"


def _shape(node: Node) -> str:
    return str(tuple(node.value.shape))


def _badge(ok: bool | None, text: str) -> str:
    color, _ = BADGES[None if ok is None else bool(ok)]
    return _row(f'<FONT COLOR="#ffffff">{_b(verdict_text(ok, text))}</FONT>', f'BGCOLOR="{color}"')


def _block(caption: str, numbers: Grid) -> str:
    """A caption, the statistics if any, and the heat map."""
    parts = [_font(escaped(caption))]
    if numbers.facts:
        labels = "".join(_td(_font(escaped(label))) for label, _ in numbers.facts)
        cells = "".join(_td(_mono(number)) for _, number in numbers.facts)
        parts.append(_table(f"<TR>{labels}</TR><TR>{cells}</TR>", 0))
    if numbers.note:
        parts.append(_font(escaped(numbers.note)))
    if numbers.rows:
        parts.append(_table("".join(_heat(numbers)), 0, f'COLOR="{_FAINT}"'))
    return _captioned(*parts)


def _has_room(gradient: Gradient) -> bool:
    """Whether its place is kept free: it is there, or will be once ``backward`` has run."""
    return gradient.array is not None or gradient.note == MISSING


def _heat(numbers: Grid) -> list[str]:
    below, beside = numbers.more
    rows = []
    for row in numbers.rows:
        cells = [_number_cell(cell) for cell in row] + [_td("…")] * bool(beside)
        rows.append(f"<TR>{''.join(cells)}</TR>")
    if below:
        rows.append(f"<TR>{_td('…') * len(numbers.rows[0])}</TR>")
    return rows


def _number_cell(cell: Cell) -> str:
    text = f'<FONT COLOR="#ffffff">{_mono(cell.text)}</FONT>' if cell.odd else _mono(cell.text)
    return f'<TD BORDER="1" ALIGN="RIGHT" BGCOLOR="{cell.color}">{text}</TD>'


def _frame(rows: list[str], card: Card, thick: bool) -> str:
    constant = card.kind == "leaf" and not card.outputs[0].requires_grad
    style = ' STYLE="dashed"' if constant else ""
    return (
        f'<TABLE BORDER="{3 if thick else 1}" CELLBORDER="0" CELLSPACING="0" CELLPADDING="3" '
        f'COLOR="{_INK if thick else _LINE}" BGCOLOR="white"{style}>{"".join(rows)}</TABLE>'
    )


def _captioned(*parts: str) -> str:
    return _table("".join(_row(part) for part in parts), 0)


def _table(rows: str, spacing: int, attributes: str = f'COLOR="{_LINE}"') -> str:
    return (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="{spacing}" CELLPADDING="2" '
        f"{attributes}>{rows}</TABLE>"
    )


def _row(content: str, attributes: str = "") -> str:
    return f'<TR><TD ALIGN="LEFT"{" " if attributes else ""}{attributes}>{content}</TD></TR>'


def _td(content: str) -> str:
    return f'<TD ALIGN="RIGHT">{content}</TD>'


def _font(escaped: str) -> str:
    return f'<FONT POINT-SIZE="{_SIZE}" COLOR="{_GREY}">{escaped}</FONT>'


def _mono(text: str) -> str:
    return f'<FONT FACE="{_MONO}" POINT-SIZE="{_NUMBER_SIZE}">{escaped(text)}</FONT>'


def _b(text: str) -> str:
    return f"<B>{escaped(text)}</B>"


def escaped(text: str) -> str:
    """Escaped for an HTML-like label, in which Graphviz reads ``\\N`` as the name of the node."""
    return escape(text, quote=True).replace("\\", "&#92;&#92;")


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in escaped lines of about ``width`` characters, broken at spaces."""
    lines, rest = [], text
    while len(rest) > width and (cut := rest.rfind(" ", width // 2, width)) > 0:
        lines.append(rest[:cut])
        rest = "  " + rest[cut + 1 :]
    return [escaped(line) for line in [*lines, rest]]
