"""The works that are timed, each as a minigrad function and a PyTorch function of no arguments."""

import numpy as np
import torch
from torch.nn import functional

import minigrad as mg

CHAIN = 10_000


def chain(dtype: str):
    """10,000 scalar ops, forward and backward."""
    torch_dtype = getattr(torch, dtype)

    def steps(x):
        y = x
        for _ in range(CHAIN // 4):
            y = (y * 0.999 + x) * x - x
        y.backward()

    return (
        lambda: steps(mg.tensor(0.5, dtype=dtype, requires_grad=True)),
        lambda: steps(torch.tensor(0.5, dtype=torch_dtype, requires_grad=True)),
    )


def batch_norm(shape: tuple[int, ...]):
    """Batch norm composed of primitives, forward and backward, float32."""
    rng = np.random.default_rng(0)
    x, seed = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    ones, zeros = np.ones(shape[1], np.float32), np.zeros(shape[1], np.float32)

    def ours():
        leaves = [mg.tensor(a, requires_grad=True) for a in (x, ones, zeros)]
        mg.batch_norm(*leaves).backward(seed)

    def theirs():
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, ones, zeros)]
        y = functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], training=True)
        y.backward(torch.from_numpy(seed))

    return ours, theirs


def matmul():
    """A product of two 256 x 256 matrices, forward and backward, float32: the same BLAS."""
    a, b = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)

    def ours():
        x, w = mg.tensor(a, requires_grad=True), mg.tensor(b, requires_grad=True)
        (x @ w).sum().backward()

    def theirs():
        x, w = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
        (x @ w).sum().backward()

    return ours, theirs


WORKS = {
    "scalar chain, float32": chain("float32"),
    "scalar chain, float64": chain("float64"),
    "batch norm (256, 1024), composed": batch_norm((256, 1024)),
    "batch norm (256, 6, 24, 24), composed": batch_norm((256, 6, 24, 24)),
    "matmul (256, 256)": matmul(),
}
