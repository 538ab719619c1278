"""Every layer on a GPU, or on a stand-in that refuses what CuPy refuses."""

import numpy as np
import pytest
from differences import rounding
from layer_zoo import ZOO, in_modes

import minigrad as mg
from minigrad import backend, fused, optim


def host(tensor):
    return np.asarray(backend.to_host(tensor.array))


def run(specimen, training, device, x, seed):
    layer = specimen.layer().train(training).to(device)
    x = mg.tensor(x, requires_grad=True, device=device)
    y = layer(x)
    y.backward(mg.tensor(seed(y.shape), device=device))
    results = {"y": host(y), "x_bar": host(x.grad)}
    results |= {name: host(p.grad) for name, p in layer.named_parameters()}
    return results | {name: host(b) for name, b in layer.named_buffers()}


def seed(shape):
    return np.random.default_rng(1).normal(size=shape)


@in_modes(ZOO)
def test_every_layer_computes_the_same_elsewhere(specimen, training, gpu, rng):
    x = specimen.x(rng)
    with fused.use("portable"):
        here = run(specimen, training, "cpu", x, seed)
        there = run(specimen, training, gpu.device, x, seed)
    assert here.keys() == there.keys()
    for name, expected in here.items():
        if gpu.is_real:
            assert_close(there[name], expected, x, here, name)
        else:  # the stand-in makes the same NumPy calls
            np.testing.assert_array_equal(there[name], expected, err_msg=name)


@in_modes(ZOO)
def test_every_layer_computes_the_same_with_cuda_kernels(specimen, training, kernels, rng):
    x = specimen.x(rng)
    with fused.use("portable"):
        here = run(specimen, training, "cpu", x, seed)
    there = run(specimen, training, kernels.device, x, seed)
    assert here.keys() == there.keys()
    for name, expected in here.items():
        assert_close(there[name], expected, x, here, name)


def assert_close(got, expected, x, results, name):
    """Equal but for another order of summation; each sum is over elements of y_bar or of x."""
    weights = np.concatenate([seed(results["y"].shape).ravel(), np.ravel(x)])
    slope = max(1.0, *(float(np.abs(r).max(initial=0)) for r in results.values()))
    allowed = rounding(np.float64, weights, slope, [x])
    np.testing.assert_allclose(got, expected, rtol=0, atol=allowed, err_msg=name)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_every_optimizer_steps_elsewhere(kind, gpu, rng):
    w, g = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    results = []
    for device in ("cpu", gpu.device):
        p = mg.tensor(w, requires_grad=True, device=device)
        p.grad = mg.tensor(g, device=device)
        optim.clip_grad_norm_([p], 1.0)
        optim.clip_grad_value_([p], 0.2)
        optim.AGC(kind([p], lr=0.1)).step()
        results.append(host(p))
    # 6 squares are summed, and some 20 operations on numbers below 4 follow
    np.testing.assert_allclose(*results, rtol=0, atol=32 * np.finfo(float).eps * 4)
