"""Derivatives by differences, with an error bar. Shares no code with the engine.

Each column of a Jacobian comes from central differences at up to five steps ``h, h/2, .. h/16``,
combined by Richardson extrapolation (Romberg's tableau), in long double where the function carries
it. The error of a column is estimated from the tableau (truncation) and from the rounding of the
function values (noise). A column that did not converge is tried again with smaller steps: the step
must suit the function, not the size of the data, and a normalization varies on the scale of its
deviations. What converged may still be the slope of something else, between the crests of a wave,
on both sides of a pole, or of all but a narrow bump: tiny steps of several sizes in all elements
at once must change y as the columns say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minigrad.errors import UsageError, facts

_LEVELS = 5
_STRAIGHT = 2  # the level that is the last where all quotients are the same but for rounding
_FIRST_STEP = 0.05  # of the scale of an element
_MOST = 1e3  # times an element: a length on which a function of it varies
_RETRIES = 6  # each with steps 16 times smaller
_RESTARTS = 16.0 ** np.array([-3, -5, -7, -9])  # of the first step, which may see something else
_MOST_PAIRS = 2**25  # each takes 32 bytes, and all together some two minutes


@dataclass(frozen=True)
class Jacobian:
    """Derivatives of ``y`` with respect to one input ``x``, in blocks that do not mix.

    A general function has one block. A function of channels has one per channel: no channel of y
    depends on another channel of x, so one step in all channels at once serves them all.

    Attributes:
        value: (B, y elements per block, x elements per block), in the precision of the differences.
        error: the same shape, how far ``value`` may be off.
        shapes: the shapes of y and x.
    """

    value: np.ndarray
    error: np.ndarray
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    def pull(self, y_bar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cotangent of x for ``y_bar``, its error, and the size of what cancelled in it."""
        y_shape, x_shape = self.shapes
        rows = _blocks(np.asarray(y_bar, self.value.dtype).reshape(y_shape), len(self.value))

        def product(weights: np.ndarray, matrix: np.ndarray) -> np.ndarray:
            # not einsum: of no y it multiplies 0 by what lies beside the array, which may be nan
            return _unblocked((weights[:, None] @ matrix)[:, 0], x_shape)

        sizes = np.abs(rows)
        cancelled = product(sizes, np.abs(self.value))
        return product(rows, self.value), product(sizes, self.error), cancelled


def _blocks(array: np.ndarray, blocks: int) -> np.ndarray:
    """(N, C, ..) as (C, elements), or anything as (1, elements)."""
    if blocks > 1 and array.ndim > 1:
        array = np.moveaxis(array, 1, 0)
    return array.reshape(blocks, -1)


