"""Checks of a seed: the cotangent of a result, given by the caller of a backward sweep."""

from typing import Any

import numpy as np

from minigrad import backend
from minigrad.core.node import Box, leaf
from minigrad.errors import SeedError, describe, facts, naming


def as_seed(seed: Any, y: Box) -> Any:
    """``seed`` as a finite raw array of the shape and dtype of ``y``; 1 for a scalar if None.

    Of a result of integers, it has floats.
    """
    xp = backend.namespace(y.array)
    dtype = _dtype(y)
    if seed is None:
        if y.shape == ():
            return backend.frozen(xp.ones_like(y.array, dtype=dtype), own=True)
        remedy = "pass seed=, a cotangent of the same shape, or reduce to a scalar, as in y.sum()"
        raise _unfit(y, f"none, for {describe(y)}", remedy)
    if is_box := isinstance(seed, Box):
        array = seed.array
    else:
        with naming("backward: seed"):
            array = backend.as_array(seed)
    backend.check_place("backward: seed", array, y.array)
    if tuple(array.shape) != tuple(y.shape):
        raise _unfit(y, f"shape {tuple(array.shape)} for {describe(y)}")
    if array.dtype.kind not in "fiub":
        raise _unfit(y, f"dtype {array.dtype}")
    if is_box and array.dtype == dtype:  # its array never changes: its node keeps the verdict
        node = seed.node = seed.node or leaf(array)
    else:  # a caller's array may change, and a cast may overflow
        with np.errstate(over="ignore"):
            array = backend.frozen(xp.asarray(array, dtype=dtype))
        node = leaf(array)
    if not node.is_finite and (bad := backend.count_not_finite(array)):
        raise _unfit(y, f"nan or inf in {bad} of {array.size} elements for {describe(y)}")
    node.is_finite = True
    return array


def _dtype(y: Box) -> np.dtype:
    return np.dtype(float) if y.dtype.kind in "iub" else y.dtype


def _unfit(y: Box, got: str, remedy: str = "") -> SeedError:
    expected = f"finite numbers of shape {tuple(y.shape)} that {_dtype(y)} can hold"
    return SeedError(facts("backward: seed", expected=expected, got=got, remedy=remedy))
