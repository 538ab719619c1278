"""Sums of several arrays at once: on a GPU they are one launch."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from minigrad.backend import namespace


def axpby(terms: list[tuple[float, Any, float, Any]]) -> list[Any]:
    """``a * x + b * y`` for each ``(a, x, b, y)``: two numbers, two arrays of one shape."""
    xs = [x for _, x, _, _ in terms]
    if not on_gpu(xs):
        return [a * x + b * y for a, x, b, y in terms]
    return _launches().axpby_all(namespace(*xs), terms)


def track(
    running: tuple[Any, Any, Any], mean: Any, var: Any, weight: float, factor: float
) -> tuple[Any, Any, Any]:
    """``running``, a mean, a variance and a number of batches, after one more batch.

    ``(1 - weight) * old + weight * new``, of ``mean`` and of ``factor * var``.
    """
    xp = namespace(*running[:2])
    if xp.__name__ == "cupy":
        found = _launches().track(xp, running, mean, var, weight, factor)
        if found is not None:
            return found
    old_mean, old_var, batches = running
    old, new = 1 - weight, weight * factor
    return old * old_mean + weight * mean, old * old_var + new * var, batches + 1


def all_finite(arrays: list[Any]) -> bool:
    """Whether no element is nan or infinite; the host waits for a GPU."""
    if not arrays:
        return True
    xp = namespace(*arrays)
    if on_gpu(arrays):
        return _launches().all_finite(xp, arrays)
    return bool(xp.stack([xp.isfinite(array).all() for array in arrays]).all())


def _launches() -> Any:
    """The launchers, imported when a GPU needs them."""
    return import_module("minigrad.fused.cuda.foreach")


def on_gpu(arrays: Iterable[Any]) -> bool:
    """Whether there are arrays, and every one is CuPy's."""
    kinds = {array.__class__: array for array in arrays}  # one of each
    return bool(kinds) and all(namespace(array).__name__ == "cupy" for array in kinds.values())
