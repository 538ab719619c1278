"""Launches of ``matmul.cu``: small products, and all products of recorded steps, which cannot use
cuBLAS."""

from collections.abc import Callable
from typing import Any

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Launch
from minigrad.fused.cuda.kernels import sum_rows
from minigrad.fused.declare import same_floats

FILE = "matmul.cu"
_PAIRS = ("float, float", "float, double", "double, double")  # of the operands, of the results
INSTANCES = (
    *(f"matmul<{pair}, {side}>" for pair in _PAIRS for side in (4, 16)),
    *("sum_rows<float>", "sum_rows<double>"),
)
_THREADS = 256
_MIN_LENGTH = 512  # of a slice along k, since adding up slices takes another launch


def accepts(a: Any, b: Any) -> bool:
    """Whether the kernels serve this call: two matrices that fit."""
    is_matrices = a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0]
    return is_matrices and same_floats(a, b) and 0 not in (*a.shape, *b.shape)


def forward(xp: Any, a: Any, b: Any) -> tuple[Any, tuple]:
    """``a @ b``."""
    return product(xp, a, b), (a, b)


def backward(xp: Any, y_bar: Any, cache: tuple) -> tuple[Callable, Callable]:
    """Functions that compute the cotangents of the factors, each only where it is needed."""
    a, b = cache
    return lambda: product(xp, y_bar, b.T), lambda: product(xp, a.T, y_bar)


def product(xp: Any, a: Any, b: Any, bias: Any = None) -> Any:
    """``a @ b``, for any strides; ``bias`` is added to each row."""
    return _product(xp, a, b, bias, ones=False).reshape(a.shape[0], b.shape[1])


def product_and_sums(xp: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """``a @ b`` and ``a.sum(axis=1)``."""
    both = _product(xp, a, b, None, ones=True)
    m, n = a.shape[0], b.shape[1]
    return both[: m * n].reshape(m, n), both[m * n :]


def _product(xp: Any, a: Any, b: Any, bias: Any, *, ones: bool) -> Any:
    """The product as one row, followed by ``a.sum(axis=1)`` if ``ones``.

    If there are too few tiles to keep the GPU busy, sums over k are cut into slices.
    """
    (m, k), n = a.shape, b.shape[1]
    wanted = kernels.device_of(xp, a).multiprocessors
    side = 16 if _tiles(m, n + ones, 16) >= wanted else 4  # of a tile, in threads
    tiles, depth = _tiles(m, n + ones, side), 16 if side == 16 else 128
    slices = max(1, min(2 * wanted // tiles, k // _MIN_LENGTH))
    length = -(-k // (slices * depth)) * depth
    slices = -(-k // length)
    real = kernels.real(a)
    result = xp.empty((slices, m * (n + ones)), a.dtype if slices == 1 else "float64")
    # two tiles of 4 * side padded rows, as in struct Sizes
    size = 2 * 4 * side * (depth * a.dtype.itemsize + (16 if side == 16 else 32))
    strides = [step // a.dtype.itemsize for step in (*a.strides, *b.strides)]
    instance = f"matmul<{real}, {real if slices == 1 else 'double'}, {side}>"
    arrays = a, b, a if bias is None else xp.ascontiguousarray(bias), result
    numbers = m, n, k, *strides, length, int(bias is not None), int(ones)
    kernels.run(xp, FILE, instance, Launch(tiles * slices, _THREADS, size), *arrays, *numbers)
    if slices == 1:
        return result[0]
    return sum_rows(xp, FILE, result, result.shape[1:], a.dtype)


def _tiles(m: int, n: int, side: int) -> int:
    return -(-m // (4 * side)) * -(-n // (4 * side))
