"""The built pages: links and anchors, what the reference covers, what the gallery shows."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

import minigrad as mg
from minigrad import demo

pytest.importorskip("sphinx")
from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[2]
PUBLIC = ("analytic", "data", "demo", "fused", "nn", "ops", "optim", "train", "verify", "viz")


class Reader(HTMLParser):
    """The ids of a page, what it refers to, and its images."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        for key in ("href", "src"):
            if given.get(key):
                self.links.append(given[key])
        if tag == "img":
            self.images.append(given)


@cache
def read(path):
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def inventory(site):
    return InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data


def test_every_internal_link_leads_to_a_file_and_an_anchor(site):
    broken, seen = [], 0
    for page in sorted(site.rglob("*.html")):
        for link in read(page).links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            seen += 1
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            if not target.is_file():
                broken.append((page.name, link, "no such file"))
            elif url.fragment and target.suffix == ".html":
                known = read(target).ids
                if unquote(url.fragment) not in known and not _of_a_stepper(target):
                    broken.append((page.name, link, "no such anchor"))
    assert not broken
    assert seen > 1000


def _of_a_stepper(path):
    return path.parent.name == "_frames"  # its anchors are read by its script


def test_external_links_are_well_formed_and_few(site):
    """Nothing is fetched here; what pages load must be local, what they link to be https."""
    for page in sorted(site.rglob("*.html")):
        for link in read(page).links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                assert url.scheme == "https" and re.fullmatch(r"[\w.-]+\.\w+", url.netloc), link


def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(r"""(?:\bsrc=|@import\s|url\()["']?(?:https?:)?//""")
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not loads.search(path.read_text(encoding="utf-8")), path


def test_relative_links_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) >= 5
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_op_is_in_the_reference(inventory):
    known = set(inventory["py:function"])
    for name, declared in mg.REGISTRY.items():
        fused = hasattr(declared, "composite")
        full = f"minigrad.fused.{declared.composite.name}" if fused else f"minigrad.ops.{name}"
        assert full in known, name


def test_every_public_name_is_documented(inventory):
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    last = {name.rpartition(".")[2] for name in known}
    constants = {
        "BLACK",
        "BLUE",
        "COLOURS",
        "GREEN",
        "GREY",
        "ORANGE",
        "PURPLE",
        "SKY",
        "VERMILION",
    }
    for module in PUBLIC:
        package = importlib.import_module(f"minigrad.{module}")
        for name in package.__all__:
            if inspect.ismodule(getattr(package, name)):
                assert f"minigrad.{module}.{name}" in known, name
            elif name not in constants:
                assert name in last, f"minigrad.{module}.{name}"
    for name in mg.__all__:
        assert name in last, name


def test_an_op_entry_shows_formula_pullback_kink_domain_and_rule(site):
    text = (site / "reference" / "ops" / "activation.html").read_text(encoding="utf-8")
    entry = text.partition('id="minigrad.ops.relu"')[2].partition('id="minigrad.ops.leaky_relu"')[0]
    words = re.sub(r"<[^>]+>", "", entry)
    kink = "at x = 0, where the slope 0 is used"
    for part in ("Formula", "Pullback", "[-3, 3]", kink, "relu_vjp"):
        assert part in words
    assert entry.count("<math") == 2


def test_the_reference_is_the_same_in_every_process():
    code = (
        "import sys; sys.path.insert(0, 'docs/_ext')\n"
        "from minigrad_docs.op_reference import entry\n"
        "from sphinx.ext.napoleon import Config\n"
        "import minigrad as mg\n"
        "for d in mg.REGISTRY.values(): print('\\n'.join(entry(d, Config())))\n"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1] and len(texts[0]) > 10_000


@pytest.mark.parametrize("path", demo.listed(), ids=lambda path: path.stem)
def test_the_gallery_shows_the_claim_the_number_and_the_picture_of_a_demo(site, runs, path):
    page = (site / "gallery" / f"{path.stem}.html").read_text(encoding="utf-8")
    claim = demo.claim_of(path)
    assert claim in _text(page)
    titles = [cell.title for cell in demo.cells(path) if cell.title]
    assert all(title.replace("`", "") in _text(page) for title in titles)
    images = [image["src"] for image in Reader(page).images]
    assert any(path.stem in source for source in images)
    gallery = _text((site / "gallery" / "index.html").read_text(encoding="utf-8"))
    assert claim in gallery
    run = json.loads((runs / "demos" / path.stem / "run.json").read_text(encoding="utf-8"))
    assert all(f"{name}: " in gallery for name in run["keys"])
    assert all(re.search(rf'src="[^"]*{re.escape(name)}"', page) for name in run["saved"])


def _text(page):
    return unescape(re.sub(r"<[^>]+>", "", page))


def test_lines_of_a_demo_that_are_set_in_columns_stay_so(site):
    shown = _text((site / "gallery" / "23_recurrent.html").read_text(encoding="utf-8"))
    assert "\non inputs:    h_t = tanh(" in shown and "\ninside:       h_t = tanh(" in shown


def test_the_number_of_demos_is_the_one_that_is_told():
    for name in ("README.md", "docs/index.md", "docs/guides/batch_norm.md", "docs/CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        (told,) = set(re.findall(r"\b(\d+) (?:\[?demos|claims\b)", text))
        assert int("".join(told)) == len(demo.listed()), name


def test_every_image_says_in_words_what_it_shows(pages):
    for page in pages:
        for image in read(page).images:
            assert len(image.get("alt", "")) > 20, (page, image["src"])


def test_every_picture_is_a_link(pages):
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert all(re.findall(r"(<a [^>]*>)?\s*<img [^>]*_images/", text)), page


def test_formulas_are_markup_and_none_is_left_as_latex(pages):
    count = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        prose = re.sub(r"(?s)<(pre|code|script|style)\b.*?</\1>", "", text)
        assert not re.search(r"\\(?:frac|bar|sum|hat)\b", prose), page
        count += text.count("<math")
    assert count > 200


def test_the_table_of_the_benchmarks_is_put_into_its_page(tmp_path):
    from minigrad_docs.run_pages import include_benchmarks

    env = SimpleNamespace(note_dependency=lambda *_, **__: None)
    app = SimpleNamespace(srcdir=tmp_path, env=env)
    source = ["## Measured\n\n<!-- benchmarks -->\n"]
    include_benchmarks(app, "guides/performance", missing := list(source))
    assert "Not yet measured" in missing[0]
    (tmp_path / "benchmarks.md").write_text("# Benchmarks\n\nText.\n\n## CPU\n\n| a |\n|---|\n")
    include_benchmarks(app, "guides/performance", source)
    assert source[0] == "## Measured\n\nText.\n\n### CPU\n\n| a |\n|---|\n"


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([\w-]+): (.+)$", text, re.M))
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"].strip('"') == mg.__version__
    assert {"message", "title", "license"} <= set(fields)
