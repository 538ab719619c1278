"""Sliding windows in the form that kernels take; see ``windows.cuh``."""

from typing import Any

from minigrad.fused.cuda.geometry import Device, Launch
from minigrad.ops.window import Window, window

LIMIT = 2**31  # kernels count planes, channels and rows, and the values of one, with 32 bits


def windows(
    shape: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any
) -> Window:
    """The windows over (N, C, L) or (N, C, H, W); a signal is an image of height 1."""
    found = window(shape, kernel, stride, padding, dilation)
    if len(found.sizes) == 2:
        return found
    one, none = (1,), (0,)
    return Window(
        one + found.sizes, one + found.kernel, one + found.stride, none + found.padding,
        one + found.dilation, one + found.outputs,
    )  # fmt: skip


def record(found: Window) -> tuple[int, ...]:
    """The numbers of ``struct Window``."""
    parts = (found.sizes, found.outputs, found.kernel, found.stride, found.padding, found.dilation)
    return tuple(number for part in parts for number in part)


def spread(planes: int, places: int, device: Device) -> tuple[Launch, int, int]:
    """A launch with a thread per place, in as many planes at once as the device has room for.

    Also ``together``, the planes that a block works on, and ``parts``, the blocks that share a
    plane; see ``struct Place``.
    """
    threads = min(256, device.threads)
    together, parts = max(1, threads // places), -(-places // threads)
    groups = min(-(-planes // together), max(1, 6 * device.multiprocessors // parts))
    return Launch(groups * parts, threads), together, parts
