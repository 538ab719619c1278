"""The code of a page: what it prints is what the page says it prints.

The ``python`` blocks of a page share a namespace, top to bottom. A ``text`` block that follows one
is its output. In ``sh`` blocks the lines that call ``minigrad`` run in the folder of the page, and
a ``text`` block that follows is their output; other lines set up a machine and are left alone.

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
    """A fenced block: ``line`` is that of its first line of text, ``start:end`` its text."""

    language: str
    text: str
    line: int
    start: int
    end: int


def parse(page: str) -> list[Block]:
    """The fenced blocks of the text of a page that name a language."""
    return [
        Block(m[2], m[3], page.count("\n", 0, m.start(3)) + 1, m.start(3), m.end(3))
        for m in _FENCE.finditer(page)
        if m[2]
    ]


def expected(blocks: list[Block]) -> dict[int, Block]:
    """Place of a block that runs -> the ``text`` block that follows it."""
    pairs = enumerate(pairwise(blocks))
    return {i: b for i, (a, b) in pairs if a.language in _RUN and b.language == "text"}


def execute(path: Path, folder: Path) -> dict[int, str]:
    """Run the blocks of a page in ``folder``; place of a block -> what it printed."""
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


def _shell(words: list[str]) -> str:
    command = [sys.executable, "-W", "error", "-m", "minigrad", *words[1:]]
    env = {**os.environ, "COLUMNS": "96"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode not in (0, 1):  # 1: a check failed, which a page may show
        raise RuntimeError(f"{shlex.join(words)}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def code_key() -> str:
    """A checksum of everything that decides what code of this project prints."""
    parts = [sys.version, np.__version__]
    for root in (Path(minigrad.__file__).parent, Path(__file__).parent):
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".js", ".css", ".html", ".cu"):
                parts += [str(path.relative_to(root)), path.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def run(path: Path, folder: Path, key: str) -> dict[int, str]:
    """``execute`` in a process of its own with warnings as errors, or what ``folder`` remembers.

    Raises:
        RuntimeError: a block raised; the text is its traceback.
    """
    record = folder / "run.json"
    text = path.read_text(encoding="utf-8")
    key = hashlib.sha256((key + text).encode()).hexdigest()
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["key"] == key:
            return {int(i): out for i, out in known["printed"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "error", __file__, "--run", str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{path.name}: {done.stderr.strip()}")
    printed = json.loads(done.stdout)
    part = folder / f"run.{os.getpid()}"  # parallel tests may read it meanwhile
    part.write_text(json.dumps({"key": key, "printed": printed}), encoding="utf-8")
    part.replace(record)
    return {int(i): out for i, out in printed.items()}


def differences(path: Path, printed: dict[int, str]) -> list[tuple[int, str, str]]:
    """(line, shown, printed) of each block whose output is not what the page shows."""
    blocks = parse(path.read_text(encoding="utf-8"))
    shown = expected(blocks)
    found = []
    for i, out in printed.items():
        text = shown[i].text if i in shown else ""
        silent = blocks[i].language == "sh" and i not in shown  # a page need not show a command's
        if text.rstrip() != _trimmed(out) and not silent:
            found.append((blocks[i].line, text.rstrip(), _trimmed(out)))
    return found


def _trimmed(out: str) -> str:
    return "\n".join(line.rstrip() for line in out.splitlines()).rstrip()


def update(path: Path) -> None:
    """Rewrite the ``text`` blocks of a page to what its code prints now."""
    page = path.read_text(encoding="utf-8")
    blocks = parse(page)
    folder = Path("out") / "docs" / path.stem
    printed = run(path, folder, code_key())
    for i, block in reversed(expected(blocks).items()):
        page = f"{page[: block.start]}{_trimmed(printed[i])}\n{page[block.end :]}"
    path.write_text(page, encoding="utf-8", newline="\n")


def main(words: list[str]) -> None:
    """``--run PAGE FOLDER`` prints the outputs as JSON; ``--update PAGE ...`` rewrites pages."""
    if words[:1] == ["--run"]:
        print(json.dumps(execute(Path(words[1]).resolve(), Path(words[2]))))
    else:
        for name in words[1:]:
            update(Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
