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
    "sign": (lambda g: -g, "wrong sign"),
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


# --- what is mixed up: (forward, wrong backward, shapes, input at fault, words of the cause) ------

_matmul_forward = _matmul()[0]
_softmax_forward = _softmax()[0]


def _layer_norm_with(x_bar=None, gamma_bar=None):
    """Layer norm; ``x_bar(g, mean path, variance path, r, dy)`` or ``gamma_bar(dy, x_hat)``."""
    forward, right, shapes = _layer_norm()

    def backward(dy, cache):
        x_hat, r, gamma = cache
        dx, dg, db = right(dy, cache)
        g = dy * gamma
        paths = g, g.mean(1, keepdims=True), x_hat * (g * x_hat).mean(1, keepdims=True)
        dx = x_bar(*paths, r, dy) if x_bar else dx
        return dx, gamma_bar(dy, x_hat) if gamma_bar else dg, db

    return forward, backward, shapes


def _standardize(x):
    xc = x - x.mean()
    r = 1 / np.sqrt((xc * xc).mean() + 1e-5)
    return xc * r, (xc * r, r)


def _log_softmax(x):
    e = np.exp(x)
    s = e.sum(1, keepdims=True)
    return x - np.log(s), e / s


def _tanh(x):
    return np.tanh(x), np.tanh(x)


_times = lambda x, w: (x * w, (x, w))  # noqa: E731
_plus = lambda x, w: (x + w, None)  # noqa: E731
_square, _row = ((4, 4),), ((4, 4), (4,))

