"""Recurrent layers, with and without batch normalization."""

from typing import Any, Literal

from minigrad import backend, ops
from minigrad.composite import constant
from minigrad.errors import ShapeError, UsageError, describe, facts
from minigrad.nn import init, kernels
from minigrad.nn.batchnorm import BatchNorm1d
from minigrad.nn.layers import parameter
from minigrad.nn.module import Module
from minigrad.nn.random import generator

_ACTIVATIONS = {"tanh": kernels.tanh, "relu": kernels.relu}
Nonlinearity = Literal["tanh", "relu"]


def _activation(name: str) -> Any:
    if name not in _ACTIVATIONS:
        raise UsageError(facts("RNN: nonlinearity", expected="'tanh' or 'relu'", got=repr(name)))
    return _ACTIVATIONS[name]


class RNNCell(Module):
    """One step: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    Args:
        input_size, hidden_size: lengths of x and h.
        nonlinearity: ``"tanh"`` or ``"relu"``.

    Attributes:
        weight_ih: (hidden, input). weight_hh: (hidden, hidden). bias_ih, bias_hh: (hidden,). All
            are uniform within 1 / sqrt(hidden_size) at the start, PyTorch's default.

    >>> mg.nn.RNNCell(3, 2)(np.ones((4, 3)), np.zeros((4, 2))).shape
    (4, 2)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: Nonlinearity = "tanh",
        *,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        self.activation = _activation(nonlinearity)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih = parameter((hidden_size, input_size), dtype, "weight_ih")
        self.weight_hh = parameter((hidden_size, hidden_size), dtype, "weight_hh")
        self.bias_ih = parameter((hidden_size,), dtype, "bias_ih")
        self.bias_hh = parameter((hidden_size,), dtype, "bias_hh")
        bound = max(hidden_size, 1) ** -0.5
        rng = generator(rng)
        for p in (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh):
            init.uniform_(p, -bound, bound, rng)

    def forward(self, x: Any, h: Any = None) -> Any:
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ShapeError(
                facts("RNNCell: x", expected=f"(N, {self.input_size})", got=describe(x))
            )
        h = _state(self, x, h)
        from_x = kernels.matmul(x, ops.transpose(self.weight_ih)) + self.bias_ih
        from_h = kernels.matmul(h, ops.transpose(self.weight_hh)) + self.bias_hh
        return self.activation(from_x + from_h)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


def _state(layer: Any, x: Any, h: Any) -> Any:
    """``h``, checked to be (N, hidden_size), or zeros of the library and dtype of ``x`` if None."""
    shape = x.shape[0], layer.hidden_size
    if h is None:
        array = backend.as_array(getattr(x, "array", x))
        zeros = backend.namespace(array).zeros(shape, dtype=array.dtype)
        return constant(zeros, "h0", layer.weight_hh)
    if tuple(h.shape) != shape:
        raise ShapeError(facts(f"{type(layer).__name__}: h", expected=shape, got=describe(h)))
    return h


class RNN(Module):
    """A recurrent layer over a sequence, optionally with sequence-wise batch normalization.

    ``h_t = tanh(u_t + W_hh h_{t-1} + b)`` with ``u_t = W_ih x_t``, or, with ``batch_norm=True``,
    ``u_t = BN(W_ih x_t)``, with mean and variance over all examples and all steps of the batch.
    Only the input term is normalized, not the recurrent one.

    Args:
        input_size, hidden_size: lengths of x_t and h_t.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        batch_norm: whether to normalize the input term, as Deep Speech 2 does.

    Attributes:
        weight_ih: (hidden, input), Glorot uniform at the start. weight_hh: (hidden, hidden),
            orthogonal at the start. bias: (hidden,), 0 at the start.
        norm: the BatchNorm1d, or None.

    Source:
        Amodei et al. 2015, Deep Speech 2, arXiv:1512.02595, section 3.2.

    >>> h, last = mg.nn.RNN(3, 2, batch_norm=True)(np.random.default_rng(0).normal(size=(4, 5, 3)))
    >>> h.shape, last.shape
    ((4, 5, 2), (4, 2))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: Nonlinearity = "tanh",
        batch_norm: bool = False,
        *,
        dtype: Any = "float64",
        rng: init.Seed = None,
    ):
        self.activation = _activation(nonlinearity)
        self.input_size, self.hidden_size = input_size, hidden_size
        rng = generator(rng)
        self.weight_ih = parameter((hidden_size, input_size), dtype, "weight_ih")
        self.weight_hh = parameter((hidden_size, hidden_size), dtype, "weight_hh")
        self.bias = parameter((hidden_size,), dtype, "bias")
        self.norm = BatchNorm1d(hidden_size, dtype=dtype) if batch_norm else None
        init.xavier_uniform_(self.weight_ih, rng=rng)
        init.orthogonal_(self.weight_hh, rng=rng)

    def forward(self, x: Any, h: Any = None) -> tuple[Any, Any]:
        """x (N, T, input), h (N, hidden) or None for zeros -> (all h (N, T, hidden), the last)."""
        if x.ndim != 3 or x.shape[2] != self.input_size or not x.shape[1]:
            expected = f"(N, T, {self.input_size}) with T >= 1 steps"
            raise ShapeError(facts("RNN: x", expected=expected, got=describe(x)))
        u = kernels.matmul(x, ops.transpose(self.weight_ih))
        if self.norm is not None:
            u = ops.swapaxes(self.norm(ops.swapaxes(u, axis1=1, axis2=2)), axis1=1, axis2=2)
        u = u + self.bias
        h = _state(self, x, h)
        recurrent = ops.transpose(self.weight_hh)
        states = []
        for u_t in ops.unstack(u, axis=1):
            h = self.activation(u_t + kernels.matmul(h, recurrent))
            states.append(h)
        return ops.stack(*states, axis=1), h

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"
