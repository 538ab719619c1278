"""Right and wrong batch norm backwards, each as ``make() -> (forward, backward)``.

``WRONG`` maps a name to ``(make, inputs at fault, words of the likely cause)``; no words where
several causes explain the numbers equally well.
"""

import random
from itertools import count

import numpy as np


def axes_of(x):
    return tuple(i for i in range(x.ndim) if i != 1)


def channels(p, x):
    return p.reshape((1, -1) + (1,) * (x.ndim - 2))


class Saved:
    """What the forward pass keeps."""

    def __init__(self, x, gamma, beta, eps):
        self.x, self.gamma, self.beta, self.eps, self.axes = x, gamma, beta, eps, axes_of(x)
        self.mu = x.mean(self.axes, keepdims=True)
        self.xc = x - self.mu
        self.var = (self.xc * self.xc).mean(self.axes, keepdims=True)
        self.r = 1 / np.sqrt(self.var + eps)
        self.x_hat = self.xc * self.r
        self.m = x.size // x.shape[1]

    def mean(self, a):
        return a.mean(self.axes, keepdims=True)


def forward(x, gamma, beta, eps):
    s = Saved(x, gamma, beta, eps)
    return channels(gamma, x) * s.x_hat + channels(beta, x), s


def right(dy, s):
    g = dy * channels(s.gamma, dy)
    dx = s.r * (g - s.mean(g) - s.x_hat * s.mean(g * s.x_hat))
    return dx, (dy * s.x_hat).sum(s.axes), dy.sum(s.axes)


def stateless(backward, forward=forward):
    return lambda: (forward, backward)


# --- right ones -----------------------------------------------------------------------------------


def naive_chain(dy, s):
    n = s.m
    std = np.sqrt(s.var + s.eps)
    dx_hat = dy * channels(s.gamma, dy)
    d_inv = (dx_hat * s.xc).sum(s.axes, keepdims=True)
    dvar = 0.5 / std * (-d_inv / std**2)
    dx1 = dx_hat / std + 2 * s.xc * np.ones_like(dy) / n * dvar
    dmu = -dx1.sum(s.axes, keepdims=True)
    return dx1 + np.ones_like(dy) / n * dmu, (dy * s.x_hat).sum(s.axes), dy.sum(s.axes)


def paper_chain(dy, s):
    g = dy * channels(s.gamma, dy)
    dvar = (g * s.xc).sum(s.axes, keepdims=True) * -0.5 * (s.var + s.eps) ** -1.5
    dmu = -(g * s.r).sum(s.axes, keepdims=True) + dvar * s.mean(-2 * s.xc)
    dx = g * s.r + dvar * 2 * s.xc / s.m + dmu / s.m
    return dx, (dy * s.x_hat).sum(s.axes), dy.sum(s.axes)


def closed_over_n(dy, s):
    db, dg = dy.sum(s.axes), (dy * s.x_hat).sum(s.axes)
    k = channels(s.gamma, dy) * s.r / s.m
    return k * (s.m * dy - channels(db, dy) - s.x_hat * channels(dg, dy)), dg, db


def by_einsum(dy, s):
    d, h = dy.reshape(*dy.shape[:2], -1), s.x_hat.reshape(*dy.shape[:2], -1)
    db, dg = np.einsum("ncs->c", d), np.einsum("ncs,ncs->c", d, h)
    k = (s.gamma * s.r.reshape(-1) / s.m)[None, :, None]
    dx = k * (s.m * d - db[None, :, None] - h * dg[None, :, None])
    return dx.reshape(dy.shape), dg, db


def by_matrix(dy, s):
    d = np.moveaxis(dy, 1, 0).reshape(dy.shape[1], -1)
    h = np.moveaxis(s.x_hat, 1, 0).reshape(dy.shape[1], -1)
    dx = np.empty_like(d)
    eye = np.eye(s.m, dtype=dy.dtype)
    for c in range(len(d)):
        jacobian = eye - 1 / s.m - np.outer(h[c], h[c]) / s.m
        dx[c] = s.gamma[c] * s.r.reshape(-1)[c] * (jacobian @ d[c])
    shape = (dy.shape[1], dy.shape[0], *dy.shape[2:])
    return np.moveaxis(dx.reshape(shape), 0, 1).copy(), (d * h).sum(1), d.sum(1)


