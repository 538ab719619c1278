"""Runs the code blocks of a page, and compares their output with the output that the page shows.

The ``python`` blocks of a page run from top to bottom in one namespace. In ``sh`` blocks, the lines
that call ``minigrad`` run in the folder of the page; other lines, such as installation, do not run.
A ``text`` block that follows one of either kind shows its output.

    python docs/_ext/minigrad_docs/blocks.py --update docs/tour.md    # rewrite its text blocks
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

import minigrad

_FENCE = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_RUN = ("python", "sh")


@dataclass
class Block:
    """A fenced block; its text begins at ``line`` and is ``start:end`` of the page."""

    language: str
    text: str
    line: int
    start: int
    end: int


def parse(page: str) -> list[Block]:
    """The fenced blocks of a page that name a language."""
    return [
        Block(m[2], m[3], page.count("\n", 0, m.start(3)) + 1, m.start(3), m.end(3))
        for m in _FENCE.finditer(page)
        if m[2]
    ]


def expected(blocks: list[Block]) -> dict[int, Block]:
    """Index of a block that runs -> the ``text`` block that follows it."""
    pairs = enumerate(pairwise(blocks))
    return {i: b for i, (a, b) in pairs if a.language in _RUN and b.language == "text"}


def execute(path: Path, folder: Path) -> dict[int, str]:
    """Run the blocks of a page in ``folder``; index of a block -> its output."""
    space: dict = {"__name__": "__main__"}
    printed = {}
    with contextlib.chdir(folder):
        for i, block in enumerate(parse(path.read_text(encoding="utf-8"))):
            if block.language == "python":
                code = "\n" * (block.line - 1) + block.text  # so that a traceback names the line
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(code, str(path), "exec"), space)
                printed[i] = out.getvalue()
            elif block.language == "sh":
                printed[i] = "".join(map(_shell, _commands(block)))
    return printed


def _commands(block: Block) -> list[list[str]]:
    lines = [line.partition("  #")[0] for line in block.text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("minigrad ")]


def _shell(arguments: list[str]) -> str:
    command = [sys.executable, "-W", "error", "-m", "minigrad", *arguments[1:]]
    env = {**os.environ, "COLUMNS": "96"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode not in (0, 1):  # 1: a check failed, which a page may show
        raise RuntimeError(f"{shlex.join(arguments)}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def code_key() -> str:
    """A checksum of everything that the output of a page depends on, except the page."""
    parts = [sys.version, np.__version__]
    for root in (Path(minigrad.__file__).parent, Path(__file__).parent):
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".js", ".css", ".html", ".cu"):
                parts += [str(path.relative_to(root)), path.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def run(path: Path, folder: Path, key: str) -> dict[int, str]:
    """``execute`` in a new process with warnings as errors, or the output cached in ``folder``.

    Raises:
        RuntimeError: a block raised an error; the message is its traceback.
    """
    record = folder / "run.json"
    text = path.read_text(encoding="utf-8")
    key = hashlib.sha256((key + text).encode()).hexdigest()
    if record.exists():
        cached = json.loads(record.read_text(encoding="utf-8"))
        if cached["key"] == key:
            return {int(i): out for i, out in cached["printed"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "error", __file__, "--run", str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{path.name}: {done.stderr.strip()}")
    printed = json.loads(done.stdout)
    partial = folder / f"run.{os.getpid()}"  # parallel tests may read the record meanwhile
    partial.write_text(json.dumps({"key": key, "printed": printed}), encoding="utf-8")
    partial.replace(record)
    return {int(i): out for i, out in printed.items()}


def differences(path: Path, printed: dict[int, str]) -> list[tuple[int, str, str]]:
    """(line, shown, printed) of each block whose output differs from the page."""
    blocks = parse(path.read_text(encoding="utf-8"))
    shown = expected(blocks)
    differing = []
    for i, out in printed.items():
        text = shown[i].text if i in shown else ""
        optional = blocks[i].language == "sh" and i not in shown  # commands may omit their output
        if text.rstrip() != _trimmed(out) and not optional:
            differing.append((blocks[i].line, text.rstrip(), _trimmed(out)))
    return differing


def _trimmed(out: str) -> str:
    return "\n".join(line.rstrip() for line in out.splitlines()).rstrip()


def update(path: Path) -> None:
    """Rewrite the ``text`` blocks of a page with the current output of its code."""
    page = path.read_text(encoding="utf-8")
    blocks = parse(page)
    folder = Path("out") / "docs" / path.stem
    printed = run(path, folder, code_key())
    for i, block in reversed(expected(blocks).items()):
        page = f"{page[: block.start]}{_trimmed(printed[i])}\n{page[block.end :]}"
    path.write_text(page, encoding="utf-8", newline="\n")


def main(arguments: list[str]) -> None:
    """``--run PAGE FOLDER`` prints the outputs as JSON; ``--update PAGE ...`` rewrites pages."""
    if arguments[:1] == ["--run"]:
        print(json.dumps(execute(Path(arguments[1]).resolve(), Path(arguments[2]))))
    else:
        for name in arguments[1:]:
            update(Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
