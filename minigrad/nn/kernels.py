"""The functions that layers compute with: the fused op where there is one.

Layers call ``kernels.conv(...)``, never ``ops.conv(...)``, so that ``fused.use`` decides whether
its kernel or its composite runs.
"""

from importlib import import_module
from typing import Any

from minigrad import backend, fused
from minigrad.composite import operand
from minigrad.fused import (
    batch_norm,
    binary_cross_entropy_with_logits,
    conv,
    elu,
    gelu,
    group_norm,
    layer_norm,
    leaky_relu,
    linear,
    max_pool,
    relu,
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
    "binary_cross_entropy_with_logits",
    "conv",
    "count_right",
    "cross_entropy",
    "elu",
    "gelu",
    "group_norm",
    "layer_norm",
    "leaky_relu",
    "linear",
    "matmul",
    "max_pool",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
]


_SMALL = 2**16  # the most logits that count_right leaves to one thread block of the GPU


def cross_entropy(logits: Any, labels: Any) -> Any:
    """``fused.cross_entropy``; labels may be on the host, where checking them is free."""
    labels = operand(labels)
    xp = backend.namespace(getattr(logits, "array", logits))
    return fused.cross_entropy(logits, checked_labels(xp, logits, labels))


def count_right(logits: Any, labels: Any) -> Any:
    """The number of rows of ``logits`` (N, K) with the maximum at their label (N,).

    The number is a scalar array on the same device, so the host need not wait for it.
    """
    xp = backend.namespace(logits)
    if backend.runs_kernels(xp) and 0 < logits.size <= _SMALL:
        cuda = import_module("minigrad.fused.cuda.cross_entropy")
        if cuda.accepts(logits, labels):
            return cuda.count_right(xp, logits, labels)
    return (logits.argmax(axis=1) == labels).sum()


def batch_statistics(x: Any, axes: tuple[int, ...], y: Any = None) -> tuple[Any, Any]:
    """Mean and biased (1/N) variance of ``x`` over ``axes``, as plain arrays.

    Args:
        x: a Tensor or array.
        axes: the averaged axes; they are dropped.
        y: ``batch_norm(x, ...)`` over the same axes, if at hand. If it was recorded, its graph
            already holds the statistics, and they are not computed again.
    """
    array = floating(backend.as_array(getattr(x, "array", x)))
    node = getattr(y, "node", None)
    if node is not None and node.op is batch_norm:
        _, cache = node.cache
    else:
        xp, labelled = backend.namespace(array), _recorded_statistics(node)
        if len(labelled) == 2:
            return xp.squeeze(labelled["mean"], axis=axes), xp.squeeze(labelled["var"], axis=axes)
        # the kernel's sums are more accurate than xp.mean
        ones = xp.ones(array.shape[1], dtype=array.dtype)
        _, (_, cache) = batch_norm.forward(xp, array, ones, ones, axis=axes)
    shape = tuple(n for i, n in enumerate(array.shape) if i not in axes)
    statistics = cache.mean, cache.var
    if all(s.shape == shape and s.dtype == array.dtype for s in statistics):
        return statistics
    return tuple(s.reshape(shape).astype(array.dtype, copy=False) for s in statistics)


def _recorded_statistics(node: Any) -> dict[str, Any]:
    """The values named "mean" and "var" in the recorded batch norm whose result is ``node``."""
    path = node.scope.path() if node is not None and node.scope is not None else []
    composite = next((scope for scope in reversed(path) if scope.name == "batch_norm"), None)
    labelled: dict[str, Any] = {}
    stack = [node]
    while stack:
        node = stack.pop()
        if node is not None and node.scope is not None and composite in node.scope.path():
            if node.name in ("mean", "var"):
                labelled[node.name] = node.value
            stack += node.parents
    return labelled
