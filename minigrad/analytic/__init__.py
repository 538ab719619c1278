"""Hand-written derivatives: functions of an array module and arrays, independent of minigrad."""

from minigrad.analytic.normalization import batch_norm, batch_norm_vjp

__all__ = ["batch_norm", "batch_norm_vjp"]
