"""What the cotangents should be, and how far a right backward may be off.

The reference is the Jacobian of the implementation's *own* forward, by differences. Where that
forward is batch norm to rounding, the closed form in long double takes over after differences
have confirmed it: it has no step size and costs the same for any size of input.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from minigrad.analytic import batch_norm, batch_norm_vjp
from minigrad.errors import ShapeError
from minigrad.verify.kinks import Kinks
from minigrad.verify.numeric import Jacobian, default_scale, differences, working_precision
from minigrad.verify.rounding import Rounding, looks_like_batch_norm, normalization
from minigrad.verify.subject import FAILURES, ForwardFailed, Subject


@dataclass(frozen=True)
class Expected:
    """Cotangents and bounds of their error."""

    values: list[np.ndarray]
    errors: list[np.ndarray]  # of the values themselves
    bounds: list[np.ndarray]  # of a right backward's distance from them

    def of(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, error and bound for input ``k``."""
        return self.values[k], self.errors[k], self.bounds[k]


@dataclass(frozen=True)
class Function:
    """What a reference needs of a subject that has no backward of its own."""

    value: Callable[..., np.ndarray]
    inputs: tuple[np.ndarray, ...]
    dtype: np.dtype  # the coarsest one: what comes of it is rounded in it
    params: Mapping[str, Any] = field(default_factory=dict)


class ShapeChanges(ForwardFailed, ShapeError):
    """The output has another shape at a point nearby: there is nothing to differentiate."""


