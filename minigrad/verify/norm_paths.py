"""What is wrong in the backward of a normalization: which path, which statistic, which axes.

``y = gamma x_hat + beta`` with ``x_hat = (x - mu) / sqrt(var + eps)``, averaged over any axes:
batch norm, instance norm, layer norm, or ``x_hat`` alone. ``x_bar`` is the sum of a direct path,
one through the mean and one through the variance.

``norm_of`` recognizes a normalization by its expected ``x_bar``: about the sum of the three paths.
``explain`` fits the actual ``x_bar`` by the same paths with other weights, or with a mistake inside
(gamma or eps missing, x for x_hat), and the cotangents of the parameters by sums of other products
or over other axes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, combinations
from math import prod
from typing import Any

import numpy as np

from minigrad.verify.case import Case, Hypothesis
from minigrad.verify.fit import axes_text, factor_text, names_of, relative_error
from minigrad.verify.subject import Subject

_PATHS = "direct path", "mean path", "variance path"
_EPS = 0.0, *10.0 ** -np.arange(1, 13)
_EXACT = 1e-6  # relative residual of x_bar where all details of the formula are known
_NOISE = 1e-10  # a smaller residual does not tell one variant from another
_LARGEST_COUNT = 1000  # that a mistaken divisor may be
_ROUGH = 0.1  # the same where some detail, such as the place of eps, may be another one


@dataclass(frozen=True)
class Norm:
    """A normalization at one point; parameters and statistics broadcast against ``x``."""

    x: np.ndarray
    gamma: np.ndarray
    axes: tuple[int, ...]  # that are averaged
    batch: tuple[int, ...]  # along which gamma and beta are broadcast
    eps: Any  # squared divisor minus variance: a number, or an array for other formulas
    slope: Any = 1  # the derivative of the squared divisor by the variance
    is_exact: bool = False  # whether it gives the expected x_bar, not only about that

    @cached_property
    def mu(self) -> np.ndarray:
        return self.x.mean(axis=self.axes, keepdims=True)

    @cached_property
    def var(self) -> np.ndarray:
        return self.x.var(axis=self.axes, keepdims=True)

    @cached_property
    def inv_std(self) -> np.ndarray:
        return 1 / np.sqrt(self.var + self.eps)

    @cached_property
    def xc(self) -> np.ndarray:
        return self.x - self.mu

    def paths(
        self, y_bar: np.ndarray, outer: np.ndarray | None = None, inner: np.ndarray | None = None,
        axes: tuple[int, ...] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """The direct path, the mean path and the variance path, whose sum is x_bar.

        With ``g = gamma y_bar`` the variance path is ``-inv_std slope x_hat mean(g x_hat)``;
        ``outer`` and ``inner`` replace the first and the second x_hat, ``axes`` those of means.
        """
        axes = tuple(i + 1 for i in (self.axes if axes is None else axes))
        g, x_hat = y_bar * self.gamma, self.xc * self.inv_std
        mean_path = np.broadcast_to(-g.mean(axis=axes, keepdims=True), g.shape)
        outer, inner = x_hat if outer is None else outer, x_hat if inner is None else inner
        variance_path = -self.slope * outer * (g * inner).mean(axis=axes, keepdims=True)
        return self.inv_std * np.stack([g, mean_path, variance_path])

    @property
    def count(self) -> int:
        """How many numbers are averaged."""
        return self.x.size // max(self.mu.size, 1)

    def fitted_eps(self, y_bar: np.ndarray, x_bar: np.ndarray) -> float:
        """The eps with which x_bar is the sum of the paths; 0 if none is.

        What is orthogonal to 1 and x_hat in ``g = gamma y_bar`` is multiplied by inv_std alone.
        """
        axes = tuple(i + 1 for i in self.axes)
        g, x_hat = y_bar * self.gamma, self.xc / np.sqrt(self.var)
        g = g - g.mean(axis=axes, keepdims=True)
        g = g - x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
        inv_std = (g * x_bar).sum(axis=axes, keepdims=True) / (g * g).sum(axis=axes, keepdims=True)
        each = 1 / inv_std**2 - self.var
        each = each[np.isfinite(each)]
        return max(0.0, float(f"{np.median(each):.3g}")) if each.size else 0.0

    def forms(self, *others: float) -> Iterator[tuple[str, "Norm"]]:
        """Variants: another eps, also each of ``others``, eps outside of the root, the unbiased
        variance."""
        std, unbiased = np.sqrt(self.var), self.var / max(self.count - 1, 1)
        is_plain = isinstance(self.eps, float)
        for eps in [self.eps, *_EPS, *others] if is_plain else [*_EPS, *others]:
            number = f"eps = {eps:g}" if eps else "eps is missing"
            words = number if is_plain else f"{number} in the root of the biased variance"
            yield words, replace(self, eps=eps, slope=1)
            offset, slope = (std + eps) ** 2 - self.var, 1 + eps / std
            yield f"{number} outside the root", replace(self, eps=offset, slope=slope)
            slope = 1 + 1 / max(self.count - 1, 1)
            words = f"{number} in the root of the unbiased variance"
            yield words, replace(self, eps=unbiased + eps, slope=slope)


def norm_of(case: Case) -> Norm | None:
    """The normalization that a forward of (x, gamma, beta), or x alone, computes.

    The nearest one among all axes is taken, and its nearest variant, if that is exact.
    """
    y_bar, x_bar = case.y_bar, case.right[0]
    best, limit = None, _ROUGH
    with np.errstate(all="ignore"):
        for norm in _candidates(case.subject) if x_bar.shape == y_bar.shape else ():
            weights, residual = _weights(norm.paths(y_bar), x_bar)
            if (np.abs(weights - 1) < 0.5).all() and residual < limit:
                best, limit = norm, residual
        if best is None:
            return None
        # an eps far below var changes x_bar by less than _EXACT: the first exact one may be wrong
        variants = [norm for _, norm in best.forms(best.fitted_eps(y_bar, x_bar))]
        residuals = [relative_error(x_bar, norm.paths(y_bar).sum(0)) for norm in variants]
        nearest = np.nanargmin(np.maximum(residuals, _NOISE))
        is_exact = residuals[nearest] <= _EXACT
        return replace(variants[nearest], is_exact=True) if is_exact else best


def _weights(paths: np.ndarray, x_bar: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights of the paths that fit ``x_bar`` best, and the relative residual."""
    terms, x_bar = paths.reshape(len(paths), -1).T, x_bar.reshape(-1)
    if not np.isfinite(terms).all():
        return np.zeros(len(paths)), np.inf
    weights = np.linalg.lstsq(terms, x_bar, rcond=None)[0]
    return weights, float(np.abs(terms @ weights - x_bar).max() / np.abs(x_bar).max())


