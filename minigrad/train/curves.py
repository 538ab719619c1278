"""Training curves as a small SVG, written without a plotting library."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from minigrad.errors import DTypeError, facts

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 300, 52, 130, 28, 40
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # distinct to colour-blind readers, too
_DASHES = ("", "6 3", "2 3", "8 3 2 3")  # and in black and white


def curves(title: str, x_label: str, series: Mapping[str, Sequence[float]]) -> str:
    """A line chart over the epochs 1, 2, ...

    Args:
        title: above the chart.
        x_label: below it.
        series: name -> one number per epoch; nan and inf leave a gap.

    Returns:
        SVG text; equal arguments give equal text.

    Raises:
        DTypeError: ``series`` is not such a mapping.

    >>> svg = mg.train.curves("loss", "epoch", {"train": [2.0, 1.0, 0.5]})
    >>> svg.startswith("<svg") and svg.count("<polyline")
    1
    """
    try:
        series = {str(name): [float(v) for v in line] for name, line in series.items()}
    except (AttributeError, TypeError, ValueError) as error:
        expected = "a dict: name -> one number per epoch"
        raise DTypeError(facts("curves: series", expected=expected, got=error)) from error
    values = [v for line in series.values() for v in line if math.isfinite(v)]
    low, high = min([0.0, *values]), max([0.0, *values])
    ticks = _ticks(low, high if high > low else 1.0)
    low, high = ticks[0], ticks[-1]
    epochs = max([len(line) for line in series.values()], default=1)
    longest_name = max(map(len, series), default=0)
    width = _WIDTH + max(0, 7 * longest_name - 90)
    parts = [_frame(title, x_label, ticks, epochs, width)]
    for i, (name, line) in enumerate(series.items()):
        style = f'stroke="{_COLOURS[i % 4]}" stroke-dasharray="{_DASHES[(i + i // 4) % 4]}"'
        points = [_point(k, v, epochs, low, high) for k, v in enumerate(line)]
        parts += [f'<polyline fill="none" stroke-width="2" {style} points="{" ".join(run)}"/>'
                  for run in _runs(points)]  # fmt: skip
        y = _TOP + 16 + 20 * i
        x = _WIDTH - _RIGHT + 10
        parts.append(f'<path d="M{x} {y - 4}h20" stroke-width="2" {style}/>')
        parts.append(f'<text x="{x + 26}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, in about five steps."""
    exact = max(high / 5 - low / 5, 1e-300)  # the step before rounding up
    power = 10.0 ** math.floor(math.log10(exact))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= exact * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _point(k: int, v: float, epochs: int, low: float, high: float) -> str:
    """``x,y`` of value ``v`` at epoch ``k + 1``; empty if ``v`` is not finite."""
    if not math.isfinite(v):
        return ""
    x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (k / max(epochs - 1, 1))
    y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (v - low) / (high - low)
    return f"{x:.1f},{y:.1f}"


def _runs(points: list[str]) -> list[list[str]]:
    """The stretches of ``points`` between gaps; a single point becomes a short line."""
    runs: list[list[str]] = [[]]
    for point in points:
        if point:
            runs[-1].append(point)
        else:
            runs.append([])
    return [_short(*run) if len(run) == 1 else run for run in runs if run]


def _short(point: str) -> list[str]:
    x, y = point.split(",")
    return [f"{float(x) - 6:.1f},{y}", f"{float(x) + 6:.1f},{y}"]


def _frame(title: str, x_label: str, ticks: list[float], epochs: int, width: int) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
        f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="black"/>',
        f'<text x="{(_LEFT + right) // 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
    ]
    for i, tick in enumerate(ticks):
        y = bottom - (bottom - _TOP) * i / (len(ticks) - 1)
        number = f"{tick:.6g}"
        lines.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number}</text>')
    for k in sorted({0, epochs - 1}):
        x = float(_point(k, 0.0, epochs, 0.0, 1.0).split(",")[0])
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{k + 1}</text>')
    return "\n".join(lines)