def _unblocked(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``_blocks``."""
    if len(rows) > 1 and len(shape) > 1:
        return np.moveaxis(rows.reshape(shape[1], shape[0], *shape[2:]), 0, 1)
    return rows.reshape(shape)


def jacobians(
    f: Callable[..., Any],
    inputs: Sequence[np.ndarray],
    *,
    scales: Sequence[np.ndarray] | None = None,
) -> list[Jacobian]:
    """Differentiate ``f(*inputs) -> array`` with respect to each input.

    Args:
        f: a function of plain arrays that keeps no state.
        inputs: floating arrays; float32 ones are differenced in higher precision at their values.
        scales: per input, of its shape: the length on which ``f`` varies; guessed where None.

    Returns:
        One Jacobian per input.
    """
    scales = scales or [default_scale(x) for x in inputs]
    wide, noise = working_precision(f, inputs, scales)
    return differences(f, wide, scales, noise)


@np.errstate(all="ignore")  # of points where f has no value
def differences(
    f: Callable[..., Any], inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray],
    noise: np.ndarray | None = None,
) -> list[Jacobian]:  # fmt: skip
    """``jacobians`` of inputs that are in working precision already, with ``f``'s noise there.

    Raises:
        UsageError: that would take hours, or all of the memory.
    """
    inputs = list(inputs)
    blocks = inputs[0].shape[1] if _acts_on_channels(f, inputs) else 1
    noise = _blocks(_noise(f, inputs, scales) if noise is None else noise, blocks)
    size = sum(x.size for x in inputs)
    pairs = size * noise.size // blocks
    if pairs > _MOST_PAIRS:
        expected = f"at most {_MOST_PAIRS:,} pairs of an input and an output it may change (1 GiB)"
        got = f"{pairs:,}, of {size:,} and {noise.size:,} elements ({pairs / 2**25:,.0f} GiB)"
        remedy = "check a smaller point: of a few rows and channels faults are the same"
        raise UsageError(facts("derivatives by differences", expected=expected, got=got,
                               remedy=remedy))  # fmt: skip

    def of_input(k: int, x: np.ndarray) -> np.ndarray:
        return np.array(f(*inputs[:k], x, *inputs[k + 1 :]))

    return [
        _jacobian(partial(of_input, k), inputs[k], np.broadcast_to(scale, inputs[k].shape), noise)
        for k, scale in enumerate(scales)
    ]


def _acts_on_channels(f: Callable, inputs: list[np.ndarray]) -> bool:
    """Whether axis 1 of the first input are channels that do not mix; each one is tried.

    All inputs are (N, C, ..) or (C,). All elements of a channel are moved, and no other may answer.
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
            part[channel] += 0.1 * (1 + np.abs(part[channel])) * _wiggle(part[channel])
        same = np.delete(np.asarray(f(*moved)), channel, 1) == np.delete(y, channel, 1)
        if not same.all():
            return False
    return True


def _wiggle(part: np.ndarray) -> np.ndarray:
    """Different numbers in (-1, 1) of the shape of ``part``."""
    return np.sin(1.0 + np.arange(part.size)).reshape(part.shape)


@np.errstate(all="ignore")
def working_precision(
    f: Callable[..., Any],
    inputs: Sequence[np.ndarray],
    scales: Sequence[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Copies of ``inputs`` in long double if ``f`` carries it to its result, else in float64.

    The dtype of the result does not tell: ``f`` may compute in float64 and cast. Its noise does,
    and is returned, too, per element of the result.
    """
    scales = scales or [default_scale(x) for x in inputs]
    wide = [np.array(x, dtype=np.longdouble, order="C") for x in inputs]
    narrow = [x.astype(np.float64) for x in wide]
    try:
        y = np.asarray(f(*wide))
        if y.dtype != np.longdouble:
            return narrow, _noise(f, narrow, scales)
        noise = [_noise(f, xs, scales) for xs in (wide, narrow)]
    except Exception:  # a kernel that only takes float64, say
        return narrow, _noise(f, narrow, scales)
    carries = 100 * noise[0].max(initial=0) <= noise[1].max(initial=0)
    return (wide, noise[0]) if carries else (narrow, noise[1])


def _noise(f: Callable, inputs: Sequence[np.ndarray], scales: Sequence[np.ndarray]) -> np.ndarray:
    """The rounding noise of each element of ``f``: what a cubic leaves of values close together.

    The smallest of two or three steps' worth counts: the larger ones may still see curvature. The
    points lie at uneven distances, else values between coarse digits may round alike; and on one
    side: about a point of symmetry rounding is as odd as ``f``, and would cancel.
    """
    least: Any = np.inf
    for h in (1e-5, 1e-8, 1e-12):
        ways = [h * np.asarray(s) * _wiggle(x) for s, x in zip(scales, inputs, strict=True)]
        values = [
            np.array(f(*(x + t * way for x, way in zip(inputs, ways, strict=True))))
            for t in _UNEVEN
        ]
        rises = np.stack(values) - values[0]  # digits that all share would only round
        noise = 3 * np.abs(np.tensordot(_NO_CUBIC, rises, 1)).max(axis=0)
        # none moves where the step is below a coarser digit
        least = np.fmin(least, np.where(rises.any(axis=0), noise, np.inf))
        digits = np.finfo(values[0].dtype).eps * np.abs(values[0])
        if h < 1e-5 and not (least > 64 * digits).any():
            break
    smallest = np.finfo(values[0].dtype).smallest_subnormal  # what is below it is lost
    return np.maximum(np.where(np.isfinite(least), least, 0), smallest)


_UNEVEN = 3 * np.sqrt(np.arange(1.0, 13.0))
_CUBIC = np.linalg.qr(np.vander(_UNEVEN / 12, 4))[0]
_NO_CUBIC = np.eye(12) - _CUBIC @ _CUBIC.T


def default_scale(x: np.ndarray) -> np.ndarray:
    """A first guess of the length on which a function of ``x`` varies, per element.

    The spread over all axes but 1 where there are channels, else the size of the array; no more
    than some thousand times the element, which beside a mask of -1e9 is still small.
    """
    x = np.asarray(x, dtype=np.float64)
    if not x.any():
        return np.ones(x.shape)
    _, power = np.frexp(np.abs(x).max())
    x = np.ldexp(x, -power)  # exact, and no square overflows or is lost
    size = np.sqrt(np.mean(x * x))
    spread = np.full(x.shape, size)
    if x.ndim >= 2:
        axes = tuple(i for i in range(x.ndim) if i != 1)
        spread = np.broadcast_to(x.std(axis=axes, keepdims=True), x.shape)
    fallback = np.where(np.abs(x) > 0, np.abs(x), size)
    least = np.abs(x, where=x != 0, out=np.full(x.shape, np.inf)).min()
    scale = np.where(spread > 1e-12 * size, spread, fallback)
    return np.ldexp(np.minimum(scale, _MOST * np.maximum(np.abs(x), least)), power)


OneInput = Callable[[np.ndarray], np.ndarray]  # f of one input, the others as they are


def _jacobian(f: OneInput, x: np.ndarray, scale: np.ndarray, noise: np.ndarray) -> Jacobian:
    blocks, y = len(noise), f(x)
    places = _blocks(np.arange(x.size).reshape(x.shape), blocks)
    first = _FIRST_STEP * scale.reshape(-1)

    def columns(steps: np.ndarray) -> np.ndarray:
        found = np.zeros((2, blocks, y.size // blocks, places.shape[1]), dtype=x.dtype)
        for column, where in enumerate(places.T if y.size else ()):
            found[..., column] = _converged(f, x, where, steps[where], noise)
        return found

    value, error = columns(first)
    for steps in np.multiply.outer(_RESTARTS, first):
        way = (steps * _wiggle(steps)).reshape(x.shape)
        if not _agrees(f, x, way, y, (value, error, noise)):
            again, its_error = columns(steps)
            apart = (np.abs(again - value) > error + its_error).any(axis=1)
            smaller = _largest(its_error) < _largest(error)
            taken = (np.isfinite(_largest(its_error)) & (apart | smaller))[:, None]
            value, error = np.where(taken, (again, its_error), (value, error))
    return Jacobian(value, error, (y.shape, x.shape))


def _agrees(
    f: OneInput, x: np.ndarray, way: np.ndarray, y: np.ndarray,
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> bool:  # fmt: skip
    """Whether tiny steps in all elements of x at once change ``y`` as derivatives tell.

    ``found`` are the derivatives, their errors and the noise of y. Three steps, to both sides, are
    extrapolated, so that of a smooth function only rounding is left; 2 % may be of a kink nearby.
    """
    value, error, noise = found
    blocks = len(value)
    rises, told = [], np.zeros(())
    for part in 1.0, 0.5, 0.25:
        there, back = x + part * way, x - part * way
        step = _blocks(there - back, blocks) / part  # as rounded
        told = np.einsum("byx,bx->by", value, step)
        rises.append(_blocks(f(there) - f(back), blocks) / part - told)
    almost, off = (row[-1] for row in _tableau(rises)[1:])
    step = np.abs(_blocks(2 * way, blocks))
    size = np.fmax(np.einsum("byx,bx->by", np.abs(value), step), np.abs(told + off))
    margin = np.einsum("byx,bx->by", error, step)
    margin += np.fmin(4 * np.abs(off - almost), 0.02 * size)
    digits = np.finfo(y.dtype).eps * np.abs(_blocks(y, blocks))
    margin += 2 * _AMPLIFICATION[2] * np.maximum(digits, noise)
    return bool((~(np.abs(off) > margin)).all())


def _converged(
    f: OneInput, x: np.ndarray, where: np.ndarray, h: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One column of each block, each with the smallest error over the tried steps."""
    enough = 1e3 * np.finfo(x.dtype).eps ** 0.75
    value, error, unmoved = _columns(f, x, where, h, noise)
    error = np.fmin(error, unmoved)  # what no step of the first size moves hardly depends on x
    still = np.isfinite(unmoved).all(axis=1)  # nor do smaller steps say more of it
    if not np.isfinite(_largest(error)).all():
        # nor where there is no value to come close to
        still |= ~np.isfinite(_blocks(f(x), len(where))).all(axis=1)
    for retry in range(1, 2 * _RETRIES + 1):  # the second half only where nothing is known yet
        worst, size, step = _largest(error), _largest(np.abs(value)), h / 16.0**retry
        known = np.isfinite(worst)
        # the rounding of what is left to try may be more than all that is unknown
        good = np.maximum(enough * size, _AMPLIFICATION[1] * _largest(noise) / step)
        if (still | known & (worst <= good)).all() or (retry > _RETRIES and known.all()):
            break
        again, its_error, _ = _columns(f, x, where, step, noise)
        its_error = np.fmin(its_error, unmoved)
        better = _largest(its_error) < worst
        value[better], error[better] = again[better], its_error[better]
    return value, error


def _largest(rows: np.ndarray) -> np.ndarray:
    """The largest element of each row; inf if one is nan."""
    top = rows.max(axis=1, initial=0)
    return np.where(np.isfinite(top), top, np.inf)


def _columns(
    f: OneInput, x: np.ndarray, where: np.ndarray, h: np.ndarray, measured: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Derivatives with respect to the elements ``where``, one per block, by Romberg's tableau.

    Returns:
        Values, errors, and how large a derivative can be that moved an element of y not even by its
        last digit; nan where it moved.
    """
    quotients: list[np.ndarray] = []
    digit = noise = moved = np.zeros((), bool)
    for level in range(_LEVELS):
        plus, minus, step = _two_sided(f, x, where, h / 2**level)
        if level == 0:
            digit = np.finfo(plus.dtype).eps * np.abs(plus)
            noise = np.maximum(digit, measured)
        moved = moved | (plus != minus)  # nan moves, too
        quotients.append((plus - minus) / step)
        if level == _STRAIGHT and (np.ptp(quotients, axis=0) * step <= 4 * noise).all():
            break
    diagonal = np.stack([row[-1] for row in _tableau(quotients)])
    # where h^2 is not the order of the error after all, the last difference is but a part of it
    estimates = 4 * np.abs(np.diff(diagonal, axis=0)).max(axis=2)  # (levels - 1, blocks)
    level = np.where(np.isnan(estimates), np.inf, estimates).argmin(axis=0)
    each = np.arange(len(where))
    noise = _AMPLIFICATION[level + 1, None] * noise / h[:, None]
    unmoved = np.where(moved, np.nan, digit / (2 * h[:, None]))
    return diagonal[level + 1, each], estimates[level, each][:, None] + noise, unmoved


def _two_sided(
    f: OneInput, x: np.ndarray, where: np.ndarray, h: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f with the elements ``where`` moved by h and by -h, in blocks; their distances as rounded."""
    values, at = [], []
    for shift in (h, -h):
        moved = x.copy()
        moved.reshape(-1)[where] += shift
        at.append(moved.reshape(-1)[where])
        values.append(_blocks(f(moved), len(where)))
    return values[0], values[1], (at[0] - at[1])[:, None]


def _tableau(differences: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Romberg's tableau: entry m of a row has lost the error terms up to h^(2m)."""
    rows: list[list[np.ndarray]] = []
    for difference in differences:
        row = [difference]
        for m, above in enumerate(rows[-1] if rows else [], start=1):
            row.append(row[-1] + (row[-1] - above) / (4**m - 1))
        rows.append(row)
    return rows


def _amplification() -> np.ndarray:
    """How much noise of the function values, over h, reaches each diagonal entry at most.

    The difference at level l amplifies it by ``2^l``; the tableau weights the levels.
    """
    units = list(np.eye(_LEVELS))
    weights = [np.abs(row[-1]) for row in _tableau(units)]
    return np.array([w @ 2.0 ** np.arange(_LEVELS) for w in weights])


_AMPLIFICATION = _amplification()
