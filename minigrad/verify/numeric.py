"""Derivatives by finite differences, with an error bar. Shares no code with the engine.

Each column of a Jacobian is found in four steps:

1. Central differences ``D(h) = (f(x + h) - f(x - h)) / (2 h)`` at up to five steps
   ``h, h/2, .. h/16`` are combined by Richardson extrapolation (Romberg's tableau T), in long
   double where ``f`` carries it to its result.
2. The error of a diagonal entry is estimated as truncation plus rounding,

       ``4 max|T[m][m] - T[m-1][m-1]| + A[m] noise / h``

   where ``noise`` is the rounding error of the function values, which is measured, and ``A[m]``
   the factor by which the tableau amplifies it. The entry with the least truncation is taken.
3. As long as the error exceeds both ``1e3 eps^(3/4) |value|`` and the rounding at smaller steps,
   the column is tried again with steps 16 times smaller; the smallest error counts. A step must
   suit the function, not the size of the data: a normalization varies on the scale of the
   deviations from the mean.
4. A column may have converged to the slope of something else: between the crests of a wave, on both
   sides of a pole, or past a narrow bump. So tiny steps of several sizes, in all elements of x at
   once, must change y as the columns predict; if not, the columns are redone with such steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minigrad.errors import UsageError, facts
from minigrad.verify.noise import noise_of, wiggle, working_precision

_LEVELS = 5
_STRAIGHT_LEVEL = 2  # the last level if all quotients are equal but for rounding
FIRST_STEP = 0.05  # relative to the scale of an element
_MAX_SCALE = 1e3  # relative to the element itself
_RETRIES = 6  # each with steps 16 times smaller
_RESTARTS = 16.0 ** np.array([-3, -5, -7, -9])  # relative to the first step: see step 4 above
MAX_PAIRS = 2**25  # of an input and an output element; each takes 32 bytes


@dataclass(frozen=True)
class Jacobian:
    """Derivatives of ``y`` with respect to one input ``x``: the blocks of a block diagonal matrix.

    A general function has one block. A function that acts on each channel by itself has one per
    channel, and one step in all channels at once serves them all.

    Attributes:
        value: (B, y elements per block, x elements per block), in the precision of the differences.
        error: the same shape, how far ``value`` may be off.
        shapes: the shapes of y and x.
    """

    value: np.ndarray
    error: np.ndarray
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    def pull(self, y_bar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``J^T y_bar``, its error, and ``|J|^T |y_bar|``, the sum of its absolute summands."""
        y_shape, x_shape = self.shapes
        rows = _blocks(np.asarray(y_bar, self.value.dtype).reshape(y_shape), len(self.value))

        def product(weights: np.ndarray, matrix: np.ndarray) -> np.ndarray:
            # not einsum: for an empty y it computes 0 * (memory beside the array), which may be nan
            return _unblocked((weights[:, None] @ matrix)[:, 0], x_shape)

        sizes = np.abs(rows)
        magnitude = product(sizes, np.abs(self.value))
        return product(rows, self.value), product(sizes, self.error), magnitude


def _blocks(array: np.ndarray, blocks: int) -> np.ndarray:
    """(N, C, ..) as (C, elements per channel), or any array as (1, elements)."""
    if blocks > 1 and array.ndim > 1:
        array = np.moveaxis(array, 1, 0)
    return array.reshape(blocks, -1)


