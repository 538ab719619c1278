"""Batch norm's CUDA kernels: on a GPU with ``--device cuda``, else compiled for the CPU."""

import numpy as np
import pytest
from pairs import check_batch_norm, check_layer_norm, normal, run

import minigrad as mg
from minigrad.errors import ShapeError, UsageError
from minigrad.fused.cuda import kernels as launcher

# sizes that are no multiples of the width of a pack, of the 32 columns of a tile, or of a slice
SHAPES = [
    (2, 1), (5, 3), (64, 32), (256, 40), (300, 33), (601, 3),
    (3, 2, 1), (4, 3, 5), (2, 1, 4), (1, 2, 1000), (2, 1, 20_000), (700, 2, 3),
    (2, 3, 8, 8), (7, 2, 3, 3), (3, 5, 7, 11), (16, 2, 40, 40), (2, 40, 4, 4),
    (2, 3, 2, 3, 4), (2, 2, 2, 2, 2, 3),
]  # fmt: skip
DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_equals_the_analytic_formula(shape, dtype, kernels, rng):
    check_batch_norm(kernels, *normal(shape, dtype, rng))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_evaluation_equals_the_analytic_formula(shape, dtype, kernels, rng):
    mean = rng.normal(size=shape[1]).astype(dtype)
    var = rng.uniform(0.5, 2, shape[1]).astype(dtype)
    check_batch_norm(kernels, *normal(shape, dtype, rng), mean=mean, var=var)


@pytest.mark.parametrize("shape", [(500, 5), (64, 2, 16, 16), (2, 1, 20_000)], ids=str)
def test_a_mean_of_1e4_costs_no_digits(shape, kernels, rng):
    """The bound knows nothing of the mean: it is 40 u of the largest deviation."""
    check_batch_norm(kernels, *normal(shape, np.float32, rng, mean=1e4))


@pytest.mark.parametrize("shape", [(40, 3), (4, 2, 5, 5)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.5])
def test_eps_is_added_to_the_variance(shape, eps, kernels, rng):
    check_batch_norm(kernels, *normal(shape, np.float64, rng, std=0.1), eps=eps)


def test_a_constant_channel_gives_beta(kernels, rng):
    (x, gamma, beta), y_bar = normal((6, 3, 10), np.float32, rng)
    x[:, 1] = 7.25
    found = check_batch_norm(kernels, (x, gamma, beta), y_bar)
    np.testing.assert_array_equal(found.y[:, 1], np.full((6, 10), beta[1]))


def test_an_outlier_that_is_the_shift_costs_its_own_digits_only(kernels, rng):
    (x, gamma, beta), y_bar = normal((50, 2, 10), np.float32, rng)
    x[0, :, 0] = 1e3  # the value that is subtracted before sums are taken
    check_batch_norm(kernels, (x, gamma, beta), y_bar)


