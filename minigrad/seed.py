"""Checks of a seed: the cotangent of a result, given by the caller of a backward sweep."""

from typing import Any

import numpy as np

from minigrad import backend
from minigrad.core.node import Box, leaf
from minigrad.errors import SeedError, describe, facts, naming


def as_seed(seed: Any, y: Box) -> Any:
    """``seed`` as a finite raw array of the shape and dtype of ``y``; ones for a scalar if None."""
    is_box = isinstance(seed, Box)
    array = y.array if seed is None else seed.array if is_box else _converted(seed)
    backend.check_place("backward: seed", array, y.array)
    xp = backend.namespace(y.array)
    if seed is None and y.shape == ():
        return backend.frozen(xp.ones_like(array), own=True)
    remedy = ""
    if seed is None:
        got = f"none, for {describe(y)}"
        remedy = "pass seed=, a cotangent of the same shape, or reduce to a scalar, as in y.sum()"
    elif tuple(array.shape) != tuple(y.shape):
        got = f"shape {tuple(array.shape)} for {describe(y)}"
    elif array.dtype.kind not in "fiub":
        got = f"dtype {array.dtype}"
    else:
        if is_box and array.dtype == y.dtype:  # it never changes: its node keeps the verdict
            node = seed.node = seed.node or leaf(array)
        else:  # a caller's array may change, and a cast may overflow
            with np.errstate(over="ignore"):
                array = backend.frozen(xp.asarray(array, dtype=y.dtype))
            node = leaf(array)
        bad = 0 if node.is_finite else backend.count_not_finite(array)
        node.is_finite = not bad
        if node.is_finite:
            return array
        got = f"nan or inf in {bad} of {array.size} elements, as {y.dtype}"
    expected = f"finite numbers of shape {tuple(y.shape)} that {y.dtype} can hold"
    raise SeedError(facts("backward: seed", expected=expected, got=got, remedy=remedy))


def _converted(seed: Any) -> Any:
    with naming("backward: seed"):
        return backend.as_array(seed)
