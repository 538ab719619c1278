"""From the README to a picture, as somebody who never saw the code."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def run(folder, *words):
    command = [sys.executable, "-m", "minigrad", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def commands():
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", README, re.S)
        for line in block.splitlines()
    ]
    return [re.split(r"\s{2,}#", line)[0].split() for line in lines if line.startswith("minigrad ")]


def test_one_command_of_the_readme_draws_the_graph_of_batch_norm(tmp_path):
    pytest.importorskip("pygraphviz")
    (words,) = [words for words in commands() if words[1] == "draw"]
    done = run(tmp_path, *words[1:])
    assert done.returncode == 0, done.stderr
    (picture,) = tmp_path.glob("*.svg")
    root = ElementTree.parse(picture).getroot()
    text = " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("text"))
    assert all(word in text for word in ("batch_norm", "gamma", "x_hat", "gradient"))


def test_these_are_fewer_than_five_commands():
    first = re.findall(r"```sh\n(.*?)```", README, re.S)[0].strip().splitlines()
    before = [words[1] for words in commands()]
    assert len(first) + before.index("verify") + 1 + 1 <= 5  # the last one: drawing
