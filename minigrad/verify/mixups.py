"""What is wrong in a backward as a linear map: its order, its side, its factor, its axes.

Any function: the cotangents of two inputs are exchanged, the Jacobian is not transposed, another
operand is multiplied by, a wrong axis is summed, a path between elements is missing.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np

from minigrad.verify.fit import close
from minigrad.verify.reference import Expected
from minigrad.verify.subject import Subject

_POSITIONS = 8  # outputs whose cotangents are followed one by one


def explain(
    subject: Subject,
    k: int,
    y_bar: np.ndarray,
    got: np.ndarray,
    tolerance: float,
    expected_of: Callable[[np.ndarray], Expected],
) -> str:
    """Why the cotangents of input ``k`` are wrong; empty where nothing fits.

    Args:
        subject: the pair and its point.
        k: an input.
        y_bar: (S, \\*y.shape), cotangents of y.
        got: (S, \\*shape of input k), what came of each.
        tolerance: how far an explanation may be off, relative to the largest element.
        expected_of: the cotangents of all inputs for any ``y_bar``, as they should be.
    """
    for j, values in enumerate(zip(*(expected_of(one).values for one in y_bar), strict=True)):
        if j != k and close(np.stack(values), got, tolerance):
            return f"it is {subject.names[j]}_bar: operands or cotangents in another order"
    found = _untransposed(subject, k, y_bar, got, tolerance)
    if found:
        return found
    found = (
        _product(subject, y_bar, got, tolerance),
        _flow(subject, k, y_bar.shape[1:], expected_of),
    )
    return "; ".join(filter(None, found))


def _product(subject: Subject, y_bar: np.ndarray, got: np.ndarray, tolerance: float) -> str:
    """got = sum(y_bar * operand, axes), for an operand of the call, y or none."""
    operands = {"": np.float64(1), **dict(zip(subject.names, subject.inputs, strict=True))}
    operands["y"] = np.asarray(subject.run()[0])
    for name, operand in operands.items():
        try:
            products = np.broadcast_to(y_bar * operand, y_bar.shape)
        except ValueError:  # it has another shape
            continue
        for axes in _subsets(y_bar.ndim - 1):
            sums = products.sum(axis=tuple(i + 1 for i in axes))
            if sums.size == got.size and close(sums.reshape(got.shape), got, tolerance):
                what = f"y_bar * {name}" if name else "y_bar"
                return f"it is the sum of {what} over {_written(axes)}" if axes else f"it is {what}"
    return ""


def _subsets(ndim: int) -> Iterator[tuple[int, ...]]:
    for n in range(ndim + 1):
        yield from combinations(range(ndim), n)


def _untransposed(
    subject: Subject, k: int, y_bar: np.ndarray, got: np.ndarray, tolerance: float
) -> str:
    """got = J y_bar where J^T y_bar is asked for, as in y_bar @ w for y_bar @ w.T."""
    if y_bar.shape != got.shape:
        return ""
    x = subject.inputs[k]
    step = 1e-3 * np.abs(x).max(initial=1e-30) / np.abs(y_bar).max(initial=1e-30)

    def slope(h: float, way: np.ndarray) -> Any:
        ends = [[*subject.inputs[:k], x + t * way, *subject.inputs[k + 1 :]] for t in (h, -h)]
        return (subject.value(*ends[0]) - subject.value(*ends[1])) / (2 * h)

    along = [(4 * slope(step / 2, way) - slope(step, way)) / 3 for way in y_bar]
    fits = close(np.stack(along), got, tolerance)
    return "not transposed: it is the Jacobian times y_bar, not y_bar times the Jacobian" * fits


def _flow(
    subject: Subject, k: int, shape: tuple[int, ...], expected_of: Callable[[np.ndarray], Expected]
) -> str:
    """The axes along which an element of y_bar reaches other elements, and those it should."""
    if subject.inputs[k].shape != shape:
        return ""
    got: set[int] = set()
    right: set[int] = set()
    for position in np.unique(np.linspace(0, np.prod(shape) - 1, _POSITIONS, dtype=int)):
        one_hot = np.zeros(shape, subject.dtype)
        one_hot.reshape(-1)[position] = 1
        expected = expected_of(one_hot)
        is_reached = np.abs(expected.values[k]) > expected.bounds[k]
        for axes, reached in (got, np.asarray(subject.pull(one_hot)[k])), (right, is_reached):
            away = np.argwhere(reached) != np.unravel_index(position, shape)
            axes.update(np.flatnonzero(away.any(axis=0)).tolist())
    missing, extra = right - got, got - right
    if missing and extra:
        return f"y_bar is mixed along {_written(extra)}, not along {_written(missing)}"
    if missing:
        return f"paths between elements along {_written(missing)} are missing"
    return f"y_bar is mixed along {_written(extra)}, too" if extra else ""


def _written(axes: Any) -> str:
    numbers = " and ".join(str(axis) for axis in sorted(axes))
    return f"{'axes' if len(axes) > 1 else 'axis'} {numbers}"
