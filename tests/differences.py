"""Derivatives by finite differences with an error bound: the tests' reference, without the engine.

The central difference ``D(h) = (f(x + h v) - f(x - h v)) / 2h`` has an error series in even powers
of h. Romberg extrapolation over four step sizes, each half of the one before, removes the terms
h^2, h^4, h^6. The last diagonal entry of its table has a truncation error of order h^8; its
difference to the entry before, of order h^6, bounds that error wherever the series converges.
Rounding error, or the noise that a second difference shows, adds ``noise / h``, amplified by less
than 4 in the table (weights 4^k/(4^k - 1), 1/(4^k - 1)).

The functions run in np.longdouble, the widest type of the machine. Where that is an 80-bit number
the rounding term is 1e-16 of the scale; where it is float64 the same formula widens the bound.
"""

import numpy as np

STEP = 2.0**-8  # domains end 0.2 before a singularity, so h/radius = 0.02 and (h/radius)^6 = 6e-11
LEVELS = 4
ROUNDINGS = 32  # of one forward evaluation, in units of the last place of its largest value


def wide(array):
    """A longdouble copy of a floating array; other arrays as they are."""
    array = np.asarray(array)
    return array.astype(np.longdouble) if array.dtype.kind == "f" else array


def directional(f, xs, vs):
    """Derivative of ``f(*xs)`` along ``vs``, and a bound on its error, elementwise.

    Args:
        f: arrays -> array; evaluated at longdouble arguments.
        xs, vs: lists of arrays of equal shapes.
    """
    xs, vs = [wide(x) for x in xs], [wide(v) for v in vs]
    table, largest = [], 0.0
    for level in range(LEVELS):
        h = STEP / 2**level
        up, down = (
            np.asarray(f(*(x + sign * h * v for x, v in zip(xs, vs, strict=True))))
            for sign in (1, -1)
        )
        row = [(wide(up) - wide(down)) / (2 * h)]
        for k in range(1, level + 1):
            row.append(row[k - 1] + (row[k - 1] - table[-1][k - 1]) / (4**k - 1))
        table.append(row)
        largest = max(largest, float(np.max(np.abs(up), initial=0.0)))
    unit = np.finfo(up.dtype).eps
    # three neighbours in the table: each bounds the truncation and samples the noise of f
    samples = [(table[-1][-1], table[-2][-1]), (table[-1][-1], table[-1][-2]),
               (table[-1][-2], table[-2][-1])]  # fmt: skip
    truncation = 4 * np.max([np.abs(a - b) for a, b in samples], axis=0)
    noise = max(ROUNDINGS * unit * largest, 8 * _noise(f, xs, vs))
    return table[-1][-1], truncation + 4 * noise / (STEP / 2 ** (LEVELS - 1))


def _noise(f, xs, vs):
    """The noise of f: its second difference over a step whose square is negligible (2^-60).

    It reveals float64 arithmetic inside of f (LAPACK, a cast), whatever dtype f returns.
    """
    up, at, down = (
        wide(f(*(x + k * 2.0**-30 * v for x, v in zip(xs, vs, strict=True)))) for k in (1, 0, -1)
    )
    return float(np.max(np.abs(up - 2 * at + down), initial=0.0))


def jacobian(f, xs, i):
    """d f / d xs[i] with shape (elements of f, elements of xs[i]), and its bound."""
    columns, bounds = [], []
    for k in range(xs[i].size):
        vs = [np.zeros(x.shape) for x in xs]
        vs[i].reshape(-1)[k] = 1.0
        column, bound = directional(f, xs, vs)
        columns.append(column.reshape(-1))
        bounds.append(bound.reshape(-1))
    rows = np.asarray(f(*(wide(x) for x in xs))).size
    empty = np.zeros((0, rows), np.longdouble)
    return np.array([*columns] or empty).T, np.array([*bounds] or empty).T


def rounding(dtype, weights, largest_slope, xs):
    """Bound on the rounding error of a derivative rule evaluated in ``dtype``.

    A cotangent element is a sum of ``weights * slopes``. Each of some 64 roundings on the way errs
    by one unit of its summands, which are at most ``sum|weights| * max|slope|`` before they cancel.
    A rounding of an intermediate value of the size of an input, eps |x|, also moves the slope by
    its curvature: for quotients and normalizations by a relative ``|x| * max|slope|``.
    """
    size = max((float(np.max(np.abs(x), initial=0.0)) for x in xs), default=0.0)
    scale = float(np.sum(np.abs(weights))) * largest_slope
    return 64 * np.finfo(dtype).eps * scale * (1 + size * largest_slope)
