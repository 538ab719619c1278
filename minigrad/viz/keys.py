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
    "\x1b[C": "right", "\x1b[D": "left", "\x1b[H": "home", "\x1b[F": "end",
    "\x1bOC": "right", "\x1bOD": "left", "\x1bOH": "home", "\x1bOF": "end",
    "\x1b[1~": "home", "\x1b[4~": "end", "\x1b": "escape", "\n": "enter", "\r": "enter",
}  # fmt: skip
_KEY = re.compile(r"\x1b(?:\[[\d;]*[A-Za-z~]|O[A-Z])?|.", re.DOTALL)
_WINDOWS = {"M": "right", "K": "left", "G": "home", "O": "end"}


class Keys:
    """An iterator over the names of pressed keys; inside ``with`` the terminal sends each at once.

    Args:
        stream: a terminal that is read from.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.before: Any = None

    def __enter__(self) -> Iterator[str]:
        if termios is None:
            return _windows()
        descriptor = self.stream.fileno()
        self.before = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
        return _posix(descriptor)

    def __exit__(self, *exception: Any) -> None:
        if self.before is not None and termios is not None:
            termios.tcsetattr(self.stream.fileno(), termios.TCSADRAIN, self.before)


def _posix(descriptor: int) -> Iterator[str]:
    while sent := os.read(descriptor, 16):  # the bytes of one key, or of some pressed in haste
        for key in _KEY.finditer(sent.decode(errors="replace")):
            yield _POSIX.get(key[0], key[0])


def _windows() -> Iterator[str]:
    while key := msvcrt.getwch():
        special = key in "\0\xe0"  # the first half of a key that is no character
        yield str(_WINDOWS.get(msvcrt.getwch(), "") if special else _POSIX.get(key, key))
