"""Launches of ``matmul.cu``: what recorded steps use, since CuPy refuses cuBLAS in a capture."""

from collections.abc import Callable
from typing import Any

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Launch
from minigrad.fused.cuda.kernels import sum_rows

FILE = "matmul.cu"
INSTANCES = (
    *("matmul<float, float>", "matmul<float, double>", "matmul<double, double>"),
    *("sum_rows<float>", "sum_rows<double>"),
)
_TILE, _DEPTH, _THREADS = 64, 16, 256


def accepts(a: Any, b: Any) -> bool:
    """Whether the kernels serve this call: two matrices that fit."""
    is_matrices = a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0]
    return is_matrices and kernels.is_real(a, b) and 0 not in (*a.shape, *b.shape)


def forward(xp: Any, a: Any, b: Any) -> tuple[Any, tuple]:
    """``a @ b``."""
    return product(xp, a, b), (a, b)


def backward(xp: Any, y_bar: Any, cache: tuple) -> tuple[Callable, Callable]:
    """Functions that compute the cotangents of the factors, each only where it is needed."""
    a, b = cache
    return lambda: product(xp, y_bar, b.T), lambda: product(xp, a.T, y_bar)


def product(xp: Any, a: Any, b: Any) -> Any:
    """``a @ b`` for matrices with any strides; where tiles are few the sum is cut into slices."""
    (m, k), n = a.shape, b.shape[1]
    tiles = -(-m // _TILE) * -(-n // _TILE)
    wanted = -(-2 * kernels.device_of(xp, a).multiprocessors // tiles)
    steps = -(-k // _DEPTH)  # each waits for memory; a sum of slices is a launch more
    slices = min(wanted, steps // 2) if steps > 8 else 1
    length = -(-k // (slices * _DEPTH)) * _DEPTH
    slices = -(-k // length)
    real = kernels.real(a)
    result = xp.empty((slices, m * n), a.dtype if slices == 1 else "float64")
    size = 2 * _TILE * _DEPTH * a.dtype.itemsize
    strides = [step // a.dtype.itemsize for step in (*a.strides, *b.strides)]
    instance = f"matmul<{real}, {real if slices == 1 else 'double'}>"
    launch = Launch(tiles * slices, _THREADS, size)
    kernels.run(xp, FILE, instance, launch, a, b, result, m, n, k, *strides, length)
    if slices == 1:
        return result.reshape(m, n)
    return sum_rows(xp, FILE, result, (m, n), a.dtype)
