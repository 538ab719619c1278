"""Backwards as students write them: right ones, and each with one classic mistake.

``PAIRS`` maps a name to ``(make, shapes by input)``, where ``make(mistake)`` gives a pair, for
``""`` the right one. ``MISTAKES`` maps ``(name, mistake)`` to the likely cause, or to a part of it
that no other cause has; ``{}`` stands for a line.
"""

import numpy as np


def _sigmoid(t):
    return 1 / (1 + np.exp(-t))


def _attention(mistake):
    def forward(x, Wq, Wk, Wv):
        q = x @ Wq
        k = x @ Wk
        v = x @ Wv
        s = q @ k.T / np.sqrt(q.shape[1])
        e = np.exp(s - s.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        return p @ v, (x, Wq, Wk, Wv, q, k, v, p)

    def backward(y_bar, cache):
        x, Wq, Wk, Wv, q, k, v, p = cache
        v_bar, p_bar = p.T @ y_bar, y_bar @ v.T
        axis = 0 if mistake == "axis" else 1
        mixed = 0 if mistake == "no sum" else (p_bar * p).sum(axis=axis, keepdims=True)
        s_bar = p_bar * p * (1 - p) if mistake == "p (1 - p)" else p * (p_bar - mixed)
        s_bar = s_bar / (1 if mistake == "scale" else np.sqrt(q.shape[1]))
        q_bar = s_bar @ k
        k_bar = {"no T": s_bar @ q, "k for q": s_bar.T @ k}.get(mistake, s_bar.T @ q)
        x_bar = q_bar @ Wq.T + (0 if mistake == "no k" else k_bar @ Wk.T) + v_bar @ Wv.T
        return x_bar, x.T @ q_bar, x.T @ k_bar, x.T @ v_bar

    return forward, backward


def _lstm(mistake):
    # fmt: off
    def sigmoid(t): return 1/(1 + np.exp(-t))

    def forward(x, h, c, W, U, b):
        n = h.shape[1]
        a = x @ W + h @ U + b
        i = sigmoid(a[:, :n])  # the input gate
        f = sigmoid(a[:, n:2*n]); o = sigmoid(a[:, 2*n:3*n])  # noqa: E702
        g=np.tanh(a[:, 3*n:])
        cell = f*c + i*g
        return o*np.tanh(cell), (x, h, c, W, U, i, f, o, g, cell)
    # fmt: on

    def backward(y_bar, cache):
        x, h, c, W, U, i, f, o, g, cell = cache
        t = np.tanh(cell)
        cell_bar = y_bar * o * (1 - t**2)
        i_bar = cell_bar * g * (i if mistake == "i" else i * (1 - i))
        f_bar = cell_bar * c * ((1 - f) if mistake == "f" else f * (1 - f))
        g_bar = cell_bar * i * (1 - (g if mistake == "g" else g**2))
        gates = [i_bar, f_bar, y_bar * t * o * (1 - o), g_bar]
        a_bar = np.hstack([gates[k] for k in ((1, 0, 2, 3) if mistake == "order" else range(4))])
        c_bar = cell_bar * (i if mistake == "i for f" else f)
        return a_bar @ W.T, a_bar @ U.T, c_bar, x.T @ a_bar, h.T @ a_bar, a_bar.sum(axis=0)

    return forward, backward


def _mlp(mistake):
    def forward(x, W1, b1, W2, b2):
        a = x @ W1 + b1
        h = np.tanh(a)
        return h @ W2 + b2, (x, W1, W2, a, h)

    def backward(y_bar, cache):
        x, W1, W2, a, h = cache
        h_bar = (y_bar[:, ::-1] if mistake == "order" else y_bar) @ W2.T
        local = {"1 - h": 1 - h, "1 - a^2": 1 - a**2, "none": 1}.get(mistake, 1 - h**2)
        a_bar = h_bar * local
        W2_bar = (a if mistake == "a for h" else h).T @ y_bar
        return a_bar @ W1.T, x.T @ a_bar, a_bar.sum(axis=0), W2_bar, y_bar.sum(axis=0)

    return forward, backward


def _relu_mlp(mistake):
    def forward(x, W1, W2):
        a = x @ W1
        h = np.maximum(a, 0)
        return h @ W2, (x, W1, W2, a, h)

    def backward(y_bar, cache):
        x, W1, W2, a, h = cache
        h_bar = y_bar @ W2.T
        a_bar = h_bar if mistake == "no mask" else h_bar * (a > 0)
        return a_bar @ W1.T, x.T @ a_bar, h.T @ y_bar

    return forward, backward


def _gru(mistake):
    def forward(x, h, Wz, Wr, Wn, Uz, Ur, Un):
        z = _sigmoid(x @ Wz + h @ Uz)
        r = _sigmoid(x @ Wr + h @ Ur)
        n = np.tanh(x @ Wn + (r * h) @ Un)
        return (1 - z) * n + z * h, (x, h, Wz, Wr, Wn, Uz, Ur, Un, z, r, n)

    def backward(y_bar, cache):
        x, h, Wz, Wr, Wn, Uz, Ur, Un, z, r, n = cache
        an_bar = y_bar * (1 - z) * (n * (1 - n) if mistake == "sigmoid" else 1 - n**2)
        az_bar = y_bar * (n - h if mistake == "sign" else h - n) * z * (1 - z)
        rh_bar = an_bar @ Un.T
        r_bar = rh_bar * (n if mistake == "n for h" else h)
        ar_bar = r_bar * (r if mistake == "y for y (1 - y)" else r * (1 - r))
        h_bar = az_bar @ Uz.T + ar_bar @ Ur.T
        h_bar = h_bar + (0 if mistake == "no carry" else y_bar * z)
        h_bar = h_bar + (0 if mistake == "no reset" else rh_bar * r)
        x_bar = az_bar @ Wz.T + ar_bar @ Wr.T + an_bar @ Wn.T
        inner = h if mistake == "h for r h" else r * h
        return (x_bar, h_bar, x.T @ az_bar, x.T @ ar_bar, x.T @ an_bar, h.T @ az_bar, h.T @ ar_bar,
                inner.T @ an_bar)  # fmt: skip

    return forward, backward


def _rnn(mistake):
    def forward(x, W, U):
        h, hs = np.zeros((x.shape[1], len(U))), []
        for t in range(len(x)):
            h = np.tanh(x[t] @ W + h @ U)
            hs.append(h)
        return np.stack(hs), (x, W, U, np.stack(hs))

    def backward(y_bar, cache):
        x, W, U, hs = cache
        x_bar, W_bar, U_bar = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U)
        carry = np.zeros_like(hs[0])
        for t in reversed(range(len(x))):
            before = hs[t - 1] if t else 0 * hs[0]
            local = 1 - (before if mistake == "h before" else hs[t]) ** 2
            local = {"1 - h": 1 - hs[t], "no tanh": 1}.get(mistake, local)
            a_bar = (y_bar[t] + carry) * local
            x_bar[t] = a_bar @ W.T
            W_bar = (0 if mistake == "= for +=" else W_bar) + x[t].T @ a_bar
            U_bar += before.T @ a_bar
            carry = 0 * carry if mistake == "no carry" else a_bar @ U.T
        return x_bar, W_bar, U_bar

    return forward, backward


