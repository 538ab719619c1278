"""Array libraries: which one an operand belongs to, and moving arrays between them.

The operands decide: ``namespace(*arrays)`` looks their types up in one dictionary and returns the
module (``numpy``, ``cupy``) whose functions apply. There is no global switch. NumPy and CuPy are
built in; ``register(Library(...))`` adds another.
"""

import re
import sys
from collections.abc import Callable, MutableSequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigrad.errors import (
    DeviceError,
    DTypeError,
    LibraryMismatchError,
    ShapeError,
    describe,
    facts,
)


class Library(NamedTuple):
    """How minigrad talks to one array library.

    Args:
        xp: the module with NumPy's function names.
        types: its array and scalar types.
        device_of: array -> ``"cpu"``, ``"cuda:0"``, ...
        to_host: array -> ``numpy.ndarray``.
        from_host: (``numpy.ndarray``, device) -> array.
        checked: makes a context in which a matrix decomposition that fails raises.
    """

    xp: ModuleType
    types: tuple[type, ...]
    device_of: Callable[[Any], str]
    to_host: Callable[[Any], np.ndarray]
    from_host: Callable[[np.ndarray, str], Any]
    checked: Callable[[], AbstractContextManager] = nullcontext


WEAK = "number"  # in place of a module: Python numbers combine with arrays of any library
_LIBRARIES: dict[type, Library | None] = {float: None, int: None, bool: None}
MODULES: dict[type, ModuleType | str] = {float: WEAK, int: WEAK, bool: WEAK}  # read by op calls


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
            np.ulonglong,
        ),
        device_of=lambda array: "cpu",
        to_host=np.asarray,
        from_host=lambda array, device: array,
    )
)  # fmt: skip

_BOOL = np.dtype(bool)
_BITS = {np.dtype(f"f{size}"): np.dtype(f"i{size}") for size in (2, 4, 8)}

SCALARS = frozenset(NUMPY.types[1:])  # all but ndarray; the class implies dtype and shape ()


@cache
def cupy() -> Library:
    """CuPy, imported on first use. Raises DeviceError with the reason if it cannot be imported."""
    try:
        import cupy as cp
    except Exception as error:  # a broken CUDA set-up raises more than ImportError
        raise DeviceError(
            facts("cuda: CuPy cannot be imported", expected="CuPy to be installed", got=repr(error),
                  remedy="pip install 'minigrad[cuda12]' (or cuda13), on a machine with a GPU")
        ) from error  # fmt: skip

    def from_host(array: np.ndarray, device: str) -> Any:
        try:
            if ":" in device:  # CuPy computes on the current device, wherever the operands are
                cp.cuda.Device(int(device.partition(":")[2])).use()
            return cp.asarray(array)
        except (cp.cuda.runtime.CUDARuntimeError, OverflowError) as error:  # no such device
            raise DeviceError(
                facts(f"{device}: CuPy cannot use it", expected="a GPU with its driver", got=error,
                      remedy="run `minigrad info` to see what CuPy finds")
            ) from error  # fmt: skip

    def checked() -> AbstractContextManager:  # else CuPy ignores failures, so as not to wait
        return import_module("cupyx").errstate(linalg="raise")

    return register(
        Library(cp, (cp.ndarray,), lambda a: f"cuda:{a.device.id}", cp.asnumpy, from_host, checked)
    )


def runs_kernels(xp: Any) -> bool:
    """Whether the package's CUDA kernels run on the current GPU of ``xp``; False unless it is CuPy.

    They need compute capability 7.0 (Volta), from which on the threads of a warp may wait for each
    other.
    """
    return xp.__name__ == "cupy" and _capability(xp, xp.cuda.runtime.getDevice()) >= 70


@cache
def _capability(xp: Any, number: int) -> int:
    """The compute capability of a GPU times 10."""
    return int(xp.cuda.Device(number).compute_capability)


@cache
def unavailable(device: str = "cuda") -> str:
    """Why ``device`` cannot be used; ``""`` if a small computation on it is right."""
    try:
        library = _library_on(device)
        array = library.from_host(np.arange(4.0), device)
        host = library.to_host(array * array)
    except Exception as error:
        lines = [str(e).partition("\n")[0] for e in (error, error.__cause__) if e is not None]
        return ": ".join(filter(None, lines)) or type(error).__name__
    is_right = np.array_equal(host, np.arange(4.0) ** 2)
    return "" if is_right else f"{device}: a test computation gave a wrong result"


def _library_on(device: str) -> Library:
    if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise DeviceError(
            facts("no such device", expected="'cpu', 'cuda' or 'cuda:<n>'", got=repr(device))
        )
    return NUMPY if device == "cpu" else cupy()


