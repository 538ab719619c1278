"""``anomaly_mode``: find where a NaN, an inf or a changed array came from."""

import os.path
import sys
from typing import Any, NamedTuple

import numpy as np

from minigrad.backend import to_host
from minigrad.context import setting
from minigrad.core.node import Node
from minigrad.errors import AnomalyError, facts
from minigrad.observer import Observer, is_ours

_LOOP = os.path.join(os.path.dirname(__file__), "train", "loop.py")  # pathlib loads slowly


class Origin(NamedTuple):
    """Where an op was called, and fingerprints of the arrays its node keeps."""

    where: str  # file:line; "" inside the training loop, where no user code called it
    fingerprints: tuple[int, ...]


def anomaly_mode():
    """Check every op inside a ``with`` block, or in a function decorated with ``@anomaly_mode()``.

    The first op that makes a NaN or an inf of finite operands, forward or backward, raises
    AnomalyError with the source line that called it. A backward sweep also refuses arrays that were
    changed after the op recorded them, whatever library they belong to. Slow: every array is read.

    >>> with mg.anomaly_mode(), np.errstate(divide="ignore"):
    ...     mg.log(mg.tensor([1.0, 0.0], requires_grad=True))
    Traceback (most recent call last):
    minigrad.errors.AnomalyError: log: produced inf in 1 of 2 elements
    ...
    """
    return setting(observer=_AnomalyObserver())


class _AnomalyObserver(Observer):
    def called(self, op: Any, inputs: list, value: Any, node: Node | None) -> None:
        where = _caller()
        if node is not None:
            node.origin = Origin(where, _fingerprints(node))
        for i, x in enumerate(inputs):
            parent = node.parents[i] if node is not None else None
            is_from_outside = parent is None or parent.op is None
            if is_from_outside and "nan" in (counts := _non_finite(x)):
                name = parent.name if parent is not None and parent.name else f"input {i}"
                raise _error(f"{op.name}: {name} holds {counts}", counts, _at(where))
        counts = _non_finite(value)
        if counts and not any(_non_finite(x) for x in inputs):
            raise _error(f"{op.name}: produced {counts}", counts, _at(where))

    def pulling(self, node: Node, y_bar: Any) -> None:
        self.y_bar_is_finite = not _non_finite(y_bar)
        if node.origin is None:
            return
        pairs = zip(node.origin.fingerprints, _fingerprints(node), strict=True)
        for i, (was, now) in enumerate(pairs):
            if was != now:
                which = "its output" if i == len(node.inputs) else _input_name(node, i)
                headline = f"{node.op.name}: {which} was changed in place"
                got = "values that differ from the recorded ones"
                raise _error(headline, got, _at(node.origin.where))

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        counts = _non_finite(raw)
        if counts and self.y_bar_is_finite:
            headline = f"{node.op.name}, backward: produced {counts}"
            of = f"of the cotangent of {_input_name(node, i)}"
            raise _error(f"{headline} {of}", counts, *_where(node))

    def pushed(self, node: Node, x_dots: list, y_dot: Any) -> None:
        counts = "" if y_dot is None else _non_finite(y_dot)
        if counts and not any(_non_finite(x_dot) for x_dot in x_dots if x_dot is not None):
            headline = f"{node.op.name}, forward sweep: produced {counts} of the tangent"
            raise _error(headline, counts, *_where(node))


def _at(where: str) -> str:
    return f"at {where}" if where else ""


def _where(node: Node) -> tuple[str, str]:
    """Where ``node`` was recorded, and the scopes it is in."""
    at = _at(node.origin.where) if node.origin is not None else "recorded outside anomaly_mode"
    scopes = [] if node.scope is None else [scope.name for scope in node.scope.path()]
    return at, f"in {' / '.join(scopes)}" if scopes else ""


def _input_name(node: Node, i: int) -> str:
    parent = node.parents[i]
    return f"input {i} ({parent.name})" if parent is not None and parent.name else f"input {i}"


def _error(headline: str, *got: str) -> AnomalyError:
    text = ", ".join(filter(None, got))
    return AnomalyError(facts(headline, expected="finite, unchanged arrays", got=text))


def _non_finite(array: Any) -> str:
    """``"nan in 1 of 6 elements"``, or ``""`` if all are finite."""
    host = to_host(getattr(array, "array", array))
    if host.dtype.kind != "f" or np.isfinite(host).all():
        return ""
    kinds = [name for name, test in (("nan", np.isnan), ("inf", np.isinf)) if test(host).any()]
    count = int((~np.isfinite(host)).sum())
    return f"{' and '.join(kinds)} in {count} of {host.size} elements"


def _fingerprints(node: Node) -> tuple[int, ...]:
    arrays = (np.ascontiguousarray(to_host(a)) for a in (*node.inputs, node.value))
    return tuple(hash(a.tobytes()) for a in arrays)


def _caller() -> str:
    """``file:line`` of the innermost call from outside this package; "" in the training loop."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_ours(frame):
        if frame.f_code.co_filename == _LOOP:
            return ""
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
