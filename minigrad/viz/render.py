"""DOT text to SVG, PNG or PDF, by the Graphviz that is installed: ``dot`` or pygraphviz."""

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

from minigrad import files
from minigrad.core.node import Box
from minigrad.errors import RenderError, UsageError, facts
from minigrad.viz import _pygraphviz
from minigrad.viz.badge import Verdicts
from minigrad.viz.dot import to_dot

_MARKS = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}  # what every picture contains
FORMATS = tuple(_MARKS)
TIME_LIMIT = 20.0  # seconds; a layout that takes longer may take hours
REMEDY = (
    "pip install 'minigrad[render]', apt install graphviz, brew install graphviz "
    "or winget install graphviz"
)
_CLUSTER = re.compile(r'(<g id="\S+" class="cluster">.*?)((?:<text[^\n]*\n)+)</g>', re.DOTALL)
_TEXT = re.compile(r'<text.*? x="(\S+)" y="(\S+)".*?>(.*)</text>')
_LETTER = 6.5  # points: the width of a letter in the small print after a title


class Picture:
    """The SVG of a drawing; a notebook shows it."""

    def __init__(self, svg: str):
        self.svg = svg

    def __repr__(self) -> str:
        return f"<picture of {len(self.svg):,} characters>"

    def _repr_svg_(self) -> str:
        return self.svg


def draw(
    y: Box | Sequence[Box],
    path: str | os.PathLike[str] | None = None,
    *,
    depth: int | None = None,
    values: bool = True,
    grads: bool = True,
    verdicts: Verdicts | None = None,
) -> Any:
    """Draw the graph that computed ``y`` into the file ``path``.

    In a notebook, leave ``path`` out: the cell shows the drawing.

    Args:
        y: a result, or several, whose graph was recorded.
        path: a file whose suffix chooses the format: .svg, .png, .pdf or .dot. None returns the
            picture instead.
        depth, values, grads, verdicts: as in ``to_dot``.

    Returns:
        ``path``, or a ``Picture``.

    Raises:
        UsageError: ``path`` has another suffix.
        RenderError: there is no Graphviz, or the layout failed or took more than 20 s. The DOT text
            is then saved beside ``path``, and the error says where.
    """
    path = None if path is None else files.as_path("draw: path", path)
    form = "" if path is None else _form_of(path)
    text = to_dot(y, depth=depth, values=values, grads=grads, verdicts=verdicts)
    if path is None:
        return Picture(_for_a_cell(text))
    if form == "dot":
        files.write(path, text)
        return path
    try:
        picture = render(text, form)
    except RenderError as error:
        saved = path.with_suffix(".dot")
        files.write(saved, text)
        headline, *rest = str(error).splitlines()
        raise RenderError("\n".join([f"{headline}; the DOT text is in {saved}", *rest])) from error
    files.write(path, picture)
    return path


def _form_of(path: Path) -> str:
    form = path.suffix.lower().removeprefix(".")
    if form not in (*FORMATS, "dot"):
        expected = "a file name that ends in .svg, .png, .pdf or .dot"
        raise UsageError(facts("draw: path", expected=expected, got=path.name))
    return form


def render(dot: str, form: str) -> bytes:
    """Lay out DOT text: by ``dot`` if it is on PATH, else by pygraphviz in a process of its own.

    Args:
        dot: the DOT text.
        form: ``"svg"``, ``"png"`` or ``"pdf"``.

    Raises:
        RenderError: neither is installed, every installed one failed, or one took more than 20 s.
    """
    failures = []
    for name, is_installed, run in _RENDERERS:
        if not is_installed():
            continue
        try:
            picture = run(dot.encode(), form)
            if _MARKS[form] in picture:
                return _titles_on_top(picture) if form == "svg" else picture
            failures.append(f"{name}: {len(picture)} bytes that are no {form}")
        except subprocess.TimeoutExpired:
            raise _too_slow(name) from None
        except (subprocess.SubprocessError, OSError) as error:
            failures.append(f"{name}: {_reason(error)}")
    expected, got = "`dot` on PATH, or the package pygraphviz", "; ".join(failures) or "neither"
    headline = "draw: the layout failed" if failures else "draw: Graphviz was not found"
    raise RenderError(facts(headline, expected=expected, got=got, remedy=REMEDY))


