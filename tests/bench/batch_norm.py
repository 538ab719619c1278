"""Batch norm, forward and backward, of random inputs and a random cotangent."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .contestant import Contestant, host, load, load_jax, load_torch, value_of
from .machine import THREADS

EPS = 1e-5


def operands(shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, ...]:
    """``x, gamma, beta, y_bar``, the same for all contestants."""
    rng = np.random.default_rng(0)
    c = shape[1]
    arrays = (
        rng.normal(0.5, 2.0, size=shape),
        rng.uniform(0.5, 1.5, size=c),
        rng.normal(size=c),
        rng.normal(size=shape),
    )
    return tuple(a.astype(dtype) for a in arrays)


def minigrad(shape: tuple[int, ...], dtype: str, device: str | None = None) -> Contestant:
    mg = load("minigrad")
    *leaves, y_bar = operands(shape, dtype)
    x, gamma, beta = (mg.tensor(a, requires_grad=True, device=device) for a in leaves)
    seed = mg.tensor(y_bar, device=device)
    last: dict[str, Any] = {}

    def step() -> None:
        for leaf in (x, gamma, beta):
            leaf.grad = None
        y = mg.fused.batch_norm(x, gamma, beta, eps=EPS)
        y.backward(seed)
        last["y"] = value_of(y)

    return Contestant(
        step, lambda: host(**last, x_bar=x.grad, gamma_bar=gamma.grad, beta_bar=beta.grad)
    )


def torch(shape: tuple[int, ...], dtype: str, device: str = "cpu") -> Contestant:
    torch = load_torch()
    *leaves, y_bar = operands(shape, dtype)
    x, gamma, beta = (torch.tensor(a, requires_grad=True, device=device) for a in leaves)
    seed = torch.tensor(y_bar, device=device)
    last: dict[str, Any] = {}

    def step() -> None:
        x.grad = gamma.grad = beta.grad = None
        y = torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=EPS)
        y.backward(seed)
        last["y"] = value_of(y)

    return Contestant(
        step, lambda: host(**last, x_bar=x.grad, gamma_bar=gamma.grad, beta_bar=beta.grad)
    )


def mygrad(shape: tuple[int, ...], dtype: str) -> Contestant:
    my = load("mygrad")
    layer = load("mygrad.nnet.layers").batchnorm
    *leaves, y_bar = operands(shape, dtype)
    x, gamma, beta = (my.tensor(a) for a in leaves)
    last: dict[str, Any] = {}

    def step() -> None:
        for leaf in (x, gamma, beta):
            leaf.null_grad()
        y = layer(x, gamma=gamma, beta=beta, eps=EPS)
        y.backward(y_bar)
        last.update(y=value_of(y), x_bar=x.grad, gamma_bar=gamma.grad, beta_bar=beta.grad)

    return Contestant(step, lambda: host(**last))


def jax(shape: tuple[int, ...], dtype: str) -> Contestant:
    jax = load_jax(dtype)
    jnp = jax.numpy
    *primals, y_bar = (jnp.asarray(a) for a in operands(shape, dtype))
    axes = tuple(i for i in range(len(shape)) if i != 1)
    channels = (-1,) + (1,) * (len(shape) - 2)

    def norm(x: Any, gamma: Any, beta: Any) -> Any:
        xc = x - jnp.mean(x, axis=axes, keepdims=True)
        inv_std = jax.lax.rsqrt(jnp.mean(xc * xc, axis=axes, keepdims=True) + EPS)
        return gamma.reshape(channels) * (xc * inv_std) + beta.reshape(channels)

    @jax.jit
    def both(primals: Any, y_bar: Any) -> Any:
        y, pullback = jax.vjp(norm, *primals)
        return y, *pullback(y_bar)

    last: list[Any] = []

    def step() -> None:
        last[:] = jax.block_until_ready(both(primals, y_bar))

    names = ("y", "x_bar", "gamma_bar", "beta_bar")
    return Contestant(step, lambda: host(**dict(zip(names, last, strict=True))))


def copy(shape: tuple[int, ...], dtype: str) -> Contestant:
    """Move five arrays of the size of ``x`` by two threads: batch norm cannot move less.

    Forward reads x and writes y, backward reads x and y_bar and writes x_bar. A copy reads one
    array and writes one, so five moves are two and a half copies.
    """
    x = operands(shape, dtype)[0].reshape(-1)
    half = len(x) // 2
    sources = [x, x.copy(), x[:half].copy()]
    targets = [np.zeros_like(a) for a in sources]  # zeros_like alone would leave pages unmapped
    for target in targets:
        target.fill(1)
    pool = ThreadPoolExecutor(THREADS)

    def share(part: int) -> None:
        for source, target in zip(sources, targets, strict=True):
            cut = slice(part * len(source) // THREADS, (part + 1) * len(source) // THREADS)
            np.copyto(target[cut], source[cut])

    return Contestant(lambda: list(pool.map(share, range(THREADS))), dict)


MAKERS = {
    "minigrad": minigrad,
    "minigrad-plain": minigrad,
    "torch": torch,
    "jax": jax,
    "mygrad": mygrad,
    "copy": copy,
}
