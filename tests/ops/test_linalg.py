"""matmul, einsum, tensordot: shapes that the cases of the registry do not reach."""

import numpy as np
import pytest
from differences import jacobian, rounding

import minigrad as mg
from minigrad import errors

MATMULS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((1, 2, 3), (5, 3, 4)),
    ((2, 0), (0, 3)),
    ((0, 3), (3, 2)),
    ((0, 2, 3), (3, 2)),
    ((1, 1), (1, 1)),
    ((1, 3), (3, 4)),
    ((2, 3), (3, 1)),
    ((2, 1, 3), (3, 1)),
    ((1, 3), (5, 3, 4)),
]
EINSUMS = [
    ("ij,jk", (2, 3), (3, 4)),
    ("ij,jk->ki", (2, 3), (3, 4)),
    ("ij,kj->ik", (2, 3), (4, 3)),
    ("bij,bjk->bik", (2, 2, 3), (2, 3, 4)),
    ("i,j->ij", (2,), (3,)),
    ("i,i", (3,), (3,)),
    ("i,i->i", (3,), (3,)),
    ("ij->", (2, 3)),
    ("ij->ji", (2, 3)),
    ("ii", (3, 3)),
    ("iij->ij", (3, 3, 2)),
    ("iii->i", (3, 3, 3)),
    ("iijj->ij", (2, 2, 3, 3)),
    ("ii,ij->j", (3, 3), (3, 2)),
    ("...i,...i->...", (2, 4, 3), (4, 3)),
    ("...ij->...ji", (2, 3, 4)),
    ("i...->...", (2, 3)),
    ("...,...", (2, 3), (3,)),
    ("...a,...", (2, 3, 2, 2), (2,)),  # an ellipsis must not take the letter a
    ("ij, jk -> ik", (2, 3), (3, 4)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("ij,j->i", (2, 3), (1,)),
    (",i->i", (), (3,)),
    ("a,ab,abc->abc", (2,), (2, 3), (2, 3, 2)),
    ("Ab,bA->A", (2, 3), (3, 2)),
    ("ij,ik->jk", (0, 2), (0, 3)),
]


def check(f, shapes, rng):
    xs = [rng.normal(size=shape) for shape in shapes]
    y, pullback = mg.vjp(f, *xs)
    seed = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)
    for i, x_bar in enumerate(pullback(seed)):
        slope, bound = jacobian(f, xs, i)
        expected = (seed.reshape(-1) @ slope).reshape(xs[i].shape)
        largest = float(np.abs(slope).max(initial=0))
        limit = np.abs(seed).reshape(-1) @ bound + rounding(np.float64, seed, largest, xs)
        assert x_bar.shape == xs[i].shape
        assert (np.abs(x_bar.data - expected).reshape(-1) <= limit).all()
    directions = [rng.normal(size=shape) for shape in shapes]
    _, y_dot = mg.jvp(f, tuple(xs), tuple(directions))
    forward = float((y_dot.numpy() * seed).sum())
    backward = sum(
        float((b.data * v).sum()) for b, v in zip(pullback(seed), directions, strict=True)
    )
    assert abs(forward - backward) <= rounding(np.float64, seed, 30.0, xs)
    return xs, y


@pytest.mark.parametrize("shapes", MATMULS, ids=str)
def test_matmul_is_differentiated_for_all_ranks(shapes, rng):
    (a, b), y = check(mg.matmul, shapes, rng)
    np.testing.assert_array_equal(y.data, a @ b)


@pytest.mark.parametrize("case", EINSUMS, ids=lambda case: case[0])
def test_einsum_is_differentiated_as_numpy_reads_it(case, rng):
    subscripts, *shapes = case
    xs, y = check(lambda *a: mg.einsum(subscripts, *a), shapes, rng)
    expected = np.einsum(subscripts, *xs)
    np.testing.assert_allclose(y.data, expected, rtol=0, atol=64 * np.finfo(float).eps * 30)


@pytest.mark.parametrize(
    "axes",
    [0, 1, 2, ([1], [0]), ([0, 1], [1, 0]), (1, 0), ((-1,), (0,)), np.int64(1), (np.int64(1), [0])],
    ids=str,
)
def test_tensordot_is_differentiated_for_all_axes(axes, rng):
    shapes = ((3, 3), (3, 3))
    (a, b), y = check(lambda a, b: mg.tensordot(a, b, axes=axes), shapes, rng)
    np.testing.assert_allclose(y.data, np.tensordot(a, b, axes), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        (((2, 2), (2, 2, 2)), 3),  # more than a has
        (((2, 2), (2, 2)), ((0, 0), (0, 1))),  # one twice
        (((2, 2), (2, 2)), ((0, 1), (0,))),
        (((2, 1), (3, 2)), 1),  # a unit axis, which einsum would broadcast
    ],
    ids=str,
)
def test_axes_that_numpys_tensordot_refuses_are_refused(shapes, axes):
    a, b = (np.arange(1.0, 1 + np.prod(shape)).reshape(shape) for shape in shapes)
    with pytest.raises((ValueError, IndexError)) as numpys:
        np.tensordot(a, b, axes)
    with pytest.raises(errors.ShapeError, match="tensordot") as caught:
        mg.tensordot(mg.tensor(a), b, axes=axes)
    assert isinstance(caught.value, type(numpys.value))


@pytest.mark.parametrize("subscripts", ["ij,jk->ii", "ij->k", "i!j->i", "ij,jk,kl->il", "ij->i->j"])
def test_subscripts_that_numpy_refuses_are_refused(subscripts):
    x = mg.tensor(np.ones((3, 3)), requires_grad=True)
    with pytest.raises(errors.MinigradError, match="einsum"):
        mg.einsum(subscripts, x, x)


def test_einsum_of_float32_stays_float32_on_a_diagonal():
    x = mg.tensor(np.eye(3), dtype="float32", requires_grad=True)
    y = mg.einsum("ii->i", x)
    y.backward([1.0, 2.0, 3.0])
    assert y.dtype == x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.data, np.diag([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("subscripts", ["i,", "...,...", "i,->i"])
def test_einsum_with_a_number_is_a_multiple(subscripts):
    y, pullback = mg.vjp(lambda x: mg.einsum(subscripts, x, 2.5), [3.0, 5.0])
    (x_bar,) = pullback([1.0, -2.0])
    np.testing.assert_array_equal(y.data, [7.5, 12.5])
    np.testing.assert_array_equal(x_bar.data, [2.5, -5.0])


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("subscripts", ["iij->ij", "iij->ji", "iij->"])
def test_nothing_reaches_what_is_not_on_a_diagonal(subscripts):
    x_bar = mg.grad(lambda x: mg.sqrt(mg.einsum(subscripts, x)).sum())(np.zeros((2, 2, 3))).data
    np.testing.assert_array_equal(x_bar, np.where(np.eye(2)[..., None], [np.inf] * 3, 0.0))


def test_the_same_tensor_may_be_both_factors(rng):
    a = rng.normal(size=(3, 3))
    seed = rng.normal(size=(3, 3))
    x = mg.tensor(a, requires_grad=True)
    (x @ x).backward(seed)
    np.testing.assert_allclose(x.grad.data, seed @ a.T + a.T @ seed, rtol=0, atol=1e-14)
