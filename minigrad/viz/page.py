"""The stepper: a trace as one HTML file that needs nothing else."""

import hashlib
import json
import os
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from minigrad import files
from minigrad.core.node import Box
from minigrad.errors import UsageError, facts
from minigrad.viz.badge import Verdicts
from minigrad.viz.formula import Formulas
from minigrad.viz.grid import Grid, grid
from minigrad.viz.latex import marked, mathml, plain, warn_of_faults
from minigrad.viz.record import checksum
from minigrad.viz.skeleton import Layout, layouts, title
from minigrad.viz.story import Figure, Formula, Line, Row, Story, overview, shape_and_dtype, tell
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
    path: str | os.PathLike | None = None,
    *,
    seed: Any = None,
    verdicts: Verdicts | None = None,
) -> Any:
    """Write a page that steps through computing ``y`` and pulling a cotangent back from it.

    One file: no network, no other files. In a notebook leave ``path`` out and the cell shows it.

    Args:
        y: a result whose graph was recorded.
        path: the file to write; None returns the page instead.
        seed, verdicts: as in ``trace``.

    Returns:
        ``path``, or a ``Page``.

    Raises:
        UsageError: a path that does not end in .html. GraphError: nothing was recorded.
        SeedError: no seed for a ``y`` that is not a scalar.
        Warning: the formula of an op is no LaTeX; the page shows it as it was written, marked.
        RenderError: no Graphviz here to lay out the picture, or it took more than 20 s.
    """
    path = None if path is None else Path(path)
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
    formulas = Formulas(trace.recorded)
    drawn = layouts(trace.recorded, formulas)
    view = _View(trace, drawn, formulas)
    style, script = _asset("stepper.css"), _asset("stepper.js")
    name = f"{trace.values[-1].title}, step by step"
    return Template(_asset("stepper.html")).substitute(
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        title=escape(name),
        style=style,
        script=script,
        steps=len(trace),
        pictures="".join(f'<div class="picture">{layout.svg}</div>' for layout in drawn),
        formulas="".join(f"<div>{_formula(latex)}</div>" for latex in view.formulas),
        data=_inert(json.dumps(view.data, separators=(",", ":"))),
    )


