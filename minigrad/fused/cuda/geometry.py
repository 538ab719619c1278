"""How kernels are launched: blocks, threads and shared memory, from shapes and the device alone.

Pure functions of numbers, so that tests hold them on a machine without a GPU.
"""

from dataclasses import dataclass
from math import prod

RESERVED = 1024  # bytes of shared memory that the system takes from each block


@dataclass(frozen=True)
class Device:
    """What a launch depends on.

    Args:
        multiprocessors: how many there are.
        shared_per_multiprocessor: bytes of shared memory that its blocks divide.
        shared_per_block: bytes that one block can ask for.
        threads: per block, for kernels that fill the device; a multiple of 32.
    """

    multiprocessors: int
    shared_per_multiprocessor: int
    shared_per_block: int
    threads: int = 512

    @property
    def blocks(self) -> int:
        """How many blocks of ``threads`` threads run at once, two to a multiprocessor."""
        return 2 * self.multiprocessors

    @property
    def shared(self) -> int:
        """Bytes of shared memory that each of two blocks on one multiprocessor can have."""
        return min(self.shared_per_block, self.shared_per_multiprocessor // 2 - RESERVED)


@dataclass(frozen=True)
class Launch:
    """Blocks, threads per block, bytes of dynamic shared memory."""

    grid: int
    block: int
    shared: int = 0


@dataclass(frozen=True)
class Slices:
    """How the values of a channel are spread over blocks; see ``layouts.cuh``.

    Args:
        layout: ``"Planes"`` for (N, C, S), ``"Columns"`` for (N, C).
        width: values that one instruction moves.
        tiles: groups of channels that share blocks: 1 or 32 channels.
        slices: blocks per tile.
        length: values of a channel in each block but the last.
        held_at: bytes of scratch, after which values are held.
        held: whether the values of a slice stay in shared memory.
    """

    layout: str
    width: int
    tiles: int
    slices: int
    length: int
    held_at: int
    held: bool
    launch: Launch

    @property
    def partials(self) -> int:
        """Doubles that the blocks exchange: two per channel and slice, padded to whole tiles."""
        return 2 * self.tiles * (32 if self.layout == "Columns" else 1) * self.slices

    @property
    def counters(self) -> int:
        """Counters that start at 0: tickets, and arrivals of each tile."""
        return 1 + self.tiles


def slices(
    shape: tuple[int, int, int],
    itemsize: int,
    device: Device,
    *,
    arrays: int,
    holds: bool = True,
    aligned: bool = True,
) -> Slices:
    """Cut the channels of (N, C, S) into slices that keep every multiprocessor busy.

    As many slices as the device has room for, each of two packs per thread or more; more where they
    must be small enough to be held. Never more per tile than half of the blocks that run at once:
    blocks of a tile wait for each other, and two streams may run such a kernel at the same time.

    Args:
        shape: N, C, S in C order; none of them 0.
        itemsize: bytes of a value.
        arrays: how many arrays are read, and held together.
        holds: whether values are needed twice at all.
        aligned: whether the arrays start at multiples of 16 bytes.
    """
    n, c, s = shape
    per_pack = 16 // itemsize
    width = per_pack if aligned and s % per_pack == 0 else 1
    tile = 32 if s == 1 else 1
    ranks = device.threads // tile  # threads that share a channel
    sums = 3 * (device.threads if tile > 1 else device.threads // 32)
    held_at = _multiple(8 * max(sums, 4 * tile), 16)
    values, tiles = n * s, -(-c // tile)
    most = max(1, device.blocks // 2)
    wanted = min(-(-device.blocks // tiles), -(-values // (2 * ranks * width)))
    capacity = (device.shared - held_at) // (itemsize * arrays * tile) // width * width
    needed = -(-values // capacity) if holds and capacity > 0 else most + 1
    held = holds and needed <= most
    count = max(1, min(most, max(wanted, needed if held else 1)))
    length = _multiple(-(-values // count), width)
    count = -(-values // length)
    shared = held_at + (length * tile * arrays * itemsize if held else 0)
    layout = "Columns" if tile > 1 else "Planes"
    launch = Launch(tiles * count, device.threads, shared)
    return Slices(layout, width, tiles, count, length, held_at, held, launch)


@dataclass(frozen=True)
class Rows:
    """One block per row of a matrix; the words are those of ``Slices``."""

    width: int
    held_at: int
    held: bool
    launch: Launch


def rows(
    shape: tuple[int, int], itemsize: int, device: Device, *, arrays: int, aligned: bool = True
) -> Rows:
    """A block per row of (R, F), with as many threads as the row has packs, in whole warps."""
    per_pack = 16 // itemsize
    width = per_pack if aligned and shape[1] % per_pack == 0 else 1
    threads = min(device.threads, _multiple(-(-shape[1] // width), 32))
    held_at = _multiple(8 * max(3 * (threads // 32), 4), 16)
    needed = held_at + shape[1] * arrays * itemsize
    held = needed <= device.shared
    return Rows(width, held_at, held, Launch(shape[0], threads, needed if held else held_at))


def row_slices(shape: tuple[int, int], device: Device) -> tuple[int, int]:
    """How many slices the rows of (R, F) are cut into, and how long they are, for column sums."""
    tiles, ranks = -(-shape[1] // 32), device.threads // 32
    count = max(1, min(-(-device.blocks // tiles), -(-shape[0] // (4 * ranks))))
    length = -(-shape[0] // count)
    return -(-shape[0] // length), length


def elementwise(size: int, device: Device) -> Launch:
    """One thread per element, in blocks of 256; each thread takes more where there are too many."""
    threads = min(256, device.threads)
    return Launch(max(1, min(-(-size // threads), 32 * device.multiprocessors)), threads)


def flattened(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, C, \\*sizes) as (N, C, S)."""
    return shape[0], shape[1], prod(shape[2:])


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of
