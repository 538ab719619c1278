"""Linear, dropout and embedding layers, and helpers for all layers that have parameters."""

from math import prod, sqrt
from numbers import Integral
from typing import Any

import numpy as np

from minigrad import backend, ops
from minigrad.composite import constant, operand
from minigrad.errors import (
    BoundsError,
    DTypeError,
    ShapeError,
    UsageError,
    describe,
    facts,
    is_within,
)
from minigrad.nn import init, kernels
from minigrad.nn.module import Module, statistics_are_frozen
from minigrad.nn.random import generator, rewind, states
from minigrad.ops.shape import floating
from minigrad.tensor import Tensor, tensor


def filled(shape: tuple[int, ...], dtype: Any, name: str, fill: float = 0.0) -> np.ndarray:
    """The initial array of the parameter or buffer ``name``: every element is ``fill``."""
    if not all(isinstance(n, Integral) and n.__class__ is not bool and n >= 0 for n in shape):
        raise ShapeError(facts(f"{name}: shape", expected="whole numbers, 0 or more", got=shape))
    return np.full(shape, fill, dtype=backend.as_dtype(dtype))


def check_groups(layer: Any, name: str, groups: Any, *channels: Any) -> None:
    """Raise UsageError unless ``groups`` >= 1 divides each of the whole numbers ``channels``."""
    whole = all(isinstance(n, Integral) for n in (groups, *channels))
    if not whole or groups < 1 or any(n % groups for n in channels):
        headline = f"{type(layer).__name__}: channels"
        expected = f"whole numbers divisible by {name}={groups}"
        raise UsageError(facts(headline, expected=expected, got=" and ".join(map(str, channels))))


def check_momentum(layer: Any, momentum: Any) -> float:
    """``momentum`` as a float; UsageError unless it is a weight in [0, 1].

    Other values would show only later, as nan in evaluation: the root of a negative variance.
    """
    if not is_within(momentum, 0, 1):
        headline = f"{type(layer).__name__}: momentum"
        expected = "a number in [0, 1], the weight of the new statistic"
        raise UsageError(facts(headline, expected=expected, got=describe(momentum)))
    return float(momentum)


def parameter(shape: tuple[int, ...], dtype: Any, name: str, fill: float = 0.0) -> Tensor:
    """A new parameter; every element is ``fill``."""
    return tensor(filled(shape, dtype, name, fill), requires_grad=True, name=name)


def affine_parameters(shape: tuple[int, ...], dtype: Any, affine: bool) -> tuple[Any, Any]:
    """gamma and beta of a normalization, initially ones and zeros; twice None unless ``affine``."""
    if not affine:
        return None, None
    return parameter(shape, dtype, "gamma", fill=1.0), parameter(shape, dtype, "beta")


def ones_and_zeros(shape: tuple[int, ...], x: Any) -> tuple[Any, Any]:
    """gamma and beta for a layer without parameters, arrays of the library and dtype of ``x``."""
    array = floating(backend.as_array(getattr(x, "array", x)))
    xp = backend.namespace(array)
    return xp.ones(shape, dtype=array.dtype), xp.zeros(shape, dtype=array.dtype)


def reset_(module: Any, fan_in: int, rng: init.Seed) -> None:
    """Draw weight and bias uniformly within ``1 / sqrt(fan_in)``, PyTorch's default."""
    bound = 1 / sqrt(max(fan_in, 1))
    rng = generator(rng)
    init.uniform_(module.weight, -bound, bound, rng)
    if module.bias is not None:
        init.uniform_(module.bias, -bound, bound, rng)


class Identity(Module):
    """Returns its input."""

    def forward(self, x: Any) -> Any:
        return x


class Flatten(Module):
    """(N, ...) -> (N, everything else).

    >>> mg.nn.Flatten()(mg.tensor(np.zeros((2, 3, 4)))).shape
    (2, 12)
    """

    def forward(self, x: Any) -> Any:
        if x.ndim < 1:
            raise ShapeError(facts("Flatten: x", expected="(N, ...)", got=describe(x)))
        return ops.reshape(x, shape=(x.shape[0], prod(x.shape[1:])))


