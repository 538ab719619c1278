"""A trace as a JSON document. Its format, version 1:

::

    {"format": "minigrad-trace", "version": 1, "title": "y = x * x",
     "scopes": [{"name": "batch_norm", "parent": null}, ...],
     "values": [{"id": "n0", "name": "x", "title": "x", "kind": "leaf" | "constant" | "op",
                 "op": null | "multiply", "call": "", "formula": "y = x_1 x_2", "pullback": "...",
                 "inputs": [0, {"number": 2.0}], "scope": null | 0, "shape": [4, 3],
                 "dtype": "float64", "requires_grad": true, "array": 0}, ...],
     "steps":  [{"kind": "forward", "value": 3},
                {"kind": "seed", "value": 9, "y_bar": 5, "total": 5},
                {"kind": "backward", "value": 9, "input": 0, "into": 8, "y_bar": 5, "raw": 6,
                 "sum": "sum over axis 0: (4, 3) -> (3,)", "contribution": 7,
                 "path": 1, "paths": 3, "total": 7}, ...],
     "arrays": [{"shape": [3], "dtype": "float64", "values": [0.0, "nan", 1e-17]},
                {"shape": [90], "dtype": "float64", "statistics": {"min": "0", ...},
                 "excerpt": [[0.0, 1.0, ...]], "sha256": "..."}, ...]}

Formulas are LaTeX. ``inputs``, ``into`` and ``value`` are positions in ``values``; ``array``,
``y_bar``, ``raw``, ``contribution`` and ``total`` are positions in ``arrays``, where equal arrays
stand once, or null for a zero that was never formed. Numbers have all their digits, so they read
back as the same floats; ``"nan"``, ``"inf"`` and ``"-inf"`` are strings. An array larger than 8 x 8
is given by statistics, its first corner and a checksum of its bytes.
"""

import hashlib
import json
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from minigrad.core.broadcast import repeated_axes
from minigrad.viz.formula import shown
from minigrad.viz.grid import SIDE, excerpt, flat, statistics

VERSION = 1


def document(trace: Any) -> str:
    """The JSON text of a ``Trace``."""
    arrays = Distinct(_array)
    position = {value: i for i, value in enumerate(trace.values)}
    paths = trace.formulas.recorded.paths
    scope = {scope: i for i, scope in enumerate(dict.fromkeys(chain(*paths.values())))}
    content = {
        "format": "minigrad-trace",
        "version": VERSION,
        "title": trace.values[-1].title,
        "scopes": [{"name": shown(s.name), "parent": scope.get(s.parent)} for s in scope],
        "values": [_value(value, position, scope, arrays) for value in trace.values],
        "steps": [_step(step, position, arrays) for step in trace.steps],
        "arrays": arrays.table,
    }
    return json.dumps(content, allow_nan=False)


def unbroadcast_text(raw: Any, contribution: Any) -> str:
    """How a contribution was un-broadcast: ``sum over axis 0: (4, 3) -> (3,)``, or ``""``."""
    if raw is None or raw.shape == contribution.shape:
        return ""
    axes = ", ".join(map(str, repeated_axes(raw.shape, contribution.shape) or ()))
    word = "axes" if "," in axes else "axis"
    return f"sum over {word} {axes}: {tuple(raw.shape)} -> {tuple(contribution.shape)}"


def _value(value: Any, position: dict, scope: dict, arrays: "Distinct") -> dict[str, Any]:
    op, node = value.op, value.node
    return {
        "id": f"n{position[value]}",
        "name": value.name,
        "title": value.title,
        "kind": "op" if op else "leaf" if node.requires_grad else "constant",
        "op": op.name if op else None,
        "call": value.call,
        "formula": op.formula if op else "",
        "pullback": op.pullback if op else "",
        "inputs": [position[x] if x.node else {"number": _exact(x.array)} for x in value.inputs],
        "scope": scope.get(node.scope),
        "shape": list(value.array.shape),
        "dtype": str(value.array.dtype),
        "requires_grad": node.requires_grad,
        "array": arrays.position_of(value.array),
    }


def _step(step: Any, position: dict, arrays: "Distinct") -> dict[str, Any]:
    head = {"kind": step.kind, "value": position[step.value]}
    if step.kind == "forward":
        return head
    y_bar, total = arrays.position_of(step.y_bar), arrays.position_of(step.total)
    if step.kind == "seed":
        return {**head, "y_bar": y_bar, "total": total}
    return {
        **head,
        "input": step.input,
        "into": position[step.into],
        "y_bar": y_bar,
        "raw": arrays.position_of(step.raw),
        "sum": unbroadcast_text(step.raw, step.contribution),
        "contribution": arrays.position_of(step.contribution),
        "path": step.path,
        "paths": step.paths,
        "total": total,
    }


class Distinct:
    """A table of distinct arrays, in the order of their first use.

    Args:
        entry: makes the entry of the table from an array and its checksum.
    """

    def __init__(self, entry: Callable[[np.ndarray, str], dict[str, Any]]):
        self.entry, self.table = entry, []
        self._position: dict[str, int] = {}

    def position_of(self, array: Any) -> int | None:
        if array is None:
            return None
        key = checksum(array)
        if key not in self._position:
            self._position[key] = len(self.table)
            self.table.append(self.entry(array, key))
        return self._position[key]


def checksum(array: np.ndarray) -> str:
    """SHA-256 of the shape, the dtype and the bytes of ``array``."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _array(array: np.ndarray, sha256: str) -> dict[str, Any]:
    head = {"shape": list(array.shape), "dtype": str(array.dtype)}
    plane = flat(array)
    if not array.size or (plane is not None and max(plane.shape) <= SIDE):
        return {**head, "values": _exact(array.tolist())}
    corner = _exact(excerpt(array).tolist())
    return {**head, "statistics": dict(statistics(array)), "excerpt": corner, "sha256": sha256}


def _exact(x: Any) -> Any:
    """A number, or a list of numbers, with all digits; JSON has no nan and no infinity."""
    if isinstance(x, list):
        return [_exact(item) for item in x]
    if isinstance(x, np.ndarray):
        x = x.item()
    if isinstance(x, bool | int):
        return x
    x = float(x)
    return x if math.isfinite(x) else f"{x:g}"
