"""minigrad: an autograd engine whose every gradient is proven, drawn and steppable.

>>> x = mg.tensor([1.0, 2.0], requires_grad=True, name="x")
>>> mg.sum(x**3).backward()
>>> x.grad
tensor([ 3., 12.])
"""

import importlib
from typing import TYPE_CHECKING, Any

from minigrad import threads  # noqa: F401

# isort: split
from minigrad import errors, fused, ops
from minigrad.anomaly import anomaly_mode
from minigrad.composite import composite
from minigrad.context import no_grad, scope
from minigrad.core.op import elementwise, op
from minigrad.declaration import REGISTRY, Case, Domain
from minigrad.ops import (
    absolute,
    add,
    batch_norm,
    binary_cross_entropy_with_logits,
    broadcast_to,
    clip,
    concatenate,
    cos,
    cross_entropy,
    cumsum,
    divide,
    einsum,
    elu,
    erf,
    exp,
    expand_dims,
    expm1,
    flip,
    gelu,
    group_norm,
    l1_loss,
    layer_norm,
    leaky_relu,
    log,
    log1p,
    log_softmax,
    logaddexp,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    mse_loss,
    multiply,
    negative,
    pad,
    positive,
    power,
    prod,
    reciprocal,
    relu,
    reshape,
    sigmoid,
    sign,
    sin,
    softmax,
    softplus,
    split,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    subtract,
    sum,
    swapaxes,
    tanh,
    tensordot,
    transpose,
    unstack,
    var,
    where,
)
from minigrad.spelling import of_module
from minigrad.tensor import Tensor, tensor
from minigrad.transforms import grad, hvp, jacobian, jvp, value_and_grad, vjp

if TYPE_CHECKING:
    from minigrad import analytic, data, nn, optim, train, verify, viz

__version__ = "0.1.0"

__all__ = [
    "REGISTRY",
    "Case",
    "Domain",
    "Tensor",
    "absolute",
    "add",
    "analytic",
    "anomaly_mode",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "clip",
    "composite",
    "concatenate",
    "cos",
    "cross_entropy",
    "cumsum",
    "data",
    "divide",
    "einsum",
    "elementwise",
    "elu",
    "erf",
    "errors",
    "exp",
    "expand_dims",
    "expm1",
    "flip",
    "fused",
    "gelu",
    "grad",
    "group_norm",
    "hvp",
    "jacobian",
    "jvp",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "logaddexp",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mse_loss",
    "multiply",
    "negative",
    "nn",
    "no_grad",
    "op",
    "ops",
    "optim",
    "pad",
    "positive",
    "power",
    "prod",
    "reciprocal",
    "relu",
    "reshape",
    "scope",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "swapaxes",
    "tanh",
    "tensor",
    "tensordot",
    "train",
    "transpose",
    "unstack",
    "value_and_grad",
    "var",
    "verify",
    "viz",
    "vjp",
    "where",
]  # fmt: skip

# imported on first use, so that `import minigrad` stays fast
_ON_DEMAND = ("analytic", "data", "nn", "optim", "train", "verify", "viz")


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return importlib.import_module(f"minigrad.{name}")
    return of_module(__name__)(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
