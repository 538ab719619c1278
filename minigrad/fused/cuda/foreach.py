"""Launches of ``foreach.cu``, each for many arrays: most of them are read in less time than a
launch takes."""

from struct import Struct
from typing import Any

import numpy as np

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Launch
from minigrad.fused.declare import same_floats

FILE = "foreach.cu"
INSTANCES = ("copy_all", *(f"{name}<{real}>" for name in ("axpby_all", "find_nonfinite", "track")
                           for real in ("float", "double")))  # fmt: skip
_ROWS = 64  # arrays of one launch: their table is passed by value, in at most 4096 bytes
_THREADS, _PER_THREAD = 256, 4  # threads of a block; elements of the largest array per thread
_BLOCKS = 2048  # enough to fill any GPU
_COPY, _RUN, _SUM = map(Struct, ("qQQ", "qQ", "qQQQdd"))  # rows of tables, as in ``foreach.cu``


def copy_all(xp: Any, pairs: list[tuple[Any, Any]]) -> None:
    """``to[...] = source`` for each pair ``(to, source)`` of arrays of one shape."""
    rows, on, device = [], None, xp.cuda.runtime.getDevice()
    for to, source in pairs:
        if _serves(to, source, device) and to.nbytes % 4 == 0:
            rows.append((to.nbytes // 4, source.data.ptr, to.data.ptr))
            on = to
        else:
            to[...] = source
    _run(xp, "copy_all", _COPY, rows, on)


def axpby_all(xp: Any, terms: list[tuple[float, Any, float, Any]]) -> list[Any]:
    """``a * x + b * y`` for each ``(a, x, b, y)``: x and y are arrays of one shape."""
    sums: list[Any] = []
    on, rows, device = None, {"float": [], "double": []}, xp.cuda.runtime.getDevice()
    for a, x, b, y in terms:
        if same_floats(x, y) and _serves(x, y, device):
            out = xp.empty(x.shape, x.dtype)
            row = (x.size, x.data.ptr, y.data.ptr, out.data.ptr, a, b)
            rows[kernels.real(out)].append(row)
            on = x
        else:
            out = a * x + b * y
        sums.append(out)
    for real, group in rows.items():
        _run(xp, f"axpby_all<{real}>", _SUM, group, on)
    return sums


def all_finite(xp: Any, arrays: list[Any]) -> bool:
    """Whether no element is nan or infinite."""
    flag, on, device = xp.zeros((), "uint32"), None, xp.cuda.runtime.getDevice()
    rows, others = {"float": [], "double": []}, []
    for array in arrays:
        if same_floats(array) and _serves(array, array, device):
            rows[kernels.real(array)].append((array.size, array.data.ptr))
            on = array
        else:
            others.append(xp.isfinite(array).all())
    for real, group in rows.items():
        _run(xp, f"find_nonfinite<{real}>", _RUN, group, on, flag)
    return not int(flag) and all(map(bool, others))


def track(
    xp: Any, running: tuple, mean: Any, var: Any, weight: float, factor: float
) -> tuple[Any, Any, Any] | None:
    """``fused.foreach.track``; None if the kernel does not serve these arrays."""
    old_mean, old_var, batches = running
    floats = old_mean, old_var, mean, var
    is_count = isinstance(batches, xp.ndarray) and batches.dtype == np.int64 and not batches.shape
    is_served = is_count and same_floats(*floats) and mean.size > 0
    if not is_served or any(array.shape != mean.shape for array in floats):
        return None
    given = tuple(map(xp.ascontiguousarray, (*running, mean, var)))
    out = tuple([xp.empty(array.shape, array.dtype) for array in running])
    launch = Launch(-(-mean.size // _THREADS), _THREADS)
    numbers = mean.size, float(weight), float(factor)
    kernels.run(xp, FILE, f"track<{kernels.real(mean)}>", launch, *given, *out, *numbers)
    return out


def _run(xp: Any, instance: str, row: Struct, rows: list[tuple], on: Any, *results: Any) -> None:
    """Launch ``instance`` on tables of up to ``_ROWS`` rows, on the GPU of the array ``on``.

    A row begins with a size; the largest determines the number of blocks.
    """
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        packed = bytearray(_ROWS * row.size)
        for i, numbers in enumerate(part):
            row.pack_into(packed, i * row.size, *numbers)
        table = np.ndarray((), kernels.struct(len(packed)), packed)
        blocks = min(-(-max(part)[0] // (_THREADS * _PER_THREAD)), _BLOCKS // len(part))
        launch = Launch(len(part) * blocks, _THREADS)
        kernels.run(xp, FILE, instance, launch, table, *results, blocks, on=on)


def _serves(x: Any, y: Any, device: int) -> bool:
    """Whether both lie on ``device`` in C order, with one dtype, not empty, aligned to 4 bytes."""
    return (
        x.size > 0 and x.dtype == y.dtype and x.device.id == y.device.id == device
        and x.flags.c_contiguous and y.flags.c_contiguous
        and x.data.ptr % 4 == 0 and y.data.ptr % 4 == 0
    )  # fmt: skip
