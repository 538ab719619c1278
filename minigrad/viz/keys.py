"""Single keys from a terminal, without Enter, on POSIX and on Windows."""

import os
import re
from collections.abc import Iterator
from typing import Any

termios: Any
tty: Any
msvcrt: Any
try:
    import termios
    import tty
except ImportError:  # Windows
    termios = tty = None
try:
    import msvcrt
except ImportError:  # POSIX
    msvcrt = None

_POSIX = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
    "\x1b[H": "home", "\x1b[F": "end", "\x1bOH": "home", "\x1bOF": "end",
    "\x1b[1~": "home", "\x1b[4~": "end", "\x1b": "escape", "\n": "enter", "\r": "enter",
}  # fmt: skip
_KEY = re.compile(r"\x1b(?:\[[\d;]*[A-Za-z~]|O[A-Z])?|.", re.DOTALL)
_WINDOWS = {"H": "up", "P": "down", "M": "right", "K": "left", "G": "home", "O": "end"}


class Keys:
    """A ``with`` block in which a terminal sends each key at once; an iterator over their names.

    Args:
        stream: a terminal to read from.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self._settings: Any = None  # of the terminal before

    def __enter__(self) -> Iterator[str]:
        if termios is None:
            return _windows()
        descriptor = self.stream.fileno()
        self._settings = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
        return _posix(descriptor)

    def __exit__(self, *exception: Any) -> None:
        if self._settings is not None and termios is not None:
            termios.tcsetattr(self.stream.fileno(), termios.TCSADRAIN, self._settings)


def _posix(descriptor: int) -> Iterator[str]:
    while sent := os.read(descriptor, 16):  # the bytes of a key, or of several pressed quickly
        for key in _KEY.finditer(sent.decode(errors="replace")):
            yield _POSIX.get(key[0], key[0])


def _windows() -> Iterator[str]:
    while key := str(msvcrt.getwch()):
        if key in "\0\xe0":  # an arrow or function key: its code follows
            yield _WINDOWS.get(str(msvcrt.getwch()), "")
        else:
            yield _POSIX.get(key, key)