def library_of(array: Any) -> Library | None:
    """The library of one operand; None for a Python number. Raises DTypeError for other types."""
    try:
        return _LIBRARIES[type(array)]
    except KeyError:
        pass
    if isinstance(array, (np.ma.MaskedArray, np.matrix)):
        expected, got = "a plain array, neither masked nor an np.matrix", type(array).__name__
        raise DTypeError(facts("array type", expected=expected, got=got))
    for base in type(array).__mro__[1:]:  # a subclass: np.memmap, say
        if base in _LIBRARIES and base is not object:
            return _LIBRARIES[base]
    if type(array).__module__.partition(".")[0] == "cupy" and "cupy" in sys.modules:
        return cupy()
    raise DTypeError(f"not an array of a known library: {describe(array)}")


def namespace(*arrays: Any) -> Any:
    """The module whose functions apply to ``arrays``; Python numbers combine with any.

    Raises:
        LibraryMismatchError: the arrays are of two libraries.
    """
    if len(arrays) == 1 and isinstance(module := MODULES.get(arrays[0].__class__), ModuleType):
        return module
    modules = {MODULES.get(array.__class__) or _module_of(array) for array in arrays} - {WEAK}
    if len(modules) > 1:
        raise LibraryMismatchError("operands of two array libraries")
    return modules.pop() if modules else np


def check_place(what: str, array: Any, like: Any) -> None:
    """LibraryMismatchError unless ``array``, given as ``what``, is of the library of ``like``."""
    if (library_of(array) or NUMPY) is not (library_of(like) or NUMPY):
        here, got = device_of(like), f"{describe(array)} on {device_of(array)}"
        remedy = f"move it with mg.tensor(a, device={here!r})"
        expected = f"an array on {here}"
        raise LibraryMismatchError(facts(what, expected=expected, got=got, remedy=remedy))


def _module_of(array: Any) -> Any:
    library = library_of(array)
    return library.xp if library else WEAK


def device_of(array: Any) -> str:
    """``"cpu"`` or ``"cuda:<n>"``."""
    library = library_of(array)
    return library.device_of(array) if library else "cpu"


def checked(array: Any) -> AbstractContextManager:
    """A context in which a decomposition raises if it fails, in the library of ``array``."""
    return (library_of(array) or NUMPY).checked()


def to_host(array: Any) -> np.ndarray:
    """``array`` as a ``numpy.ndarray``; no copy where it is one already."""
    return (library_of(array) or NUMPY).to_host(array)


def is_on(array: Any, device: str) -> bool:
    """Whether ``array`` lies on ``device``; ``"cuda"`` means any GPU."""
    here = device_of(array)
    return device == here or here.partition(":")[0] == device


def is_like(a: Any, b: Any) -> bool:
    """Whether ``a`` is an array of the type, shape, dtype and device of the array ``b``."""
    library = _LIBRARIES.get(a.__class__)
    if library is None or a.__class__ is not b.__class__:
        return False
    is_here = library is NUMPY or library.device_of(a) == library.device_of(b)
    return is_here and a.shape == b.shape and a.dtype == b.dtype


def to_device(array: Any, device: str) -> Any:
    """``array`` on ``device``, or ``array`` itself if it is there already.

    ``"cuda"`` is CuPy's current GPU; moving an array to ``"cuda:<n>"`` makes that GPU current.
    """
    if is_on(array, device):
        return array
    return _library_on(device).from_host(to_host(array), device)


class Kind:
    """Shape and dtype of an array, without the array."""

    __slots__ = ("dtype", "shape")

    def __init__(self, array: Any):
        self.shape, self.dtype = array.shape, array.dtype


_BLOCK = 8192  # elements of a dot product that BLAS does not yet split among threads
_LONG_ROW = 192  # elements from which `row += values` is faster than np.add.at


def count_not_finite(array: Any) -> int:
    """How many elements are nan or infinite."""
    xp = namespace(array)
    if array.dtype.kind != "f":
        return 0
    # Quick test: a finite sum of squares means finite elements, and needs no temporary array.
    # An infinite one may be an overflow.
    if xp is np and array.size > _BLOCK and array.dtype.char in "fd":  # BLAS has no float16
        flat = np.ravel(array, order="K")
        end = flat.size // _BLOCK * _BLOCK
        with np.errstate(over="ignore", invalid="ignore"):
            blocks, rest = flat[:end].reshape(-1, _BLOCK), flat[end:]
            if np.isfinite(np.vecdot(blocks, blocks).sum() + rest @ rest):
                return 0
    return int(array.size - xp.count_nonzero(xp.isfinite(array)))


