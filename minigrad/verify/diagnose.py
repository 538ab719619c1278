"""From a wrong cotangent to the likely cause, by fitting it against what would explain it."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from minigrad.verify.rounding import looks_like_batch_norm
from minigrad.verify.subject import BackwardFailed, Subject

_MILLIONTH = 1e-6  # of a cotangent: how far an explanation may be off


@dataclass(frozen=True)
class Sample:
    """One cotangent of one input, as it was got and as it was expected."""

    kind: str
    y_bar: np.ndarray
    got: np.ndarray
    expected: np.ndarray  # nan where not known
    bound: np.ndarray

    @cached_property
    def excess_of(self) -> np.ndarray:
        """Error over bound, per element; 0 where nothing is known."""
        tiny = np.finfo(np.longdouble).tiny
        floor = np.finfo(self.got.dtype).tiny * 64  # an underflow is no fault
        with np.errstate(all="ignore"):
            error = np.abs(np.asarray(self.got, np.longdouble) - self.expected)
            excess = np.where(error == 0, 0, error / np.maximum(self.bound + floor, tiny))
        excess = np.where(np.isnan(excess), np.inf, excess)
        return np.where(np.isfinite(self.expected), excess, 0)

    @property
    def excess(self) -> float:
        return float(self.excess_of.max(initial=0))

    @property
    def ok(self) -> bool:
        return self.excess <= 1

    @property
    def vacuous(self) -> bool:
        """Whether nothing could have been found wrong: no element known, or none left to differ."""
        known = np.isfinite(self.expected)
        return not bool((known & ((self.expected != 0) | (self.got != 0))).any())

    @property
    def telling(self) -> tuple[bool, bool, float]:
        """What to sort by: the last one tells most. Random cotangents explain more than others."""
        return not self.ok, not self.ok and self.kind == "random", self.excess

    def worst(self) -> tuple[tuple[int, ...], float, float, float]:
        """Index, expected, got and bound where the error is largest relative to its bound."""
        if not self.got.size:
            return (), 0.0, 0.0, 0.0
        index = np.unravel_index(int(np.argmax(self.excess_of)), self.expected.shape)
        at = tuple(int(i) for i in index)
        return at, float(self.expected[at]), float(np.asarray(self.got)[at]), float(self.bound[at])


def cause_of(subject: Subject, k: int, samples: list[Sample]) -> str:
    """The likely cause of the wrong cotangent of input ``k``; empty where nothing fits.

    Tried in turn: nothing computed, special cotangents only, a place (one element, row or channel),
    the same for every cotangent, a constant factor, a factor per channel, the paths of batch norm,
    a permutation, float32 inside.
    """
    random = [s for s in samples if s.kind == "random" and np.isfinite(s.got).all()]
    if subject.dtype.itemsize < 8:
        subject, random = _in_float64(subject, k, random)
    if not random:
        return ""
    if all(s.ok for s in random):
        kinds = [s.kind for s in samples if not s.ok]
        return f"only for {' and '.join(dict.fromkeys(kinds))} cotangents"
    where = _place(random)
    got = np.stack([np.asarray(s.got, np.float64) for s in random])
    expected = np.stack([np.asarray(s.expected, np.float64) for s in random])
    known = np.isfinite(expected)
    got, expected = np.where(known, got, 0), np.where(known, expected, 0)
    if where:
        bad = np.stack([s.excess_of > 1 for s in random]).any(axis=0)
        factor = _factor(subject, got[:, bad], expected[:, bad])
        return f"{where}: {factor}" if factor else where
    if len(got) > 1 and got.any() and (got == got[0]).all():
        return "y_bar is missing: it is the same for every y_bar"
    what = _factor(subject, got, expected) or _channel_factor(subject, k, got, expected)
    what = what or _paths(subject, k, random, _tolerance(got, expected))
    return what or _permuted(got, expected) or _narrow(random[0].got.dtype, got, expected)


def _in_float64(subject: Subject, k: int, samples: list[Sample]) -> tuple[Subject, list[Sample]]:
    """The same faults with more digits, where the code takes float64 and is wrong there, too."""
    wide = subject.at([x.astype(np.float64) for x in subject.inputs])
    try:
        found = [np.asarray(wide.pull(s.y_bar.astype(np.float64))[k]) for s in samples]
    except BackwardFailed:
        return subject, samples
    if any(got.shape != s.got.shape for got, s in zip(found, samples, strict=True)):
        return subject, samples
    seen = [replace(s, got=got) for got, s in zip(found, samples, strict=True)]
    return (subject, samples) if all(s.ok for s in seen) else (wide, seen)


def _place(samples: list[Sample]) -> str:
    """The wrong elements, if they are few: one element, one row, one channel."""
    bad = np.stack([s.excess_of > 1 for s in samples]).any(axis=0)
    if bad.all() or not bad.ndim or bad.size < 3:
        return ""
    where = np.argwhere(bad)
    if len(where) == 1:
        return f"only element {[int(i) for i in where[0]]}"
    for axis, kind in (
        (0, "row"),
        (1, "channel"),
        (2, "position on axis 2"),
        (3, "position on axis 3"),
    ):
        if axis >= bad.ndim or (bad.ndim == 1 and axis == 0 and kind == "row"):
            break
        found = np.unique(where[:, axis])
        if len(found) <= max(1, bad.shape[axis] // 2) and len(found) < bad.shape[axis]:
            last = len(found) == 1 and found[0] == bad.shape[axis] - 1 and bad.shape[axis] > 2
            return f"only the last {kind}" if last else f"only {kind} {[int(i) for i in found]}"
    return "only some elements" if bad.mean() < 0.2 else ""


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether a explains b but for this part of it."""
    if a.shape != b.shape:
        return False
    size = np.abs(b).max(initial=0)
    return bool(size > 0 and np.abs(a - b).max(initial=0) <= tolerance * size)


