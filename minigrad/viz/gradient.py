"""Which gradient a picture shows for each value, or why it shows none.

``backward`` keeps gradients on leaves only. Those of intermediate values are found again by a sweep
on plain arrays, which starts at the seeds that the results keep and changes nothing.
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

CONSTANT = "no gradient asked for"
MISSING = "not computed"


@dataclass(frozen=True)
class Gradient:
    """The gradient of a value as an array, or None; the note says what it is or why it is not."""

    array: Any = None
    note: str = ""


@dataclass(frozen=True)
class Swept:
    """What a picture shows of the sweeps: gradients, and what passed each op input.

    Attributes:
        gradients: of each wanted node, as far as there is one.
        norms: the Euclidean norm of what passed input i of a node, by (node, i).
        paths: how many contributions each node got.
    """

    gradients: dict[Node, Gradient]
    norms: dict[tuple[Node, int], float]
    paths: Counter[Node]


def swept(recorded: Recorded, wanted: Iterable[Node]) -> Swept:
    """Sweep again from the seeds that the results keep, and compare with what leaves keep."""
    found = dict.fromkeys(wanted, Gradient(note=CONSTANT))
    targets = [node for node in found if node.requires_grad]
    watch = _Watch()
    totals, seeds, reason = _totals(recorded, targets, watch)
    paths = Counter(node.parents[i] for node, i in watch.passed)
    for node in targets:
        if node.op is None:
            found[node] = _of_leaf(node, totals)
        elif totals is not None:
            note = _with_seed(paths[node]) if node in seeds else ""
            found[node] = Gradient(totals[node], MISSING if totals[node] is None else note)
        elif node.grad is not None:
            found[node] = Gradient(node.grad.array)
        else:
            found[node] = Gradient(note=reason)
    if totals is None:
        return Swept(found, {}, Counter())
    return Swept(found, watch.norms(), paths)


class _Watch(Observer):
    """Adds up what passed each op input over all sweeps."""

    def __init__(self):
        self.passed: dict[tuple[Node, int], Any] = {}

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        before = self.passed.get((node, i))
        self.passed[node, i] = x_bar if before is None else before + x_bar

    def norms(self) -> dict[tuple[Node, int], float]:
        return {use: _norm(to_host(x_bar)) for use, x_bar in self.passed.items()}


def _norm(array: np.ndarray) -> float:
    values = array.astype(np.float64).ravel()
    peak = float(np.abs(values).max(initial=0.0)) or 1.0
    return float(np.linalg.norm(values / peak) * peak) if np.isfinite(peak) else peak


def _totals(
    recorded: Recorded, targets: list[Node], watch: _Watch
) -> tuple[dict[Node, Any] | None, set[Node], str]:
    """The cotangents of ``targets``, and the seeds; None, with the reason, if they are not known.

    What a result retained of the sweeps of younger ones, which come first, is no seed of its own.
    """
    kept = [root for root in recorded.roots if root.grad is not None and root.op is not None]
    if not kept:
        leaves = [node for node in recorded.order if node.op is None and node.requires_grad]
        swept = all(node.grad is not None for node in leaves)  # as `backward` gives one to each
        return None, set(), "not kept" if swept else MISSING
    totals: dict[Node, Any] = dict.fromkeys([*targets, *kept])
    seeds = set()
    try:
        for root in sorted(kept, key=lambda node: node.index, reverse=True):
            seed, came = root.grad.array, totals[root] if root.keep_grad else None
            if came is not None and _close(seed, came):
                continue
            seeds.add(root)
            with setting(observer=watch), np.errstate(all="ignore"):
                seed = seed if came is None else seed - came
                _add(totals, backward_sweep(root, seed, list(totals)))
    except Exception as error:  # a rule is its author's code; a picture should show what it can
        return None, set(), f"not available ({type(error).__name__})"
    for node in {node for root in kept for node in ancestors(root)} & totals.keys():
        if totals[node] is None:  # a sweep went there, and brought nothing
            totals[node] = namespace(node.value).zeros_like(node.value)
    return totals, seeds, ""


def _with_seed(paths: int) -> str:
    """What the gradient of a result is when other results depend on it, too."""
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
    """Whether two gradients differ by no more than the order of their summands explains."""
    a, b = (np.asarray(to_host(array), dtype=np.float64) for array in (a, b))
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    with np.errstate(all="ignore"):
        return bool(np.allclose(a, b, rtol=1e-3, atol=1e-3 * scale, equal_nan=True))
