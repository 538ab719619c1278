"""``Run``, one run of a demo with its numbers and pictures, and ``start``, which begins it."""

import argparse
import importlib
import inspect
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import files
from minigrad.errors import UsageError, facts
from minigrad.streams import filled
from minigrad.tensor import Tensor

PLAYED = "__minigrad_run__"  # the name under which ``play`` hands a Run to ``start``
_IPYTHON = "Automatically created module for"  # start of ``__doc__`` in IPython's cells


@dataclass
class Run:
    """One run of a demo: its options and results.

    Attributes:
        claim: the first line of the demo's docstring.
        about: the rest of that docstring.
        fast: whether to run the size for tests instead of the real one.
        seed: of ``rng``, a NumPy Generator.
        folder: for files, as given; ``out`` creates it.
        numbers: name -> value, in the order of the calls of ``number``.
        keys: the names of the numbers that the claim rests on.
        saved: the files written.
        printed: the output of each cell, in the order of ``cells``, with ``out`` for the folder.
        graph: the tensor whose graph ``minigrad draw`` and ``step`` show, if the demo named one.
        variables: of the demo, if it was played; among them are the layers, whose parameters have
            their names in a picture only as long as the layers exist.
    """

    claim: str
    fast: bool = False
    seed: int = 0
    folder: Path = Path("out")
    about: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    graph: Tensor | Any = None
    variables: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    @property
    def out(self) -> Path:
        """The folder for files; created on first use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def number(self, name: str, value: Any, form: str = ".4g", *, key: bool = False) -> Any:
        """Print ``name: value`` and keep the value in ``numbers``.

        Args:
            name: words and, if it has one, the unit.
            value: a number, a string, a list, an array or a Tensor.
            form: the format of floating-point numbers.
            key: whether the claim rests on it; the gallery shows these numbers.

        Returns:
            ``value``, as a Python number if it is a scalar.

        >>> from minigrad import demo
        >>> _ = demo.Run("Halves are smaller.").number("a third", 1 / 3)
        a third: 0.3333
        """
        value = value.numpy() if isinstance(value, Tensor) else value
        if getattr(value, "ndim", None) == 0:
            value = value.item()
        self.numbers[name] = value
        self.keys += [name] * key
        print(f"{name}: {_text(value, form)}")
        return value

    def save(self, name: str, picture: Any) -> Path:
        """Write a picture to ``out`` and print its path; a notebook also shows an SVG.

        Args:
            name: the file's name; its suffix chooses the format.
            picture: a matplotlib Figure, text (SVG, DOT, HTML), or a callable taking the path.

        Returns:
            The path of the file.
        """
        path = self.out / name
        if callable(picture):
            picture(path)
        elif isinstance(picture, str):
            files.write(path, picture)
        else:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            buffer = io.BytesIO()
            picture.savefig(buffer, format=path.suffix.removeprefix(".") or None, metadata=metadata)
            files.write(path, buffer.getvalue())
        self.saved.append(path)
        print(f"wrote {path.as_posix()}")
        ipython: Any = sys.modules.get("IPython")
        if path.suffix == ".svg" and ipython and hasattr(ipython.get_ipython(), "kernel"):
            shown = importlib.import_module("IPython.display")
            shown.display(shown.SVG(filename=str(path)))
        return path


def start(doc: str | None, *, minutes: int = 0) -> Run:
    """Begin a demo: print its claim and read ``--fast``, ``--seed`` and ``--out``.

    The options are read only if the demo runs as a script. In the cells of an editor, a notebook or
    a prompt the defaults hold, and there is no claim, because ``__doc__`` is not the demo's.

    Args:
        doc: the demo's ``__doc__``; its first line is the claim.
        minutes: how long its real size takes on one core; if not 0, printed before it begins.

    Raises:
        UsageError: the demo's file has no docstring.
    """
    caller = sys._getframe(1).f_globals
    in_cells = PLAYED not in caller and ("__file__" not in caller or _IPYTHON in (doc or ""))
    claim, _, about = ("" if in_cells else inspect.cleandoc(doc or "")).partition("\n")
    if not claim and not in_cells:
        raise UsageError(
            facts("start: doc", expected="a docstring that begins with the claim", got=doc)
        )
    run = caller.get(PLAYED) or _from_options(claim, caller.get("__file__"))
    run.claim, run.about = claim, about.strip()
    if claim:
        print(filled(claim))
    if minutes and not run.fast:
        plural = "s" * (minutes > 1)
        print(f"This takes about {minutes} minute{plural}; --fast takes seconds.", flush=True)
    return run


def _from_options(claim: str, file: str | None) -> Run:
    is_script = file is not None and Path(sys.argv[0]).resolve() == Path(file).resolve()
    parser = argparse.ArgumentParser(description=claim)
    parser.add_argument("--fast", action="store_true", help="small size for tests")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for pictures")
    options = parser.parse_args(sys.argv[1:] if is_script else [])
    return Run(claim, options.fast, options.seed, options.out)


def _text(value: Any, form: str) -> str:
    if isinstance(value, float):
        return format(value, form)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(v, form) for v in value) + "]"
    return str(value)