def zeros_like(array: Any) -> Any:
    """Zeros of the shape, dtype and library of ``array``."""
    return frozen(namespace(array).zeros_like(array), own=True)


def as_dtype(
    dtype: Any,
    kinds: str = "fiub",
    headline: str = "dtype",
    expected: str = "a dtype of real numbers, such as 'float32'",
) -> np.dtype:
    """``dtype``, given by name, type or dtype; DTypeError unless its kind is in ``kinds``."""
    try:
        result = np.dtype(dtype)
    except (TypeError, ValueError):
        result = None
    if result is None or result.kind not in kinds:
        raise DTypeError(facts(headline, expected=expected, got=repr(dtype)))
    return result.newbyteorder("=")


def as_array(value: Any, dtype: Any = None) -> Any:
    """A number, sequence or foreign array as an array of real numbers.

    An array is copied only to change its dtype or byte order.

    Raises:
        DTypeError: not a dtype; or ``value`` is not real, does not fit the dtype or holds tensors.
        ShapeError: a ragged sequence.
    """
    if isinstance(value, (list, tuple)) and _holds_tensors(value):
        raise DTypeError(
            "a sequence that holds tensors: join them with minigrad.stack, which keeps their graph"
        )
    try:
        library = library_of(value) or NUMPY
    except DTypeError:
        if isinstance(value, np.ndarray):
            raise
        library = NUMPY
    dtype = None if dtype is None else as_dtype(dtype)
    try:
        array = library.xp.asarray(value)  # with a dtype, None would become nan
    except (RuntimeError, TypeError, ValueError) as error:  # PyTorch's say what to call first
        kind = ShapeError if isinstance(error, ValueError) else DTypeError
        raise kind(f"cannot convert to an array: {str(error).splitlines()[0]}") from error
    array = real(array)
    if dtype is None and not array.dtype.isnative:
        dtype = as_dtype(array.dtype)
    try:
        return array if dtype is None else real(library.xp.asarray(value, dtype=dtype))
    except (OverflowError, ValueError) as error:  # 300 as int8, nan as int
        expected = f"numbers that {dtype} can hold"
        raise DTypeError(facts(f"conversion to {dtype}", expected=expected, got=error)) from error


def _holds_tensors(items: Any) -> bool:
    """Whether a nested sequence holds tensors, whose graphs a conversion would drop silently."""
    if isinstance(items, (list, tuple)):
        return any(_holds_tensors(item) for item in items)
    return getattr(items, "__array_ufunc__", ...) is None


def real(array: Any) -> Any:
    """``array`` if it is real, or symbolic (objects, not of NumPy); DTypeError otherwise."""
    kind = getattr(array, "dtype", _BOOL).kind
    if kind not in "fiub" and (kind != "O" or library_of(array) is NUMPY):
        raise DTypeError(
            facts("array dtype", expected="real numbers (float, int, bool)", got=array.dtype)
        )
    return array


def as_operands(values: list) -> list:
    """``values`` with sequences as arrays; numbers stay numbers unless there is nothing else."""
    only_numbers = all(isinstance(value, (int, float)) for value in values)
    kept = () if only_numbers else (int, float)
    return [value if isinstance(value, kept) else as_array(value) for value in values]


def frozen(array: Any, own: bool = False) -> Any:
    """A private read-only copy of ``array``, which a graph can keep: the original may change.

    ``own``: nobody else holds ``array``, so no copy is needed. The elements of a tuple, list
    or slice (an index) are frozen one by one; tensors and buffers become arrays; all other objects
    pass through. A 0-d NumPy array becomes a NumPy scalar: immutable, and ten times as fast.
    """
    if array is None or MODULES.get(array.__class__) is WEAK:
        return array
    if isinstance(array, (tuple, list)):
        items = [frozen(item) for item in array]
        return items if isinstance(array, list) else tuple(items)
    if isinstance(array, slice):
        return slice(frozen(array.start), frozen(array.stop), frozen(array.step))
    library = _LIBRARIES.get(type(array))
    if library is not None and library is not NUMPY:
        return real(array) if own else real(array).copy()
    if isinstance(array, np.ndarray):
        if not array.ndim:
            return real(array)[()]
        return read_only(real(array) if own else np.array(real(array), subok=False))
    if hasattr(array, "node"):
        return frozen(array.array)
    return frozen(np.array(array)) if _is_buffer(array) else array


def _is_buffer(value: Any) -> bool:
    """Whether ``value`` may change and NumPy can make an array of it, such as ``array.array``."""
    if isinstance(value, np.generic):
        return False
    return isinstance(value, (MutableSequence, memoryview)) or hasattr(type(value), "__array__")


