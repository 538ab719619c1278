"""Every layer in both modes: derivatives equal finite differences; its state stays unchanged."""

import numpy as np
import pytest
from differences import directional
from layer_zoo import ZOO, in_modes, pinned

import minigrad as mg
from minigrad import nn

EPS = np.finfo(np.float64).eps

every_layer = pytest.mark.parametrize("specimen", ZOO, ids=repr)


def state_of(layer):
    return {name: buffer.numpy().tobytes() for name, buffer in layer.named_buffers()}


def leaves_of(layer, x):
    return [x, *layer.parameters()]


def value(layer, leaves, arrays):
    """The layer's output with ``arrays``, in their own precision, as the values of ``leaves``."""
    before = [leaf.array for leaf in leaves]
    try:
        for leaf, array in zip(leaves, arrays, strict=True):
            leaf.array = array
        with mg.no_grad():
            return layer(leaves[0]).array
    finally:
        for leaf, array in zip(leaves, before, strict=True):
            leaf.array = array


@in_modes(ZOO)
def test_gradients_of_every_layer_equal_differences(specimen, training, rng):
    layer = specimen.layer().train(training)
    before = state_of(layer)
    x = mg.tensor(specimen.x(rng), requires_grad=True)
    leaves = leaves_of(pinned(layer, x), x)
    with nn.frozen_statistics():
        y = layer(x)
        weights = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)
        (y * weights).sum().backward()
        points = [leaf.numpy() for leaf in leaves]
        for i, leaf in enumerate(leaves):
            vs = [np.zeros(p.shape) for p in points]
            vs[i] = rng.normal(size=points[i].shape)
            y_dot, bound = directional(lambda *a: value(layer, leaves, a), points, vs)
            slope = float((weights * y_dot).sum())
            terms = leaf.grad.numpy() * vs[i]
            # The bound of the finite difference, plus the rounding of the rule in float64: some 64
            # roundings along a path, each relative to a summand before cancellation. In a
            # normalization a summand exceeds the sum up to 1 / sqrt(eps of the layer) = 300 times.
            scale = np.abs(terms).sum() + np.abs(weights * y_dot).sum() + np.abs(weights).sum()
            allowed = float((np.abs(weights) * bound).sum()) + 64 * 300 * EPS * float(scale)
            assert abs(terms.sum() - slope) <= allowed, (leaf.name, terms.sum(), slope, allowed)
    assert state_of(layer) == before


@in_modes(ZOO)
def test_second_derivatives_of_every_layer_equal_differences_of_the_first(specimen, training, rng):
    layer = specimen.layer().train(training)
    x = specimen.x(rng)
    pinned(layer, x)
    with nn.frozen_statistics():
        y = layer(mg.tensor(x))
        w, v, u = (rng.normal(size=s) for s in (y.shape, x.shape, x.shape))

        def slope(x):
            return (mg.grad(lambda z: (mg.sin(layer(z)) * w).sum())(x) * v).sum()

        exact = float((mg.grad(slope)(mg.tensor(x)).numpy() * u).sum())
        h = 2.0**-11
        rows = [[_central(slope, x, u, h / 2**k)] for k in range(2)]
        estimate = rows[1][0] + (rows[1][0] - rows[0][0]) / 3
    # Richardson extrapolation leaves O(h^4) times a fifth derivative. The difference of the two
    # central differences bounds that with room: it is 3/4 of the h^2 term that is removed.
    spread = abs(rows[1][0] - rows[0][0]) + 1e-7 * (1 + np.abs(v).sum() * np.abs(w).sum())
    assert abs(exact - estimate) <= spread, (exact, estimate, spread)


def _central(f, x, u, h):
    return (f(mg.tensor(x + h * u)).item() - f(mg.tensor(x - h * u)).item()) / (2 * h)


@every_layer
def test_frozen_statistics_make_every_layer_a_function(specimen, rng):
    layer, x = specimen.layer(), mg.tensor(specimen.x(rng))
    before = state_of(layer)
    with nn.frozen_statistics():
        first, second = layer(x).numpy(), layer(x).numpy()
    np.testing.assert_array_equal(first, second)
    assert state_of(layer) == before


@pytest.mark.parametrize("loss", ["BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss"])
def test_gradients_of_every_loss_equal_differences(loss, rng):
    x = rng.normal(size=(5, 4))
    target = rng.integers(0, 4, 5) if loss.startswith("Cross") else rng.random((5, 4))
    loss = getattr(nn, loss)()
    v = rng.normal(size=x.shape)
    gradient = mg.grad(lambda z: loss(z, target))(x).numpy()
    slope, bound = directional(lambda z: np.asarray(loss(z, target)), [x], [v])
    allowed = float(bound) + 64 * EPS * np.abs(gradient * v).sum()
    assert abs((gradient * v).sum() - float(slope)) <= allowed


def test_a_wrong_gradient_of_a_layer_is_seen(rng):
    """The test of second derivatives is not blind: a mean detached in the variance fails it."""
    x = rng.normal(size=(6, 2))

    def detached(z):
        mean = mg.mean(z, axis=0)
        var = mg.mean((z - mean.detach()) ** 2, axis=0)
        return (z - mean) / mg.sqrt(var + 1e-5)

    w, v, u = (rng.normal(size=x.shape) for _ in range(3))

    def slope(z):
        return (mg.grad(lambda t: (mg.sin(detached(t)) * w).sum())(z) * v).sum()

    exact = float((mg.grad(slope)(mg.tensor(x)).numpy() * u).sum())
    assert abs(exact - _central(slope, x, u, 2.0**-11)) > 1e-3
