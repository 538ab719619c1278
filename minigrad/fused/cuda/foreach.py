"""Launches of ``foreach.cu``: a launch takes longer than most of these arrays take to be read."""

from typing import Any

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Launch

FILE = "foreach.cu"
INSTANCES = ("copy_all", "axpby_all<float>", "axpby_all<double>")
_MOST, _BLOCKS, _THREADS = 64, 8, 256
_COPIES = {"from": "uint64", "to": "uint64", "words": "int64"}
_SUMS = {"x": "uint64", "y": "uint64", "out": "uint64", "size": "int64", "a": "f8", "b": "f8"}


def copy_all(xp: Any, pairs: list[tuple[Any, Any]]) -> None:
    """``to[...] = source`` for each pair ``(to, source)`` of arrays of one shape on one GPU."""
    rows, on = [], None
    for to, source in pairs:
        if _is_alike(to, source) and to.nbytes % 4 == 0:
            rows.append((source.data.ptr, to.data.ptr, to.nbytes // 4))
            on = to
        else:
            to[...] = source
    _run(xp, "copy_all", _COPIES, rows, on)


def axpby_all(xp: Any, terms: list[tuple[float, Any, float, Any]]) -> list[Any]:
    """``a * x + b * y`` for each ``(a, x, b, y)``: x and y are arrays of one shape on one GPU."""
    sums: list[Any] = []
    on, rows = None, {"float": [], "double": []}
    for a, x, b, y in terms:
        if _is_alike(x, y) and kernels.is_real(x):
            out = xp.empty(x.shape, x.dtype)
            numbers = out.size, float(a), float(b)
            rows[kernels.real(x)].append((x.data.ptr, y.data.ptr, out.data.ptr, *numbers))
            on = x
        else:
            out = a * x + b * y
        sums.append(out)
    for real, some in rows.items():
        _run(xp, f"axpby_all<{real}>", _SUMS, some, on)
    return sums


def _run(xp: Any, instance: str, fields: dict[str, str], rows: list[tuple], on: Any) -> None:
    """Launch ``instance`` on tables of up to ``_MOST`` rows, on the GPU of the array ``on``."""
    record = [(name, kind, (_MOST,)) for name, kind in fields.items()]
    for start in range(0, len(rows), _MOST):
        part = rows[start : start + _MOST]
        spare = (0,) * (_MOST - len(part))
        columns = tuple(column + spare for column in zip(*part, strict=True))
        launch = Launch(len(part) * _BLOCKS, _THREADS)
        kernels.run(xp, FILE, instance, launch, kernels.by_value(columns, record), _BLOCKS, on=on)


def _is_alike(a: Any, b: Any) -> bool:
    """Whether the elements of both lie in the same order, in words of 4 bytes."""
    lies = a.flags.c_contiguous and b.flags.c_contiguous and a.dtype == b.dtype
    return lies and a.size > 0 and a.data.ptr % 4 == b.data.ptr % 4 == 0
