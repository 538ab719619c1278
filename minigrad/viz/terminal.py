"""The stepper in a terminal: a key press moves a step. Without a terminal all steps are printed."""

import os
import shutil
import sys
from collections.abc import Iterator
from itertools import chain, zip_longest
from textwrap import wrap
from typing import Any, TextIO
from unicodedata import east_asian_width

from minigrad.core.node import Box
from minigrad.viz.badge import Verdicts
from minigrad.viz.grid import grid
from minigrad.viz.keys import Keys
from minigrad.viz.latex import marked, plain, warn_of_faults
from minigrad.viz.story import Figure, Formula, Row, Story, shape_and_dtype, tell
from minigrad.viz.trace import Trace, trace

_WIDTH = 96  # columns for figures side by side, where no terminal tells its width
_INDENT = 2
_FILLER = "\0"  # behind a wide character where lengths count columns; no name holds it
_CLEAR = "\x1b[2J\x1b[H"
_COLORS = {"forward": "\x1b[1;34m", "seed": "\x1b[1;35m", "backward": "\x1b[1;31m"}
_HINT = "→ next   ← back   b seed   Home first   End last   q quit"
_SCROLL_HINT = "↑ ↓ scroll   "
_SCROLL = {"up": -1, "k": -1, "down": 1, "j": 1}


def walk(
    y: Box,
    *,
    seed: Any = None,
    verdicts: Verdicts | None = None,
    out: Any = None,
    keys: Any = None,
) -> None:
    """Step through computing ``y`` and pulling a cotangent back from it, in the terminal.

    Right, l, Space or Enter: next step; Left or h: back; Home, End; b: to the seed; q or Esc: quit.
    Up and Down, or k and j, scroll a step that is taller than the terminal. If
    ``out`` or ``keys`` is not a terminal, all steps are printed at once, without colour.

    Args:
        y: a result whose graph was recorded.
        seed, verdicts: as in ``trace``.
        out: where to print; None means ``sys.stdout``.
        keys: where to read keys; None means ``sys.stdin``.
    """
    steps = trace(y, seed, verdicts=verdicts)
    warn_of_faults(value.op for value in steps.values if value.op)
    out = sys.stdout if out is None else out
    keys = sys.stdin if keys is None else keys
    if not (out.isatty() and keys.isatty()):
        out.writelines(f"{line}\n" for line in lines(steps))
        return
    colored = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    with Keys(keys) as pressed:
        _interact(steps, out, pressed, colored)


def lines(steps: Trace) -> Iterator[str]:
    """All steps as text."""
    for i in range(len(steps)):
        yield from step_lines(steps, i)
        yield ""


def step_lines(steps: Trace, i: int, width: int = _WIDTH) -> list[str]:
    """Step ``i`` (from 0) as text; its second line is its title."""
    story = tell(steps.steps[i])
    where = " › ".join([story.kind, *story.where])
    head = f"step {i + 1} of {len(steps)} · {where}"
    return [head, story.title, *_body(story, width)]


def _interact(steps: Trace, out: TextIO, pressed: Iterator[str], colored: bool) -> None:
    i = top = 0  # the step, and the first line of its body that is shown
    moves = _moves(steps)
    while True:
        color, end = (_COLORS[steps.steps[i].kind], "\x1b[0m") if colored else ("", "")
        columns, rows = shutil.get_terminal_size((_WIDTH + _INDENT, 24))
        text = [_wrapped(line, columns) for line in step_lines(steps, i, columns - _INDENT)]
        title = [*text[0], *(f"{color}{line}{end}" for line in text[1])]
        body = [*chain.from_iterable(text[2:])]
        hint = _wrapped(_SCROLL_HINT + _HINT, columns)
        room = max(1, rows - len(title) - len(hint) - 2)  # also an empty line and the cursor
        top = max(0, min(top, len(body) - room))
        if len(body) <= room:
            hint = _wrapped(_HINT, columns)
        out.write(_CLEAR + "\n".join([*title, *body[top : top + room], "", *hint, ""]))
        out.flush()
        key = next(pressed, "q")
        if key in ("q", "escape"):
            return
        top = top + _SCROLL[key] if key in _SCROLL else 0
        i = max(0, min(len(steps) - 1, moves.get(key, lambda at: at)(i)))


def _wrapped(line: str, columns: int) -> list[str]:
    """``line`` as the terminal shows it: a line wider than that would push the title off."""
    rest, filled = 2 * _INDENT * " ", _filled(line)
    room = columns - (filled != line)  # a line may end between a wide character and its filler
    parts = wrap(filled, room, subsequent_indent=rest, break_on_hyphens=False) or [line]
    return [part.replace(_FILLER, "") for part in parts]


def _filled(text: str) -> str:
    """``text`` as long as it is wide: with a filler after each character of two columns."""
    return "".join(c + _FILLER * (east_asian_width(c) in "WF") for c in text)


def _moves(steps: Trace) -> dict[str, Any]:
    seed = next(i for i, step in enumerate(steps.steps) if step.kind == "seed")
    return {
        **dict.fromkeys(("right", "l", " ", "enter"), lambda i: i + 1),
        **dict.fromkeys(("left", "h"), lambda i: i - 1),
        "home": lambda i: 0,
        "end": lambda i: len(steps) - 1,
        "b": lambda i: seed,
    }


def _body(story: Story, width: int) -> Iterator[str]:
    for block in story.blocks:
        if isinstance(block, Formula):
            text = marked(block.latex) or plain(block.latex)
            yield f"  {text}" + f"    with {block.legend}" * bool(block.legend)
        elif isinstance(block, Row):
            for line in _beside(block.items, width):
                yield f"  {line}".rstrip().replace(_FILLER, "")
        else:
            yield f"  {block.text}"


def _beside(items: list[Figure | str], width: int) -> Iterator[str]:
    """Figures and signs side by side, as many in a line as fit into ``width`` columns."""
    line: list[list[str]] = []
    for item in items:
        column = _figure(item) if isinstance(item, Figure) else ["", item]
        if line and sum(map(_width, [*line, column])) > width:
            yield from _joined(line)
            line = []
        line.append(column)
    yield from _joined(line)


def _width(column: list[str]) -> int:
    return max(map(len, column)) + 2


def _joined(columns: list[list[str]]) -> Iterator[str]:
    widths = [_width(column) for column in columns]
    for cells in zip_longest(*columns, fillvalue=""):
        yield "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def _figure(figure: Figure) -> list[str]:
    """The caption, the statistics if any, and the numbers in columns."""
    numbers = grid(figure.array)
    text = [_filled(f"{figure.caption} {shape_and_dtype(figure.array)}")]
    if numbers.facts or numbers.note:
        facts = [numbers.note, *(f"{name} {number}" for name, number in numbers.facts)]
        text.append("  ".join(filter(None, facts)))
    width = max((len(cell.text) for row in numbers.rows for cell in row), default=0)
    more = "  …" if numbers.more[1] else ""
    for row in numbers.rows:
        text.append("  ".join(cell.text.rjust(width) for cell in row) + more)
    return [*text, "…"] if numbers.more[0] else text
