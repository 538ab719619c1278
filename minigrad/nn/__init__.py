"""Layers, complete models, and tools for trained networks; names as in PyTorch."""

from minigrad.nn import init, models
from minigrad.nn.activation import (
    ELU,
    GELU,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    L1Loss,
    LeakyReLU,
    MSELoss,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from minigrad.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from minigrad.nn.container import ModuleList, Sequential
from minigrad.nn.conv import AvgPool2d, Conv1d, Conv2d, Conv3d, GlobalAvgPool2d, MaxPool2d
from minigrad.nn.conventions import CONVENTIONS, batch_norm_from, batch_norm_to
from minigrad.nn.inference import ChannelAffine, Folded, fold_batch_norm, set_population_statistics
from minigrad.nn.layers import Dropout, Embedding, Flatten, Identity, Linear
from minigrad.nn.lazy import (
    LazyBatchNorm1d,
    LazyBatchNorm2d,
    LazyBatchNorm3d,
    LazyConv1d,
    LazyConv2d,
    LazyConv3d,
    LazyLinear,
)
from minigrad.nn.module import Module, frozen_statistics, functional_call
from minigrad.nn.normalization import (
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
)
from minigrad.nn.pit import ProbabilityIntegralNorm1d
from minigrad.nn.random import generator, manual_seed
from minigrad.nn.recurrent import RNN, RNNCell
from minigrad.nn.renorm import BatchRenorm1d, BatchRenorm2d, clip_schedule
from minigrad.nn.scaled import RELU_GAIN, ScaledWSConv2d, ScaledWSLinear, standardized
from minigrad.nn.whitening import Whitening1d
from minigrad.spelling import of_module

__all__ = [
    "CONVENTIONS", "ELU", "GELU", "RELU_GAIN", "RNN", "AvgPool2d", "BCEWithLogitsLoss",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "BatchRenorm1d", "BatchRenorm2d", "ChannelAffine",
    "Conv1d", "Conv2d", "Conv3d", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten", "Folded",
    "GlobalAvgPool2d", "GroupNorm", "Identity", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "L1Loss", "LayerNorm", "LazyBatchNorm1d", "LazyBatchNorm2d",
    "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConv3d", "LazyLinear", "LeakyReLU",
    "Linear", "MSELoss", "MaxPool2d", "Module", "ModuleList", "ProbabilityIntegralNorm1d",
    "RNNCell", "ReLU", "ScaledWSConv2d", "ScaledWSLinear", "Sequential", "Sigmoid", "Softmax",
    "Softplus", "Tanh", "Whitening1d", "batch_norm_from", "batch_norm_to", "clip_schedule",
    "fold_batch_norm", "frozen_statistics", "functional_call", "generator", "init", "manual_seed",
    "models", "set_population_statistics", "standardized",
]  # fmt: skip

__getattr__ = of_module(__name__)
