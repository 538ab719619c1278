"""The device of the stand-in: its size, streams that record, and kernels that run on the CPU.

While a stream records, a call computes nothing: it returns memory full of nan (0 for integers),
and each ``launch`` of the graph runs the call and writes its result into that memory.
"""

import os
import types
import weakref
from contextlib import contextmanager
from functools import cache

import numpy as np

from minigrad.fused.cuda.geometry import RESERVED

SIZE = {  # small: even small arrays need several slices, some too long for shared memory
    "MultiProcessorCount": 2,
    "MaxThreadsPerMultiProcessor": 256,
    "MaxSharedMemoryPerMultiprocessor": 20 * 1024,
    "MaxSharedMemoryPerBlockOptin": 48 * 1024,
}
_recording: list["Graph"] = []


class Device:
    """``cupy.cuda.Device``."""

    attributes = SIZE
    compute_capability = "75"

    def __init__(self, number=0):
        self.id = int(number)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


class runtime:
    """The parts of ``cupy.cuda.runtime`` that are used."""

    getDevice = staticmethod(lambda: 0)
    getDeviceCount = staticmethod(lambda: 1)

    class CUDARuntimeError(RuntimeError):
        """Raised with an error number; 2 means out of memory."""


class Graph:
    """The calls that a stream recorded."""

    def __init__(self):
        self.actions = []
        self.memory = []  # kept alive, as by a pool: a kernel may only have its address

    def launch(self, stream=None):
        with np.errstate(all="ignore"):
            for action in self.actions:
                action()


class Stream:
    """``cupy.cuda.Stream``: records between ``begin_capture`` and ``end_capture``."""

    null = None

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.non_blocking = non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def begin_capture(self, mode=None):
        if not self.non_blocking:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        _recording.append(Graph())

    def end_capture(self):
        return _recording.pop()

    def is_capturing(self):
        return bool(_recording)

    def synchronize(self):
        import standin

        standin.synchronize()


Stream.null = Stream(null=True)


def get_current_stream(device_id=-1):
    return Stream.null


class Memory:
    """``cupy.cuda.Memory``."""

    def __init__(self, size):
        self.size = size


class MemoryPointer:
    """``cupy.cuda.MemoryPointer``."""

    def __init__(self, mem, offset):
        self.mem, self.offset = mem, offset


class MemoryPool:
    """``cupy.cuda.MemoryPool``: it keeps unused memory until ``free_all_blocks``."""

    def __init__(self, allocator=None):
        self.allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self.limit = int(os.environ.get("CUPY_GPU_MEMORY_LIMIT", 0))
        self.blocks = []  # weak references to arrays, and their bytes

    def set_limit(self, size):
        self.limit = size

    def malloc(self, memory):
        """Account for ``memory``; CuPy's takes a size and returns the memory."""
        if self.limit and self.total_bytes() + memory.nbytes > self.limit:
            self.free_all_blocks()
            if self.total_bytes() + memory.nbytes > self.limit:
                raise MemoryError(f"Out of memory allocating {memory.nbytes} bytes")
        try:
            self.allocator(memory.nbytes)
        except runtime.CUDARuntimeError:
            self.free_all_blocks()
            self.allocator(memory.nbytes)
        self.blocks.append((weakref.ref(memory), memory.nbytes))

    def total_bytes(self):
        return sum(size for _, size in self.blocks)

    def free_all_blocks(self, stream=None):
        self.blocks = [block for block in self.blocks if block[0]() is not None]


_allocators = []


@contextmanager
def using_allocator(allocator=None):
    _allocators.append(allocator)
    try:
        yield
    finally:
        _allocators.pop()


def refuse_in_capture(reason):
    if _recording:
        raise RuntimeError(f"the current stream is capturing, so {reason}")


def refuse_cublas_in_capture():
    if _recording:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )


def kept(memory):
    """New ``memory``, which a graph that is being recorded holds from now on."""
    if _recording:
        _recording[-1].memory.append(memory)
    if _allocators:
        _allocators[-1](memory)
    return memory


def act(action):
    """Run ``action``, which changes memory, or record it; without warnings, as on a device."""
    if _recording:
        _recording[-1].actions.append(action)
        return
    with np.errstate(all="ignore"):
        action()


def produce(function, args, params):
    """The result of a call; while recording, memory that the graph will fill."""
    with np.errstate(all="ignore"):
        result = function(*args, **params)
    if not (_recording or _allocators) or not isinstance(result, (np.ndarray, np.generic)):
        return result
    if any(isinstance(a, np.ndarray) and np.may_share_memory(a, result) for a in args):
        return result  # a view: no work for the device
    memory = kept(np.array(result))
    if not _recording:
        return memory

    def fill():
        memory[...] = function(*args, **params)

    _recording[-1].actions.append(fill)
    memory[...] = np.nan if memory.dtype.kind == "f" else 0
    return memory


class RawKernel:
    """``cupy.RawKernel`` of a template instance."""

    max_dynamic_shared_size_bytes = 48 * 1024
    preferred_shared_memory_carveout = -1

    def __init__(self, code, instance):
        self.code, self.instance = code, instance

    def __call__(self, grid, block, args, *, shared_mem=0):
        import shim  # imported at the first launch only, as it needs a compiler

        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: more shared memory than asked for")
        if shared_mem > SIZE["MaxSharedMemoryPerBlockOptin"]:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: more shared memory than there is")
        hidden = tuple(getattr(arg, "hidden", arg) for arg in args)
        for arg in args:
            if isinstance(arg, np.ndarray) and arg.size != 1:  # a single struct is passed by value
                raise TypeError("You are trying to pass a numpy.ndarray as a kernel parameter.")
        launch = types.SimpleNamespace(grid=grid[0], block=block[0], shared=shared_mem)
        together = min(
            SIZE["MaxThreadsPerMultiProcessor"] // block[0],
            SIZE["MaxSharedMemoryPerMultiprocessor"] // (shared_mem + RESERVED),
        )
        resident = max(1, together) * SIZE["MultiProcessorCount"]
        act(lambda: shim.run(self.code, self.instance, launch, hidden, resident))


class RawModule:
    """``cupy.RawModule``: equal code with equal options is loaded once."""

    def __init__(self, *, code=None, options=(), name_expressions=None):
        self.code, self.options, self.instances = code, options, tuple(name_expressions)

    def get_function(self, name):
        refuse_in_capture("code cannot be loaded")
        if name not in self.instances:
            raise ValueError(f"no kernel {name!r} among the name expressions")
        return _loaded(self.code, self.options, name)


@cache
def _loaded(code, options, name):
    return RawKernel(code, name)
