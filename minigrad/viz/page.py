"""The stepper: a trace as one HTML file that loads nothing else.

Stories and pictures are made here; ``stepper.js`` only shows the ones of the current step.
"""

import hashlib
import json
import os
from base64 import b64encode
from collections import defaultdict
from html import escape
from importlib import resources
from itertools import chain, groupby
from string import Template
from typing import Any

from minigrad import files
from minigrad.core.node import Box, Node
from minigrad.errors import UsageError, facts
from minigrad.viz.badge import Verdicts
from minigrad.viz.document import Distinct
from minigrad.viz.fold import Card, Edge
from minigrad.viz.grid import Grid, grid
from minigrad.viz.latex import marked, mathml, plain, warn_of_faults
from minigrad.viz.skeleton import Layout, layouts
from minigrad.viz.story import Block, Figure, Formula, Line, Story, overview, shape_and_dtype, tell
from minigrad.viz.title import title
from minigrad.viz.trace import Trace, trace

_HEIGHT = 760  # pixels of the frame in a notebook


class Page:
    """The HTML of a stepper; a notebook shows it in a frame of its own."""

    def __init__(self, html: str):
        self.html = html

    def __repr__(self) -> str:
        return f"<page of {len(self.html):,} characters>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="allow-scripts" '
            f'style="width:100%;height:{_HEIGHT}px;border:1px solid #8888"></iframe>'
        )


def step(
    y: Box,
    path: str | os.PathLike[str] | None = None,
    *,
    seed: Any = None,
    verdicts: Verdicts | None = None,
) -> Any:
    """Write a page that steps through computing ``y`` and pulling a cotangent back from it.

    The page is one file and uses no network. In a notebook, leave ``path`` out: the cell shows it.

    Args:
        y: a result whose graph was recorded.
        path: the file to write; None returns the page instead.
        seed, verdicts: as in ``trace``.

    Returns:
        ``path``, or a ``Page``.

    Raises:
        UsageError: a path that does not end in .html. GraphError: nothing was recorded.
        SeedError: no seed for a ``y`` that is not a scalar.
        Warning: the formula of an op is not valid LaTeX; the page shows its source, marked.
        RenderError: no Graphviz here to lay out the picture, or it took more than 20 s.
    """
    path = None if path is None else files.as_path("step: path", path)
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        expected = "a file name that ends in .html"
        raise UsageError(facts("step: path", expected=expected, got=path.name))
    steps = trace(y, seed, verdicts=verdicts)
    warn_of_faults(value.op for value in steps.values if value.op)
    html = page(steps)
    if path is None:
        return Page(html)
    files.write(path, html)
    return path


def page(trace: Trace) -> str:
    """The HTML of the stepper through ``trace``; the same text every time."""
    drawn = layouts(trace.formulas)
    view = _View(trace, drawn)
    style, script = _asset("stepper.css"), _asset("stepper.js")
    name = f"{trace.values[-1].title}, step by step"
    return Template(_asset("stepper.html")).substitute(
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        title=escape(name),
        style=style,
        script=script,
        steps=len(trace),
        pictures="".join(f'<div class="picture">{layout.svg}</div>' for layout in drawn),
        formulas="".join(f"<div>{_formula(latex)}</div>" for latex in view.latex),
        data=_inert(json.dumps(view.data, separators=(",", ":"))),
    )


