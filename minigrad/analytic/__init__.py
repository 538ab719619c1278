"""Hand-written derivatives: functions of ``(xp, arrays)`` that import nothing from minigrad."""

from minigrad.analytic.normalization import batch_norm, batch_norm_vjp

__all__ = ["batch_norm", "batch_norm_vjp"]