def centered_twice(dy, s):
    g = dy * channels(s.gamma, dy)
    g = g - s.mean(g)
    g = g - s.x_hat * s.mean(g * s.x_hat)
    return s.r * (g - s.mean(g)), (dy * s.x_hat).sum(s.axes), dy.sum(s.axes)


def shuffled_sums():
    rng = np.random.default_rng(5)

    def backward(dy, s):
        order = rng.permutation(len(dy))
        g = (dy * channels(s.gamma, dy))[order]
        h = s.x_hat[order]
        dx = s.r * (dy * channels(s.gamma, dy) - s.mean(g) - s.x_hat * s.mean(g * h))
        return dx, (dy[order] * h).sum(s.axes), dy[order].sum(s.axes)

    return forward, backward


def shuffled_rows():
    rng = np.random.default_rng(6)

    def shuffled_forward(x, gamma, beta, eps):
        order = rng.permutation(len(x))
        y, s = forward(x[order], gamma, beta, eps)
        back = np.argsort(order)
        s.xc, s.x_hat = s.xc[back], s.x_hat[back]
        return y[back], s

    return shuffled_forward, right


def wide_accumulators():
    def wide_forward(x, gamma, beta, eps):
        w = np.result_type(x, np.float64)
        y, s = forward(x.astype(w), gamma.astype(w), beta.astype(w), eps)
        return y.astype(x.dtype), (s, x.dtype)

    def backward(dy, cache):
        s, dtype = cache
        return tuple(g.astype(dtype) for g in right(dy.astype(np.result_type(dy, np.float64)), s))

    return wide_forward, backward


def welford():
    def welford_forward(x, gamma, beta, eps):
        s = Saved(x, gamma, beta, eps)
        rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
        mean, m2 = np.zeros_like(rows[0]), np.zeros_like(rows[0])
        for i, row in enumerate(rows, 1):
            delta = row - mean
            mean = mean + delta / i
            m2 = m2 + delta * (row - mean)
        s.mu, s.var = channels(mean, x), channels(m2 / len(rows), x)
        s.xc = x - s.mu
        s.r = 1 / np.sqrt(s.var + eps)
        s.x_hat = s.xc * s.r
        return channels(gamma, x) * s.x_hat + channels(beta, x), s

    return welford_forward, right


def evaluation():
    def eval_forward(x, gamma, beta, eps):
        c = np.arange(x.shape[1])
        s = Saved(x, gamma, beta, eps)
        s.r = channels(1 / np.sqrt((1 + 0.2 * c).astype(x.dtype) + x.dtype.type(eps)), x)
        s.x_hat = (x - channels((0.1 * c).astype(x.dtype), x)) * s.r
        return channels(gamma, x) * s.x_hat + channels(beta, x), s

    def backward(dy, s):
        return dy * channels(s.gamma, dy) * s.r, (dy * s.x_hat).sum(s.axes), dy.sum(s.axes)

    return eval_forward, backward


def unbiased():
    def unbiased_forward(x, gamma, beta, eps):
        s = Saved(x, gamma, beta, eps)
        if s.m < 2:
            raise ValueError("one value per channel")
        s.r = 1 / np.sqrt(s.var * s.m / (s.m - 1) + eps)
        s.x_hat = s.xc * s.r
        return channels(gamma, x) * s.x_hat + channels(beta, x), s

    def backward(dy, s):
        g = dy * channels(s.gamma, dy)
        path = s.x_hat * (g * s.x_hat).sum(s.axes, keepdims=True) / (s.m - 1)
        return s.r * (g - s.mean(g) - path), (dy * s.x_hat).sum(s.axes), dy.sum(s.axes)

    return unbiased_forward, backward


def recomputing():
    def small_forward(x, gamma, beta, eps):
        return forward(x, gamma, beta, eps)[0], (x.copy(), gamma.copy(), beta.copy(), eps)

    return small_forward, lambda dy, cache: right(dy, Saved(*cache))


def transposed_storage():
    def rows_forward(x, gamma, beta, eps):
        y, s = forward(x, gamma, beta, eps)
        s.x_hat = np.asfortranarray(s.x_hat)
        return np.asfortranarray(y), s

    return rows_forward, right


