"""The steps of a forward and a backward sweep as data; the stepper and the terminal are its views.

One step per op, one for the seed, then one per op input that needs a gradient, in the order of the
sweep. The numbers are those that ``backward`` computes: the last running sum of a leaf equals its
``.grad`` bit for bit.
"""

from collections import Counter
from dataclasses import dataclass, field
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
from minigrad.viz.formula import Formulas, shown
from minigrad.viz.graph import Recorded, root_of
from minigrad.viz.record import document


@dataclass(frozen=True, eq=False)
class Value:
    """One value of the graph: a leaf, a constant, or the result of an op.

    Attributes:
        name: how formulas refer to it; ``title`` also says how it was computed.
        call: the right-hand side of the title; empty for a leaf.
        inputs: positions in ``Trace.values``; numbers that were given as arrays without axes.
        scope: position in ``Trace.scopes``, or None.
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
        value: the position in ``Trace.values`` of the op, or of what is seeded.
        input: which input of the op the cotangent passes; None in other steps.
        into: the position of the value behind that input.
        y_bar: the complete cotangent that arrives at the op, or the seed.
        raw: what the vjp rule returned; None where the rule says that it is zero.
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

    ``verdicts[i]`` is what was proven of the leaf, or of the rule of the op, at ``values[i]``.
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
        """The names of a scope and of those around it, outermost first."""
        names: list[str] = []
        while scope is not None:
            name, scope = self.scopes[scope]
            names.append(name)
        return names[::-1]

    def to_json(self) -> str:
        """The trace as one JSON document, the same in every process; see ``minigrad.viz.record``.

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
        verdicts: what the steps say of leaves and ops, as in ``draw``; the JSON leaves it out.

    Raises:
        GraphError: nothing was recorded. UsageError: a verdict is about nothing in the graph.
        SeedError: no seed for a ``y`` that is not a scalar.

    >>> x = mg.tensor(3.0, requires_grad=True, name="x")
    >>> [step.kind for step in mg.viz.trace(x * x).steps]
    ['forward', 'seed', 'backward', 'backward']
    """
    root = root_of("trace", y)
    start = root.grad if seed is None and root.grad is not None else seed
    watch = _Watch()
    seeded = as_seed(start, y)
    with setting(observer=watch), np.errstate(all="ignore"):  # a nan may be why somebody looks
        backward_sweep(root, seeded)
    recorded = Recorded([root])
    found = verdicts_by_node("step", verdicts, recorded)
    place = {node: i for i, node in enumerate(recorded.order)}
    scopes = _Scopes()
    values = _values(recorded, place, scopes)
    steps = [Step("forward", i) for i, value in enumerate(values) if value.op is not None]
    steps.append(Step("seed", place[root], y_bar=to_host(seeded), total=to_host(seeded)))
    steps += _backward(watch, place)
    proven = {place[node]: verdict for node, verdict in found.items()}
    return Trace(values, steps, scopes.found, recorded.order, recorded, proven)


class _Watch(Observer):
    """Keeps what the sweep tells: per op the cotangent that arrives and what its rule returned."""

    def __init__(self):
        self.pulls: list[tuple[Node, Any, dict[int, tuple]]] = []

    def pulling(self, node: Node, y_bar: Any) -> None:
        self.pulls.append((node, y_bar, {}))

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        self.pulls[-1][2][i] = raw, x_bar, total


def _backward(watch: _Watch, place: dict[Node, int]) -> list[Step]:
    """One step per input that needs a gradient, of every op that a cotangent reached."""
    wanted = [
        (node, y_bar, found, i, parent)
        for node, y_bar, found in watch.pulls
        for i, parent in enumerate(node.parents)
        if parent is not None and parent.requires_grad
    ]
    paths = Counter(parent for *_, parent in wanted)
    seen: Counter[Node] = Counter()
    totals: dict[Node, Any] = {}
    steps = []
    for node, y_bar, found, i, parent in wanted:
        before = totals.get(parent)
        raw, bar, total = found.get(i, (None, None, before))
        totals[parent] = total
        seen[parent] += 1
        steps.append(
            Step("backward", place[node], i, place[parent], to_host(y_bar), _host(raw), _host(bar),
                 _host(total), _host(before), seen[parent], paths[parent])
        )  # fmt: skip
    return steps


def _host(array: Any) -> Any:
    return None if array is None else to_host(getattr(array, "array", array))


class _Scopes:
    """Numbers scopes in the order in which they are met, outermost first."""

    def __init__(self):
        self.place: dict[Scope | None, int | None] = {None: None}
        self.found: list[tuple[str, int | None]] = []

    def of(self, scope: Scope | None) -> int | None:
        unknown: list[Scope] = []
        while scope is not None and scope not in self.place:
            unknown.append(scope)
            scope = scope.parent
        for inner in reversed(unknown):
            self.place[inner] = len(self.found)
            self.found.append((shown(inner.name), self.place[inner.parent]))
            scope = inner
        return self.place[scope]


def _values(recorded: Recorded, place: dict[Node, int], scopes: _Scopes) -> list[Value]:
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
            inputs=tuple(place.get(x, x) if isinstance(x, Node) else np.asarray(x)
                         for x in recorded.operands[node]),
            scope=scopes.of(node.scope),
        )
        for node in recorded.order
    ]  # fmt: skip
