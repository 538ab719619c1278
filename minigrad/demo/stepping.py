"""A demo cell by cell: its prose, its code, its output, and the names that it changed."""

import contextlib
import inspect
import reprlib
import zlib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minigrad.demo.player import Cell, cells, play
from minigrad.demo.runs import Run
from minigrad.streams import columns, filled
from minigrad.tensor import Tensor

_HINT = "[Enter: next cell, q: stop] "


class _Stopped(Exception):
    """The reader has seen enough."""


def step(
    path: str | Path,
    *,
    fast: bool = False,
    seed: int = 0,
    out: str | Path = "out",
    pause: Callable[[str], str] = input,
) -> Run | None:
    """Play a demo with a pause after each cell, and show the names the cell made or changed.

    Args:
        path: the demo's file.
        fast, seed, out: its options.
        pause: shows a hint and returns what was typed; ``q`` stops. After an EOFError, when nobody
            can answer, the rest is played without pauses.

    Returns:
        The demo's Run, or None if it was stopped.
    """
    titled = [cell for cell in cells(path) if cell.title]
    is_asking = True

    @contextlib.contextmanager
    def around(cell: Cell, names: dict) -> Iterator[None]:
        nonlocal is_asking
        if not cell.title:  # the docstring
            yield
            print(_filled(inspect.cleandoc(names.get("__doc__") or "")))
            return
        place = titled.index(cell) + 1
        print(f"\n── {place} of {len(titled)} · {cell.title}")
        print(*filter(None, [_filled(cell.prose, "   "), cell.code.strip("\n")]), sep="\n")
        before = _fingerprints(names)
        print("──")
        yield
        for line in _changes(before, names):
            print(line)
        if is_asking and place < len(titled):
            is_asking = _answers(pause)

    try:
        return play(path, fast=fast, seed=seed, out=out, around=around)
    except _Stopped:
        return None


def _filled(text: str, indent: str = "") -> str:
    """``text``, indented; its paragraphs are filled anew if it is wider than the terminal."""
    width = columns()
    lines = [indent + line for line in text.splitlines()]
    if all(len(line) <= width for line in lines):
        return "\n".join(lines)
    parts = []
    for is_prose, block in groupby(text.splitlines(), lambda line: line[:1].strip() != ""):
        if is_prose:
            parts.append(filled(" ".join(block), indent, indent))
        else:  # an empty line or a formula
            parts += [indent + line for line in block]
    return "\n".join(parts)


def _answers(pause: Callable[[str], str]) -> bool:
    """Pause; whether somebody answered. Raises _Stopped if the answer is to stop."""
    try:
        answer = pause(_HINT)
    except EOFError:
        print()
        return False
    if answer.strip().lower() in ("q", "quit"):
        raise _Stopped
    return True


def _changes(before: dict[str, Any], names: dict) -> list[str]:
    """A line for each name that is new or has a new value: kind, shape, abbreviated value."""
    after = _fingerprints(names)
    lines = []
    for name, fingerprint in after.items():
        if before.get(name) != fingerprint:
            word = "changed" if name in before else "new"
            lines.append(f"  {word:8}{name}: {_brief(names[name])}")
    return lines


def _fingerprints(names: dict) -> dict[str, Any]:
    """A fingerprint of the value of each name that the demo made: it differs after a change."""
    hidden = (ModuleType, Run)
    return {
        name: _fingerprint(value)
        for name, value in names.items()
        if not name.startswith("_") and not isinstance(value, hidden)
    }


def _fingerprint(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes())
    if isinstance(value, Tensor):
        grad = None if value.grad is None else _fingerprint(value.grad.numpy())
        return _fingerprint(value.numpy()), grad
    if hasattr(value, "state_dict") and not isinstance(value, type):  # it may change in place
        return id(value), repr({k: _fingerprint(v) for k, v in value.state_dict().items()})
    if isinstance(value, list | tuple):
        return [_fingerprint(v) for v in value]
    if isinstance(value, dict):
        return [(key, _fingerprint(v)) for key, v in value.items()]
    return value if isinstance(value, int | float | str | bytes) else id(value)


def _brief(value: Any) -> str:
    """One line for a value: its kind, its shape and its first elements."""
    if isinstance(value, Tensor):
        grad = "" if value.grad is None else f"; grad {_numbers(value.grad.numpy())}"
        return f"Tensor {value.shape} {_numbers(value.numpy())}{grad}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array {value.shape} {_numbers(value)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int | str):
        return reprlib.repr(value)
    if isinstance(value, dict):
        return f"dict of {reprlib.repr(list(value))}"
    if isinstance(value, list | tuple | np.ndarray):
        kinds = {type(v) for v in value}
        names = " ".join(sorted(kind.__name__ for kind in kinds))
        plain = kinds <= {bool, int, float, str}
        return reprlib.repr(value) if plain else f"{type(value).__name__} of {len(value)} {names}"
    return " ".join(filter(None, (type(value).__name__, getattr(value, "__name__", ""))))


def _numbers(array: np.ndarray, limit: int = 4) -> str:
    shown = " ".join(f"{v:.4g}" if array.dtype.kind == "f" else str(v) for v in array.flat[:limit])
    return shown + " …" * (array.size > limit)
