"""One look for every plot: colours, sizes, and SVG that is the same from run to run."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from minigrad.errors import MissingPackageError, facts

# Okabe and Ito's colours, distinct to colour-blind readers; train.curves begins with the same ones
BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, BLACK, GREY = "#e69f00", "#56b4e9", "#000000", "#777777"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 10,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "svg.hashsalt": "minigrad",  # ids that do not change from run to run
}


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 4.0, **options: Any
) -> tuple[Any, Any]:
    """A matplotlib Figure in the house style, and its Axes.

    Args:
        rows, columns: numbers of Axes; both 1 give one Axes, otherwise an array of them.
        width, height: of the figure in inches.
        **options: of ``Figure.subplots``, such as ``sharey=True`` or ``width_ratios=[2, 1]``.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        remedy = "pip install 'minigrad[demos]'"
        raise MissingPackageError(
            facts("figure", expected="the package matplotlib", got="no such package", remedy=remedy)
        )
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.rcsetup import cycler

    matplotlib.rcParams.update(_STYLE)
    matplotlib.rcParams["axes.prop_cycle"] = cycler(color=COLOURS)
    fig = Figure(figsize=(width, height))  # without pyplot: no window, no global state
    return fig, fig.subplots(rows, columns, **options)


@contextlib.contextmanager
def style_restored() -> Iterator[None]:
    """Restore the caller's settings of matplotlib at the end of the block."""
    if importlib.util.find_spec("matplotlib") is None:
        yield
        return
    import matplotlib

    with matplotlib.rc_context():
        yield
