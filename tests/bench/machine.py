"""Keeps all contestants on the same two cores, and describes the machine."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

THREADS = 2
_POOLS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_PACKAGES = ("numpy", "numba", "torch", "jax", "mygrad", "autograd")
_CUPY = ("cupy-cuda12x", "cupy-cuda13x", "cupy")  # one package by three names


def environment() -> dict[str, str]:
    """The environment of every contestant; thread pools read it when they are loaded."""
    return {**os.environ, **dict.fromkeys(_POOLS, str(THREADS)), "PYTHONHASHSEED": "0"}


def pin() -> int:
    """Keep this process and its children on two processors; returns how many there are.

    It is the one limit that every library obeys: XLA has no option for the size of its pool.
    """
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))[:THREADS]
    os.sched_setaffinity(0, allowed)
    return len(allowed)


def versions() -> dict[str, str]:
    """Python and the packages that take part -> their versions."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *_CUPY):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, str]:
    """Processor, memory and system, as far as the system reports them."""
    cpu = _read("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.processor() or "unknown"
    memory = _read("/proc/meminfo", r"MemTotal:\s*(\d+) kB")
    flags = _read("/proc/cpuinfo", r"flags\s*:\s*(.+)").split()
    simd = next((name for name in ("avx512f", "avx2") if name in flags), "")
    words = {
        "processor": f"{cpu}, {platform.machine()}" + (f", {simd}" if simd else ""),
        "cores used": str(THREADS),
        "system": platform.system(),
    }
    if memory:
        words["memory"] = f"{int(memory) / 2**20:.0f} GiB"
    return words


def _read(path: str, pattern: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(pattern, text)
    return found.group(1).strip() if found else ""