def _rms_norm(mistake):
    def forward(x, gain):
        r = 1 / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
        return gain * x * r, (x, gain, r)

    def backward(y_bar, cache):
        x, gain, r = cache
        g = y_bar * gain
        total = (g * x).sum(axis=-1, keepdims=True)
        mean = {"no path": 0, "sum": total}.get(mistake, total / x.shape[-1])
        return r * g - x * r**3 * mean, (y_bar * x * r).sum(axis=0)

    return forward, backward


def _unit(mistake):
    def forward(x):
        norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
        return x / norm, (x, norm)

    def backward(y_bar, cache):
        x, norm = cache
        half = 0.5 if mistake == "x for 2 x" else 1
        u = x if mistake == "x for y" else x / norm
        return ((y_bar - half * u * (y_bar * x / norm).sum(axis=1, keepdims=True)) / norm,)

    return forward, backward


def _tied(mistake):
    def forward(x, W):
        h = np.tanh(x @ W)
        return h @ W.T, (x, W, h)

    def backward(y_bar, cache):
        x, W, h = cache
        a_bar = (y_bar @ W) * (1 - h**2)
        W_bar = x.T @ a_bar
        return a_bar @ W.T, W_bar if mistake == "= for +=" else W_bar + y_bar.T @ h

    return forward, backward


