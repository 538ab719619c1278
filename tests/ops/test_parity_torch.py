"""First-order parity with PyTorch, where it is installed."""

import warnings

import numpy as np
import pytest

import minigrad as mg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings from importing PyTorch are not ours
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
F = torch.nn.functional

EPS = np.finfo(np.float64).eps


def both(ours, theirs, xs, y_bar):
    """Pairs of minigrad's and PyTorch's results: the value, then the cotangent of each input."""
    y, pullback = mg.vjp(ours, *xs)
    leaves = [torch.tensor(x, requires_grad=True) for x in xs]
    result = theirs(*leaves)
    result.backward(torch.tensor(y_bar))
    yield y.data, result.detach().numpy()
    for got, leaf in zip(pullback(y_bar), leaves, strict=True):
        yield got.data, leaf.grad.numpy()


def agree(ours, theirs, xs, y_bar, condition=1.0):
    # two float64 computations of sums of at most 64 summands of the size of the largest result
    for got, expected in both(ours, theirs, xs, y_bar):
        assert got.shape == expected.shape
        scale = max(1.0, np.abs(expected).max(), np.abs(y_bar).sum()) * condition
        np.testing.assert_allclose(got, expected, rtol=0, atol=64 * EPS * scale)


@pytest.mark.parametrize("shape", [(7, 3), (4, 2, 5), (3, 2, 4, 3), (2, 2, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 1e-1])
def test_batch_norm_in_training_equals_torch(shape, eps, rng):
    c = shape[1]
    xs = [rng.normal(1.0, 2.0, shape), rng.normal(size=c), rng.normal(size=c)]
    agree(
        lambda *a: mg.ops.batch_norm(*a, eps=eps),
        lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True, eps=eps),
        xs,
        rng.normal(size=shape),
        condition=1 + np.abs(xs[0]).max() / xs[0].std(),
    )


def test_batch_norm_in_evaluation_equals_torch(rng):
    xs = [rng.normal(size=(7, 3)), rng.normal(size=3), rng.normal(size=3)]
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2.0, 3)
    agree(
        lambda *a: mg.ops.batch_norm(*a, mean=mean, var=var),
        lambda x, g, b: F.batch_norm(x, torch.tensor(mean), torch.tensor(var), g, b),
        xs,
        rng.normal(size=(7, 3)),
        condition=4.0,  # 1/sqrt(0.5) * max|x - mean|
    )


@pytest.mark.parametrize("trailing", [(4,), (3, 4)])
def test_layer_norm_equals_torch(trailing, rng):
    xs = [rng.normal(size=(2, 3, 4)), rng.normal(size=trailing), rng.normal(size=trailing)]
    agree(
        mg.layer_norm,
        lambda x, g, b: F.layer_norm(x, trailing, g, b),
        xs,
        rng.normal(size=(2, 3, 4)),
        condition=1 + np.abs(xs[0]).max() / xs[0].std(axis=-1).min(),
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_and_log_softmax_equal_torch(axis, rng):
    xs, y_bar = [rng.normal(0, 10, (3, 4))], rng.normal(size=(3, 4))
    agree(lambda x: mg.softmax(x, axis=axis), lambda x: F.softmax(x, axis), xs, y_bar)
    agree(lambda x: mg.log_softmax(x, axis=axis), lambda x: F.log_softmax(x, axis), xs, y_bar)


def test_cross_entropy_equals_torch(rng):
    labels = rng.integers(0, 4, 9)
    agree(
        lambda x: mg.cross_entropy(x, labels),
        lambda x: F.cross_entropy(x, torch.tensor(labels)),
        [rng.normal(0, 5, (9, 4))],
        rng.normal(size=()),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mg.gelu, F.gelu),
        (mg.softplus, lambda x: F.softplus(x, threshold=100)),
        (mg.elu, F.elu),
        (mg.leaky_relu, F.leaky_relu),
        (mg.relu, F.relu),
        (mg.sigmoid, torch.sigmoid),
        (mg.tanh, torch.tanh),
        (lambda x: mg.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, 1)),
        (lambda x: mg.var(x, axis=1, ddof=1), lambda x: torch.var(x, 1)),
        (lambda x: mg.max(x, axis=1), lambda x: torch.amax(x, 1)),
        (lambda x: mg.prod(x, axis=1), lambda x: torch.prod(x, 1)),
        (lambda x: mg.cumsum(x, axis=1), lambda x: torch.cumsum(x, 1)),
    ],
    ids=[
        "gelu",
        "softplus",
        "elu",
        "leaky_relu",
        "relu",
        "sigmoid",
        "tanh",
        "logsumexp",
        "var",
        "max",
        "prod",
        "cumsum",
    ],
)
def test_activations_and_reductions_equal_torch(ours, theirs, rng):
    xs = [rng.normal(0, 2, (4, 5))]
    agree(ours, theirs, xs, rng.normal(size=ours(xs[0]).shape), condition=8.0)


def test_ties_split_as_torch_splits_them():
    x = np.array([[3.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
    agree(lambda a: mg.max(a, axis=1), lambda a: torch.amax(a, 1), [x], np.array([1.5, -0.7]))
    agree(lambda a: mg.min(a, axis=1), lambda a: torch.amin(a, 1), [x], np.array([1.5, -0.7]))
    pair = [np.array([1.0, 2.0]), np.array([1.0, 0.0])]
    agree(mg.maximum, torch.maximum, pair, np.array([1.5, -0.7]))
    agree(mg.minimum, torch.minimum, pair, np.array([1.5, -0.7]))


def test_prod_with_zeros_equals_torch():
    x = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [1.0, 2.0, 3.0]])
    agree(lambda a: mg.prod(a, axis=1), lambda a: torch.prod(a, 1), [x], np.array([1.5, 2.0, -0.7]))
