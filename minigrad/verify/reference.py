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
from minigrad.verify.subject import FAILURES, ForwardFailed, Subject, are_batch_norms


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
        bounds = zip(self._rounding(y_bar).bounds(np.float64), ways, strict=True)
        rounding = sum((bound * np.abs(way)).sum() for bound, way in bounds)
        return bool(abs(value[0] - by_hand) <= error[0] + rounding)

    def _closed_form(self, y_bar: np.ndarray) -> list[np.ndarray]:
        wide = [np.asarray(a, np.longdouble) for a in (y_bar, *self.subject.inputs)]
        return list(batch_norm_vjp(np, *wide, eps=self.eps))

    def _rounding(self, y_bar: np.ndarray) -> Rounding:
        subject = self.subject
        textbook = None  # of no use where y has another shape, as after a sum or a pool
        if are_batch_norms(subject.inputs) and y_bar.shape == subject.inputs[0].shape:
            with np.errstate(all="ignore"):
                textbook = normalization(y_bar, subject.inputs, eps=self.eps)
        if textbook is not None and self.normalizes:
            return textbook
        sizes = [j.pull(y_bar)[2] for j in self.jacobians]
        if textbook is not None or self.dtype.itemsize >= 8:  # else wider numbers tell more
            # what cancels in one element, as 1 - y^2 does, may be as large as the steepest one
            sizes = [np.maximum(size, self._steepest(k, y_bar)) for k, size in enumerate(sizes)]
        if textbook is not None:  # a relative of batch norm: the same things cancel
            sizes = self._conditioned(sizes, y_bar)
            pairs = zip(sizes, textbook.sizes, strict=True)
            sizes = [np.fmax(size, np.where(np.isfinite(t), t, 0)) for size, t in pairs]
        return Rounding(sizes, self._terms)

    def _conditioned(self, sizes: list[np.ndarray], y_bar: np.ndarray) -> list[np.ndarray]:
        """What a relative error u in x does to x_hat, and so to the cotangents of x and gamma."""
        x, gamma, _ = (np.asarray(a, np.longdouble) for a in self.subject.inputs)
        j = self.jacobians[0]
        if len(j.value) != x.shape[1]:
            return sizes
        rows = np.moveaxis(np.abs(x), 1, 0).reshape(x.shape[1], -1)
        moved = np.einsum("cyx,cx->cy", np.abs(j.value), rows).max(axis=1, initial=0)
        with np.errstate(all="ignore"):
            amplified = np.nan_to_num(moved / np.abs(gamma), nan=0.0, posinf=0.0)
        others = tuple(i for i in range(x.ndim) if i != 1)
        along = amplified.reshape((-1,) + (1,) * (x.ndim - 2))
        total = np.abs(np.asarray(y_bar, np.longdouble)).sum(axis=others)
        return [sizes[0] * (1 + along), sizes[1] + total * amplified, sizes[2]]

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

    def _steepest(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """The size of the largest finite derivative with respect to input ``k``."""
        slopes = np.abs(self.jacobians[k].value)
        return np.abs(y_bar).max(initial=0) * slopes.max(initial=0, where=np.isfinite(slopes))

    def steepest(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """A bound of what rounds in an element that is made with what the steepest one needs."""
        return self._bound(self._steepest(k, y_bar))

    def hidden(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """A bound of what rounds where something large cancels, as in 1 - y^2 where y is all but 1.

        Of the size of the largest slope between 0 and here, which is not seen where all elements
        are saturated; or of y itself over the length on which it varies. An input that is large
        against that length, as beside its mean, brings as much larger rounding.
        """
        sizes = [self._steepest(k, y_bar), self._slope * np.abs(y_bar).max(initial=0)]
        sizes.append(self._over_scale(k, np.abs(self.y), y_bar))
        pairs = zip(self.wide, self.scales, strict=True)
        offset = max(float((np.abs(x) / scale).max(initial=0)) for x, scale in pairs)
        size = np.max(np.broadcast_arrays(*sizes), axis=0) * (1 + offset)
        return self._bound(np.nan_to_num(size))

    def left(self, k: int, y_bar: np.ndarray) -> np.ndarray:
        """A bound of what rounds where something large cancels in y, which its noise shows.

        As 1 and cos x do in the derivative of x - sin x: no backward need be better than forward.
        """
        noise = self.noise / np.finfo(self.wide[0].dtype).eps
        return self._bound(self._over_scale(k, noise, y_bar))

    def _over_scale(self, k: int, size: np.ndarray, y_bar: np.ndarray) -> np.ndarray:
        return (np.abs(y_bar) * size).sum() / np.broadcast_to(self.scales[k], self.wide[k].shape)

    @cached_property
    def _slope(self) -> float:
        """The largest one between 0 and here."""
        subject, parts = self.subject, 2.0 ** -np.arange(8)
        top = max((float(np.abs(x).max(initial=0)) for x in subject.inputs), default=0.0)
        with np.errstate(all="ignore"):
            try:
                values = [subject.value(*(part * x for x in self.wide)) for part in parts]
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
            rounding = self._rounding(y_bar).bounds(self.dtype)
            if self.closed:
                exact = self._closed_form(y_bar)
                return Expected(exact, [np.zeros(x.shape) for x in exact], rounding)
            pulled = [jacobian.pull(y_bar)[:2] for jacobian in self.jacobians]
        values, errors = ([two[i] for two in pulled] for i in (0, 1))
        bounds = [bound + error for bound, error in zip(rounding, errors, strict=True)]
        return Expected(values, errors, bounds)
