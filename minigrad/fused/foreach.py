"""Operations on many arrays at once; on a GPU each is one launch instead of one per array."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from minigrad.backend import namespace, runs_kernels


def axpby(terms: list[tuple[float, Any, float, Any]]) -> list[Any]:
    """``a * x + b * y`` for each ``(a, x, b, y)``: a, b are numbers, x, y arrays of one shape."""
    xs = [x for _, x, _, _ in terms]
    if not on_gpu(xs):
        return [a * x + b * y for a, x, b, y in terms]
    return _launches().axpby_all(namespace(*xs), terms)


def track(
    running: tuple[Any, Any, Any], mean: Any, var: Any, weight: float, factor: float
) -> tuple[Any, Any, Any]:
    """The ``running`` mean, variance and number of batches after one more batch.

    A statistic becomes ``(1 - weight) * old + weight * new``; new is ``mean`` or ``factor * var``.
    """
    xp = namespace(*running[:2])
    if runs_kernels(xp):
        updated = _launches().track(xp, running, mean, var, weight, factor)
        if updated is not None:
            return updated
    old_mean, old_var, batches = running
    old, new = 1 - weight, weight * factor
    return old * old_mean + weight * mean, old * old_var + new * var, batches + 1


def all_finite(arrays: list[Any]) -> bool:
    """Whether no element is nan or infinite; on a GPU, the host waits for the answer."""
    if not arrays:
        return True
    xp = namespace(*arrays)
    if on_gpu(arrays):
        return _launches().all_finite(xp, arrays)
    return bool(xp.stack([xp.isfinite(array).all() for array in arrays]).all())


def _launches() -> Any:
    """The module of CUDA launches, imported when a GPU first needs it."""
    return import_module("minigrad.fused.cuda.foreach")


def on_gpu(arrays: Iterable[Any]) -> bool:
    """Whether there are arrays, all of them CuPy's, and kernels run on its current GPU."""
    by_class = {array.__class__: array for array in arrays}  # one array of each class
    return bool(by_class) and all(runs_kernels(namespace(a)) for a in by_class.values())
