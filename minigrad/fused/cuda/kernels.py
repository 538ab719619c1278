"""Kernels from ``.cu`` text: compiled by CuPy at the first call of each instance, then kept.

CuPy caches what it compiled on disk, so later processes only load it; before 14.2 it left templates
out, or did with an old driver. CuPy compiles with ``-ftz=true``: float32 results below 1.2e-38
become 0.
"""

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.errors import DeviceError, facts
from minigrad.fused.cuda.geometry import Device, Launch

HERE = Path(__file__).parent
HEADERS = ("common.cuh", "layouts.cuh", "moments.cuh", "sums.cuh", "windows.cuh")
OPTIONS = ("--std=c++17",)
LARGE = 48 * 1024  # bytes of shared memory that need no asking


@cache
def source(name: str) -> str:
    """The text of ``name`` with the headers before it; CuPy's cache then knows all of it."""
    return "\n".join((HERE / part).read_text(encoding="utf-8") for part in (*HEADERS, name))


@cache
def _kernel(xp: Any, name: str, instance: str, number: int, needs_all: bool) -> Any:
    """One instance of a template in file ``name``, such as ``sigmoid_forward<float>``."""
    options = (*OPTIONS, "-DNEEDS_ALL") if needs_all else OPTIONS  # another kernel
    module = xp.RawModule(code=source(name), options=options, name_expressions=(instance,))
    kernel = module.get_function(instance)
    if needs_all:  # both are set for the current device only, and stay
        kernel.max_dynamic_shared_size_bytes = _device(xp, number).shared_per_block
        kernel.preferred_shared_memory_carveout = 100  # per cent, the rest is a cache
    return kernel


@cache
def _device(xp: Any, number: int) -> Device:
    found = xp.cuda.Device(number).attributes
    return Device(
        multiprocessors=found["MultiProcessorCount"],
        shared_per_multiprocessor=found["MaxSharedMemoryPerMultiprocessor"],
        shared_per_block=found["MaxSharedMemoryPerBlockOptin"],
        threads=min(512, found["MaxThreadsPerMultiProcessor"] // 2),
    )


def device_of(xp: Any, array: Any) -> Device:
    """What a launch on the GPU that holds ``array`` depends on."""
    return _device(xp, array.device.id)


def run(xp: Any, name: str, instance: str, launch: Launch, *args: Any, on: Any = None) -> None:
    """Launch ``instance`` of file ``name`` on the GPU of its arrays.

    Args:
        args: arrays in C order; ints, which the kernel gets as 64-bit integers; floats, as double;
            what ``by_value`` made.
        on: an array on that GPU, where no argument is one.

    Raises:
        DeviceError: an array is not on CuPy's current GPU, on which results were allocated.
    """
    current, kind = xp.cuda.runtime.getDevice(), xp.ndarray
    for array in (*args, on):
        if isinstance(array, kind) and (number := array.data.device_id) != current:
            raise DeviceError(
                facts(f"{instance}: operands", expected=f"on cuda:{current}, CuPy's current GPU",
                      got=f"on cuda:{number}",
                      remedy=f"with cupy.cuda.Device({number}): around it, if all are there; "
                      f"else x.to('cuda:{current}')")
            )  # fmt: skip
    needs_all = launch.needs_all or launch.shared > LARGE
    kernel = _kernel(xp, name, instance, current, needs_all)
    kernel((launch.grid,), (launch.block,), args, shared_mem=launch.shared)


@cache
def struct(size: int) -> np.dtype:
    """The dtype of a struct of ``size`` bytes; one field, for CuPy lists them at each launch."""
    return np.dtype([("all", f"V{size}")])


@lru_cache(maxsize=1024)
def by_value(numbers: tuple[int, ...]) -> np.ndarray:
    """A struct of 32-bit integers that is passed to a kernel by value."""
    return np.array(numbers, "int32").view(struct(4 * len(numbers))).reshape(())


def sum_rows(xp: Any, name: str, partials: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The sums over the rows of a matrix of doubles, always in the same order."""
    threads = min(256, device_of(xp, partials).threads)
    sums = xp.empty(shape, dtype)
    launch = Launch(-(-sums.size // 8), threads, 8 * threads)
    run(xp, name, f"sum_rows<{real(sums)}>", launch, partials, sums, *partials.shape)
    return sums


def real(array: Any) -> str:
    """The C++ name of the dtype of a floating array."""
    return "float" if array.dtype.itemsize == 4 else "double"


def is_aligned(*arrays: Any) -> bool:
    """Whether all arrays start at a multiple of 16 bytes, so that packs can be loaded."""
    return all(a.data.ptr % 16 == 0 for a in arrays)
