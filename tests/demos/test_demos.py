"""Every demo runs in its fast size, and what it claims is true."""

import ast
import importlib.util
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import demo_runs
import pytest

from minigrad import demo

HERE = Path(__file__).parent
DEMOS = {path.stem: path for path in demo.listed()}
# each ninth demo is played twice; all of them with HYPOTHESIS_PROFILE=thorough
AGAIN = list(DEMOS)[:: 1 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 9]


def _claims():
    """The assertions of all ``claims_*.py`` beside this file: demo -> function of its numbers."""
    found = {}
    for path in sorted(HERE.glob("claims_*.py")):
        spec = importlib.util.spec_from_file_location(f"demos_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert not found.keys() & module.CLAIMS.keys()
        found.update(module.CLAIMS)
    return found


CLAIMS = _claims()


@pytest.fixture(autouse=True)
def _demos_declare_ops(declared):
    """Demos may declare ops; they are gone when the test ends."""


@pytest.fixture
def folder(request, tmp_path):
    """name -> where its run is kept between test runs; a folder of this test without a cache."""
    cache = getattr(request.config, "cache", None)
    root = tmp_path if cache is None else cache.mkdir("demos")

    def of(name):
        if "viz.draw" in DEMOS[name].read_text(encoding="utf-8"):
            request.getfixturevalue("renderer")
        return root / name

    return of


@pytest.mark.parametrize("name", DEMOS)
def test_what_a_demo_claims_is_true(name, folder, capsys):
    run = demo_runs.recorded(DEMOS[name], folder(name))
    CLAIMS[name](run["numbers"])
    with capsys.disabled():
        sys.stdout.write(f" [{name} {run['seconds']:.1f} s]")


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_shows_a_picture_that_parses(name, folder):
    saved = demo_runs.recorded(DEMOS[name], folder(name))["saved"]
    pictures = [Path(file) for file in saved if file.endswith(".svg")]
    assert f"{name}.svg" in saved, "the gallery shows NAME.svg"
    for picture in pictures:
        root = ElementTree.fromstring((folder(name) / picture).read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert (folder(name) / picture).stat().st_size < 1_000_000
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 1, "nothing is drawn"


@pytest.mark.parametrize("name", AGAIN)
def test_two_runs_of_a_demo_print_and_draw_the_same(name, folder, tmp_path):
    first = demo_runs.recorded(DEMOS[name], folder(name))
    second = demo_runs.fresh(DEMOS[name], tmp_path)
    assert second["printed"] == first["printed"]
    for file in first["saved"]:
        assert (tmp_path / file).read_bytes() == (folder(name) / file).read_bytes(), file


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_is_under_80_lines_of_cells_that_begin_with_its_claim(name):
    text = DEMOS[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert all(len(line) <= 100 for line in text.splitlines())
    first, *rest = demo.cells(DEMOS[name])
    assert first.title == "" and len(rest) > 1 and all(cell.title for cell in rest)
    assert len(ast.parse(first.code).body) == 1, "pages and steps show the docstring, no code of it"
    claim = demo.claim_of(DEMOS[name])
    assert claim[0].isupper() and claim[-1] == "."


def test_every_claim_has_a_demo_and_every_demo_a_claim():
    assert set(CLAIMS) == set(DEMOS)


def test_demos_are_numbered_from_1_without_a_gap():
    assert [int(name[:2]) for name in DEMOS] == list(range(1, len(DEMOS) + 1))
