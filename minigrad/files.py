"""Files: atomic writes, and the error for a file that is not as expected."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from minigrad.errors import DataError, DTypeError, UsageError, describe, facts


def as_path(what: str, path: Any) -> Path:
    """``path`` as a Path; DTypeError, which names ``what``, unless it is one or a string."""
    if not isinstance(path, (str, os.PathLike)):
        got = describe(path)
        raise DTypeError(facts(what, expected="a path, as a string or a Path", got=got))
    return Path(path)


def make_folder(path: Path, what: str) -> None:
    """Make the folder ``path`` if needed; UsageError about ``what`` unless it is writable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        expected = "a folder that can be written to"
        raise UsageError(facts(what, expected=expected, got=error)) from error


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write ``content`` atomically: at every moment ``path`` is the complete old or new file.

    Text is written as UTF-8. A symbolic link stays a link. To a path that is not a regular file,
    such as /dev/stdout or a pipe, ``content`` is written directly.
    """
    path = Path(os.path.realpath(path))
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    # a uuid, as threads share a process id; 50 letters of up to 4 bytes: a name may have 255 bytes
    temporary = path.with_name(f".{path.name[:50]}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave the new name on old blocks
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except OSError as error:  # name `path`, not the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def corrupt(path: Path, expected: Any, got: Any, remedy: str = "") -> DataError:
    """The error for the file ``path``, whose content is not as expected."""
    return DataError(
        facts(f"{path}: cannot use this file", expected=expected, got=got, remedy=remedy)
    )
