"""The other CUDA kernels: on a GPU with ``--device cuda``, else compiled for the CPU."""

from types import SimpleNamespace

import numpy as np
import pytest
from pairs import assert_within, run, wide

import minigrad as mg
from minigrad.errors import DeviceError
from minigrad.fused import foreach
from minigrad.fused.cuda import PAIRS
from minigrad.fused.cuda import kernels as launcher
from minigrad.fused.cuda.foreach import axpby_all, copy_all, track
from minigrad.fused.cuda.geometry import elementwise
from minigrad.fused.foreach import all_finite
from minigrad.nn.kernels import count_right

DTYPES = [np.float32, np.float64]
both = pytest.mark.parametrize("dtype", DTYPES)


def reference(op, xs, y_bar, **params):
    """The value and the cotangents of ``op`` in extended precision."""
    y, pullback = mg.vjp(lambda *a: op(*a, **params), *map(wide, xs))
    return [y.data, *(bar.data for bar in pullback(wide(y_bar)))]


def draw(rng, shape, dtype):
    return np.asarray(rng.normal(size=shape)).astype(dtype)


@both
@pytest.mark.parametrize("shape", [(), (1,), (3,), (64,), (5, 7, 11), (3000,)], ids=str)
def test_sigmoid_keeps_its_digits_in_both_tails(shape, dtype, kernels, rng):
    """e^-t is good to 2 u (CUDA C++ guide, table of errors); 3 more operations follow."""
    x = np.asarray(rng.uniform(-80, 80, shape)).astype(dtype)  # e^-80 is no denormal number
    y_bar = draw(rng, shape, dtype)
    found = run(kernels, "sigmoid", (x,), y_bar)
    t = np.exp(-np.abs(wide(x)))
    for name, got, expected in (
        ("y", found.y, np.where(x < 0, t, 1) / (1 + t)),
        ("x_bar", found.bars[0], wide(y_bar) * t / (1 + t) ** 2),
    ):
        assert_within(got, expected, 8 * np.finfo(dtype).eps * np.abs(expected), name)


POOLS = [
    ((2, 3, 4, 4), {"kernel_size": 2}),
    ((2, 1, 5), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ((1, 2, 5, 4), {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 1)}),
    ((1, 1, 7, 7), {"kernel_size": 2, "stride": 3, "dilation": 2, "padding": 1}),
    ((3, 50, 5, 4), {"kernel_size": 2, "stride": 1}),  # planes enough to walk over
    ((1, 2, 20, 18), {"kernel_size": 17, "stride": 1}),  # 289 places need more than a byte
]


@both
@pytest.mark.parametrize(("shape", "geometry"), POOLS, ids=str)
def test_max_pool_equals_the_op_bit_for_bit(shape, geometry, dtype, kernels, rng):
    x = np.round(draw(rng, shape, dtype) * 2)  # many ties
    y, pullback = mg.vjp(lambda x: mg.ops.max_pool(x, **geometry), x)
    y_bar = rng.integers(-8, 8, y.shape).astype(dtype)  # sums of which are exact
    found = run(kernels, "max_pool", (x,), y_bar, **geometry)
    np.testing.assert_array_equal(found.y, y.data)
    np.testing.assert_array_equal(found.bars[0], pullback(y_bar)[0].data)


def test_max_pool_of_nan_and_of_minus_infinity_equals_the_op(kernels, rng):
    x = draw(rng, (1, 1, 4, 4), np.float32)
    x[0, 0, 1, 1], x[0, 0, 2:, 2:] = np.nan, -np.inf
    geometry = {"kernel_size": 2, "stride": 1, "padding": 1}
    y, pullback = mg.vjp(lambda x: mg.ops.max_pool(x, **geometry), x)
    y_bar = rng.integers(1, 8, y.shape).astype(np.float32)
    found = run(kernels, "max_pool", (x,), y_bar, **geometry)
    np.testing.assert_array_equal(found.y, y.data)
    np.testing.assert_array_equal(found.bars[0], pullback(y_bar)[0].data)


