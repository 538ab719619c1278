"""A picture as DOT text: cards are HTML-like tables. A graph has the same text in any process."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice, repeat
from numbers import Integral
from typing import Any

from minigrad.core.node import Box, Node
from minigrad.errors import GraphError, UsageError, facts
from minigrad.viz.badge import BADGES, Verdict, Verdicts, verdict_text, verdicts_by_node, worst_of
from minigrad.viz.fold import Card, Cluster, Edge, Visible, fold
from minigrad.viz.formula import Formulas, shown
from minigrad.viz.gradient import CONSTANT, MISSING, Gradient, Swept, swept
from minigrad.viz.graph import Recorded, root_of
from minigrad.viz.grid import SIDE, blank, grid, number
from minigrad.viz.markup import LINE, SIZE, block, bold, captioned, small, table, tr, wrapped
from minigrad.viz.title import count_of_leaves, count_of_ops, gap_lines, title

_SANS = "Helvetica,Arial,sans-serif"
_TITLE_SIZE = 13.5  # points; the letters of Helvetica are then whole pixels wide
_INK = "#1f2328"
_BACK = "#b54700"  # colour of the backward sweep, here and in the stepper
_COLOURS = "Orange is positive, blue is negative; each array has its own scale."
_DASHED = "Dashed: the cotangents on their way back, with their norms."
_ROOM = "    "  # the label of an edge that keeps room for the dashed line beside it
_ROW_GAP = {"none": "0.32", "beside": "0.36", "on": "0.5"}  # inches, by where the norms stand
_REACH = {"tail": 2.6, "head": 1.7}  # labeldistance from the end of a line, past an arrowhead
_SPAN = 200  # rows that edges may span; beyond it room for every norm would take seconds to lay out
_HEADS = {  # colours behind the titles of cards
    "leaf": "#dfe3ea",
    "leaves": "#dfe3ea",
    "op": "#f2f4f7",
    "scope": "#d9d9d9",
    "gap": "#d9d9d9",
}
_LEVELS = ("#f7f8fa", "#eceff3", "#e1e5eb")  # colours of clusters, by depth of nesting
_OUTPUTS = 3  # values that one folded card shows
_LISTED = 20  # parameters that one card lists
_TITLE = 44  # characters in a line of a title
_MANY = 60  # cards; in a picture with more, only arrays up to 4 x 4 are shown whole
_ABREAST = 4  # leaves of one card in a row
_WIDE = 4  # columns of a gradient; a wider one stands below its value, not beside it


def to_dot(
    y: Box | Sequence[Box],
    *,
    depth: int | None = None,
    values: bool = True,
    grads: bool = True,
    verdicts: Verdicts | None = None,
) -> str:
    """Describe the graph that computed ``y`` in DOT, the language of Graphviz.

    Every value is a card with its formula, shape, dtype, numbers and gradient. Every op input is an
    edge. Composites and scopes are clusters. A graph of more than 300 cards is folded.

    Args:
        y: a result, or several, whose graph was recorded.
        depth: levels of nested scopes that are opened; a deeper scope is one card. None: all.
        values, grads: whether the cards show the numbers and the gradients.
        verdicts: what ``minigrad.viz.verdicts`` returns: for the name of a leaf, or the node of an
            op, a pair (whether its gradient or rule was proven, text); None means "not run".

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
    by_node = verdicts_by_node("draw", verdicts, recorded)
    wrong = (node for node, (ok, _) in by_node.items() if node.op is not None and ok is False)
    pins = {node for node in by_node if node.op is None} | set(islice(wrong, 1))  # outside any gap
    visible = fold(recorded, depth, pins)
    return _Writer(recorded, visible, values, grads, by_node).text()


def _roots(y: Any) -> list[Node]:
    boxes = list(y) if isinstance(y, (list, tuple)) else [y]
    if not boxes:
        raise GraphError("draw: an empty list of tensors has no graph")
    return [root_of("draw", box, "a tensor, or a list of tensors") for box in boxes]


