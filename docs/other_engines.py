"""Compare the batch norm of other engines with an independent reference, at orders 1 to 3.

    python docs/other_engines.py                  # minigrad, known mistakes, installed engines
    python docs/other_engines.py chainer          # one engine, in an environment where minigrad
                                                  # need not be installed

For random W and a random direction v, the k-th derivative of f(t) = sum(W * BN(p + t v)) at t = 0
is computed by nested reverse sweeps, where p is (x, gamma, beta). The reference is truncated Taylor
arithmetic in extended precision (``tests/taylor.py``). The figures are relative errors.
"""

import importlib.metadata
import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from taylor import Series

N, C, EPS, ORDERS = 8, 3, 1e-5, (1, 2, 3)
RNG = np.random.default_rng(7)
POINT = RNG.normal(size=(N, C)), RNG.normal(size=C), RNG.normal(size=C)
DIRECTIONS = RNG.normal(size=(N, C)), RNG.normal(size=C), RNG.normal(size=C)
W = RNG.normal(size=(N, C))
MEAN, VAR = RNG.normal(size=C), RNG.uniform(0.5, 2, size=C)


def reference(point):
    """The derivatives of f along DIRECTIONS, of order 1, 2 and 3."""
    lines = zip(point, DIRECTIONS, strict=True)
    x, gamma, beta = (Series.line(p, v, max(ORDERS)) for p, v in lines)
    xc = x - x.mean(0)
    y = gamma.reshape((1, C)) * (xc / ((xc * xc).mean(0) + EPS).sqrt()) + beta.reshape((1, C))
    f = (y * W).sum()
    return [float(f.derivative(k)) for k in ORDERS]


# --- engines --------------------------------------------------------------------------------------
# Each adapter returns two functions: point -> derivatives of order 1 to 3, and () -> gradient of x
# in evaluation mode. The second is None if the engine has no evaluation mode.


def minigrad():
    """Batch norm composed of primitive ops; the same sweep computes every order."""
    import minigrad as mg

    return _by_minigrad(mg, mg.batch_norm), _evaluation_by_minigrad(mg, mg.batch_norm)


def pytorch():
    """``torch.nn.functional.batch_norm``."""
    import torch

    def derivatives(point):
        t = [torch.tensor(p, requires_grad=True) for p in point]
        v = [torch.tensor(p) for p in DIRECTIONS]
        y = torch.nn.functional.batch_norm(t[0], None, None, t[1], t[2], training=True, eps=EPS)
        f, values = (torch.tensor(W) * y).sum(), []
        for _ in ORDERS:
            grads = torch.autograd.grad(f, t, create_graph=True, materialize_grads=True)
            f = sum((g * d).sum() for g, d in zip(grads, v, strict=True))
            values.append(f.item())
        return values

    def evaluation():
        x, gamma, beta = (torch.tensor(p, requires_grad=True) for p in POINT)
        stats = torch.tensor(MEAN), torch.tensor(VAR)
        y = torch.nn.functional.batch_norm(x, *stats, gamma, beta, training=False, eps=EPS)
        return torch.autograd.grad((torch.tensor(W) * y).sum(), x)[0].numpy()

    return derivatives, evaluation


def chainer():
    """``chainer.functions.batch_normalization``."""
    import chainer
    import chainer.functions as F

    def derivatives(point):
        t = [chainer.Variable(p) for p in point]
        f, values = F.sum(F.batch_normalization(*t, eps=EPS) * W), []
        for _ in ORDERS:
            grads = chainer.grad([f], t, enable_double_backprop=True)
            terms = [F.sum(g * v) for g, v in zip(grads, DIRECTIONS, strict=True) if g is not None]
            f = sum(terms[1:], terms[0])
            values.append(float(f.array))
        return values

    def evaluation():
        x, gamma, beta = (chainer.Variable(p) for p in POINT)
        y = F.fixed_batch_normalization(x, gamma, beta, MEAN, VAR, eps=EPS)
        return chainer.grad([F.sum(y * W)], [x])[0].array

    return derivatives, evaluation


def dezero():
    """``dezero.functions.batch_nrom``."""
    vars(np)["int"] = int  # NumPy removed this name, but DeZero 0.0.13 still uses it
    import dezero
    import dezero.functions as F

    def derivatives(point):
        t, values = [dezero.as_variable(p) for p in point], []
        f = F.sum(F.batch_nrom(*t, np.zeros(C), np.ones(C), eps=EPS) * W)
        for _ in ORDERS:
            for p in t:
                p.cleargrad()
            f.backward(create_graph=True)
            pairs = zip(t, DIRECTIONS, strict=True)
            terms = [F.sum(p.grad * v) for p, v in pairs if p.grad is not None]
            f = sum(terms[1:], terms[0])
            values.append(float(f.data))
        return values

    def evaluation():
        x = dezero.as_variable(POINT[0])
        with dezero.test_mode():
            F.sum(F.batch_nrom(x, *POINT[1:], MEAN, VAR, eps=EPS) * W).backward()
        return x.grad.data

    return derivatives, evaluation


