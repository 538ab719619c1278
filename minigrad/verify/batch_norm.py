"""Batch norm on real images, differentiated three ways: the main target of ``minigrad verify``."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from minigrad import analytic, backend, ops
from minigrad.data import digits
from minigrad.errors import UsageError, facts
from minigrad.tensor import Tensor, tensor
from minigrad.verify.randomness import generator
from minigrad.verify.report import Report
from minigrad.verify.three_way import three_way

NAMES = ("x", "gamma", "beta")
# where the variance is 0, x moves by fractions of sqrt(eps), which a pixel must not absorb
_MIN_EPS = 1e-20


@dataclass(frozen=True)
class Problem:
    """Batch norm of a mini-batch: inputs, parameters, and the seed of a random ``y_bar``."""

    inputs: tuple[np.ndarray, np.ndarray, np.ndarray]
    params: dict[str, Any]
    seed: int

    def report(self, device: str = "cpu") -> Report:
        """Check the gradient by ``three_way``.

        Raises:
            UsageError: the differences would take hours, or all of the memory.
        """
        report = three_way(
            ops.batch_norm,
            analytic.batch_norm_vjp,
            self.inputs,
            names=NAMES,
            rng=self.seed,
            device=device,
            **self.params,
        )
        report.title = "batch_norm, traced, analytic and numeric"
        return report

    def cotangent(self) -> np.ndarray:
        """The random cotangent of the output that ``report`` uses."""
        x = self.inputs[0]
        return generator(self.seed).normal(size=x.shape).astype(x.dtype)

    def recorded(self, device: str = "cpu") -> Tensor:
        """The recorded output, for a drawing."""
        x, gamma, beta = (
            tensor(array, requires_grad=True, name=name, device=device)
            for name, array in zip(NAMES, self.inputs, strict=True)
        )
        params = {
            key: tensor(value, name=key, device=device) if isinstance(value, np.ndarray) else value
            for key, value in self.params.items()
        }
        y = ops.batch_norm(x, gamma, beta, **params)
        y.name = "y"
        return y

    def traced(self, device: str = "cpu") -> Tensor:
        """The recorded output after a backward sweep."""
        y = self.recorded(device)
        y.backward(backend.to_device(self.cotangent(), device))
        return y


def problem(
    *,
    shape: tuple[int, ...] = (16, 64),
    axes: tuple[int, ...] | None = None,
    mode: str = "train",
    dtype: str = "float64",
    eps: float = 1e-5,
    gamma: float | None = None,
    seed: int = 0,
) -> Problem:
    """Batch norm of pixels of the UCI digits, which have constant columns.

    Args:
        shape: (N, C) or (N, C, ...); pixels are taken in order, image by image.
        axes: the axes that are averaged; None means every axis but 1.
        mode: ``"train"`` uses the statistics of the batch, ``"eval"`` those of all images.
        dtype: ``"float64"`` or ``"float32"``.
        eps: added to the variance.
        gamma: one value for every channel; random where None.
        seed: of gamma, beta and the cotangent.

    Raises:
        UsageError: a shape, axis, mode, dtype, eps or gamma that makes no sense.
    """
    _check(shape, axes, mode, dtype, eps, gamma)
    images, _ = digits()
    x = np.empty(shape, dtype)
    x.flat[:] = images  # repeated as often as needed
    averaged = tuple(i for i in range(len(shape)) if i != 1) if axes is None else axes
    if eps < _MIN_EPS and mode == "train" and (x.min(averaged) == x.max(averaged)).any():
        remedy = f"use an eps of {_MIN_EPS} or more, or a shape whose channels vary, such as 64,4"
        got = f"eps {eps:g} with constant channels in x {shape}"
        expected = "a variance + eps that finite differences can tell from 0"
        raise UsageError(facts("batch_norm", expected=expected, got=got, remedy=remedy))
    rng = np.random.default_rng(seed)
    channels = shape[1]
    scale = rng.normal(size=channels) if gamma is None else np.full(channels, gamma)
    shift = rng.normal(size=channels)
    params: dict[str, Any] = {"eps": eps} if axes is None else {"eps": eps, "axis": axes}
    if mode == "eval":
        params["mean"] = np.full(channels, images.mean(), dtype)
        params["var"] = np.full(channels, images.var(), dtype)
    arrays = x, scale.astype(dtype), shift.astype(dtype)
    return Problem(arrays, params, seed)


def _are_axes(axes: tuple, ndim: int) -> bool:
    return len({axis % ndim for axis in axes if -ndim <= axis < ndim}) == len(axes)


def _check(
    shape: tuple, axes: tuple | None, mode: str, dtype: str, eps: float, gamma: float | None
) -> None:
    largest = float(np.finfo("float32" if dtype == "float32" else "float64").max)
    wrong = {
        "a shape of at least two positive lengths": len(shape) < 2 or min(shape) < 1,
        "fewer than 2**60 elements": prod(shape) >= 2**60,  # NumPy's limit, in bytes, is 2**63
        "distinct axes within the shape": axes is not None and not _are_axes(axes, len(shape)),
        "mode train or eval": mode not in ("train", "eval"),
        "mode train when axes are given": axes is not None and mode == "eval",
        "dtype float64 or float32": dtype not in ("float64", "float32"),
        f"a finite eps of at least 0 in {dtype}": not 0 <= eps <= largest,
        f"a finite gamma in {dtype}": gamma is not None and not abs(gamma) <= largest,
    }
    for expected, is_wrong in wrong.items():
        if is_wrong:
            got = f"shape {shape}, axes {axes}, mode {mode}, dtype {dtype}, eps {eps}"
            got += "" if gamma is None else f", gamma {gamma}"
            raise UsageError(facts("batch_norm", expected=expected, got=got))
