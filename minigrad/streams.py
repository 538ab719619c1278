"""Where the command line writes: any letter, and also when nobody reads any more."""

import io
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


def prepare() -> None:
    """Make the standard streams take any letter and outlive their readers."""
    if os.environ.get("COLUMNS") == "0":  # unknown, as some consoles say it: rich prints nothing
        del os.environ["COLUMNS"]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed, as a service may do
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # Greek letters, also into a pipe on Windows; a file's name in another encoding
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, _Outlet(stream))


def drain() -> None:
    """Leave no text for Python to write at exit: what fails there changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)


def _silence(stream: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Outlet:
    """A stream to a pipe; once the reader has gone, the command goes on and is not heard."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        return self._unless_broken(self.stream.write, text) or len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self._unless_broken(self.stream.writelines, lines)

    def flush(self) -> None:
        self._unless_broken(self.stream.flush)

    def _unless_broken(self, call: Callable, *args: Any) -> Any:
        try:
            return call(*args)
        except BrokenPipeError:
            _silence(self.stream)
        except OSError as error:  # no room on the disk, say: it does not name what it was for
            raise OSError(error.errno, error.strerror, self.stream.name) from error
