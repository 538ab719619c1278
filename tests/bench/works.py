"""The works to be measured, the contestants to be compared, and the limits to be met."""

from dataclasses import dataclass, field
from typing import Any, Literal

from . import batch_norm, chain, depth, gpu, lenet, resnet

MAKERS: dict[str, dict[str, Any]] = {
    "chain": chain.MAKERS,
    "batch_norm": batch_norm.MAKERS,
    "lenet": lenet.MAKERS,
    "resnet": resnet.MAKERS,
    "depth": depth.MAKERS,
    "gpu_batch_norm": gpu.BATCH_NORM,
    "gpu_lenet": gpu.LENET,
}


@dataclass(frozen=True)
class Pair:
    """Two contestants and the limit of their ratio; without ``theirs`` the figure is absolute."""

    ours: str
    theirs: str = ""
    limit: float | None = None


@dataclass(frozen=True)
class Work:
    """One piece of work.

    Args:
        title: what a table calls it.
        maker: key of ``MAKERS``.
        size: arguments of the maker.
        pairs: the contestants to be compared.
        kind: ``"time"``, ``"rate"`` (examples per second, no less than the limit), ``"memory"``
            (peak of some steps), ``"growth"`` (slope of log time against log size).
        vary: for ``"growth"``: the argument that varies, and its values.
        small: arguments for a first step that loads and compiles, before memory is measured.
    """

    title: str
    maker: str
    size: dict[str, Any]
    pairs: tuple[Pair, ...]
    kind: Literal["time", "rate", "memory", "growth"] = "time"
    vary: tuple[str, tuple[int, ...]] = ("", ())
    small: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All contestants, each once."""
        found = [name for pair in self.pairs for name in (pair.ours, pair.theirs)]
        return list(dict.fromkeys(name for name in found if name))


def _batch_norm(shape: tuple[int, ...], limit: float, *more: Pair) -> Work:
    pairs = (
        Pair("minigrad", "torch", limit),
        Pair("minigrad", "jax"),
        Pair("minigrad-plain", "mygrad", 0.5),
        Pair("minigrad-plain", "torch"),
        *more,
    )
    size = {"shape": shape, "dtype": "float32"}
    return Work(f"batch norm {shape}", "batch_norm", size, pairs)


def _gpu_batch_norm(shape: tuple[int, ...], limit: float | None, *more: Pair) -> Work:
    pairs = (Pair("minigrad-cuda", "torch-cuda", limit), *more)
    size = {"shape": shape, "dtype": "float32"}
    return Work(f"batch norm {shape}", "gpu_batch_norm", size, pairs)


_LENET = {"batch": 256, "dtype": "float32"}
_SMALL = {"batch": 64, "dtype": "float32"}  # large enough to use the kernels of large batches
_BOTH = (Pair("minigrad", limit=1.05), Pair("minigrad-plain", limit=1.05), Pair("torch"))

WORKS: dict[str, tuple[Work, ...]] = {
    "chain": (
        Work("chain of 10,000 scalar ops", "chain", {"ops": 10_000, "dtype": "float32"},
             (Pair("minigrad", "torch", 0.5), Pair("minigrad", "autograd"),
              Pair("minigrad", "mygrad"))),
    ),
    "batch_norm": (
        _batch_norm((256, 1024), 0.7),
        _batch_norm((256, 6, 24, 24), 0.5),
        _batch_norm((32, 64, 56, 56), 0.5, Pair("minigrad", "copy", 2.0)),
    ),
    "lenet": (
        Work("LeNet-BN training step, batch 256", "lenet", _LENET,
             (Pair("minigrad", "torch", 0.8), Pair("minigrad-plain", "torch", 2.0),
              Pair("minigrad", "jax", 0.3), Pair("minigrad", "mygrad", 0.15))),
    ),
    "resnet": (
        Work("ResNet-BN training step, batch 64", "resnet", _SMALL,
             (Pair("minigrad", "torch"), Pair("minigrad-plain", "torch"))),
    ),
    "memory": (
        Work("peak memory of that step", "lenet", _LENET,
             (Pair("minigrad", "torch", 1.0), Pair("minigrad-plain", "torch", 1.0)),
             kind="memory", small=_SMALL),
    ),
    "growth": (
        Work("LeNet-BN step, batch 64 to 4,096", "lenet", {"dtype": "float32"}, _BOTH,
             kind="growth", vary=("batch", tuple(64 * 2**i for i in range(7)))),
        Work("1 to 1,000 batch norms in a row", "depth", {"dtype": "float32"}, _BOTH,
             kind="growth", vary=("depth", (1, 3, 10, 30, 100, 300, 1000))),
    ),
    "gpu": (
        _gpu_batch_norm((256, 1024), None),
        _gpu_batch_norm((32, 64, 56, 56), None),
        _gpu_batch_norm((256, 256, 56, 56), 1.0, Pair("minigrad-cuda", "copy-cuda", 1.25)),
        Work("LeNet-BN training step, batch 256", "gpu_lenet", _LENET,
             (Pair("minigrad-cuda", "torch-cuda"), Pair("minigrad-recorded", "torch-cuda"))),
        Work("LeNet-BN training, examples per second", "gpu_lenet", _LENET,
             (Pair("minigrad-recorded", limit=500_000.0),), kind="rate"),
    ),
}  # fmt: skip
