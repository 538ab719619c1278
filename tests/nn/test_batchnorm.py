"""Batch norm layers: statistics by formula, invariances, errors."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.errors import ShapeError
from minigrad.nn import kernels

EPS = np.finfo(np.float64).eps
LAYERS = {
    (6, 3): nn.BatchNorm1d,
    (4, 3, 5): nn.BatchNorm1d,
    (4, 3, 2, 5): nn.BatchNorm2d,
    (2, 3, 2, 2, 3): nn.BatchNorm3d,
}


def statistics(x, unbiased):
    axes = tuple(i for i in range(x.ndim) if i != 1)
    return x.mean(axis=axes), x.var(axis=axes, ddof=int(unbiased))


def test_a_new_layer_has_gamma_1_beta_0_mean_0_variance_1():
    bn = nn.BatchNorm2d(3)
    found = [bn.weight, bn.bias, bn.running_mean, bn.running_var]
    for value, expected in zip(found, (1.0, 0.0, 0.0, 1.0), strict=True):
        np.testing.assert_array_equal(value.numpy(), np.full(3, expected))
    assert bn.num_batches_tracked.item() == 0
    assert [name for name, _ in bn.named_parameters()] == ["weight", "bias"]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_running_statistics_follow_their_formula(shape, unbiased, rng):
    bn = LAYERS[shape](3, momentum=0.25, unbiased=unbiased)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(5):
        x = rng.normal(3.0, 2.0, shape)
        bn(mg.tensor(x))
        new_mean, new_var = statistics(x, unbiased)
        mean, var = 0.75 * mean + 0.25 * new_mean, 0.75 * var + 0.25 * new_var
    # sums of at most 40 numbers of size 10, averaged: 40 * eps relative
    np.testing.assert_allclose(bn.running_mean.numpy(), mean, rtol=40 * EPS)
    np.testing.assert_allclose(bn.running_var.numpy(), var, rtol=40 * EPS)
    assert bn.num_batches_tracked.item() == 5


def test_momentum_none_averages_all_batches_equally(rng):
    bn = nn.BatchNorm1d(2, momentum=None)
    batches = [rng.normal(size=(n, 2)) for n in (4, 9, 5)]
    for x in batches:
        bn(mg.tensor(x))
    means, variances = zip(*(statistics(x, True) for x in batches), strict=True)
    np.testing.assert_allclose(bn.running_mean.numpy(), np.mean(means, axis=0), rtol=1e-14)
    np.testing.assert_allclose(bn.running_var.numpy(), np.mean(variances, axis=0), rtol=1e-14)


@pytest.mark.parametrize("tracked", [True, False], ids=["recorded", "unrecorded"])
@pytest.mark.parametrize("kinds", [(), mg.fused.declare.KINDS], ids=["composite", "kernel"])
@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_from_the_graph_equal_statistics_from_the_batch(tracked, kinds, channels, rng):
    x = mg.tensor(rng.normal(2.0, 3.0, (5, channels, 2, 2)), requires_grad=tracked)
    gamma = mg.tensor(np.ones(channels), requires_grad=tracked)
    with mg.fused.use(*kinds):
        y = kernels.batch_norm(x, gamma, np.zeros(channels))
    for got, expected in zip(
        kernels.batch_statistics(x, (0, 2, 3), y), statistics(x.numpy(), False), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=32 * EPS, strict=True)


def test_training_normalizes_with_the_biased_variance(rng):
    x = rng.normal(5.0, 3.0, (7, 2))
    y = nn.BatchNorm1d(2, eps=0.0)(mg.tensor(x)).numpy()
    np.testing.assert_allclose(y, (x - x.mean(axis=0)) / x.std(axis=0, ddof=0), rtol=1e-13)


def test_evaluation_uses_the_running_statistics_and_leaves_them(rng):
    bn = nn.BatchNorm1d(2)
    bn(mg.tensor(rng.normal(size=(5, 2))))
    bn.eval()
    before = bn.state_dict()
    x = rng.normal(size=(1, 2))  # one example is fine here
    y = bn(mg.tensor(x)).numpy()
    mean, var = before["running_mean"].numpy(), before["running_var"].numpy()
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-14)
    for name, value in bn.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())


def test_without_tracking_evaluation_uses_the_batch(rng):
    bn = nn.BatchNorm1d(2, track_running_stats=False)
    x = mg.tensor(rng.normal(size=(5, 2)))
    np.testing.assert_array_equal(bn(x).numpy(), bn.eval()(x).numpy())
    assert list(bn.buffers()) == []


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)], ids=str)
def test_one_value_per_channel_is_refused_in_training(shape):
    with pytest.raises(ShapeError, match="2 or more values per channel") as caught:
        nn.BatchNorm1d(3)(mg.tensor(np.ones(shape)))
    assert "drop_last" in str(caught.value)


def test_one_example_with_several_places_is_enough():
    y = nn.BatchNorm2d(1)(mg.tensor([[[[1.0, 3.0]]]])).numpy()
    np.testing.assert_allclose(y.ravel(), [-1.0, 1.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.BatchNorm2d(3), (2, 3)), (nn.BatchNorm1d(3), (2, 4)), (nn.BatchNorm3d(3), (2, 3, 4, 4))],
    ids=["axes", "channels", "axes of volumes"],
)
def test_wrong_axes_or_channels_are_refused(layer, shape):
    with pytest.raises(ShapeError, match=r"expected: \(N, 3"):
        layer(mg.tensor(np.zeros(shape)))


@pytest.mark.parametrize("a", [1e-3, 0.1, 1.0, 30.0, 1e3])
def test_batch_norm_makes_the_scale_of_the_weights_irrelevant(a, rng):
    """BN((a W) u) = BN(W u), and the gradient of a W is 1/a of that of W (Ioffe & Szegedy, 3.3)."""
    u, w = rng.normal(size=(20, 6)), rng.normal(size=(4, 6))
    seed = rng.normal(size=(20, 4))

    def run(weight):
        bn = nn.BatchNorm1d(4, eps=0.0)  # eps breaks the invariance by eps / var
        leaf = mg.tensor(weight, requires_grad=True)
        y = bn(mg.matmul(mg.tensor(u), mg.transpose(leaf)))
        y.backward(seed)
        return y.numpy(), leaf.grad.numpy()

    (y, w_bar), (y_a, w_bar_a) = run(w), run(a * w)
    assert np.abs(y_a - y).max() <= 1e-10 * np.abs(y).max()
    assert np.abs(a * w_bar_a - w_bar).max() <= 1e-10 * np.abs(w_bar).max()


def test_float32_layers_keep_a_small_spread_at_a_large_mean():
    """Two passes: with E[x^2] - E[x]^2 the variance 1 would be lost beside 1e4^2 in float32."""
    x = (1e4 + np.random.default_rng(0).normal(size=(512, 1))).astype(np.float32)
    bn = nn.BatchNorm1d(1, momentum=1.0, dtype="float32")
    bn(mg.tensor(x))
    exact = x.astype(np.float64).var(ddof=1)
    # rounding x to float32 moves it by 1e4 * 6e-8 = 6e-4; the error of the mean is as large
    assert abs(bn.running_var.item() / exact - 1) < 1e-3


def test_float32_statistics_of_many_values_are_right_to_a_rounding():
    x = np.random.default_rng(0).normal(1000.0, 1.0, (100_000, 2)).astype(np.float32)
    mean, var = kernels.batch_statistics(x, (0,))
    assert mean.dtype == var.dtype == np.float32
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(mean, x.mean(0, dtype=np.float64), rtol=eps)
    # the rounding error of the mean adds its square, 1000^2 eps^2; each square is rounded twice
    exact = x.astype(np.float64).var(0)
    np.testing.assert_allclose(var, exact, rtol=0, atol=(1000 * eps) ** 2 + 4 * eps)


def test_frozen_gamma_and_beta_get_no_gradient_and_stay_in_the_state(rng):
    bn = nn.BatchNorm1d(2)
    bn.requires_grad_(False)
    x = mg.tensor(rng.normal(size=(4, 2)), requires_grad=True)
    bn(x).backward(rng.normal(size=(4, 2)))
    assert bn.weight.grad is None and x.grad is not None
    assert "weight" in bn.state_dict() and len(list(bn.parameters())) == 2


def test_a_layer_is_a_cluster_of_the_graph(rng):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    y = net(mg.tensor(rng.normal(size=(4, 3))))
    assert [scope.name for scope in y.node.scope.path()] == ["Sequential", "BatchNorm1d 1"]
    with mg.fused.use():  # nothing fused
        y = net(mg.tensor(rng.normal(size=(4, 3))))
    names = [scope.name for scope in y.node.scope.path()]
    assert names == ["Sequential", "BatchNorm1d 1", "batch_norm", "affine"]


def test_the_graph_of_an_earlier_training_batch_survives_new_statistics(rng):
    bn = nn.BatchNorm1d(2)
    x = mg.tensor(rng.normal(size=(4, 2)), requires_grad=True)
    first = bn(x)
    bn(mg.tensor(rng.normal(size=(4, 2))))
    first.backward(rng.normal(size=(4, 2)))
    assert x.grad is not None


# --- batch renormalization ------------------------------------------------------------------------


def test_unclipped_renorm_trains_the_function_it_evaluates(rng):
    layer = nn.BatchRenorm1d(3, clips=lambda step: (1e9, 1e9))
    layer.running_mean.data = rng.normal(size=3)
    layer.running_var.data = rng.uniform(0.5, 2.0, 3)
    x = mg.tensor(rng.normal(1.0, 2.0, (8, 3)))
    with nn.frozen_statistics():
        trained = layer(x).numpy()
    evaluated = layer.eval()(x).numpy()
    # r multiplies and d adds numbers up to 5; each step rounds relative to those
    np.testing.assert_allclose(trained, evaluated, rtol=0, atol=64 * EPS * np.abs(evaluated).max())


def test_renorm_clipped_to_nothing_is_batch_norm(rng):
    x = mg.tensor(rng.normal(1.0, 2.0, (8, 3)))
    renorm = nn.BatchRenorm1d(3, clips=lambda step: (1.0, 0.0))(x).numpy()
    np.testing.assert_array_equal(renorm, nn.BatchNorm1d(3)(x).numpy())


def test_renorm_keeps_to_its_clips_and_counts_its_steps(rng):
    steps = []
    layer = nn.BatchRenorm1d(1, clips=lambda step: steps.append(step) or (1.5, 0.5))
    layer.running_mean.data, layer.running_var.data = np.array([-9.0]), np.array([1e-4])
    x = rng.normal(size=(50, 1))
    x_hat = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    np.testing.assert_allclose(layer(mg.tensor(x)).numpy(), x_hat * 1.5 + 0.5, rtol=1e-12)
    layer(mg.tensor(x))
    assert steps == [0, 1]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
@pytest.mark.parametrize("affine", [True, False])
def test_running_statistics_of_integers_are_those_of_the_same_numbers(dtype, affine, rng):
    x = rng.integers(0, 200, size=(16, 3, 2, 2)).astype(dtype)
    layers = [mg.nn.BatchNorm2d(3, affine=affine) for _ in range(2)]
    for layer, array in zip(layers, (x, x.astype(np.float64)), strict=True):
        layer(array)
    a, b = (layer.state_dict() for layer in layers)
    assert all(np.allclose(a[key], b[key], rtol=1e-12, atol=0) for key in a)  # sums of 64 numbers