def in_a_dict():
    def dict_forward(x, gamma, beta, eps):
        y, s = forward(x, gamma, beta, eps)
        return y, {"x_hat": s.x_hat, "r": s.r, "gamma": gamma, "axes": s.axes, "m": s.m}

    def backward(dy, c):
        g = dy * channels(c["gamma"], dy)
        dg, db = (dy * c["x_hat"]).sum(c["axes"]), dy.sum(c["axes"])
        dx = g.copy()
        dx -= g.mean(c["axes"], keepdims=True)
        dx -= c["x_hat"] * (g * c["x_hat"]).mean(c["axes"], keepdims=True)
        dx *= c["r"]
        return [dx, dg, db]

    return dict_forward, backward


def with_power(dy, s):
    g = dy * channels(s.gamma, dy)
    dx = (s.var + s.eps) ** -0.5 * (g - s.mean(g)) - s.xc * (s.var + s.eps) ** -1.5 * s.mean(
        g * s.xc
    )
    return dx, (dy * s.xc * s.r).sum(s.axes), dy.sum(s.axes)


def by_loop(dy, s):
    dx, dg, db = np.empty_like(dy), np.empty_like(s.gamma), np.empty_like(s.gamma)
    for c in range(dy.shape[1]):
        d, h = dy[:, c], s.x_hat[:, c]
        db[c], dg[c] = d.sum(), (d * h).sum()
        dx[:, c] = s.gamma[c] * s.r.reshape(-1)[c] * (d - db[c] / s.m - h * dg[c] / s.m)
    return dx, dg, db


def _eps_forms(place):
    def placed_forward(x, gamma, beta, eps):
        s = Saved(x, gamma, beta, eps)
        s.r = 1 / place(s.var, eps)
        s.x_hat = s.xc * s.r
        return channels(gamma, x) * s.x_hat + channels(beta, x), s

    def backward(dy, s):
        g = dy * channels(s.gamma, dy)
        std = np.sqrt(s.var)
        with np.errstate(all="ignore"):
            unit = np.where(std > 0, s.xc / std, 0)
        path = s.x_hat * s.mean(g * unit)
        return s.r * (g - s.mean(g) - path), (dy * s.x_hat).sum(s.axes), dy.sum(s.axes)

    return lambda: (placed_forward, backward)


RIGHT = {
    "closed form": stateless(right),
    "naive chain": stateless(naive_chain),
    "the paper's chain": stateless(paper_chain),
    "closed form over N": stateless(closed_over_n),
    "einsum": stateless(by_einsum),
    "a Jacobian per channel": stateless(by_matrix),
    "centered twice": stateless(centered_twice),
    "sums in random order": shuffled_sums,
    "rows in random order": shuffled_rows,
    "float64 accumulators": wide_accumulators,
    "Welford": welford,
    "evaluation mode": evaluation,
    "unbiased variance": unbiased,
    "recomputing": recomputing,
    "Fortran-ordered results": transposed_storage,
    "a dict as cache": in_a_dict,
    "powers": stateless(with_power),
    "a loop over channels": stateless(by_loop),
    "eps outside the square root": _eps_forms(lambda var, eps: np.sqrt(var) + eps + 1e-3),
}


# --- wrong ones -----------------------------------------------------------------------------------


def paths(direct=1.0, mean=1.0, variance=1.0, eps=True):
    """x_bar with weighted paths; a weight may be a function of m, the values per channel."""

    def backward(dy, s):
        a, b, c = (w(s.m) if callable(w) else w for w in (direct, mean, variance))
        with np.errstate(all="ignore"):
            r = s.r if eps else 1 / np.sqrt(s.var)
        g = dy * channels(s.gamma, dy)
        dx = r * (a * g - b * s.mean(g) - c * s.x_hat * s.mean(g * s.x_hat))
        return dx.astype(dy.dtype), *right(dy, s)[1:]

    return stateless(backward)


def variance(change):
    """x_bar with another variance path: ``change(dy * gamma, dy, s)`` times inv_std."""

    def backward(dy, s):
        g = dy * channels(s.gamma, dy)
        return s.r * (g - s.mean(g) - change(g, dy, s)), *right(dy, s)[1:]

    return stateless(backward)


def after(change):
    """The right cotangents, changed: ``change(dx, dgamma, dbeta, dy, s) -> three``."""
    return stateless(lambda dy, s: change(*right(dy, s), dy, s))


