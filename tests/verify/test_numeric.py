"""Derivatives by differences."""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minigrad.verify.numeric import Jacobian, _noise


def test_the_cotangent_of_no_result_is_zero_whatever_lies_beside_its_arrays():
    nan = np.full(1, np.nan, np.longdouble)
    nothing = as_strided(nan, (1, 0, 6), (0, 0, 0))
    found = Jacobian(nothing, nothing, ((0,), (2, 3)))
    for part in found.pull(as_strided(nan, (0,), (16,))):
        np.testing.assert_array_equal(part, np.zeros((2, 3)))


def test_rounding_is_seen_where_it_is_odd_about_the_point():
    x = np.full(9, 1.25)  # 1.25 + h and 1.25 - h round alike, so their differences cancel
    noise = _noise(lambda x: (x - x.mean()) / 1e-5, [x], [np.ones(9)])
    assert noise.max() >= np.finfo(float).eps / 1e-5 / 16
