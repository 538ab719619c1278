"""IDX files, the format of MNIST: a big-endian header and unsigned bytes, gzipped.

The header begins with ``00 00 08 d``, for unsigned bytes in d dimensions; d lengths of 32 bits
follow, then the bytes in row-major order.
"""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from minigrad.errors import check_count
from minigrad.files import as_path, corrupt

_LARGEST = 2**31  # bytes; a header that announces more is refused
_BLOCK = 2**20  # bytes
_MOST_AXES = 64  # of an array of NumPy


def read_idx(path: str | Path, ndim: int) -> np.ndarray:
    """The array in a gzipped IDX file.

    Args:
        path: the file.
        ndim: 1 for labels, 3 for images.

    Returns:
        uint8, with ``ndim`` axes.

    Raises:
        DataError: not a gzip file, truncated, too long, or with another number of dimensions.
        UsageError: ``ndim`` is not a whole number from 1 to 64.
    """
    path = as_path("read_idx: path", path)
    ndim = check_count("read_idx: ndim", ndim, most=_MOST_AXES)
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * ndim)
            shape = _shape(path, header, ndim)
            size = prod(shape)
            body = bytearray()
            # at most one byte more, to detect data behind the array; in blocks, as read(n) would
            # allocate n bytes, however few the file has
            while block := file.read(min(size + 1 - len(body), _BLOCK)):
                body += block
    except (OSError, EOFError, zlib.error) as error:
        raise corrupt(path, "a readable gzip file", repr(error)) from error
    if len(body) != size:
        got = f"{len(body)} bytes" if len(body) < size else "more bytes"
        raise corrupt(path, f"{size} bytes after the header, for {shape}", got)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _shape(path: Path, header: bytes, ndim: int) -> tuple[int, ...]:
    magic = bytes([0, 0, 8, ndim])
    if header[:4] != magic:
        kind = {1: "labels", 3: "images"}.get(ndim, f"{ndim} dimensions")
        raise corrupt(path, f"magic number {magic.hex()} ({kind})", header[:4].hex() or "nothing")
    if len(header) != 4 + 4 * ndim:
        raise corrupt(path, f"a header of {4 + 4 * ndim} bytes", f"{len(header)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(header[4:], dtype=">u4"))
    if prod(shape) > _LARGEST:
        raise corrupt(path, f"at most {_LARGEST} bytes", f"a header for {shape}")
    return shape
