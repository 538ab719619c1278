"""Runs the code of every page during the build, and shows the pictures that it wrote.

If the code of a page fails or prints anything other than the page shows, the build warns, and fails
with ``-W``. ``{drawn} FILE`` shows a picture and ``{framed} FILE`` an HTML page that the code of
the same page wrote into its folder.
"""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.parsers.rst.directives.images import Figure
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.images import get_image_size

from minigrad_docs import blocks

LOG = logging.getLogger(__name__)


def cache_of(app) -> Path:
    """The folder that caches the outputs of pages and demos."""
    return Path(os.environ.get("MINIGRAD_DOCS_CACHE") or app.srcdir / "_cache").resolve()


def folder_of(app, docname: str) -> Path:
    """The folder in which the code of a page runs."""
    return cache_of(app) / "pages" / docname.replace("/", "-")


def run_all(app) -> None:
    """Run every page that has code, two at a time."""
    key = blocks.code_key()
    names = [name for name in sorted(app.project.discover()) if _has_code(app, name)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: _run(app, name, key), names))


def _has_code(app, docname: str) -> bool:
    path = Path(app.project.doc2path(docname, True))
    if path.suffix != ".md" or docname.startswith("gallery/"):  # demos are run by ``gallery``
        return False
    return any(b.language in ("python", "sh") for b in blocks.parse(path.read_text("utf-8")))


def _run(app, docname: str, key: str) -> None:
    path = Path(app.project.doc2path(docname, True))
    try:
        printed = blocks.run(path, folder_of(app, docname), key)
    except RuntimeError as error:
        LOG.warning("the code of this page fails:\n%s", error, location=docname)
        return
    for line, shown, out in blocks.differences(path, printed):
        text = "the page shows\n%s\nbut its code prints\n%s"
        LOG.warning(text, shown, out, location=f"{path}:{line}")


def include_benchmarks(app, docname: str, source: list[str]) -> None:
    """Replace ``<!-- benchmarks -->`` by ``benchmarks.md``, with its headings one level down."""
    mark = "<!-- benchmarks -->"
    if mark not in source[0]:
        return
    path = Path(app.srcdir) / "benchmarks.md"
    text = "Not yet measured.\n"
    if path.exists():
        app.env.note_dependency(path, docname=docname)
        body = path.read_text(encoding="utf-8").split("\n", 1)
        text = body[1] if body[0].startswith("# ") else "\n".join(body)
        text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    source[0] = source[0].replace(mark, text.strip())


class Drawn(Figure):
    """A figure whose file was written by the code of this page."""

    def run(self):
        env = self.state.document.settings.env
        path = folder_of(env.app, env.docname) / self.arguments[0]
        if not path.exists():
            raise self.error(f"the code of this page writes no {self.arguments[0]}")
        here = Path(env.doc2path(env.docname)).parent
        self.arguments[0] = os.path.relpath(path, here).replace(os.sep, "/")
        self.options.setdefault("class", []).append("drawn")
        return super().run()


def open_pictures(app, doctree) -> None:
    """Make every picture a link to its full size: Sphinx links pictures that have a width."""
    for image in doctree.findall(nodes.image):
        size = get_image_size(Path(app.srcdir) / image["uri"])
        if size and not isinstance(image.parent, nodes.reference):
            image.attributes.setdefault("width", f"{size[0]}px")


class frame(nodes.General, nodes.Element):
    """An HTML page that is embedded in a page."""


class Framed(SphinxDirective):
    """A frame with an HTML file that the code of this page wrote; ``title`` describes it."""

    required_arguments = 1
    option_spec: ClassVar = {"title": directives.unchanged_required, "height": directives.unchanged}

    def run(self):
        path = folder_of(self.env.app, self.env.docname) / self.arguments[0]
        if not path.exists():
            raise self.error(f"the code of this page writes no {self.arguments[0]}")
        name = f"{self.env.docname.replace('/', '-')}-{path.name}"
        self.env.minigrad_frames = {**getattr(self.env, "minigrad_frames", {}), name: str(path)}
        title, height = self.options["title"], self.options.get("height")
        return [frame(url=f"_frames/{name}", title=title, height=height)]


def _visit_frame(translator, node):
    up = "../" * translator.builder.current_docname.count("/")
    url, title, height = up + node["url"], node["title"], node["height"] or "760"
    translator.body.append(
        f'<iframe class="stepper" src="{url}" title="{title}" height="{height}"></iframe>'
        f'<p class="alone"><a href="{url}">Open it on a page of its own</a></p>'
    )
    raise nodes.SkipNode


def _copy_frames(app, error) -> None:
    if error is None and app.builder.format == "html":
        for name, path in getattr(app.env, "minigrad_frames", {}).items():
            (Path(app.outdir) / "_frames").mkdir(exist_ok=True)
            shutil.copyfile(path, Path(app.outdir) / "_frames" / name)


def setup(app):
    """Register the directives, and run the pages before they are read."""
    # pages include text of the package: read all of them again when the package has changed
    app.add_config_value("minigrad_code", blocks.code_key(), "env")
    app.connect("builder-inited", run_all)
    app.connect("source-read", include_benchmarks)
    app.connect("doctree-read", open_pictures)  # after Sphinx has located the files
    app.connect("build-finished", _copy_frames)
    app.add_directive("drawn", Drawn)
    app.add_directive("framed", Framed)
    app.add_node(frame, html=(_visit_frame, None))
    return {"parallel_read_safe": False, "parallel_write_safe": True}
