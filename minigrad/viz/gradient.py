"""Which gradient a picture shows for each value, or why it shows none.

``backward`` keeps gradients on leaves only. Those of intermediate values are found again by a sweep
on plain arrays, which starts at the seeds that the results keep and changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.backend import namespace, to_host
from minigrad.context import setting
from minigrad.core.node import Node
from minigrad.core.sweep import backward_sweep
from minigrad.viz.graph import Recorded

CONSTANT = "no gradient asked for"
MISSING = "not computed"


@dataclass(frozen=True)
class Gradient:
    """The gradient of a value as an array, or None; the note says what it is or why it is not."""

    array: Any = None
    note: str = ""


def gradients(recorded: Recorded, wanted: Iterable[Node]) -> dict[Node, Gradient]:
    """The gradient of each of the ``wanted`` nodes, as far as there is one."""
    found = dict.fromkeys(wanted, Gradient(note=CONSTANT))
    targets = [node for node in found if node.requires_grad]
    totals, reason = _swept(recorded, targets)
    for node in targets:
        if node.op is None:
            found[node] = _of_leaf(node, totals)
        elif totals is not None:
            found[node] = Gradient(totals[node], "seed" if [node] == recorded.roots else "")
        elif node.grad is not None:
            found[node] = Gradient(node.grad.array)
        else:
            found[node] = Gradient(note=reason)
    return found


def _swept(recorded: Recorded, targets: list[Node]) -> tuple[dict[Node, Any] | None, str]:
    """The cotangents of ``targets``; None, with the reason, if they cannot be known."""
    seeded = [root for root in recorded.roots if root.grad is not None and root.op is not None]
    if not seeded:
        swept = any(node.op is None and node.grad is not None for node in recorded.order)
        return None, "not kept" if swept else MISSING
    totals: dict[Node, Any] = dict.fromkeys(targets)
    try:
        for root in seeded:
            with setting(observer=None), np.errstate(all="ignore"):
                _add(totals, backward_sweep(root, root.grad.array, targets))
    except Exception as error:  # a rule is its author's code; a picture should show what it can
        return None, f"not available ({type(error).__name__})"
    zeros = {x: namespace(x.value).zeros_like(x.value) for x in targets if totals[x] is None}
    return totals | zeros, ""


def _add(totals: dict[Node, Any], bars: dict[Node, Any]) -> None:
    for node, bar in bars.items():
        if bar is not None:
            totals[node] = bar if totals[node] is None else totals[node] + bar


def _of_leaf(node: Node, totals: dict[Node, Any] | None) -> Gradient:
    if node.grad is None:
        return Gradient(note=MISSING)
    same = totals is None or _close(node.grad.array, totals[node])
    return Gradient(node.grad.array, "" if same else "sum of several sweeps")


def _close(a: Any, b: Any) -> bool:
    """Whether two gradients differ by no more than the order of their summands explains."""
    a, b = (np.asarray(to_host(array), dtype=np.float64) for array in (a, b))
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    with np.errstate(all="ignore"):
        return bool(np.allclose(a, b, rtol=1e-3, atol=1e-3 * scale, equal_nan=True))