def _asset(name: str) -> str:
    return (resources.files("minigrad.viz") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _inert(text: str) -> str:
    """JSON ``text`` that cannot end the script element around it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _formula(latex: str) -> str:
    wrong = marked(latex)
    if not wrong and (element := mathml(latex)):
        return element
    return f"<span>{escape(wrong or plain(latex))}</span>"


class _View:
    """``data``: the JSON for ``stepper.js``, with keys of one letter where they repeat often.

    steps: for each step its value and, if a cotangent passes, the value into which it goes.
    seed: the step that seeds the sweep.
    inputs: for each value the values that its op uses.
    grids: the distinct arrays; see ``_figure`` and ``_grid``.
    stories: kind (k), title (t), scopes (w), sentence (y) and blocks (b), for each step and unit.
    levels: for each level of folding its picture; the card of each value; the marks of cards and
        edges, see ``_Moments``; and the units, [first step, last step, story]: runs of steps inside
        a folded card, which are stepped over at once.
    """

    def __init__(self, trace: Trace, drawn: list[Layout]):
        self.trace = trace
        self.latex: dict[str, int] = {}
        self.grids = Distinct(lambda array, _: {"s": shape_and_dtype(array), **_grid(grid(array))})
        self.stories = [self._story(tell(step)) for step in trace.steps]
        self.moments = _Moments(trace)
        levels = [self._level(i, layout) for i, layout in enumerate(drawn)]
        if levels[0]["units"]:  # even if the picture had to fold, there is a step for every op
            levels.insert(0, {**levels[0], "units": []})
        position = {value: i for i, value in enumerate(trace.values)}
        self.data = {
            "steps": [[position[x] for x in (s.value, s.into) if x] for s in trace.steps],
            "seed": self.moments.seed,
            "inputs": [[position[x] for x in value.inputs if x.node] for value in trace.values],
            "grids": self.grids.table,
            "stories": self.stories,
            "levels": levels,
        }

    def _level(self, picture: int, layout: Layout) -> dict[str, Any]:
        cards = layout.visible.cards
        card_of = {node: n for n, card in enumerate(cards) for node in card.members}
        steps = self.trace.steps
        runs = groupby(range(len(steps)), lambda i: (steps[i].kind, card_of[steps[i].value.node]))
        return {
            "picture": picture,
            "cards": [card_of[value.node] for value in self.trace.values],
            "marks": [self.moments.of_card(card) for card in cards],
            "edges": [self.moments.of_edge(edge) for edge in layout.visible.edges],
            "units": [self._unit(list(run), cards[n]) for (kind, n), run in runs
                      if kind != "seed" and cards[n].kind in ("scope", "gap")],
        }  # fmt: skip

    def _unit(self, run: list[int], card: Card) -> list[int]:
        steps = [self.trace.steps[i] for i in run]
        story = overview(card, title(card, self.trace.formulas), steps)
        self.stories.append(self._story(story))
        return [run[0], run[-1], len(self.stories) - 1]

    def _story(self, story: Story) -> dict[str, Any]:
        head = {"k": story.kind, "t": story.title, "w": story.where, "y": story.sentence}
        return {**head, "b": [self._block(block) for block in story.blocks]}

    def _block(self, block: Block) -> list[Any]:
        if isinstance(block, Formula):
            n = self.latex.setdefault(block.latex, len(self.latex))
            return ["f", n, block.legend] if block.legend else ["f", n]
        if isinstance(block, Line):
            return [{"numbers": "n", "note": "o", "wrong": "w"}[block.kind], block.text]
        return ["r", [self._figure(x) if isinstance(x, Figure) else x for x in block.items]]

    def _figure(self, figure: Figure) -> list[Any]:
        return [figure.caption, self.grids.position_of(figure.array), figure.role]


class _Moments:
    """The steps at which values are computed and cotangents pass.

    computed: the step that computes a value; none for a leaf.
    reached: the steps that seed the cotangent of a value or add to it.
    pulled: the first step in which the rule of its op runs.
    passed: (node, input of its op) -> the step in which a cotangent passes that input.
    """

    def __init__(self, trace: Trace):
        self.computed: dict[Node, int] = {}
        self.reached: dict[Node, list[int]] = defaultdict(list)
        self.pulled: dict[Node, int] = {}
        self.passed: dict[tuple[Node, int], int] = {}
        self.seed = 0
        for i, step in enumerate(trace.steps):
            if step.kind == "forward":
                self.computed[step.value.node] = i
            elif step.kind == "seed":
                self.seed = i
                self.reached[step.value.node].append(i)
            elif step.into is not None and step.input is not None:
                self.reached[step.into.node].append(i)
                self.pulled.setdefault(step.value.node, i)
                self.passed[step.value.node, step.input] = i

    def of_card(self, card: Card) -> dict[str, Any]:
        """When the card is computed (d), passes a cotangent on first (b), and is reached (g).

        ``o`` is the number of its outputs; ``s`` marks the card of the seed.
        """
        reached = sorted(chain(*(self.reached[output] for output in card.outputs)))
        mark = {
            "d": max(self.computed.get(x, -1) for x in card.members),
            "b": min((self.pulled[x] for x in card.members if x in self.pulled), default=-1),
            "g": reached,
            "o": len(card.outputs),
        }
        return {**mark, "s": 1} if self.seed in reached else mark

    def of_edge(self, edge: Edge) -> dict[str, list[int]]:
        """The steps in which an edge is used forward (f) and passed on the way back (b)."""
        back = sorted(self.passed[use] for use in edge.uses if use in self.passed)
        return {"f": sorted({self.computed[node] for node, _ in edge.uses}), "b": back}


def _grid(numbers: Grid) -> dict[str, Any]:
    """The texts (r) and colours (l) of the cells, a string per row; facts, note, more (f, n, m).

    The letter of a colour is "x" for a number that is not finite, else "a" (-9) to "s" (9).
    """
    return {
        "r": [" ".join(cell.text for cell in row) for row in numbers.rows],
        "l": ["".join("x" if cell.odd else chr(ord("j") + cell.level) for cell in row)
              for row in numbers.rows],
        "f": numbers.facts,
        "n": numbers.note,
        "m": numbers.more,
    }  # fmt: skip