CONVOLUTIONS = [
    ((3, 1, 12, 12), (6, 1, 5, 5), {}),
    ((2, 6, 6, 6), (16, 6, 5, 5), {}),
    ((3, 2, 7), (3, 2, 2), {"padding": 1}),
    ((2, 1, 4, 5), (2, 1, 2, 3), {"stride": (1, 2), "padding": 1}),
    ((1, 4, 6, 6), (6, 2, 2, 2), {"groups": 2, "dilation": 2, "stride": 2}),
    ((2, 20, 3, 3), (18, 10, 1, 1), {"groups": 2}),
    ((9, 3, 4, 4), (2, 3, 3, 3), {"padding": 2, "stride": 3}),
    ((1, 1, 24, 24), (2, 1, 3, 3), {}),  # 9 taps of its outputs do not fit at once
]


@both
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("x_shape", "w_shape", "geometry"), CONVOLUTIONS, ids=str)
def test_conv_is_within_the_rounding_of_its_sums(
    x_shape, w_shape, geometry, biased, dtype, kernels, rng
):
    """A sum of n products errs by at most (n + 1) u times the sum of their magnitudes."""
    xs = [draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)]
    xs += [draw(rng, w_shape[:1], dtype)] * biased
    y_bar = draw(rng, mg.ops.conv(*xs, **geometry).shape, dtype)
    found = run(kernels, "conv", xs, y_bar, **geometry)
    references = reference(mg.ops.conv, xs, y_bar, **geometry)
    magnitudes = reference(mg.ops.conv, [np.abs(x) for x in xs], np.abs(y_bar), **geometry)
    terms = np.prod(w_shape[1:]) + 1, w_shape[0] * np.prod(w_shape[2:]), *[y_bar.size] * 2
    names, got = ("y", "x_bar", "w_bar", "b_bar"), (found.y, *found.bars)
    for name, value, expected, size, n in zip(
        names[: len(got)], got, references, magnitudes, terms[: len(got)], strict=True
    ):
        assert_within(value, expected, (n + 1) * np.finfo(dtype).eps * size, name)


@both
@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 1, 1), (5, 3, 7), (20, 150, 3), (65, 17, 64), (70, 1100, 3), (5, 1100, 7)]
)
@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
def test_matmul_is_within_the_rounding_of_its_sums(m, k, n, transposed, dtype, kernels, rng):
    a, b = draw(rng, (m, k), dtype), draw(rng, (k, n), dtype)
    pair = PAIRS["matmul"]
    arrays = [
        kernels.array(x.T).T if name in transposed else kernels.array(x)
        for name, x in (("a", a), ("b", b))
    ]
    y, cache = pair.forward(kernels.xp, *arrays)
    y_bar = draw(rng, (m, n), dtype)
    bars = [bar() for bar in pair.backward(kernels.xp, kernels.array(y_bar), cache)]
    u = np.finfo(dtype).eps
    for got, left, right in ((y, a, b), (bars[0], y_bar, b.T), (bars[1], a.T, y_bar)):
        bound = (left.shape[1] + 1) * u * (np.abs(wide(left)) @ np.abs(wide(right)))
        assert_within(kernels.host(got), wide(left) @ wide(right), bound, "product")


@both
@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (5, 9, 16), (1100, 3, 5), (33, 128, 64)])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_is_within_the_rounding_of_its_sums(n, k, m, biased, dtype, kernels, rng):
    xs = [draw(rng, (n, k), dtype), draw(rng, (m, k), dtype)] + [draw(rng, m, dtype)] * biased
    y_bar = draw(rng, (n, m), dtype)
    found = run(kernels, "linear", xs, y_bar)
    references = reference(mg.ops.linear, xs, y_bar)
    magnitudes = reference(mg.ops.linear, [np.abs(x) for x in xs], np.abs(y_bar))
    for name, got, expected, size, terms in zip(
        ("y", "x_bar", "w_bar", "b_bar")[: 1 + len(xs)], (found.y, *found.bars), references,
        magnitudes, (k + 1, m, n, n)[: 1 + len(xs)], strict=True,
    ):  # fmt: skip
        assert_within(got, expected, (terms + 1) * np.finfo(dtype).eps * size, name)


