"""The steps of a forward and a backward sweep as data, which the page and the terminal show.

One step per op, one for the seed, then one per op input that needs a gradient, in the order of the
sweep. The numbers are those that ``backward`` computes: the last running sum of a leaf equals its
``.grad`` bit for bit.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from minigrad.backend import to_host
from minigrad.context import setting
from minigrad.core.node import Box, Node
from minigrad.core.sweep import backward_sweep
from minigrad.observer import Observer
from minigrad.seed import as_seed
from minigrad.viz.badge import Verdict, Verdicts, verdicts_by_node
from minigrad.viz.document import document
from minigrad.viz.formula import Formulas, literal
from minigrad.viz.graph import Recorded, root_of


@dataclass(frozen=True, eq=False)
class Value:
    """A leaf, a constant or the result of an op; or, without a node, a number that an op uses.

    Attributes:
        name: how formulas refer to it; ``title`` also says how it was computed.
        call: the right-hand side of the title; empty for a leaf.
        inputs: the values that the op uses.
        verdict: on the leaf, or on the rule of the op.
    """

    name: str
    array: np.ndarray
    node: Any = field(default=None, repr=False)
    title: str = ""
    call: str = ""
    inputs: "tuple[Value, ...]" = field(default=(), repr=False)
    verdict: Verdict | None = None

    @property
    def op(self) -> Any:
        """The op that computed it, or None."""
        return self.node.op


@dataclass(frozen=True, eq=False)
class Step:
    """One step: an op is computed, the sweep is seeded, or a cotangent passes one op input.

    Attributes:
        value: the op's result, or the seeded value.
        input: which input of the op the cotangent passes; None in other steps.
        into: the value behind that input.
        y_bar: the complete cotangent of the op's result, or the seed.
        raw: what the vjp rule returned for that input; None if the rule declares it zero.
        contribution: ``raw`` in the shape and dtype of ``into``.
        total: the running sum of ``into`` after this step; None while it is zero.
        before: the running sum of ``into`` before this step; None while it is zero.
        path, paths: this is contribution number ``path`` of ``paths`` to ``into``.
    """

    kind: Literal["forward", "seed", "backward"]
    value: Value
    input: int | None = None
    into: Value | None = None
    y_bar: Any = None
    raw: Any = None
    contribution: Any = None
    total: Any = None
    before: Any = None
    path: int = 0
    paths: int = 0


@dataclass(frozen=True, eq=False)
class Trace:
    """The values of a graph, oldest first, the steps through it, and its formulas."""

    values: list[Value]
    steps: list[Step]
    formulas: Formulas

    def __len__(self) -> int:
        return len(self.steps)

    def to_json(self) -> str:
        """The trace as one JSON document, the same in every process; see ``minigrad.viz.document``.

        >>> x = mg.tensor(3.0, requires_grad=True, name="x")
        >>> mg.viz.trace(x * x).to_json()[:39]
        '{"format": "minigrad-trace", "version":'
        """
        return document(self)

    def __repr__(self) -> str:
        return f"<trace of {self.values[-1].title}: {len(self)} steps>"


def trace(y: Box, seed: Any = None, *, verdicts: Verdicts | None = None) -> Trace:
    """Record every step of computing ``y`` and of pulling a cotangent back from it.

    Args:
        y: a result whose graph was recorded.
        seed: the cotangent to start from; None takes ``y.grad``, which ``backward`` keeps, and 1
            for a scalar that has none.
        verdicts: verdicts on leaves and ops for the steps to show, as in ``draw``; not in the JSON.

    Raises:
        GraphError: nothing was recorded. UsageError: a verdict is about nothing in the graph.
        SeedError: no seed for a ``y`` that is not a scalar.

    >>> x = mg.tensor(3.0, requires_grad=True, name="x")
    >>> [step.kind for step in mg.viz.trace(x * x).steps]
    ['forward', 'seed', 'backward', 'backward']
    """
    root = root_of("trace", y)
    start = root.grad if seed is None else seed
    pulls = _Pulls()
    seeded = as_seed(start, y)
    with setting(observer=pulls), np.errstate(all="ignore"):  # a nan may be why somebody looks
        backward_sweep(root, seeded)
    recorded = Recorded([root])
    formulas = Formulas(recorded)
    values = _values(formulas, verdicts_by_node("step", verdicts, recorded))
    steps = [Step("forward", value) for value in values.values() if value.op is not None]
    steps.append(Step("seed", values[root], y_bar=to_host(seeded), total=to_host(seeded)))
    steps += _backward_steps(pulls, values)
    return Trace(list(values.values()), steps, formulas)


class _Pulls(Observer):
    """Keeps (node, y_bar, {i: (raw, x_bar, total)}) for every op whose rule the sweep runs."""

    def __init__(self):
        self.pulls: list[tuple[Node, Any, dict[int, tuple]]] = []

    def pulling(self, node: Node, y_bar: Any) -> None:
        self.pulls.append((node, y_bar, {}))

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        self.pulls[-1][2][i] = raw, x_bar, total


def _backward_steps(pulls: _Pulls, values: dict[Node, Value]) -> list[Step]:
    """One step per input that needs a gradient, of every op that a cotangent reached."""
    passed = [
        (node, y_bar, returned, i, parent)
        for node, y_bar, returned in pulls.pulls
        for i, parent in enumerate(node.parents)
        if parent is not None and parent.requires_grad
    ]
    paths = Counter(parent for *_, parent in passed)
    so_far: Counter[Node] = Counter()
    totals: dict[Node, Any] = {}
    steps = []
    for node, y_bar, returned, i, parent in passed:
        before = totals.get(parent)
        raw, x_bar, total = returned.get(i, (None, None, before))  # absent: a zero
        totals[parent] = total
        so_far[parent] += 1
        steps.append(
            Step("backward", values[node], input=i, into=values[parent], y_bar=to_host(y_bar),
                 raw=_host(raw), contribution=_host(x_bar), total=_host(total),
                 before=_host(before), path=so_far[parent], paths=paths[parent])
        )  # fmt: skip
    return steps


def _host(array: Any) -> Any:
    """``array``, or the array of a tensor that a rule returned, on the host."""
    return None if array is None else to_host(getattr(array, "array", array))


def _values(formulas: Formulas, verdicts: dict[Node, Verdict]) -> dict[Node, Value]:
    values: dict[Node, Value] = {}
    for node, operands in formulas.recorded.operands.items():
        values[node] = Value(
            name=formulas.operand[node].text,
            array=to_host(node.value),
            node=node,
            title=formulas.title(node),
            call=formulas.call[node].text if node.op is not None else "",
            inputs=tuple(values[x] if isinstance(x, Node) else Value(literal(x), np.asarray(x))
                         for x in operands),
            verdict=verdicts.get(node),
        )  # fmt: skip
    return values