def on(k, change):
    """One of the right cotangents, changed: ``change(cotangent, dy, s)``."""

    def backward(dy, s):
        grads = list(right(dy, s))
        grads[k] = np.asarray(change(grads[k], dy, s)).astype(dy.dtype)
        return tuple(grads)

    return stateless(backward)


def put(a, index, factor):
    a = a.copy()
    a[index] = a[index] * factor
    return a


def when(condition, k, factor=1.37):
    """Scaled only where ``condition(dy, s)`` holds."""
    return on(k, lambda g, dy, s: g * factor if condition(dy, s) else g)


def stateful(build):
    """``build()`` gives a backward with a memory."""
    return lambda: (forward, build())


def _static_buffer():
    buffers = {}

    def backward(dy, s):
        dx, dg, db = right(dy, s)
        out = buffers.setdefault(dy.shape, np.empty_like(dx))
        if out.dtype != dx.dtype:
            out = buffers[dy.shape] = np.empty_like(dx)
        out[...] = dx
        return out, dg, db

    return backward


def _accumulates():
    total = {}

    def backward(dy, s):
        dx, dg, db = right(dy, s)
        total[dg.shape] = total.get(dg.shape, 0) + dg
        return dx, total[dg.shape].astype(dg.dtype), db

    return backward


def _every(n):
    calls = count(1)

    def backward(dy, s):
        dx, dg, db = right(dy, s)
        return (dx * 1.01, dg, db) if next(calls) % n == 0 else (dx, dg, db)

    return backward


def _rarely(p):
    rng = random.Random(3)

    def backward(dy, s):
        dx, dg, db = right(dy, s)
        return (dx, dg * 1.001, db) if rng.random() < p else (dx, dg, db)

    return backward


def _last_statistics():
    last = {}

    def kept_forward(x, gamma, beta, eps):
        y, s = forward(x, gamma, beta, eps)
        last["s"] = s
        return y, None

    return kept_forward, lambda dy, cache: right(dy, last["s"])


def _by_size():
    store = {}

    def kept_forward(x, gamma, beta, eps):
        y, s = forward(x, gamma, beta, eps)
        store[x.size] = s
        return y, x.size

    return kept_forward, lambda dy, size: right(dy.reshape(store[size].x.shape), store[size])


def _kept(key):
    """Statistics kept under ``key(x)``, which says too little: inv_std depends on eps as well."""

    def make():
        store = {}

        def kept_forward(x, gamma, beta, eps):
            y, s = forward(x, gamma, beta, eps)
            return y, (s, *store.setdefault(key(x), (s.r, x))[:1])

        def backward(dy, cache):
            s, r = cache
            s.r = r
            return right(dy, s)

        return kept_forward, backward

    return make


def _remembered(key):
    """All that backward needs, kept under ``key(x, gamma, eps)``, which says too little."""

    def make():
        store = {}

        def kept_forward(x, gamma, beta, eps):
            y, s = forward(x, gamma, beta, eps)
            s.gamma = gamma.copy()
            return y, store.setdefault((x.shape, x.dtype, key(x, gamma, eps)), s)

        return kept_forward, right

    return make


def _cold():
    """What the very first forward call keeps is off."""
    calls = count()

    def cold_forward(x, gamma, beta, eps):
        y, s = forward(x, gamma, beta, eps)
        s.r = s.r * (1 if next(calls) else 1.01)
        return y, s

    return cold_forward, right


def _ring(n):
    """Each result lies in one of n buffers, in turn."""
    calls, buffers = count(), {}

    def backward(dy, s):
        dx, dg, db = right(dy, s)
        out = buffers.setdefault((dx.shape, dx.dtype, next(calls) % n), np.empty_like(dx))
        out[...] = dx
        return out, dg, db

    return backward


def _trembling(size):
    def make():
        rng = np.random.default_rng(9)

        def noisy_forward(x, gamma, beta, eps):
            y, s = forward(x, gamma, beta, eps)
            return (y * (1 + size * rng.normal(size=y.shape))).astype(y.dtype), s

        return noisy_forward, right

    return make


