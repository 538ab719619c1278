"""Kernels compiled by numba (the ``fast`` extra); imported by the first call that can use one."""

from minigrad.fused.compiled import activation, channels, linear, rows, softmax, windows

PAIRS = {
    "batch_norm": channels.batch_norm,
    "binary_cross_entropy_with_logits": softmax.binary_cross_entropy_with_logits,
    "conv": windows.conv,
    "cross_entropy": softmax.cross_entropy,
    "elu": activation.elu,
    "gelu": activation.gelu,
    "group_norm": rows.group_norm,
    "layer_norm": rows.layer_norm,
    "leaky_relu": activation.leaky_relu,
    "linear": linear.linear,
    "log_softmax": softmax.log_softmax,
    "max_pool": windows.max_pool,
    "relu": activation.relu,
    "sigmoid": activation.sigmoid,
    "softmax": softmax.softmax,
    "softplus": activation.softplus,
    "tanh": activation.tanh,
}