class _Writer:
    """The DOT text of one picture: clusters and cards in creation order, then the edges."""

    def __init__(
        self,
        recorded: Recorded,
        visible: Visible,
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
        if self.visible.tangled():  # straight lines that run under the cards
            routing = "nslimit=1 splines=line outputorder=edgesfirst"
        else:  # cards first: none hides the norm beside a line
            routing = "nslimit=4 outputorder=nodesfirst"
        routing += " newrank=true" * bool(self.weights)
        roomy = len(self.visible.cards) <= _MANY and self.visible.span() <= _SPAN
        norms = ("beside" if roomy else "on") if self.swept.norms else "none"
        lines = [
            "digraph minigrad {",
            f'  graph [fontname="{_SANS}" fontsize={_TITLE_SIZE} bgcolor="white" '
            f"rankdir=TB nodesep=0.3 ranksep={_ROW_GAP[norms]} pad=0.15 labelloc=t "
            f"nslimit1=4 mclimit=0.5 {routing}];",
            f'  node [shape=plain fontname="{_SANS}" fontsize={_TITLE_SIZE} fontcolor="{_INK}"];',
            f'  edge [color="{LINE}" arrowsize=0.7 fontname="{_SANS}" fontsize={SIZE}];',
        ]
        lines += self._notes()
        lines += nested(self.visible.top, self._card, _name_of, margin=8)
        lines += self._edges(roomy)
        return "\n".join([*lines, "}", ""])

    def _edges(self, roomy: bool) -> list[str]:
        """The edges and the dashed lines back; if ``roomy``, norms get room beside the lines."""
        lines: list[str] = []
        leaves: Counter[Card] = Counter()
        parallel: Counter[tuple[Card, Card]] = Counter()
        leaving = Counter(edge.tail for edge in self.visible.edges)
        arriving = Counter(edge.head for edge in self.visible.edges)
        for edge, weight in zip(self.visible.edges, self.weights or repeat(1), strict=False):
            row = 0
            if edge.tail.kind == "leaf":
                row = leaves[edge.head] // _ABREAST
                leaves[edge.head] += 1
            # a norm on the line stands at the end where fewer lines meet, at the other end for
            # every second of parallel edges, and never beside the position at a head
            at_tail = arriving[edge.head] > leaving[edge.tail]
            at_tail ^= parallel[edge.tail, edge.head] % 2 == 1
            parallel[edge.tail, edge.head] += 1
            end = "tail" if at_tail or edge.position else "head"
            back = _way_back(edge, self.swept.norms, "" if roomy else end)
            lines += [_edge(edge, row, weight, apart=roomy and bool(back)), *back]
        return lines

    def _notes(self) -> list[str]:
        """Above the picture: what had to fold, and the legend."""
        colours = self.values or any(map(_has_place, self.swept.gradients.values()))
        legend = [_COLOURS] * colours + [_DASHED] * bool(self.swept.norms)
        notes = [bold(self.visible.note)] * bool(self.visible.note)
        notes += [small(line) for line in legend]
        return [f"  label=<{captioned(*notes)}>;"] if notes else []

    def _card(self, card: Card) -> str:
        text = title(card, self.formulas)
        head = "▸ " * (card.kind in ("scope", "leaves"))
        head += '<BR ALIGN="LEFT"/>'.join(f"<B>{line}</B>" for line in wrapped(text, _TITLE))
        head += '<BR ALIGN="LEFT"/>' * (len(text) > _TITLE)  # or the last line would be centred
        rows = [tr(head, f'BGCOLOR="{_HEADS[card.kind]}"')]
        rows += [tr(small(line)) for line in self._about(card)]
        rows += self._badge(card)
        if card.kind not in ("gap", "leaves"):
            rows += self._results(card)
        return f"label=<{_frame(rows, card, thick=not self.roots.isdisjoint(card.members))}>"

    def _about(self, card: Card) -> list[str]:
        """The lines below the title."""
        if card.kind == "gap":
            return gap_lines(card)[1:]
        if card.kind == "leaves":
            return self._listed(card)
        if card.kind == "scope":
            return [_about_scope(card)]
        return [] if self.values else [_about(card.outputs[0])]

    def _listed(self, card: Card) -> list[str]:
        """The leaves of a card, in the order in which ops use them."""
        uses = chain(*(edge.uses for edge in self.visible.edges if edge.tail is card))
        operands = self.formulas.recorded.operands
        leaves = islice(dict.fromkeys(operands[node][i] for node, i in uses), _LISTED)
        more = len(card.members) - _LISTED
        names = self.formulas.operand
        lines = [f"{names[leaf].text} {_shape(leaf)} {leaf.value.dtype}" for leaf in leaves]
        return lines + [f"… {more} more"] * (more > 0)

    def _results(self, card: Card) -> list[str]:
        rows = []
        for output in _outputs_shown(card):
            name = f"{self.formulas.operand[output].text} " if len(card.outputs) > 1 else ""
            rows += self._numbers(output, name, card.kind == "scope")
        if (more := len(card.outputs) - _OUTPUTS) > 0:
            rows.append(tr(small(f"… {more} more result{'s' * (more > 1)}")))
        return rows

    def _badge(self, card: Card) -> list[str]:
        """The verdict on the value of a card, or on the ops that the card stands for."""
        if card.kind in ("leaf", "op"):
            verdict = self.verdicts.get(card.outputs[0])
        else:
            ops = [node for node in card.members if node.op is not None and node in self.verdicts]
            verdict = worst_of((node.op.name, self.verdicts[node]) for node in ops)
        return [] if verdict is None else [_badge_row(*verdict)]

    def _numbers(self, node: Node, name: str, folded: bool) -> list[str]:
        """The value of ``node`` and its gradient, side by side where there is room."""
        gradient = self.swept.gradients.get(node)
        numbers = grid(node.value, self.side)
        blocks = []
        if self.values:
            blocks.append(block(name + ("value" if folded else f"value {_about(node)}"), numbers))
        elif name:
            blocks.append(small(f"{name}{_about(node)}"))
        if gradient is not None:
            blocks.append(self._gradient(gradient, node))
        columns = len(numbers.rows[0]) if numbers.rows else 1
        if columns > _WIDE or gradient is None or not _has_place(gradient):
            return [*map(tr, blocks)]
        cells = "".join(f'<TD ALIGN="LEFT" VALIGN="TOP">{block}</TD>' for block in blocks)
        return [tr(table(f"<TR>{cells}</TR>", spacing=4))]

    def _gradient(self, gradient: Gradient, node: Node) -> str:
        if not _has_place(gradient):
            head = "gradient: " * (gradient.note != CONSTANT)
            return small(head + gradient.note)
        if gradient.array is None:
            return block(f"gradient: {gradient.note}", blank(node.value, self.side))
        paths = self.swept.paths[node]
        note = gradient.note or f"sum of {paths} paths" * (paths > 1)
        caption = f"gradient ({note})" if note else "gradient"
        return block(caption, grid(gradient.array, self.side))


def nested(
    top: Cluster, attributes: Callable[[Card], str], name: Callable[[Cluster], str], margin: int
) -> list[str]:
    """The cards with their ``attributes``, and clusters with their names around them."""
    lines = []
    for cluster, depth, ends in top.walk():
        indent = "  " * depth
        if ends:
            lines += [indent + "}"] if depth else []
            continue
        if depth:
            color = _LEVELS[min(depth, len(_LEVELS)) - 1]
            lines += [
                f"{indent}subgraph {cluster.id} {{",
                f'{indent}  graph [label=<{name(cluster)}> labeljust=l style="rounded,filled" '
                f'fillcolor="{color}" color="{LINE}" margin={margin}];',
            ]
        lines += [f"{indent}  {card.id} [{attributes(card)}];" for card in cluster.cards]
    return lines


def _name_of(cluster: Cluster) -> str:
    return bold(shown(cluster.name)) + small(f"  {count_of_ops(cluster.ops)}")


def _edge(edge: Edge, row: int, weight: int, apart: bool) -> str:
    """An edge over ``row`` + 1 rows or more; ``apart``: with room for the dashed line beside it."""
    attributes = []
    if edge.count > 1:  # the card of a gap is small: many lines come close to each other there
        end = "tail" if edge.head.kind == "gap" else "head"
        attributes += [f"{end}label=<{_chip(f'× {edge.count:,}')}> labelangle=0 labeldistance=2.6"]
    elif edge.position:
        attributes += [f'headlabel="{edge.position}" labeldistance=1.8']
    attributes += [f"minlen={row + 1}"] * bool(row) + [f"weight={weight}"] * (weight > 1)
    attributes += [f'label="{_ROOM}"'] * apart
    listed = f" [{' '.join(attributes)}]" if attributes else ""
    return f"  {edge.tail.id} -> {edge.head.id}{listed};"


def _way_back(edge: Edge, norms: Mapping[tuple[Node, int], float], end: str) -> list[str]:
    """A dashed second line for the cotangent that passed the edge, labelled with its norm.

    Where ``end`` is "", the layout keeps room for the norm beside the line. Where that would take
    too long, the norm stands on the line, at its ``end``: "head" or "tail".
    """
    passed = [norms[use] for use in edge.uses if use in norms]
    if not passed:
        return []
    line = f'dir=back style=dashed color="{_BACK}" fontcolor="{_BACK}"'
    if end:  # without a constraint of its own, the layout keeps it at the edge
        line += " constraint=false"
    if len(edge.uses) == 1:
        line += f" {end}label=<{_chip(number(passed[0]))}>"
        line += f" labelangle=0 labeldistance={_REACH[end]}" if end else ""
    return [f"  {edge.tail.id} -> {edge.head.id} [{line}];"]


def _chip(text: str) -> str:
    """A label on a line, with a background."""
    return table(f"<TR><TD>{text}</TD></TR>", 'BGCOLOR="white"')


def _outputs_shown(card: Card) -> list[Node]:
    """The first outputs of a card, as there is room, and the last: what the call returned."""
    return [*card.outputs[:-1][: _OUTPUTS - 1], card.outputs[-1]]


def _about(node: Node) -> str:
    kind = "" if node.op else " · leaf" if node.requires_grad else " · constant"
    return f"{_shape(node)} {node.value.dtype}{kind}"


def _about_scope(card: Card) -> str:
    shapes = [_shape(node) for node in card.inputs]
    given = ", ".join(shapes[:4] + ["…"] * (len(shapes) > 4)) or "nothing"
    made = ", ".join(map(_shape, _outputs_shown(card)))
    hidden = f" and {count_of_leaves(card.leaves)}" if card.leaves else ""
    return f"{count_of_ops(card.ops)}{hidden} folded · {given} → {made}"


def _shape(node: Node) -> str:
    return str(tuple(node.value.shape))


def _badge_row(ok: bool | None, text: str) -> str:
    color, _ = BADGES[ok]
    words = f'<FONT COLOR="#ffffff">{bold(verdict_text(ok, text))}</FONT>'
    return tr(words, f'BGCOLOR="{color}"')


def _has_place(gradient: Gradient) -> bool:
    """Whether a card has a place for the gradient: it is there, or ``backward`` has yet to run."""
    return gradient.array is not None or gradient.note == MISSING


def _frame(rows: list[str], card: Card, thick: bool) -> str:
    constant = card.kind == "leaf" and not card.outputs[0].requires_grad
    style = ' STYLE="dashed"' if constant else ""
    color = f'COLOR="{_INK if thick else LINE}" BGCOLOR="white"{style}'
    return table("".join(rows), color, border=3 if thick else 1, padding=3)