def _gelu(mistake):
    c = np.sqrt(2 / np.pi)

    def forward(x):
        t = np.tanh(c * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + t), (x, t)

    def backward(y_bar, cache):
        x, t = cache
        inner = c * (1 + (0 if mistake == "no cube" else 3 * 0.044715 * x**2))
        first = 0 if mistake == "no product rule" else 0.5 * (1 + t)
        return (y_bar * (first + 0.5 * x * (1 - t**2) * inner),)

    return forward, backward


def _embedding(mistake):
    ids = np.array([[1, 3, 1], [0, 1, 4]])

    def forward(table):
        return table[ids], table.shape

    def backward(y_bar, shape):
        table_bar = np.zeros(shape)
        if mistake == "=":
            table_bar[ids] = y_bar
        elif mistake == "buffered":
            table_bar[ids] += y_bar
        else:
            np.add.at(table_bar, ids, y_bar)
        return (table_bar,)

    return forward, backward


def _dropout(mistake):
    mask = np.array([[1.0, 0, 1], [0, 1, 1]]) / 0.6

    def forward(x):
        return x * mask, None

    def backward(y_bar, _):
        return (y_bar.copy() if mistake == "no mask" else y_bar * mask,)

    return forward, backward


def _logsumexp(mistake):
    def forward(x):
        m = x.max(axis=1, keepdims=True)
        s = np.exp(x - m).sum(axis=1)
        return np.log(s) + m[:, 0], (x, m, s)

    def backward(y_bar, cache):
        x, m, s = cache
        return (y_bar[:, None] * np.exp(x - m) / (1 if mistake == "no sum" else s[:, None]),)

    return forward, backward


def _deep(mistake):
    def forward(x, W1, W2, W3):
        h1 = np.tanh(x.dot(W1))
        h2 = np.tanh(np.dot(h1, W2))
        return h2.dot(W3), (x, W1, W2, W3, h1, h2)

    def backward(y_bar, cache):
        x, W1, W2, W3, h1, h2 = cache
        h2_bar = y_bar.dot(W3.T)
        a2_bar = h2_bar * (1 - (h1 if mistake == "h1 for h2" else h2) ** 2)
        bar = h2_bar if mistake == "h for a" else a2_bar
        h1_bar = bar.dot(W2 if mistake == "no T" else W2.T)
        a1_bar = h1_bar * (1 - h1**2)
        return a1_bar.dot(W1.T), x.T.dot(a1_bar), h1.T.dot(a2_bar), h2.T.dot(y_bar)

    return forward, backward


def _windows(mistake):
    def forward(x, k):
        y = np.zeros((len(x), x.shape[1] - len(k) + 1))
        for i in range(y.shape[1]):
            y[:, i] = x[:, i : i + len(k)] @ k
        return y, (x, k)

    def backward(y_bar, cache):
        x, k = cache
        x_bar, k_bar = np.zeros_like(x), np.zeros_like(k)
        for i in range(y_bar.shape[1] - (mistake == "no last")):
            x_bar[:, i : i + len(k)] += y_bar[:, i : i + 1] * (k[::-1] if mistake == "flip" else k)
            k_bar += x[:, i : i + len(k)].T @ y_bar[:, i]
        return x_bar, k_bar

    return forward, backward


