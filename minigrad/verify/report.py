"""The outcome of a check: rows that were compared, findings that failed, notes on the rest.

Verdicts, of a row and of a report:

* PROVEN: nothing is wrong, and some expected value differs from 0 by more than rounding. An
  element at a kink counts, too; so does a 0 that both ways find at random points of ``check_op``,
* WRONG: an element is out of bounds, or a backward pass violates its contract,
* VACUOUS: nothing is wrong, but a wrong rule might pass, as no value of this kind was compared.
"""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from html import escape
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from minigrad import streams
from minigrad.errors import VerificationError

_MAX_COLUMNS = 100
_WIDE = 60  # columns, enough for the numbers of a table and some letters of the other cells


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or (in ``Report.notes``) could not be judged.

    Attributes:
        kind: ``"value"``, ``"shape"``, ``"dtype"``, ``"state"``, ``"aliasing"``, ``"purity"``,
            ``"nondeterminism"``, ``"precision"``, ``"domain"``, ``"error"``; in notes
            ``"kink"``, ``"undefined"``, ``"refused"``, ``"vacuous"``, ``"directions"``,
            ``"retained"``, ``"scratch"``, ``"shapes"``.
        input: the name of the input whose cotangent it is, or None.
        index: the worst element of that cotangent.
        expected, got, bound: the numbers there.
        message: a sentence with all of this and the likely cause.
        cause: the likely cause alone; empty if none is found.
        label: the probe of a campaign that showed it.
    """

    kind: str
    input: str | None = None
    index: tuple[int, ...] | Any = None
    expected: float | Any = None
    got: float | Any = None
    bound: float | Any = None
    message: str = ""
    cause: str = ""
    label: str = ""


@dataclass(frozen=True)
class Row:
    """One comparison at its worst element: ``error`` may not exceed ``bound``."""

    input: str
    pair: str
    error: float
    bound: float
    ok: bool
    index: tuple[int, ...] = ()
    verdict: str = ""  # "proven", "WRONG", "VACUOUS"

    @property
    def telling(self) -> tuple[bool, bool, float]:
        """A sort key: the last row tells most."""
        excess = self.error / self.bound if self.bound else self.error
        return not self.ok, self.verdict != "VACUOUS", excess


@dataclass
class Report:
    """The outcome of a check. ``ok`` only if something was proven and nothing was found wrong.

    ``ops`` are the reports of ``check_graph`` on the single ops of a recorded graph, by node.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    ops: "dict[Any, Report]" = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether something was proven and nothing found wrong; some rows may be VACUOUS."""
        proven = any(row.verdict == "proven" for row in self.rows)
        return proven and not self.findings and all(row.ok for row in self.rows)

    @property
    def verdict(self) -> str:
        """``"PROVEN"``, ``"WRONG"``, or ``"VACUOUS"``: nothing compared, or nothing proven."""
        if self.ok:
            return "PROVEN"
        return "WRONG" if self.findings or any(not row.ok for row in self.rows) else "VACUOUS"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for ``json.dumps``; nan and infinities are strings."""
        document = {
            **self.facts,
            "title": self.title,
            "verdict": self.verdict,
            "ok": self.ok,
            "rows": [asdict(row) for row in self.rows],
            "findings": [asdict(finding) for finding in self.findings],
            "notes": [asdict(note) for note in self.notes],
        }
        return _finite(document)

    def raise_if_failed(self) -> "Report":
        """Return self, or raise VerificationError with the whole report."""
        __tracebackhide__ = True  # pytest ends the traceback at the caller
        if not self.ok:
            raise VerificationError(str(self))
        return self

    def __repr__(self) -> str:  # a prompt shows the same as `print`
        text = _Text()
        # by default, in a notebook, rich displays the table by itself and writes nothing
        Console(file=text, width=columns(), color_system=None, force_jupyter=False).print(self)
        return text.getvalue().rstrip()

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        def line(text: str) -> Any:
            return console.render_str(text, markup=False, emoji=False)  # names may have brackets

        proven = {row.input for row in self.rows if row.verdict == "proven"}
        vacuous = dict.fromkeys(row.input for row in self.rows if row.input not in proven)
        but = f", but VACUOUS for {', '.join(vacuous)}" if self.ok and vacuous else ""
        yield line(f"{self.title}: {self.verdict}{but}")
        if self.rows:
            table = self._table(options.max_width)
            wide = console.measure(table, options=options.update(max_width=_MAX_COLUMNS))
            if wide.maximum > options.max_width:
                table.padding = 0
            yield table
        if self.rows and self.verdict == "VACUOUS":
            yield line("every cotangent is 0 here, up to rounding: this proves nothing")
        for finding in self.findings:
            yield line(f"{'x' if options.ascii_only else '✗'} {finding.message}")
        for note in self.notes:
            yield line(f"{'-' if options.ascii_only else '·'} {note.message}")

    def _table(self, width: int) -> Table:
        table = folding("input", "pair", "error", "at index", "bound", "verdict")
        for column in table.columns:  # 2.27e-1 above 3 would be read as 0.227
            column.no_wrap = width >= _WIDE and column.header in ("error", "bound", "verdict")
        for row in self.rows:
            index = str(list(row.index)) if row.index else "-"
            error, bound = f"{row.error:.2e}", f"{row.bound:.2e}"
            cells = Text(row.input), row.pair, error, index, bound, row.verdict
            table.add_row(*cells, style=None if row.ok else "bold")
        return table

    def _repr_html_(self) -> str:
        # Jupyter breaks lines, and in an exported notebook the font is proportional
        style = "font-family: monospace; line-height: normal; white-space: pre; overflow-x: auto"
        return f'<pre style="{style}">{escape(str(self))}</pre>'


class _Text(StringIO):
    """Text with the encoding of the terminal, so that rich draws lines in ASCII where needed."""

    @property
    def encoding(self) -> str:
        return getattr(sys.stdout, "encoding", None) or "utf-8"


def columns() -> int:
    """The width of a report: that of the terminal, at most 100; 100 if there is none.

    The variable ``COLUMNS`` counts as a terminal.
    """
    return min(streams.columns(), _MAX_COLUMNS)


def folding(*heads: str) -> Table:
    """A table with these heads, whose cells are folded on a narrow terminal, not cut."""
    return Table(*(Column(head, overflow="fold") for head in heads))


def to_json(document: dict) -> str:
    """``document`` as indented JSON."""
    return json.dumps(document, indent=2, allow_nan=False)


def _finite(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {key: _finite(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [_finite(item) for item in thing]
    return str(thing) if isinstance(thing, float) and not math.isfinite(thing) else thing
