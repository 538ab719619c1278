"""NVIDIA's compiler library through ctypes: it compiles kernels without a GPU."""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

CUPY = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")  # CuPy's options


@cache
def _library() -> ctypes.CDLL:
    """The library of the ``nvidia-cuda-nvrtc`` wheel. Raises OSError if it is not installed."""
    spec = find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = sorted(path for folder in folders for path in Path(folder).rglob("libnvrtc.so*"))
    if not found:
        raise OSError("the wheel nvidia-cuda-nvrtc is not installed")
    for builtins in found[0].parent.glob("libnvrtc-builtins*"):
        ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(found[0]))


@cache
def unavailable() -> str:
    """Why nothing can be compiled; empty if it can."""
    try:
        compiled("__global__ void k(float* x) { *x = 1; }", ("k",), "90")
    except (OSError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return ""


def compiled(text: str, instances: tuple[str, ...], arch: str, *options: str) -> tuple[str, int]:
    """Compile ``text`` to machine code of compute capability ``arch``.

    Returns:
        The compiler's messages, and the size of the code in bytes.

    Raises:
        RuntimeError: with the compiler's messages.
    """
    nvrtc, program = _library(), ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"text.cu", 0, None, None)
    )
    try:
        for instance in instances:
            _check(nvrtc.nvrtcAddNameExpression(program, instance.encode()))
        words = [f"-arch=sm_{arch}", *CUPY, *options]
        array = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        status = nvrtc.nvrtcCompileProgram(program, len(words), array)
        log = _text(nvrtc, "ProgramLog", program)
        if status:
            raise RuntimeError(log or f"nvrtc: status {status}")
        size = ctypes.c_size_t()
        _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        return log, size.value
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.value.decode().strip()


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"nvrtc: status {status}")
