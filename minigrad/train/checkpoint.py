"""Checkpoints: arrays in a safetensors file, all else as JSON in its metadata; no pickle.

A checkpoint is written to a temporary file and then renamed, so the file is complete at any moment.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from minigrad import backend, files
from minigrad.errors import (
    DataError,
    DTypeError,
    MissingPackageError,
    UsageError,
    describe,
    facts,
)
from minigrad.nn.module import named_array

_JSON, _CHECKSUM = "minigrad", "crc32"  # keys in the metadata
NAME = "checkpoint.safetensors"


def safetensors() -> Any:
    """The module ``safetensors.numpy``.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import safetensors.numpy as module
    except ImportError as error:
        raise MissingPackageError(
            facts("checkpoints need the package safetensors", expected="that it is installed",
                  got=str(error), remedy="pip install 'minigrad[train]'")
        ) from error  # fmt: skip
    return module


def check_path(what: str, path: Path) -> None:
    """Raise now, not after an epoch of training, if no checkpoint can be written to ``path``.

    Raises:
        MissingPackageError: safetensors is not installed.
        UsageError: ``path`` is a folder, or its folder cannot be written to; it names ``what``.
    """
    safetensors()
    files.make_folder(path.parent, what)
    if path.is_dir():
        expected = "a checkpoint, or no file yet"
        raise UsageError(facts(f"{what}: {path}", expected=expected, got="a folder"))


def save_checkpoint(path: str | Path, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write ``arrays``, also tensors, and ``meta`` to ``path``, whole or not at all.

    Raises:
        DTypeError: what is no array of real numbers of at most 64 bits, by its name.
        UsageError: no dict, a name that the format cannot hold, or ``meta`` that JSON cannot.
    """
    path = files.as_path("save_checkpoint: path", path)
    if not isinstance(arrays, Mapping):
        expected, remedy = "a dict of arrays by name", "pass net.state_dict()"
        got = type(arrays).__name__
        raise UsageError(
            facts("save_checkpoint: arrays", expected=expected, got=got, remedy=remedy)
        )
    host = {}
    for name, value in arrays.items():
        if not isinstance(name, str) or name == "__metadata__":
            expected, got = "a string other than '__metadata__'", describe(name)
            raise UsageError(facts("save_checkpoint: name", expected=expected, got=got))
        array = backend.to_host(named_array(f"save_checkpoint: {name}", value))
        if array.dtype.itemsize > 8:
            expected, got = "numbers of at most 64 bits", array.dtype
            raise DTypeError(facts(f"save_checkpoint: {name}", expected=expected, got=got))
        host[name] = np.array(array, order="C")
    text = to_json("save_checkpoint: meta", meta)
    content = safetensors().save(host, metadata={_JSON: text, _CHECKSUM: _checksum(host, text)})
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content)


def to_json(what: str, meta: Any) -> str:
    """``meta`` as JSON; NumPy's numbers become Python's.

    UsageError, which names ``what``, if JSON cannot hold ``meta``.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} cannot be stored as JSON")

    try:
        return json.dumps(meta, default=plain)
    except (TypeError, ValueError) as error:
        raise UsageError(facts(what, expected="a dict that JSON can hold", got=error)) from error


def load_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the JSON part of a checkpoint.

    Raises:
        DataError: no such file, or one that is damaged or was not written by ``save_checkpoint``.
    """
    path = files.as_path("load_checkpoint: path", path)
    module = safetensors()
    try:
        content = path.read_bytes()
        arrays = module.load(content)
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        metadata = header["__metadata__"]
        text = metadata[_JSON]
        # older checkpoints have no checksum
        if len(metadata) > 1 and metadata[_CHECKSUM] != _checksum(arrays, text):
            raise ValueError("its bytes have changed since it was written")
        meta = json.loads(text)
    except OSError as error:
        raise DataError(
            facts(f"{path}: no checkpoint", expected="a readable file", got=error)
        ) from error
    except Exception as error:  # any error of the parsers means that it is no checkpoint
        raise files.corrupt(path, "a minigrad checkpoint (safetensors)", repr(error)) from error
    return arrays, meta


def _checksum(arrays: dict[str, np.ndarray], text: str) -> str:
    """CRC-32 of ``text`` and of all names, dtypes, shapes and bytes, in the order of the names."""
    checksum = crc32(text.encode())
    for name, array in sorted(arrays.items()):
        checksum = crc32(f"{name} {array.dtype.name} {array.shape}".encode(), checksum)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)  # as in the file
        checksum = crc32(np.ascontiguousarray(little).data, checksum)
    return f"{checksum:08x}"


def pack_optimizer(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An optimizer's ``state_dict`` as arrays by name and a JSON part."""
    arrays, numbers = {}, []
    for i, entries in enumerate(state["state"]):
        numbers.append({k: v for k, v in entries.items() if not hasattr(v, "shape")})
        arrays |= {f"optimizer.{i}.{k}": v for k, v in entries.items() if hasattr(v, "shape")}
    return arrays, {"numbers": numbers, "param_groups": state["param_groups"]}


def unpack_optimizer(arrays: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """The inverse of ``pack_optimizer``; ``arrays`` may hold other names, too."""
    state = [dict(numbers) for numbers in meta["numbers"]]
    for name, array in arrays.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state[int(i)][key] = array
    return {"state": state, "param_groups": meta["param_groups"]}