def _asset(name: str) -> str:
    return (resources.files("minigrad.viz") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _inert(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _formula(latex: str) -> str:
    wrong = marked(latex)
    return (not wrong and mathml(latex)) or f"<span>{escape(wrong or plain(latex))}</span>"


class _View:
    """What the script reads: stories, grids, formulas, and for each level who shows what when."""

    def __init__(self, trace: Trace, drawn: list[Layout], formulas: Formulas):
        self.trace, self.names = trace, formulas
        self.place = {node: i for i, node in enumerate(trace.nodes)}
        self.formulas: dict[str, int] = {}
        self.grids: list[dict] = []
        self._known: dict[str, int] = {}
        self.stories = [self._story(tell(trace, i)) for i in range(len(trace))]
        self.moments = _Moments(trace)
        levels = [self._level(i, layout) for i, layout in enumerate(drawn)]
        if levels[0]["units"]:  # a picture that folded by itself still has a step for every op
            levels.insert(0, {**levels[0], "units": []})
        self.data = {
            "steps": [[s.value] if s.into is None else [s.value, s.into] for s in trace.steps],
            "seed": self.moments.seed,
            "inputs": [[x for x in v.inputs if isinstance(x, int)] for v in trace.values],
            "grids": self.grids,
            "stories": self.stories,
            "levels": levels,
        }

    def _level(self, picture: int, layout: Layout) -> dict[str, Any]:
        cards = layout.visible.cards
        card_of = {self.place[node]: i for i, card in enumerate(cards) for node in card.members}
        folded = {i for i, card in enumerate(cards) if card.kind in ("scope", "gap")}
        return {
            "picture": picture,
            "cards": [card_of[i] for i in range(len(self.trace.values))],
            "marks": [self.moments.of_card(self._places(card.members), self._places(card.outputs))
                      for card in cards],
            "edges": [self.moments.of_uses((self.place[node], i) for node, i in edge.uses)
                      for edge in layout.visible.edges],
            "units": [self._unit(run, cards[card]) for run, card in self._runs(card_of)
                      if card in folded],
        }  # fmt: skip

    def _runs(self, card_of: dict[int, int]) -> list[tuple[list[int], int]]:
        """Steps of one kind that follow each other inside one card."""
        runs: list[tuple[list[int], int]] = []
        kind = ""
        for i, s in enumerate(self.trace.steps):
            card = card_of[s.value]
            if runs and kind == s.kind != "seed" and runs[-1][1] == card:
                runs[-1][0].append(i)
            else:
                runs.append(([i], card))
            kind = s.kind
        return [(run, card) for run, card in runs if self.trace.steps[run[0]].kind != "seed"]

    def _unit(self, run: list[int], card: Any) -> list[int]:
        members = set(self._places(card.members))
        self.stories.append(
            self._story(overview(self.trace, run, title(card, self.names), members))
        )
        return [run[0], run[-1], len(self.stories) - 1]

    def _places(self, nodes: Iterable[Any]) -> list[int]:
        return [self.place[node] for node in nodes]

    def _story(self, story: Story) -> dict[str, Any]:
        blocks = [self._block(block) for block in story.blocks]
        return {"k": story.kind, "t": story.title, "w": story.where, "y": story.say, "b": blocks}

    def _block(self, block: Any) -> list[Any]:
        if isinstance(block, Formula):
            n = self.formulas.setdefault(block.latex, len(self.formulas))
            return ["f", n, block.legend] if block.legend else ["f", n]
        if isinstance(block, Line):
            return [{"numbers": "n", "note": "o", "wrong": "w"}[block.kind], block.text]
        assert isinstance(block, Row)
        return ["r", [self._figure(x) if isinstance(x, Figure) else x for x in block.items]]

    def _figure(self, figure: Figure) -> list[Any]:
        key = checksum(figure.array)
        if key not in self._known:
            self._known[key] = len(self.grids)
            self.grids.append({"s": shape_and_dtype(figure.array), **_grid(grid(figure.array))})
        return [figure.caption, self._known[key], figure.role]


class _Moments:
    """When a value is computed, when cotangents reach it, and when its op pulls one back."""

    def __init__(self, trace: Trace):
        n = len(trace.values)
        self.computed = [-1] * n
        self.reached: list[list[int]] = [[] for _ in range(n)]
        self.pulled: list[list[int]] = [[] for _ in range(n)]
        self.passed: dict[tuple[int, int | None], int] = {}
        self.seed = self.root = 0
        for i, s in enumerate(trace.steps):
            if s.kind == "forward":
                self.computed[s.value] = i
            elif s.kind == "seed":
                self.seed, self.root = i, s.value
                self.reached[s.value].append(i)
            else:
                self.pulled[s.value].append(i)
                self.reached[s.into or 0].append(i)
                self.passed[s.value, s.input] = i

    def of_card(self, members: list[int], outputs: list[int]) -> dict[str, Any]:
        pulled = sorted(i for place in members for i in self.pulled[place])
        reached = sorted(i for place in outputs for i in self.reached[place])
        mark = {
            "d": max(self.computed[place] for place in members),
            "b": pulled[0] if pulled else -1,
            "g": reached,
            "o": len(outputs),
        }
        return {**mark, "s": 1} if self.root in outputs else mark

    def of_uses(self, uses: Iterable[tuple[int, int]]) -> dict[str, list[int]]:
        uses = list(uses)
        back = sorted(self.passed[use] for use in uses if use in self.passed)
        return {"f": sorted({self.computed[place] for place, _ in uses}), "b": back}


def _grid(numbers: Grid) -> dict[str, Any]:
    """A grid as strings: the cells of a row, and a letter for the colour of each."""
    return {
        "r": [" ".join(cell.text for cell in row) for row in numbers.rows],
        "l": ["".join("x" if cell.odd else chr(ord("j") + cell.level) for cell in row)
              for row in numbers.rows],
        "f": numbers.facts,
        "n": numbers.note,
        "m": numbers.more,
    }  # fmt: skip
