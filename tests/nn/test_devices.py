"""Every layer on another array library, in a stand-in that refuses what CuPy refuses."""

import numpy as np
import pytest
import standin
from layer_zoo import ZOO

import minigrad as mg
from minigrad import backend, optim


@pytest.fixture
def elsewhere(monkeypatch):
    """``"standin:0"`` is a device."""
    known = backend._library_on

    def library_on(device):
        return standin.LIBRARY if device.startswith("standin") else known(device)

    monkeypatch.setattr(backend, "_library_on", library_on)
    with standin.registered():
        yield "standin:0"


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


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("specimen", ZOO, ids=repr)
def test_every_layer_computes_the_same_elsewhere(specimen, training, elsewhere, rng):
    x = specimen.x(rng)

    def seed(shape):
        return np.random.default_rng(1).normal(size=shape)

    here = run(specimen, training, "cpu", x, seed)
    there = run(specimen, training, elsewhere, x, seed)
    assert here.keys() == there.keys()
    for name, expected in here.items():  # the same calls of the same library, behind a wall
        np.testing.assert_array_equal(there[name], expected, err_msg=name)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_every_optimizer_steps_elsewhere(kind, elsewhere, rng):
    w, g = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    results = []
    for device in ("cpu", elsewhere):
        p = mg.tensor(w, requires_grad=True, device=device)
        p.grad = mg.tensor(g, device=device)
        optim.clip_grad_norm_([p], 1.0)
        optim.clip_grad_value_([p], 0.2)
        optim.AGC(kind([p], lr=0.1)).step()
        results.append(host(p))
    np.testing.assert_array_equal(*results)
