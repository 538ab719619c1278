"""The gallery, and a page for every demo with its cells, their output and their pictures.

The demos run in their fast size, two at a time; ``MINIGRAD_DOCS_REAL=1`` runs the real size. The
results are cached, so that a build runs only the demos that a change affects.
"""

import json
import os
import re
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

import minigrad
from minigrad import demo
from minigrad_docs.run_pages import cache_of

sys.path.insert(0, str(Path(minigrad.__file__).parent.parent / "tests"))

import demo_runs

LOG = logging.getLogger(__name__)
KEEP = bool(os.environ.get("MINIGRAD_DOCS_KEEP"))  # while writing: show old runs, run no demo
_NAMES = {"lenet": "LeNet", "bn": "with batch norm"}  # words of file names as titles show them
_MOST = 4  # numbers that a card of the gallery shows if the demo marks none as key


def real() -> bool:
    """Whether the demos run at their real size."""
    return os.environ.get("MINIGRAD_DOCS_REAL", "") not in ("", "0")


def _size(fast: bool) -> dict:
    return {} if fast else {"fast": False}


def _recorded(path: Path, folder: Path, fast: bool) -> dict | str:
    """The run of a demo, or the text of the error that it raised."""
    try:
        return demo_runs.recorded(path, folder, **_size(fast))
    except Exception as error:  # the build goes on after any error, and reports it
        return f"{type(error).__name__}: {error}"


def play_all(app) -> None:
    """Run the demos that changed, and write a page for each into ``gallery/``."""
    fast = not real()
    folders = {path: cache_of(app) / "demos" / path.stem for path in demo.listed()}
    if not fast:
        folders = {path: folder.with_name(f"{path.stem}-real") for path, folder in folders.items()}
    stale = [path for path, folder in folders.items() if not _is_fresh(path, folder, fast)]
    fresh = [path for path in folders if path not in stale]
    runs = {path: json.loads((folders[path] / "run.json").read_text("utf-8")) for path in fresh}
    if stale and not KEEP:
        # in other processes, because a demo may declare ops, which the reference would list
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            arguments = [(path, folders[path], fast) for path in stale]
            outcomes = pool.map(_recorded, *zip(*arguments, strict=True))
            runs |= dict(zip(stale, outcomes, strict=True))
    for path, run in runs.items():
        if isinstance(run, str):
            LOG.warning("%s fails: %s", path.name, run)
    played = {path: run for path, run in sorted(runs.items()) if not isinstance(run, str)}
    app.minigrad_runs = {path: {**run, "folder": folders[path]} for path, run in played.items()}
    _write_pages(app)


def _is_fresh(path: Path, folder: Path, fast: bool) -> bool:
    record = folder / "run.json"
    if not record.exists():
        return False
    run = json.loads(record.read_text("utf-8"))
    if KEEP:
        return len(run["printed"]) == len(demo.cells(path))
    return run["key"] == demo_runs.key(path, **_size(fast))


def _write_pages(app) -> None:
    target = Path(app.srcdir) / "gallery"
    wanted = {f"{path.stem}.md": page(path, run) for path, run in app.minigrad_runs.items()}
    for old in target.glob("[0-9]*.*"):
        if old.suffix == ".md" and old.name not in wanted:
            old.unlink()
    for run in app.minigrad_runs.values():
        for name in run["saved"]:
            if name.endswith((".svg", ".png")):
                _copy(run["folder"] / name, target / name)
    for name, text in wanted.items():
        place = target / name
        if not place.exists() or place.read_text("utf-8") != text:
            place.write_text(text, encoding="utf-8", newline="\n")


def _copy(source: Path, target: Path) -> None:
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def title_of(path: Path) -> str:
    """``3. Standardization`` for ``03_standardization.py``."""
    number, *words = path.stem.split("_")
    first, *rest = (_NAMES.get(word, word) for word in words)
    return f"{int(number)}. {' '.join([first[0].upper() + first[1:], *rest])}"


def page(path: Path, run: dict) -> str:
    """The page of a demo as Markdown."""
    command = f"minigrad demo {path.stem}{'' if real() else ' --fast'}"
    lines = [f"# {title_of(path)}", "", f"**{_escaped(run['claim'])}**", ""]
    lines += [_escaped(run["about"]), "", *_pictures(path, run, [f"{path.stem}.svg"])]
    lines += [f"Run it with `minigrad demo {path.stem}`; `--step` pauses after each cell.", ""]
    lines += [f"The output below is that of `{command}` without numba.", ""]
    for cell, printed in zip(demo.cells(path), run["printed"], strict=True):
        if not cell.title:
            continue
        lines += [f"## {cell.title}", "", *_paragraphs(cell.prose), ""]
        lines += ["```python", cell.code.strip("\n"), "```", ""] if cell.code.strip() else []
        wrote = re.findall(r"^wrote out/(\S+)$", printed, flags=re.MULTILINE)
        omitted = ("wrote out/", run["claim"])  # the page shows pictures and claim by itself
        output = "\n".join(x for x in printed.splitlines() if not x.startswith(omitted))
        lines += ["```text", output, "```", ""] if output.strip() else []
        lines += _pictures(path, run, [name for name in wrote if name != f"{path.stem}.svg"])
    return "\n".join(lines).rstrip() + "\n"


