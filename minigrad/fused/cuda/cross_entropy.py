"""Launches of ``cross_entropy.cu``."""

from typing import Any, NamedTuple

from minigrad.fused.cuda import kernels
from minigrad.fused.cuda.geometry import Device, Launch, elementwise
from minigrad.fused.declare import same_floats

FILE = "cross_entropy.cu"
_TYPES = [(real, integer) for real in ("float", "double") for integer in ("int", "long long")]
INSTANCES = (
    *(f"cross_entropy_rows<{real}, {integer}>" for real, integer in _TYPES),
    *(f"cross_entropy_backward<{real}, {integer}>" for real, integer in _TYPES),
    *(f"count_right<{real}, {integer}>" for real, integer in _TYPES),
    "cross_entropy_mean<float>", "cross_entropy_mean<double>",
)  # fmt: skip


class Cache(NamedTuple):
    """The values the backward needs."""

    logits: Any
    labels: Any
    rows: Any  # (N, 2): the maximum, and log(sum_j e^(x_j - maximum))


def accepts(logits: Any, labels: Any) -> bool:
    """Whether the kernels serve this call; malformed operands are left to the op's own errors."""
    is_shaped = logits.ndim == 2 and logits.shape[:1] == labels.shape and logits.size > 0
    return is_shaped and same_floats(logits) and labels.dtype.kind in "iu"


def forward(xp: Any, logits: Any, labels: Any) -> tuple[Any, Cache]:
    """``ops.cross_entropy``; labels are not checked on the host, an invalid one gives nan."""
    logits, labels = _placed(xp, logits, labels)
    n, k = logits.shape
    rows, losses = xp.empty((n, 2), logits.dtype), xp.empty(n, "float64")
    loss = xp.empty((), logits.dtype)
    device, real = kernels.device_of(xp, logits), kernels.real(logits)
    launch = elementwise(32 * n, device)
    instance = f"cross_entropy_rows<{real}, {_integer(labels)}>"
    kernels.run(xp, FILE, instance, launch, logits, labels, rows, losses, n, k)
    kernels.run(xp, FILE, f"cross_entropy_mean<{real}>", _one_block(device), losses, loss, n)
    return loss, Cache(logits, labels, rows)


def backward(xp: Any, y_bar: Any, cache: Cache) -> tuple[Any, None]:
    """``(softmax - one_hot) y_bar / N``; labels have no cotangent."""
    logits, labels, rows = cache
    y_bar = xp.ascontiguousarray(y_bar, logits.dtype)
    logits_bar = xp.empty(logits.shape, logits.dtype)
    launch = elementwise(logits.size, kernels.device_of(xp, logits))
    instance = f"cross_entropy_backward<{kernels.real(logits)}, {_integer(labels)}>"
    arrays = (y_bar, logits, labels, rows, logits_bar)
    kernels.run(xp, FILE, instance, launch, *arrays, *logits.shape)
    return logits_bar, None


def count_right(xp: Any, logits: Any, labels: Any) -> Any:
    """The number of rows whose largest logit is at their label; for small matrices."""
    logits, labels = _placed(xp, logits, labels)
    right = xp.empty((), "int64")
    instance = f"count_right<{kernels.real(logits)}, {_integer(labels)}>"
    launch = _one_block(kernels.device_of(xp, logits))
    kernels.run(xp, FILE, instance, launch, logits, labels, right, *logits.shape)
    return right


def _placed(xp: Any, logits: Any, labels: Any) -> tuple[Any, Any]:
    """Both in C order, labels as int32 or int64."""
    integer = "int32" if labels.dtype.itemsize == 4 and labels.dtype.kind == "i" else "int64"
    return xp.ascontiguousarray(logits), xp.ascontiguousarray(labels, integer)


def _one_block(device: Device) -> Launch:
    return Launch(1, device.threads, 8 * (device.threads // 32))


def _integer(labels: Any) -> str:
    """The C++ name of the dtype of labels."""
    return "int" if labels.dtype.itemsize == 4 else "long long"
