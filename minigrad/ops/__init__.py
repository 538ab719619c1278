"""Every declared op and composite, by name."""

from minigrad.ops.activation import elu, erf, erfc, gelu, leaky_relu, relu, softplus
from minigrad.ops.arithmetic import (
    add,
    divide,
    multiply,
    negative,
    positive,
    power,
    reciprocal,
    sqrt,
    square,
    subtract,
)
from minigrad.ops.conv import col2im, conv, im2col
from minigrad.ops.decomposition import cholesky, inv, lyapunov, sqrtm
from minigrad.ops.device import to_device
from minigrad.ops.exponential import (
    cos,
    exp,
    expm1,
    log,
    log1p,
    logaddexp,
    sigmoid,
    sin,
    tanh,
)
from minigrad.ops.index import getitem, scatter_add
from minigrad.ops.linalg import einsum, linear, matmul, tensordot
from minigrad.ops.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    log_softmax,
    mse_loss,
    softmax,
)
from minigrad.ops.normalization import batch_norm, group_norm, layer_norm
from minigrad.ops.pool import avg_pool, avg_unpool, max_pool, max_unpool, take_pooled
from minigrad.ops.reduce import cumsum, logsumexp, max, mean, min, prod, std, sum, var
from minigrad.ops.select import absolute, clip, maximum, minimum, sign, where
from minigrad.ops.shape import (
    astype,
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    pad,
    reshape,
    split,
    squeeze,
    stack,
    sum_to,
    swapaxes,
    transpose,
    unstack,
)
from minigrad.spelling import of_module

__all__ = [
    "absolute", "add", "astype", "avg_pool", "avg_unpool", "batch_norm",
    "binary_cross_entropy_with_logits", "broadcast_to", "cholesky", "clip", "col2im",
    "concatenate", "conv", "cos", "cross_entropy", "cumsum", "divide", "einsum", "elu", "erf",
    "erfc", "exp", "expand_dims", "expm1", "flip", "gelu", "getitem", "group_norm", "im2col",
    "inv", "l1_loss", "layer_norm", "leaky_relu", "linear", "log", "log1p", "log_softmax",
    "logaddexp", "logsumexp", "lyapunov", "matmul", "max", "max_pool", "max_unpool", "maximum",
    "mean", "min", "minimum", "mse_loss", "multiply", "negative", "pad", "positive", "power",
    "prod", "reciprocal", "relu", "reshape", "scatter_add", "sigmoid", "sign", "sin", "softmax",
    "softplus", "split", "sqrt", "sqrtm", "square", "squeeze", "stack", "std", "subtract",
    "sum", "sum_to", "swapaxes", "take_pooled", "tanh", "tensordot", "to_device", "transpose",
    "unstack", "var", "where",
]  # fmt: skip

__getattr__ = of_module(__name__)
