"""Every code block of the README and of the pages runs, and prints what the page shows."""

import re
from pathlib import Path

import pytest

import minigrad as mg

blocks = pytest.importorskip("minigrad_docs.blocks")

ROOT = Path(__file__).parents[2]
PAGES = {
    "README": ROOT / "README.md",
    **{
        str(path.relative_to(ROOT / "docs").with_suffix("")): path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not {"_cache", "_ext"} & set(path.parts) and not re.match(r"\d\d_", path.name)
    },
}
WITH_CODE = [
    name
    for name, path in PAGES.items()
    if any(block.language in ("python", "sh") for block in blocks.parse(path.read_text("utf-8")))
]


@pytest.fixture(scope="session")
def key():
    return blocks.code_key()


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_prints_what_the_page_shows(name, runs, key, tmp_path):
    if name == "README":  # it says to save its first block about a backward pass
        wrong = blocks.parse(PAGES[name].read_text("utf-8"))
        (text,) = [b.text for b in wrong if "def backward" in b.text]
        folder = tmp_path
        (folder / "wrong.py").write_text(text, encoding="utf-8")
    else:
        folder = runs / "pages" / name.replace("/", "-")
    printed = blocks.run(PAGES[name], folder, key)
    assert printed
    assert blocks.differences(PAGES[name], printed) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_code_that_is_not_run(name):
    """Only text, commands and directives: another language would be code that nobody tests."""
    allowed = {"python", "sh", "text"}
    found = {block.language for block in blocks.parse(PAGES[name].read_text("utf-8"))}
    assert found <= allowed


def test_a_wrong_output_a_missing_one_and_an_exception_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n\n```python\nprint(4)\n```\n")
    printed = blocks.run(page, tmp_path / "a", "key")
    assert blocks.differences(page, printed) == [(2, "3", "2"), (10, "", "4")]
    page.write_text("\n\n```python\nx = 1\ny = x / 0\n```\n")
    with pytest.raises(RuntimeError, match=r'(?s)page.md", line 5.*ZeroDivisionError'):
        blocks.run(page, tmp_path / "a", "key")


def test_a_warning_in_the_code_of_a_page_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nimport numpy as np\nnp.log(np.zeros(1))\n```\n")
    with pytest.raises(RuntimeError, match="RuntimeWarning"):
        blocks.run(page, tmp_path, "key")


def test_what_a_page_printed_is_remembered_until_page_or_package_change(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nimport time\nprint(time.perf_counter_ns())\n```\n")
    first = blocks.run(page, tmp_path, "key")
    assert blocks.run(page, tmp_path, "key") == first
    assert blocks.run(page, tmp_path, "another key") != first
    page.write_text(page.read_text() + "\nmore\n")
    assert blocks.run(page, tmp_path, "key") != first


def test_every_name_in_the_table_for_newcomers_exists():
    text = (ROOT / "docs" / "guides" / "coming_from.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ")]
    names = [name for row in rows for name in re.findall(r"`mg\.([\w.]+)", row)]
    assert len(names) >= 30
    for name in names:
        found = mg
        for part in name.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize("name", PAGES)
def test_every_name_of_minigrad_in_the_text_of_a_page_exists(name):
    prose = re.sub(r"(?ms)^```.*?^```", "", PAGES[name].read_text("utf-8"))
    for dotted in re.findall(r"`mg\.([a-z_]\w*(?:\.[A-Za-z_]\w*)*)", prose):
        found = mg
        for part in dotted.split("."):
            found = getattr(found, part)
