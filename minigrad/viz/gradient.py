"""Which gradient a picture shows for each value, or why it shows none.

``backward`` keeps gradients on leaves, and its seed on the result. The gradients of intermediate
values are computed once more: by a sweep from those seeds, over plain arrays, that stores nothing.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.backend import namespace, to_host
from minigrad.context import setting
from minigrad.core.node import Node, ancestors
from minigrad.core.sweep import backward_sweep
from minigrad.observer import Observer
from minigrad.viz.graph import Recorded

CONSTANT = "no gradient requested"
MISSING = "not computed"


@dataclass(frozen=True)
class Gradient:
    """The gradient of a value; ``note`` says more about it, or why ``array`` is None."""

    array: Any = None
    note: str = ""


@dataclass(frozen=True)
class Swept:
    """What a picture shows of the backward sweeps.

    Attributes:
        gradients: for each wanted node its gradient, or why there is none.
        norms: (node, i) -> the Euclidean norm of the cotangent that passed input i of the node.
        paths: how many contributions were summed for each node.
    """

    gradients: dict[Node, Gradient]
    norms: dict[tuple[Node, int], float]
    paths: Counter[Node]


def swept(recorded: Recorded, wanted: Iterable[Node]) -> Swept:
    """Sweep once more from the seeds that the results keep; leaves show what they keep."""
    gradients = dict.fromkeys(wanted, Gradient(note=CONSTANT))
    targets = [node for node in gradients if node.requires_grad]
    contributions = _Contributions()
    totals, seeds, reason = _totals(recorded, targets, contributions)
    paths = Counter(node.parents[i] for node, i in contributions.passed)
    for node in targets:
        if node.op is None:
            gradients[node] = _of_leaf(node, totals)
        elif totals is not None:
            note = _note_of_seed(paths[node]) if node in seeds else ""
            gradients[node] = Gradient(totals[node], MISSING if totals[node] is None else note)
        elif node.grad is not None:
            gradients[node] = Gradient(node.grad.array)
        else:
            gradients[node] = Gradient(note=reason)
    if totals is None:
        return Swept(gradients, {}, Counter())
    return Swept(gradients, contributions.norms(), paths)


class _Contributions(Observer):
    """Sums the cotangents that pass each op input, over all sweeps."""

    def __init__(self):
        self.passed: dict[tuple[Node, int], Any] = {}

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        before = self.passed.get((node, i))
        self.passed[node, i] = x_bar if before is None else before + x_bar

    def norms(self) -> dict[tuple[Node, int], float]:
        return {use: _norm(to_host(x_bar)) for use, x_bar in self.passed.items()}


def _norm(array: np.ndarray) -> float:
    values = array.astype(np.float64).ravel()
    peak = float(np.abs(values).max(initial=0.0)) or 1.0  # scaled by it, no square overflows
    return float(np.linalg.norm(values / peak) * peak) if np.isfinite(peak) else peak


def _totals(
    recorded: Recorded, targets: list[Node], contributions: _Contributions
) -> tuple[dict[Node, Any] | None, set[Node], str]:
    """Sweep from each result that keeps a gradient, the youngest first.

    A result with ``keep_grad`` keeps the sum of its seed and of the cotangents that the sweeps of
    younger results brought to it. These have run when its turn comes, so the difference is its
    seed; where that vanishes, ``backward`` was not called on it.

    Returns:
        The cotangents of ``targets`` and the results that were seeded; or None and the reason.
    """
    kept = [root for root in recorded.roots if root.grad is not None and root.op is not None]
    if not kept:
        leaves = [node for node in recorded.order if node.op is None and node.requires_grad]
        was_swept = all(node.grad is not None for node in leaves)  # `backward` reaches every leaf
        return None, set(), "not kept" if was_swept else MISSING
    totals: dict[Node, Any] = dict.fromkeys([*targets, *kept])
    seeded = set()
    try:
        with setting(observer=contributions), np.errstate(all="ignore"):
            for root in sorted(kept, key=lambda node: node.index, reverse=True):
                seed = root.grad.array
                from_younger = totals[root] if root.keep_grad else None
                if from_younger is not None:
                    if _close(seed, from_younger):
                        continue
                    seed = seed - from_younger
                seeded.add(root)
                _add(totals, backward_sweep(root, seed, list(totals)))
    except Exception as error:  # a rule is its author's code; a picture should show what it can
        return None, set(), f"not available ({type(error).__name__})"
    for node in {node for root in kept for node in ancestors(root)} & totals.keys():
        if totals[node] is None:  # reached by a sweep whose contributions were all zero
            totals[node] = namespace(node.value).zeros_like(node.value)
    return totals, seeded, ""


def _note_of_seed(paths: int) -> str:
    """The note on a seeded result to which ``paths`` contributions came from other results."""
    return "seed" + (f" + {paths} path{'s' * (paths > 1)}" if paths else "")


def _add(totals: dict[Node, Any], bars: dict[Node, Any]) -> None:
    for node, bar in bars.items():
        if bar is not None:
            totals[node] = bar if totals[node] is None else totals[node] + bar


def _of_leaf(node: Node, totals: dict[Node, Any] | None) -> Gradient:
    if node.grad is None:
        return Gradient(note=MISSING)
    same = totals is None or (totals[node] is not None and _close(node.grad.array, totals[node]))
    return Gradient(node.grad.array, "" if same else "sum of several sweeps")


def _close(a: Any, b: Any) -> bool:
    """Whether two gradients differ by no more than summation in another order explains."""
    a, b = (np.asarray(to_host(array), dtype=np.float64) for array in (a, b))
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    with np.errstate(all="ignore"):
        return bool(np.allclose(a, b, rtol=1e-3, atol=1e-3 * scale, equal_nan=True))
