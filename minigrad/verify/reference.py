"""The expected cotangents, and bounds for the distance of a right backward from them.

The reference is the Jacobian of the implementation's *own* forward, by differences. If that forward
equals batch norm up to rounding, the closed form in long double replaces it, once differences have
confirmed it: it has no step size and takes one evaluation, however large the input. At other large
points complex steps replace the differences, once confirmed by some of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from minigrad.analytic import batch_norm, batch_norm_vjp
from minigrad.errors import ShapeError
from minigrad.verify.complex_step import complex_jacobians
from minigrad.verify.kinks import Kinks
from minigrad.verify.noise import noise_of, working_precision
from minigrad.verify.numeric import (
    FIRST_STEP,
    MAX_PAIRS,
    Jacobian,
    blocks_of,
    default_scale,
    differences,
)
from minigrad.verify.rounding import (
    Rounding,
    looks_like_batch_norm,
    normalization,
    parameters_of_batch_norm,
)
from minigrad.verify.subject import FAILURES, ForwardFailed, Subject

_MANY_COLUMNS = 1000  # each takes a dozen calls of the function
_MOST_COLUMNS = 20_000  # by complex steps


@dataclass(frozen=True)
class Expected:
    """The expected cotangents of all inputs for one ``y_bar``."""

    values: list[np.ndarray]
    errors: list[np.ndarray]  # how far the values themselves may be off
    bounds: list[np.ndarray]  # how far a right backward may be from the values: includes the errors

    def of(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, error and bound for input ``k``."""
        return self.values[k], self.errors[k], self.bounds[k]


@dataclass(frozen=True)
class Function:
    """A function at a point: the attributes of a ``Subject`` that a reference needs."""

    value: Callable[..., np.ndarray]
    inputs: tuple[np.ndarray, ...]
    dtype: np.dtype  # the one of least precision, in which results are rounded
    params: Mapping[str, Any] = field(default_factory=dict)


