"""The cells of a demo, and running them in this process."""

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, TextIO

from minigrad.demo.finding import listed
from minigrad.demo.runs import PLAYED, Run
from minigrad.demo.style import style_restored
from minigrad.errors import UsageError, facts


@dataclass(frozen=True)
class Cell:
    """One ``# %%`` cell.

    Attributes:
        title: the text after ``# %%``; empty for the lines before the first ``# %%``.
        prose: the comment lines below the title, without their ``#``.
        code: the remaining lines.
        line: the line number of the first line of ``code``, from 1.
    """

    title: str
    prose: str
    code: str
    line: int


def cells(path: str | Path) -> list[Cell]:
    """The cells of a demo; the first holds its docstring and has no title."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    marks = [i for i, line in enumerate(lines) if line.startswith("# %%")] + [len(lines)]
    parts = [Cell("", "", "\n".join(lines[: marks[0]]), 1)]
    for i, j in pairwise(marks):
        prose = list(takewhile(lambda line: line.startswith("#"), lines[i + 1 : j]))
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in prose)
        first = i + 1 + len(prose)
        title = lines[i].removeprefix("# %%").strip()
        parts.append(Cell(title, text, "\n".join(lines[first:j]), first + 1))
    return parts


def play(
    path: str | Path,
    *,
    fast: bool = False,
    seed: int = 0,
    out: str | Path = "out",
    around: Callable[[Cell, dict], contextlib.AbstractContextManager] | None = None,
) -> Run:
    """Run all cells of a demo in one fresh namespace.

    Args:
        path: the demo's file.
        fast, seed, out: its options.
        around: function of a cell and the namespace, whose context manager each cell runs in.

    Returns:
        The demo's Run.

    Raises:
        UsageError: the demo did not call ``start``.
    """
    return _played(Path(path), Run("", fast, seed, Path(out)), around)


def _played(
    path: Path,
    run: Run,
    around: Callable[[Cell, dict], contextlib.AbstractContextManager] | None = None,
) -> Run:
    namespace = run.variables
    namespace |= {"__name__": "__main__", "__file__": str(path), PLAYED: run}
    with style_restored():
        for cell in cells(path):
            # blank lines in front, so that tracebacks have the line numbers of the file
            code = compile("\n" * (cell.line - 1) + cell.code, str(path), "exec")
            copy: Any = _Copy(sys.stdout)
            outer = around(cell, namespace) if around else contextlib.nullcontext()
            with outer, contextlib.redirect_stdout(copy):
                exec(code, namespace)
            run.printed.append(copy.text().replace(run.folder.as_posix(), "out"))
    if not run.claim:
        raise UsageError(f"{path.name}: no cell calls run = demo.start(__doc__)")
    return run


def run_with_graph(path: str | Path, *, seed: int = 0) -> Run:
    """The run of a demo that shows a graph; the demo is played silently, in its fast size.

    Raises:
        UsageError: the demo does not set ``run.graph``.
    """
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        run = _played(Path(path), _Undrawn("", fast=True, seed=seed, folder=Path(out)))
    if run.graph is None:
        headline, expected = f"demo {Path(path).stem}", "a demo that shows a graph (run.graph = y)"
        others = [p.stem for p in listed() if "run.graph =" in p.read_text(encoding="utf-8")]
        remedy = f"one of {', '.join(others)}"
        raise UsageError(facts(headline, expected=expected, got="no graph", remedy=remedy))
    return run


class _Undrawn(Run):
    """A run whose pictures nobody asked for: they may need a renderer that is not there."""

    def save(self, name: str, picture: Any) -> Path:
        return self.folder / name


class _Copy:
    """A stream that keeps a copy of the text; no ``io`` base, which would flush when collected."""

    def __init__(self, stream: TextIO):
        self._stream, self._parts = stream, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._parts.append(text)
        return self._stream.write(text)

    def text(self) -> str:
        return "".join(self._parts)
