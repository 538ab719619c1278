"""The pictures of the stepper: small cards without numbers, laid out once per level of folding.

A renderer places the cards; ``embed`` makes its SVG fit for the page.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

from minigrad.viz.dot import nested
from minigrad.viz.embed import PENDING, embedded
from minigrad.viz.fold import Card, Cluster, Visible, fold
from minigrad.viz.formula import Formulas, shown
from minigrad.viz.graph import Recorded
from minigrad.viz.markup import bold, escaped, table, tr, wrapped
from minigrad.viz.render import render
from minigrad.viz.title import count_of_ops, gap_lines, title

_TITLE = 34  # characters in a line of a title
_LEVELS = 5  # pictures of one graph, at most


@dataclass(frozen=True, eq=False)
class Layout:
    """One level of folding: the part of the graph that is visible, and its drawing."""

    visible: Visible
    svg: str


def layouts(formulas: Formulas) -> list[Layout]:
    """The pictures of a graph, from all scopes open to all folded, each different.

    Raises:
        RenderError: there is no renderer, or it failed.
    """
    pictures = _levels(formulas.recorded)
    texts = [skeleton(visible, formulas) for visible in pictures]
    with ThreadPoolExecutor(2) as pool:  # a thread only waits for its renderer's process
        drawn = list(pool.map(lambda text: render(text, "svg").decode(), texts))
    return [Layout(v, embedded(svg)) for v, svg in zip(pictures, drawn, strict=True)]


def _levels(recorded: Recorded) -> list[Visible]:
    full = fold(recorded)
    pictures = [full]
    for depth in reversed(range(max(depth for _, depth, _ in full.top.walk()))):
        folded = fold(recorded, depth)
        if len(folded.cards) < len(pictures[-1].cards):
            pictures.append(folded)
    return pictures if len(pictures) <= _LEVELS else [*pictures[: _LEVELS - 1], pictures[-1]]


def skeleton(visible: Visible, formulas: Formulas) -> str:
    """The DOT text of a picture of small cards; cards and edges have ids with their numbers."""
    routing = "splines=line outputorder=edgesfirst" if visible.tangled() else ""
    weights = visible.weights()
    routing += " newrank=true" * bool(weights)
    lines = [
        "digraph minigrad {",
        '  graph [bgcolor="transparent" rankdir=TB nodesep=0.22 ranksep=0.34 pad=0.06 fontsize=12 '
        f'fontname="Helvetica" nslimit=4 nslimit1=4 mclimit=0.5 {routing}];',
        '  node [shape=plain fontname="Helvetica" fontsize=13];',
        "  edge [arrowsize=0.7];",
    ]
    lines += nested(visible.top, lambda card: _card(card, formulas), _name_of, margin=5)
    for i, (edge, weight) in enumerate(zip(visible.edges, weights or repeat(1), strict=False)):
        lines.append(f'  {edge.tail.id} -> {edge.head.id} [id="edge{i}" weight={weight}];')
    return "\n".join([*lines, "}", ""])


def _name_of(cluster: Cluster) -> str:
    return bold(shown(cluster.name))


def _card(card: Card, formulas: Formulas) -> str:
    mark = "▸ " * (card.kind in ("scope", "gap", "leaves"))
    rows = [tr(f"<B>{line}</B>") for line in wrapped(mark + title(card, formulas), _TITLE)]
    about = f'<FONT POINT-SIZE="12">{escaped(_about(card))} </FONT>'
    if card.kind != "gap" and any(node.requires_grad for node in card.outputs):
        about += f'<FONT POINT-SIZE="12">{PENDING}</FONT>'
    rows.append(tr(about))
    label = table("".join(rows), 'BGCOLOR="white"', border=1)
    return f'id="{card.id}" label=<{label}>'


def _about(card: Card) -> str:
    if card.kind == "gap":
        return "".join(gap_lines(card)[1:])
    if card.kind == "leaves":
        return ""
    shape = str(tuple(card.outputs[0].value.shape))
    if card.kind == "scope":
        return f"{count_of_ops(card.ops)} → {shape}"
    if card.kind == "op":
        return shape
    return f"{shape} {'leaf' if card.outputs[0].requires_grad else 'constant'}"
