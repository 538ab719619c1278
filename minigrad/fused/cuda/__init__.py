"""Fused ops as CUDA kernels for CuPy; importing this needs neither CuPy nor a GPU.

``PAIRS``: name of an op -> the ``Pair`` that launches its kernels. ``SOURCES``: name of a ``.cu``
file -> its template instances. Each file begins with its algorithm.
"""

from minigrad.fused.cuda import (
    batch_norm,
    conv,
    cross_entropy,
    foreach,
    layer_norm,
    linear,
    matmul,
    max_pool,
    sigmoid,
)
from minigrad.fused.declare import Pair

_MODULES = {
    "batch_norm": batch_norm,
    "conv": conv,
    "cross_entropy": cross_entropy,
    "layer_norm": layer_norm,
    "linear": linear,
    "matmul": matmul,
    "max_pool": max_pool,
    "sigmoid": sigmoid,
}

PAIRS = {name: Pair(m.forward, m.backward, m.accepts) for name, m in _MODULES.items()}
SOURCES = {m.FILE: m.INSTANCES for m in (*_MODULES.values(), foreach)}

__all__ = ["PAIRS", "SOURCES"]