class Reference:
    """Expected cotangents of one subject for any cotangent of its output.

    Args:
        subject: the function at its point.
        y: its output there.
        rng: of the direction along which a closed form is confirmed; None: none may take over.

    Raises:
        ShapeChanges: the shape of the output depends on the values of the inputs.
    """

    def __init__(
        self, subject: Subject | Function, y: np.ndarray, rng: np.random.Generator | None = None
    ):
        self.subject = subject
        self._nearby: list[list[Jacobian]] = []  # at points nearby, once they are asked for
        self.normalizes = looks_like_batch_norm(y, subject.inputs, dict(subject.params))
        self.scales = self._scales()
        self.y, self.dtype = y, subject.dtype
        self.wide, self.noise = working_precision(self.value, subject.inputs, self.scales)
        self.closed = False
        if rng is not None and self.normalizes and self._is_batch_norm():
            self.closed = self._confirmed(rng)
        if not self.closed:
            self.jacobians = differences(self.value, self.wide, self.scales, self.noise)

    def value(self, *inputs: np.ndarray) -> np.ndarray:
        """The output at other inputs, of the shape that it has here."""
        y = np.asarray(self.subject.value(*inputs))
        if y.shape != self.y.shape:
            here = f"y has shape {self.y.shape} here and {y.shape} nearby"
            raise ShapeChanges(f"{here}: it depends on the values of the inputs")
        return y

    @cached_property
    def kinks(self) -> Kinks:
        """Those of this point, where something is to be held against them."""
        return Kinks(self.value, self.wide, self.noise)

    @property
    def undefined(self) -> str:
        """Why nothing is right or wrong here; empty where all derivatives are finite."""
        known = self.closed or all(np.isfinite(j.value).all() for j in self.jacobians)
        return "" if known else "the function has no finite derivative at this point"

    @property
    def eps(self) -> float:
        """That of batch norm; its default where forward is given none."""
        return self.subject.params.get("eps", 1e-5)

    def _is_batch_norm(self) -> bool:
        """Whether the forward is the textbook one, to rounding in working precision."""
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

    def _scales(self) -> list[np.ndarray]:
        """Steps of x on the scale of sqrt(var + eps) if that is what the forward varies on."""
        if not self.normalizes:
            return list(map(default_scale, self.subject.inputs))
        x, *parameters = (np.asarray(a, np.float64) for a in self.subject.inputs)
        axes = tuple(i for i in range(x.ndim) if i != 1)
        sigma = np.sqrt(x.var(axis=axes, keepdims=True) + self.eps)
        sigma = np.where(sigma > 0, sigma, 1.0)
        # gamma and beta enter linearly: a step of their own size has no truncation error
        return [np.broadcast_to(sigma, x.shape), *map(default_scale, parameters)]

    def _confirmed(self, rng: np.random.Generator) -> bool:
        """Whether differences along a random direction v agree: <y_bar, J v> = <x_bar, v>.

        What has the values of batch norm here and other derivatives, such as a part of it with
        frozen statistics, misses the bound by far, in whatever direction.
        """
        ways = [scale * rng.normal(size=scale.shape) for scale in self.scales]

        def along(t: np.ndarray) -> np.ndarray:
            moved = [x + t[0] * way for x, way in zip(self.wide, ways, strict=True)]
            return self.subject.value(*moved)

        origin, unit = [np.zeros(1, self.wide[0].dtype)], [np.ones(1)]
        (jacobian,) = differences(along, origin, unit, self.noise)
        y_bar = rng.normal(size=np.shape(self.subject.inputs[0]))
        value, error, _ = jacobian.pull(y_bar)
        pairs = list(zip(self._closed_form(y_bar), ways, strict=True))
        by_hand = sum((exact * way).sum() for exact, way in pairs)
        bounds = zip(self._textbook(y_bar).bounds(np.float64), ways, strict=True)
        rounding = sum((bound * np.abs(way)).sum() for bound, way in bounds)
        return bool(abs(value[0] - by_hand) <= error[0] + rounding)

    def _closed_form(self, y_bar: np.ndarray) -> list[np.ndarray]:
        wide = [np.asarray(a, np.longdouble) for a in (y_bar, *self.subject.inputs)]
        return list(batch_norm_vjp(np, *wide, eps=self.eps))

    def _textbook(self, y_bar: np.ndarray) -> Rounding:
        """What batch norm rounds, where the forward looks like one."""
        with np.errstate(all="ignore"):
            return normalization(y_bar, self.subject.inputs, eps=self.eps)

    def conditioning(self, y_bar: np.ndarray) -> list[np.ndarray]:
        """Bounds of what the rounding of the inputs does to the cotangents, where that is seen.

        From differences at points nearby, which cost more than the reference itself: only what
        fails without them asks. A closed form has them in its bounds.
        """
        small = float(np.finfo(self.dtype).eps / 2) ** 0.5
        if not self._nearby:
            rng = np.random.default_rng(0)
            for _ in range(4):  # one alone may miss what an element reacts to
                signs = [rng.choice([-1, 1], x.shape) for x in self.wide]
                point = [
                    np.asarray(x * (1 + small * s)) for x, s in zip(self.wide, signs, strict=True)
                ]
                self._nearby.append(differences(self.value, point, self.scales))
        sizes = [np.zeros(x.shape) for x in self.wide]
        for found in self._nearby:
            for k, (here, there) in enumerate(zip(self.jacobians, found, strict=True)):
                if here.value.shape != there.value.shape:  # channels mix at one of the points
                    continue
                change, error = np.abs(here.value - there.value), here.error + there.error
                # summand by summand: what cancels matters here, too
                seen, error, _ = Jacobian(change, error, here.shapes).pull(np.abs(y_bar))
                sizes[k] = np.maximum(sizes[k], np.where(seen > error, (seen - error) / small, 0))
        return Rounding(sizes, self._terms).bounds(self.dtype)

    def steepest(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """A bound of what rounds in an element that is made with what the steepest one needs."""
        slopes = np.abs(self.jacobians[k].value)
        steepest = slopes.max(initial=0, where=np.isfinite(slopes))
        return self._bound(np.abs(y_bar).max(initial=0) * steepest)

    def hidden(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """A bound of what rounds where something large cancels, as in 1 - y^2 where y is all but 1.

        Of the size of the largest slope here, or between 0 and here, where all elements are
        saturated; or of y over the length on which it varies; or of what cancels in y, which its
        noise shows, as 1 and cos x do in the derivative of x - sin x: no backward need be better
        than forward. An input that is large against the length on which y varies, as beside its
        mean, brings as much larger rounding.
        """
        noise = self.noise / np.finfo(self.wide[0].dtype).eps
        weight = (np.abs(y_bar) * np.maximum(np.abs(self.y), noise)).sum()
        over_scale = weight / np.broadcast_to(self.scales[k], self.wide[k].shape)
        steep = np.abs(y_bar).max(initial=0) * self._slope
        pairs = zip(self.wide, self.scales, strict=True)
        offset = max(float((np.abs(x) / scale).max(initial=0)) for x, scale in pairs)
        size = np.maximum(self.steepest(k, y_bar), self._bound(np.maximum(over_scale, steep)))
        return size * (1 + offset)

    @cached_property
    def _slope(self) -> float:
        """The largest one between 0 and here."""
        parts = 2.0 ** -np.arange(8)
        top = max(float(np.abs(x).max(initial=0)) for x in self.wide)
        with np.errstate(all="ignore"):
            try:
                values = [self.value(*(part * x for x in self.wide)) for part in parts]
            except FAILURES:  # it is not defined all the way
                return 0.0
            rises = [np.abs(a - b).max(initial=0) for a, b in pairwise(values)]
            return float(np.nan_to_num(max(rises / (np.abs(np.diff(parts)) * top)), posinf=0))

    def _bound(self, size: np.ndarray) -> np.ndarray:
        return Rounding([size], self._terms).bounds(self.dtype)[0]

    @property
    def _terms(self) -> int:
        """Of the longest sum, as far as shapes tell."""
        return max(self.y.size, *(x.size for x in self.wide))

    def all_expected(self, y_bars: list[np.ndarray]) -> Iterator[Expected]:
        """``expected`` of each: the closed form takes them as more channels, all in one call."""
        if not self.closed:
            yield from map(self.expected, y_bars)
            return
        n, one = len(y_bars), self.subject
        together = copy(self)
        axes = [1, 0, 0]  # of the channels
        tiled = [np.concatenate([a] * n, i) for a, i in zip(one.inputs, axes, strict=True)]
        together.subject = replace(one, inputs=tuple(tiled))
        found = together.expected(np.concatenate(y_bars, 1))
        split = [
            [np.split(a, n, i) for a, i in zip(three, axes, strict=True)]
            for three in (found.values, found.errors, found.bounds)
        ]
        for i in range(n):
            yield Expected(*([part[i] for part in three] for three in split))

    def expected(self, y_bar: np.ndarray) -> Expected:
        """The cotangents for ``y_bar``; nan where they are not finite."""
        y_bar = np.asarray(y_bar, np.longdouble)
        with np.errstate(all="ignore"):
            if self.closed:
                values, sizes = self._closed_form(y_bar), []
                errors = [np.zeros(x.shape) for x in values]
            else:
                pulled = [jacobian.pull(y_bar) for jacobian in self.jacobians]
                values, errors, sizes = map(list, zip(*pulled, strict=True))
            known = self._textbook(y_bar) if self.normalizes else Rounding(sizes, self._terms)
            rounding = known.bounds(self.dtype)
        bounds = [bound + error for bound, error in zip(rounding, errors, strict=True)]
        return Expected(values, errors, bounds)