def along(
    f: Callable[..., np.ndarray], inputs: Sequence[np.ndarray], directions: Sequence[np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    """``f`` at the inputs plus ``t[0]`` times these directions, as a function of ``t``."""
    return lambda t: f(*(x + t[0] * v for x, v in zip(inputs, directions, strict=True)))


class ShapeChanges(ForwardFailed, ShapeError):
    """The output has another shape at a point nearby, so there is no derivative."""


class Reference:
    """Gives the expected cotangents of one subject for any cotangent of its output.

    Args:
        subject: the function at its point.
        y: its output there.
        rng: of the direction along which the closed form is confirmed; None: it is not used.
        is_large: treat a small point as a large one.

    Attributes:
        is_large: whether differences for the Jacobian take more than a second or two. If so, it is
            computed on demand, and faster: in float64, by complex steps where possible.
        is_slow: whether it takes minutes even so.
        is_huge: whether it is too large for the memory.

    Raises:
        ShapeChanges: the shape of the output depends on the values of the inputs.
    """

    def __init__(
        self, subject: Subject | Function, y: np.ndarray, rng: np.random.Generator | None = None,
        is_large: bool = False,
    ):  # fmt: skip
        self.subject = subject
        self._nearby: list[list[Jacobian]] = []  # at points nearby, computed on demand
        self.normalizes = looks_like_batch_norm(y, subject.inputs, subject.params)
        self.y, self.dtype = y, subject.dtype
        self.is_large = self.is_slow = self.is_huge = False
        self.is_closed_form = rng is not None and self._is_batch_norm() and self._confirmed(rng)
        if self.is_closed_form:
            return
        columns = self._columns()
        self.is_large = is_large or columns > _MANY_COLUMNS
        self.is_huge = columns * y.size > MAX_PAIRS
        self.is_slow = columns > _MOST_COLUMNS
        if self.is_large:
            vars(self).pop("_in_working_precision", None)  # it is another one now
        else:
            _ = self.jacobians

    def value(self, *inputs: np.ndarray) -> np.ndarray:
        """The output at other inputs; ShapeChanges if its shape is another one."""
        y = np.asarray(self.subject.value(*inputs))
        if y.shape != self.y.shape:
            here = f"y has shape {self.y.shape} here, but {y.shape} nearby"
            raise ShapeChanges(f"{here}: the shape depends on the values of the inputs")
        return y

    def _columns(self) -> int:
        """The number of columns of a Jacobian that are differenced one by one."""
        inputs = self.subject.inputs
        size = sum(x.size for x in inputs)
        return size // blocks_of(self.value, inputs) if size > _MANY_COLUMNS else size

    @property
    def tries_directions(self) -> bool:
        """Whether directions are compared before elements: at a large point, but not in float32,
        where the rounding of many elements could hide an error in one of them."""
        return self.is_large and self.dtype.itemsize >= 8

    @cached_property
    def jacobians(self) -> list[Jacobian]:
        """The Jacobian by each input; UsageError at a huge point."""
        return self._jacobians_at(self.wide)

    def _jacobians_at(self, point: list[np.ndarray]) -> list[Jacobian]:
        by_complex_steps, given = None, (self.value, point, self.scales, self.noise)
        if self.is_large and not self.is_huge:
            by_complex_steps = complex_jacobians(*given, self._terms)
        return by_complex_steps or differences(*given)

    @property
    def wide(self) -> list[np.ndarray]:
        """The inputs in the precision of the differences."""
        return self._in_working_precision[0]

    @property
    def noise(self) -> np.ndarray:
        """The rounding noise of each element of y in that precision."""
        return self._in_working_precision[1]

    @cached_property
    def _in_working_precision(self) -> tuple[list[np.ndarray], np.ndarray]:
        if self.is_large:  # BLAS has no long double: a matrix product takes a hundred times as long
            narrow = [x.astype(np.float64) for x in self.subject.inputs]
            return narrow, noise_of(self.value, narrow, self.scales)
        return working_precision(self.value, self.subject.inputs, self.scales)

    @cached_property
    def kinks(self) -> Kinks:
        """The kinks at this point, looked for on demand."""
        return Kinks(self.value, self.wide, self.noise)

    @property
    def widens(self) -> bool:
        """Whether ``judge`` may widen the bounds; those of a closed form need none of that."""
        return not self.is_closed_form

    @property
    def undefined(self) -> str:
        """Why this point cannot be judged; empty if all derivatives are finite."""
        is_finite = self.is_closed_form or all(np.isfinite(j.value).all() for j in self.jacobians)
        return "" if is_finite else "the function has no finite derivative at this point"

    @property
    def _averages_batch(self) -> bool:
        """Whether this is a batch norm with statistics over all axes but 1."""
        return self.normalizes and {*parameters_of_batch_norm(self.subject.params)} <= {"eps"}

    @property
    def eps(self) -> float:
        """The eps of batch norm; its default if forward is given none."""
        return self.subject.params.get("eps", 1e-5)

    def _is_batch_norm(self) -> bool:
        """Whether the forward equals the textbook formula up to rounding in working precision."""
        if not self._averages_batch:
            return False
        x, gamma, beta = self.wide
        with np.errstate(all="ignore"):
            y = self.subject.value(x, gamma, beta)
            textbook = batch_norm(np, *(np.asarray(a, np.longdouble) for a in (x, gamma, beta)),
                                  eps=self.eps)  # fmt: skip
            terms = np.abs(gamma).max() + np.abs(beta).max()
            rounding = normalization(np.ones_like(x), (x, gamma, beta), eps=self.eps)
            amplified = rounding.sizes[1].max() if gamma.size else 0
            bound = (32 + rounding.terms) * np.finfo(y.dtype).eps * (terms + terms * amplified)
        return bool((np.abs(y - textbook) <= bound).all())

    @cached_property
    def scales(self) -> list[np.ndarray]:
        """Per input, the length on which y varies: for x of a normalization, sqrt(var + eps)."""
        if not self._averages_batch:
            return list(map(default_scale, self.subject.inputs))
        x, *parameters = (np.asarray(a, np.float64) for a in self.subject.inputs)
        axes = tuple(i for i in range(x.ndim) if i != 1)
        sigma = np.sqrt(x.var(axis=axes, keepdims=True) + self.eps)
        sigma = np.where(sigma > 0, sigma, 1.0)
        # y is linear in gamma and beta: steps of their own size have no truncation error
        return [np.broadcast_to(sigma, x.shape), *map(default_scale, parameters)]

    def _confirmed(self, rng: np.random.Generator) -> bool:
        """Whether differences along a random direction v agree: <y_bar, J v> = <x_bar, v>.

        A forward with the values of batch norm but other derivatives, because it takes some of its
        statistics as constants, say, exceeds the bound by far in any direction.
        """
        directions = [scale * rng.normal(size=scale.shape) for scale in self.scales]
        line = along(self.subject.value, self.wide, directions)
        origin, unit = [np.zeros(1, self.wide[0].dtype)], [np.ones(1)]
        (jacobian,) = differences(line, origin, unit, self.noise)
        y_bar = rng.normal(size=np.shape(self.subject.inputs[0]))
        value, error, _ = jacobian.pull(y_bar)
        by_formula, rounding = np.longdouble(0), np.longdouble(0)
        bounds = self._textbook(y_bar).bounds(np.float64)
        for x_bar, bound, v in zip(self._closed_form(y_bar), bounds, directions, strict=True):
            by_formula += (x_bar * v).sum()
            rounding += (bound * np.abs(v)).sum()
        return bool(abs(value[0] - by_formula) <= error[0] + rounding)

    def _closed_form(self, y_bar: np.ndarray) -> list[np.ndarray]:
        wide = [np.asarray(a, np.longdouble) for a in (y_bar, *self.subject.inputs)]
        return list(batch_norm_vjp(np, *wide, eps=self.eps))

    def _textbook(self, y_bar: np.ndarray) -> Rounding:
        """The rounding of batch norm's backward pass, for a forward that looks like one."""
        with np.errstate(all="ignore"):
            given = parameters_of_batch_norm(self.subject.params)
            return normalization(y_bar, self.subject.inputs, **given)

    def conditioning(self, y_bar: np.ndarray) -> list[np.ndarray]:
        """Bounds for the effect of rounding the inputs on the cotangents.

        The Jacobian J' is computed at 4 points nearby, ``x (1 +- t)`` with random signs and
        ``t = sqrt(u)``. The size of the effect is the largest ``|J' - J|^T |y_bar| / t``, less the
        error of the differences. This costs more than the reference itself, so it is asked for
        last. The bounds of a closed form include it.
        """
        t = float(np.finfo(self.dtype).eps / 2) ** 0.5
        if not self._nearby:
            rng = np.random.default_rng(0)
            for _ in range(4):  # at a single point an element may happen not to react
                signs = [rng.choice([-1, 1], x.shape) for x in self.wide]
                point = [np.asarray(x * (1 + t * s)) for x, s in zip(self.wide, signs, strict=True)]
                self._nearby.append(self._jacobians_at(point))
        sizes = [np.zeros(x.shape) for x in self.wide]
        for jacobians in self._nearby:
            for k, (here, there) in enumerate(zip(self.jacobians, jacobians, strict=True)):
                if here.value.shape != there.value.shape:  # channels mix at one of the points
                    continue
                change, error = np.abs(here.value - there.value), here.error + there.error
                effect, error, _ = Jacobian(change, error, here.shapes).pull(np.abs(y_bar))
                sizes[k] = np.maximum(sizes[k], np.where(effect > error, (effect - error) / t, 0))
        return Rounding(sizes, self._terms).bounds(self.dtype)

    def steepest(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """The rounding of terms as large as the steepest element needs: max|y_bar| max|J|.

        If all elements are saturated, so that J is 0, a step may have missed what is smaller than
        the digits that y has between 0 and here: its slope takes the place of J.
        """
        slopes = np.abs(self.jacobians[k].value)
        is_known = np.isfinite(slopes) & (slopes > self.jacobians[k].error)
        steepest = slopes.max(initial=0, where=is_known)
        if not steepest:
            steepest = self._slope_from_0 * (1 + self._offset) / FIRST_STEP
        return self._bound(np.abs(y_bar).max(initial=0) * steepest)

    def hidden(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """The rounding of large terms that cancel inside a summand: in 1 - y^2 where y is nearly 1.

        Their size cannot be seen. It is taken to be the largest of these three:

        * the steepest derivative here or, since all elements may be saturated, between 0 and here,
        * y over the scale on which it varies,
        * the same for terms that cancel in y, whose size is ``noise / eps``: x and sin x in
          x - sin x, where 1 and cos x cancel in the derivative. A backward need not be more
          accurate than its forward.

        All of it is multiplied by ``1 + max|x| / scale``: inputs with a large mean round more.
        """
        terms_of_y = self.noise / np.finfo(self.wide[0].dtype).eps
        weight = (np.abs(y_bar) * np.maximum(np.abs(self.y), terms_of_y)).sum()
        over_scale = weight / np.broadcast_to(self.scales[k], self.wide[k].shape)
        steep = np.abs(y_bar).max(initial=0) * self._slope_from_0
        bound = np.maximum(self.steepest(k, y_bar), self._bound(np.maximum(over_scale, steep)))
        return bound * (1 + self._offset)

    @cached_property
    def _offset(self) -> float:
        """The largest input, relative to the length on which y varies."""
        pairs = zip(self.wide, self.scales, strict=True)
        return max(float((np.abs(x) / scale).max(initial=0)) for x, scale in pairs)

    @cached_property
    def _slope_from_0(self) -> float:
        """The largest mean slope of f between the points x, x/2, x/4, .. x/128."""
        parts = 2.0 ** -np.arange(8)
        top = max(float(np.abs(x).max(initial=0)) for x in self.wide)
        with np.errstate(all="ignore"):
            try:
                values = [self.value(*(part * x for x in self.wide)) for part in parts]
            except FAILURES:  # f is not defined at all of them
                return 0.0
            rises = [np.abs(a - b).max(initial=0) for a, b in pairwise(values)]
            return float(np.nan_to_num(max(rises / (np.abs(np.diff(parts)) * top)), posinf=0))

    def _bound(self, size: np.ndarray) -> np.ndarray:
        return Rounding([size], self._terms).bounds(self.dtype)[0]

    @property
    def _terms(self) -> int:
        """The number of terms of the longest sum that the shapes allow."""
        return max(self.y.size, *(x.size for x in self.subject.inputs))

    def all_expected(self, y_bars: list[np.ndarray]) -> Iterator[Expected]:
        """``expected`` for each of ``y_bars``.

        The closed form takes all of them in one call, each with channels of its own.
        """
        if not self.is_closed_form:
            yield from map(self.expected, y_bars)
            return
        n = len(y_bars)
        axes = [1, 0, 0]  # of the channels, in x, gamma and beta
        tiled = [np.concatenate([a] * n, i) for a, i in zip(self.subject.inputs, axes, strict=True)]
        together = copy(self)
        together.subject = replace(self.subject, inputs=tuple(tiled))
        joint = together.expected(np.concatenate(y_bars, 1))
        split = [
            [np.split(a, n, i) for a, i in zip(arrays, axes, strict=True)]
            for arrays in (joint.values, joint.errors, joint.bounds)
        ]
        for i in range(n):
            yield Expected(*([parts[i] for parts in arrays] for arrays in split))

    def expected(self, y_bar: np.ndarray) -> Expected:
        """The cotangents for ``y_bar``; nan where they are not finite."""
        y_bar = np.asarray(y_bar, np.longdouble)
        with np.errstate(all="ignore"):
            if self.is_closed_form:
                values, sizes = self._closed_form(y_bar), []
                errors = [np.zeros(x.shape) for x in values]
            else:
                pulled = [jacobian.pull(y_bar) for jacobian in self.jacobians]
                values, errors, sizes = map(list, zip(*pulled, strict=True))
            summands = self._textbook(y_bar) if self.normalizes else Rounding(sizes, self._terms)
            rounding = summands.bounds(self.dtype)
        bounds = [bound + error for bound, error in zip(rounding, errors, strict=True)]
        return Expected(values, errors, bounds)
