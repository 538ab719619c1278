"""Right backwards of other functions, and ways to break any of them."""

import numpy as np


def _matmul():
    def forward(a, b):
        return a @ b, (a, b)

    def backward(dy, cache):
        a, b = cache
        return dy @ b.T, a.T @ dy

    return forward, backward, ((3, 3), (3, 3))


def _softmax():
    def forward(x):
        e = np.exp(x - x.max(1, keepdims=True))
        y = e / e.sum(1, keepdims=True)
        return y.copy(), y

    def backward(dy, y):
        return (y * (dy - (dy * y).sum(1, keepdims=True)),)

    return forward, backward, ((4, 4),)


def _layer_norm():
    def forward(x, gamma, beta):
        xc = x - x.mean(1, keepdims=True)
        r = 1 / np.sqrt((xc * xc).mean(1, keepdims=True) + 1e-5)
        return gamma * xc * r + beta, (xc * r, r, gamma)

    def backward(dy, cache):
        x_hat, r, gamma = cache
        g = dy * gamma
        dx = r * (g - g.mean(1, keepdims=True) - x_hat * (g * x_hat).mean(1, keepdims=True))
        return dx, (dy * x_hat).sum(0), dy.sum(0)

    return forward, backward, ((3, 4), (4,), (4,))


def _convolution():
    def windows(x, k):
        return np.lib.stride_tricks.sliding_window_view(x, k, axis=-1)

    def forward(x, w):
        return np.einsum("nclk,ock->nol", windows(x, w.shape[-1]), w), (x, w)

    def backward(dy, cache):
        x, w = cache
        k = w.shape[-1]
        dw = np.einsum("nol,nclk->ock", dy, windows(x, k))
        wide = np.pad(dy, ((0, 0), (0, 0), (k - 1, k - 1)))
        dx = np.einsum("nolk,ock->ncl", windows(wide, k), w[..., ::-1])
        return dx, dw

    return forward, backward, ((2, 2, 5), (2, 2, 3))


RIGHT = {"matmul": _matmul, "softmax": _softmax, "layer norm": _layer_norm, "conv": _convolution}

BREAK = {
    "sign": (lambda g: -g, "sign"),
    "twice": (lambda g: 2 * g, "factor 2"),
    "zero": (lambda g: 0 * g, "zero"),
    "off by 1e-10": (lambda g: g * (1 + 1e-10), "constant factor"),
    "one element": (lambda g: g + 1e-6 * (np.arange(g.size).reshape(g.shape) == 1), "only element"),
    "transposed": (lambda g: np.swapaxes(g, 0, 1).copy(), "transposed"),
    "reversed": (lambda g: g[::-1].copy(), "reversed"),
    "nan": (lambda g: g * np.nan, "nan"),
    "too many axes": (lambda g: g[None], ""),
    "read-only": (lambda g: np.broadcast_to(g, g.shape), "not writable"),
    "float32": (lambda g: g.astype(np.float32), "dtype"),
}


def broken(name, k, how):
    """(forward, wrong backward, inputs): the cotangent of input k is changed."""
    forward, right, shapes = RIGHT[name]()
    change = BREAK[how][0]

    def backward(dy, cache):
        grads = [g.copy() for g in right(dy, cache)]
        grads[k] = change(grads[k])
        return grads

    return forward, backward, shapes
