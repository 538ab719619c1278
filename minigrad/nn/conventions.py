"""Batch norm layers from and to other libraries: names, momentum, divisor and eps differ.

=========  ==================  =====================  ====================  =====
library    running statistic   momentum               averages the          eps
=========  ==================  =====================  ====================  =====
PyTorch    (1-p) old + p new   p, weight of the new   unbiased variance     1e-5
Keras      p old + (1-p) new   p, weight of the old   biased variance       1e-3
Chainer    p old + (1-p) new   p, weight of the old   unbiased variance     2e-5
d2l < 1.0  p old + (1-p) new   p, weight of the old   biased variance       1e-5
=========  ==================  =====================  ====================  =====

All four *normalize* with the biased variance. A running variance that is merely copied is right for
evaluation, whichever divisor made it: evaluation uses the number as it is. Which variance later
training averages is the flag ``unbiased`` of the layer. Edition 1.0 of d2l states the weight of the
new, 0.1, which is the same.
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
    """How one library writes a batch norm layer; names in the order gamma, beta, mean, variance."""

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
        raise UsageError(facts("library", expected=", ".join(CONVENTIONS), got=repr(library)))
    return CONVENTIONS[library]


def batch_norm_from(
    library: str,
    arrays: Any,
    *,
    momentum: float | None = None,
    eps: float | None = None,
    dims: int = 2,
) -> Any:
    """A batch norm layer that evaluates and trains on as the one of ``library`` would.

    Args:
        library: ``"pytorch"``, ``"keras"``, ``"chainer"`` or ``"d2l"``.
        arrays: mapping with that library's names -> (C,) arrays; d2l's (1, C, 1, 1) is accepted.
        momentum: as that library writes it; None: its default.
        eps: None: the default of the library.
        dims: 1, 2 or 3: which of BatchNorm1d, 2d, 3d.

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
    """What a layer of ``library`` needs to evaluate and train on as ``layer`` does.

    Args:
        library: ``"pytorch"``, ``"keras"``, ``"chainer"`` or ``"d2l"``.
        layer: a BatchNorm layer with affine parameters and running statistics.
        count: values per channel of the training batches; given, the running variance is also
            rescaled to the divisor of the library, by ``(count - 1) / count`` or its inverse. None
            copies it, which keeps evaluation unchanged.

    Returns:
        The arrays under the library's names, and its ``momentum`` and ``eps``.

    Raises:
        UsageError: an unknown library, a batch without a variance, or a layer that lacks what is to
            be converted.

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
    of_old = convention.momentum_is_of_old
    return {
        **dict(zip(convention.names, values, strict=True)),
        "momentum": 1 - layer.momentum if of_old else layer.momentum,
        "eps": layer.eps,
    }
