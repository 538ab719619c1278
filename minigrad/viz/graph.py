"""What a picture shows: cards, the clusters around them and the edges between them.

``Recorded`` is the graph behind some results; ``picture`` decides what of it is visible. Nothing
here knows of DOT or of colours. Everything is a loop, in creation order: graphs may be deep.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, Literal

import numpy as np

from minigrad.context import Scope
from minigrad.core.node import Box, Node, ancestors, leaf
from minigrad.errors import DTypeError, GraphError, describe, facts

LIMIT = 300  # cards; beyond it neither a reader nor the layout keeps up
KEPT = 100  # cards that are left when the middle of a longer graph folds
_REPEATS = 3  # blocks in a row that become one with "× 3"
_LEAVES = 8  # of one folded card that stand beside it; more become one
_TANGLED = 4000  # rows that all edges together may span
_HUB = 5  # edges that leave one card before the layout lifts clusters towards it
_MERGE = 4 * LIMIT  # edges; beyond it parallel ones are drawn as one that says how many


class Recorded:
    """The graph behind ``roots``, oldest first, with a leaf for every array that had no node.

    ``operands[node][i]`` is the node of input ``i``, or that input itself if it is a number.
    """

    def __init__(self, roots: Iterable[Node]):
        self.roots = list(dict.fromkeys(roots))
        self.order: list[Node] = []
        self.operands: dict[Node, list[Any]] = {}
        for node in _union(self.roots):
            pairs = zip(node.parents, node.inputs, strict=True)
            self.operands[node] = found = [_operand(parent, x) for parent, x in pairs]
            self.order += [x for x in found if isinstance(x, Node) and x not in self.operands]
            for x in found:
                if isinstance(x, Node):
                    self.operands.setdefault(x, [])
            self.order.append(node)

    def uses(self) -> Iterable[tuple[Node, Node]]:
        """(operand, node) for every op input that is not a number."""
        for node in self.order:
            for x in self.operands[node]:
                if isinstance(x, Node):
                    yield x, node


def root_of(who: str, y: Any, expected: str = "a tensor") -> Node:
    """The node of a result that was recorded; ``who`` asks, and names the errors."""
    if not isinstance(y, Box):
        raise DTypeError(facts(f"{who}: y", expected=expected, got=describe(y)))
    if y.node is None or not y.node.requires_grad:
        raise GraphError(
            facts(f"{who}: nothing was recorded for this tensor",
                  expected="a result of operands with requires_grad=True", got=describe(y),
                  remedy="make a leaf with mg.tensor(..., requires_grad=True), compute again")
        )  # fmt: skip
    return y.node


def _union(roots: list[Node]) -> list[Node]:
    if len(roots) == 1:
        return ancestors(roots[0])
    found = {node for root in roots for node in ancestors(root)}
    return sorted(found, key=lambda node: node.index)


def _operand(parent: Node | None, x: Any) -> Any:
    if parent is not None:
        return parent
    is_number = not hasattr(x, "shape") or (isinstance(x, (np.generic, np.ndarray)) and not x.ndim)
    return x if is_number else leaf(x)


Kind = Literal["leaf", "leaves", "op", "scope", "gap"]


@dataclass(eq=False)
class Card:
    """One box of a picture: a leaf, the result of an op, or what was folded to one box.

    Args:
        kind: ``"gap"`` stands for the middle of a long graph, ``"leaves"`` for many parameters.
        id: ``n0``, ``n1`` ... in creation order.
        members: the nodes it stands for.
        outputs: those of them that something outside uses; what the card shows.
        inputs: the nodes outside that its members use.
        scope: what is folded, for the kinds ``"scope"`` and ``"leaves"``.
    """

    kind: Kind
    id: str
    members: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    inputs: list[Node] = field(default_factory=list)
    scope: Scope | None = None

    @property
    def ops(self) -> int:
        """How many op calls it stands for."""
        return sum(node.op is not None for node in self.members)

    @property
    def leaves(self) -> int:
        """How many leaves and constants it stands for."""
        return len(self.members) - self.ops


@dataclass(eq=False)
class Cluster:
    """A scope that is drawn around its cards; the outermost one, the picture, has none."""

    id: str = ""
    scope: Scope | None = None
    cards: list[Card] = field(default_factory=list)
    clusters: "list[Cluster]" = field(default_factory=list)
    ops: int = 0  # in it and in the clusters inside


@dataclass(frozen=True)
class Edge:
    """An op input: the card it comes from, the card that uses it.

    ``uses`` are the op inputs it stands for, more than one where parallel edges were merged;
    ``position`` is the argument's number where the picture would not tell.
    """

    tail: Card
    head: Card
    uses: tuple[tuple[Node, int], ...]
    position: int | None = None

    @property
    def count(self) -> int:
        """How many op inputs it stands for."""
        return len(self.uses)


@dataclass(eq=False)
class Picture:
    """What is visible of a graph, and a note if it folded by itself."""

    cards: list[Card]
    edges: list[Edge]
    top: Cluster
    note: str = ""

    def tangled(self) -> bool:
        """Whether curves around the cards would take a layout minutes."""
        return self.span() > _TANGLED

    def span(self) -> int:
        """The lengths of all edges together, counted in rows of cards."""
        row: dict[Card, int] = {}
        for edge in self.edges:
            row[edge.head] = max(row.get(edge.head, 0), row.get(edge.tail, 0) + 1)
        return sum(row[edge.head] - row.get(edge.tail, 0) for edge in self.edges)

    def weights(self) -> list[int]:
        """How short to keep each edge where all must point down; empty where they do anyway.

        Graphviz ranks clusters as wholes and then may turn an edge between two; ``newrank`` ranks
        cards instead, and only weights hold a cluster together and shared leaves aside.
        """
        leaving = Counter(edge.tail for edge in self.edges)
        if max(leaving.values(), default=0) <= _HUB:
            return []
        within: dict[Card, Cluster] = {}
        for outermost in self.top.clusters:
            stack = [outermost]
            while stack:
                cluster = stack.pop()
                within |= dict.fromkeys(cluster.cards, outermost)
                stack += cluster.clusters
        return [
            1 if edge.tail.kind == "leaf"
            else 100 if within.get(edge.tail, edge.tail) is within.get(edge.head)
            else 10
            for edge in self.edges
        ]  # fmt: skip


class _Many(Scope):
    """The key of what is folded to a card that stands for no one call."""


class _Leaves(_Many):
    """The key of parameters of one folded card."""


_GAP = _Many("…")  # the middle of a long graph
_Key = Node | Scope


def picture(
    recorded: Recorded,
    depth: int | None = None,
    limit: int = LIMIT,
    pinned: Callable[[Node], bool] = lambda node: False,
) -> Picture:
    """Fold ``recorded`` until at most ``limit`` cards are left.

    Args:
        recorded: the graph.
        depth: how many levels of nested scopes are opened; None opens all.
        limit: above it ``depth`` is lowered first, then the middle becomes one card.
        pinned: nodes that must not disappear in that middle.
    """
    paths = _Paths(recorded.order)
    keys, note = _keys(recorded, paths, depth, limit, pinned)
    if len(set(keys.values())) > limit:
        keys = _without_middle(keys, min(limit, KEPT), pinned)
    cards = _cards(recorded, keys)
    edges = _edges(recorded, keys, cards)
    return Picture(list(cards.values()), edges, _clusters(cards, paths), note)


class _Paths:
    """The scopes around each node, outermost first, found once per scope."""

    def __init__(self, order: list[Node]):
        self.of: dict[Scope | None, list[Scope]] = {None: []}
        for scope in dict.fromkeys(node.scope for node in order):
            unknown = []
            while scope not in self.of:
                unknown.append(scope)
                scope = scope.parent
            for inner in reversed(unknown):
                self.of[inner] = [*self.of[inner.parent], inner]
        self.deepest = max(map(len, self.of.values()))

    def key(self, node: Node, depth: int) -> _Key:
        """What ``node`` is part of when ``depth`` levels are open: itself, or a folded scope."""
        path = self.of[node.scope]
        return path[depth] if len(path) > depth else node


def _keys(
    recorded: Recorded,
    paths: _Paths,
    depth: int | None,
    limit: int,
    pinned: Callable[[Node], bool],
) -> tuple[dict[Node, _Key], str]:
    depth = paths.deepest if depth is None else min(depth, paths.deepest)
    keys = _folded(recorded, paths, depth, pinned)
    size = len(set(keys.values()))
    if size <= limit:
        return keys, ""
    asked = depth
    while depth and len(set(keys.values())) > limit:
        depth -= 1
        keys = _folded(recorded, paths, depth, pinned)
    how = [f"folded to depth {depth}"] * (depth < asked)
    how += ["the middle folded"] * (len(set(keys.values())) > limit)
    return keys, f"{size:,} cards are too many to read: {' and '.join(how)}"


def _folded(
    recorded: Recorded, paths: _Paths, depth: int, pinned: Callable[[Node], bool]
) -> dict[Node, _Key]:
    """What each node is part of at ``depth``; blocks that repeat each other become one."""
    keys = {node: paths.key(node, depth) for node in recorded.order}
    computed: dict[_Key, list[Node]] = {}
    for node in recorded.order:
        if node.op is not None:
            computed.setdefault(keys[node], []).append(node)
    users = _users(recorded, keys)
    for run in _repeated(computed, paths):
        block = _Many(f"{_base(run[0].name)} × {len(run)}", run[0].parent)
        paths.of[block] = [*paths.of[block.parent], block]
        members = [computed[scope] for scope in run]
        hidden = [x for x in _parameters(recorded, members) if len(users[x]) == 1]
        for node in [*chain(*members), *hidden]:
            if node.op is not None or not pinned(node):
                keys[node] = block
    called = {node for scope in paths.of if scope is not None for node in scope.operands}
    for leaves in _crowds(recorded, keys, lambda node: node in called or pinned(node)):
        crowd = _Leaves(f"{len(leaves)} parameters")
        paths.of[crowd] = [crowd]
        keys |= dict.fromkeys(leaves, crowd)
    return keys


def _crowds(
    recorded: Recorded, keys: dict[Node, _Key], apart: Callable[[Node], bool]
) -> list[list[Node]]:
    """Parameters that one folded card alone uses, where they are many."""
    found: dict[_Key, list[Node]] = {}
    for node, users in _users(recorded, keys).items():
        if keys[node] is node and node.op is None and node.requires_grad and not apart(node):
            (user, *others) = users
            if isinstance(user, Scope) and not others:
                found.setdefault(user, []).append(node)
    return [leaves for leaves in found.values() if len(leaves) > _LEAVES]


def _repeated(computed: dict[_Key, list[Node]], paths: _Paths) -> list[list[Scope]]:
    """Runs of at least three folded scopes that follow each other and hold the same ops."""

    def content(key: Scope) -> list[tuple]:
        inside = len(paths.of[key])
        return [
            (node.op.name, node.value.shape, *(s.name for s in paths.of[node.scope][inside:]))
            for node in computed[key]
        ]

    def kind(key: _Key) -> Any:
        return (key.parent, _base(key.name), content(key)) if isinstance(key, Scope) else key

    runs = [list(run) for _, run in groupby(computed, kind)]
    return [[key for key in run if isinstance(key, Scope)] for run in runs if len(run) >= _REPEATS]


def _parameters(recorded: Recorded, blocks: list[list[Node]]) -> list[Node]:
    """Leaves that stand at the same place in every block."""
    places: dict[tuple[int, int], list[Node]] = {}
    for block in blocks:
        for j, node in enumerate(block):
            for i, x in enumerate(recorded.operands[node]):
                if isinstance(x, Node) and x.op is None:
                    places.setdefault((j, i), []).append(x)
    return [x for leaves in places.values() if len(leaves) == len(blocks) for x in leaves]


def _base(name: str) -> str:
    """``Linear`` for ``Linear 3``: what blocks of one kind share."""
    return name.rstrip("0123456789").rstrip(" _.") or name


def _users(recorded: Recorded, keys: dict[Node, _Key]) -> dict[Node, set[_Key]]:
    users: dict[Node, set[_Key]] = {}
    for x, node in recorded.uses():
        users.setdefault(x, set()).add(keys[node])
    return users


def _without_middle(
    keys: dict[Node, _Key], kept: int, pinned: Callable[[Node], bool]
) -> dict[Node, _Key]:
    """Keep the first and the last cards; what lies between has the key ``_GAP``."""
    visible = list(dict.fromkeys(keys.values()))
    first = kept // 2
    hidden = set(visible[first : len(visible) - (kept - 1 - first)])
    hidden -= {key for node, key in keys.items() if pinned(node)}
    return {node: _GAP if key in hidden else key for node, key in keys.items()}


def _cards(recorded: Recorded, keys: dict[Node, _Key]) -> dict[_Key, Card]:
    cards: dict[_Key, Card] = {}
    for node, key in keys.items():
        if key not in cards:
            cards[key] = Card(_kind(key), f"n{len(cards)}")
            cards[key].scope = key if isinstance(key, Scope) else None
        cards[key].members.append(node)
    outputs = dict.fromkeys(recorded.roots)
    inputs: dict[_Key, dict[Node, None]] = {key: {} for key in cards}
    for x, node in recorded.uses():
        if keys[x] is not keys[node]:
            outputs[x] = None
            inputs[keys[node]][x] = None
    for key, card in cards.items():
        card.outputs = [node for node in card.members if node in outputs]
        card.inputs = _as_called(list(inputs[key]), getattr(key, "operands", ()))
    return cards


def _as_called(inputs: list[Node], operands: tuple[Node | None, ...]) -> list[Node]:
    """``inputs`` in the order of a call; plain arrays, then what it did not name, as first used."""
    rest = iter([x for x in inputs if x not in operands])
    called = [next(rest, None) if x is None else x for x in operands]
    return [x for x in dict.fromkeys([*called, *rest]) if x in inputs]


def _kind(key: _Key) -> Kind:
    if isinstance(key, Scope):
        return "gap" if key is _GAP else "leaves" if isinstance(key, _Leaves) else "scope"
    return "leaf" if key.op is None else "op"


def _edges(recorded: Recorded, keys: dict[Node, _Key], cards: dict[_Key, Card]) -> list[Edge]:
    edges: list[Edge] = []
    merged: dict[tuple[Card, Card], list[tuple[Node, int]]] = {}
    for node in recorded.order:
        operands = recorded.operands[node]
        for i, x in enumerate(operands):
            if not isinstance(x, Node) or keys[x] is keys[node]:
                continue
            tail, head = cards[keys[x]], cards[keys[node]]
            if keys[x] is _GAP or isinstance(keys[x], _Leaves) or isinstance(keys[node], _Many):
                merged.setdefault((tail, head), []).append((node, i))
            else:
                position = i + 1 if _position_matters(node, operands, head) else None
                edges.append(Edge(tail, head, ((node, i),), position))
    if len(edges) > _MERGE:
        for edge in edges:
            merged.setdefault((edge.tail, edge.head), []).extend(edge.uses)
        edges = []
    return edges + [Edge(*ends, uses=tuple(uses)) for ends, uses in merged.items()]


_COMMUTATIVE = {"add", "multiply", "maximum", "minimum", "logaddexp"}


def _position_matters(node: Node, operands: list[Any], head: Card) -> bool:
    """Whether the same operand is used twice by an op to which the order matters."""
    nodes = [x for x in operands if isinstance(x, Node)]
    repeated = len(set(nodes)) < len(nodes)
    return head.kind == "op" and repeated and node.op.name not in _COMMUTATIVE


def _clusters(cards: dict[_Key, Card], paths: _Paths) -> Cluster:
    top = Cluster()
    known: dict[Scope | None, Cluster] = {None: top}
    for key, card in cards.items():
        around = paths.of.get(key, [])[:-1] if isinstance(key, Scope) else paths.of[key.scope]
        cluster = top
        for scope in around:
            if scope not in known:
                known[scope] = Cluster(f"cluster_{len(known) - 1}", scope)
                cluster.clusters.append(known[scope])
            cluster = known[scope]
            cluster.ops += card.ops
        cluster.cards.append(card)
    return top