def _candidates(subject: Subject) -> Iterator[Norm]:
    """Normalizations of (x, gamma, beta), (x, gamma) or x over any axes.

    The parameters are aligned with axis 1 or with the trailing axes, or have an axis of length 1
    for each axis along which they are broadcast.
    """
    x, *parameters = (np.asarray(a, np.float64) for a in subject.inputs)
    shapes = {p.shape for p in parameters}
    if not x.size or len(parameters) > 2 or len(shapes) > 1:
        return
    eps = float(subject.params.get("eps", 1e-5))
    every = tuple(range(x.ndim))
    gamma = parameters[0] if parameters else np.ones(())
    aligned = []  # gamma, and the axes along which it is broadcast
    if gamma.ndim <= x.ndim and gamma.shape == x.shape[x.ndim - gamma.ndim :]:
        aligned.append((gamma, every[: x.ndim - gamma.ndim]))
    if x.ndim > 2 and gamma.shape == x.shape[1:2]:
        aligned.append((gamma.reshape(-1, *(1,) * (x.ndim - 2)), (0, *every[2:])))
    if gamma.ndim == x.ndim and all(n in (1, m) for n, m in zip(gamma.shape, x.shape, strict=True)):
        aligned.append((gamma, tuple(i for i in every if gamma.shape[i] == 1)))
    for gamma, batch in aligned:
        for n in range(1, x.ndim + 1):
            for axes in combinations(every, n):
                yield Norm(x, gamma, axes, batch, eps)


