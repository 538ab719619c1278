"""Locating the demos, and finding one by its number or name as a user types it."""

import ast
import difflib
from pathlib import Path

from minigrad.errors import UsageError, facts


def folder() -> Path:
    """The folder of the demos: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_demos"
    return installed if installed.is_dir() else package.parent / "demos"


def listed() -> list[Path]:
    """All demos, in the order of their numbers."""
    return sorted(folder().glob("[0-9][0-9]_*.py"))


def claim_of(path: str | Path) -> str:
    """The first line of a demo's docstring; the demo is not run."""
    doc = ast.get_docstring(ast.parse(Path(path).read_text(encoding="utf-8"))) or ""
    return doc.strip().partition("\n")[0]


def find(name: str | int) -> Path:
    """The demo with this number, name, or beginning of a name.

    Args:
        name: ``3``, ``03``, ``03_standardization``, ``standardization`` or ``stand``.

    Raises:
        UsageError: no demo or several match; the text lists those, or similar ones.

    >>> from minigrad import demo
    >>> demo.find("3").stem
    '03_standardization'
    """
    paths = {path.stem: path for path in listed()}
    wanted = str(name).removesuffix(".py").replace("-", "_").lower()
    if wanted.isdecimal():
        wanted = f"{int(wanted):02}_"
    matches = [s for s in paths if wanted in (s, s[3:])]
    matches = matches or [s for s in paths if s.startswith(wanted) or s[3:].startswith(wanted)]
    if len(matches) == 1:
        return paths[matches[0]]
    stems = {stem[3:]: stem for stem in paths}  # by name without the number
    similar = matches or [stem for stem in paths if wanted in stem]
    similar = similar or [stems[s] for s in difflib.get_close_matches(wanted, stems, 3, 0.5)]
    got = f"{name!r}, which matches {len(matches)} demos" if matches else repr(name)
    remedy = f"one of {', '.join(similar)}" if similar else "`minigrad demo --list` shows all"
    raise UsageError(facts("demo", expected="the number or name of a demo", got=got, remedy=remedy))
