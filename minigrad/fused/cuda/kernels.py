"""Compile and launch kernels from ``.cu`` files: CuPy compiles each instance at its first call.

CuPy also caches compiled kernels on disk, for later processes. Versions before 14.2 do not cache
templates, or not with an old driver. CuPy compiles with ``-ftz=true``: float32 results below
1.2e-38 become 0.
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
DEFAULT_SHARED = 48 * 1024  # bytes of shared memory that a kernel gets without opting in


@cache
def source(name: str) -> str:
    """The text of all headers and of ``name`` together: CuPy's cache then depends on all of it."""
    return "\n".join((HERE / part).read_text(encoding="utf-8") for part in (*HEADERS, name))


@cache
def _kernel(xp: Any, name: str, instance: str, number: int, needs_all: bool) -> Any:
    """One instance of a template in file ``name``, such as ``sigmoid_forward<float>``."""
    # the macro makes it another kernel, whose attributes do not change those of the first
    options = (*OPTIONS, "-DNEEDS_ALL") if needs_all else OPTIONS
    module = xp.RawModule(code=source(name), options=options, name_expressions=(instance,))
    kernel = module.get_function(instance)
    if needs_all:  # both attributes hold for the current device, and stay set
        kernel.max_dynamic_shared_size_bytes = _device(xp, number).shared_per_block
        kernel.preferred_shared_memory_carveout = 100  # per cent; the rest would be a cache
    return kernel


@cache
def _device(xp: Any, number: int) -> Device:
    attributes = xp.cuda.Device(number).attributes
    return Device(
        multiprocessors=attributes["MultiProcessorCount"],
        shared_per_multiprocessor=attributes["MaxSharedMemoryPerMultiprocessor"],
        shared_per_block=attributes["MaxSharedMemoryPerBlockOptin"],
        threads=min(512, attributes["MaxThreadsPerMultiProcessor"] // 2),
    )


def device_of(xp: Any, array: Any) -> Device:
    """The properties of the GPU that holds ``array``."""
    return _device(xp, array.device.id)


def run(xp: Any, name: str, instance: str, launch: Launch, *args: Any, on: Any = None) -> None:
    """Launch ``instance`` of file ``name`` on the GPU of its arrays.

    Args:
        args: arrays in C order; ints, passed as 64-bit integers; floats, passed as double; results
            of ``by_value``.
        on: an array on that GPU, if no argument is an array.

    Raises:
        DeviceError: an array is not on CuPy's current GPU, where the results were allocated.
    """
    current, kind = xp.cuda.runtime.getDevice(), xp.ndarray
    for array in (*args, on):
        if isinstance(array, kind) and (number := array.data.device_id) != current:
            raise DeviceError(
                facts(f"{instance}: operands", expected=f"on cuda:{current}, CuPy's current GPU",
                      got=f"on cuda:{number}",
                      remedy=f"call it inside `with cupy.cuda.Device({number}):` if all are there; "
                      f"else use x.to('cuda:{current}')")
            )  # fmt: skip
    needs_all = launch.needs_all or launch.shared > DEFAULT_SHARED
    kernel = _kernel(xp, name, instance, current, needs_all)
    kernel((launch.grid,), (launch.block,), args, shared_mem=launch.shared)


@cache
def struct(size: int) -> np.dtype:
    """The dtype of a struct of ``size`` bytes, as one field: CuPy lists fields at each launch."""
    return np.dtype([("all", f"V{size}")])


@lru_cache(maxsize=1024)
def by_value(numbers: tuple[int, ...]) -> np.ndarray:
    """A struct of 32-bit integers that is passed to a kernel by value."""
    return np.array(numbers, "int32").view(struct(4 * len(numbers))).reshape(())


def sum_rows(xp: Any, name: str, partials: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Add up the rows of ``partials``, a matrix of doubles, always in the same order."""
    threads = min(256, device_of(xp, partials).threads)
    sums = xp.empty(shape, dtype)
    launch = Launch(-(-sums.size // 8), threads, 8 * threads)
    run(xp, name, f"sum_rows<{real(sums)}>", launch, partials, sums, *partials.shape)
    return sums


def real(array: Any) -> str:
    """The C++ name of the dtype of a floating array."""
    return "float" if array.dtype.itemsize == 4 else "double"


def is_aligned(*arrays: Any) -> bool:
    """Whether all arrays start at a multiple of 16 bytes, as loads of packs require."""
    return all(a.data.ptr % 16 == 0 for a in arrays)