class Linear(Module):
    """``y = x W^T + b``.

    Args:
        in_features, out_features: lengths of the last axis of x and y.
        bias: whether to add a learned b.
        dtype: of the parameters.
        rng: Generator or seed of the initial values; None: the default generator.

    Attributes:
        weight: (out_features, in_features). bias: (out_features,) or None. Both are uniform within
            1 / sqrt(in_features) at the start, PyTorch's default.

    >>> layer = mg.nn.Linear(2, 1)
    >>> layer.load_state_dict({"weight": [[1.0, 10.0]], "bias": [0.5]})
    >>> layer(np.array([[3.0, 4.0]])).numpy()
    array([[43.5]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        self.in_features = in_features
        self.out_features = out_features
        self.weight = parameter((out_features, in_features), dtype, "weight")
        self.bias: Any = parameter((out_features,), dtype, "bias") if bias else None
        reset_(self, in_features, rng)

    def forward(self, x: Any) -> Any:
        return affine(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


def affine(x: Any, weight: Any, bias: Any) -> Any:
    """``x W^T + b``, with a clear error if the last axis of ``x`` does not fit."""
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        expected = f"(..., {weight.shape[1]}), where {weight.shape[1]} is in_features"
        raise ShapeError(facts("Linear: x", expected=expected, got=describe(x)))
    return kernels.linear(x, weight, bias)


class Dropout(Module):
    """In training, each element becomes 0 with probability ``p``, otherwise ``x / (1 - p)``.

    Args:
        p: in [0, 1]; 1 sets every element to 0.
        rng: Generator or seed of the masks; None: the default generator.

    >>> drop = mg.nn.Dropout(0.5, rng=0)
    >>> drop(mg.tensor([1.0, 1.0, 1.0, 1.0]))
    tensor([2., 0., 0., 0.])
    >>> drop.eval()(mg.tensor([1.0, 1.0]))
    tensor([1., 1.])
    """

    def __init__(self, p: float = 0.5, *, rng: init.Seed = None):
        if not is_within(p, 0, 1):
            raise UsageError(facts("Dropout: p", expected="a probability in [0, 1]", got=p))
        self.p = p
        self.rng = None if rng is None else generator(rng)  # None: deep copies share the default

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0:
            return x
        x, rng = operand(x), generator(self.rng)
        saved = states([rng]) if statistics_are_frozen() else []
        keep = rng.random(x.shape) >= self.p
        rewind(saved)  # if frozen, the next call draws the same mask
        dtype = x.dtype if x.dtype.kind == "f" else np.float64  # integers cannot hold 1 / (1 - p)
        mask = (keep / (1 - self.p or 1)).astype(dtype)  # 0 / 1 where p = 1
        mask = backend.to_device(mask, backend.device_of(getattr(x, "array", x)))
        return x * constant(mask, "mask", x)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Embedding(Module):
    """A table of learned vectors, looked up by index.

    Args:
        num_embeddings, embedding_dim: rows and columns of the table.

    Attributes:
        weight: (num_embeddings, embedding_dim), standard normal at the start.

    >>> mg.nn.Embedding(10, 4)(np.array([[1, 2, 1]])).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        self.weight = parameter((num_embeddings, embedding_dim), dtype, "weight")
        init.normal_(self.weight, rng=rng)

    def forward(self, indices: Any) -> Any:
        indices = backend.to_host(backend.as_array(getattr(indices, "array", indices)))
        n = self.weight.shape[0]
        if indices.dtype.kind not in "iu":
            raise DTypeError(facts("Embedding: indices", expected="integers", got=indices.dtype))
        if indices.size and not 0 <= indices.min() <= indices.max() < n:  # CuPy would wrap around
            got = f"{indices.min()} to {indices.max()}"
            raise BoundsError(facts("Embedding: indices", expected=f"0 to {n - 1}", got=got))
        return self.weight[backend.to_device(indices, self.weight.device)]

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"
