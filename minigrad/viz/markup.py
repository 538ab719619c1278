"""The HTML-like markup of labels in DOT text: tables, fonts and heat maps."""

from html import escape

from minigrad.viz.grid import Cell, Grid

_MONO = "Courier New,Courier,monospace"  # 0.6 em wide in every substitute: nothing is clipped
# Font sizes in points. Graphviz rounds the width of every letter to whole pixels, which changes
# them least at 11; POINT-SIZE takes only whole numbers.
SIZE, _NUMBER_SIZE = 11, 12
_GREY, LINE, _FAINT = "#555555", "#8a8f98", "#d0d4da"


def block(caption: str, numbers: Grid) -> str:
    """A caption, the statistics if any, and the heat map."""
    parts = [small(caption)]
    if numbers.facts:
        labels = "".join(td(small(label)) for label, _ in numbers.facts)
        cells = "".join(td(mono(number)) for _, number in numbers.facts)
        parts.append(table(f"<TR>{labels}</TR><TR>{cells}</TR>"))
    if numbers.note:
        parts.append(small(numbers.note))
    if numbers.rows:
        parts.append(table("".join(_heat_map(numbers)), f'COLOR="{_FAINT}"'))
    return captioned(*parts)


def _heat_map(numbers: Grid) -> list[str]:
    below, beside = numbers.more
    rows = []
    for row in numbers.rows:
        cells = [_number_cell(cell) for cell in row] + [td("…")] * bool(beside)
        rows.append(f"<TR>{''.join(cells)}</TR>")
    if below:
        rows.append(f"<TR>{td('…') * len(numbers.rows[0])}</TR>")
    return rows


def _number_cell(cell: Cell) -> str:
    text = f'<FONT COLOR="#ffffff">{mono(cell.text)}</FONT>' if cell.odd else mono(cell.text)
    return f'<TD BORDER="1" ALIGN="RIGHT" BGCOLOR="{cell.color}">{text}</TD>'


def captioned(*parts: str) -> str:
    """``parts`` below each other."""
    return table("".join(map(tr, parts)))


def table(
    rows: str,
    color: str = f'COLOR="{LINE}"',
    *,
    border: int = 0,
    spacing: int = 0,
    padding: int = 2,
) -> str:
    return (
        f'<TABLE BORDER="{border}" CELLBORDER="0" CELLSPACING="{spacing}" CELLPADDING="{padding}" '
        f"{color}>{rows}</TABLE>"
    )


def tr(content: str, attributes: str = "") -> str:
    """A row of one cell."""
    return f'<TR><TD ALIGN="LEFT"{" " if attributes else ""}{attributes}>{content}</TD></TR>'


def td(content: str) -> str:
    return f'<TD ALIGN="RIGHT">{content}</TD>'


def small(text: str) -> str:
    return f'<FONT POINT-SIZE="{SIZE}" COLOR="{_GREY}">{escaped(text)}</FONT>'


def mono(text: str) -> str:
    return f'<FONT FACE="{_MONO}" POINT-SIZE="{_NUMBER_SIZE}">{escaped(text)}</FONT>'


def bold(text: str) -> str:
    return f"<B>{escaped(text)}</B>"


def escaped(text: str) -> str:
    """``text`` for an HTML-like label, where Graphviz would replace ``\\N`` by the node's name."""
    return escape(text, quote=True).replace("\\", "&#92;&#92;")


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in escaped lines of about ``width`` characters at most, if spaces allow that."""
    lines, rest = [], text
    while len(rest) > width and (cut := rest.rfind(" ", width // 2, width)) > 0:
        lines.append(rest[:cut])
        rest = "  " + rest[cut + 1 :]
    return [escaped(line) for line in [*lines, rest]]
