"""The functions that layers compute with: fused ops, which ``fused.use`` turns into composites.

Layers call ``kernels.conv(...)``, never ``ops.conv(...)``.
"""

from importlib import import_module
from typing import Any

import numpy as np

from minigrad import backend, fused
from minigrad.fused import (
    batch_norm,
    conv,
    elu,
    gelu,
    layer_norm,
    leaky_relu,
    linear,
    max_pool,
    sigmoid,
    softmax,
    softplus,
    tanh,
)
from minigrad.ops.linalg import matmul
from minigrad.ops.loss import checked_labels
from minigrad.ops.pool import avg_pool
from minigrad.ops.shape import floating

__all__ = [
    "avg_pool",
    "batch_norm",
    "batch_statistics",
    "conv",
    "count_right",
    "cross_entropy",
    "elu",
    "gelu",
    "layer_norm",
    "leaky_relu",
    "linear",
    "matmul",
    "max_pool",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
]


SMALL = 2**16  # logits of which one block counts the right ones


def cross_entropy(logits: Any, labels: Any) -> Any:
    """``fused.cross_entropy`` of labels that may lie on the host, where checking them is free."""
    labels = labels if hasattr(labels, "shape") else np.asarray(labels)
    xp = backend.namespace(getattr(logits, "array", logits))
    return fused.cross_entropy(logits, checked_labels(xp, logits, labels))


def count_right(logits: Any, labels: Any) -> Any:
    """How many rows of an array (N, K) are largest at their label (N,), as an array there."""
    xp = backend.namespace(logits)
    if xp.__name__ == "cupy" and 0 < logits.size <= SMALL:
        launches = import_module("minigrad.fused.cuda.cross_entropy")
        if launches.accepts(logits, labels):
            return launches.count_right(xp, logits, labels)
    return (logits.argmax(axis=1) == labels).sum()


def batch_statistics(x: Any, axes: tuple[int, ...], y: Any = None) -> tuple[Any, Any]:
    """Mean and biased (1/N) variance of ``x`` over ``axes``, as plain arrays.

    Args:
        x: a Tensor or array.
        axes: the averaged axes; they are dropped.
        y: ``batch_norm(x, ...)`` over the same axes, if at hand: where it was recorded, its graph
            holds both numbers already.
    """
    array = floating(getattr(x, "array", x))
    node = getattr(y, "node", None)
    if node is not None and node.op is batch_norm:
        _, cache = node.cache
    else:
        xp, found = backend.namespace(array), _recorded_statistics(node)
        if len(found) == 2:
            return xp.squeeze(found["mean"], axis=axes), xp.squeeze(found["var"], axis=axes)
        ones = xp.ones(array.shape[1], dtype=array.dtype)  # kernels sum with more care than mean()
        _, (_, cache) = batch_norm.forward(xp, array, ones, ones, axis=axes)
    kept = tuple(n for i, n in enumerate(array.shape) if i not in axes)
    found = cache.mean, cache.var
    if all(s.shape == kept and s.dtype == array.dtype for s in found):
        return found
    return tuple(s.reshape(kept).astype(array.dtype, copy=False) for s in found)


def _recorded_statistics(node: Any) -> dict[str, Any]:
    """The values labelled "mean" and "var" in the recorded composite of which ``node`` is last."""
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
