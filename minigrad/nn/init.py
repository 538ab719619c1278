"""Initial values of parameters. Each function assigns to a tensor and returns it.

``fan_in`` and ``fan_out`` count the connections of one output and of one input: a weight has shape
(out, in) or (out, in, *kernel), and a kernel multiplies both.
"""

from math import prod, sqrt
from typing import Any

import numpy as np

from minigrad.errors import DTypeError, ShapeError, UsageError, answering, describe, facts
from minigrad.nn.random import generator
from minigrad.tensor import Tensor

Seed = np.random.Generator | int | None


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight of ``shape`` (out, in, \\*kernel).

    >>> mg.nn.init.fans((6, 3, 5, 5))
    (75, 150)
    """
    if len(shape) < 2:
        raise ShapeError(facts("init: weight", expected="(out, in, ...)", got=tuple(shape)))
    kernel = prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def _fans(weight: Tensor) -> list[int]:
    """Both, at least 1: of a weight without elements nothing is drawn, whatever the scale."""
    return [max(n, 1) for n in fans(weight.shape)]


def _assign(weight: Tensor, values: Any) -> Tensor:
    """Assign ``values``; integers take whole numbers only, or all that is drawn would be 0."""
    if not isinstance(weight, Tensor):
        raise DTypeError(facts("init: weight", expected="a Tensor", got=describe(weight)))
    new = np.asarray(values, dtype=weight.dtype)
    if weight.dtype.kind != "f" and (new != values).any():
        raise DTypeError(facts("init: weight", expected="a floating dtype", got=weight.dtype))
    weight.data = new
    return weight


def _drawn(weight: Tensor, kind: str, a: float, b: float, rng: Seed) -> Tensor:
    """Numbers of the Generator's method ``kind`` with the parameters ``a`` and ``b``."""
    rng = generator(rng)
    try:
        values = getattr(rng, kind)(a, b, weight.shape)
    except (OverflowError, TypeError, ValueError) as error:
        expected = "low <= high" if kind == "uniform" else "std >= 0"
        got = f"{a}, {b}"
        raise UsageError(facts(f"init: {kind}", expected=expected, got=got)) from error
    return _assign(weight, values)


def constant_(weight: Tensor, value: float) -> Tensor:
    """Every element ``value``."""
    return _assign(weight, np.full(weight.shape, value))


def zeros_(weight: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(weight, 0.0)


def ones_(weight: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(weight, 1.0)


def uniform_(weight: Tensor, low: float = 0.0, high: float = 1.0, rng: Seed = None) -> Tensor:
    """Uniform on [low, high)."""
    return _drawn(weight, "uniform", low, high, rng)


def normal_(weight: Tensor, mean: float = 0.0, std: float = 1.0, rng: Seed = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return _drawn(weight, "normal", mean, std, rng)


def xavier_uniform_(weight: Tensor, gain: float = 1.0, rng: Seed = None) -> Tensor:
    """Glorot: uniform with variance ``gain^2 * 2 / (fan_in + fan_out)``.

    Source:
        Glorot, Bengio 2010, Understanding the difficulty of training deep feedforward neural
        networks, eq. 16.

    >>> w = mg.nn.init.xavier_uniform_(mg.tensor(np.zeros((200, 100))), rng=0)
    >>> bool(abs(w.numpy().var() * 150 - 1) < 0.02)
    True
    """
    bound = gain * sqrt(6 / sum(_fans(weight)))
    return uniform_(weight, -bound, bound, rng)


def xavier_normal_(weight: Tensor, gain: float = 1.0, rng: Seed = None) -> Tensor:
    """Glorot: normal with variance ``gain^2 * 2 / (fan_in + fan_out)``."""
    return normal_(weight, 0.0, gain * sqrt(2 / sum(_fans(weight))), rng)


@answering
def kaiming_uniform_(weight: Tensor, *, gain: float = sqrt(2), rng: Seed = None) -> Tensor:
    """He: uniform with variance ``gain^2 / fan_in``; the default gain is that of ReLU.

    PyTorch's second argument is another number, the slope ``a`` of a leaky ReLU, whose gain is
    ``sqrt(2 / (1 + a^2))``.

    Source:
        He, Zhang, Ren, Sun 2015, arXiv:1502.01852, eq. 10.
    """
    bound = gain * sqrt(3 / _fans(weight)[0])
    return uniform_(weight, -bound, bound, rng)


@answering
def kaiming_normal_(weight: Tensor, *, gain: float = sqrt(2), rng: Seed = None) -> Tensor:
    """He: normal with variance ``gain^2 / fan_in``; the default gain is that of ReLU."""
    return normal_(weight, 0.0, gain / sqrt(_fans(weight)[0]), rng)


def orthogonal_(weight: Tensor, gain: float = 1.0, rng: Seed = None) -> Tensor:
    """Rows (or columns, whichever are fewer) orthonormal times ``gain``; (out, rest) as a matrix.

    Source:
        Saxe, McClelland, Ganguli 2013, arXiv:1312.6120.

    >>> w = mg.nn.init.orthogonal_(mg.tensor(np.zeros((2, 3))), rng=0).numpy()
    >>> np.round(w @ w.T, 12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    fans(weight.shape)
    rows, columns = weight.shape[0], prod(weight.shape[1:])
    q, r = np.linalg.qr(generator(rng).normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))  # otherwise the signs LAPACK chooses would not be uniform
    return _assign(weight, gain * (q.T if rows < columns else q).reshape(weight.shape))
