"""Recipes: networks with their training settings, and data sets in the form they take."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import nn, optim
from minigrad.backend import as_dtype
from minigrad.data import digits, fashion_mnist, mnist, train_test_split
from minigrad.errors import UsageError, check_count, check_number, describe, facts


@dataclass(frozen=True)
class Recipe:
    """A network and its training settings; ``batch_norm=False`` builds it without batch norm.

    ``schedule``: the learning rate is ``"constant"``, or falls to 0 over the run as a ``"cosine"``.
    """

    model: Callable[..., nn.Module]
    batch_norm: bool
    lr: float
    batch_size: int = 256
    epochs: int = 10
    momentum: float = 0.0
    schedule: str = "constant"

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            check_count(f"train: {name}", getattr(self, name))
        for name in ("lr", "momentum"):
            check_number(f"train: {name}", getattr(self, name))
        _check_name("train: schedule", self.schedule, ("constant", "cosine"))


def _check_name(what: str, name: Any, known: Iterable[str]) -> None:
    """UsageError unless ``name`` is one of the ``known`` names."""
    if not isinstance(name, str) or name not in known:
        expected = f"one of {', '.join(known)}"
        raise UsageError(facts(what, expected=expected, got=describe(name)))


_PAIRS = {
    "lenet": (nn.models.lenet, {"lr": 1.0}),  # d2l 0.17, 7.5: batch 256, 10 epochs
    "mlp": (nn.models.mlp, {"lr": 0.1}),
    "resnet": (nn.models.resnet, {"lr": 0.1, "batch_size": 128, "momentum": 0.9}),
    "rnn": (nn.models.RowRNN, {"lr": 0.2, "batch_size": 128}),
}
RECIPES = {
    name + suffix: Recipe(model, batch_norm, **settings)
    for name, (model, settings) in _PAIRS.items()
    for suffix, batch_norm in (("-bn", True), ("", False))
}
# The digits are a small data set. Smaller batches give it more steps, and a falling learning rate
# lets the running statistics settle although the steps are still few.
_FOR_DIGITS = {"batch_size": 32, "schedule": "cosine"}
_DIGITS_LR = {"lenet": 1.0, "mlp": 0.1, "resnet": 0.05, "rnn": 0.1}
DATASETS = ("digits", "fashion-mnist", "mnist")


@dataclass(frozen=True)
class Images:
    """Images (N, 1, side, side) in [0, 1], and labels (N,)."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def side(self) -> int:
        return self.train[0].shape[-1]


def variant(model: str, batch_norm: bool | None) -> str:
    """The recipe name ``model`` with or without ``-bn``; unchanged if ``batch_norm`` is None."""
    if batch_norm is None or not isinstance(model, str):
        return model  # recipe() refuses what is no string
    return model.removesuffix("-bn") + "-bn" * bool(batch_norm)


def recipe(model: str, data: str = "fashion-mnist", **changes: Any) -> Recipe:
    """The recipe ``model`` for the data set ``data``; ``changes`` that are not None override it.

    Raises:
        UsageError: no such recipe, or a number out of its range.

    >>> spec = mg.train.recipe("lenet-bn")
    >>> spec.batch_norm, spec.lr, spec.batch_size, spec.epochs
    (True, 1.0, 256, 10)
    """
    model = variant(model, changes.get("batch_norm"))
    _check_name("no such model", model, RECIPES)
    _check_name("no such data set", data, DATASETS)
    spec = RECIPES[model]
    if data == "digits":
        spec = replace(spec, **_FOR_DIGITS, lr=_DIGITS_LR[model.removesuffix("-bn")])
    return replace(spec, **{k: v for k, v in changes.items() if v is not None})


def load_images(name: str, root: str | Path | None = None, dtype: Any = "float32") -> Images:
    """The data set ``name``; ``root`` is the folder with the files of the two MNISTs.

    The digits are split at random, with seed 0, into 1,437 training and 360 test images.

    Raises:
        UsageError: no such data set. DTypeError: ``dtype`` is not a floating one.
    """
    _check_name("no such data set", name, DATASETS)
    dtype = as_dtype(dtype, "f", "load_images: dtype", "a floating dtype")
    if name == "digits" and root is not None:
        raise UsageError(facts("train: root", expected="no folder: the digits need none", got=root))
    if name == "digits":
        images, labels = digits()
        x = (images / 16).reshape(-1, 1, 8, 8).astype(dtype)
        train_x, train_y, test_x, test_y = train_test_split(x, labels, test=360)
        return Images((train_x, train_y), (test_x, test_y))
    parts = (fashion_mnist if name == "fashion-mnist" else mnist)(root)
    train, test = (x[:, None].astype(dtype) / dtype.type(255) for x in parts[::2])
    return Images((train, parts.train_labels), (test, parts.test_labels))


def build(spec: Recipe, images: Images, *, device: str, dtype: str, seed: int) -> tuple:
    """A new network on ``device``, its optimizer and the schedule of the learning rate."""
    classes = int(images.train[1].max()) + 1
    rng = np.random.default_rng(seed)
    net = spec.model(spec.batch_norm, side=images.side, classes=classes, rng=rng)
    net.to(device, dtype)
    optimizer = optim.SGD(net.parameters(), lr=spec.lr, momentum=spec.momentum)
    if spec.schedule == "cosine":
        return net, optimizer, optim.CosineAnnealingLR(optimizer, spec.epochs)
    return net, optimizer, optim.LambdaLR(optimizer, lambda epoch: 1.0)
