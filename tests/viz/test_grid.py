"""Numbers in a picture: digits, colours, statistics, and whether they are legible."""

import itertools

import numpy as np
import pytest

from minigrad.viz.badge import BADGES
from minigrad.viz.grid import BLANK, ODD, blank, grid, number


def texts(array):
    return [[cell.text for cell in row] for row in grid(np.asarray(array)).rows]


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (1e-300, "1e-300"),
        (-2.5e-17, "-2.5e-17"),
        (999.6, "1000"),
        (-12345.6, "-12346"),
        (99999.6, "1e5"),
        (123456.0, "1.23e5"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_number_is_short_and_only_zero_is_written_0(value, text):
    assert number(value) == text


def test_cells_of_one_grid_have_the_same_decimals():
    assert texts([[1.5, -0.25], [10.0, 3.0]]) == [["1.50", "-0.25"], ["10.00", "3.00"]]
    assert texts([1.0, -2.0, 30.0]) == [["1", "-2", "30"]]


@pytest.mark.parametrize(
    ("array", "cells"),
    [
        ([0.5, 1.2e-5, 3.0], ["0.500000", "0.000012", "3.000000"]),
        ([1234.5, 0.25, 3.7], ["1234.50", "0.25", "3.70"]),
        ([1e-4, -2.5e-5, 3e-7, 0.0], ["1.00e-4", "-2.50e-5", "3.00e-7", "0"]),
        ([0.01, 3e-8, 1e-9], ["1.00e-2", "3.00e-8", "1.00e-9"]),
        ([123456.5, 1.5, 0.25], ["1.23e5", "1.50e0", "2.50e-1"]),
        ([123456, 1234567], ["1.23e5", "1.23e6"]),
        ([123456.0, 3.0], ["123456", "3"]),
        ([1.0, 60000.0, 6e-8, -0.1], ["1.00", "60000.00", "6.0e-8", "-0.10"]),
        ([1000.25, 0.6, 1.4, 2.5], ["1000.25", "0.60", "1.40", "2.50"]),
        ([2000.5, 1.2, 2.8, 5.0], ["2000.5", "1.2", "2.8", "5.0"]),  # twice the numbers above
        ([1234.5, 2345.5, 3456.5], ["1234.5", "2345.5", "3456.5"]),
        ([0.0014, -0.0007, 0.0001], ["0.00140", "-0.00070", "0.00010"]),
        ([0.0012, 3e-5], ["0.001200", "0.000030"]),
        (
            [0.5, 0.25, 0.75, 0.125, 0.1, 2e-5],
            ["0.5000", "0.2500", "0.7500", "0.1250", "0.1000", "2.0e-5"],
        ),
    ],
)
def test_cells_of_one_grid_have_one_notation_but_for_a_few_tiny_ones(array, cells):
    assert texts(array) == [cells]


def test_four_of_five_numbers_that_are_not_whole_show_two_digits_unless_the_largest_has_seven():
    rng = np.random.default_rng(0)
    for _ in range(300):
        (cells,) = texts(10.0 ** rng.uniform(-2.9, 4.9, 8))
        fixed = [cell for cell in cells if "e" not in cell]
        short = [cell for cell in fixed if len(cell.replace(".", "").lstrip("0")) < 2]
        digits = max(len(cell.replace(".", "")) for cell in fixed)
        assert all("." in cell for cell in fixed) and digits <= 7
        assert len(short) <= len(cells) / 5 or digits == 7


def test_number_that_would_round_to_zero_keeps_its_exponent():
    assert texts([1.5, 2e-17, 0.0]) == [["1.500", "2.0e-17", "0"]]


def test_integers_and_booleans_keep_their_form():
    assert texts([1, -20]) == [["1", "-20"]]
    assert texts([True, False]) == [["True", "False"]]


def test_not_finite_is_visible_and_does_not_spoil_the_colours():
    cells = grid(np.array([np.nan, np.inf, -np.inf, 1.0])).rows[0]
    assert [cell.text for cell in cells] == ["nan", "inf", "-inf", "1"]
    assert [cell.color for cell in cells[:3]] == [ODD] * 3
    assert [cell.odd for cell in cells] == [True, True, True, False]


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((), 1, 1),
        ((5,), 1, 5),
        ((4, 3), 4, 3),
        ((4, 1), 4, 1),
        ((1, 3, 1, 1), 1, 3),
        ((8, 8), 8, 8),
    ],
)
def test_small_arrays_are_shown_whole(shape, rows, columns):
    found = grid(np.ones(shape))
    assert (len(found.rows), len(found.rows[0])) == (rows, columns)
    assert not found.facts


@pytest.mark.parametrize("shape", [(9,), (9, 2), (2, 9), (2, 3, 4), (64, 64), (2, 3, 8, 8)])
def test_larger_arrays_are_shown_by_statistics_and_their_first_corner(shape):
    array = np.random.default_rng(0).normal(size=shape)
    found = grid(array)
    assert dict(found.facts)["std"] == number(float(array.std()))
    assert len(found.rows) <= 3
    assert len(found.rows[0]) <= 4


def test_statistics_count_what_is_not_finite_and_survive_the_range_of_floats():
    facts = dict(grid(np.array([np.nan, np.inf, *[1e308] * 20])).facts)
    assert (facts["nan"], facts["inf"], facts["mean"]) == ("1", "1", "1e308")
    assert dict(grid(np.full(20, 1e-300)).facts)["mean"] == "1e-300"


def test_empty_array_says_so():
    assert grid(np.ones((0, 3))).note == "empty"
    assert blank(np.ones((0, 3))).note == "empty"


def test_blank_grid_has_no_digit_and_another_colour_than_zero():
    cells = [cell for row in blank(np.zeros((4, 3))).rows for cell in row]
    assert len(cells) == 12
    assert {cell.text.strip("\u00a0") for cell in cells} == {""}
    assert {cell.color for cell in cells} == {BLANK}
    assert grid(np.zeros(1)).rows[0][0].color == "#ffffff" != BLANK


def test_text_is_readable_on_every_colour():
    for cell in grid(np.linspace(-1, 1, 8)).rows[0]:
        assert contrast("#1f2328", cell.color) >= 4.5
    for color, _ in BADGES.values():
        assert contrast("#ffffff", color) >= 4.5
    assert contrast("#ffffff", ODD) >= 4.5


def protan(color):
    """What a reader without red cones sees (Vienot, Brettel, Mollon 1999), linear light."""
    r, g, b = ((int(color[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    yellow = 0.11238 * r + 0.88762 * g
    return np.array([yellow, yellow, 0.004 * r - 0.004 * g + b])


def test_signs_differ_for_a_reader_without_red_cones():
    low, zero, high = (cell.color for cell in grid(np.array([-1.0, 0.0, 1.0])).rows[0])
    for a, b in itertools.combinations((low, zero, high), 2):
        assert np.abs(protan(a) - protan(b)).max() > 0.3