@both
@pytest.mark.parametrize("labels_dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 10), (70, 4), (5, 100)])
def test_cross_entropy_is_within_the_rounding_of_its_sums(n, k, labels_dtype, dtype, kernels, rng):
    """A row sums k powers with errors of (2 + |x|) u each; its logarithm errs by as much."""
    logits = (draw(rng, (n, k), dtype) * 3 + 100).astype(dtype)
    labels = rng.integers(0, k, n).astype(labels_dtype)
    y_bar = np.asarray(rng.normal(), dtype)
    pair, u = PAIRS["cross_entropy"], np.finfo(dtype).eps
    arrays = kernels.array(logits), kernels.array(labels)
    assert pair.accepts(*arrays)
    y, cache = pair.forward(kernels.xp, *arrays)
    x_bar, nothing = pair.backward(kernels.xp, kernels.array(y_bar), cache)
    assert nothing is None
    expected, x_bar_expected = reference(
        lambda x: mg.ops.cross_entropy(x, labels), (logits,), y_bar
    )
    spread = np.ptp(wide(logits), axis=1).max()
    bound = (k + 16) * u * (1 + spread)
    assert_within(kernels.host(y), expected, bound, "loss")
    assert_within(kernels.host(x_bar), x_bar_expected, bound * np.abs(y_bar) / n, "x_bar")


@pytest.mark.parametrize("labels_dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 10), (200, 4)])
def test_right_answers_are_counted_as_by_argmax(n, k, labels_dtype, kernels, rng):
    logits = rng.integers(-2, 3, (n, k)).astype(np.float32)  # many ties
    logits[rng.random((n, k)) < 0.1] = np.nan
    labels = rng.integers(0, k, n).astype(labels_dtype)
    found = count_right(kernels.array(logits), kernels.array(labels))
    assert found.shape == () and kernels.host(found) == (logits.argmax(axis=1) == labels).sum()


@pytest.mark.parametrize("wrong", [-1, 4, 1 << 40])
def test_a_label_that_is_no_class_makes_the_loss_nan(wrong, kernels, rng):
    pair = PAIRS["cross_entropy"]
    logits, labels = draw(rng, (3, 4), np.float32), np.array([0, wrong, 3])
    y, cache = pair.forward(kernels.xp, kernels.array(logits), kernels.array(labels))
    x_bar, _ = pair.backward(kernels.xp, kernels.array(np.float32(1)), cache)
    assert np.isnan(kernels.host(y))
    nans = np.isnan(kernels.host(x_bar))
    assert nans[1].all() and not nans[[0, 2]].any()


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("batch_norm", [np.ones((2, 3), np.float16)] + [np.ones(3, np.float16)] * 2),
        ("batch_norm", [np.ones((2, 3), np.float32)] + [np.ones(3)] * 2),
        ("batch_norm", [np.ones((0, 3))] + [np.ones(3)] * 2),
        ("conv", [np.ones((1, 1, 2, 2, 2)), np.ones((1, 1, 1, 1, 1))]),
        ("conv", [np.ones((1, 64, 112, 112)), np.ones((1, 64, 3, 3))]),
        ("conv", [np.ones((1, 3, 4, 4)), np.ones((1, 2, 3, 3))]),
        ("max_pool", [np.ones((1, 1, 2, 2, 2))]),
        ("sigmoid", [np.ones(3, np.int64)]),
        ("cross_entropy", [np.ones((3, 2)), np.ones(2, np.int64)]),
        ("cross_entropy", [np.ones((3, 2)), np.ones(3)]),
        ("layer_norm", [np.ones((3, 2)), np.ones(3), np.ones(3)]),
        ("linear", [np.ones((2, 2, 3)), np.ones((4, 3))]),
        ("linear", [np.ones((2, 3)), np.ones((4, 2))]),
        ("linear", [np.ones((0, 3)), np.ones((4, 3))]),
        ("matmul", [np.ones((3, 2)), np.ones((3, 2))]),
    ],
)
def test_what_kernels_do_not_serve_is_left_to_portable_code(name, arrays):
    params = {"kernel_size": 1} if name == "max_pool" else {}
    assert not PAIRS[name].accepts(*arrays, **params)


@pytest.mark.parametrize("shape", [(2**31, 2), (2, 2**31)])
def test_what_32_bits_do_not_count_is_left_to_portable_code(shape):
    x, of_columns = (np.broadcast_to(np.float32(1), sizes) for sizes in (shape, shape[1:]))
    for name in ("batch_norm", "layer_norm"):
        assert not PAIRS[name].accepts(x, of_columns, of_columns)


