"""Whether one array explains another, and how a number or a formula is said."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np

_MILLIONTH = 1e-6  # of a cotangent: how far an explanation may be off
_POWERS = 0, 1, 2, 3, -1, -2, -3
_SMALL = 12  # what a formula divides or multiplies by, at most


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether a explains b but for this part of it."""
    if a.shape != b.shape:
        return False
    size = np.abs(b).max(initial=0)
    return bool(size > 0 and np.abs(a - b).max(initial=0) <= tolerance * size)


def tolerance_of(got: np.ndarray, expected: np.ndarray) -> float:
    """A millionth, or a tenth of the error: what explains less of it than that explains nothing."""
    return min(_MILLIONTH, 0.1 * relative_error(got, expected))


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a part of the largest element that was got."""
    size = np.abs(got).max(initial=0)
    return float(np.abs(got - expected).max(initial=0) / size) if size else np.inf


def averaged(n: int, name: str = "") -> list[tuple[float, str]]:
    """What is off where ``n`` numbers, called ``name``, are summed for a mean, or averaged."""
    times, by = (f"{name} = {n}", f"1/{name} = 1/{n}") if name else (f"{n}", f"1/{n}")
    return [
        (float(n), f"factor {times}: perhaps a mean became a sum"),
        (1 / n, f"factor {by}: perhaps a sum became a mean"),
    ]


def rooted(n: int, name: str = "") -> list[tuple[float, str]]:
    """What is off where the scale 1/sqrt(n) of a sum of ``n`` numbers is left out, or too much."""
    root = f"sqrt({name}) = sqrt({n})" if name else f"sqrt({n})"
    return [(n**0.5, f"factor {root}"), (n**-0.5, "factor " + root.replace("sqrt", "1/sqrt"))]


def written(off: float) -> str:
    """The number 1 + off, as ``1 + 1e-10`` where its digits would hide that it is not 1."""
    sign = "+" if off > 0 else "-"
    return f"{1 + off:.8g}" if abs(off) > 1e-4 else f"1 {sign} {abs(off):.2g}"


def formula_of(
    d: np.ndarray, values: dict[str, np.ndarray], powers: Sequence[int] = _POWERS,
    ends: Sequence[float] = (),
) -> str:  # fmt: skip
    """A short formula of ``d`` in one of these values, by their names; empty where none fits.

    ``ends`` are those of a range in which a derivative may be 1, and 0 elsewhere.
    """
    for v, a in values.items():
        forms = {
            f"1 - {v}": 1 - a, f"{v} - 1": a - 1, f"1 - {v}^2": 1 - a * a, f"1 + {v}^2": 1 + a * a,
            f"{v} (1 - {v})": a * (1 - a), f"({v} (1 - {v}))^2": (a * (1 - a)) ** 2,
            f"({v} > 0)": a > 0, f"({v} < 0)": a < 0,
            f"sign({v})": np.sign(a), f"2 |{v}|": 2 * np.abs(a), f"exp({v})": np.exp(a),
            f"cos({v})": np.cos(a), f"sin({v})": np.sin(a), f"-sin({v})": -np.sin(a),
        }  # fmt: skip
        forms |= {f"({v} < {end:g})": a < end for end in ends}
        forms |= {f"({p:g} < {v} < {q:g})": (p < a) & (a < q) for p, q in combinations(ends, 2)}
        some = a != 0
        for n in powers if some.any() else ():
            factors = d[some] / a[some] ** n
            c = Fraction(float(np.nan_to_num(np.median(factors)))).limit_denominator(_SMALL)
            is_small = max(abs(c.numerator), c.denominator) <= (_SMALL if n == 0 else 4)
            if c and is_small and close(float(c) * a**n, d, _MILLIONTH):
                return _monomial(c, v, n)
        for form, one in forms.items():
            if close(1.0 * one, d, _MILLIONTH):
                return form
    return ""


def _monomial(c: Fraction, v: str, n: int) -> str:
    """c v^n, as it is written."""
    power = f"{v}^{abs(n)}" if abs(n) > 1 else v
    over = [str(c.numerator)] * (abs(c.numerator) > 1 or n <= 0) + [power] * (n > 0)
    under = [str(c.denominator)] * (c.denominator > 1) + [power] * (n < 0)
    sign = "-" * (c == -abs(c) and n > 0 and abs(c.numerator) == 1)
    below = f"({' '.join(under)})" if len(under) > 1 else "".join(under)
    return sign + " ".join(over) + (f"/{below}" if below else "")
