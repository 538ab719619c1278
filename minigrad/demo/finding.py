"""Where the demos are, and finding one by what a user types."""

import ast
import difflib
from pathlib import Path

from minigrad.errors import UsageError, facts


def folder() -> Path:
    """Where the demos are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_demos"
    return installed if installed.is_dir() else package.parent / "demos"


def listed() -> list[Path]:
    """All demos, in the order of their numbers."""
    return sorted(folder().glob("[0-9][0-9]_*.py"))


def claim_of(path: str | Path) -> str:
    """The first line of a demo's docstring, without running it."""
    doc = ast.get_docstring(ast.parse(Path(path).read_text(encoding="utf-8"))) or ""
    return doc.strip().partition("\n")[0]


def find(name: str) -> Path:
    """The demo with this number, name, or beginning of a name.

    Args:
        name: ``3``, ``03``, ``03_standardization``, ``standardization`` or ``stand``.

    Raises:
        UsageError: none or several fit; the text names the near ones.

    >>> from minigrad import demo
    >>> demo.find("3").stem
    '03_standardization'
    """
    paths = {path.stem: path for path in listed()}
    wanted = name.removesuffix(".py").replace("-", "_").lower()
    if wanted.isdecimal():
        wanted = f"{int(wanted):02}_"
    fits = [s for s in paths if wanted in (s, s[3:])]
    fits = fits or [s for s in paths if s.startswith(wanted) or s[3:].startswith(wanted)]
    if len(fits) == 1:
        return paths[fits[0]]
    words = {stem[3:]: stem for stem in paths}
    near = fits or [stem for stem in paths if wanted in stem]
    near = near or [words[word] for word in difflib.get_close_matches(wanted, words, 3, 0.5)]
    got = f"{name!r}, which fits {len(fits)} demos" if fits else repr(name)
    remedy = f"one of {', '.join(near)}" if near else "`minigrad demo --list` shows all"
    raise UsageError(facts("demo", expected="the number or name of a demo", got=got, remedy=remedy))