def test_batch_norm_over_other_axes_is_left_to_portable_code():
    arrays = np.ones((2, 3, 4)), np.ones(3), np.ones(3)
    assert PAIRS["batch_norm"].accepts(*arrays, axis=(0, 2))
    assert not PAIRS["batch_norm"].accepts(*arrays, axis=(2,))


def test_many_arrays_are_copied_at_once_whatever_their_sizes_dtypes_and_order(kernels, rng):
    """More than fit one launch, and some that are no whole words or lie in another order."""
    shapes = [(3, 700), (), (0, 2), (5,), *[(n, 3) for n in range(1, 70)]]
    dtypes = ["float32", "float64", "int64", "bool", "float16"]
    sources = [(rng.normal(size=shape) * 9).astype(dtypes[i % 5]) for i, shape in enumerate(shapes)]
    placed = [kernels.array(source) for source in sources]
    homes = [kernels.xp.zeros(source.shape, source.dtype) for source in sources]
    homes[0], homes[5] = kernels.xp.zeros((700, 3), "float32").T, kernels.xp.zeros((2, 3))
    placed[5], sources[5] = placed[5][:1] + homes[5], sources[5][:1] + np.zeros((2, 3))
    copy_all(kernels.xp, list(zip(homes, placed, strict=True)))
    for home, source in zip(homes, sources, strict=True):
        np.testing.assert_array_equal(kernels.host(home), source)


def test_sums_of_many_arrays_are_those_one_by_one(kernels, rng):
    """Arrays that no kernel adds are among them: integers, mixed dtypes, columns, empty ones."""
    kinds = ["f4"] * 70 + ["f8", "f4", "i8", "f4"]
    shapes = [(int(n),) for n in rng.integers(0, 5000, 70)] + [(), (60, 5), (3,), (7, 2)]
    xs, ys = ([draw(rng, shape, k) for shape, k in zip(shapes, kinds, strict=True)] for _ in "xy")
    xs[-2:] = [ys[-2] + 1.5, np.asfortranarray(xs[-1])]
    numbers = rng.normal(size=(len(xs), 2)).tolist()
    given = zip(numbers, xs, ys, strict=True)
    placed = [(a, kernels.array(x), b, kernels.array(y)) for (a, b), x, y in given]
    sums = axpby_all(kernels.xp, placed)
    for (a, b), x, y, out in zip(numbers, xs, ys, sums, strict=True):
        exact = a * wide(x) + b * wide(y)
        assert out.shape == x.shape and out.dtype == (a * x + b * y).dtype
        # a, b, both products and the sum are rounded
        unit = 4 * np.finfo(out.dtype).eps * (abs(a * wide(x)) + abs(b * wide(y)))
        assert (abs(kernels.host(out) - exact) <= unit).all()
    assert axpby_all(kernels.xp, []) == []


