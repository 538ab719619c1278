"""Launch geometry: blocks, threads and shared memory, computed from shapes and the device.

Pure functions of numbers, so that they are tested without a GPU.
"""

from dataclasses import dataclass, replace
from math import prod

RESERVED = 1024  # bytes of shared memory that the system takes from each block


@dataclass(frozen=True)
class Device:
    """The properties of a GPU on which a launch depends.

    Args:
        multiprocessors: how many there are.
        shared_per_multiprocessor: bytes of shared memory for all blocks on one of them.
        shared_per_block: bytes of shared memory that one block can get.
        threads: per block, for kernels that fill the device; a multiple of 32.
        together: how many blocks of ``threads`` threads run at once on one multiprocessor.
    """

    multiprocessors: int
    shared_per_multiprocessor: int
    shared_per_block: int
    threads: int = 512
    together: int = 2

    @property
    def blocks(self) -> int:
        """How many blocks of ``threads`` threads run at once."""
        return self.together * self.multiprocessors

    @property
    def shared(self) -> int:
        """Bytes of shared memory that each of these blocks can have."""
        return min(
            self.shared_per_block, self.shared_per_multiprocessor // self.together - RESERVED
        )

    def halved(self) -> "Device":
        """The same device with twice as many blocks of half as many threads, but at least 32."""
        half = self.threads // 2 // 32 * 32
        return replace(self, threads=half, together=2 * self.together) if half else self


@dataclass(frozen=True)
class Launch:
    """The geometry of a launch.

    Args:
        grid: blocks.
        block: threads per block.
        shared: bytes of dynamic shared memory per block.
        needs_all: whether more blocks wait for each other than there are multiprocessors. They must
            all run at once, so no part of the shared memory may be used as a cache.
    """

    grid: int
    block: int
    shared: int = 0
    needs_all: bool = False


@dataclass(frozen=True)
class Slices:
    """How the values of a channel are cut into slices for blocks; see ``layouts.cuh``.

    Args:
        layout: ``"Planes"`` for (N, C, S), ``"Columns"`` for (N, C).
        width: values that one instruction moves.
        tiles: groups of channels that share blocks: 1 or 32 channels.
        slices: parts that each tile is cut into.
        length: values of a channel in each slice but the last.
        held_at: bytes of scratch in shared memory; the held values lie behind it.
        held: whether the values of a slice are kept in shared memory.
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
    def slots(self) -> int:
        """A counter, and two numbers per channel and slice, padded to whole tiles."""
        return 1 + 2 * self.tiles * (32 if self.layout == "Columns" else 1) * self.slices


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

    Three rules determine the number of slices per tile:

    * A block should be able to hold a slice, or two at a time if it works on more than one.
    * Blocks of a tile wait for each other, and two streams may run such a kernel at the same time.
      So a tile has no more slices than half of the blocks that run at once can have in hand. If
      slices that few are too long to be held, nothing is held.
    * Within these limits, there are as many as fill all blocks in the fewest possible turns, unless
      a slice would then have less than two packs per thread.

    Args:
        shape: N, C, S in C order; none of them 0.
        itemsize: bytes of a value.
        arrays: how many arrays are read, and held together.
        holds: whether values are needed twice, so that holding them pays.
        aligned: whether the arrays start at multiples of 16 bytes.
    """
    n, c, s = shape
    per_pack = 16 // itemsize
    width = per_pack if aligned and s % per_pack == 0 else 1
    layout, tile = ("Columns", 32) if s == 1 else ("Planes", 1)
    values, tiles, each = n * s, -(-c // tile), itemsize * arrays * tile
    if layout == "Planes":  # more blocks hide each other's waits better
        device = device.halved()
        small = device.halved()  # for many small channels
        fits = _scratch(small, 1) + 2 * values * each <= small.shared
        if fits and holds and tiles >= 2 * device.blocks and values < 16 * width * device.threads:
            device = small
    ranks = device.threads // tile  # threads that share a channel
    held_at = _scratch(device, tile)

    def fewest(per_block: int) -> int:
        """The fewest slices of which ``per_block`` fit into the memory of a block at once."""
        capacity = (device.shared - held_at) // per_block // each // width * width
        return -(-values // capacity) if capacity > 0 else device.blocks + 1

    half = max(1, device.blocks // 2)
    per_block = 1 if fewest(1) <= half and tiles * fewest(1) <= device.blocks else 2
    least, most = fewest(per_block), per_block * half
    held = holds and least <= most
    if not held:
        least, most = 1, half
    turns = -(-tiles * least // device.blocks)
    wanted = min(turns * device.blocks // tiles, -(-values // (2 * ranks * width)))
    count = min(most, max(wanted, least))
    length = _multiple(-(-values // count), width)
    count = -(-values // length)
    shared = held_at + (per_block * length * each if held else 0)
    grid = min(tiles * count, device.blocks) if held else tiles * count
    needs_all = held and count > device.multiprocessors  # each of these has room for one block
    launch = Launch(grid, device.threads, shared, needs_all)
    return Slices(layout, width, tiles, count, length, held_at, held, launch)


def _scratch(device: Device, tile: int) -> int:
    """Bytes that a block needs for two sums, four numbers per channel and the number of a slice."""
    sums = 2 * (device.threads if tile > 1 else device.threads // 32)
    return _multiple(8 * (sums + 4 * tile + 1), 16)


@dataclass(frozen=True)
class Rows:
    """One block per row of a matrix; the attributes mean the same as in ``Slices``."""

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
    held_at = _multiple(8 * max(2 * (threads // 32), 4), 16)
    needed = held_at + shape[1] * arrays * itemsize
    held = needed <= device.shared
    return Rows(width, held_at, held, Launch(shape[0], threads, needed if held else held_at))


def row_slices(shape: tuple[int, int], device: Device) -> tuple[int, int]:
    """How many slices the rows of (R, F) are cut into for column sums, and the length of one."""
    tiles, ranks = -(-shape[1] // 32), device.threads // 32
    count = max(1, min(-(-device.blocks // tiles), -(-shape[0] // (4 * ranks))))
    length = -(-shape[0] // count)
    return -(-shape[0] // length), length


def elementwise(size: int, device: Device) -> Launch:
    """A thread per element, in blocks of 256; with more than 32 blocks per multiprocessor, a thread
    takes several elements instead."""
    threads = min(256, device.threads)
    return Launch(max(1, min(-(-size // threads), 32 * device.multiprocessors)), threads)


def flattened(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, C, \\*sizes) as (N, C, S)."""
    return shape[0], shape[1], prod(shape[2:])


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of
