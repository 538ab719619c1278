"""The steps of a forward and a backward sweep as data, which the page and the terminal show.

One step per op, one for the seed, then one per op input that needs a gradient, in the order of the
sweep. The numbers are those that ``backward`` computes: the last running sum of a leaf equals its
``.grad`` bit for bit.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np

from minigrad.backend import to_host
from minigrad.context import Scope, setting
from minigrad.core.node import Box, Node
from minigrad.core.op import Op
from minigrad.core.sweep import backward_sweep
from minigrad.observer import Observer
from minigrad.seed import as_seed
from minigrad.viz.badge import Verdict, Verdicts, verdicts_by_node
from minigrad.viz.document import document
from minigrad.viz.formula import Formulas, shown
from minigrad.viz.graph import Recorded, root_of


@dataclass(frozen=True, eq=False)
class Value:
    """One value of the graph: a leaf, a constant, or the result of an op.

    Attributes:
        name: how formulas refer to it; ``title`` also says how it was computed.
        call: the right-hand side of the title; empty for a leaf.
        inputs: for each op input its position in ``Trace.values``, or a 0-d array for a number.
        scope: the position of its scope in ``Trace.scopes``, or None.
    """

    name: str
    title: str
    call: str
    array: Any
    requires_grad: bool
    op: Op | None = None
    params: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Any, ...] = ()
    scope: int | None = None

    @property
    def kind(self) -> Literal["leaf", "constant", "op"]:
        if self.op is not None:
            return "op"
        return "leaf" if self.requires_grad else "constant"


@dataclass(frozen=True, eq=False)
class Step:
    """One step: an op is computed, the sweep is seeded, or a cotangent passes one op input.

    Attributes:
        value: the position in ``Trace.values`` of the op's result, or of the seeded value.
        input: which input of the op the cotangent passes; None in other steps.
        into: the position of the value behind that input.
        y_bar: the complete cotangent of the op's result, or the seed.
        raw: what the vjp rule returned for that input; None if the rule declares it zero.
        contribution: ``raw`` in the shape and dtype of ``into``.
        total: the running sum of ``into`` after this step; None while it is zero.
        before: the running sum of ``into`` before this step; None while it is zero.
        path, paths: this is contribution number ``path`` of ``paths`` to ``into``.
    """

    kind: Literal["forward", "seed", "backward"]
    value: int
    input: int | None = None
    into: int | None = None
    y_bar: Any = None
    raw: Any = None
    contribution: Any = None
    total: Any = None
    before: Any = None
    path: int = 0
    paths: int = 0


@dataclass(frozen=True, eq=False)
class Trace:
    """A graph and the steps through it. ``nodes[i]`` is the node behind ``values[i]``.

    ``verdicts[i]`` is the verdict on the leaf, or on the rule of the op, at ``values[i]``.
    """

    values: list[Value]
    steps: list[Step]
    scopes: list[tuple[str, int | None]]
    nodes: list[Node]
    recorded: Recorded
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)

    def scope_path(self, scope: int | None) -> list[str]:
        """The names of a scope and of the scopes around it, outermost first."""
        names: list[str] = []
        while scope is not None:
            name, scope = self.scopes[scope]
            names.append(name)
        return names[::-1]

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
    by_node = verdicts_by_node("step", verdicts, recorded)
    position = {node: i for i, node in enumerate(recorded.order)}
    scopes = list(dict.fromkeys(chain(*recorded.paths.values())))  # outer ones before inner ones
    place: dict[Scope | None, int | None] = {None: None} | {s: i for i, s in enumerate(scopes)}
    table = [(shown(scope.name), place[scope.parent]) for scope in scopes]
    values = _values(recorded, position, place)
    steps = [Step("forward", i) for i, value in enumerate(values) if value.op is not None]
    steps.append(Step("seed", position[root], y_bar=to_host(seeded), total=to_host(seeded)))
    steps += _backward_steps(pulls, position)
    by_position = {position[node]: verdict for node, verdict in by_node.items()}
    return Trace(values, steps, table, recorded.order, recorded, by_position)


class _Pulls(Observer):
    """Keeps (node, y_bar, {i: (raw, x_bar, total)}) for every op whose rule the sweep runs."""

    def __init__(self):
        self.pulls: list[tuple[Node, Any, dict[int, tuple]]] = []

    def pulling(self, node: Node, y_bar: Any) -> None:
        self.pulls.append((node, y_bar, {}))

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        self.pulls[-1][2][i] = raw, x_bar, total


def _backward_steps(pulls: _Pulls, position: dict[Node, int]) -> list[Step]:
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
            Step("backward", position[node], input=i, into=position[parent], y_bar=to_host(y_bar),
                 raw=_host(raw), contribution=_host(x_bar), total=_host(total),
                 before=_host(before), path=so_far[parent], paths=paths[parent])
        )  # fmt: skip
    return steps


def _host(array: Any) -> Any:
    """``array``, or the array of a tensor that a rule returned, on the host."""
    return None if array is None else to_host(getattr(array, "array", array))


def _values(
    recorded: Recorded, position: dict[Node, int], place: dict[Scope | None, int | None]
) -> list[Value]:
    formulas = Formulas(recorded)
    return [
        Value(
            name=formulas.operand[node].text,
            title=formulas.title(node),
            call=formulas.call[node].text if node.op is not None else "",
            array=to_host(node.value),
            requires_grad=node.requires_grad,
            op=node.op,
            params=node.params,
            inputs=tuple(position[x] if isinstance(x, Node) else np.asarray(x)
                         for x in recorded.operands[node]),
            scope=place[node.scope],
        )
        for node in recorded.order
    ]  # fmt: skip
