"""Pooling against its definition; ties, kinks and nan."""

from itertools import product

import numpy as np
import pytest

import minigrad as mg
from minigrad.ops.pool import avg_pool, max_pool

GEOMETRIES = [(2, 2, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0)]


def windows(x, kernel, stride, padding, fill):
    x = np.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * 2], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_pooling_equals_its_definition(geometry, rng):
    x = rng.normal(size=(2, 3, 7, 6))
    kernel, stride, padding = geometry
    words = {"kernel_size": kernel, "stride": stride, "padding": padding}
    np.testing.assert_array_equal(
        max_pool(x, **words), windows(x, *geometry, -np.inf).max(axis=(-1, -2))
    )
    np.testing.assert_allclose(
        avg_pool(x, **words), windows(x, *geometry, 0.0).mean(axis=(-1, -2)), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_all_of_the_cotangent_arrives_once_even_at_ties(geometry, rng):
    """[1 1 0] is no subgradient of max([3, 3, 1]); the shares of a window sum to 1."""
    kernel, stride, padding = geometry
    x = mg.tensor(rng.integers(0, 3, (2, 2, 7, 6)).astype(float), requires_grad=True)
    y = max_pool(x, kernel_size=kernel, stride=stride, padding=padding)
    seed = rng.normal(size=y.shape)
    y.backward(seed)
    np.testing.assert_allclose(x.grad.numpy().sum((2, 3)), seed.sum((2, 3)), atol=1e-13)


def test_at_a_tie_the_first_maximum_wins():
    x = mg.tensor([[[[1.0, 5.0], [5.0, 5.0]]]], requires_grad=True)
    max_pool(x, kernel_size=2).backward(np.full((1, 1, 1, 1), 7.0))
    np.testing.assert_array_equal(x.grad.numpy(), [[[[0.0, 7.0], [0.0, 0.0]]]])


def test_padding_never_wins():
    x = mg.tensor(np.full((1, 1, 2, 2), -5.0), requires_grad=True)
    y = max_pool(x, kernel_size=3, stride=1, padding=1)
    np.testing.assert_array_equal(y.numpy(), np.full((1, 1, 2, 2), -5.0))
    y.sum().backward()
    assert x.grad.numpy().sum() == 4.0


def test_windows_of_padding_alone_are_refused_and_no_others():
    sizes = range(1, 5), range(1, 4), range(1, 4), range(1, 5), range(5)
    for n, kernel, stride, dilation, padding in product(*sizes):
        x = np.arange(1.0, n + 1).reshape(1, 1, n)
        padded = np.pad(x[0, 0], padding, constant_values=-np.inf)
        starts = range(0, len(padded) - dilation * (kernel - 1), stride)
        largest = [padded[i:][::dilation][:kernel].max() for i in starts]
        words = {"kernel_size": kernel, "stride": stride, "dilation": dilation, "padding": padding}
        if largest and np.isfinite(largest).all():
            np.testing.assert_array_equal(max_pool(x, **words)[0, 0], largest)
        else:
            with pytest.raises(mg.errors.ShapeError):
                max_pool(x, **words)


def test_nan_is_not_hidden():
    x = np.array([[[[1.0, np.nan], [0.0, 2.0]]]])
    assert np.isnan(max_pool(x, kernel_size=2)).all()


def test_windows_of_more_than_255_places_are_counted_right(rng):
    x = mg.tensor(rng.permutation(20 * 20.0 * np.arange(400)).reshape(1, 1, 20, 20),
                  requires_grad=True)  # fmt: skip
    max_pool(x, kernel_size=20).sum().backward()
    np.testing.assert_array_equal(np.flatnonzero(x.grad.numpy()), [np.argmax(x.numpy())])


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("op", [avg_pool, max_pool])
def test_the_result_has_the_order_of_x_in_memory(op, padding, rng):
    """Adding up views in another order takes several times as long."""
    batch_first = rng.normal(size=(5, 3, 6, 8))
    batch_last = np.moveaxis(np.moveaxis(batch_first, 0, -1).copy(), -1, 0)
    results = []
    for x in (batch_first, batch_last):
        y, pullback = mg.vjp(lambda x: op(x, kernel_size=2, padding=padding), x)
        assert np.argsort(y.data.strides).tolist() == np.argsort(x.strides).tolist()
        (x_bar,) = pullback(np.cos(np.arange(y.size)).reshape(y.shape))
        results.append((y.numpy(), x_bar.numpy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
