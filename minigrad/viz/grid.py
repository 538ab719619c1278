"""Numbers as a picture shows them: a small heat map, or statistics and an excerpt."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.backend import to_host

SIDE = 8  # rows and columns of the largest array that is shown whole
_ROWS, _COLUMNS = 3, 4  # of the excerpt of a larger array
_LOW, _HIGH = (0x74, 0xAD, 0xD1), (0xFD, 0xAE, 0x61)  # blue, orange: safe for the colour-blind
_MAX_DIGITS = 7  # of a number without exponent
_DECIMALS = 4  # at most, unless small numbers need more
_PALER = 6.0  # how much paler than the largest number of an array a single number is
ODD = "#222222"  # behind nan and inf
BLANK = "#ececec"  # where there is no number; behind zero it is white
_SPACES = "\u00a0" * 6


@dataclass(frozen=True)
class Cell:
    """One number and the colour behind it; ``odd`` if it is not finite.

    ``level`` is the colour on a scale from -9 (blue) over 0 (none) to 9 (orange).
    """

    text: str
    color: str = "#ffffff"
    odd: bool = False
    level: int = 0


@dataclass(frozen=True)
class Grid:
    """The part of an array that is shown.

    Args:
        rows: cells of the array, or of its first corner.
        facts: statistics of an array that is not shown whole, as (label, number).
        note: such as ``"[0, ...]"`` if the rows are of the first of several planes; or ``"empty"``.
        more: how many (rows, columns) of the matrix or plane are not shown.
    """

    rows: list[list[Cell]]
    facts: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    more: tuple[int, int] = (0, 0)


def grid(array: Any, side: int = SIDE) -> Grid:
    """The whole of an array up to ``side`` x ``side``, else statistics and its first corner."""
    array = np.asarray(to_host(array))
    if not array.size:
        return Grid([], note="empty")
    plane = flat(array)
    if plane is not None and max(plane.shape) <= side:
        # a single number has nothing to be compared with: its colour tells the sign only
        return Grid(_cells(plane, _peak(array) * (1 if array.size > 1 else _PALER)))
    corner = _corner(array)
    part = excerpt(array)
    more = (corner.shape[0] - part.shape[0], corner.shape[1] - part.shape[1])
    note = f"[{'0, ' * (array.ndim - 2)}...]" if array.ndim > 2 else ""
    return Grid(_cells(part, _peak(array)), statistics(array), note, more)


def excerpt(array: np.ndarray) -> np.ndarray:
    """The first corner of the first plane of ``array``."""
    return _corner(array)[:_ROWS, :_COLUMNS]


def _corner(array: np.ndarray) -> np.ndarray:
    return np.atleast_2d(array[(0,) * max(array.ndim - 2, 0)])


def blank(array: Any, side: int = SIDE) -> Grid:
    """The grid of ``array`` without its numbers: the place of a gradient that is missing."""
    full = grid(array, side)
    rows = [[Cell(_SPACES, BLANK) for _ in row] for row in full.rows]
    names = [name for name, _ in full.facts if name not in ("nan", "inf")]
    return Grid(rows, [(name, _SPACES) for name in names], full.note, full.more)


def statistics(array: np.ndarray) -> list[tuple[str, str]]:
    """Minimum, mean, maximum, standard deviation of the finite elements; counts of nan and inf."""
    values = array.astype(np.float64).ravel()
    finite = values[np.isfinite(values)]
    odd = [("nan", int(np.isnan(values).sum())), ("inf", int(np.isinf(values).sum()))]
    facts = [(name, f"{n:,}") for name, n in odd if n]
    if not finite.size:
        return facts
    scale = np.abs(finite).max() or 1.0  # squares of large and of tiny numbers stay in range
    unit = finite / scale
    pairs = ("min", unit.min()), ("mean", unit.mean()), ("max", unit.max()), ("std", unit.std())
    return [(name, number(float(value * scale))) for name, value in pairs] + facts


def number(value: float, decimals: int | None = None) -> str:
    """``value`` with so many ``decimals``; None: with three digits, or whole from 1000 to 99999.

    A number that would round to 0 is written with two digits: only zero is ``0``.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("-0", "0")
    if decimals is not None and abs(value) >= 0.5 * 10.0**-decimals:
        return f"{value:.{decimals}f}"
    if decimals is None:
        return f"{value:.0f}" if 999.5 <= abs(value) < 99_999.5 else _short(f"{value:.3g}")
    return f"{value:.2g}" if abs(value) >= 0.01 else _short(f"{value:.1e}")


def _short(text: str) -> str:
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def flat(array: np.ndarray) -> np.ndarray | None:
    """``array`` in two dimensions: a vector is one row; None if more than two axes are long."""
    if array.ndim > 2:
        array = array.squeeze()
    return np.atleast_2d(array) if array.ndim <= 2 else None


def _peak(array: np.ndarray) -> float:
    values = np.abs(array.astype(np.float64))
    return float(values.max(initial=0.0, where=np.isfinite(values)))


def _cells(array: np.ndarray, peak: float) -> list[list[Cell]]:
    decimals, scale = _decimals(array), peak or 1.0
    return [[_cell(x, x / scale, decimals) for x in row] for row in array.tolist()]


def _cell(value: Any, part: float, decimals: int | None) -> Cell:
    if not math.isfinite(value):
        return Cell(f"{value:g}", ODD, odd=True)
    weight = math.copysign(abs(part) ** 0.8, part)  # the power makes small numbers visible
    return Cell(_text(value, decimals), _color(weight), level=round(9 * weight))


def _text(value: Any, decimals: int | None) -> str:
    if isinstance(value, bool):
        return str(value)
    has_exponent = decimals is None and value != 0
    return _short(f"{value:.2e}") if has_exponent else number(value, decimals)


def _decimals(array: np.ndarray) -> int | None:
    """The number of decimals that all cells share; None if all are written with an exponent.

    Whole numbers have no decimals, others at least one. There are enough decimals for the largest
    number to have four digits (three below 0.1), and for four in five numbers to have two, but
    never so many that a number has more than seven digits. The few numbers that would round to 0,
    such as rounding errors, get two digits each; if they are more than half, all get an exponent.
    """
    values = np.abs(array.astype(np.float64))
    values = np.sort(values[np.isfinite(values) & (values > 0)])
    largest = float(values[-1]) if values.size else 0.0
    whole = bool(np.all(values == np.round(values)))
    if not 1e-3 <= largest < (1e6 if whole else 1e5):
        return None
    if whole:
        return 0
    limit = _MAX_DIGITS - 1 - max(_magnitude(largest), 0)
    visible = values[values >= 0.5 * 10.0**-limit]
    fifth = float(visible[(visible.size - 1) // 5])
    for_largest = max(min(3 - _magnitude(largest), _DECIMALS), 2 - _magnitude(largest), 1)
    for_most = 1 - _magnitude(fifth)
    decimals = min(max(for_largest, for_most), limit)
    return None if (values < 0.5 * 10.0**-decimals).mean() > 0.5 else decimals


def _magnitude(value: float) -> int:
    """The exponent of ten of ``value``."""
    return math.floor(math.log10(value))


def _color(weight: float) -> str:
    """From blue (-1) over white (0) to orange (1)."""
    end = _HIGH if weight > 0 else _LOW
    return "#" + "".join(f"{round(255 + (c - 255) * abs(weight)):02x}" for c in end)
