"""Convolution against its definition, written as loops; layout; errors."""

import itertools

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ShapeError
from minigrad.ops.conv import col2im, conv, im2col
from minigrad.ops.window import batch_last, window


def by_definition(x, w, stride, padding, dilation, groups):
    """The sum of products for each output, one at a time."""
    n, _, *sizes = x.shape
    a, per_group, *kernel = w.shape
    d = len(sizes)
    stride, padding, dilation = ((v,) * d if isinstance(v, int) else v
                                 for v in (stride, padding, dilation))  # fmt: skip
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    outputs = [
        (m + 2 * p - e * (k - 1) - 1) // s + 1
        for m, p, e, k, s in zip(sizes, padding, dilation, kernel, stride, strict=True)
    ]
    y = np.zeros((n, a, *outputs))
    for i, o in itertools.product(range(n), range(a)):
        first = o // (a // groups) * per_group
        for place in itertools.product(*map(range, outputs)):
            for k in itertools.product(*map(range, kernel)):
                at = tuple(q * s + e * r for q, s, e, r in zip(place, stride, dilation, k,
                                                              strict=True))  # fmt: skip
                for channel in range(per_group):
                    y[(i, o, *place)] += x[(i, first + channel, *at)] * w[(o, channel, *k)]
    return y


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "geometry"),
    [
        ((2, 3, 7), (4, 3, 3), (2, 1, 2, 1)),
        ((2, 4, 5, 6), (6, 2, 2, 3), ((1, 2), (1, 0), (2, 1), 2)),
        ((1, 3, 4, 4), (3, 1, 3, 3), (1, 1, 1, 3)),
        ((2, 3, 4, 5), (2, 3, 1, 1), (1, 0, 1, 1)),
        ((2, 3, 5, 5), (2, 3, 1, 1), (2, 0, 1, 1)),
        ((2, 3, 3, 3), (2, 3, 1, 1), (2, 1, 1, 1)),  # outputs of the size of the image
        ((1, 2, 3, 4, 3), (2, 2, 2, 2, 2), (1, (0, 1, 0), 1, 1)),
        ((2, 1, 2, 2, 2, 2), (1, 1, 2, 1, 2, 1), (1, 0, 1, 1)),
    ],
    ids=str,
)
def test_convolution_equals_its_definition(x_shape, w_shape, geometry, rng):
    x, w = rng.normal(size=x_shape), rng.normal(size=w_shape)
    stride, padding, dilation, groups = geometry
    y = conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    # the same products summed in another order: at most 36 of them of size 10
    np.testing.assert_allclose(y, by_definition(x, w, *geometry), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1, 2])
def test_no_channels_add_up_to_zeros(size):
    y = conv(np.ones((2, 0, 5)), np.ones((3, 0, size)), np.arange(3.0))
    np.testing.assert_array_equal(y, np.broadcast_to([[[0], [1], [2]]], (2, 3, 6 - size)))


def test_an_empty_batch_gives_an_empty_result():
    assert conv(np.zeros((0, 2, 5, 5)), np.zeros((3, 2, 2, 2))).shape == (0, 3, 4, 4)


def test_float32_stays_float32(rng):
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 1, 4, 4), (3, 1, 2, 2)))
    assert conv(x, w, padding=1).dtype == np.float32


def test_the_input_is_not_changed_and_shares_no_memory_with_the_result(rng):
    x, w = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 3, 1, 1))
    before = x.copy()
    y = conv(x, w)
    y += 1.0
    np.testing.assert_array_equal(x, before)


def test_windows_that_are_an_identity_or_a_partition_read_each_element_once():
    for n, k, s, p, d in itertools.product(range(1, 9), (1, 2, 3, 4), (1, 2, 3), (0, 1), (1, 2)):
        if n + 2 * p <= d * (k - 1):
            continue
        windows = window((1, 1, n), k, s, p, d)
        reads = [o * s + i * d for o in range(windows.outputs[0]) for i in range(k)]
        is_identity = k == 1 and p == 0 and reads == list(range(n))
        assert windows.is_identity == is_identity, (n, k, s, p, d)
        if windows.is_partition:
            assert sorted(reads) == list(range(n + 2 * p)), (n, k, s, p, d)
    assert window((1, 1, 4, 6), 2, 2).is_partition


def test_im2col_and_col2im_are_adjoint(rng):
    geometry = {"kernel_size": (3, 2), "stride": (1, 2), "padding": 1, "dilation": (1, 2)}
    x = rng.normal(size=(2, 3, 5, 6))
    columns = im2col(x, **geometry)
    y = rng.normal(size=columns.shape)
    left = (columns * y).sum()
    right = (x * col2im(y, shape=x.shape, **geometry)).sum()
    assert abs(left - right) < 1e-12


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "words", "text"),
    [
        ((1, 3, 4, 4), (2, 2, 3, 3), {}, r"w.shape\[1\] == 3"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"groups": 2}, "divisible by groups=2"),
        ((1, 4, 4, 4), (3, 2, 3, 3), {"groups": 2}, "divisible by groups=2"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"groups": 0}, "divisible by groups=0"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"b": np.zeros(3)}, r"conv: b\n.*\(2,\)"),
        ((1, 3, 4), (2, 3, 3, 3), {}, "equally many axes"),
        ((3, 4), (2, 3), {}, "equally many axes"),
        ((1, 3, 4, 4), (2, 3, 5, 3), {}, "at most the padded image"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"stride": 0}, "ints >= 1"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"padding": (1, 1, 1)}, "padding"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"dilation": 1.5}, "dilation"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"padding": "same"}, "padding\n.*2 ints >= 0\n.*'same'"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"stride": None}, "stride\n.*2 ints >= 1\n.*None"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(x_shape, w_shape, words, text):
    with pytest.raises(ShapeError, match=text):
        conv(np.zeros(x_shape), np.zeros(w_shape), **words)


def test_a_convolution_is_one_cluster_of_four_kinds_of_ops(rng):
    x = mg.tensor(rng.normal(size=(1, 1, 4, 4)), requires_grad=True)
    y = conv(x, rng.normal(size=(1, 1, 2, 2)))
    assert [scope.name for scope in y.node.scope.path()] == ["conv"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(17, 2, 32, 32), (33, 1, 1024), (40, 2, 16, 16), (17, 3, 8, 64)])
def test_images_that_would_share_cache_lines_are_copied_as_they_are(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    folded = batch_last(np, x)
    assert folded.flags.c_contiguous and folded.dtype == x.dtype
    np.testing.assert_array_equal(folded, np.moveaxis(x, 0, -1))
    windows = window(shape, kernel_size=3, padding=1)
    inside = (slice(None), *(slice(1, -1),) * (len(shape) - 2))
    padded = windows.pad(np, x)
    np.testing.assert_array_equal(padded[inside], np.moveaxis(x, 0, -1))
    padded[inside] = 0
    assert not padded.any()
    every_other = window(shape, kernel_size=1, stride=2)  # reads too little to pay for a copy
    assert every_other.pad(np, x).base is x


@pytest.mark.parametrize("shape", [(16, 2, 32, 32), (40, 1, 28, 28), (0, 3, 32, 32), (40, 8, 16)])
def test_other_images_are_not_copied(shape):
    x = np.zeros(shape, np.float32)
    assert batch_last(np, x).base is x
    assert batch_last(np, np.moveaxis(batch_last(np, x), -1, 0)).base is x
