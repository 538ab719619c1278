"""Square matrices: inverse, Cholesky factor, symmetric square root and the Lyapunov equation.

Each op first adds ``shift`` to the diagonal: the epsilon that keeps a covariance matrix positive
definite. Arrays (..., n, n) are stacks of matrices.
"""

import numpy as np

from minigrad import backend
from minigrad.core.op import op
from minigrad.declaration import Case, Domain
from minigrad.errors import ShapeError, facts
from minigrad.ops.linalg import matmul
from minigrad.ops.shape import swapaxes

# |entries| <= 1 and shift > n: every n x n matrix that the checks draw is diagonally dominant
_UNIT = (Domain(-1.0, 1.0),)
_CASES = (Case(((3, 3),), {"shift": 5.0}), Case(((2, 2, 2),), {"shift": 4.0}))


def _t(a):  # transpose
    return swapaxes(a, axis1=-1, axis2=-2)


def _sym(a):  # symmetric part
    return (a + _t(a)) / 2


def _check_square(a):
    shape = getattr(a, "shape", ())  # a number has none
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ShapeError(facts("matrices", expected="(..., n, n)", got=shape))


def _shifted(xp, a, shift, symmetric=False):
    _check_square(a)
    if a.dtype.itemsize > 8:
        a = a.astype("float64")  # LAPACK has nothing wider
    if symmetric:
        a = (a + xp.swapaxes(a, -1, -2)) / 2
    return a + shift * xp.eye(a.shape[-1], dtype=a.dtype)


def _eigh(xp, a, shift):
    with backend.checked(a):
        return xp.linalg.eigh(_shifted(xp, a, shift, symmetric=True))


@op(
    formula=r"Y = (A + s I)^{-1}",
    pullback=r"\bar A = -Y^\mathsf{T} \bar Y\, Y^\mathsf{T}",
    signature="(n,n)->(n,n)",
    domain=_UNIT,
    cases=_CASES,
)
def inv(xp, a, *, shift=0.0):
    """Inverse of ``a + shift * I``.

    Args:
        a: (..., n, n).

    Raises:
        ShapeError: not square, or singular.

    >>> mg.ops.inv(mg.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5 , 0.  ],
            [0.  , 0.25]])
    """
    with backend.checked(a):
        return xp.linalg.inv(_shifted(xp, a, shift))


@inv.defvjp
def inv_vjp(y_bar, y, a, *, shift=0.0):
    return (-matmul(matmul(_t(y), y_bar), _t(y)),)


@inv.defjvp
def inv_jvp(a_dots, y, a, *, shift=0.0):
    return -matmul(matmul(y, a_dots[0]), y)


