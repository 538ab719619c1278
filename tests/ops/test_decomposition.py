"""Matrix functions against the equations that define them, and which matrices they refuse."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ShapeError
from minigrad.ops.decomposition import cholesky, inv, lyapunov, sqrtm

EPS = np.finfo(np.float64).eps


def positive(rng, *loops, n=4):
    a = rng.normal(size=(*loops, n, n))
    return a @ np.swapaxes(a, -1, -2) + np.eye(n)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 1), (2, 3)], ids=str)
@pytest.mark.parametrize(
    "f", [inv, cholesky, sqrtm, lyapunov, lambda a, **k: lyapunov(np.eye(3), a)]
)
def test_what_is_not_square_is_refused_even_where_it_would_broadcast(f, shape):
    a, eye = np.full(shape, 0.1), np.eye(3)
    for operand in (a, a.item()) if shape == () else (a,):  # numbers, too
        with pytest.raises(ShapeError, match=r"expected: \(\.\.\., n, n\)"):
            f(operand, *[eye] * (f is lyapunov), shift=1.0)


@pytest.mark.parametrize("loops", [(), (2, 3)], ids=str)
def test_each_function_meets_its_definition(loops, rng):
    a, eye = positive(rng, *loops), np.eye(4)
    c = rng.normal(size=a.shape)
    limit = 64 * EPS * np.linalg.cond(a).max() * np.abs(a).max()
    np.testing.assert_allclose(inv(a) @ a, np.broadcast_to(eye, a.shape), atol=limit)
    lower = cholesky(a)
    np.testing.assert_allclose(lower @ np.swapaxes(lower, -1, -2), a, atol=limit)
    np.testing.assert_array_equal(np.triu(lower, 1), 0)
    root = sqrtm(a)
    np.testing.assert_allclose(root @ root, a, atol=limit)
    x = lyapunov(a, c)
    np.testing.assert_allclose(a @ x + x @ a, c, atol=limit)


@pytest.mark.parametrize("f", [inv, cholesky, sqrtm], ids=lambda f: f.name)
def test_shift_is_added_to_the_diagonal(f, rng):
    a = positive(rng)
    np.testing.assert_allclose(f(a, shift=0.5), f(a + 0.5 * np.eye(4)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("f", [cholesky, sqrtm], ids=lambda f: f.name)
def test_only_the_symmetric_part_counts(f, rng):
    a, b = positive(rng), rng.normal(size=(4, 4))
    np.testing.assert_allclose(f(a + b - b.T), f(a), rtol=0, atol=1e-13)


def test_repeated_eigenvalues_have_finite_derivatives(rng):
    """d sqrtm(I) = dA / 2, whichever eigenvectors LAPACK returns."""
    seed = rng.normal(size=(3, 3))
    _, pullback = mg.vjp(sqrtm, np.eye(3))
    np.testing.assert_allclose(pullback(seed)[0].numpy(), (seed + seed.T) / 4, atol=1e-15)


@pytest.mark.parametrize("f", [inv, cholesky], ids=lambda f: f.name)
def test_a_matrix_without_the_function_is_refused(f):
    with pytest.raises(ShapeError, match=rf"a matrix for which {f.name} exists(.|\n)*larger shift"):
        f(np.zeros((2, 2)))
