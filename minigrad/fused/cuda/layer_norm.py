"""Launches of ``layer_norm.cu``."""

from typing import Any, NamedTuple

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Launch, row_slices, rows
from minigrad.fused.cuda.kernels import sum_rows
from minigrad.fused.cuda.windows import LIMIT
from minigrad.fused.declare import same_floats

FILE = "layer_norm.cu"
INSTANCES = (
    *(f"layer_norm_{direction}<Planes<{layout}>, {held}>" for direction in ("forward", "backward")
      for layout in ("float, 4", "float, 1", "double, 2", "double, 1")
      for held in ("true", "false")),
    "layer_norm_columns<float>", "layer_norm_columns<double>",
    "sum_rows<float>", "sum_rows<double>",
)  # fmt: skip


class Cache(NamedTuple):
    """The values the backward needs."""

    x: Any
    gamma: Any
    statistics: Any  # (2, R) float64: mean and 1 / sqrt(var + eps) of each row


def accepts(x: Any, gamma: Any, beta: Any, *, eps: float = 1e-5) -> bool:
    """Whether the kernels serve this call; malformed operands are left to the op's own errors."""
    trailing = x.shape[x.ndim - gamma.ndim :]
    is_shaped = 0 < gamma.ndim <= x.ndim and gamma.shape == beta.shape == trailing
    is_small = is_shaped and x.size > 0 and max(2 * gamma.size, x.size // gamma.size) < LIMIT
    return is_small and same_floats(x, gamma, beta)


def forward(xp: Any, x: Any, gamma: Any, beta: Any, *, eps: float = 1e-5) -> tuple[Any, Cache]:
    """``ops.layer_norm`` in one launch."""
    x, gamma, beta = map(xp.ascontiguousarray, (x, gamma, beta))
    y = xp.empty(x.shape, x.dtype)
    shape = (x.size // gamma.size, gamma.size)
    statistics = xp.empty((2, shape[0]), "float64")
    aligned = kernels.is_aligned(x, gamma, beta, y)
    _run(xp, "forward", 1, shape, aligned, (x, gamma, beta, y, statistics), float(eps))
    return y, Cache(x, gamma, statistics)


def backward(xp: Any, y_bar: Any, cache: Cache) -> tuple[Any, Any, Any]:
    """The cotangents of x, gamma and beta."""
    x, gamma, statistics = cache
    y_bar = xp.ascontiguousarray(y_bar, x.dtype)
    x_bar = xp.empty(x.shape, x.dtype)
    shape = (x.size // gamma.size, gamma.size)
    aligned = kernels.is_aligned(y_bar, x, gamma, x_bar)
    _run(xp, "backward", 2, shape, aligned, (y_bar, x, gamma, statistics, x_bar))
    device = kernels.device_of(xp, x)
    slices, length = row_slices(shape, device)
    partials = xp.empty((slices, 2 * shape[1]), "float64")
    launch = Launch(-(-shape[1] // 32) * slices, device.threads, 16 * device.threads)
    instance = f"layer_norm_columns<{kernels.real(x)}>"
    arrays = (y_bar, x, statistics, partials)
    kernels.run(xp, FILE, instance, launch, *arrays, *shape, slices, length)
    both = sum_rows(xp, FILE, partials, (2, *gamma.shape), x.dtype)
    return x_bar, both[0], both[1]


def _run(
    xp: Any, direction: str, count: int, shape: tuple, aligned: bool, arrays: tuple, *last: float
) -> None:
    x = arrays[0]
    plan = rows(shape, x.dtype.itemsize, kernels.device_of(xp, x), arrays=count, aligned=aligned)
    layout = f"Planes<{kernels.real(x)}, {plan.width}>"
    instance = f"layer_norm_{direction}<{layout}, {str(plan.held).lower()}>"
    kernels.run(xp, FILE, instance, plan.launch, *arrays, *shape, plan.held_at, *last)