def _tolerance(got: np.ndarray, expected: np.ndarray) -> float:
    """A millionth, or a tenth of the error: what explains less of it than that explains nothing."""
    return min(_MILLIONTH, 0.1 * _relative_error(got, expected))


def _relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    size = np.abs(got).max(initial=0)
    return float(np.abs(got - expected).max(initial=0) / size) if size else np.inf


def _narrow(dtype: np.dtype, got: np.ndarray, expected: np.ndarray) -> str:
    """An error of the size of float32 rounding in a result that is wider."""
    eps = float(np.finfo(np.float32).eps)
    fits = dtype.itemsize >= 8 and 1e-3 * eps < _relative_error(got, expected) < 16 * eps
    return "an error as large as rounding in float32: lower precision inside" if fits else ""


def _factor(subject: Subject, got: np.ndarray, expected: np.ndarray) -> str:
    """got = c * expected for one number c."""
    if not np.abs(got).max(initial=0) and np.abs(expected).max(initial=0):
        return "it is zero: nothing is computed"
    norm, tolerance = float((expected * expected).sum()), _tolerance(got, expected)
    off = float(((got - expected) * expected).sum()) / norm if norm else 0.0  # c - 1, in all digits
    if not norm or not _close(expected + off * expected, got, tolerance):
        return ""
    for value, name in _named_numbers(subject).items():
        if abs(1 + off - value) <= tolerance * abs(value):
            return name
    return f"constant factor {_written(off)}"


def _written(off: float) -> str:
    """The number 1 + off, as ``1 + 1e-10`` where its digits would hide that it is not 1."""
    sign = "+" if off > 0 else "-"
    return f"{1 + off:.8g}" if abs(off) > 1e-4 else f"1 {sign} {abs(off):.2g}"


