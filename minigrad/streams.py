"""Standard streams of the command line: UTF-8, and no failure when the reader of a pipe is gone."""

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from textwrap import fill
from typing import Any


def prepare() -> None:
    """Make the standard streams accept any character and survive the end of their readers."""
    if os.environ.get("COLUMNS") == "0":  # some consoles' "unknown", at which rich prints nothing
        del os.environ["COLUMNS"]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as a service may do
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # for Greek letters in a pipe on Windows, and file names that are not valid UTF-8
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, _Outlet(stream, is_optional=name == "stderr"))


def columns() -> int:
    """The width of the terminal, or what the variable ``COLUMNS`` says; huge without either."""
    return shutil.get_terminal_size((sys.maxsize, 24)).columns


def filled(text: str, first: str = "", rest: str = "") -> str:
    """``text`` in lines as wide as the terminal, which begin with ``first`` and ``rest``.

    One line if there is no terminal.
    """
    return fill(text, columns(), initial_indent=first, subsequent_indent=rest,
                break_long_words=False, break_on_hyphens=False)  # fmt: skip


def drain() -> None:
    """Flush now: a write that fails while Python exits would change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)


def _silence(stream: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Outlet:
    """A stream; once the reader of its pipe is gone, the command goes on and output is dropped.

    ``is_optional``: so it does after any failure, as of a progress bar on a full disk.
    """

    def __init__(self, stream: Any, is_optional: bool):
        self.stream, self.is_optional = stream, is_optional

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        return self._unless_broken(self.stream.write, text) or len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self._unless_broken(self.stream.writelines, lines)

    def flush(self) -> None:
        self._unless_broken(self.stream.flush)

    def close(self) -> None:
        self.flush()  # checked code may close it, but the report is still to come

    def _unless_broken(self, call: Callable, *args: Any) -> Any:
        try:
            return call(*args)
        except OSError as error:
            if not self.is_optional and not isinstance(error, BrokenPipeError):
                # a full disk, say: add the name of the file
                raise OSError(error.errno, error.strerror, self.stream.name) from error
            _silence(self.stream)
