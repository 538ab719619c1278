"""One interface to CuPy and its stand-in, so that a test is written once and runs on either."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import standin

from minigrad import backend


@dataclass(frozen=True)
class Accelerator:
    """A GPU's array library; its device is ``"cuda:0"``."""

    xp: Any
    library: backend.Library
    is_real: bool
    device: str = "cuda:0"

    def array(self, values: Any, dtype: Any = None) -> Any:
        """A copy of a host array in C order on the device; other layouts lose their strides."""
        return self.xp.array(np.array(values, dtype))

    def host(self, array: Any) -> np.ndarray:
        return self.library.to_host(getattr(array, "array", array))

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Fails if, inside the block, the host waits for the device or copies arrays to it.

        The stand-in counts both; CuPy itself notices only calls of ``ndarray.get``.
        """
        if self.is_real:
            with _synchronization_refused():
                yield
            return
        with standin.counting() as counts:
            yield
        waits = counts.synchronizations
        assert not waits, f"the host waited for the device {len(waits)}x:\n" + "\n".join(waits)
        assert not counts.uploads, "host arrays were copied:\n" + "\n".join(counts.uploads)

    def waits(self, call: Callable[[], Any]) -> bool:
        """Whether the host waits for the device during ``call``."""
        if not self.is_real:
            with standin.counting() as counts:
                call()
            return bool(counts.synchronizations)
        from cupyx import DeviceSynchronized

        try:
            with _synchronization_refused():
                call()
        except DeviceSynchronized:
            return True
        return False


@contextmanager
def _synchronization_refused() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns that it may remove this
        from cupyx import allow_synchronize

        with allow_synchronize(False):
            yield


_REAL = False  # set by conftest from the option --device


def use_real(value: bool) -> None:
    global _REAL
    _REAL = value


@contextmanager
def chosen() -> Iterator[Accelerator]:
    """CuPy if the option ``--device`` names a GPU, else the stand-in as the device ``"cuda"``.

    Fused ops run portable kernels on the stand-in; see ``kernels``.
    """
    if not _REAL:
        with standin.registered() as library:
            yield Accelerator(standin.xp, library, is_real=False)
        return
    if reason := backend.unavailable("cuda"):
        pytest.skip(reason)
    library = backend.cupy()
    yield Accelerator(library.xp, library, is_real=True)


@contextmanager
def kernels(accelerator: Accelerator) -> Iterator[None]:
    """Fused ops run CUDA kernels inside the block; on CuPy they do so anyway."""
    if accelerator.is_real:
        yield
        return
    standin.xp.__name__ = "cupy"
    try:
        yield
    finally:
        standin.xp.__name__ = "standin"
