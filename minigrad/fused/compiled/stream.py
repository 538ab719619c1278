"""Stores that bypass the caches, for results too large to be found in a cache later.

An ordinary store first reads its cache line, and pushes out another one that may still be needed.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minigrad.fused.compiled.jit import inner

MIN_BYTES = 1 << 24  # of a result; smaller ones may still be in a cache when the next op reads them
MIN_ROW = 512  # elements of a contiguous row; its first and last line are stored as usual
LINE = 64  # bytes of a cache line


def bypasses(out):
    """Whether a kernel should write ``out`` by ``stream``."""
    return out.nbytes >= MIN_BYTES and out.shape[-1] >= MIN_ROW


def _type_and_emit(context, source, target, i):
    """``target[i : i + n] = source[i : i + n]`` for one aligned cache line of n elements."""
    dtype = target.dtype

    def emit(context, builder, signature, values):
        line = ir.VectorType(context.get_data_type(dtype), LINE * 8 // dtype.bitwidth).as_pointer()
        arrays = zip(signature.args[:2], values[:2], strict=True)
        data = [context.make_array(kind)(context, builder, array).data for kind, array in arrays]
        source, target = (builder.bitcast(builder.gep(p, [values[2]]), line) for p in data)
        store = builder.store(builder.load(source, align=dtype.bitwidth // 8), target, align=LINE)
        one = ir.Constant(ir.IntType(32), 1)
        store.set_metadata("nontemporal", builder.module.add_metadata([one]))
        return context.get_dummy_value()

    return types.void(source, target, i), emit


_store_line: Any = intrinsic(_type_and_emit)


@inner
def stream(source, target):
    """Copy the contiguous row ``source``, which is in a cache, to ``target``.

    Other threads see the copy once they have met this one at a lock, as at the end of a kernel.
    """
    n = LINE // target.itemsize
    first = min(-target.ctypes.data % LINE // target.itemsize, target.size)
    last = first + (target.size - first) // n * n
    target[:first] = source[:first]
    for i in range(first, last, n):
        _store_line(source, target, i)
    target[last:] = source[last : target.size]
