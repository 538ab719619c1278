"""Launch geometry is right for any device: pure numbers, no GPU."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minigrad.fused.cuda.geometry import Device, elementwise, row_slices, rows, slices

H200 = Device(132, 233_472, 232_448)
RTX = Device(170, 102_400, 101_376)  # compute capability 12.0
T4 = Device(40, 65_536, 65_536)  # 7.5
DEVICES = [H200, RTX, T4, Device(2, 20_480, 49_152, threads=64)]

sizes = st.integers(1, 3000)
shapes = st.tuples(sizes, st.integers(1, 600), st.one_of(st.just(1), sizes))
calls = {
    "shape": shapes,
    "itemsize": st.sampled_from([4, 8]),
    "device": st.sampled_from(DEVICES),
    "arrays": st.sampled_from([1, 2]),
    "holds": st.booleans(),
    "aligned": st.booleans(),
}


@given(**calls)
def test_slices_cover_every_value_of_a_channel_once(shape, itemsize, device, **words):
    plan = slices(shape, itemsize, device, **words)
    n, c, s = shape
    assert (plan.slices - 1) * plan.length < n * s <= plan.slices * plan.length
    assert plan.length % plan.width == 0 and s % plan.width == 0
    tile = 32 if plan.layout == "Columns" else 1
    assert (plan.tiles - 1) * tile < c <= plan.tiles * tile
    turns = plan.tiles * plan.slices
    blocks = device.blocks * device.threads // plan.launch.block
    assert plan.launch.grid == (min(turns, blocks) if plan.held else turns)
    assert plan.layout == ("Columns" if s == 1 else "Planes")


@given(**calls)
# halves of 12,200 bytes, no multiple of 16
@example(shape=(20_230, 27_041, 44), itemsize=8, device=RTX, arrays=1, holds=True, aligned=False)
def test_blocks_that_wait_for_each_other_all_run_at_once(shape, itemsize, device, **words):
    """Even if two streams run such a kernel, each in half of the device.

    A block that waits has published the sums of two slices, or of one if nothing is held.
    """
    plan = slices(shape, itemsize, device, **words)
    together = 2 * device.threads // plan.launch.block
    blocks = together * device.multiprocessors
    has_two = plan.held and plan.tiles * plan.slices > plan.launch.grid
    assert plan.slices <= max(1, blocks // 2) * (2 if has_two else 1)
    assert plan.launch.shared <= device.shared_per_block
    assert together * (plan.launch.shared + 1024) <= device.shared_per_multiprocessor
    assert together in (2, 4, 8) and plan.launch.block % 32 == 0
    # one block fits into each multiprocessor, however much of its memory is used as a cache
    assert not plan.held or plan.launch.needs_all or plan.slices <= device.multiprocessors


@given(**calls)
def test_held_values_and_scratch_fit_side_by_side(shape, itemsize, device, **words):
    plan = slices(shape, itemsize, device, **words)
    columns = plan.layout == "Columns"
    tile, threads = 32 if columns else 1, plan.launch.block
    sums = 2 * 8 * (threads if columns else threads // 32)  # two doubles in flight
    assert plan.held_at >= sums + 4 * tile * itemsize + 4 and plan.held_at % 16 == 0
    held = plan.length * tile * itemsize * words["arrays"] if plan.held else 0
    halves = 1 if plan.tiles * plan.slices <= plan.launch.grid else 2
    assert plan.launch.shared >= plan.held_at + halves * held
    assert plan.held is False or words["holds"]
    assert plan.slots > 2 * shape[1] * plan.slices


def test_batch_norm_of_resnet_reads_memory_once_on_an_h200():
    """(256, 256, 56, 56) float32: 3.2 MB per channel, in halves of 113 and 227 shared memories."""
    shape = (256, 256, 56 * 56)
    forward, backward = (slices(shape, 4, H200, arrays=k) for k in (1, 2))
    assert forward.held and backward.held
    assert (forward.width, backward.width) == (4, 4)
    assert forward.slices <= 115 and backward.slices <= 230
    assert forward.launch.grid == backward.launch.grid == 4 * 132


@pytest.mark.parametrize("shape", [(256, 6, 576), (256, 16, 64), (4096, 120, 1), (256, 1024, 1)])
def test_small_layers_keep_most_of_an_h200_busy(shape):
    """Unless a block would have less than two packs per thread."""
    plan = slices(shape, 4, H200, arrays=1)
    ranks = 16 if shape[2] == 1 else 512
    least = 2 * ranks * plan.width
    assert plan.launch.grid >= 100 or plan.length <= 2 * least


def test_what_needs_few_turns_leaves_no_block_idle_in_the_last():
    """64 channels in 8 slices fill 512 of 528 blocks once, in 29 or more four times."""
    shape = (32, 64, 56 * 56)
    forward, backward = (slices(shape, 4, H200, arrays=k) for k in (1, 2))
    assert (forward.slices, backward.slices) == (8, 33)


def test_many_small_channels_get_small_blocks():
    """(64, 2048, 7, 7): 12.5 KB per channel and array; two channels fit into each block."""
    forward, backward = (slices((64, 2048, 49), 4, H200, arrays=k) for k in (1, 2))
    assert forward.held and (forward.slices, forward.launch.block) == (1, 128)
    assert backward.held and (backward.slices, backward.launch.block) == (1, 256)


@given(
    shape=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    itemsize=st.sampled_from([4, 8]),
    device=st.sampled_from(DEVICES),
    arrays=st.sampled_from([1, 2]),
    aligned=st.booleans(),
)
def test_rows_fit_into_whole_warps_and_their_memory(shape, itemsize, device, arrays, aligned):
    plan = rows(shape, itemsize, device, arrays=arrays, aligned=aligned)
    assert plan.launch.grid == shape[0] and plan.launch.block % 32 == 0
    assert 32 <= plan.launch.block <= device.threads and shape[1] % plan.width == 0
    assert plan.held_at >= max(plan.launch.block // 2, 4 * itemsize) and plan.held_at % 16 == 0
    held = shape[1] * arrays * itemsize if plan.held else 0
    assert plan.launch.shared == plan.held_at + held <= device.shared
    count, length = row_slices(shape, device)
    assert (count - 1) * length < shape[0] <= count * length


@given(st.integers(0, 2**40), st.sampled_from(DEVICES))
def test_an_elementwise_launch_is_never_empty_nor_too_large(size, device):
    launch = elementwise(size, device)
    assert 1 <= launch.grid < 2**31 and 32 <= launch.block <= 256
