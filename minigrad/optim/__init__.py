"""Optimizers, learning-rate schedules and gradient clipping; names as in PyTorch."""

from minigrad.optim.clipping import AGC, clip_grad_norm_, clip_grad_value_, unit_norms
from minigrad.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    StepLR,
)
from minigrad.optim.optimizer import SGD, Adam, AdamW, Optimizer
from minigrad.spelling import of_module

__all__ = [
    "AGC", "SGD", "Adam", "AdamW", "CosineAnnealingLR", "ExponentialLR", "LambdaLR", "LinearLR",
    "MultiStepLR", "Optimizer", "StepLR", "clip_grad_norm_", "clip_grad_value_", "unit_norms",
]  # fmt: skip

__getattr__ = of_module(__name__)
