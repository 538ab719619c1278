"""The reference itself: series against functions whose expansions are known."""

from math import factorial

import numpy as np
from taylor import Series, multilinear


def test_quotient_of_series_is_the_geometric_series():
    q = 1 / Series([1.0, -1.0, 0.0, 0.0, 0.0])
    assert [float(a) for a in q.a] == [1.0] * 5


def test_square_root_of_series_is_the_binomial_series():
    root = Series([1.0, 1.0, 0.0, 0.0]).sqrt()
    assert [float(a) for a in root.a] == [1.0, 1 / 2, -1 / 8, 1 / 16]


def test_product_of_series_is_the_binomial_theorem():
    cube = (
        Series([2.0, 1.0, 0.0, 0.0]) * Series([2.0, 1.0, 0.0, 0.0]) * Series([2.0, 1.0, 0.0, 0.0])
    )
    assert [float(a) for a in cube.a] == [8.0, 12.0, 6.0, 1.0]
    assert float(cube.derivative(3)) == factorial(3)


def test_polarization_recovers_a_mixed_third_derivative():
    def product(x):
        return (
            Series([a[0] for a in x.a]) * Series([a[1] for a in x.a]) * Series([a[2] for a in x.a])
        )

    directions = [[np.eye(3)[i]] for i in range(3)]
    value, _ = multilinear(product, [np.array([0.3, 0.7, -2.0])], directions)
    assert float(value) == 1.0