@pytest.mark.parametrize("lost", [None, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 2, 69, 70, 71])
def test_one_number_that_is_not_finite_is_found_among_many_arrays(lost, which, kernels, rng):
    """Arrays that no kernel reads are among them: columns, integers, empty ones."""
    arrays = [draw(rng, (int(n),), "f8" if n % 2 else "f4") for n in rng.integers(1, 5000, 70)]
    arrays += [np.asfortranarray(draw(rng, (3, 4), "f4")), np.ones((2, 3), "f2")]
    arrays += [np.ones(3, int), np.ones((0, 2))]
    if lost is not None:
        arrays[which].flat[-1] = lost
    placed = [kernels.array(array) for array in arrays]
    placed[70] = kernels.array(arrays[70].T).T
    assert all_finite(placed) == (lost is None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("c", [1, 256, 300])
def test_running_statistics_take_one_more_batch(c, dtype, kernels, rng):
    old_mean, old_var, mean, var = (draw(rng, (c,), dtype) for _ in range(4))
    placed = [kernels.array(array) for array in (old_mean, old_var, mean, var)]
    running = *placed[:2], kernels.array(np.int64(2**40))
    found = track(kernels.xp, running, *placed[2:], 0.1, 1.25)
    assert kernels.host(found[2]) == 2**40 + 1 and found[2].shape == ()
    exact = 0.9 * wide(old_mean) + 0.1 * wide(mean), 0.9 * wide(old_var) + 0.125 * wide(var)
    sizes = abs(0.9 * old_mean) + abs(0.1 * mean), abs(0.9 * old_var) + abs(0.125 * var)
    for out, value, size in zip(found, exact, sizes, strict=False):
        # both factors, both products and the sum are rounded
        assert out.dtype == dtype
        assert (abs(kernels.host(out) - value) <= 4 * np.finfo(dtype).eps * size).all()
    assert track(kernels.xp, running, placed[2], placed[3].astype("float16"), 0.1, 1.25) is None
    for count in (np.int64(3), kernels.array([3, 4])):  # set by a user: on the host, two counts
        assert track(kernels.xp, (*placed[:2], count), *placed[2:], 0.1, 1.25) is None
        *_, counted = foreach.track((*placed[:2], count), *placed[2:], 0.1, 1.25)
        np.testing.assert_array_equal(*map(mg.backend.to_host, (counted, count + 1)))


def test_operands_on_another_gpu_than_the_current_one_are_refused(kernels, monkeypatch):
    """Results are on the current one, whose memory a kernel on the other cannot write."""
    x = kernels.array(np.ones(3))
    monkeypatch.setattr(kernels.xp.cuda.runtime, "getDevice", lambda: 1)
    with pytest.raises(DeviceError, match=r"cuda:1(.|\n)*cuda:0(.|\n)*Device\(0\)"):
        PAIRS["sigmoid"].forward(kernels.xp, x)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("layer_norm", [(1, 2**31 - 4095), (2**31 - 4095,), (2**31 - 4095,)]),
     ("conv", [(2**31, 1, 1, 1), (1, 1, 1, 1)])],
)  # fmt: skip
def test_what_32_bits_do_not_count_is_left_to_the_portable_version(name, shapes):
    """The index one step, of up to 4096, beyond the last value of a row; the number of images."""
    for sizes, is_served in ((shapes, False), ([(1, 1, 1, 1)[: len(s)] for s in shapes], True)):
        arrays = [np.broadcast_to(np.float32(0), shape) for shape in sizes]
        assert PAIRS[name].accepts(*arrays) == is_served


@pytest.mark.parametrize("place", range(2))
def test_one_operand_on_another_gpu_than_the_others_is_refused(place, kernels):
    """If GPUs cannot reach each other, its address is invalid on this one."""
    if kernels.is_real:
        pytest.skip("needs two GPUs")

    class Far(kernels.xp.ndarray):
        data = property(lambda self: SimpleNamespace(ptr=super().data.ptr, device_id=1))
        device = property(lambda self: kernels.xp.cuda.Device(1))

    arrays = [kernels.array(np.ones(3)) for _ in range(2)]
    arrays[place] = Far(arrays[place].hidden)
    launch = elementwise(3, launcher.device_of(kernels.xp, arrays[0]))
    with pytest.raises(DeviceError, match=r"cuda:0(.|\n)*got: +on cuda:1(.|\n)*to\('cuda:0'\)"):
        launcher.run(kernels.xp, "sigmoid.cu", "sigmoid_forward<double, 1>", launch, *arrays, 3)


def test_sums_of_arrays_on_other_gpus_than_the_current_one_are_left_to_cupy(gpu, monkeypatch, rng):
    """A network may be spread over several GPUs, but a table of addresses is read by one."""
    if gpu.is_real:
        pytest.skip("CuPy refuses arrays of other GPUs that it cannot reach")
    monkeypatch.setattr(gpu.xp, "__name__", "cupy")
    monkeypatch.setattr(gpu.xp.cuda.runtime, "getDevice", lambda: 1)
    x = gpu.array(rng.normal(size=8))
    (out,) = axpby_all(gpu.xp, [(2.0, x, 3.0, x)])
    copy_all(gpu.xp, [(home := gpu.xp.zeros(8), x)])
    np.testing.assert_array_equal(gpu.host(out), 2.0 * gpu.host(x) + 3.0 * gpu.host(x))
    np.testing.assert_array_equal(gpu.host(home), gpu.host(x))
    assert all_finite([x])
