"""Launches of ``batch_norm.cu``."""

from typing import Any, NamedTuple

from minigrad.fused import normalization
from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Slices, flattened, slices
from minigrad.fused.cuda.windows import LIMIT
from minigrad.ops.normalization import check_batch_norm

FILE = "batch_norm.cu"
_LAYOUTS = {"float": ("Planes<float, 4>", "Planes<float, 1>", "Columns<float>"),
            "double": ("Planes<double, 2>", "Planes<double, 1>", "Columns<double>")}  # fmt: skip
_MODES = ("true, true", "false, true", "false, false")  # held, training
INSTANCES = tuple(
    f"batch_norm_{direction}<{layout}, {mode}>"
    for direction in ("forward", "backward")
    for layouts in _LAYOUTS.values()
    for layout in layouts
    for mode in _MODES
)


class Cache(NamedTuple):
    """The values the backward needs; layers read ``mean`` and the biased (1/N) ``var``."""

    mean: Any  # (C,)
    var: Any  # (C,)
    x: Any
    gamma: Any
    statistics: Any  # (2, C) float64: mean and 1 / sqrt(var + eps)
    is_fixed: bool  # mean and var were given and are constants


def accepts(x: Any, gamma: Any, beta: Any, *, mean=None, var=None, axis=None, eps=1e-5) -> bool:
    """Whether the kernels serve this call: one real dtype, averages over every axis but 1."""
    is_usual = normalization.accepts(x, gamma, beta, mean=mean, var=var, axis=axis)
    return is_usual and x.size > 0 and max(x.shape[1], x.size // x.shape[1]) < LIMIT


def forward(
    xp: Any, x: Any, gamma: Any, beta: Any, *, mean=None, var=None, axis=None, eps=1e-5
) -> tuple[Any, Cache]:
    """``ops.batch_norm`` in one launch."""
    mean, var = (s if s is None else xp.asarray(s) for s in (mean, var))
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    x, gamma, beta = map(xp.ascontiguousarray, (x, gamma, beta))
    is_fixed = mean is not None
    c = x.shape[1]
    mean = xp.ascontiguousarray(mean) if is_fixed else xp.empty(c, x.dtype)
    var = xp.ascontiguousarray(var) if is_fixed else xp.empty(c, x.dtype)
    y, statistics = xp.empty(x.shape, x.dtype), xp.empty((2, c), "float64")
    plan = slices(
        flattened(x.shape), x.dtype.itemsize, kernels.device_of(xp, x),
        arrays=1, holds=not is_fixed, aligned=kernels.is_aligned(x, y),
    )  # fmt: skip
    arrays = (x, gamma, beta, y, statistics, mean, var)
    _run(xp, "forward", plan, x, arrays, float(eps), training=not is_fixed)
    return y, Cache(mean, var, x, gamma, statistics, is_fixed)


def backward(xp: Any, y_bar: Any, cache: Cache) -> tuple[Any, Any, Any]:
    """The cotangents of x, gamma and beta in one launch."""
    x, gamma = cache.x, cache.gamma
    y_bar = xp.ascontiguousarray(y_bar, x.dtype)
    x_bar = xp.empty(x.shape, x.dtype)
    gamma_bar, beta_bar = xp.empty(x.shape[1], x.dtype), xp.empty(x.shape[1], x.dtype)
    plan = slices(
        flattened(x.shape), x.dtype.itemsize, kernels.device_of(xp, x),
        arrays=2, holds=not cache.is_fixed, aligned=kernels.is_aligned(x, y_bar, x_bar),
    )  # fmt: skip
    arrays = (y_bar, x, gamma, cache.statistics, x_bar, gamma_bar, beta_bar)
    _run(xp, "backward", plan, x, arrays, training=not cache.is_fixed)
    return x_bar, gamma_bar, beta_bar


def _run(
    xp: Any, direction: str, plan: Slices, x: Any, arrays: tuple, *last: float, training: bool
) -> None:
    type_ = kernels.real(x)
    width = f", {plan.width}" if plan.layout == "Planes" else ""
    held, trains = (str(flag).lower() for flag in (plan.held, training))
    instance = f"batch_norm_{direction}<{plan.layout}<{type_}{width}>, {held}, {trains}>"
    uses_slots = training or direction == "backward"  # else any array will do in their place
    slots = xp.zeros(plan.slots, "uint64") if uses_slots else arrays[0]
    numbers = (*flattened(x.shape), plan.slices, plan.length, plan.held_at, *last)
    kernels.run(xp, FILE, instance, plan.launch, *arrays, slots, *numbers)