MIXUPS = {
    "softmax: its own element only": (
        _softmax_forward, lambda dy, y: (dy * y,), _square, 0,
        "it is y_bar * y; missing path through `e.sum(1, keepdims=True)` (line"),
    "softmax: axis": (
        _softmax_forward, lambda dy, y: (y * (dy - (dy * y).sum(0, keepdims=True)),), _square, 0,
        "y_bar is mixed along axis 0, not along axis 1"),
    "softmax: mean": (
        _softmax_forward, lambda dy, y: (y * (dy - (dy * y).mean(1, keepdims=True)),), _square, 0,
        "factor 1/4 in the path through `e.sum(1, keepdims=True)` (line"),
    "log softmax: mean": (
        _log_softmax, lambda dy, s: (dy - s * dy.mean(1, keepdims=True),), ((3, 4),), 0,
        "factor 1/4 in the path through `e = np.exp(x)` (line"),
    "log softmax: passed on": (
        _log_softmax, lambda dy, s: (dy.copy(),), _square, 0,
        "it is y_bar; missing path through `e = np.exp(x)` (line"),
    "log softmax: no sum": (
        _log_softmax, lambda dy, s: (dy - s,), _square, 0, "a term without y_bar"),
    "tanh: passed on": (_tanh, lambda dy, y: (dy.copy(),), _square, 0, "it is y_bar"),
    "tanh: y for 1 - y^2": (_tanh, lambda dy, y: (dy * y,), _square, 0, "it is y_bar * y"),
    "tanh: mixed": (
        _tanh, lambda dy, y: (dy * (1 - y * y) + dy.mean(0),), _square, 0,
        "y_bar is also mixed along axis 0"),
    "matmul: a": (
        _matmul_forward, lambda dy, c: (dy @ c[1], c[0].T @ dy), 2 * _square, 0,
        "not transposed"),
    "matmul: b": (
        _matmul_forward, lambda dy, c: (dy @ c[1].T, c[0] @ dy), 2 * _square, 1,
        "not transposed"),
    "matmul: order": (
        _matmul_forward, lambda dy, c: (c[0].T @ dy, dy @ c[1].T), 2 * _square, 0,
        "it is the cotangent of input 1"),
    "matmul: order, seen by the shapes": (
        _matmul_forward, lambda dy, c: (c[0].T @ dy, dy @ c[1].T), ((2, 3), (3, 4)), 0,
        "cotangents in the wrong order"),
    "cumsum": (
        lambda x: (np.cumsum(x, 1), None), lambda dy, _: (np.cumsum(dy, 1),), _square, 0,
        "not transposed"),
    "a gather: the permutation for its inverse": (
        lambda x: (x[[1, 2, 3, 0]], None), lambda dy, _: (dy[[1, 2, 3, 0]],), _square, 0,
        "not transposed"),
    "a transpose: reshaped": (
        lambda x: (x.T.copy(), x.shape), lambda dy, s: (dy.reshape(s).copy(),), ((2, 3),), 0,
        "a transpose is missing"),
    "a loop that overwrites": (
        lambda x: (np.stack([x, 2 * x, 3 * x]), None), lambda dy, _: (3 * dy[2],), _square, 0,
        "only the last of y_bar along axis 0 counts"),
    "the mask of y_bar": (
        lambda x: (np.abs(x), x), lambda dy, x: (np.abs(dy) * np.sign(x),), _square, 0,
        "not linear in y_bar"),
    "the length of y_bar": (
        lambda x: (2 * x, None), lambda dy, _: (2 * dy / np.sqrt((dy * dy).sum()),), _square, 0,
        "not linear in y_bar"),  # 0 / 0 where y_bar is 0
    "a power too much": (
        lambda x: (x**3, x), lambda dy, x: (3 * dy * x**3,), _square, 0,
        "factor input 0 in each element"),
    "a local derivative": (
        _tanh, lambda dy, y: (dy * (1 - y),), _square, 0, "should be 1 - y^2, not 1 - y"),
    "a slice of another place": (
        lambda x: (x[:2].copy(), None), lambda dy, _: (np.pad(dy, ((2, 0), (0, 0))),), _square, 0,
        "y_bar[0, 0] should reach [0, 0] of input 0_bar, but reaches [2, 0]"),
    "a factor where the rest is zero": (
        lambda x: (x * np.array([[1.0], [0], [0], [0]]) / 0.6, None),
        lambda dy, _: (dy * np.array([[1.0], [0], [0], [0]]),), _square, 0,
        "factor 0.6: the factor of `x * np.array([[1.0], [0], [0], [0]]) / 0.6`"),
    "a scale that is inverted": (
        lambda x: (x * 3.7, None), lambda dy, _: (dy / 3.7,), _square, 0, ") is inverted"),
    "a mean for a sum over a part": (
        lambda b: (b * np.ones((5, 3, 2)), None), lambda dy, _: (dy.mean((0, 1)),), ((2,),), 0,
        "factor 1/15: perhaps a sum became a mean"),
    "one size for another": (
        lambda x: (x.sum() / len(x), x.shape), lambda dy, s: (np.full(s, dy / s[1]),), ((6, 4),), 0,
        "factor 6/4: perhaps the axis size 4 is used instead of 6"),
    "numbers that are rounded": (
        _times, lambda dy, c: (np.round(3 * dy * c[1]), dy * c[0]), 2 * _square, 0, "not linear"),
    "a kernel flipped on both axes": (
        _times, lambda dy, c: (dy * c[1], (dy * c[0])[::-1, ::-1].copy()), 2 * _square, 1,
        "reversed along axes 0 and 1"),
    "a kernel that is not flipped": (
        lambda x, w: (np.convolve(x, w), (x, w)),
        lambda dy, c: (np.convolve(dy, c[1], "valid"), np.correlate(dy, c[0], "valid")),
        ((6,), (3,)), 0, "a flip is missing or extra: right for input 1 reversed along axis 0"),
    "y_bar in reverse": (
        lambda x, w: (np.convolve(x, w), (x, w)),
        lambda dy, c: (np.correlate(dy, c[1], "valid"), np.correlate(dy[::-1], c[0], "valid")),
        ((6,), (3,)), 1, "a flip is missing or extra: right for y_bar reversed along axis 0"),
    "channels exchanged": (
        lambda x, w: (np.einsum("nc,cfk->nfk", x, w), (x, w)),
        lambda dy, c: (np.einsum("nfk,fck->nc", dy, c[1]), np.einsum("nfk,nc->cfk", dy, c[0])),
        ((4, 3), (3, 3, 2)), 0,
        "a transpose is missing or extra: right for input 1 with axes 0 and 1 exchanged"),
    "bias: axis, seen by the shape": (
        lambda x, b: (x + b, None), lambda dy, _: (dy.copy(), dy.sum(1)), ((4, 3), (3,)), 1,
        "summed over the wrong axis"),
    "bias: keepdims": (
        lambda x, b: (x + b, None), lambda dy, _: (dy.copy(), dy.sum(0, keepdims=True)),
        ((4, 3), (3,)), 1, "keepdims"),
    "product: the wrong operand": (
        _times, lambda dy, c: (dy * c[0], dy * c[0]), 2 * _square, 0,
        "it is the cotangent of input 1"),
    "bias: axis": (
        _plus, lambda dy, _: (dy.copy(), dy.sum(1)), _row, 1,
        "it is the sum of y_bar over axis 1"),
    "scale: axis": (
        _times, lambda dy, c: (dy * c[1], (dy * c[0]).sum(1)), _row, 1,
        "it is the sum of y_bar * input 0 over axis 1"),
    "scale: not multiplied": (
        _times, lambda dy, c: (dy * c[1], dy.sum(0)), _row, 1,
        "it is the sum of y_bar over axis 0"),
    "standardization": (
        _standardize, lambda dy, c: (c[1] * (dy - dy.mean()),), _square, 0,
        "missing variance path"),
    "layer norm: variance": (
        *_layer_norm_with(lambda g, m, v, r, dy: r * (g - m)), 0, "missing variance path"),
    "layer norm: mean": (
        *_layer_norm_with(lambda g, m, v, r, dy: r * (g - v)), 0, "missing mean path"),
    "layer norm: sign": (
        *_layer_norm_with(lambda g, m, v, r, dy: r * (g + m - v)), 0,
        "wrong sign of the mean path"),
    "layer norm: inv_std": (
        *_layer_norm_with(lambda g, m, v, r, dy: g - m - v), 0, "factor 1/inv_std"),
    "layer norm: axis": (
        *_layer_norm_with(lambda g, m, v, r, dy: r * (g - g.mean(0) - v)), 0,
        "the mean path sums over axis 0, not over axis 1"),
    "layer norm: gamma": (
        *_layer_norm_with(lambda g, m, v, r, dy: r * (dy - dy.mean(1, keepdims=True))), 0,
        "missing variance path and gamma is missing"),
    "layer norm: x_hat": (
        *_layer_norm_with(gamma_bar=lambda dy, x_hat: dy.sum(0)), 1, "x_hat is missing"),
    "layer norm: one row": (
        *_layer_norm_with(gamma_bar=lambda dy, x_hat: (dy * x_hat)[0].copy()), 1,
        "axis 0 is not summed"),
}  # fmt: skip
