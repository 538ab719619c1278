"""Batch norm layers from and to other libraries, whose names, momentum, divisor and eps differ.

=========  ==================  =====================  ====================  =====
library    running statistic   momentum               averages the          eps
=========  ==================  =====================  ====================  =====
PyTorch    (1-p) old + p new   p, weight of the new   unbiased variance     1e-5
Keras      p old + (1-p) new   p, weight of the old   biased variance       1e-3
Chainer    p old + (1-p) new   p, weight of the old   unbiased variance     2e-5
d2l < 1.0  p old + (1-p) new   p, weight of the old   biased variance       1e-5
=========  ==================  =====================  ====================  =====

All four *normalize* with the biased variance. Evaluation uses the running variance as it is, so a
copied one gives the same outputs, whichever divisor it was averaged with. The layer's flag
``unbiased`` decides which variance later training averages. d2l 1.0 states the weight of the new
statistic, 0.1, which is the same average.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.backend import to_host
from minigrad.errors import UsageError, check_count, describe, facts
from minigrad.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d


@dataclass(frozen=True)
class Convention:
    """How one library stores a batch norm layer; names in the order gamma, beta, mean, variance."""

    names: tuple[str, str, str, str]
    momentum_is_of_old: bool
    unbiased: bool
    momentum: float
    eps: float


_CHAINER = ("gamma", "beta", "avg_mean", "avg_var")
_KERAS = ("gamma", "beta", "moving_mean", "moving_variance")
_PYTORCH = ("weight", "bias", "running_mean", "running_var")
_D2L = ("gamma", "beta", "moving_mean", "moving_var")
CONVENTIONS = {
    "pytorch": Convention(_PYTORCH, False, True, 0.1, 1e-5),
    "keras": Convention(_KERAS, True, False, 0.99, 1e-3),
    "chainer": Convention(_CHAINER, True, True, 0.9, 2e-5),
    "d2l": Convention(_D2L, True, False, 0.9, 1e-5),
}
_SIZES = {1: BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}


def _convention(library: str) -> Convention:
    if library not in CONVENTIONS:
        raise UsageError(
            facts("library", expected=f"one of {', '.join(CONVENTIONS)}", got=repr(library))
        )
    return CONVENTIONS[library]


def batch_norm_from(
    library: str,
    arrays: Any,
    *,
    momentum: float | None = None,
    eps: float | None = None,
    dims: int = 2,
) -> Any:
    """A batch norm layer that evaluates and goes on training as it would in ``library``.

    Args:
        library: ``"pytorch"``, ``"keras"``, ``"chainer"`` or ``"d2l"``.
        arrays: mapping with that library's names -> (C,) arrays; d2l's (1, C, 1, 1) is accepted.
        momentum: in the convention of that library; None: its default.
        eps: None: the default of that library.
        dims: 1, 2 or 3, for a BatchNorm1d, 2d or 3d.

    Raises:
        UsageError: an unknown library, other ``dims``, or names that are missing.

    >>> ones, zeros = np.ones(2), np.zeros(2)
    >>> names = ("gamma", "beta", "moving_mean", "moving_variance")
    >>> bn = mg.nn.batch_norm_from("keras", dict(zip(names, (ones, zeros, zeros, ones))))
    >>> round(bn.momentum, 12), bn.eps, bn.unbiased
    (0.01, 0.001, False)
    """
    convention = _convention(library)
    if dims not in _SIZES:
        raise UsageError(facts("batch_norm_from: dims", expected="1, 2 or 3", got=dims))
    if not isinstance(arrays, Mapping) or not set(convention.names) <= set(arrays):
        got = sorted(arrays) if isinstance(arrays, Mapping) else describe(arrays)
        expected = f"a mapping with {', '.join(convention.names)}"
        raise UsageError(facts(f"batch_norm_from {library}", expected=expected, got=got))
    values = [np.asarray(arrays[name]).reshape(-1) for name in convention.names]
    momentum = convention.momentum if momentum is None else momentum
    layer = _SIZES[dims](
        values[0].size,
        eps=convention.eps if eps is None else eps,
        momentum=1 - momentum if convention.momentum_is_of_old else momentum,
        unbiased=convention.unbiased,
        dtype=values[0].dtype if values[0].dtype.kind == "f" else "float64",
    )
    layer.load_state_dict(dict(zip(_PYTORCH, values, strict=True)), strict=False)
    return layer


def batch_norm_to(library: str, layer: Any, *, count: int | None = None) -> dict[str, Any]:
    """Arrays and options for a layer of ``library`` that evaluates and trains on like ``layer``.

    Args:
        library: ``"pytorch"``, ``"keras"``, ``"chainer"`` or ``"d2l"``.
        layer: a BatchNorm layer with affine parameters and running statistics.
        count: number of values per channel in a training batch. If given, the running variance is
            rescaled to the divisor of the library, by ``(count - 1) / count`` or its inverse. None
            copies it, which keeps evaluation unchanged.

    Returns:
        The arrays under the library's names, and its ``momentum`` and ``eps``.

    Raises:
        UsageError: an unknown library, a ``count`` below 2, or a layer that lacks parameters,
            running statistics or a momentum.

    >>> parts = mg.nn.batch_norm_to("chainer", mg.nn.BatchNorm1d(1, momentum=0.25))
    >>> parts["momentum"], parts["avg_var"]
    (0.75, array([1.]))
    """
    convention = _convention(library)
    if count is not None:
        check_count("batch_norm_to: count", count, least=2)
    is_norm = isinstance(layer, tuple(_SIZES.values()))
    if not (is_norm and layer.affine and layer.track_running_stats and layer.momentum is not None):
        expected = "a BatchNorm with gamma, beta, running statistics and a momentum"
        raise UsageError(facts(f"batch_norm_to {library}", expected=expected, got=repr(layer)))
    values = [np.array(to_host(getattr(layer, n).array)) for n in _PYTORCH]
    if count is not None and convention.unbiased != layer.unbiased:
        ratio = count / (count - 1)
        values[3] = values[3] * ratio if convention.unbiased else values[3] / ratio
    momentum = 1 - layer.momentum if convention.momentum_is_of_old else layer.momentum
    arrays = dict(zip(convention.names, values, strict=True))
    return {**arrays, "momentum": momentum, "eps": layer.eps}