@pytest.mark.parametrize("shape", [(20, 3), (3, 3, 8)], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_channel(shape, value, kernels, rng):
    (x, gamma, beta), y_bar = normal(shape, np.float32, rng)
    x[(0, 1, *(0,) * (len(shape) - 2))] = value
    found = run(kernels, "batch_norm", (x, gamma, beta), y_bar)
    clean = [0, 2]
    assert np.isnan(found.y[:, 1]).all() and np.isfinite(found.y[:, clean]).all()
    assert np.isfinite(found.bars[0][:, clean]).all()


def test_no_nan_passes_for_sums_that_nobody_has_left(kernels, rng):
    """Blocks wait until a slot differs from 0, the complement of this nan."""
    xs, y_bar = normal((4, 3, 200), np.float64, rng)
    xs[0][2, 1, 7] = np.array(2**64 - 1, np.uint64).view(np.float64)
    found = run(kernels, "batch_norm", xs, y_bar)
    assert np.isnan(found.y[:, 1]).all() and np.isfinite(found.y[:, [0, 2]]).all()


@pytest.mark.parametrize(
    ("sizes", "error"),
    [({"gamma": 2}, ShapeError), ({"gamma": 1, "beta": 1}, ShapeError), ({"beta": 4}, ShapeError),
     ({"mean": 2, "var": 2}, ShapeError), ({"mean": 3, "var": 1}, ShapeError),
     ({"mean": 3}, UsageError), ({"var": 3}, UsageError)],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_the_channels_is_refused_before_a_kernel_reads_it(
    sizes, error, kernels, rng
):
    x = mg.tensor(rng.normal(size=(4, 3, 5)), device="cuda")
    sizes = {"gamma": 3, "beta": 3, **sizes}
    given = {name: mg.tensor(np.ones(size), device="cuda") for name, size in sizes.items()}
    with pytest.raises(error, match=r"batch_norm: (mean|var|gamma|beta)"):
        mg.fused.batch_norm(x, given.pop("gamma"), given.pop("beta"), **given)


@pytest.mark.parametrize("axis", [0, -2, [0], (-2,)], ids=str)
def test_the_axis_of_columns_may_be_one_number(axis, kernels, rng):
    xs, y_bar = normal((6, 3), np.float64, rng)
    expected, found = (run(kernels, "batch_norm", xs, y_bar, axis=a) for a in (None, axis))
    np.testing.assert_array_equal(found.y, expected.y)


def test_statistics_may_lie_on_the_host(kernels, rng):
    (x, *parameters), _ = normal((6, 3), np.float64, rng)
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2, 3)
    found = []
    for place in (np.array, kernels.array):
        operands = [mg.tensor(a, device="cuda") for a in (x, *parameters)]
        found.append(mg.fused.batch_norm(*operands, mean=place(mean), var=place(var)).numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("shape", "shares"), [((200, 1, 20), [100, -1]), ((50, 40, 4), [-1, -1])])
def test_where_many_blocks_wait_for_each_other_no_shared_memory_is_a_cache(
    shape, shares, kernels, rng, monkeypatch
):
    """``shares``: per cent in the forward and the backward, which holds no values; -1: not set."""
    if kernels.is_real:
        pytest.skip("how many blocks there are depends on the device")
    found, original = [], launcher._kernel

    def kernel(*words):
        found.append(original(*words).preferred_shared_memory_carveout)
        return original(*words)

    monkeypatch.setattr(launcher, "_kernel", kernel)
    run(kernels, "batch_norm", *normal(shape, np.float32, rng))
    assert found == shares


def test_a_launch_that_needs_all_shared_memory_leaves_others_their_cache(kernels):
    xp, name, instance = (
        kernels.xp,
        "batch_norm.cu",
        "batch_norm_forward<Planes<float, 4>, true, true>",
    )
    found = [launcher._kernel(xp, name, instance, 0, needs) for needs in (True, False)]
    assert [kernel.preferred_shared_memory_carveout for kernel in found] == [100, -1]


def test_two_calls_give_the_same_bits(kernels, rng):
    for shape in [(500, 33), (16, 2, 40, 40)]:
        xs, y_bar = normal(shape, np.float32, rng)
        first, second = (run(kernels, "batch_norm", xs, y_bar) for _ in range(2))
        np.testing.assert_array_equal(first.y, second.y)
        for one, two in zip(first.bars, second.bars, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 2, 8), (12, 5)], ids=str)
def test_views_that_start_between_packs_are_read_value_by_value(shape, dtype, kernels, rng):
    """In C order, but not at a multiple of 16 bytes."""

    def inside(x):
        return kernels.array(np.concatenate([np.zeros(1, dtype), x.ravel()]))[1:].reshape(x.shape)

    check_batch_norm(kernels, *normal(shape, dtype, rng), place=inside)


@pytest.mark.parametrize("shape", [(4, 2, 8), (12, 5)], ids=str)
def test_views_with_other_strides_are_copied_first(shape, kernels, rng):
    def every_second(x):
        return kernels.array(np.repeat(x, 2, axis=-1))[..., ::2]

    check_batch_norm(kernels, *normal(shape, np.float32, rng), place=every_second)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "trailing"),
    [((5, 7), 1), ((3, 64), 1), ((2, 3, 10), 2), ((40, 33), 1), ((2, 5000), 1), ((300, 4), 1),
     ((6,), 1)],
    ids=str,
)  # fmt: skip
def test_layer_norm_equals_its_composite(shape, trailing, dtype, kernels, rng):
    own = shape[len(shape) - trailing :]
    x, y_bar = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    gamma, beta = (rng.uniform(0.5, 2, own).astype(dtype) for _ in range(2))
    check_layer_norm(kernels, x, gamma, beta, y_bar)


def test_layer_norm_of_rows_with_a_mean_of_1e4_costs_no_digits(kernels, rng):
    x = (rng.normal(size=(7, 300)) + 1e4).astype(np.float32)
    gamma, beta = (rng.uniform(0.5, 2, 300).astype(np.float32) for _ in range(2))
    check_layer_norm(kernels, x, gamma, beta, rng.normal(size=x.shape).astype(np.float32))
