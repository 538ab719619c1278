"""Fused ops: each runs one kernel in place of a composite, with the composite's signature.

The layers of ``nn`` call them. By default the kernels are numba's where it is installed (the
``fast`` extra), NumPy's otherwise, and CUDA's on a GPU; ``use`` restricts the choice.
"""

from minigrad.fused.activation import fused_elu as elu
from minigrad.fused.activation import fused_gelu as gelu
from minigrad.fused.activation import fused_leaky_relu as leaky_relu
from minigrad.fused.activation import fused_relu as relu
from minigrad.fused.activation import fused_sigmoid as sigmoid
from minigrad.fused.activation import fused_softplus as softplus
from minigrad.fused.activation import fused_tanh as tanh
from minigrad.fused.declare import use
from minigrad.fused.linalg import fused_linear as linear
from minigrad.fused.loss import (
    fused_binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from minigrad.fused.loss import fused_cross_entropy as cross_entropy
from minigrad.fused.loss import fused_log_softmax as log_softmax
from minigrad.fused.loss import fused_softmax as softmax
from minigrad.fused.memory import release_memory
from minigrad.fused.normalization import fused_batch_norm as batch_norm
from minigrad.fused.normalization import fused_group_norm as group_norm
from minigrad.fused.normalization import fused_layer_norm as layer_norm
from minigrad.fused.windows import fused_conv as conv
from minigrad.fused.windows import fused_max_pool as max_pool

__all__ = [
    "batch_norm", "binary_cross_entropy_with_logits", "conv", "cross_entropy", "elu", "gelu",
    "group_norm", "layer_norm", "leaky_relu", "linear", "log_softmax", "max_pool",
    "release_memory", "relu", "sigmoid", "softmax", "softplus", "tanh", "use",
]  # fmt: skip
