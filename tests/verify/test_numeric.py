"""Derivatives by differences."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from minigrad.verify.kinks import one_sided_slopes
from minigrad.verify.numeric import Jacobian, _noise, default_scale, jacobians


def test_the_cotangent_of_no_result_is_zero_whatever_lies_beside_its_arrays():
    nan = np.full(1, np.nan, np.longdouble)
    nothing = as_strided(nan, (1, 0, 6), (0, 0, 0))
    found = Jacobian(nothing, nothing, ((0,), (2, 3)))
    for part in found.pull(as_strided(nan, (0,), (16,))):
        np.testing.assert_array_equal(part, np.zeros((2, 3)))


def test_smaller_steps_are_not_tried_where_there_is_no_value():
    calls = {}
    for last in (1.0, np.nan):
        tried = []

        def f(x, last=last, tried=tried):
            tried.append(x)
            return x * x * [1.0, 1.0, last]

        (found,) = jacobians(f, [np.array([1.0, 2.0, 3.0])])
        assert np.isfinite(found.value).all() == np.isfinite(last)
        calls[last] = len(tried)
    # per column: five steps to both sides where three do on a parabola, and a look at x itself
    assert calls[np.nan] <= calls[1.0] + 3 * (2 * 2 + 1)


def test_rounding_is_seen_where_it_is_odd_about_the_point():
    x = np.full(9, 1.25)  # 1.25 + h and 1.25 - h round alike, so their differences cancel
    noise = _noise(lambda x: (x - x.mean()) / 1e-5, [x], [np.ones(9)])
    assert noise.max() >= np.finfo(float).eps / 1e-5 / 16


def test_error_bar_holds_where_digits_of_y_are_coarser_than_its_size_tells():
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=5) * 1e-5
        (found,) = jacobians(lambda x: np.exp(x) - 1, [x])
        off = np.abs(np.diag(found.value[0]) - np.exp(x.astype(np.longdouble)))
        assert (off <= np.diag(found.error[0])).all(), seed


def test_step_suits_an_element_beside_a_large_one():
    x = np.array([1e8, 0.5])
    (found,) = jacobians(np.sin, [x])
    off = np.abs(np.diag(found.value[0]) - np.cos(x.astype(np.longdouble)))
    assert (off <= np.diag(found.error[0])).all()
    assert np.diag(found.error[0]).max() < 1e-3


def test_smooth_function_has_no_kink_however_small_its_slope():
    for x in np.random.default_rng(0).normal(size=(200, 5)):

        def phi(t, x=x):
            return np.exp(-20 * (x + np.array([t, 0, 0, 0, 0], np.longdouble)) ** 2).sum()

        assert not one_sided_slopes(phi, abs(x[0]))[2]


def test_error_bar_holds_beside_kinks_that_are_nearer_than_the_first_steps():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = [2000.0 + rng.permutation(24)[:10], 100 + rng.normal(size=9), 20 + rng.normal(size=6)]
        x = x[seed % 3]
        (found,) = jacobians(np.sort, [x])
        right = np.eye(x.size)[np.argsort(x)]
        assert (np.abs(found.value[0] - right) <= found.error[0]).all(), seed
        assert found.error.max() < 1e-6, seed


@pytest.mark.parametrize("width", 10.0 ** np.arange(0, -8, -1))
@pytest.mark.parametrize("offset", [1.0, 1000.0])
def test_error_bar_holds_where_a_small_term_varies_on_a_short_length(offset, width):
    def term(x):
        return 1e-3 * np.exp(-(((x - offset) / width) ** 2) / 2)

    for seed in range(5):
        x = offset + width * np.random.default_rng(seed).normal(size=3)
        (found,) = jacobians(lambda x: x + width * term(x), [x])
        wide = x.astype(np.longdouble)
        right = 1 - (wide - offset) / width * term(wide)
        off = np.abs(np.diag(found.value[0]) - right)
        assert (off <= np.diag(found.error[0])).all(), seed
        assert np.diag(found.error[0]).max() < 1e-5, seed


@pytest.mark.parametrize("distance", 10.0 ** np.arange(-6, -13, -1))
def test_error_bar_holds_on_either_side_of_a_kink_close_by(distance):
    for seed in range(10):
        x = 1 + distance * np.random.default_rng(seed).normal(size=4)
        (found,) = jacobians(lambda x: np.abs(x - 1), [x])
        off = np.abs(np.diag(found.value[0]) - np.sign(x - 1))
        assert (off <= np.diag(found.error[0])).all(), seed


@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_scale_follows_the_data_to_where_squares_overflow_or_are_lost(shape):
    x = np.random.default_rng(0).normal(size=shape)
    for power in -1000, 1000:
        np.testing.assert_array_equal(
            default_scale(np.ldexp(x, power)), np.ldexp(default_scale(x), power)
        )
