"""Every code block of the README and of the pages runs, and prints what the page shows."""

import codeop
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import minigrad as mg
from minigrad.verify import probes, targets

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


@pytest.mark.parametrize("name", [name for name in WITH_CODE if name != "README"])
def test_the_code_of_a_page_prints_what_the_page_shows(name, runs, key):
    printed = blocks.run(PAGES[name], runs / "pages" / name.replace("/", "-"), key)
    assert printed
    assert blocks.differences(PAGES[name], printed) == []


def test_the_readme_prints_what_it_shows_and_draws_batch_norm(tmp_path):
    text = PAGES["README"].read_text("utf-8").replace(CAMPAIGN, "")
    (page := tmp_path / "README.md").write_text(text, "utf-8")
    printed = blocks.run(page, tmp_path, "key")
    assert blocks.differences(page, printed) == []
    (train,) = [out for out in printed.values() if "test acc" in out]
    last = float(re.findall(r"test acc ([\d.]+)", train)[-1])
    assert abs(last - 0.98) < 0.015 and "98 % of the test images" in text
    texts = [e for e in ElementTree.parse(tmp_path / "bn.svg").iter() if e.tag.endswith("text")]
    shown = " ".join("".join(e.itertext()) for e in texts)
    assert all(word in shown for word in ("batch_norm", "gamma", "x_hat", "gradient"))


CAMPAIGN = "minigrad verify wrong:forward,backward\n"


def test_from_the_readme_to_a_picture_and_a_failing_check_take_no_more_than_five_commands():
    shells = re.findall(r"```sh\n(.*?)```", PAGES["README"].read_text("utf-8"), re.S)
    before = [line.split()[1] for block in shells for line in block.splitlines()
              if line.startswith("minigrad ")]  # fmt: skip
    first = shells[0].strip().splitlines()
    assert len(first) + before.index("verify") + 1 + 1 <= 5  # the last one: drawing


def test_the_wrong_backward_of_the_readme_fails_with_its_cause(tmp_path, monkeypatch, command):
    """In this process and at a few points: at all of them it takes ten seconds."""
    code = blocks.parse(PAGES["README"].read_text("utf-8"))
    (wrong,) = [block.text for block in code if "def backward" in block.text]
    (shown,) = [block.text for block in code if block.text.startswith(CAMPAIGN.strip())]
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")  # as it says to
    points = [p for p in probes.batch_norm() if p[0] in ("NC (5, 3) float64", "NC (2, 3) float64")]
    monkeypatch.setitem(targets.PROBES, "batch_norm", lambda: points)
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = command(*shown.split()[1:], cwd=tmp_path)
    assert done.returncode == 1
    assert "WRONG" in done.stdout and "missing variance path" in " ".join(done.stdout.split())


def test_the_right_pair_of_the_guide_is_proven_by_the_command_it_shows(
    tmp_path, monkeypatch, command
):
    text = PAGES["guides/your_backward"].read_text("utf-8")
    first = next(block.text for block in blocks.parse(text) if block.language == "python")
    (tmp_path / "my_module.py").write_text(first, encoding="utf-8")  # as it says to
    (shown,) = re.findall(r"`(minigrad verify my_module:[^`]*)`", text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = command(*shown.split()[1:], cwd=tmp_path)
    assert done.returncode == 0 and "PROVEN" in done.stdout, done.stdout


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_can_be_pasted_into_a_prompt(name):
    """Which runs a compound statement at the first blank line, and takes nothing else before."""
    for block in blocks.parse(PAGES[name].read_text("utf-8")):
        typed: list[str] = []
        for line in [*block.text.splitlines(), ""] if block.language == "python" else []:
            typed.append(line)
            try:
                complete = codeop.compile_command("\n".join(typed), symbol="single")
            except SyntaxError as error:
                pytest.fail(f"block of line {block.line}, at {line!r}: {error}")
            typed = [] if complete else typed


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