def _pictures(path: Path, run: dict, names: list[str]) -> list[str]:
    lines = []
    for name in [name for name in names if name in run["saved"]]:
        if name.endswith((".svg", ".png")):
            lines += [f"![{_escaped(run['claim'])}]({name})", ""]
        elif name.endswith(".html"):
            place = (run["folder"] / name).as_posix()
            lines += [f"```{{framed}} {place}", f":title: {run['claim']}"]
            lines += [":height: 560", "```", ""]
    return lines


def _paragraphs(prose: str) -> list[str]:
    """Prose of a demo as Markdown; lines that are indented or in columns stay as they are."""
    lines = []
    for is_preformatted, group in groupby(prose.splitlines(), lambda line: "  " in line):
        text = "\n".join(group)
        lines += ["", "```text", text, "```", ""] if is_preformatted else [_escaped(text)]
    return lines


def _escaped(text: str) -> str:
    """Prose of a demo as Markdown, with everything escaped that is not in backticks."""
    parts = re.split(r"(`[^`\n]*`)", text)
    return "".join(
        p if p.startswith("`") else re.sub(r"([\\*_<>\[\]$|])", r"\\\1", p) for p in parts
    )


class Gallery(SphinxDirective):
    """``{gallery}``: a card for every demo."""

    def run(self):
        self.env.note_reread()
        cards = nodes.container(classes=["cards"])
        for path, run in self.env.app.minigrad_runs.items():
            cards += self._card(path, run)
        return [cards]

    def _card(self, path: Path, run: dict) -> nodes.Node:
        title = title_of(path)
        link = addnodes.pending_xref(
            "", nodes.inline(title, title), refdomain="std", reftype="doc", refexplicit=True,
            reftarget=f"/gallery/{path.stem}", refwarn=True, refdoc=self.env.docname,
        )  # fmt: skip
        card = nodes.container(classes=["card"])
        tall = ["tall"] * (_height_to_width(run["folder"] / f"{path.stem}.svg") > 1.5)
        image = nodes.image(uri=f"{path.stem}.svg", alt=run["claim"], classes=tall)
        card += nodes.reference("", "", image, refuri=f"{path.stem}.html", internal=True)
        card += nodes.paragraph("", "", nodes.strong("", "", link))
        card += nodes.paragraph(run["claim"], run["claim"])
        output = "\n".join(run["printed"]).splitlines()
        shown = run["keys"] or list(run["numbers"])[:_MOST]
        starts = tuple(f"{name}: " for name in shown)
        numbers = [line for line in output if line.startswith(starts)]
        block = "\n".join(numbers + ["…"] * (len(shown) < len(run["numbers"])))
        card += nodes.literal_block(block, block, language="text")
        return card


class DemoNumber(SphinxRole):
    """``{demo}`17: name``` is the number ``name`` of demo 17; ``# 2`` appended is its entry 2."""

    def run(self):
        self.env.note_reread()
        number, _, name = self.text.partition(": ")
        name, _, entry = name.partition(" # ")
        runs = self.env.app.minigrad_runs
        run = next((r for path, r in runs.items() if path.stem.startswith(f"{number}_")), None)
        if run is None or name not in run["numbers"]:
            known = "no such demo was played" if run is None else ", ".join(run["numbers"])
            LOG.warning(
                "demo %s has no number %r: %s", number, name, known, location=self.get_location()
            )
            return [nodes.inline(self.text, "?")], []
        value = run["numbers"][name]
        text = shown(value[int(entry)] if entry else value)
        return [nodes.inline(text, text)], []


def shown(value: object) -> str:
    """A number of a demo with three digits, or a list of such numbers."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _height_to_width(svg: Path) -> float:
    box = ElementTree.parse(svg).getroot().get("viewBox", "0 0 1 1").split()
    return float(box[3]) / float(box[2])


def setup(app):
    """Run the demos before the pages are read."""
    app.connect("builder-inited", play_all, priority=400)
    app.add_directive("gallery", Gallery)
    app.add_role("demo", DemoNumber())
    return {"parallel_read_safe": False, "parallel_write_safe": True}
