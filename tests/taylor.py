"""Truncated power series in one variable t: a reference that shares nothing with the engine.

``Series([a0, a1, a2, a3])`` stands for ``a0 + a1 t + a2 t^2 + a3 t^3`` with arrays of
np.longdouble as coefficients. Arithmetic follows from comparing coefficients: a product is a
convolution, and a quotient or a square root solves the convolution for its last term. The k-th
derivative at t = 0 is ``k! a_k``.

Each coefficient carries ``e``, a running bound (Wilkinson) on the error of the same arithmetic in
float64, to first order in the unit roundoff. An operation propagates the errors of its operands by
its partial derivatives and adds one unit for each of its own roundings, relative to the summands
before they cancel. The bound serves as the tolerance: no constant is chosen by eye.
"""

from itertools import combinations
from math import factorial

import numpy as np

UNIT = np.finfo(np.float64).eps / 2


class Series:
    __array_ufunc__ = None  # `ndarray * series` must call series.__rmul__

    def __init__(self, coefficients, errors=None):
        self.a = [np.asarray(c, np.longdouble) for c in coefficients]
        self.e = [np.zeros(a.shape) for a in self.a] if errors is None else errors

    @classmethod
    def line(cls, x, v, order):
        """x + t v."""
        zeros = [np.zeros(np.shape(x))] * (order - 1)
        return cls([x, v, *zeros][: order + 1])

    def _like(self, other):
        if isinstance(other, Series):
            return other
        other = np.asarray(other, np.longdouble)
        return Series([other, *(np.zeros_like(other) for _ in self.a[1:])])

    def __add__(self, other):
        other = self._like(other)
        a = [p + q for p, q in zip(self.a, other.a, strict=True)]
        pairs = zip(a, self.e, other.e, strict=True)
        return Series(a, [p + q + UNIT * np.abs(s) for s, p, q in pairs])

    def __neg__(self):
        return Series([-a for a in self.a], self.e)

    def __sub__(self, other):
        return self + -self._like(other)

    def __mul__(self, other):
        other = self._like(other)
        orders = range(len(self.a))
        errors = [_product_error(self, other, range(k + 1), k) for k in orders]
        return Series([_convolve(self.a, other.a, range(k + 1), k) for k in orders], errors)

    def __truediv__(self, other):
        b, q = self._like(other), Series([])
        for k, (a, e) in enumerate(zip(self.a, self.e, strict=True)):
            # a_k = sum_j q_j b_{k-j}, solved for q_k
            q.a.append((a - _convolve(q.a, b.a, range(k), k)) / b.a[0])
            inherited = e + _product_error(q, b, range(k), k) + np.abs(q.a[k]) * b.e[0]
            q.e.append(inherited / np.abs(b.a[0]) + 2 * UNIT * np.abs(q.a[k]))
        return q

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        return self._like(other) - self

    def __rtruediv__(self, other):
        return self._like(other) / self

    def sqrt(self):
        r = Series([np.sqrt(self.a[0])])
        r.e[0] = self.e[0] / (2 * r.a[0]) + UNIT * r.a[0]
        for k in range(1, len(self.a)):
            # a_k = 2 r_0 r_k + sum_{0<j<k} r_j r_{k-j}, solved for r_k
            r.a.append((self.a[k] - _convolve(r.a, r.a, range(1, k), k)) / (2 * r.a[0]))
            inherited = self.e[k] + _product_error(r, r, range(1, k), k)
            inherited = inherited + 2 * np.abs(r.a[k]) * r.e[0]
            r.e.append(inherited / (2 * r.a[0]) + 2 * UNIT * np.abs(r.a[k]))
        return r

    def mean(self, axis):
        pairs = list(zip(self.a, self.e, strict=True))
        n = self.a[0].size / max(1, np.mean(self.a[0], axis=axis).size)
        means = [a.mean(axis=axis, keepdims=True) for a in self.a]
        errors = [(e + n * UNIT * np.abs(a)).mean(axis=axis, keepdims=True) for a, e in pairs]
        return Series(means, errors)

    def sum(self):
        n, pairs = self.a[0].size, zip(self.a, self.e, strict=True)
        return Series(
            [a.sum() for a in self.a], [(e + n * UNIT * np.abs(a)).sum() for a, e in pairs]
        )

    def reshape(self, shape):
        return Series([a.reshape(shape) for a in self.a], [e.reshape(shape) for e in self.e])

    def derivative(self, k):
        return factorial(k) * self.a[k]

    def error(self, k):
        return factorial(k) * self.e[k]


def _convolve(a, b, terms, k):
    return sum((a[j] * b[k - j] for j in terms), np.longdouble(0))


def _product_error(a, b, terms, k):
    """The error of ``sum_j a_j b_{k-j}``: that of the factors, and a unit per product and sum."""
    total = np.zeros(())
    for j in terms:
        p, q = np.abs(a.a[j]), np.abs(b.a[k - j])
        total = total + a.e[j] * q + p * b.e[k - j] + (1 + len(terms)) * UNIT * p * q
    return total


def batch_norm(x, gamma, beta, mean=None, var=None, axis=None, eps=1e-5):
    """Batch norm of series, written from the definition."""
    ndim = x.a[0].ndim
    axes = tuple(i for i in range(ndim) if i != 1) if axis is None else axis
    channels = (1, -1) + (1,) * (ndim - 2)
    if mean is None:
        xc = x - x.mean(axes)
        variance = (xc * xc).mean(axes)
    else:
        xc, variance = x - mean.reshape(channels), var.reshape(channels)
    return gamma.reshape(channels) * (xc / (variance + eps).sqrt()) + beta.reshape(channels)


def multilinear(f, xs, directions):
    """The k-th derivative of ``f`` at ``xs``, a k-linear form, applied to k ``directions``.

    ``f`` maps lists of series to a scalar series; a direction is one array per argument. A series
    in one variable gives the form with equal directions, and polarization recovers the rest:
    ``k! D[v1..vk] = sum over subsets S of (-1)^(k-|S|) D[sum S, ..., sum S]``.

    Returns:
        The derivative, and a bound on the error of its evaluation in float64.
    """
    k, total, error = len(directions), np.longdouble(0), 0.0
    for size in range(1, k + 1):
        for subset in combinations(directions, size):
            v = [sum(parts) for parts in zip(*subset, strict=True)]
            series = f(*(Series.line(x, d, k) for x, d in zip(xs, v, strict=True)))
            total += (-1) ** (k - size) * series.derivative(k)
            error += series.error(k)
    return total / factorial(k), error / factorial(k)