def _uses_y():
    def kept_forward(x, gamma, beta, eps):
        y, s = forward(x, gamma, beta, eps)
        return y, (y, s)

    def backward(dy, cache):
        y, s = cache
        with np.errstate(all="ignore"):
            gamma = channels(s.gamma, dy)
            h = np.where(gamma != 0, (y - channels(s.beta, dy)) / gamma, s.x_hat).astype(dy.dtype)
        g = dy * gamma
        dx = s.r * (g - s.mean(g) - h * s.mean(g * h))
        return dx, (dy * h).sum(s.axes), dy.sum(s.axes)

    return kept_forward, backward


def _once():
    def once_forward(x, gamma, beta, eps):
        y, s = forward(x, gamma, beta, eps)
        return y, [s]

    return once_forward, lambda dy, cache: right(dy, cache.pop())


def _in_place(change):
    def backward(dy, s):
        grads = right(dy, s)
        change(dy, s)
        return grads

    return stateless(backward)


def _write(array, value):
    if array.flags.writeable:
        array[...] = value


def _noisy(size):
    def build():
        rng = np.random.default_rng(9)

        def backward(dy, s):
            dx, dg, db = right(dy, s)
            return (dx * (1 + size * rng.normal(size=dx.shape))).astype(dy.dtype), dg, db

        return backward

    return stateful(build)


def _one_pass():
    def one_pass_forward(x, gamma, beta, eps):
        s = Saved(x, gamma, beta, eps)
        s.var = np.maximum(s.mean(x * x) - s.mu * s.mu, 0)
        s.r = 1 / np.sqrt(s.var + eps)
        s.x_hat = s.xc * s.r
        return channels(gamma, x) * s.x_hat + channels(beta, x), s

    return one_pass_forward, right


def _through_float32(dy, s):
    return tuple(g.astype(np.float32).astype(dy.dtype) for g in right(dy, s))


def _through_float16(dy, s):
    dx, dg, db = right(dy, s)
    with np.errstate(all="ignore"):
        return dx.astype(np.float16).astype(dy.dtype), dg, db


def _divides_by_gamma(dy, s):
    with np.errstate(all="ignore"):
        h = (channels(s.gamma, dy) * s.x_hat) / channels(s.gamma, dy)
    return right(dy, s)[0], (dy * h).sum(s.axes), dy.sum(s.axes)


def _divides_by_std(dy, s):
    with np.errstate(all="ignore"):
        return right(dy, s)[0] / (s.var / s.var), *right(dy, s)[1:]


def _touches_seed(dy, s):
    np.random.seed(0)  # noqa: NPY002
    return right(dy, s)


def _touches_errors(dy, s):
    np.seterr(all="ignore")
    return right(dy, s)


def _returns_dy(dy, s):
    dx, dg, db = right(dy, s)
    _write(dy, dx)
    return dy if dy.flags.writeable else dx, dg, db


def _fix_eps(eps):
    def backward(dy, s):
        return right(dy, Saved(s.x, s.gamma, s.beta, eps))

    return stateless(backward)