def explain(norm: Norm, case: Case) -> str:
    """The mistake in the cotangent of x, gamma or beta; empty where none fits."""
    with np.errstate(all="ignore"):
        others = _parameter_bar(norm, case) if case.k else _with_other_eps(norm, case)
        cause = case.cause_in(chain(_factor(norm, case), others))
        return cause or ("" if case.k else _weighted_paths(norm, case))


def _factor(norm: Norm, case: Case) -> Iterator[Hypothesis]:
    """got = c expected, with a known quantity c per channel."""
    shape = case.expected.shape[1:]
    gamma, r, var = norm.gamma, norm.inv_std, norm.var
    factors = {
        "factor gamma": gamma, "factor 1/gamma: gamma is missing": 1 / gamma, "factor inv_std": r,
        "factor 1/inv_std": 1 / r, "factor inv_std^2": r * r,
        "factor var + eps": 1 / (r * r), "eps is missing": 1 / (np.sqrt(var) * r),
        "factor 1/gamma^2: / gamma instead of * gamma": 1 / (gamma * gamma),
    }  # fmt: skip
    for name, factor in factors.items():
        if factor.size == prod(shape):  # of a parameter
            yield name, case.expected * factor.reshape(shape)
        elif len(shape) == norm.x.ndim or factor.size == 1:
            yield name, case.expected * factor


def _with_other_eps(norm: Norm, case: Case) -> Iterator[Hypothesis]:
    for form, variant in norm.forms():
        yield f"{form}, unlike in forward", variant.paths(case.y_bar).sum(0)


def _weighted_paths(norm: Norm, case: Case) -> str:
    """x_bar = a direct path + b mean path + c variance path, for fitted a, b, c.

    The paths are right, or the same mistake is inside all of them or inside one.
    """
    y_bar = case.y_bar
    paths = norm.paths(y_bar)
    without_gamma = replace(norm, gamma=np.ones(())).paths(y_bar)
    mistakes = {
        "eps is missing": paths / (np.sqrt(norm.var) * norm.inv_std),
        "gamma is missing": without_gamma,
        "gamma is applied after the means": norm.gamma * without_gamma,
        "inv_std is missing": paths / norm.inv_std,
        "inv_std^2 is missing": paths / norm.inv_std**2,
        "an extra inv_std": paths * norm.inv_std,
    }
    candidates = {"": paths, **mistakes}
    for mistake, terms in mistakes.items():
        for i, name in enumerate(_PATHS):
            one_wrong = np.stack([*paths[:i], terms[i], *paths[i + 1 :]])
            candidates[f"{mistake} in the {name}"] = one_wrong
        both = " and the ".join(_PATHS[1:])
        candidates[f"{mistake} in the {both}"] = np.stack([paths[0], *terms[1:]])
    x = norm.x
    replaced = {"x_hat is missing": 0 * x + 1, "x instead of x_hat": x,
                "x is not centered": x * norm.inv_std}  # fmt: skip
    for mistake, value in replaced.items():
        outside, inside = norm.paths(y_bar, outer=value), norm.paths(y_bar, inner=value)
        candidates[f"{mistake} in the variance path"] = outside
        candidates[f"{mistake} in the mean of the variance path"] = inside
    if np.ndim(norm.slope):
        mistake = "eps is differentiated as if inside the root in the variance path"
        candidates[mistake] = replace(norm, slope=1).paths(y_bar)
    powers = {"(var + eps)^(-3/4)": norm.inv_std**1.5, "var^(-3/2)": norm.var**-1.5}
    for power, factor in powers.items():
        variance_path = paths[2] / norm.inv_std**3 * factor
        mistake = f"{power} instead of (var + eps)^(-3/2) in the variance path"
        candidates[mistake] = np.stack([*paths[:2], variance_path])
    for mistake, terms in candidates.items():
        weights, residual = _weights(terms, case.got)
        if residual <= case.tolerance:
            words = _weights_text(weights, norm, case.tolerance), mistake
            return " and ".join(filter(None, words))
    return _wrong_axes(norm, case, paths)


