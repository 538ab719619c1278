"""The README's code prints what it shows, and its commands are those of CI."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.usefixtures("renderer")
def test_its_examples_print_the_numbers_and_draw_the_picture_they_show(tmp_path):
    """The same words and numbers; the digits of rounding errors may differ between machines."""
    parts = re.split(r"^```(.*)$\n", README, flags=re.MULTILINE)
    lines = [text if kind == "python" else re.sub(r".+", "", text)
            for kind, text in zip(["", *parts[1::2]], parts[::2], strict=True)]  # fmt: skip
    (tmp_path / "readme.py").write_text(
        "\n".join(lines), encoding="utf-8"
    )  # each line at its number in the README
    run = subprocess.run(
        [sys.executable, "-W", "error", "readme.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout == "".join(blocks("text"))
    drawn, kept = (words(path) for path in (tmp_path / "bn.svg", ROOT / "docs" / "batch_norm.svg"))
    assert drawn == kept and len(drawn) > 50


def words(svg):
    texts = ["".join(e.itertext()) for e in ElementTree.parse(svg).iter() if e.tag.endswith("text")]
    return sorted(text for text in texts if "bound" not in text)


def test_ci_runs_its_two_commands_word_for_word():
    commands = [line for block in blocks("sh")[:2] for line in block.splitlines()]
    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv") for command in commands)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert all(command in script for command in commands)


def test_four_commands_lead_from_a_clone_to_a_proof_and_a_picture():
    first, *others = [line for block in blocks("sh") for line in block.splitlines()]
    drawn = [line for line in others if line.startswith("minigrad draw")]
    assert len(first.split(" && ")) + len(drawn) == 4


def test_its_speeds_are_those_of_the_benchmarks():
    lines = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines if line[:2] == "| "]

    def span(work, ours="minigrad", theirs="PyTorch eager"):
        ratios = [r[3] for r in rows if re.fullmatch(work, r[0]) and r[1:3] == [ours, theirs]]
        return sorted({min(ratios, key=float), max(ratios, key=float)}, key=float)

    shown = [
        span(work, ours)
        for work in (
            "LeNet-BN training step, batch 256",
            "peak memory of that step",
            "ResNet-BN .*",
            r"batch norm \(.*, .*, .*\)",
            r"batch norm \(256, 1024\)",
        )
        for ours in ("minigrad", "minigrad without numba")
    ]
    shown += [span("chain .*")]
    shown += [
        span(work, ours, "PyTorch on the GPU")
        for work, ours in (
            ("batch norm .*", "minigrad on the GPU"),
            ("LeNet-BN training step, .*", "minigrad on the GPU"),
            ("LeNet-BN training step, .*", "minigrad on the GPU, one graph"),
        )
    ]
    section = README.partition("## Speed")[2].partition("\n## ")[0]
    found = re.findall(r"(\d\.\d\d)(?: to (\d\.\d\d))?", section)
    assert [[x for x in pair if x] for pair in found] == shown


def test_its_files_exist():
    for path in re.findall(r"`((?:minigrad|tests|demos|docs)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\((docs/[^)]*)\)", README):
        assert (ROOT / path).exists(), path
