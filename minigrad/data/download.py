"""Downloads: from any mirror that ``urllib`` can open, with retries and a checksum."""

import hashlib
import os
import time
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from minigrad import files
from minigrad.errors import DataError, UsageError, facts

_PAUSE = 0.5  # seconds before the second round; doubled before each further one
_TIMEOUT = 30  # seconds without receiving a byte
_ROUNDS = 3  # over the mirrors


def cache_folder() -> Path:
    """Where data sets are kept: ``MINIGRAD_DATA``, else ``minigrad`` in the XDG cache.

    Raises:
        UsageError: neither is set, and the user has no home directory, as in some containers.
    """
    if folder := os.environ.get("MINIGRAD_DATA"):
        return Path(folder)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "minigrad"
    try:
        return Path.home() / ".cache" / "minigrad"
    except RuntimeError as error:
        remedy = "set MINIGRAD_DATA to a folder, or pass root="
        raise UsageError(
            facts("data: folder", expected="a home directory", got=error, remedy=remedy)
        ) from error


def md5_of(path: Path) -> str:
    """Hexadecimal MD5 of a file, which detects damaged and wrong files, not attacks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, md5: str) -> None:
    """Raise DataError unless ``path`` has the checksum ``md5``."""
    if (actual := md5_of(path)) != md5:
        remedy = "delete it and try again; if these are other data, pass their folder as root="
        raise files.corrupt(path, f"md5 {md5}", f"md5 {actual}", remedy)


def fetch(name: str, md5: str, folder: Path, mirrors: Sequence[str]) -> None:
    """Download ``name`` into ``folder`` from the first mirror whose file has the right checksum.

    Args:
        name: file name, appended to each mirror.
        md5: hexadecimal checksum.
        folder: created if missing; the file appears in it complete or not at all.
        mirrors: URLs ending in ``/``; ``file://`` works, too.

    Raises:
        DataError: no mirror gave the file; the text has the reason for each.
    """
    reasons: dict[str, str] = {}
    for attempt in range(_ROUNDS):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        for mirror in mirrors:
            url = mirror.rstrip("/") + "/" + name
            try:
                with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
                    content = response.read()
            except (OSError, ValueError, HTTPException) as error:
                reasons[url] = str(error)
                continue
            actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if actual == md5:
                folder.mkdir(parents=True, exist_ok=True)
                files.write(folder / name, content)
                return
            reasons[url] = f"md5 {actual} instead of {md5} ({len(content)} bytes)"
    got = "; ".join(f"{url}: {reason}" for url, reason in reasons.items()) or "no mirrors"
    remedy = f"put the file into {folder}, or set MINIGRAD_MIRROR to a URL that has it"
    raise DataError(facts(f"download of {name} failed", expected="a mirror that has it", got=got,
                          remedy=remedy))  # fmt: skip
