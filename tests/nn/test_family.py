"""Whitening, the probability integral transform, recurrent batch norm, weights without a norm."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.errors import ShapeError, UsageError

EPS = np.finfo(np.float64).eps


def correlated(rng, n=40, c=3):
    return rng.normal(size=(n, c)) @ rng.normal(size=(c, c)) + rng.normal(size=c)


@pytest.mark.parametrize("method", ["zca", "cholesky"])
def test_whitened_features_are_uncorrelated_with_variance_1(method, rng):
    x = correlated(rng)
    y = nn.Whitening1d(3, method, eps=0.0)(mg.tensor(x)).numpy()
    condition = np.linalg.cond(np.cov(x.T))
    np.testing.assert_allclose(y.mean(0), 0, atol=64 * EPS * condition)
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(3), atol=64 * EPS * condition)


def test_zca_is_symmetric_and_cholesky_triangular(rng):
    x = correlated(rng)
    xc = x - x.mean(0)
    for method in ("zca", "cholesky"):
        y = nn.Whitening1d(3, method, eps=0.0)(mg.tensor(x)).numpy()
        w = np.linalg.lstsq(xc, y, rcond=None)[0].T  # y = W xc
        wrong = w - w.T if method == "zca" else np.triu(w, 1)
        assert np.abs(wrong).max() < 1e-10 * np.abs(w).max()


@pytest.mark.parametrize("method", ["zca", "cholesky"])
def test_whitening_evaluates_with_running_statistics(method, rng):
    layer = nn.Whitening1d(3, method, momentum=1.0)
    x = correlated(rng)
    layer(mg.tensor(x))
    np.testing.assert_allclose(layer.running_mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_cov, np.cov(x.T), rtol=1e-12)
    one = layer.eval()(mg.tensor(x[:1])).numpy()
    assert one.shape == (1, 3)
    trained = layer.train()(mg.tensor(x)).numpy()
    layer.running_cov.data = np.cov(x.T, ddof=0)  # what training divides by
    # the same map of the same numbers: 1e2 roundings of values up to 4
    np.testing.assert_allclose(layer.eval()(mg.tensor(x)), trained, rtol=0, atol=1e-13)


def test_whitening_one_channel_is_batch_norm(rng):
    x = mg.tensor(rng.normal(size=(9, 1)))
    for method in ("zca", "cholesky"):
        np.testing.assert_allclose(
            nn.Whitening1d(1, method)(x), nn.BatchNorm1d(1)(x), rtol=0, atol=16 * EPS * 3
        )


def test_whitening_has_a_gradient_where_eigenvalues_coincide():
    """Formulas that divide by differences of eigenvalues give nan here."""
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    x = mg.tensor(x, requires_grad=True)
    nn.Whitening1d(2)(x).backward(np.arange(8.0).reshape(4, 2))
    assert np.isfinite(x.grad.numpy()).all()


def test_whitening_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="'zca' or 'cholesky'"):
        nn.Whitening1d(2, "pca")
    with pytest.raises(ShapeError, match="2 or more"):
        nn.Whitening1d(2)(mg.tensor([[1.0, 2.0]]))
    with pytest.raises(ShapeError, match=r"\(N, 2\)"):
        nn.Whitening1d(2)(mg.tensor([[1.0, 2.0, 3.0]]))


# --- probability integral transform ---------------------------------------------------------------


@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy"])
def test_the_transform_makes_any_distribution_nearly_uniform(draw, rng):
    x = getattr(rng, draw)(size=(4000, 1))
    layer = nn.ProbabilityIntegralNorm1d(1, quantiles=64, bandwidth=0.02)
    u = np.sort(layer(mg.tensor(x)).numpy().ravel()) / np.sqrt(12) + 0.5
    assert u.min() >= 0 and u.max() <= 1
    # the smoothed distribution has 64 steps of 1/64 and is blurred by the bandwidth: for the heavy
    # tails of Cauchy the spread is that of the outer quantiles, so the middle is blurred most
    limit = 0.03 if draw != "standard_cauchy" else 0.2
    assert np.abs(u - (np.arange(4000) + 0.5) / 4000).max() < limit


def test_a_transform_without_quantiles_or_width_is_refused():
    for name, bad in (("quantiles", (0, 1, -1, 2.5, None)), ("bandwidth", (0, -1, None))):
        for value in bad:
            with pytest.raises(UsageError, match=f"ProbabilityIntegralNorm1d: {name}"):
                nn.ProbabilityIntegralNorm1d(3, **{name: value})


def test_the_transform_ignores_shift_and_scale(rng):
    x = rng.normal(size=(50, 2))
    layer = nn.ProbabilityIntegralNorm1d(2, eps=0.0)
    with nn.frozen_statistics():
        a, b = layer(mg.tensor(x)).numpy(), layer(mg.tensor(100 * x - 7)).numpy()
    np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
@pytest.mark.parametrize("as_operand", [np.asarray, mg.tensor])
def test_the_transform_of_integers_is_that_of_the_same_floats(as_operand, dtype, rng):
    x = rng.integers(0, 200, (20, 3)).astype(dtype)
    layer, twin = nn.ProbabilityIntegralNorm1d(3), nn.ProbabilityIntegralNorm1d(3)
    for _ in ("train", "eval"):
        np.testing.assert_array_equal(layer(as_operand(x)), twin(x.astype(float)))
        layer.eval(), twin.eval()
    np.testing.assert_array_equal(layer.running_quantiles, twin.running_quantiles)


def test_the_transform_evaluates_with_running_quantiles(rng):
    layer = nn.ProbabilityIntegralNorm1d(2, momentum=1.0)
    x = mg.tensor(rng.normal(size=(50, 2)))
    trained = layer(x).numpy()
    np.testing.assert_array_equal(layer.eval()(x).numpy(), trained)
    np.testing.assert_allclose(
        layer.running_quantiles, np.quantile(x, (np.arange(16) + 0.5) / 16, axis=0, method="hazen"),
        atol=1e-12,
    )  # fmt: skip


# --- recurrent ------------------------------------------------------------------------------------


def test_sequence_wise_batch_norm_averages_over_examples_and_steps(rng):
    layer = nn.RNN(3, 2, batch_norm=True)
    x = rng.normal(size=(4, 5, 3))
    u = x @ layer.weight_ih.numpy().T
    u = (u - u.mean((0, 1))) / np.sqrt(u.var((0, 1)) + 1e-5)
    h = np.zeros((4, 2))
    states, last = layer(mg.tensor(x))
    for t in range(5):
        h = np.tanh(u[:, t] + h @ layer.weight_hh.numpy().T + layer.bias.numpy())
        np.testing.assert_allclose(states[:, t], h, atol=1e-12)
    np.testing.assert_array_equal(last.numpy(), states.numpy()[:, -1])
    m = 20
    expected = 0.9 + 0.1 * m / (m - 1) * (x @ layer.weight_ih.numpy().T).var((0, 1))
    np.testing.assert_allclose(layer.norm.running_var, expected)


def test_a_layer_over_a_sequence_is_the_cell_step_by_step(rng):
    cell, layer = nn.RNNCell(3, 2), nn.RNN(3, 2)
    layer.load_state_dict(
        {"weight_ih": cell.weight_ih, "weight_hh": cell.weight_hh,
         "bias": cell.bias_ih.numpy() + cell.bias_hh.numpy()}
    )  # fmt: skip
    x, h = rng.normal(size=(4, 6, 3)), None
    for t in range(6):
        h = cell(mg.tensor(x[:, t]), h)
    np.testing.assert_allclose(layer(mg.tensor(x))[1], h, atol=1e-13)


# --- without a norm -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3)], ids=str)
def test_standardized_units_have_mean_0_and_the_gain_as_norm(shape, rng):
    gain = rng.uniform(0.5, 2.0, shape[0])
    w = nn.standardized(mg.tensor(3 + rng.normal(size=shape)), gain).numpy().reshape(shape[0], -1)
    np.testing.assert_allclose(w.sum(1), 0, atol=1e-13)
    np.testing.assert_allclose(np.sqrt((w**2).sum(1)), gain, rtol=1e-13)


def test_the_relu_gain_keeps_the_variance(rng):
    x = np.maximum(rng.normal(size=1_000_000), 0) * nn.RELU_GAIN
    assert abs(x.var() - 1) < 5 * 2.3e-3  # the fourth moment of relu(N) gives 2.3 / sqrt(1e6)


# --- models ---------------------------------------------------------------------------------------


def test_lenet_is_the_network_of_the_book():
    net = nn.models.lenet_bn()
    kinds = [type(m).__name__ for m in net]
    block = ["BatchNorm2d", "Sigmoid", "MaxPool2d"]
    dense = ["Linear", "BatchNorm1d", "Sigmoid"]
    assert kinds == ["Conv2d", *block, "Conv2d", *block, "Flatten", *dense, *dense, "Linear"]
    shapes = [p.shape for n, p in net.named_parameters() if n.endswith("weight") and p.ndim > 1]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 256), (84, 120), (10, 84)]


@pytest.mark.parametrize("name", ["lenet", "mlp", "resnet", "RowRNN"])
def test_every_model_has_a_twin_without_batch_norm(name):
    for batch_norm in (True, False):
        net = getattr(nn.models, name)(batch_norm, side=8)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        assert bool(norms) == batch_norm
        assert net(mg.tensor(np.random.default_rng(0).random((3, 1, 8, 8)))).shape == (3, 10)


def test_a_network_that_reads_rows_takes_flat_images(rng):
    net = nn.models.RowRNN(side=4, hidden=3).eval()
    x = rng.normal(size=(2, 1, 4, 4))
    np.testing.assert_array_equal(net(x.reshape(2, 16)), net(x))


def test_batch_norm_stands_before_or_after_the_activation():
    kinds = [type(m).__name__ for m in nn.models.mlp(order="after")]
    assert kinds[:4] == ["Flatten", "Linear", "ReLU", "BatchNorm1d"]


def test_an_empty_batch_leaves_the_statistics_of_instance_norm():
    layer = nn.InstanceNorm1d(2, track_running_stats=True)
    assert layer(np.ones((0, 2, 3))).shape == (0, 2, 3)
    assert layer.running_mean.numpy().tolist() == [0.0, 0.0]
    assert layer.running_var.numpy().tolist() == [1.0, 1.0]


def test_instance_norm_averages_all_batches_equally_where_momentum_is_none(rng):
    layer = nn.InstanceNorm1d(2, momentum=None, track_running_stats=True)
    batches = [rng.normal(size=(3, 2, 5)) for _ in range(4)]
    for x in batches:
        layer(x)
    assert layer.num_batches_tracked.item() == 4
    mean = np.mean([x.mean((0, 2)) for x in batches], axis=0)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=0, atol=64 * EPS)


def test_instance_norm_keeps_means_over_examples_of_their_statistics(rng):
    layer = nn.InstanceNorm1d(2, momentum=0.25, track_running_stats=True)
    x = rng.normal(size=(3, 2, 5))
    layer(mg.tensor(x))
    mean, var = x.mean(2).mean(0), x.var(2, ddof=1).mean(0)
    np.testing.assert_allclose(layer.running_mean, 0.25 * mean, rtol=0, atol=64 * EPS)
    np.testing.assert_allclose(layer.running_var, 0.75 + 0.25 * var, rtol=0, atol=64 * EPS)
    layer.eval()(mg.tensor(2 * x))
    np.testing.assert_allclose(layer.running_mean, 0.25 * mean, rtol=0, atol=64 * EPS)
