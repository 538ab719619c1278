"""The picture behind the stepper: small cards without numbers, laid out once per level of folding.

The renderer decides where everything stands; ``embed`` makes what comes back fit for a page.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

from minigrad.viz.dot import escaped, gap_lines, wrapped
from minigrad.viz.embed import PENDING, embedded
from minigrad.viz.formula import Formulas, shown
from minigrad.viz.graph import Card, Cluster, Picture, Recorded, picture
from minigrad.viz.render import render

_TITLE = 34  # characters in a line of a title
_LEVELS = 5  # pictures of one graph


@dataclass(frozen=True, eq=False)
class Layout:
    """One picture: what is visible at this level of folding, and its drawing."""

    visible: Picture
    svg: str


def layouts(recorded: Recorded, formulas: Formulas) -> list[Layout]:
    """The pictures of ``recorded``, from all open to all folded, without repetitions.

    Raises:
        RenderError: there is no renderer, or it failed.
    """
    pictures = _levels(recorded)
    with ThreadPoolExecutor(2) as pool:  # each waits for a process of its own
        texts = [skeleton(visible, formulas) for visible in pictures]
        drawn = list(pool.map(lambda text: render(text, "svg").decode(), texts))
    return [Layout(v, embedded(svg)) for v, svg in zip(pictures, drawn, strict=True)]


def _levels(recorded: Recorded) -> list[Picture]:
    full = picture(recorded)
    found = [full]
    for depth in reversed(range(_depth(full))):
        coarse = picture(recorded, depth)
        if len(coarse.cards) < len(found[-1].cards):
            found.append(coarse)
    return found if len(found) <= _LEVELS else [*found[: _LEVELS - 1], found[-1]]


def _depth(visible: Picture) -> int:
    depth, level = 0, visible.top.clusters
    while level:
        depth, level = depth + 1, [inner for cluster in level for inner in cluster.clusters]
    return depth


def skeleton(visible: Picture, formulas: Formulas) -> str:
    """The DOT text of a picture of small cards; ids tell cards, edges and clusters apart."""
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
    lines += _body(visible.top, formulas)
    for i, (edge, weight) in enumerate(zip(visible.edges, weights or repeat(1), strict=False)):
        lines.append(f'  {edge.tail.id} -> {edge.head.id} [id="edge{i}" weight={weight}];')
    return "\n".join([*lines, "}", ""])


def _body(top: Cluster, formulas: Formulas) -> list[str]:
    """Cards and clusters; a stack instead of recursion, as scopes may nest deep."""
    lines: list[str] = []
    stack: list[tuple[Cluster, bool]] = [(top, False)]
    while stack:
        cluster, closing = stack.pop()
        if closing:
            lines.append("}")
            continue
        if cluster.scope is not None:
            name = escaped(shown(cluster.scope.name))
            lines.append(f'subgraph {cluster.id} {{ graph [label=<<B>{name}</B>> labeljust=l '
                         'style="rounded,filled" fillcolor="#eeeeee" margin=5];')  # fmt: skip
            stack.append((cluster, True))
        for card in cluster.cards:
            lines.append(f'  {card.id} [id="{card.id}" label=<{_card(card, formulas)}>];')
        stack += [(inner, False) for inner in reversed(cluster.clusters)]
    return lines


def _card(card: Card, formulas: Formulas) -> str:
    rows = [f'<TR><TD ALIGN="LEFT"><B>{line}</B></TD></TR>' for line in _title(card, formulas)]
    about = f'<FONT POINT-SIZE="12">{escaped(_about(card))} </FONT>'
    if card.kind != "gap" and any(node.requires_grad for node in card.outputs):
        about += f'<FONT POINT-SIZE="12">{PENDING}</FONT>'
    rows.append(f'<TR><TD ALIGN="LEFT">{about}</TD></TR>')
    return (f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2" '
            f'BGCOLOR="white">{"".join(rows)}</TABLE>')  # fmt: skip


def title(card: Card, formulas: Formulas) -> str:
    """What a card is called: a formula, or a folded scope as if it were one call."""
    if card.kind == "gap":
        return gap_lines(card)[0]
    if card.kind in ("scope", "leaves"):
        return formulas.title_of_scope(card)
    return formulas.title(card.outputs[0])


def _title(card: Card, formulas: Formulas) -> list[str]:
    mark = "▸ " if card.kind in ("scope", "gap", "leaves") else ""
    return wrapped(mark + title(card, formulas), _TITLE)


def _about(card: Card) -> str:
    if card.kind == "gap":
        return "".join(gap_lines(card)[1:])
    if card.kind == "leaves":
        return ""
    shape = str(tuple(card.outputs[0].value.shape)) if card.outputs else ""
    if card.kind == "scope":
        return f"{card.ops:,} {'op' if card.ops == 1 else 'ops'} → {shape}"
    leaf = " leaf" if card.outputs[0].requires_grad else " constant"
    return shape + ("" if card.kind == "op" else leaf)
