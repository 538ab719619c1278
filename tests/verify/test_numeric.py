"""Derivatives by differences."""

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from minigrad.verify.kinks import one_sided_slopes
from minigrad.verify.noise import noise_of
from minigrad.verify.numeric import Jacobian, default_scale, jacobians

is_wide = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps
needs_wide = pytest.mark.skipif(not is_wide, reason="np.longdouble is float64 here")


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
    noise = noise_of(lambda x: (x - x.mean()) / 1e-5, [x], [np.ones(9)])
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


@needs_wide
def test_error_bar_holds_where_a_term_inside_f_has_coarser_digits_than_y():
    def f(x):  # near -6 the tiny steps change x, but not 1 + tanh
        return 0.5 * x * (1 + np.tanh(x))

    x = np.linspace(-12, -3, 19)
    (found,) = jacobians(f, [x])
    e = np.exp(2 * x.astype(np.longdouble))  # 1 + tanh x = 2 e/(1 + e)
    off = np.abs(np.diag(found.value[0]) - (e / (1 + e) + 2 * x * e / (1 + e) ** 2))
    assert (off <= np.diag(found.error[0])).all()
    assert (np.diag(found.error[0]) < 1e-14).all()


@needs_wide
@pytest.mark.parametrize("factor", [lambda x: x, np.sin, lambda x: x / (1 + np.exp(-x))])
def test_error_bar_holds_where_a_function_of_float64_is_inside_one_of_long_double(factor):
    erf = np.vectorize(math.erf, otypes=[float])
    erfc = np.vectorize(math.erfc, otypes=[float])
    wide = np.concatenate([np.linspace(-5.4, -3, 25), np.linspace(3, 6, 31)])
    (found,) = jacobians(lambda x: factor(x) * (1 + erf(x)), [wide])
    (slope,) = jacobians(factor, [wide])
    right = np.diag(slope.value[0]) * erfc(-wide)
    right += factor(wide) * 2 / np.sqrt(np.pi) * np.exp(-wide * wide)
    error = np.diag(found.error[0]) + 8 * np.finfo(float).eps * np.abs(right)
    assert (np.abs(np.diag(found.value[0]) - right) <= error).all()
    # 4 digits of float64 of numbers up to 12, at a step of 0.2, amplified by less than 100
    assert (np.diag(found.error[0]) < 100 * 4 * 12 * np.finfo(float).eps / 0.2).all()


@pytest.mark.parametrize("size", [1e-13, 1e-16])
@pytest.mark.parametrize("offset", [-300, -30, 30, 300])
def test_error_bar_holds_where_f_is_smaller_than_the_digits_of_its_input(offset, size):
    for seed in range(6):
        x = offset + 0.2 * np.random.default_rng(seed).normal(size=5)
        (found,) = jacobians(lambda x: size * np.sin(3 * x), [x])
        right = 3 * size * np.cos(3 * x.astype(np.longdouble))
        assert (np.abs(np.diag(found.value[0]) - right) <= np.diag(found.error[0])).all(), seed
        assert np.diag(found.error[0]).max() < 1e-6 * size, seed


@needs_wide
def test_float64_does_not_hide_that_f_takes_long_double():
    def f(x):  # in float64 1 - p is a few steps of eps, and constant within a tiny step
        p = 1 / (1 + np.exp(-x))
        return -np.log(1 - p).sum()

    for x in 21.6, 26.3, 34.4:
        (found,) = jacobians(f, [np.array([x, 1.0])])
        off = np.abs(found.value[0, 0] - 1 / (1 + np.exp(-np.longdouble([x, 1.0]))))
        assert found.value.dtype == np.longdouble
        assert (off <= found.error[0, 0]).all()


def test_inputs_of_one_shape_move_apart_where_rounding_is_measured():
    def softmax(x):
        return np.exp(x - np.log(np.exp(x).sum()))

    def divergence(p, q):  # exactly 0 wherever p and q are the same
        p, q = softmax(p), softmax(q)
        return (p * (np.log(p) - np.log(q))).sum()

    for found in jacobians(divergence, [np.full(5, 0.5)] * 2):
        assert (np.abs(found.value) <= found.error).all()