def _normed(mistake):
    def forward(x):
        n = np.linalg.norm(x, axis=1, keepdims=True)
        return x / n, (x, n)

    def backward(y_bar, cache):
        x, n = cache
        path = x * (x * y_bar).sum(axis=1, keepdims=True) / n**3
        return (y_bar / n - (0 if mistake == "constant" else path),)

    return forward, backward


def _hinge(mistake):
    labels = np.array([0, 2, 1, 1, 0])

    def forward(x, W):
        scores = x.dot(W)
        margins = np.maximum(0, scores - scores[np.arange(5), labels][:, None] + 3)
        margins[np.arange(5), labels] = 0
        return margins.sum() / 5, (x, W, margins)

    def backward(y_bar, cache):
        x, W, margins = cache
        s_bar = (margins > 0) * (y_bar / 5)
        if mistake != "no label":
            s_bar[np.arange(5), labels] -= s_bar.sum(axis=1)
        return s_bar.dot(W.T), x.T.dot(s_bar)

    return forward, backward


_INPUTS = {"x": (4, 3), "W1": (3, 4), "b1": (4,), "W2": (4, 2), "b2": (2,)}
PAIRS = {
    "attention": (_attention, {"x": (4, 3), "Wq": (3, 3), "Wk": (3, 3), "Wv": (3, 3)}),
    "mlp": (_mlp, _INPUTS),
    "relu mlp": (_relu_mlp, {"x": (5, 3), "W1": (3, 4), "W2": (4, 2)}),
    "gru": (_gru, {"x": (3, 2), "h": (3, 2), **{f"{a}{b}": (2, 2) for a in "WU" for b in "zrn"}}),
    "rnn": (_rnn, {"x": (4, 2, 3), "W": (3, 2), "U": (2, 2)}),
    "rms norm": (_rms_norm, {"x": (4, 6), "gain": (6,)}),
    "unit": (_unit, {"x": (4, 6)}),
    "tied": (_tied, {"x": (4, 5), "W": (5, 3)}),
    "gelu": (_gelu, {"x": (3, 4)}),
    "embedding": (_embedding, {"table": (6, 4)}),
    "dropout": (_dropout, {"x": (2, 3)}),
    "logsumexp": (_logsumexp, {"x": (4, 6)}),
    "deep": (_deep, {"x": (5, 3), "W1": (3, 4), "W2": (4, 4), "W3": (4, 2)}),
    "windows": (_windows, {"x": (2, 7), "k": (3,)}),
    "normed": (_normed, {"x": (4, 5)}),
    "hinge": (_hinge, {"x": (5, 4), "W": (4, 3)}),
    "lstm": (_lstm, {"x": (3, 4), "h": (3, 2), "c": (3, 2), "W": (4, 8), "U": (2, 8), "b": (8,)}),
}  # fmt: skip

