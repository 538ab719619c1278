"""Contestants: the work of one library, ready to run, or the reason why it cannot."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NAMES = {
    "minigrad": "minigrad",
    "minigrad-plain": "minigrad without numba",
    "torch": "PyTorch eager",
    "jax": "JAX jit",
    "mygrad": "MyGrad",
    "autograd": "HIPS autograd",
    "copy": "copy",
    "minigrad-cuda": "minigrad on the GPU",
    "minigrad-recorded": "minigrad on the GPU, one graph",
    "torch-cuda": "PyTorch on the GPU",
    "copy-cuda": "copy on the GPU",
}


class Missing(Exception):
    """A contestant cannot take part; the text is the reason."""


@dataclass(frozen=True)
class Contestant:
    """One work, done by one library.

    Args:
        step: the function that is timed; returns when all work is done, on a GPU too.
        result: the numbers of the last step, to compare with those of the other contestants.
        inner: how many times ``step`` does the work in one call.
    """

    step: Callable[[], Any]
    result: Callable[[], dict[str, np.ndarray]]
    inner: int = 1


def load(name: str) -> Any:
    """The module ``name``. Raises Missing with the reason where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} cannot be imported: {error}") from error


def load_torch() -> Any:
    """PyTorch with two threads."""
    from .machine import THREADS

    torch = load("torch")
    torch.set_num_threads(THREADS)
    return torch


def load_jax(dtype: str) -> Any:
    """JAX on the CPU, able to hold ``dtype``."""
    jax = load("jax")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", dtype == "float64")
    return jax


def host(**values: Any) -> dict[str, np.ndarray]:
    """Values of any library as NumPy arrays."""
    return {name: _host(value) for name, value in values.items()}


def value_of(y: Any) -> Any:
    """The value of ``y`` without its graph, which would keep memory until the next step."""
    return y.detach() if hasattr(y, "detach") else y.data


def _host(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # PyTorch's and minigrad's tensors
        value = value.detach()
    if hasattr(value, "cpu"):
        value = value.cpu()
    return np.array(value.numpy() if hasattr(value, "numpy") else value)
