"""The functions that layers compute with: the one place where a faster version is put in.

Layers call ``kernels.conv(...)``, never ``ops.conv(...)``; names and signatures are those of the
composites they stand for.
"""

from typing import Any

from minigrad import backend
from minigrad.ops.conv import conv
from minigrad.ops.linalg import matmul
from minigrad.ops.normalization import batch_norm, layer_norm
from minigrad.ops.pool import avg_pool, max_pool

__all__ = ["avg_pool", "batch_norm", "batch_statistics", "conv", "layer_norm", "matmul", "max_pool"]


def batch_statistics(x: Any, axes: tuple[int, ...], y: Any = None) -> tuple[Any, Any]:
    """Mean and biased (1/N) variance of ``x`` over ``axes``, as plain arrays; two passes.

    Args:
        x: a Tensor or array.
        axes: the averaged axes; they are dropped.
        y: ``batch_norm(x, ...)`` over the same axes, if at hand: where it was recorded, its graph
            holds both numbers already.
    """
    found = _recorded_statistics(y)
    array = getattr(x, "array", x)
    xp = backend.namespace(array)
    if len(found) == 2:
        return xp.squeeze(found["mean"], axis=axes), xp.squeeze(found["var"], axis=axes)
    mean = array.mean(axis=axes, keepdims=True)
    xc = array - mean
    return xp.squeeze(mean, axis=axes), (xc * xc).mean(axis=axes)


def _recorded_statistics(y: Any) -> dict[str, Any]:
    """The values labelled "mean" and "var" in the recorded call of batch_norm that made ``y``."""
    node = getattr(y, "node", None)
    path = node.scope.path() if node is not None and node.scope is not None else []
    run = next((scope for scope in reversed(path) if scope.name == "batch_norm"), None)
    found: dict[str, Any] = {}
    stack = [node] if run is not None else []
    while stack:
        node = stack.pop()
        if node is not None and node.scope is not None and run in node.scope.path():
            if node.name in ("mean", "var"):
                found[node.name] = node.value
            stack += node.parents
    return found