MISTAKES = {
    ("attention", "axis"): "on the way back from `p @ v` (line {}) to `q @ k.T` (line {})",
    ("attention", "no sum"): "missing path through `e.sum(axis=1, keepdims=True)` (line {})",
    ("attention", "p (1 - p)"):
        "paths between elements along axis 1 are missing on the way back from `p = e /",
    ("attention", "scale"): "factor sqrt(C) = sqrt(3)",
    ("attention", "no T"):
        "a .T is missing or extra at the cotangent of the result in the backward of `q @",
    ("attention", "k for q"):
        "`k = x @ Wk` (line {}) is used instead of `q` in the backward of `q @ k.T` (line {})",
    ("attention", "no k"): "missing path through `k = x @ Wk` (line {})",
    ("lstm", "i"): "`i = 1/(1 + np.exp(-t))` (line {}, called in line {}",
    ("lstm", "f"): " (line {}, called in line {}, time 1 of 2) should be f (1 - f), not 1 - f",
    ("lstm", "g"): "`g = np.tanh(a[:, 3*n:])` (line {}) should be 1 - g^2, not 1 - g",
    ("lstm", "order"): " + b` (line {}) is in another order along axis 1: [2, 3, 0, 1, 4, 5, 6",
    ("lstm", "i for f"): "called in line {}) is used instead of `f` in the backward of `f*c` (",
    ("mlp", "order"):
        "the error arises on the way back from `h @ W2` (line {}) to `a = x @ W1 + b1` (line {})",
    ("mlp", "1 - h"): "`h = np.tanh(a)` (line {}) should be 1 - h^2, not 1 - h",
    ("mlp", "1 - a^2"): "`h = np.tanh(a)` (line {}) should be 1 - h^2, not 1 - a^2",
    ("mlp", "none"): "`h = np.tanh(a)` (line {}) should be 1 - h^2, not 1",
    ("mlp", "a for h"):
        "`a = x @ W1 + b1` (line {}) is used instead of `h` in the backward of `h @ W2` (line {})",
    ("relu mlp", "no mask"): "`h = np.maximum(a, 0)` (line {}) should be (h > 0), not 1",
    ("gru", "sigmoid"): " (line {}) should be 1 - n^2, not n (1 - n)",
    ("gru", "sign"): "wrong sign",
    ("gru", "n for h"): "is used instead of `h` in the backward of `r * h` (line {})",
    ("gru", "y for y (1 - y)"):
        "`r = 1 / (1 + np.exp(-t))` (line {}, called in line {}) should be r (1 - r), not r",
    ("gru", "no carry"): "missing path through `h` in `z * h` (line {})",
    ("gru", "no reset"): "missing path through `h` in `r * h` (line {})",
    ("gru", "h for r h"):
        "`h` is used instead of `r * h` in the backward of `(r * h) @ Un` (line {})",
    ("rnn", "no carry"): "in `h @ U` (line {}, every time)",
    ("rnn", "h before"):
        "`h` in `h @ U` (line {}, every time) is used instead of the result in the",
    ("rnn", "1 - h"):
        "`h = np.tanh(x[t] @ W + h @ U)` (line {}, every time) should be 1 - h^2, not 1 - h",
    ("rnn", "no tanh"):
        "`h = np.tanh(x[t] @ W + h @ U)` (line {}, every time) should be 1 - h^2, not 1",
    ("rnn", "= for +="): "only the path through `W` in `x[t] @ W` (line {}, time 1 of 4) counts",
    ("deep", "h for a"):
        "the cotangent of `h2 = np.tanh(np.dot(h1, W2))` (line {}) is used instead of the",
    ("deep", "no T"): "a .T is missing or extra at `W2` in the backward of `np.dot(h1,",
    ("deep", "h1 for h2"): "should be 1 - h2^2, not 1 - h1^2",
    ("windows", "flip"): "a flip is missing or extra: right for k reversed along axis 0",
    ("windows", "no last"): "path through `x[:, i : i + len(k)] @ k` (line {}, time 5 of 5)",
    ("normed", "constant"): "missing path through `n = np.linalg.norm(x, axis=1, keepdims=True)`",
    ("hinge", "no label"): "missing path through `scores[np.arange(5), labels]",
    ("rms norm", "no path"): "missing path through `x**2` (line {})",
    ("rms norm", "sum"):
        "factor 6 in the path through `x**2` (line {}): perhaps a mean became a sum",
    ("unit", "x for 2 x"): "factor 1/2 in the path through `x * x` (line {})",
    ("unit", "x for y"):
        "`x` is used instead of the result in the backward of `x / norm` (line {})",
    ("tied", "= for +="): "missing path through `W.T` (line {})",
    ("gelu", "no cube"): "missing path through `x**3` (line {})",
    ("gelu", "no product rule"): "missing path through `0.5 * x` (line {})",
    ("embedding", "="):
        "only row 1 is wrong; an element that `table[ids]` (line {}) takes repeatedly counts",
    ("embedding", "buffered"):
        "only row 1 is wrong; an element that `table[ids]` (line {}) takes repeatedly counts",
    ("dropout", "no mask"): "`x * mask` (line {}) should be mask, not 1",
    ("logsumexp", "no sum"): "`np.log(s)` (line {}) should be 1/s, not 1",
}  # fmt: skip
