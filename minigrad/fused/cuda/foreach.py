"""Launches of ``foreach.cu``: a launch takes longer than most of these arrays take to be read."""

from typing import Any

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Launch

FILE = "foreach.cu"
INSTANCES = ("copy_all", "axpby_all<float>", "axpby_all<double>")
_MOST = 64  # arrays in one launch: their table is passed by value, in at most 4096 bytes
_THREADS, _EACH = 256, 4  # per block; elements of the largest array per thread
_BLOCKS = 2048  # that fill any GPU
_COPIES = {"words": "int64", "from": "uint64", "to": "uint64"}
_SUMS = {"size": "int64", "x": "uint64", "y": "uint64", "out": "uint64", "a": "f8", "b": "f8"}


def copy_all(xp: Any, pairs: list[tuple[Any, Any]]) -> None:
    """``to[...] = source`` for each pair ``(to, source)`` of arrays of one shape."""
    rows, on = [], None
    for to, source in pairs:
        if _is_alike(to, source) and to.nbytes % 4 == 0:
            rows.append((to.nbytes // 4, source.data.ptr, to.data.ptr))
            on = to
        else:
            to[...] = source
    _run(xp, "copy_all", _COPIES, rows, on)


def axpby_all(xp: Any, terms: list[tuple[float, Any, float, Any]]) -> list[Any]:
    """``a * x + b * y`` for each ``(a, x, b, y)``: x and y are arrays of one shape."""
    sums: list[Any] = []
    on, rows = None, {"float": [], "double": []}
    for a, x, b, y in terms:
        out = xp.empty(x.shape, x.dtype)  # on the present GPU
        if _is_alike(out, x, y) and kernels.is_real(out):
            places = x.data.ptr, y.data.ptr, out.data.ptr
            rows[kernels.real(out)].append((out.size, *places, float(a), float(b)))
            on = out
        else:
            out = a * x + b * y
        sums.append(out)
    for real, some in rows.items():
        _run(xp, f"axpby_all<{real}>", _SUMS, some, on)
    return sums


def _run(xp: Any, instance: str, fields: dict[str, str], rows: list[tuple], on: Any) -> None:
    """Launch ``instance`` on tables of up to ``_MOST`` rows, on the GPU of the array ``on``.

    A row begins with a size, by which work is divided.
    """
    record = [(name, kind, (_MOST,)) for name, kind in fields.items()]
    for start in range(0, len(rows), _MOST):
        part = rows[start : start + _MOST]
        spare = (0,) * (_MOST - len(part))
        columns = tuple(column + spare for column in zip(*part, strict=True))
        blocks = min(-(-max(columns[0]) // (_THREADS * _EACH)), _BLOCKS // len(part))
        launch = Launch(len(part) * blocks, _THREADS)
        kernels.run(xp, FILE, instance, launch, kernels.by_value(columns, record), blocks, on=on)


def _is_alike(*arrays: Any) -> bool:
    """Whether the elements of all lie on one GPU in the same order, in words of 4 bytes."""
    first = arrays[0]
    return first.size > 0 and all(
        a.flags.c_contiguous and a.dtype == first.dtype and a.device.id == first.device.id
        and a.data.ptr % 4 == 0
        for a in arrays
    )  # fmt: skip
