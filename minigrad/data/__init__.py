"""Data sets."""

from minigrad.data.digits import digits

__all__ = ["digits"]
