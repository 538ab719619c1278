"""Hand-written derivatives: pure functions of ``(xp, arrays)``; they import nothing from minigrad."""

from minigrad.analytic.normalization import batch_norm, batch_norm_vjp

__all__ = ["batch_norm", "batch_norm_vjp"]