def renderers() -> list[str]:
    """The names of the renderers that work here, in the order in which ``render`` tries them."""
    return [name for name, is_installed, run in _RENDERERS if is_installed() and _works(run)]


def mimebundle(y: Box) -> dict[str, str]:
    """The forms of ``y`` for a notebook: its text and, if a graph was recorded, the picture.

    Never raises: without a renderer there is only the text.
    """
    try:
        bundle = {"text/plain": repr(y)}
    except Exception as error:  # for example an array whose device is gone
        bundle = {"text/plain": f"<{type(y).__name__}: {type(error).__name__}>"}
    try:
        if y.node is not None and y.node.op is not None:
            bundle["image/svg+xml"] = _for_a_cell(to_dot(y))
    except Exception as error:  # the picture is an extra: the cell must not fail because of it
        logging.getLogger(__name__).debug("no picture: %s", error)
    return bundle


def _for_a_cell(dot: str) -> str:
    svg = render(dot, "svg").decode()
    svg = re.sub(r'\sid="[^"]*"', "", svg)  # ids would clash: all cells are on one page
    return svg[svg.index("<svg") :]


def _titles_on_top(svg: bytes) -> bytes:
    """Move the titles of clusters to the end of an SVG, above the lines that cross them.

    Each stands on a patch of the colour of its cluster.
    """
    titles: list[str] = []

    def cut_title(cluster: re.Match) -> str:
        (fill, *_), texts = re.findall('fill="(.*?)"', cluster[1]), re.findall(_TEXT, cluster[2])
        (left, y, _), (right, _, last) = texts[0], texts[-1]
        width = float(right) - float(left) + _LETTER * len(unescape(last))
        patch = f'<rect x="{left}" y="{float(y) - 12}" width="{width}" height="16" fill="{fill}"/>'
        titles.append(f'<g class="cluster">\n{patch}\n{cluster[2]}</g>\n')
        return f"{cluster[1]}</g>"

    text = re.sub(_CLUSTER, cut_title, svg.decode())
    return text.replace("</g>\n</svg>", f"{''.join(titles)}</g>\n</svg>").encode()


def _by_dot(dot: bytes, form: str) -> bytes:
    from graphviz.backend.dot_command import command
    from graphviz.backend.execute import run_check

    arguments = command("dot", form)
    process = run_check(arguments, input=dot, capture_output=True, quiet=True, timeout=TIME_LIMIT)
    return process.stdout


def _by_pygraphviz(dot: bytes, form: str) -> bytes:
    # -P keeps the modules beside the script off sys.path
    arguments = [sys.executable, "-P", str(_pygraphviz.__file__), form]
    process = subprocess.run(
        arguments, input=dot, capture_output=True, timeout=TIME_LIMIT, check=True
    )
    return process.stdout


def _has_dot() -> bool:
    return shutil.which("dot") is not None and importlib.util.find_spec("graphviz") is not None


def _has_pygraphviz() -> bool:
    return importlib.util.find_spec("pygraphviz") is not None


# (name, whether it is installed, how to run it), in the order of preference
_RENDERERS: list[tuple[str, Callable[[], bool], Callable[[bytes, str], bytes]]] = [
    ("dot", _has_dot, _by_dot),
    ("pygraphviz", _has_pygraphviz, _by_pygraphviz),
]


def _works(run: Callable[[bytes, str], bytes]) -> bool:
    """Whether a renderer can draw: pygraphviz cannot on a system without libX11, for example."""
    try:
        return _MARKS["svg"] in run(b"digraph {a}", "svg")
    except (subprocess.SubprocessError, OSError):
        return False


def _too_slow(name: str) -> RenderError:
    expected, got = f"a layout within {TIME_LIMIT:g} s", f"{name} did not finish"
    remedy = "fold the graph with depth=0, or draw a smaller part of it"
    return RenderError(
        facts("draw: the layout was stopped", expected=expected, got=got, remedy=remedy)
    )


def _reason(error: Exception) -> str:
    if not isinstance(error, subprocess.CalledProcessError):
        return str(error)
    if error.returncode < 0:
        return f"crashed with signal {-error.returncode}"
    lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {error.returncode}"
