"""A cotangent as the sweep derives it and as written by hand: two graphs for one picture."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.composite import label
from minigrad.context import scope, setting
from minigrad.core.sweep import backward_sweep
from minigrad.errors import DTypeError, ShapeError, UsageError, describe, facts
from minigrad.tensor import Tensor, tensor
from minigrad.viz.graph import root_of

DERIVED, BY_HAND = "derived by the sweep", "written by hand"


def beside(
    f: Callable,
    closed_form: Callable,
    inputs: Collection[Any],
    *,
    argnum: int = 0,
    names: Sequence[str] | None = None,
    seed: Any = None,
    **params: Any,
) -> list[Tensor]:
    """Record the cotangent of one input twice: by a sweep through ``f``, and in closed form.

    Draw both with ``draw(beside(...), path)``: each is in a cluster with its number of ops.

    Args:
        f: tensors -> Tensor, such as ``minigrad.batch_norm``.
        closed_form: ``(xp, y_bar, *inputs, **params)`` -> a tuple of cotangents, such as
            ``minigrad.analytic.batch_norm_vjp``; it must work with minigrad's ops as ``xp``.
        inputs: one array per input.
        argnum: the position of the input whose cotangent is recorded.
        names: the names of the inputs; None calls them x1, x2 ...
        seed: the cotangent of the result; None takes evenly spaced numbers from -1 to 1.
        **params: parameters of both functions.

    Returns:
        The two cotangents: the derived one, then the one written by hand.

    >>> both = mg.viz.beside(mg.square, lambda xp, y_bar, x: (2 * x * y_bar,), [3.0])
    >>> [x_bar.item() for x_bar in both]
    [-6.0, -6.0]
    """
    names = names or [f"x{i + 1}" for i in range(len(inputs))]
    n = len(inputs)
    if len(names) != n:
        raise UsageError(facts("beside: names", expected=f"{n}, one per input", got=len(names)))
    if argnum not in range(-n, n):
        raise UsageError(
            facts("beside: argnum", expected=f"the position of one of {n} inputs", got=argnum)
        )
    xs = [tensor(x, requires_grad=True, name=name) for x, name in zip(inputs, names, strict=True)]
    with setting(recording=True):
        with scope(DERIVED):
            y = f(*xs, **params)
            root = root_of("beside", y)
            y_bar = _seed(seed, y)
            x = xs[argnum]
            derived = backward_sweep(root, y_bar, [x.node], record=True)[x.node]
        with scope(BY_HAND):
            bars = closed_form(ops, y_bar, *xs, **params)
    one_each = isinstance(bars, tuple) and len(bars) == n
    by_hand = bars[argnum] if one_each else bars
    if not one_each or not isinstance(by_hand, Tensor):
        expected = f"a tuple of {n} tensors, one per input"
        raise DTypeError(facts("beside: closed form", expected=expected, got=describe(by_hand)))
    if derived is None or derived.shape != by_hand.shape:
        got = f"{by_hand.shape} by hand, {'none' if derived is None else derived.shape} derived"
        raise ShapeError(facts("beside: cotangents", expected=f"two of shape {x.shape}", got=got))
    return [label(bar, f"{names[argnum]}_bar") for bar in (derived, by_hand)]


def _seed(seed: Any, y: Tensor) -> Tensor:
    if seed is None:
        seed = np.linspace(-1.0, 1.0, y.size).reshape(y.shape)
    return tensor(seed, dtype=y.dtype, requires_grad=True, name="y_bar", device=y.device)