def tinygrad():
    """``tinygrad.nn.BatchNorm``; if clang is not installed, set DEV=PYTHON."""
    from tinygrad import Context, Tensor, nn

    def layer(gamma, beta, mean=None, var=None):
        bn = nn.BatchNorm(C, eps=EPS, track_running_stats=mean is not None)
        bn.weight, bn.bias = gamma, beta
        if mean is not None:
            bn.running_mean, bn.running_var = Tensor(mean), Tensor(var)
        return bn

    def derivatives(point):
        t = [Tensor(p) for p in point]
        with Context(TRAINING=1):
            y = layer(*t[1:])(t[0].reshape(N, C, 1, 1)).reshape(N, C)
        f, values = (y * Tensor(W)).sum(), []
        for _ in ORDERS:
            grads = f.gradient(*t)
            f = sum((g * Tensor(v)).sum() for g, v in zip(grads, DIRECTIONS, strict=True))
            values.append(f.item())
        return values

    def evaluation():
        x, gamma, beta = (Tensor(p) for p in POINT)
        y = layer(gamma, beta, MEAN, VAR)(x.reshape(N, C, 1, 1)).reshape(N, C)
        return (y * Tensor(W)).sum().gradient(x)[0].numpy()

    return derivatives, evaluation


def mygrad():
    """``mygrad.nnet.layers.batchnorm``, which has no second order and no evaluation mode."""
    import mygrad as mg
    from mygrad.nnet.layers import batchnorm

    def derivatives(point):
        t = [mg.tensor(p) for p in point]
        mg.sum(batchnorm(t[0], gamma=t[1], beta=t[2], eps=EPS) * W).backward()
        pairs = zip(t, DIRECTIONS, strict=True)
        return [sum(float((p.grad * v).sum()) for p, v in pairs), None, None]

    return derivatives, None


def autograd():
    """HIPS autograd; the user composes batch norm."""
    import autograd.numpy as anp
    from autograd import grad

    return _composed(anp, grad)


