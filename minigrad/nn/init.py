"""Initial values of parameters. Each function assigns to a tensor and returns it.

A weight has shape (out, in) or (out, in, \\*kernel). ``fan_in`` is the number of inputs that one
output sums, ``fan_out`` the number of outputs that one input reaches; both count every element of
the kernel.
"""

from math import prod, sqrt
from typing import Any

import numpy as np

from minigrad import backend
from minigrad.errors import DTypeError, ShapeError, UsageError, check_real, describe, facts, hinting
from minigrad.nn.module import named_array
from minigrad.nn.random import Seed, generator
from minigrad.spelling import of_module
from minigrad.tensor import Tensor

__getattr__ = of_module(__name__)


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
    """``fans``, but at least 1: no division by 0 for a weight without elements."""
    return [max(n, 1) for n in fans(_shape(weight))]


def _shape(weight: Tensor) -> tuple[int, ...]:
    """The shape of ``weight``; DTypeError if it is no Tensor."""
    if not isinstance(weight, Tensor):
        raise DTypeError(facts("init: weight", expected="a Tensor", got=describe(weight)))
    return weight.shape


def _assign(weight: Tensor, values: Any) -> Tensor:
    """Assign ``values``; refuse fractions for integer weights, which would truncate them."""
    new = np.asarray(values, dtype=weight.dtype)
    if weight.dtype.kind != "f" and (new != values).any():
        raise DTypeError(facts("init: weight", expected="a floating dtype", got=weight.dtype))
    weight.data = new
    return weight


def _draw(weight: Tensor, distribution: str, a: float, b: float, rng: Seed) -> Tensor:
    """Assign random numbers: ``rng.uniform(a, b, ...)`` or ``rng.normal(a, b, ...)``."""
    rng, shape = generator(rng), _shape(weight)
    try:
        values = getattr(rng, distribution)(a, b, shape)
    except (OverflowError, TypeError, ValueError) as error:
        expected = "low <= high" if distribution == "uniform" else "std >= 0"
        got = f"{a}, {b}"
        raise UsageError(facts(f"init: {distribution}", expected=expected, got=got)) from error
    return _assign(weight, values)


@hinting
def constant_(weight: Tensor, value: float) -> Tensor:
    """Every element ``value``."""
    shape = _shape(weight)
    array = backend.to_host(named_array("init: value", value))
    try:
        values = np.full(shape, array)
    except ValueError as error:
        expected = f"a number, or an array that broadcasts to {shape}"
        raise ShapeError(facts("init: value", expected=expected, got=describe(value))) from error
    return _assign(weight, values)


def zeros_(weight: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(weight, 0.0)


def ones_(weight: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(weight, 1.0)


@hinting
def uniform_(weight: Tensor, low: float = 0.0, high: float = 1.0, rng: Seed = None) -> Tensor:
    """Uniform on [low, high)."""
    return _draw(weight, "uniform", low, high, rng)


@hinting
def normal_(weight: Tensor, mean: float = 0.0, std: float = 1.0, rng: Seed = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return _draw(weight, "normal", mean, std, rng)


@hinting
def xavier_uniform_(weight: Tensor, gain: float = 1.0, rng: Seed = None) -> Tensor:
    """Glorot: uniform with variance ``gain^2 * 2 / (fan_in + fan_out)``.

    Source:
        Glorot, Bengio 2010, Understanding the difficulty of training deep feedforward neural
        networks, eq. 16.

    >>> w = mg.nn.init.xavier_uniform_(mg.tensor(np.zeros((200, 100))), rng=0)
    >>> bool(abs(w.numpy().var() * 150 - 1) < 0.02)
    True
    """
    bound = check_real("init: gain", gain) * sqrt(6 / sum(_fans(weight)))
    return uniform_(weight, -bound, bound, rng)


@hinting
def xavier_normal_(weight: Tensor, gain: float = 1.0, rng: Seed = None) -> Tensor:
    """Glorot: normal with variance ``gain^2 * 2 / (fan_in + fan_out)``."""
    return normal_(weight, 0.0, check_real("init: gain", gain) * sqrt(2 / sum(_fans(weight))), rng)


@hinting
def kaiming_uniform_(weight: Tensor, *, gain: float = sqrt(2), rng: Seed = None) -> Tensor:
    """He: uniform with variance ``gain^2 / fan_in``; the default gain is that of ReLU.

    PyTorch's second argument is not the gain but the slope ``a`` of a leaky ReLU, whose gain is
    ``sqrt(2 / (1 + a^2))``.

    Source:
        He, Zhang, Ren, Sun 2015, arXiv:1502.01852, eq. 10.
    """
    bound = check_real("init: gain", gain) * sqrt(3 / _fans(weight)[0])
    return uniform_(weight, -bound, bound, rng)


@hinting
def kaiming_normal_(weight: Tensor, *, gain: float = sqrt(2), rng: Seed = None) -> Tensor:
    """He: normal with variance ``gain^2 / fan_in``; the default gain is that of ReLU."""
    return normal_(weight, 0.0, check_real("init: gain", gain) / sqrt(_fans(weight)[0]), rng)


@hinting
def orthogonal_(weight: Tensor, gain: float = 1.0, rng: Seed = None) -> Tensor:
    """Orthonormal rows (or columns, if these are fewer) times ``gain``.

    A weight of more than two axes counts as a matrix (out, product of the others).

    Source:
        Saxe, McClelland, Ganguli 2013, arXiv:1312.6120.

    >>> w = mg.nn.init.orthogonal_(mg.tensor(np.zeros((2, 3))), rng=0).numpy()
    >>> np.round(w @ w.T, 12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    check_real("init: gain", gain)
    fans(shape := _shape(weight))
    rows, columns = shape[0], prod(shape[1:])
    q, r = np.linalg.qr(generator(rng).normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))  # q is uniformly distributed only if r has a positive diagonal
    return _assign(weight, gain * (q.T if rows < columns else q).reshape(shape))
