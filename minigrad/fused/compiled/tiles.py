"""Tiles of a product of matrices: they stay in registers while they are summed.

BLAS is as fast, but unless ``threads`` could limit it, its threads spin for a tenth of a second
after each product, on the cores that the next kernels need: a step of a small ResNet that called it
took five times as long.

A task packs columns of the second matrix side by side, a panel, and multiplies rows of the first
one with it, HEIGHT at a time. Sums have the precision of the arrays.
"""

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minigrad.fused.compiled.jit import inner

# bytes of a vector, and vectors in a row of a tile: a tile and what is added to it fit in registers
VECTOR, ACROSS = (64, 4) if get_host_cpu_features().get("avx512f") else (32, 2)
HEIGHT = 4  # rows of a tile


def _filling(height):
    """``tile[r] = sum_k a.flat[base + starts[first + r] + k] * panel[k]`` for r < height.

    The loop is written in LLVM's language: numba would keep the sums in memory. ``sums`` are local
    variables, which LLVM puts into registers.
    """

    def type_and_emit(context, a, base, starts, first, count, panel, tile):
        dtype = a.dtype

        def emit(context, builder, signature, values):
            _, base, _, first, count, _, _ = values
            vector = ir.VectorType(context.get_data_type(dtype), VECTOR * 8 // dtype.bitwidth)
            size, integer = vector.count, count.type
            a, starts, panel, tile = (
                context.make_array(signature.args[i])(context, builder, values[i]).data
                for i in (0, 2, 5, 6)
            )

            def at(data, index):
                return builder.gep(data, [index])

            def vectors_at(data, row):
                begin = builder.mul(row, integer(ACROSS * size))
                places = [builder.add(begin, integer(v * size)) for v in range(ACROSS)]
                return [builder.bitcast(at(data, i), vector.as_pointer()) for i in places]

            offsets = [builder.load(at(starts, builder.add(first, integer(r))))
                       for r in range(height)]  # fmt: skip
            rows = [at(a, builder.add(base, offset)) for offset in offsets]
            sums = [[cgutils.alloca_once_value(builder, vector(None)) for _ in range(ACROSS)]
                    for _ in rows]  # fmt: skip
            with cgutils.for_range(builder, count) as loop:
                columns = [builder.load(p, align=1) for p in vectors_at(panel, loop.index)]
                for row, totals in zip(rows, sums, strict=True):
                    factor = builder.load(at(row, loop.index))
                    one = builder.insert_element(vector(ir.Undefined), factor, integer(0))
                    zeros = ir.VectorType(ir.IntType(32), size)(None)
                    factors = builder.shuffle_vector(one, vector(ir.Undefined), zeros)
                    for total, column in zip(totals, columns, strict=True):
                        term = builder.fmul(factors, column, flags=("contract",))
                        term = builder.fadd(builder.load(total), term, flags=("contract",))
                        builder.store(term, total)
            for r, totals in enumerate(sums):
                for total, place in zip(totals, vectors_at(tile, integer(r)), strict=True):
                    builder.store(builder.load(total), place, align=1)
            return context.get_dummy_value()

        return types.void(a, base, starts, first, count, panel, tile), emit

    return intrinsic(type_and_emit)


_fill: Any = _filling(HEIGHT)
_fill_row: Any = _filling(1)


@inner
def width_of(array):
    """Elements in a row of a tile."""
    return ACROSS * VECTOR // array.itemsize


@inner
def fill_tile(a, base, starts, first, last, count, panel, tile):
    """Set rows of ``tile`` to those of a product, at most HEIGHT; returns how many.

    Row r is the sum over ``k < count`` of ``a.flat[base + starts[first + r] + k] * panel[k]``. All
    arrays are in C order; ``panel`` and ``tile`` have ``width_of`` columns.
    """
    if last - first >= HEIGHT:
        _fill(a, base, starts, first, count, panel, tile)
        return HEIGHT
    for r in range(last - first):
        _fill_row(a, base, starts, first + r, count, panel, tile[r:])
    return last - first