def _unblocked(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``_blocks``."""
    if len(rows) > 1 and len(shape) > 1:
        return np.moveaxis(rows.reshape(shape[1], shape[0], *shape[2:]), 0, 1)
    return rows.reshape(shape)


def jacobians(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> list[Jacobian]:
    """Differentiate ``f(*inputs) -> array`` with respect to each input.

    Args:
        f: a function of plain arrays that keeps no state.
        inputs: floating arrays; float32 ones are differenced in higher precision at their values.

    Returns:
        One Jacobian per input.
    """
    scales = [default_scale(x) for x in inputs]
    wide, noise = working_precision(f, inputs, scales)
    return differences(f, wide, scales, noise)


@np.errstate(all="ignore")  # f may be undefined at some points
def differences(
    f: Callable[..., Any], inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray],
    noise: np.ndarray | None = None,
) -> list[Jacobian]:  # fmt: skip
    """``jacobians`` at inputs in working precision; ``noise`` is that of ``f`` there, if known.

    Raises:
        UsageError: the Jacobians are too large: they would take hours, or all of the memory.
    """
    inputs = list(inputs)
    blocks = blocks_of(f, inputs)
    noise = _blocks(noise_of(f, inputs, scales) if noise is None else noise, blocks)
    size = sum(x.size for x in inputs)
    pairs = size * noise.size // blocks
    if pairs > MAX_PAIRS:
        expected = f"at most {MAX_PAIRS:,} pairs of an input and an output element (1 GiB)"
        got = f"{pairs:,}, of {size:,} and {noise.size:,} elements ({pairs / 2**25:,.0f} GiB)"
        remedy = "check a smaller point: a few rows and channels show the same faults"
        raise UsageError(facts("derivatives by finite differences", expected=expected, got=got,
                               remedy=remedy))  # fmt: skip

    def f_of_input(k: int, x: np.ndarray) -> np.ndarray:
        return np.array(f(*inputs[:k], x, *inputs[k + 1 :]))

    return [
        _jacobian(partial(f_of_input, k), inputs[k], np.broadcast_to(scale, inputs[k].shape), noise)
        for k, scale in enumerate(scales)
    ]


@np.errstate(all="ignore")
def blocks_of(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> int:
    """The number of channels if ``f`` acts on each by itself, else 1."""
    return inputs[0].shape[1] if _acts_on_channels(f, inputs) else 1


def _acts_on_channels(f: Callable, inputs: Sequence[np.ndarray]) -> bool:
    """Whether axis 1 of the first input holds channels that do not mix.

    Then all inputs are (N, C, ..) or (C,), and a change of all elements of one channel of the
    inputs changes no other channel of y. Each channel is tried.
    """
    x = inputs[0]
    if x.ndim < 2 or not x.size or x.shape[1] < 2:
        return False
    if any(i.shape != x.shape[1:2] for i in inputs[1:] if i.ndim < 2) or any(
        i.shape[:2] != x.shape[:2] for i in inputs if i.ndim >= 2
    ):
        return False
    y = np.array(f(*inputs))
    if y.ndim < 2 or y.shape[1] != x.shape[1] or not np.isfinite(y).all():
        return False
    for channel in range(x.shape[1]):
        moved = [i.copy() for i in inputs]
        for i in moved:
            part = np.moveaxis(i, 1, 0) if i.ndim > 1 else i
            part[channel] += 0.1 * (1 + np.abs(part[channel])) * wiggle(part[channel])
        others_same = np.delete(np.asarray(f(*moved)), channel, 1) == np.delete(y, channel, 1)
        if not others_same.all():
            return False
    return True


def default_scale(x: np.ndarray) -> np.ndarray:
    """A first guess of the length on which a function of ``x`` varies, per element.

    The standard deviation over all axes but 1 where there are channels, else the root mean square
    of the array; but at most a thousand times the element (beside a mask of -1e9, say).
    """
    x = np.asarray(x, dtype=np.float64)
    if not x.any():
        return np.ones(x.shape)
    _, power = np.frexp(np.abs(x).max())
    x = np.ldexp(x, -power)  # exact; now no square overflows or underflows
    size = np.sqrt(np.mean(x * x))
    spread = np.full(x.shape, size)
    if x.ndim >= 2:
        axes = tuple(i for i in range(x.ndim) if i != 1)
        spread = np.broadcast_to(x.std(axis=axes, keepdims=True), x.shape)
    fallback = np.where(np.abs(x) > 0, np.abs(x), size)
    least = np.abs(x, where=x != 0, out=np.full(x.shape, np.inf)).min()
    scale = np.where(spread > 1e-12 * size, spread, fallback)
    return np.ldexp(np.minimum(scale, _MAX_SCALE * np.maximum(np.abs(x), least)), power)


OneInput = Callable[[np.ndarray], np.ndarray]  # f as a function of one input, the others fixed


def _jacobian(f: OneInput, x: np.ndarray, scale: np.ndarray, noise: np.ndarray) -> Jacobian:
    """All columns, steps 1 to 4 above."""
    blocks, y = len(noise), f(x)
    positions = _blocks(np.arange(x.size).reshape(x.shape), blocks)
    first_steps = FIRST_STEP * scale.reshape(-1)

    def all_columns(steps: np.ndarray) -> np.ndarray:  # their values, and their errors
        columns = np.zeros((2, blocks, y.size // blocks, positions.shape[1]), dtype=x.dtype)
        for j, where in enumerate(positions.T if y.size else ()):
            columns[..., j] = _converged(f, x, where, steps[where], noise)
        return columns

    value, error = all_columns(first_steps)
    for steps in np.multiply.outer(_RESTARTS, first_steps) if x.size else ():
        direction = (steps * wiggle(steps)).reshape(x.shape)
        if not _predicts(value, error, noise, f, x, direction, y):
            new_value, new_error = all_columns(steps)
            differs = (np.abs(new_value - value) > error + new_error).any(axis=1)
            is_better = _largest(new_error) < _largest(error)
            taken = (np.isfinite(_largest(new_error)) & (differs | is_better))[:, None]
            value, error = np.where(taken, (new_value, new_error), (value, error))
    return Jacobian(value, error, (y.shape, x.shape))


def _predicts(
    value: np.ndarray, error: np.ndarray, noise: np.ndarray,
    f: OneInput, x: np.ndarray, direction: np.ndarray, y: np.ndarray,
) -> bool:  # fmt: skip
    """Whether ``f(x + direction) - f(x - direction)`` is what the derivatives ``value`` predict.

    The deviation per step, measured at ``direction`` and at a half and a quarter of it, is
    extrapolated to step 0, which leaves only rounding if ``f`` is smooth. 2 % may come from a kink
    nearby.
    """
    blocks = len(value)
    deviations, predicted = [], np.zeros(())
    for part in 1.0, 0.5, 0.25:
        ahead, behind = x + part * direction, x - part * direction
        step = _blocks(ahead - behind, blocks) / part  # as rounded
        predicted = np.einsum("byx,bx->by", value, step)
        deviations.append(_blocks(f(ahead) - f(behind), blocks) / part - predicted)
    previous, deviation = (row[-1] for row in _tableau(deviations)[1:])
    step = np.abs(_blocks(2 * direction, blocks))
    size = np.fmax(np.einsum("byx,bx->by", np.abs(value), step), np.abs(predicted + deviation))
    margin = np.einsum("byx,bx->by", error, step)
    margin += np.fmin(4 * np.abs(deviation - previous), 0.02 * size)
    digit = np.finfo(y.dtype).eps * np.abs(_blocks(y, blocks))
    margin += 2 * _AMPLIFICATION[2] * np.maximum(digit, noise)
    return bool((~(np.abs(deviation) > margin)).all())


def _converged(
    f: OneInput, x: np.ndarray, where: np.ndarray, h: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One column of each block and its error, the smallest over the steps h, h/16, h/256, ..."""
    tolerance = 1e3 * np.finfo(x.dtype).eps ** 0.75
    value, error, flat = _romberg(f, x, where, h, noise)
    error = np.fmin(error, flat)
    # smaller steps help neither where the first ones move nothing, nor where f(x) has no value
    is_final = np.isfinite(flat).all(axis=1)
    if not np.isfinite(_largest(error)).all():
        is_final |= ~np.isfinite(_blocks(f(x), len(where))).all(axis=1)
    for retry in range(1, 2 * _RETRIES + 1):  # the second half only while an error is infinite
        worst, size, step = _largest(error), _largest(np.abs(value)), h / 16.0**retry
        is_finite = np.isfinite(worst)
        # below the second term the rounding at a smaller step exceeds the present error
        enough = np.maximum(tolerance * size, _AMPLIFICATION[1] * _largest(noise) / step)
        is_done = is_final | is_finite & (worst <= enough)
        if is_done.all() or (retry > _RETRIES and is_finite.all()):
            break
        new_value, new_error, _ = _romberg(f, x, where, step, noise)
        new_error = np.fmin(new_error, flat)
        better = _largest(new_error) < worst
        value[better], error[better] = new_value[better], new_error[better]
    return value, error


def _largest(a: np.ndarray) -> np.ndarray:
    """The maximum over axis 1; inf if it is nan."""
    top = a.max(axis=1, initial=0)
    return np.where(np.isfinite(top), top, np.inf)


def _romberg(
    f: OneInput, x: np.ndarray, where: np.ndarray, h: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Derivatives with respect to the elements ``where``, one per block, by Romberg's tableau.

    Returns:
        Values, errors, and a bound for the derivatives of those elements of y that no step changed,
        ``noise / h``; nan for the others.
    """
    quotients: list[np.ndarray] = []
    moved = np.zeros((), bool)
    for level in range(_LEVELS):
        plus, minus, step = _two_sided(f, x, where, h / 2**level)
        if level == 0:
            noise = np.maximum(np.finfo(plus.dtype).eps * np.abs(plus), noise)
        moved = moved | (plus != minus)  # nan moves, too
        quotients.append((plus - minus) / step)
        if level == _STRAIGHT_LEVEL and (np.ptp(quotients, axis=0) * step <= 4 * noise).all():
            break
    diagonal = np.stack([row[-1] for row in _tableau(quotients)])
    # 4: if the error is not O(h^2) after all, the last change of the value is only a part of it
    truncation = 4 * np.abs(np.diff(diagonal, axis=0)).max(axis=2)  # (levels - 1, blocks)
    level = np.where(np.isnan(truncation), np.inf, truncation).argmin(axis=0)
    block = np.arange(len(where))
    rounding = _AMPLIFICATION[level + 1, None] * noise / h[:, None]
    flat = np.where(moved, np.nan, noise / h[:, None])
    return diagonal[level + 1, block], truncation[level, block][:, None] + rounding, flat


def _two_sided(
    f: OneInput, x: np.ndarray, where: np.ndarray, h: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f with the elements ``where`` moved by h and by -h, in blocks; and 2 h as it was rounded."""
    values, positions = [], []
    for shift in (h, -h):
        moved = x.copy()
        moved.reshape(-1)[where] += shift
        positions.append(moved.reshape(-1)[where])
        values.append(_blocks(f(moved), len(where)))
    return values[0], values[1], (positions[0] - positions[1])[:, None]


def _tableau(quotients: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Romberg's tableau T of quotients at the steps h, h/2, h/4, ...

    ``T[l][m] = T[l][m-1] + (T[l][m-1] - T[l-1][m-1]) / (4^m - 1)`` has lost the error terms up to
    h^(2m).
    """
    rows: list[list[np.ndarray]] = []
    for quotient in quotients:
        row = [quotient]
        for m, above in enumerate(rows[-1] if rows else [], start=1):
            row.append(row[-1] + (row[-1] - above) / (4**m - 1))
        rows.append(row)
    return rows


def _amplification() -> np.ndarray:
    """``A[m] = sum_l |w_l| 2^l``: T[m][m] is off by at most ``A[m] noise / h`` through rounding.

    ``w_l`` is the weight in T[m][m] of the quotient at step h/2^l, which is off by at most
    ``2 noise / (2 h / 2^l)``.
    """
    units = list(np.eye(_LEVELS))
    weights = [np.abs(row[-1]) for row in _tableau(units)]
    return np.array([w @ 2.0 ** np.arange(_LEVELS) for w in weights])


_AMPLIFICATION = _amplification()
