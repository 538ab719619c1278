"""Checkpoints: arrays in safetensors, all else as JSON in its metadata; nothing is unpickled.

A checkpoint is written beside its name and renamed, so at every moment the file is whole.
"""

import json
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from minigrad import backend, files
from minigrad.errors import DataError, MissingPackageError, facts

_KEY, _SUM = "minigrad", "crc32"
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
            facts("checkpoints need the package safetensors", expected="an installed safetensors",
                  got=str(error), remedy="pip install 'minigrad[train]'")
        ) from error  # fmt: skip
    return module


def save_checkpoint(path: str | Path, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write ``arrays`` (of any library) and ``meta`` to ``path``, whole or not at all."""
    host = {k: np.array(backend.to_host(v), order="C", ndmin=0) for k, v in arrays.items()}
    text = to_json(meta)
    content = safetensors().save(host, metadata={_KEY: text, _SUM: _checksum(host, text)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content)


def to_json(meta: Any) -> str:
    """``meta`` as JSON; a number of NumPy becomes Python's."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} is no JSON")

    return json.dumps(meta, default=plain)


def load_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the JSON part of a checkpoint.

    Raises:
        DataError: no such file, not a safetensors file, truncated, damaged, or not one of ours.
    """
    path = Path(path)
    module = safetensors()
    try:
        content = path.read_bytes()
        arrays = module.load(content)
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        words = header["__metadata__"]
        text = words[_KEY]
        if len(words) > 1 and words[_SUM] != _checksum(arrays, text):  # older ones have no sum
            raise ValueError("bytes that changed since they were written")
        meta = json.loads(text)
    except OSError as error:
        raise DataError(facts(f"{path}: no checkpoint", expected="a file", got=error)) from error
    except Exception as error:  # whatever the parser found: the file is not a checkpoint of ours
        raise files.corrupt(path, "a minigrad checkpoint (safetensors)", repr(error)) from error
    return arrays, meta


def _checksum(arrays: dict[str, np.ndarray], text: str) -> str:
    """Of names, dtypes, shapes and bytes, in the order of the names, and of ``text``."""
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
        array = {k: v for k, v in entries.items() if hasattr(v, "shape")}
        arrays.update({f"optimizer.{i}.{k}": v for k, v in array.items()})
        numbers.append({k: v for k, v in entries.items() if k not in array})
    return arrays, {"numbers": numbers, "param_groups": state["param_groups"]}


def unpack_optimizer(arrays: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """The ``state_dict`` that ``pack_optimizer`` was given."""
    state = [dict(numbers) for numbers in meta["numbers"]]
    for name, array in arrays.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state[int(i)][key] = array
    return {"state": state, "param_groups": meta["param_groups"]}
