"""Whether one array explains another, and how a number is said."""

import numpy as np

_MILLIONTH = 1e-6  # of a cotangent: how far an explanation may be off


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