def _wrong_axes(norm: Norm, case: Case, paths: np.ndarray) -> str:
    """The mean or the variance path, or both, sum over other axes, and divide by N or the number of
    terms."""
    lengths = norm.x.shape
    longer = [i for i, length in enumerate(lengths) if length > 1]
    right = [i for i in norm.axes if i in longer]
    for axes in chain.from_iterable(combinations(longer, n) for n in range(1, len(longer) + 1)):
        wrong = norm.paths(case.y_bar, axes=axes)
        share = norm.count / prod(lengths[i] for i in axes)
        for chosen in ((1,), (2,), (1, 2)) if list(axes) != right else ():
            terms = np.stack([wrong[i] if i in chosen else paths[i] for i in range(len(paths))])
            weights, residual = _weights(terms, case.got)
            is_usual = [
                min(abs(w - 1), abs(w * share - 1) if i in chosen else 1) < case.tolerance
                for i, w in enumerate(weights)
            ]
            if residual <= case.tolerance and all(is_usual):
                both = " and the ".join(_PATHS[i] for i in chosen)
                sums = "sum" if len(chosen) > 1 else "sums"
                return f"the {both} {sums} over {axes_text(axes)}, not over {axes_text(right)}"
    return ""


def _weights_text(weights: np.ndarray, norm: Norm, tolerance: float) -> str:
    """The weights that are not 1, in words, with the names of numbers made of the count N."""
    n = norm.count
    named = [(2.0, "2"), (0.5, "1/2"), (n, "N"), (1 / n, "1/N"),
             (n / max(n - 1, 1), "N/(N - 1)"), ((n - 1) / n, "(N - 1)/N")]  # fmt: skip
    names = [names_of(weight - 1, named, tolerance) for weight in weights]
    divisor = round(n / weights[1]) if n <= _LARGEST_COUNT * abs(weights[1]) else 0
    axes = [axis for axis, length in enumerate(norm.x.shape) if length == divisor]
    if divisor > 1 and divisor != n and (axes or not names[1]):
        share = n / divisor
        if (np.abs(weights - np.array([1, share, share])) < tolerance).all():
            of_axis = f", the length of axis {axes[0]}" if axes else ""
            both = "the mean path and the variance path"
            return f"{both} divide by {divisor}{of_axis}, not by N = {n}"
    parts = []
    for weight, path, near in zip(weights, _PATHS, names, strict=True):
        if abs(weight - 1) < tolerance:
            continue
        if abs(weight) < tolerance:
            parts.append(f"missing {path}")
        elif abs(weight + 1) < tolerance:
            parts.append(f"wrong sign of the {path}")
        else:
            factor = " or ".join(near) or factor_text(weight - 1)
            parts.append(f"factor {factor} in the {path}")
    return " and ".join(parts)


def _parameter_bar(norm: Norm, case: Case) -> Iterator[Hypothesis]:
    """gamma_bar = sum(y_bar x_hat), beta_bar = sum(y_bar): another factor, or other axes."""
    x, xc, r, shape = norm.x, norm.xc, norm.inv_std, case.got.shape
    factors = {
        "sum(y_bar x_hat)": xc * r, "sum(y_bar x): x is not normalized": x,
        "sum(y_bar xc): inv_std is missing": xc,
        "sum(y_bar)" + ": x_hat is missing" * (case.k == 1): 0 * xc + 1,
        "sum(y_bar x inv_std): the mean is missing": x * r,
    }  # fmt: skip
    factors |= {f"sum(y_bar x_hat): {form}": xc * each.inv_std for form, each in norm.forms()}
    batch = tuple(i + 1 for i in norm.batch)
    for name, factor in factors.items():
        summands = case.y_bar * factor
        sums = [(f"computes {name}", summands.sum(axis=batch))]
        for axis in batch:
            but = tuple(i for i in range(1, summands.ndim) if i != axis)
            text = f"wrong axes: computes {name} over all axes but {axis - 1}"
            sums.append((text, summands.sum(axis=but)))
            unsummed = summands.sum(axis=tuple(i for i in batch if i != axis), keepdims=True)
            for position in (0, -1):
                part = np.take(unsummed, position, axis=axis)
                sums.append((f"wrong axes: axis {axis - 1} is not summed", part))
        yield from ((text, a.reshape(shape)) for text, a in sums if a.size == case.got.size)