def jax():
    """JAX; the user composes batch norm."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    return _composed(jnp, jax.grad)


def _composed(xp, grad):
    """Batch norm as a user would write it, differentiated along DIRECTIONS up to order 3."""

    def f(x, gamma, beta):
        xc = x - xp.mean(x, axis=0)
        return xp.sum(W * (gamma * xc / xp.sqrt(xp.mean(xc * xc, axis=0) + EPS) + beta))

    def along(g):
        def derivative(*p):
            slopes = grad(g, (0, 1, 2))(*p)
            return sum(xp.sum(s * v) for s, v in zip(slopes, DIRECTIONS, strict=True))

        return derivative

    def derivatives(point):
        first = along(f)
        second = along(first)
        return [float(g(*point)) for g in (first, second, along(second))]

    return derivatives, None


# --- known mistakes, composed with minigrad -------------------------------------------------------


def detached_mean():
    """The mean is a constant inside the variance; right at order 1, because xc sums to 0."""
    import minigrad as mg

    def batch_norm(x, gamma, beta, eps):
        xc = x - mg.mean(x, axis=0)
        fixed = x - np.asarray(_values(x)).mean(0)
        return gamma * xc / mg.sqrt(mg.mean(fixed * fixed, axis=0) + eps) + beta

    return _by_minigrad(mg, batch_norm), None


def saved_statistics():
    """The closed form of the backward with x_hat and inv_std saved as constants."""
    import minigrad as mg

    @mg.op(formula="as batch_norm", pullback="with saved statistics")
    def saved(xp, x, gamma, beta, *, eps):
        xc = x - x.mean(0)
        return gamma * xc / xp.sqrt((xc * xc).mean(0) + eps) + beta

    @saved.defvjp
    def saved_vjp(y_bar, y, x, gamma, beta, *, eps):
        xc = _values(x) - _values(x).mean(0)
        inv_std = 1 / np.sqrt((xc * xc).mean(0) + eps)
        x_hat, g = xc * inv_std, y_bar * gamma
        mean_path, variance_path = mg.mean(g, axis=0), x_hat * mg.mean(g * x_hat, axis=0)
        return inv_std * (g - mean_path - variance_path), mg.sum(y_bar * x_hat, axis=0), y_bar

    def batch_norm(x, gamma, beta, eps):
        return saved(x, gamma, mg.broadcast_to(beta, x.shape), eps=eps)

    return _by_minigrad(mg, batch_norm), None


def training_gradient_in_evaluation():
    """The backward of training, used in evaluation."""
    import minigrad as mg

    def evaluation():
        return mg.analytic.batch_norm_vjp(np, W, *POINT, eps=EPS)[0]

    return _by_minigrad(mg, mg.batch_norm), evaluation


def _values(x):
    return getattr(x, "array", x)


def _by_minigrad(mg, batch_norm):
    def f(*p):
        return mg.sum(W * batch_norm(*p, eps=EPS))

    def along(g):
        gradient = mg.grad(g, (0, 1, 2))

        def derivative(*p):
            pairs = zip(gradient(*p), DIRECTIONS, strict=True)
            return sum((mg.sum(slope * v) for slope, v in pairs), mg.tensor(0.0))

        return derivative

    def derivatives(point):
        first = along(f)
        second = along(first)
        return [g(*point).item() for g in (first, second, along(second))]

    return derivatives


def _evaluation_by_minigrad(mg, batch_norm):
    def evaluation():
        _, pullback = mg.vjp(lambda x: batch_norm(x, *POINT[1:], mean=MEAN, var=VAR), POINT[0])
        return pullback(W)[0].numpy()

    return evaluation


# --- the table ------------------------------------------------------------------------------------

ENGINES = {  # name -> (distribution, adapter)
    "PyTorch": ("torch", pytorch),
    "Chainer": ("chainer", chainer),
    "DeZero": ("dezero", dezero),
    "tinygrad": ("tinygrad", tinygrad),
    "MyGrad": ("mygrad", mygrad),
    "JAX, composed": ("jax", jax),
    "HIPS autograd, composed": ("autograd", autograd),
}
MISTAKES = {
    "mistake: mean detached in the variance": detached_mean,
    "mistake: saved statistics as constants": saved_statistics,
    "mistake: training gradient in evaluation": training_gradient_in_evaluation,
}
COLUMNS = ("order 1", "order 2", "order 3", "order 2, gamma = 0", "evaluation")


def measured(adapter):
    """Column -> relative error; None if the engine lacks the feature, nan if it returns nan."""
    derivatives, evaluation = adapter()
    gamma_zero = POINT[0], np.zeros(C), POINT[2]
    errors = [_error(a, b) for a, b in zip(derivatives(POINT), reference(POINT), strict=True)]
    errors.append(_error(derivatives(gamma_zero)[1], reference(gamma_zero)[1]))
    right = W * POINT[1] / np.sqrt(VAR + EPS)
    errors.append(None if evaluation is None else _error(_result_or_error(evaluation), right))
    return dict(zip(COLUMNS, errors, strict=True))


def _result_or_error(evaluation):
    """The result, or the name of the error that was raised."""
    try:
        return evaluation()
    except (TypeError, AttributeError, RuntimeError) as error:
        return type(error).__name__


def _error(got, right):
    if got is None or isinstance(got, str):
        return got
    return float(np.abs(np.asarray(got) - right).max() / np.abs(right).max())


def cell(error):
    """``right``, ``wrong by 9.8 %`` or ``nan``; rounding is far below 1e-9, mistakes far above."""
    if error is None or isinstance(error, str):
        return "-" if error is None else f"raises {error}"
    if np.isnan(error):
        return "nan"
    return f"right ({error:.0e})" if error < 1e-9 else f"wrong by {100 * error:.2g} %"


def rows(distributions):
    """(name, column -> error) of minigrad, mistakes and the installed engines, or of the named."""
    if not distributions:
        yield "minigrad", measured(minigrad)
        for name, adapter in MISTAKES.items():
            yield name, measured(adapter)
    for name, (distribution, adapter) in ENGINES.items():
        if distributions and distribution not in distributions:
            continue
        if not importlib.util.find_spec(distribution):
            continue
        yield f"{name} {importlib.metadata.version(distribution)}", measured(adapter)


def main(distributions):
    """Print the table as Markdown."""
    warnings.simplefilter("ignore")  # the engines' own warnings
    print(f"| engine | {' | '.join(COLUMNS)} |")
    print("|" + "---|" * (1 + len(COLUMNS)))
    for name, errors in rows(distributions):
        print(f"| {name} | {' | '.join(map(cell, errors.values()))} |")


if __name__ == "__main__":
    main(sys.argv[1:])
