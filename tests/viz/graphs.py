"""Graphs that several tests draw and step through."""

import numpy as np

import minigrad as mg

SEED = np.linspace(-1.0, 1.0, 12).reshape(4, 3)


def leaf(array, name):
    return mg.tensor(array, requires_grad=True, name=name)


def scalar(name="x"):
    return leaf(2.0, name)


def chain(x, n):
    for _ in range(n):
        x = mg.tanh(x)
    return x


def batch_norm(swept=True):
    """Batch norm of (4, 3), its gradients computed."""
    x = leaf(np.sin(np.arange(12.0)).reshape(4, 3), "x")
    gamma, beta = leaf([1.0, 0.5, -2.0], "gamma"), leaf(np.zeros(3), "beta")
    y = mg.batch_norm(x, gamma, beta)
    if swept:
        y.backward(SEED)
    return y


def product(*names):
    leaves = [leaf([1.0, 2.0], name) for name in names]
    y = leaves[0] * 2.0
    for x in leaves[1:]:
        y = y * x
    return y


def perceptron(layers=20, width=8):
    """``3 * layers + 2`` ops."""
    rng = np.random.default_rng(0)
    h = mg.tensor(rng.normal(size=(width, width)), name="x")
    for i in range(layers):
        weight = leaf(rng.normal(size=(width, width)) / 3, f"W{i}")
        with mg.scope(f"Linear {i}"):
            h = mg.tanh(h @ weight + leaf(np.zeros(width), f"b{i}"))
    return mg.sum(h * h)


def lenet():
    """LeNet with batch norm and its loss on eight images of noise."""
    images = np.random.default_rng(0).normal(size=(8, 1, 28, 28))
    return mg.cross_entropy(mg.nn.models.lenet_bn(rng=0)(images), np.arange(8))