@op(
    formula=r"L L^\mathsf{T} = \frac{1}{2} (A + A^\mathsf{T}) + s I",
    pullback=r"\bar A = \mathrm{sym}(L^{-\mathsf{T}}\,\Phi(L^\mathsf{T} \bar L)\,L^{-1}),\quad"
    r" \Phi\text{: lower triangle, diagonal halved}",
    signature="(n,n)->(n,n)",
    domain=_UNIT,
    cases=_CASES,
    source="Murray 2016, arXiv:1602.07527, eq. 8 to 10",
)
def cholesky(xp, a, *, shift=0.0):
    """Lower Cholesky factor of the symmetric part of ``a`` plus ``shift * I``.

    Args:
        a: (..., n, n).

    Raises:
        ShapeError: not square, or not positive definite.

    >>> mg.ops.cholesky(mg.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    with backend.checked(a):
        return xp.linalg.cholesky(_shifted(xp, a, shift, symmetric=True))


@cholesky.defvjp
def cholesky_vjp(y_bar, y, a, *, shift=0.0):
    inverse = inv(y)
    inner = matmul(_t(y), y_bar) * _half_lower(y)
    return (_sym(matmul(matmul(_t(inverse), inner), inverse)),)


@cholesky.defjvp
def cholesky_jvp(a_dots, y, a, *, shift=0.0):
    inverse = inv(y)
    inner = matmul(matmul(inverse, _sym(a_dots[0])), _t(inverse))
    return matmul(y, inner * _half_lower(y))


def _half_lower(y):
    """1 below the diagonal, 1/2 on it, 0 above, on the device of ``y``."""
    n = y.shape[-1]
    mask = np.tril(np.ones((n, n)), -1) + np.eye(n) / 2
    return backend.namespace(getattr(y, "array", y)).asarray(mask, dtype=y.dtype)


@op(
    formula=r"S S = \frac{1}{2} (A + A^\mathsf{T}) + s I,\quad S = S^\mathsf{T} > 0",
    pullback=r"S \bar A + \bar A S = \mathrm{sym}(\bar S)",
    signature="(n,n)->(n,n)",
    domain=_UNIT,
    cases=_CASES,
)
def sqrtm(xp, a, *, shift=0.0):
    """Symmetric positive square root of the symmetric part of ``a`` plus ``shift * I``.

    The derivative is the solution of a Lyapunov equation, so it is exact even for repeated
    eigenvalues.

    Args:
        a: (..., n, n) whose shifted symmetric part is positive definite; a negative eigenvalue
            makes the result nan.

    Raises:
        ShapeError: not square.

    >>> mg.ops.sqrtm(mg.tensor([[4.0, 0.0], [0.0, 9.0]]))
    tensor([[2., 0.],
            [0., 3.]])
    """
    values, vectors = _eigh(xp, a, shift)
    return (vectors * xp.sqrt(values)[..., None, :]) @ xp.swapaxes(vectors, -1, -2)


@sqrtm.defvjp
def sqrtm_vjp(y_bar, y, a, *, shift=0.0):
    return (lyapunov(y, _sym(y_bar)),)


@sqrtm.defjvp
def sqrtm_jvp(a_dots, y, a, *, shift=0.0):
    return lyapunov(y, _sym(a_dots[0]))


@op(
    formula=r"M X + X M = C,\quad M = \frac{1}{2} (S + S^\mathsf{T}) + s I",
    pullback=r"M \bar C + \bar C M = \bar X,\quad"
    r" \bar S = -\mathrm{sym}(\bar C X^\mathsf{T} + X^\mathsf{T} \bar C)",
    signature="(n,n),(n,n)->(n,n)",
    domain=_UNIT,
    cases=(Case(((3, 3), (3, 3)), {"shift": 5.0}), Case(((2, 2, 2), (2, 2)), {"shift": 4.0})),
)
def lyapunov(xp, s, c, *, shift=0.0):
    """Solve ``m x + x m = c`` for ``x``; ``m`` is the symmetric part of ``s`` plus ``shift * I``.

    Args:
        s: (..., n, n) whose shifted symmetric part is definite.
        c: (..., n, n).

    Raises:
        ShapeError: not square.

    >>> mg.ops.lyapunov(np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[2.0, 8.0], [8.0, 6.0]]))
    array([[1., 2.],
           [2., 1.]])
    """
    _check_square(c)
    values, vectors = _eigh(xp, s, shift)
    transposed = xp.swapaxes(vectors, -1, -2)
    sums = values[..., :, None] + values[..., None, :]
    # in the eigenbasis of m the equation reads (lambda_i + lambda_j) x_ij = c_ij
    return vectors @ ((transposed @ c @ vectors) / sums) @ transposed


@lyapunov.defvjp
def lyapunov_vjp(x_bar, x, s, c, *, shift=0.0):
    c_bar = lyapunov(s, x_bar, shift=shift)
    return lambda: -_sym(matmul(c_bar, _t(x)) + matmul(_t(x), c_bar)), c_bar


@lyapunov.defjvp
def lyapunov_jvp(dots, x, s, c, *, shift=0.0):
    s_dot, c_dot = dots  # m x_dot + x_dot m = c_dot - m_dot x - x m_dot
    right_side = 0.0 if c_dot is None else c_dot
    if s_dot is not None:
        m_dot = _sym(s_dot)
        right_side = right_side - matmul(m_dot, x) - matmul(x, m_dot)
    return lyapunov(s, right_side, shift=shift)