def _named_numbers(subject: Subject) -> dict[float, str]:
    x = subject.inputs[0]
    n, c = (x.shape[0], x.shape[1]) if x.ndim >= 2 else (x.size, 1)
    m = x.size // max(c, 1)
    numbers = {-1.0: "sign", 2.0: "factor 2", 0.5: "factor 1/2"}
    for value, name in (
        (m, "N" if m == n else "N H W"),
        (n, "N"),
        (m // max(n, 1), "H W"),
        (c, "C"),
        (x.size, "x.size"),
    ):
        if value > 1:
            numbers.setdefault(value / (value - 1), f"factor {name}/({name} - 1)")
            numbers.setdefault((value - 1) / value, f"factor ({name} - 1)/{name}")
            numbers.setdefault(float(value), f"factor {name}: a mean became a sum")
            numbers.setdefault(1 / value, f"factor 1/{name}: a sum became a mean")
    return numbers


def _statistics(subject: Subject) -> dict[str, np.ndarray]:
    """Quantities of batch norm per channel, of shape (C, 1, ..) against x."""
    x, gamma, _ = (np.asarray(a, np.float64) for a in subject.inputs)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    eps = float(subject.params.get("eps", 1e-5))
    mu = x.mean(axis=axes, keepdims=True)
    var = x.var(axis=axes, keepdims=True)
    return {"x": x, "gamma": gamma.reshape(mu.shape), "mu": mu, "var": var,
            "inv_std": 1 / np.sqrt(var + eps), "eps": np.asarray(eps)}  # fmt: skip


def _is_norm(subject: Subject) -> bool:
    y = np.asarray(subject.run()[0])
    return looks_like_batch_norm(y, subject.inputs, dict(subject.params))


def _channel_factor(subject: Subject, k: int, got: np.ndarray, expected: np.ndarray) -> str:
    """got = c[channel] * expected for a known quantity c."""
    if len(subject.inputs) != 3 or subject.inputs[0].ndim < 2:
        return ""
    tolerance = _tolerance(got, expected)
    with np.errstate(all="ignore"):
        s = _statistics(subject)
        gamma, r, var = s["gamma"], s["inv_std"], s["var"]
        factors = {
            "factor gamma": gamma, "factor 1/gamma": 1 / gamma, "factor inv_std": r,
            "factor 1/inv_std": 1 / r, "factor inv_std^2": r * r,
            "factor var + eps": 1 / (r * r), "factor sqrt(var/(var + eps)): eps": np.sqrt(var) * r,
            "eps is missing": 1 / (np.sqrt(var) * r), "factor gamma^2": gamma * gamma,
        }  # fmt: skip
        for name, factor in factors.items():
            factor = factor.reshape(-1) if k else factor
            if np.isfinite(factor).all() and _close(expected * factor, got, tolerance):
                return name
    return ""


def _paths(subject: Subject, k: int, samples: list[Sample], tolerance: float) -> str:
    """Fit against the terms of the analytic derivation of batch norm."""
    if not _is_norm(subject):
        return ""
    with np.errstate(all="ignore"):
        s = _statistics(subject)
        if k == 0:
            return _x_paths(s, samples, tolerance)
        return _parameter_paths(s, k, samples, tolerance)


def _x_paths(s: dict[str, np.ndarray], samples: list[Sample], tolerance: float) -> str:
    """x_bar = a direct + b mean path + c variance path, with a, b, c to find."""
    axes = tuple(i for i in range(s["x"].ndim) if i != 1)
    n = s["x"].size // s["x"].shape[1]
    by_eps = {"": s["inv_std"], " with eps missing": 1 / np.sqrt(s["var"])}
    for suffix, r in by_eps.items():
        if not np.isfinite(r).all():
            continue
        x_hat = (s["x"] - s["mu"]) * s["inv_std"]
        columns = []
        for sample in samples:
            g = sample.y_bar.astype(np.float64) * s["gamma"]
            mean_path = -g.mean(axis=axes, keepdims=True) + 0 * g
            variance_path = -x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
            columns.append(
                np.stack([(r * part).reshape(-1) for part in (g, mean_path, variance_path)])
            )
        terms = np.concatenate(columns, axis=1).T
        got = np.concatenate([np.asarray(s.got, np.float64).reshape(-1) for s in samples])
        weights = np.linalg.lstsq(terms, got, rcond=None)[0]
        if _close(terms @ weights, got, tolerance):
            return _in_words(weights, n, tolerance) + suffix
    return ""


def _in_words(weights: np.ndarray, n: int, tolerance: float) -> str:
    parts = []
    for weight, path in zip(weights, ("direct path", "mean path", "variance path"), strict=True):
        if abs(weight - 1) < tolerance:
            continue
        if abs(weight) < tolerance:
            parts.append(f"missing {path}")
        elif abs(weight + 1) < tolerance:
            parts.append(f"sign of the {path}")
        else:
            names = {2.0: "2", 0.5: "1/2", float(n): "N", 1 / n: "1/N",
                     n / max(n - 1, 1): "N/(N - 1)", (n - 1) / n: "(N - 1)/N"}  # fmt: skip
            near = [v for key, v in names.items() if abs(weight - key) <= tolerance * key]
            parts.append(f"factor {near[0] if near else _written(weight - 1)} in the {path}")
    return " and ".join(parts)


def _parameter_paths(
    s: dict[str, np.ndarray], k: int, samples: list[Sample], tolerance: float
) -> str:
    """gamma_bar = sum(y_bar x_hat), beta_bar = sum(y_bar): with something else in the sum."""
    axes = tuple(i for i in range(s["x"].ndim) if i != 1)
    xc = s["x"] - s["mu"]
    instead = {
        "sum(y_bar x_hat)": xc * s["inv_std"], "sum(y_bar x): x is not normalized": s["x"],
        "sum(y_bar xc): inv_std is missing": xc, "sum(y_bar): x_hat is missing": 0 * xc + 1,
        "sum(y_bar xc / sqrt(var)): eps is missing": xc / np.sqrt(s["var"]),
        "sum(y_bar x inv_std): the mean is missing": s["x"] * s["inv_std"],
        "sum(y_bar gamma x_hat): gamma is too much": s["gamma"] * xc * s["inv_std"],
    }  # fmt: skip

    def close(a: np.ndarray, sample: Sample) -> bool:
        return _close(a, np.asarray(sample.got), tolerance)

    for name, factor in instead.items():
        whole = [(s_.y_bar * factor).sum(axis=axes) for s_ in samples]
        if all(close(a, s_) for a, s_ in zip(whole, samples, strict=True)):
            return f"computes {name}"
        for axis in range(s["x"].ndim):
            rest = tuple(i for i in axes if i != axis)
            last = [(s_.y_bar * factor).sum(axis=tuple(i for i in range(s["x"].ndim) if i != axis))
                    for s_ in samples]  # fmt: skip
            same = all(close(a, s_) for a, s_ in zip(last, samples, strict=True))
            if axis != 1 and same:
                return f"wrong axes: computes {name} over all axes but {axis}"
            partial = [(s_.y_bar * factor).sum(axis=rest) for s_ in samples] if rest != axes else []
            for position in (0, -1):
                if partial and all(
                    close(np.take(a, position, axis=-1 if a.ndim > 1 else 0), s_)
                    for a, s_ in zip(partial, samples, strict=True)
                    if a.ndim > 1
                ) and partial[0].ndim > 1:  # fmt: skip
                    return f"wrong axes: axis {axis} is not summed"
    return ""


def _permuted(got: np.ndarray, expected: np.ndarray) -> str:
    """The right numbers in the wrong places."""
    ndim, tolerance = expected.ndim - 1, _tolerance(got, expected)
    if ndim >= 2:
        for a in range(1, ndim + 1):
            for b in range(a + 1, ndim + 1):
                turned = np.swapaxes(expected, a, b)
                if turned.shape == got.shape and _close(turned, got, tolerance):
                    return f"transposed: axes {a - 1} and {b - 1} are exchanged"
    for axis in range(1, ndim + 1):
        if _close(np.flip(expected, axis), got, tolerance):
            return f"reversed along axis {axis - 1}"
        if any(_close(np.roll(expected, shift, axis), got, tolerance) for shift in (1, -1)):
            return f"shifted along axis {axis - 1}"
    return ""
