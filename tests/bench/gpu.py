"""The works on a GPU; without one, each raises Missing with the reason."""

import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from . import batch_norm, lenet
from .contestant import Contestant, Missing, load, load_torch

INNER = 10  # steps between two waits for the device, as in a training loop


def _cupy() -> Any:
    """CuPy, if minigrad's probe finds a GPU that works."""
    load("minigrad")
    reason = load("minigrad.backend").unavailable("cuda")
    if reason:
        raise Missing(reason)
    return load("cupy")


def card() -> dict[str, str]:
    """Name, CUDA version and driver of the GPU; empty if there is none."""
    try:
        runtime = _cupy().cuda.runtime
    except Missing:
        return {}
    name = runtime.getDeviceProperties(runtime.getDevice())["name"].decode()
    cuda = runtime.runtimeGetVersion()
    words = {"gpu": name, "CUDA": f"{cuda // 1000}.{cuda % 1000 // 10}"}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        words["driver"] = subprocess.check_output(query, text=True).partition("\n")[0]
    return words


def _torch() -> Any:
    torch = load_torch()
    if not torch.cuda.is_available():
        raise Missing("torch.cuda.is_available() is false")
    return torch


def _awaited(contestant: Contestant, wait: Callable[[], Any], calls: int) -> Contestant:
    """The same contestant, which waits for the device after every ``calls`` steps."""

    def step() -> None:
        for _ in range(calls):
            contestant.step()
        wait()

    return Contestant(step, contestant.result, calls * contestant.inner)


def batch_norm_minigrad(shape: tuple[int, ...], dtype: str) -> Contestant:
    wait = _cupy().cuda.runtime.deviceSynchronize
    return _awaited(batch_norm.minigrad(shape, dtype, "cuda"), wait, INNER)


def batch_norm_torch(shape: tuple[int, ...], dtype: str) -> Contestant:
    wait = _torch().cuda.synchronize
    return _awaited(batch_norm.torch(shape, dtype, "cuda"), wait, INNER)


def copy(shape: tuple[int, ...], dtype: str) -> Contestant:
    """Move five arrays of the size of ``x`` inside the device; see ``batch_norm.copy``."""
    cp = _cupy()
    size = int(np.prod(shape))
    sources = [cp.ones(n, dtype=dtype) for n in (size, size, size // 2)]
    targets = [cp.zeros_like(source) for source in sources]

    def step() -> None:
        for source, target in zip(sources, targets, strict=True):
            cp.copyto(target, source)

    return _awaited(Contestant(step, dict), cp.cuda.runtime.deviceSynchronize, INNER)


def lenet_minigrad(batch: int, dtype: str) -> Contestant:
    _cupy()
    return lenet.minigrad(batch, dtype, "cuda", INNER)  # reading the loss waits for the device


def lenet_recorded(batch: int, dtype: str) -> Contestant:
    _cupy()
    return lenet.recorded(batch, dtype, "cuda", INNER)


def lenet_torch(batch: int, dtype: str) -> Contestant:
    _torch()
    return lenet.torch(batch, dtype, "cuda", INNER)


BATCH_NORM = {
    "minigrad-cuda": batch_norm_minigrad,
    "torch-cuda": batch_norm_torch,
    "copy-cuda": copy,
}
LENET = {
    "minigrad-cuda": lenet_minigrad,
    "minigrad-recorded": lenet_recorded,
    "torch-cuda": lenet_torch,
}
