"""Points at which a campaign examines an implementation."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.errors import UsageError, facts

Probe = tuple[str, tuple[np.ndarray, ...], dict[str, Any]]  # label, inputs, params

_SHAPES = {
    "NC": [(5, 3), (1, 3), (2, 3), (3, 3), (4, 2), (7, 5), (16, 8), (33, 17), (257, 2), (3, 260)],
    "NCHW": [(2, 3, 4, 4), (3, 2, 1, 1), (1, 2, 3, 2), (2, 2, 2, 3), (5, 3, 3, 3), (3, 5, 7, 5),
             (1, 1, 1, 1), (4, 4, 4, 4)],
}  # fmt: skip
_ONLY_FLOAT64 = {
    "NC": [(256, 1), (12, 3), (27, 2), (64, 4), (3, 40)],
    "NCHW": [(2, 3, 1, 4), (2, 3, 4, 1), (2, 1, 12, 24), (6, 33, 1, 1), (33, 2, 1, 3)],
}
_SPECIAL = ("outlier", "constant channel", "gamma 0", "gamma negative", "gamma large",
            "as initialized", "Fortran order")  # fmt: skip


def batch_norm(layouts: Sequence[str] = ("NC", "NCHW"), *, seed: int = 0) -> Iterator[Probe]:
    """Points of batch norm, ``(label, (x, gamma, beta), {"eps": eps})``.

    They have one, two, odd and even numbers of values per channel, N = C, H = W, 1 x 1 images,
    sizes around powers of two; an outlier, a constant channel, gamma 0 and negative, large offsets,
    scales from 1e-6 to 1e6, eps from 0 to 0.5, float64 and float32, Fortran order.

    Args:
        layouts: ``"NC"`` and ``"NCHW"``, one or both.
        seed: of the values.

    Raises:
        UsageError: another layout.
    """
    layouts = [layouts] if isinstance(layouts, str) else layouts
    for layout in layouts:
        if layout not in _SHAPES:
            expected = " or ".join(_SHAPES)
            raise UsageError(facts("batch_norm: layouts", expected=expected, got=repr(layout)))
    rng = np.random.default_rng(seed)
    for layout in layouts:
        for shape in _SHAPES[layout]:
            for dtype in ("float64", "float32"):
                yield _probe(rng, f"{layout} {shape} {dtype}", shape, dtype)
        for shape in _ONLY_FLOAT64[layout]:
            yield _probe(rng, f"{layout} {shape} float64", shape, "float64")
        for special in ("zeros", "integers", "beta large", "gamma small"):
            shape = _SHAPES[layout][0]
            yield _probe(rng, f"{layout} {special} float64", shape, "float64", special=special)
        yield from _values(rng, layout)


def _values(rng: np.random.Generator, layout: str) -> Iterator[Probe]:
    """Points with special values, offsets and scales, and other values of eps."""
    shape, other = ((6, 3), (9, 4)) if layout == "NC" else ((3, 2, 2, 3), (2, 3, 3, 3))
    for dtype in ("float64", "float32"):
        for eps in (0.0, 1e-8, 2e-5, 1e-4, 1e-3, 1e-2, 0.5):
            yield _probe(rng, f"{layout} eps {eps:g} {dtype}", shape, dtype, eps=eps)
        yield _probe(rng, f"{layout} eps 0 small {dtype}", shape, dtype, eps=0.0, scale=1e-6)
        for offset in (10.0, 1e2, 1e4):
            yield _probe(rng, f"{layout} offset {offset:g} {dtype}", other, dtype, offset=offset)
        for scale in (1e-6, 1e-3, 1e3, 1e6):
            yield _probe(rng, f"{layout} scale {scale:g} {dtype}", shape, dtype, scale=scale)
        for special in _SPECIAL:
            yield _probe(rng, f"{layout} {special} {dtype}", other, dtype, special=special)


def _probe(
    rng: np.random.Generator,
    label: str,
    shape: tuple[int, ...],
    dtype: str,
    *,
    eps: float = 1e-5,
    offset: float = 0.0,
    scale: float = 1.0,
    special: str = "",
) -> Probe:
    x = rng.normal(size=shape) * scale * rng.uniform(0.5, 2, size=_channels(shape)) + offset
    x = x + scale * rng.normal(size=_channels(shape))
    gamma = rng.uniform(0.5, 2.0, size=shape[1]) * rng.choice([-1, 1], size=shape[1])
    beta = rng.normal(size=shape[1])
    if special == "outlier":
        x[(0,) * len(shape)] += 1e3
    elif special == "constant channel":
        x[:, 0] = 1.25
    elif special == "gamma 0":
        gamma[0] = 0
    elif special == "gamma negative":
        gamma = -np.abs(gamma)
    elif special == "gamma large":
        gamma = gamma * 1e4
    elif special == "gamma small":
        gamma = gamma * 1e-4
    elif special == "beta large":
        beta = beta * 1e4
    elif special in ("zeros", "integers"):
        x = np.round(x * (0 if special == "zeros" else 3))
    elif special == "as initialized":
        gamma, beta = np.ones_like(gamma), np.zeros_like(beta)
    x = np.asfortranarray(x) if special == "Fortran order" else x
    arrays = (x.astype(dtype, order="K"), gamma.astype(dtype), beta.astype(dtype))
    return label, arrays, {"eps": eps}


def _channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, shape[1]) + (1,) * (len(shape) - 2)