def read_only(array: Any) -> Any:
    """Mark ``array`` read-only where its library can (NumPy) and return it."""
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array


def masked(xp: Any, condition: Any, x: Any, out: Any = None) -> Any:
    """``x`` where ``condition`` holds, 0 elsewhere, whatever ``x`` is there; into ``out`` if given.

    NumPy's ``where`` branches at each element, and half of the branches are predicted wrong. A
    product with the mask is ten times as fast. The bits are multiplied, as integers, because the
    product of floats 0 * inf is nan.
    """
    if condition.__class__ is np.bool_ and x.__class__ in SCALARS:
        return x if condition else x.dtype.type(0)
    bits = _BITS.get(x.dtype) if x.__class__ is np.ndarray else None
    if bits is not None and getattr(condition, "dtype", None) == _BOOL:
        into = None if out is None else out.view(bits)
        return np.multiply(x.view(bits), condition, out=into).view(x.dtype)
    chosen = xp.where(condition, x, 0)
    if out is None:
        return chosen
    out[...] = chosen
    return out


def scatter_add(xp: Any, target: Any, key: Any, values: Any) -> None:
    """``target[key] += values`` in place, where repeated indices add up.

    The axes that ``key`` indexes are flattened into the rows of a matrix: NumPy's ``add.at`` is
    several times as fast along a single axis, and for long rows ``+=`` is faster still. Slices
    along an axis between others, as of ``x[:, [2, 0]]`` of images, are such rows, too.
    """
    key = checked_key(xp, target, key)
    if xp is np and isinstance(key, tuple) and _is_inner_axis(key, target.ndim):
        axis, index = len(key) - 1, np.asarray(key[-1])
        if target.size >= _LONG_ROW * target.shape[axis]:
            shape = (*target.shape[:axis], index.size, *target.shape[axis + 1 :])
            values = np.moveaxis(np.broadcast_to(values, shape), axis, 0)
            rows = np.moveaxis(target, axis, 0)
            for i, row in zip(index.tolist(), values, strict=True):
                rows[i] += row
            return
    indexed = target.shape if isinstance(key, tuple) else target.shape[: _axes_of(key)]
    count = prod(indexed)
    if xp is not np or count > values.size or not target.flags.c_contiguous:
        xp.add.at(target, key, values)
        return
    chosen = np.arange(count).reshape(indexed)[key]
    values = np.broadcast_to(values, chosen.shape + target.shape[len(indexed) :])
    rows = target.reshape(count, target.size // max(count, 1))
    length = rows.shape[1]
    values = values.reshape(chosen.size, length)
    if length >= _LONG_ROW:
        for i, row in zip(chosen.ravel().tolist(), values, strict=True):
            rows[i] += row
    else:
        places = chosen.reshape(-1, 1) * length + np.arange(length)
        np.add.at(rows.reshape(-1), places.reshape(-1), values.reshape(-1))


def _is_inner_axis(key: tuple, ndim: int) -> bool:
    """Whether ``key`` is ``:`` for some axes and then a vector of indices, with axes behind it."""
    index = key[-1] if 1 < len(key) < ndim and isinstance(key[-1], (list, np.ndarray)) else ()
    is_vector = np.ndim(index) == 1 and np.asarray(index).dtype.kind in "iu"
    return is_vector and all(isinstance(part, slice) and part == slice(None) for part in key[:-1])


def checked_key(xp: Any, array: Any, key: Any) -> Any:
    """``key``; IndexError if an index array on the host is out of bounds for ``array`` on a GPU.

    CuPy wraps such indices around silently. Index arrays on a GPU are not checked: that would need
    a copy to the host.
    """
    if xp is np:  # checks by itself
        return key
    parts = key if isinstance(key, tuple) else (key,)
    axis = 0
    for i, part in enumerate(parts):
        if isinstance(part, (list, tuple, np.ndarray)) and axis < array.ndim:
            index, n = np.asarray(part), array.shape[axis]
            outside = index[(index < -n) | (index >= n)] if index.dtype.kind in "iu" else index[:0]
            if outside.size:
                text = f"index {outside[0]} is out of bounds for axis {axis} with size {n}"
                raise IndexError(text)
        rest = sum(map(_axes_of, parts[i + 1 :]))
        axis = array.ndim - rest if part is ... else axis + _axes_of(part)
    return key


def _axes_of(part: Any) -> int:
    """How many axes of an array one part of an index consumes."""
    if part is None or part is ...:
        return 0
    part = np.asarray(part) if isinstance(part, (list, tuple)) else part
    return part.ndim if getattr(part, "dtype", None) == _BOOL else 1
