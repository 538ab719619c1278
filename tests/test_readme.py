"""The README's code prints what it shows, and its commands are those of CI."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_its_examples_print_the_numbers_they_show(tmp_path):
    pytest.importorskip("pygraphviz", reason="drawing needs pygraphviz or dot")
    code = "\n".join(blocks("python"))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout == "".join(blocks("text"))
    assert (tmp_path / "bn.svg").exists()


def test_ci_runs_its_two_commands_word_for_word():
    commands = [line for block in blocks("sh")[:2] for line in block.splitlines()]
    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv") for command in commands)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert all(command in script for command in commands)


def test_its_files_exist():
    for path in re.findall(r"`((?:minigrad|tests|demos|docs)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\((docs/[^)]*)\)", README):
        assert (ROOT / path).exists(), path
