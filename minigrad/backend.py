"""Array libraries: which one an operand belongs to, and moving arrays between them.

The data decide: ``namespace(*arrays)`` looks the types up in one dictionary and returns the module
(``numpy``, ``cupy``) whose functions apply. There is no global switch. NumPy and CuPy are built
in; ``register(Library(...))`` adds another.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from minigrad.errors import DeviceError, DTypeError, LibraryMismatchError, describe, facts


@dataclass(frozen=True)
class Library:
    """How minigrad talks to one array library.

    Args:
        xp: the module with NumPy's function names.
        types: its array and scalar types.
        device_of: array -> ``"cpu"``, ``"cuda:0"``, ...
        to_host: array -> ``numpy.ndarray``.
        from_host: (``numpy.ndarray``, device) -> array.
    """

    xp: ModuleType
    types: tuple[type, ...]
    device_of: Callable[[Any], str]
    to_host: Callable[[Any], np.ndarray]
    from_host: Callable[[np.ndarray, str], Any]


WEAK = "number"  # a Python number goes with every library
_LIBRARIES: dict[type, Library | None] = {float: None, int: None, bool: None}
MODULES: dict[type, ModuleType | str] = {float: WEAK, int: WEAK, bool: WEAK}  # for op calls


def register(library: Library) -> Library:
    """Make ``library``'s arrays operands of every op."""
    _LIBRARIES.update(dict.fromkeys(library.types, library))
    MODULES.update(dict.fromkeys(library.types, library.xp))
    return library


NUMPY = register(
    Library(
        xp=np,
        types=(
            np.ndarray, np.bool_, np.float16, np.float32, np.float64, np.longdouble, np.int8,
            np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.longlong,
            np.ulonglong, np.complex64, np.complex128,
        ),
        device_of=lambda array: "cpu",
        to_host=np.asarray,
        from_host=lambda array, device: array,
    )
)  # fmt: skip


@cache
def cupy() -> Library:
    """CuPy, imported on first use. Raises DeviceError with the reason where it cannot be had."""
    try:
        import cupy as cp
    except Exception as error:  # a broken CUDA set-up raises more than ImportError
        raise DeviceError(
            facts("cuda: CuPy cannot be imported", expected="an installed cupy", got=repr(error),
                  remedy="pip install 'minigrad[cuda12]' (or cuda13), on a machine with a GPU")
        ) from error  # fmt: skip

    def from_host(array: np.ndarray, device: str) -> Any:
        with cp.cuda.Device(int(device.partition(":")[2] or 0)):
            return cp.asarray(array)

    return register(
        Library(cp, (cp.ndarray,), lambda a: f"cuda:{a.device.id}", cp.asnumpy, from_host)
    )


@cache
def unavailable(device: str = "cuda") -> str:
    """Why ``device`` cannot be used, or ``""`` when it computes: allocate, run, copy, compare."""
    try:
        library = _library_on(device)
        array = library.from_host(np.arange(4.0), device)
        host = library.to_host(array * array)
    except Exception as error:
        return str(error).splitlines()[0] or type(error).__name__
    return "" if np.array_equal(host, np.arange(4.0) ** 2) else f"{device}: wrong arithmetic"


def _library_on(device: str) -> Library:
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise DeviceError(
            facts("no such device", expected="'cpu', 'cuda' or 'cuda:<n>'", got=repr(device))
        )
    return NUMPY if kind == "cpu" else cupy()


def library_of(array: Any) -> Library | None:
    """The library of one operand; None for a Python number. Raises DTypeError for other types."""
    try:
        return _LIBRARIES[type(array)]
    except KeyError:
        pass
    if isinstance(array, np.ma.MaskedArray):
        raise DTypeError("a masked array cannot be an operand: its mask would be lost; fill it")
    for base in type(array).__mro__[1:]:  # a subclass: np.memmap, say
        if base in _LIBRARIES and base is not object:
            return _LIBRARIES[base]
    if type(array).__module__.partition(".")[0] == "cupy" and "cupy" in sys.modules:
        return cupy()
    raise DTypeError(f"not an array of a known library: {describe(array)}")


def namespace(*arrays: Any) -> Any:
    """The module whose functions apply to ``arrays``; Python numbers go with any.

    Raises:
        LibraryMismatchError: the arrays are of two libraries.
    """
    found = None
    for array in arrays:
        library = library_of(array)
        if library is None or library is found:
            continue
        if found is not None:
            raise LibraryMismatchError(
                facts("operands of two array libraries", expected="all on one device",
                      got=", ".join(f"{describe(a)} ({device_of(a)})" for a in arrays),
                      remedy="move one with x.to('cpu') or x.to('cuda')")
            )  # fmt: skip
        found = library
    return (found or NUMPY).xp


def device_of(array: Any) -> str:
    """``"cpu"`` or ``"cuda:<n>"``."""
    library = library_of(array)
    return library.device_of(array) if library else "cpu"


def to_host(array: Any) -> np.ndarray:
    """``array`` as a ``numpy.ndarray``; no copy where it is one already."""
    return (library_of(array) or NUMPY).to_host(array)


def to_device(array: Any, device: str) -> Any:
    """``array`` on ``device`` (``"cpu"``, ``"cuda"``, ``"cuda:1"``); itself where it is there."""
    target = _library_on(device)
    if target is library_of(array) and device_of(array).startswith(device):
        return array
    return target.from_host(to_host(array), device)


def as_array(value: Any, dtype: Any = None) -> Any:
    """A number, sequence or foreign array as an array of a known library, without a copy."""
    try:
        library = library_of(value)
    except DTypeError:
        if isinstance(value, np.ma.MaskedArray):
            raise
        library = NUMPY
    return (library or NUMPY).xp.asarray(value, dtype=dtype)


def frozen(array: Any) -> Any:
    """``array`` if nobody else can write to it, else a private read-only copy.

    What is inside a tuple or list (an index) is frozen, too; numbers pass through. A 0-d NumPy array
    becomes a NumPy scalar, which cannot change and computes ten times as fast.
    """
    if isinstance(array, (tuple, list)):
        return type(array)(frozen(item) for item in array)
    if not isinstance(array, np.ndarray):
        foreign = hasattr(array, "shape") and not isinstance(array, np.generic)
        return array.copy() if foreign else array
    if array.ndim == 0:
        return array[()]
    if array.base is None and not array.flags.writeable:
        return array
    return read_only(np.array(array, subok=False))


def read_only(array: Any) -> Any:
    """Mark ``array`` read-only where its library can (NumPy) and return it."""
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array


def scatter_add(xp: Any, target: Any, key: Any, values: Any) -> None:
    """``target[key] += values`` in place, where repeated indices add up."""
    xp.add.at(target, key, values)