WRONG = {
    # the paths of x_bar
    "no variance path": (paths(variance=0), {"x"}, "missing variance path"),
    "no mean path": (paths(mean=0), {"x"}, "missing mean path"),
    "no direct path": (paths(direct=0), {"x"}, "missing direct path"),
    "only the direct path": (paths(mean=0, variance=0), {"x"}, "missing mean path and missing"),
    "variance path twice": (paths(variance=2), {"x"}, "factor 2 in the variance path"),
    "half the variance path": (paths(variance=0.5), {"x"}, "factor 1/2 in the variance path"),
    "sign of the variance path": (paths(variance=-1), {"x"}, "wrong sign of the variance path"),
    "sign of the mean path": (paths(mean=-1), {"x"}, "wrong sign of the mean path"),
    "mean path twice": (paths(mean=2), {"x"}, "factor 2 in the mean path"),
    "N/(N-1) in the variance path": (
        paths(variance=lambda m: m / max(m - 1, 1)), {"x"}, "N/(N - 1) in the variance path"),
    "sum instead of mean, variance": (paths(variance=lambda m: m), {"x"}, "factor N in the var"),
    "sum instead of mean, mean path": (paths(mean=lambda m: m), {"x"}, "factor N in the mean"),
    "eps missing in inv_std": (paths(eps=False), {"x"}, "eps"),
    # a path made of something else
    "gamma missing in the variance path": (
        variance(lambda g, dy, s: s.x_hat * s.mean(dy * s.x_hat)), {"x"},
        "gamma is missing in the variance path"),
    "gamma missing in the mean path": (
        on(0, lambda g, dy, s: g + s.r * (s.mean(dy * channels(s.gamma, dy)) - s.mean(dy))), {"x"},
        "gamma is missing in the mean path"),
    "xc for x_hat": (
        variance(lambda g, dy, s: s.xc * s.mean(g * s.x_hat)), {"x"},
        "inv_std is missing in the variance path"),
    "std to the -1.5": (
        variance(lambda g, dy, s: s.x_hat * s.mean(g * s.x_hat) * s.r**-1.5), {"x"},
        "(var + eps)^(-3/4) instead of (var + eps)^(-3/2) in the variance path"),
    "var to the -0.5": (
        variance(lambda g, dy, s: s.x_hat * s.mean(g * s.x_hat) * s.r**-2), {"x"},
        "inv_std^2 is missing in the variance path"),
    "var to the -1.5": (
        variance(lambda g, dy, s: s.xc * s.mean(g * s.xc) * s.var**-1.5 / s.r), {"x"},
        "var^(-3/2) instead of (var + eps)^(-3/2) in the variance path"),
    "x for x_hat": (
        variance(lambda g, dy, s: s.x * s.mean(g * s.x_hat)), {"x"},
        "x instead of x_hat in the variance path"),
    # factors
    **{f"{name} of {['x', 'gamma', 'beta'][k]}": (on(k, lambda g, dy, s, f=f: f * g), {
        ["x", "gamma", "beta"][k]}, cause)
       for k in range(3)
       for name, f, cause in (("sign", -1.0, "wrong sign"), ("twice", 2.0, "factor 2"),
                              ("half", 0.5, "factor 1/2"), ("zero", 0.0, "zero"))},
    "N/(N-1) of x": (on(0, lambda g, dy, s: g * s.m / max(s.m - 1, 1)), {"x"}, "/(N"),
    "gamma missing in x": (on(0, lambda g, dy, s: right(dy / channels(
        np.where(s.gamma, s.gamma, 1), dy), s)[0]), {"x"}, "1/gamma"),
    "gamma twice in x": (on(0, lambda g, dy, s: g * channels(s.gamma, dy)), {"x"}, "factor gamma"),
    "inv_std missing in x": (on(0, lambda g, dy, s: g / s.r), {"x"}, "1/inv_std"),
    "inv_std twice in x": (on(0, lambda g, dy, s: g * s.r), {"x"}, "inv_std"),
    # gamma and beta
    "gamma: x not normalized": (on(1, lambda g, dy, s: (dy * s.x).sum(s.axes)), {"gamma"}, "not n"),
    "gamma: inv_std missing": (on(1, lambda g, dy, s: (dy * s.xc).sum(s.axes)), {"gamma"}, "inv_"),
    "gamma: x_hat missing": (on(1, lambda g, dy, s: dy.sum(s.axes)), {"gamma"}, "x_hat is missing"),
    "gamma: mean missing": (on(1, lambda g, dy, s: (dy * s.x * s.r).sum(s.axes)), {"gamma"}, "me"),
    "gamma: mean of the batch": (on(1, lambda g, dy, s: g / s.m), {"gamma"}, "became a mean"),
    "beta: mean of the batch": (on(2, lambda g, dy, s: g / s.m), {"beta"}, "became a mean"),
    "beta: mean over rows": (on(2, lambda g, dy, s: g / len(dy)), {"beta"}, "a mean"),
    "beta: times gamma": (on(2, lambda g, dy, s: g * s.gamma), {"beta"}, "factor gamma"),
    "gamma: times gamma": (on(1, lambda g, dy, s: g * s.gamma), {"gamma"}, "gamma"),
    "beta: first position only": (
        on(2, lambda g, dy, s: dy.reshape(*dy.shape[:2], -1)[:, :, 0].sum(0)), {"beta"}, ""),
    "gamma and beta exchanged": (after(lambda x, g, b, dy, s: (x, b, g)), {"gamma", "beta"}, ""),
    "beta reversed": (on(2, lambda g, dy, s: g[::-1].copy()), {"beta"}, "reversed"),
    "x reversed over the batch": (on(0, lambda g, dy, s: g[::-1].copy()), {"x"}, "reversed"),
    "x rolled over the batch": (on(0, lambda g, dy, s: np.roll(g, 1, 0)), {"x"}, "shifted"),
    "x transposed where square": (on(0, lambda g, dy, s: np.swapaxes(g, -1, -2).copy()
        if g.shape[-1] == g.shape[-2] else g), {"x"}, "transposed"),
    # shapes and dtypes
    "gamma of shape (1, C)": (after(lambda x, g, b, dy, s: (x, g[None], b)), {"gamma"}, ""),
    "beta not summed": (after(lambda x, g, b, dy, s: (x, g, dy.copy())), {"beta"}, "missing sum"),
    "beta a number": (after(lambda x, g, b, dy, s: (x, g, float(b.sum()))), {"beta"}, "float"),
    "two cotangents": (after(lambda x, g, b, dy, s: (x, g)), set(), "number"),
    "beta is None": (after(lambda x, g, b, dy, s: (x, g, None)), {"beta"}, "NoneType"),
    "float64 for float32": (
        after(lambda x, g, b, dy, s: (x.astype(np.float64), g, b)), {"x"}, "dtype float64"),
    "through float32": (stateless(_through_float32), {"x", "gamma", "beta"}, ""),
    "x through float16": (stateless(_through_float16), {"x"}, ""),
    "read-only beta": (after(lambda x, g, b, dy, s: (x, g, np.broadcast_to(b, b.shape))), {"beta"},
                       "not writable"),
    # small relative errors
    **{f"{['x', 'gamma', 'beta'][k]} off by {e:g}": (on(k, lambda g, dy, s, e=e: g * (1 + e)), {
        ["x", "gamma", "beta"][k]}, "constant factor")
       for k in range(3) for e in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)},
    # places
    "first element of x": (on(0, lambda g, dy, s: put(g, (0,) * g.ndim, 2)), {"x"}, "only element"),
    "last element of x": (on(0, lambda g, dy, s: put(g, (-1,) * g.ndim, 0)), {"x"}, "only element"),
    "first channel of x": (on(0, lambda g, dy, s: put(g, np.s_[:, 0], 2)), {"x"}, "only channel"),
    "last row of x": (on(0, lambda g, dy, s: put(g, -1, 0.5)), {"x"}, "only the last row"),
    "last channel of gamma": (on(1, lambda g, dy, s: put(g, -1, 2)), {"gamma"}, "only element"),
    "one element off by 1e-9": (on(0, lambda g, dy, s: put(g, (0,) * g.ndim, 1 + 1e-9)), {"x"},
                                "only element"),
    # conditions
    "odd N": (when(lambda dy, s: len(dy) % 2, 0), {"x"}, "odd N"),
    "even N": (when(lambda dy, s: len(dy) % 2 == 0, 1), {"gamma"}, "even N"),
    "N = C": (when(lambda dy, s: dy.shape[0] == dy.shape[1], 2), {"beta"}, "N = C"),
    "N = 1": (on(0, lambda g, dy, s: g + dy if len(dy) == 1 and g.ndim == 2 else g), {"x"}, ""),
    "N = 2": (when(lambda dy, s: len(dy) == 2, 1), {"gamma"}, "N = 2"),
    "H = W": (when(lambda dy, s: dy.ndim == 4 and dy.shape[2] == dy.shape[3], 0), {"x"}, "H = W"),
    "H != W": (when(lambda dy, s: dy.ndim == 4 and dy.shape[2] != dy.shape[3], 0), {"x"}, "H != W"),
    "4-d": (when(lambda dy, s: dy.ndim == 4, 1), {"gamma"}, "(N, C, H, W)"),
    "2-d": (when(lambda dy, s: dy.ndim == 2, 1), {"gamma"}, "(N, C)"),
    "float32": (when(lambda dy, s: dy.dtype == np.float32, 2, 1.01), {"beta"}, "float32"),
    "more than 32 rows": (on(0, lambda g, dy, s: put(g, slice(32, None), 0)), {"x"}, ""),
    "more than 512 values": (
        when(lambda dy, s: s.m > 512, 0), {"x"}, "constant factor 1.37"),
    "all but 8 channels": (on(1, lambda g, dy, s: put(g, slice(8, None), 0)), {"gamma"}, "zero in"),
    "negative gamma": (on(0, lambda g, dy, s: g * np.sign(channels(
        np.where(s.gamma, s.gamma, 1), dy))), {"x"}, ""),
    "large eps": (_fix_eps(1e-5), {"x", "gamma"}, ""),
    "Fortran order": (when(lambda dy, s: not s.x.flags.c_contiguous, 0), {"x"}, ""),
    "contiguous y_bar only": (when(lambda dy, s: not dy.flags.c_contiguous, 1), {"gamma"}, ""),
    "huge cotangents clipped": (
        stateless(lambda dy, s: right(np.clip(dy, -1e4, 1e4).astype(dy.dtype), s)),
        {"x", "gamma", "beta"}, "huge"),
    "tiny cotangents dropped": (
        stateless(lambda dy, s: right(np.where(np.abs(dy) < 1e-6, 0, dy).astype(dy.dtype), s)),
        {"x", "gamma", "beta"}, "tiny"),
    "zero-sum cotangents skipped": (
        stateless(lambda dy, s: right(dy if dy.sum() else 0 * dy, s)),
        {"x", "gamma", "beta"}, "zero-sum"),
    "inv_std at most 1e4": (
        on(0, lambda g, dy, s: g * np.minimum(1, 1e4 / s.r).astype(g.dtype)), {"x"}, "small"),
    "nan where gamma is 0": (stateless(_divides_by_gamma), {"gamma"}, "nan"),
    "nan where var is 0": (stateless(_divides_by_std), {"x"}, "nan"),
    # state, aliasing, purity
    "a static buffer": (stateful(_static_buffer), {"x"}, "later call"),
    "gamma accumulates": (stateful(_accumulates), {"gamma"}, ""),
    "every 7th call": (stateful(lambda: _every(7)), {"x"}, ""),
    "every 100th call": (stateful(lambda: _every(100)), {"x"}, ""),
    "every 1,000th call": (stateful(lambda: _every(1000)), {"x"}, ""),
    "one call in 50": (stateful(lambda: _rarely(0.02)), {"gamma"}, ""),
    "statistics of the last forward": (_last_statistics, set(), "stale buffer"),
    "a ring of buffers": (stateful(lambda: _ring(16)), {"x"}, "later call"),
    "statistics by x alone": (_kept(lambda x: (x.tobytes(), x.shape)), {"x", "gamma"}, "stale buf"),
    "statistics by the array": (_kept(id), {"x", "gamma"}, "stale buffer"),
    "a point by x and eps": (
        _remembered(lambda x, gamma, eps: (x.tobytes(), eps)), {"x"}, "stale buffer"),
    "a point by its first row": (
        _remembered(lambda x, gamma, eps: (x[0].tobytes(), gamma.tobytes(), eps)),
        {"x", "gamma"}, "stale buffer"),
    "cold at first": (_cold, {"x"}, "first call"),
    "y trembles by 1e-9": (_trembling(1e-9), set(), "random"),
    "statistics by size": (_by_size, set(), "stale buffer"),
    "reads y": (_uses_y, set(), "reads y"),
    "a cache for one use": (_once, set(), ""),
    "y_bar overwritten": (_in_place(lambda dy, s: _write(dy, 0)), set(), "mutated cotangent"),
    "y_bar overwritten in columns": (_in_place(
        lambda dy, s: dy.flags.c_contiguous or _write(dy, 0)), set(), "mutated cotangent"),
    "y_bar flushed to zero": (_in_place(
        lambda dy, s: _write(dy, np.where(np.abs(dy) < 1e-8, 0, dy))), set(), "mutated cotangent"),
    "x overwritten": (_in_place(lambda dy, s: _write(s.x, s.x * 2)), {"x"}, "mutated input"),
    "cache overwritten": (_in_place(lambda dy, s: _write(s.x_hat, 0)), set(), ""),
    "x is y_bar": (stateless(_returns_dy), set(), ""),
    "random seed set": (stateless(_touches_seed), set(), "global state"),
    "error state set": (stateless(_touches_errors), set(), "global state"),
    "noise of 1e-4": (_noisy(1e-4), {"x"}, ""),
    "noise of 1e-8": (_noisy(1e-8), {"x"}, ""),
    # precision
    "one-pass variance": (_one_pass, {"x", "gamma"}, ""),
}  # fmt: skip
