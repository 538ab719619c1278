"""Files: written whole or not at all, refused where they are not what they should be."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from minigrad.errors import DataError, UsageError, facts


def make_folder(path: Path, what: str) -> None:
    """Make the folder ``path`` and see that it can be written; UsageError about ``what`` if not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        expected = "a folder that can be written"
        raise UsageError(facts(what, expected=expected, got=error)) from error


def write(path: str | os.PathLike, content: bytes | str) -> None:
    """Write ``content`` so that ``path`` is at every moment the old file or the new one, whole.

    Text is written as UTF-8. A link stays one; what is no regular file, such as /dev/stdout or a
    pipe, is written to as it is.
    """
    path = Path(os.path.realpath(path))
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    # threads share a process id; a name may have 255 bytes, a letter 4
    temporary = path.with_name(f".{path.name[:50]}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave the new name on old blocks
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except OSError as error:  # it names no file, or the temporary one, for which nobody asked
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def corrupt(path: Path, expected: Any, got: Any, remedy: str = "") -> DataError:
    """The error for a file that is not what it should be."""
    return DataError(facts(f"{path}: refused", expected=expected, got=got, remedy=remedy))
