"""Runs the text of CUDA kernels on the CPU: compiled by g++ with ``shim.h``, called by ctypes."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from minigrad.fused.cuda import SOURCES
from minigrad.fused.cuda.kernels import source

HERE = Path(__file__).parent
STANDARD = ("-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
            "-Wno-maybe-uninitialized",  # it does not see that two loops have the same condition
            "-fno-strict-aliasing", "-pthread")  # fmt: skip
SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}


@cache
def unavailable(*flags: str) -> str:
    """Why programs cannot be compiled and run with ``flags``; empty where they can."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "a.out"
        text = "#include <thread>\nint main() { std::thread([] {}).join(); }"
        command = ["g++", "-x", "c++", "-", *STANDARD, *flags, "-o", str(program)]
        made = subprocess.run(command, input=text, text=True, capture_output=True)
        if made.returncode:
            return f"g++ {' '.join(flags)}: {made.stderr.strip().splitlines()[-1]}"
        ran = subprocess.run([program], text=True, capture_output=True)
        return f"{flags}: {ran.stderr.strip()[:200]}" if ran.returncode else ""


def program(text: str, instances: tuple[str, ...]) -> str:
    """The C++ text of one entry point per instance, and of a ``main`` that calls one of them."""
    calls = "\n".join(
        f'extern "C" void entry_{i}(const shim::Geometry& g, void** args) '
        f"{{ shim::launch(&{instance}, g, args); }}"
        for i, instance in enumerate(instances)
    )
    table = ", ".join(f"&entry_{i}" for i in range(len(instances)))
    return (
        f'#include "shim.h"\n{text}\n{calls}\n#ifdef PROGRAM\n'
        f"const shim::Entry entries[] = {{{table}}};\n"
        "int main(int, char** argv) { return shim::run_file(entries, argv[1], argv[2]); }\n#endif\n"
    )


def build(text: str, instances: tuple[str, ...], *flags: str) -> Path:
    """Compile a text with these flags, unless that was done before."""
    whole = program(text, instances)
    options = ("-x", "c++", "-", "-I", str(_precompiled(flags)), "-I", str(HERE), *flags)
    return _made(repr((whole, _header(), flags)), lambda out: _compile(out, *options, text=whole))


@cache
def _precompiled(flags: tuple[str, ...]) -> Path:
    """A folder with ``shim.h.gch``, which g++ reads in a quarter of the time."""

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)  # an earlier process with this id may have died here
        _compile(folder / "shim.h.gch", "-x", "c++-header", str(HERE / "shim.h"), *flags)

    return _made(repr((_header(), flags)), make)


@cache
def _header() -> str:
    return (HERE / "shim.h").read_text()


def _made(description: str, make: Callable[[Path], None]) -> Path:
    """The path where ``make`` has put its result, made once per description, in a temporary folder
    that all test processes share."""
    key = hashlib.sha256(repr((description, STANDARD)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"minigrad-shim-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    path = folder / key
    with open(folder / f"{key}.lock", "w") as lock:  # one of several test processes makes it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            fresh = path.with_suffix(f".{os.getpid()}")  # renamed when complete
            make(fresh)
            fresh.rename(path)
    return path


def _compile(out: Path, *options: str, text: str = "") -> None:
    command = ["g++", *options, *STANDARD, "-o", str(out)]
    made = subprocess.run(command, input=text, text=True, capture_output=True)
    if made.returncode:
        raise RuntimeError(f"g++ refused the kernels:\n{made.stderr[:4000]}")


class Library:
    """The kernels of one ``.cu`` text."""

    def __init__(self, text: str, instances: tuple[str, ...]):
        self.instances = instances
        self.library = ctypes.CDLL(str(build(text, instances, "-O1", "-shared", "-fPIC")))

    def launch(self, instance: str, launch, args: tuple, resident: int) -> None:
        """Run ``instance`` on ``args`` as a launcher passes them, NumPy arrays for the device's."""
        geometry = (ctypes.c_longlong * 4)(launch.grid, launch.block, launch.shared, resident)
        kept = [_argument(arg) for arg in args]
        pointers = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(arg) for arg in kept))
        self.library[f"entry_{self.instances.index(instance)}"](geometry, pointers)


@cache
def _companions(text: str, instance: str) -> tuple[str, ...]:
    """The instances to compile together with this one: all of its file for one real type, or, if a
    test has changed the text, those with the same types."""
    real = "float" if "float" in instance else "double"
    for name, instances in SOURCES.items():
        if instance in instances and source(name) == text:
            plain = [other for other in instances if "float" not in other and "double" not in other]
            return (*plain, *(other for other in instances if real in other))
    everything = dict.fromkeys(other for instances in SOURCES.values() for other in instances)
    _, _, types = instance.partition("<")
    alike = [other for other in everything if other.partition("<")[2] == types]
    there = [other for other in alike if f"{other.partition('<')[0]}(" in text]
    return tuple(sorted({instance, *there}))


@cache
def _library(text: str, instances: tuple[str, ...]) -> Library:
    return Library(text, instances)


def run(text: str, instance: str, launch, args: tuple, resident: int) -> None:
    """Launch one kernel of ``text``; NumPy arrays among ``args`` are memory of the device."""
    _library(text, _companions(text, instance)).launch(instance, launch, args, resident)


def _argument(value):
    if isinstance(value, np.ndarray) and value.dtype.names:  # a struct, by value
        return (ctypes.c_char * value.nbytes).from_buffer(value)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_longlong(value) if isinstance(value, int) else ctypes.c_double(value)


def sanitized(text: str, instance: str, launch, args: tuple, resident: int, sanitizer: str) -> None:
    """As ``Library.launch``, in a process of its own that a sanitizer watches.

    Raises:
        RuntimeError: with the report of the sanitizer.
    """
    instances = _companions(text, instance)
    path = build(text, instances, "-O0", "-g1", "-DPROGRAM", *SANITIZERS[sanitizer])
    with tempfile.TemporaryDirectory() as folder:
        job, results = Path(folder) / "job", Path(folder) / "results"
        head = [
            instances.index(instance),
            launch.grid,
            launch.block,
            launch.shared,
            resident,
            len(args),
        ]
        parts = [np.array(head, "int64").tobytes()]
        for arg in args:
            data = np.asarray(arg).tobytes(order="A")  # as it lies in memory
            is_array = isinstance(arg, np.ndarray) and not arg.dtype.names
            parts += [np.array([is_array, len(data)], "int64").tobytes(), data]
        job.write_bytes(b"".join(parts))
        ran = subprocess.run([path, job, results], capture_output=True, text=True)
        if ran.returncode or ran.stderr.strip():
            raise RuntimeError(f"exit code {ran.returncode}\n{ran.stderr[:4000]}")
        found = memoryview(results.read_bytes())
        for arg in args:
            if isinstance(arg, np.ndarray) and not arg.dtype.names:
                memory = arg if arg.flags.c_contiguous else arg.T
                memory[...] = np.frombuffer(found[: arg.nbytes], arg.dtype).reshape(memory.shape)
                found = found[arg.nbytes :]
