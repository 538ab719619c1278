"""Whether a hypothesis fits the actual numbers, and the texts of factors and formulas that fit.

A hypothesis predicts a cotangent, or the error of one. It fits if the prediction equals the actual
array within a tolerance, relative to the largest element.
"""

from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np

_TOLERANCE = 1e-6  # of explanations, relative to the largest element
_POWERS = 0, 1, 2, 3, -1, -2, -3
_LARGEST_CONSTANT = 12  # numerator or denominator of a constant formula
_LARGEST_COEFFICIENT = 4  # the same for the coefficient of a power

POWERS = (1, "{}"), (-1, "1/{}"), (2, "{}^2"), (-2, "1/{}^2")  # of a factor, with their texts
PLAIN_FACTORS = (-1.0, "wrong sign"), (2.0, "factor 2"), (0.5, "factor 1/2")


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether ``a`` is ``b`` within ``tolerance`` of its largest element; never if ``b`` is 0."""
    if a.shape != b.shape:
        return False
    size = np.abs(b).max(initial=0)
    return bool(size > 0 and np.abs(a - b).max(initial=0) <= tolerance * size)


def explains(predicted: np.ndarray, error: np.ndarray) -> bool:
    """Whether the error that a hypothesis predicts is the actual one, within the tolerance."""
    return bool(np.abs(predicted - error).max() <= _TOLERANCE * np.abs(error).max())


def tolerance_of(got: np.ndarray, expected: np.ndarray) -> float:
    """1e-6, or a tenth of the error if that is less: an explanation must account for the error."""
    return min(_TOLERANCE, 0.1 * relative_error(got, expected))


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest element of ``got``."""
    size = np.abs(got).max(initial=0)
    return float(np.abs(got - expected).max(initial=0) / size) if size else np.inf


def mean_factors(n: int, name: str = "") -> list[tuple[float, str]]:
    """Factors, with their text, of a mean for a sum or a sum for a mean of ``n`` numbers."""
    times, by = (f"{name} = {n}", f"1/{name} = 1/{n}") if name else (f"{n}", f"1/{n}")
    return [
        (float(n), f"factor {times}: perhaps a mean became a sum"),
        (1 / n, f"factor {by}: perhaps a sum became a mean"),
    ]


def root_factors(n: int, name: str = "") -> list[tuple[float, str]]:
    """Factors, with their text, of a scale 1/sqrt(n) that is left out or applied twice."""
    root = f"sqrt({name}) = sqrt({n})" if name else f"sqrt({n})"
    return [(n**0.5, f"factor {root}"), (n**-0.5, "factor " + root.replace("sqrt", "1/sqrt"))]


def names_of(deviation: float, named: Iterable[tuple[float, str]], tolerance: float) -> list[str]:
    """The texts of those factors that are 1 + deviation, within a relative tolerance."""
    return [text for c, text in named if abs(1 + deviation - c) <= tolerance * abs(c)]


def factor_text(deviation: float) -> str:
    """The factor 1 + deviation; as ``1 + 1e-10`` where it would be rounded to 1."""
    if abs(deviation) > 1e-4:
        return f"{1 + deviation:.8g}"
    return f"1 {'+' if deviation > 0 else '-'} {abs(deviation):.2g}"


def formula_of(
    d: np.ndarray, values: dict[str, np.ndarray], powers: Sequence[int] = _POWERS,
    ends: Sequence[float] = (),
) -> str:  # fmt: skip
    """A short formula of ``d`` in one of the named ``values``; empty where none fits.

    For each value: c v^n for a small fraction c, then the derivatives of common functions, and
    masks. ``ends`` are the possible ends of a range outside of which a derivative is 0.
    """
    for v, a in values.items():
        nonzero = a != 0
        for n in powers if nonzero.any() else ():
            ratio = float(np.nan_to_num(np.median(d[nonzero] / a[nonzero] ** n)))
            c = Fraction(ratio).limit_denominator(_LARGEST_CONSTANT)
            largest = _LARGEST_CONSTANT if n == 0 else _LARGEST_COEFFICIENT
            is_small = max(abs(c.numerator), c.denominator) <= largest
            if c and is_small and close(float(c) * a**n, d, _TOLERANCE):
                return _monomial(c, v, n)
    for v, a in values.items():
        forms = {
            f"1 - {v}": 1 - a, f"{v} - 1": a - 1, f"1 - {v}^2": 1 - a * a, f"1 + {v}^2": 1 + a * a,
            f"{v} (1 - {v})": a * (1 - a), f"({v} (1 - {v}))^2": (a * (1 - a)) ** 2,
            f"({v} > 0)": a > 0, f"({v} < 0)": a < 0,
            f"sign({v})": np.sign(a), f"2 |{v}|": 2 * np.abs(a), f"exp({v})": np.exp(a),
            f"1 - exp(-{v})": -np.expm1(-a),
            f"cos({v})": np.cos(a), f"sin({v})": np.sin(a), f"-sin({v})": -np.sin(a),
        }  # fmt: skip
        forms |= {f"({v} < {end:g})": a < end for end in ends}
        forms |= {f"({p:g} < {v} < {q:g})": (p < a) & (a < q) for p, q in combinations(ends, 2)}
        for form, b in forms.items():
            if close(1.0 * b, d, _TOLERANCE):
                return form
    return ""


def _monomial(c: Fraction, v: str, n: int) -> str:
    """The text of c v^n, such as ``-v/2`` or ``3/(2 v^2)``."""
    power = f"{v}^{abs(n)}" if abs(n) > 1 else v
    above = [str(abs(c.numerator))] if abs(c.numerator) > 1 or n <= 0 else []
    below = [str(c.denominator)] if c.denominator > 1 else []
    if n:
        (above if n > 0 else below).append(power)
    divisor = f"({' '.join(below)})" if len(below) > 1 else "".join(below)
    return ("-" if c < 0 else "") + " ".join(above) + (f"/{divisor}" if divisor else "")


def axes_text(axes: Collection[int]) -> str:
    """Axes in words."""
    *others, last = (str(axis) for axis in sorted(axes))
    return f"axes {', '.join(others)} and {last}" if others else f"axis {last}"
