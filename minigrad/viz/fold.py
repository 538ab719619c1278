"""What a picture shows of a graph: cards, the clusters around them and the edges between them.

``fold`` decides how much of a recorded graph is visible:

1. Each node gets a key: itself, or the scope (or other group) into which it is folded.
2. The nodes with the same key become one card; an op input that leads from one card to another
   becomes an edge.
3. The scopes that stay open become clusters around their cards.

DOT text and colours are made elsewhere. Everything is a loop in creation order, without recursion,
because graphs may be deep.
"""

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, Literal

from minigrad.context import Scope
from minigrad.core.node import Node
from minigrad.viz.graph import Recorded

LIMIT = 300  # cards in a picture; with more neither a reader nor the layout keeps up
KEPT = 100  # cards that are left when the middle of a longer graph folds
_MIN_REPEATS = 3  # equal blocks in a row that become one card, "Linear × 3"
_MAX_PARAMETERS = 8  # cards for the parameters of one folded card; more become one card
_TANGLED = 4000  # rows that all edges together may span; see Visible.tangled
_MAX_FAN_OUT = 5  # edges leaving one card; with more, Graphviz lifts whole clusters towards it
_MAX_EDGES = 4 * LIMIT  # with more, parallel edges are drawn as one with their number

Kind = Literal["leaf", "leaves", "op", "scope", "gap"]


@dataclass(eq=False)
class Card:
    """One box of a picture: a leaf, the result of an op, or a group of nodes folded to one box.

    Args:
        kind: ``"gap"`` stands for the middle of a long graph, ``"leaves"`` for many parameters.
        id: ``n0``, ``n1`` ... in creation order.
        members: the nodes it stands for.
        outputs: the members that are used outside the card or are results; the card shows them.
        inputs: the nodes outside the card that its members use.
        name: of the folded scope or group; "" for a single node.
    """

    kind: Kind
    id: str
    name: str = ""
    members: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    inputs: list[Node] = field(default_factory=list)

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
    """A scope drawn around its cards; the outermost cluster is the whole picture."""

    id: str = ""
    name: str = ""
    cards: list[Card] = field(default_factory=list)
    clusters: "list[Cluster]" = field(default_factory=list)
    ops: int = 0  # op calls in it and in the clusters inside

    def walk(self) -> "Iterator[tuple[Cluster, int, bool]]":
        """(cluster, depth, ends): first False where a cluster begins, then True where it ends."""
        stack: list[tuple[Cluster, int, bool]] = [(self, 0, False)]
        while stack:
            cluster, depth, ends = stack.pop()
            yield cluster, depth, ends
            if not ends:
                stack.append((cluster, depth, True))
                stack += [(inner, depth + 1, False) for inner in reversed(cluster.clusters)]


@dataclass(frozen=True)
class Edge:
    """An op input: from ``tail``, the card of the operand, to ``head``, the card that uses it.

    ``uses`` are the op inputs the edge stands for, as (node, position of the input); more than one
    where parallel edges were merged. ``position``, counted from 1, is set where an op uses one
    operand twice and the order matters: the lines alone would not tell the inputs apart.
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
class Visible:
    """The visible part of a graph; ``note`` says what was folded because the graph is long."""

    cards: list[Card]
    edges: list[Edge]
    top: Cluster
    note: str = ""

    def tangled(self) -> bool:
        """Whether a layout that bends edges around the cards would take minutes."""
        return self.span() > _TANGLED

    def span(self) -> int:
        """The total length of all edges, counted in rows of cards."""
        row: dict[Card, int] = {}
        for edge in self.edges:
            row[edge.head] = max(row.get(edge.head, 0), row.get(edge.tail, 0) + 1)
        return sum(row[edge.head] - row.get(edge.tail, 0) for edge in self.edges)

    def weights(self) -> list[int]:
        """A weight per edge for ``newrank`` (a heavy edge is kept short); [] to lay out without it.

        By default Graphviz ranks each cluster as a whole, and may then turn an edge between two
        clusters upwards. With ``newrank`` it ranks the cards, so that every edge points down, but
        only the weights then hold a cluster together and keep shared leaves out of its way.
        """
        fan_out = Counter(edge.tail for edge in self.edges)
        if max(fan_out.values(), default=0) <= _MAX_FAN_OUT:
            return []
        outermost: dict[Card, Cluster] = {}
        for top in self.top.clusters:
            for cluster, _, _ in top.walk():
                outermost |= dict.fromkeys(cluster.cards, top)

        def weight(edge: Edge) -> int:
            if edge.tail.kind == "leaf":
                return 1
            around = outermost.get(edge.head)
            return 100 if around is not None and outermost.get(edge.tail) is around else 10

        return [weight(edge) for edge in self.edges]


class _Group(Scope):
    """A scope made up as the key of a card that stands for no single call."""


class _Parameters(_Group):
    """The key of a card that stands for many parameters of one folded card."""


_GAP = _Group("…")  # the middle of a long graph
_Key = Node | Scope


def fold(
    recorded: Recorded,
    depth: int | None = None,
    pinned: Set[Node] = frozenset(),
) -> Visible:
    """Fold ``recorded`` until at most ``LIMIT`` cards are left.

    Args:
        recorded: the graph.
        depth: how many levels of nested scopes are opened; None opens all. With too many cards it
            is lowered first, then the middle becomes one card.
        pinned: nodes that must stay out of that middle and, if leaves, of any other group.
    """
    keys, note = _keys(recorded, depth, pinned)
    cards = _cards(recorded, keys)
    edges = _edges(recorded, keys, cards)
    return Visible(list(cards.values()), edges, _clusters(cards), note)


def _keys(recorded: Recorded, depth: int | None, pinned: Set[Node]) -> tuple[dict[Node, _Key], str]:
    """The key of each node, for at most ``LIMIT`` cards, and the note on what had to fold."""
    deepest = max(map(len, recorded.paths.values()))
    depth = requested = deepest if depth is None else min(depth, deepest)
    keys = _folded(recorded, depth, pinned)
    size = cards = len(set(keys.values()))
    while depth and cards > LIMIT:
        depth -= 1
        keys = _folded(recorded, depth, pinned)
        cards = len(set(keys.values()))
    how = [f"to depth {depth}"] if depth < requested else []
    if cards > LIMIT:
        how.append("in the middle")
        keys = _without_middle(keys, pinned)
    note = f"{size:,} cards are too many to read: folded {' and '.join(how)}"
    return keys, note if how else ""


def _folded(recorded: Recorded, depth: int, pinned: Set[Node]) -> dict[Node, _Key]:
    """The key of each node when ``depth`` levels of scopes are open."""
    around = recorded.paths
    keys: dict[Node, _Key] = {
        node: around[node.scope][depth] if len(around[node.scope]) > depth else node
        for node in recorded.order
    }
    _merge_repeated_blocks(recorded, keys, pinned)
    _merge_parameters(recorded, keys, pinned)
    return keys


def _merge_repeated_blocks(recorded: Recorded, keys: dict[Node, _Key], pinned: Set[Node]) -> None:
    """Give one key to folded scopes that repeat each other, with the parameters each has alone."""
    ops: dict[_Key, list[Node]] = {}
    for node in recorded.order:
        if node.op is not None:
            ops.setdefault(keys[node], []).append(node)
    users = _users(recorded, keys)
    for run in _repeated(ops):
        block = _Group(f"{_base(run[0].name)} × {len(run)}", run[0].parent)
        members = [ops[scope] for scope in run]
        own = [x for x in _corresponding_leaves(recorded, members) if len(users[x]) == 1]
        keys |= dict.fromkeys(chain(*members), block)
        keys |= dict.fromkeys((x for x in own if x not in pinned), block)


def _repeated(ops: dict[_Key, list[Node]]) -> list[list[Any]]:
    """Runs of at least ``_MIN_REPEATS`` folded scopes in a row that hold the same ops."""

    def kind(key: _Key) -> Any:
        content = [(node.op.name, node.value.shape) for node in ops[key]]
        return (key.parent, _base(key.name), content) if isinstance(key, Scope) else key

    runs = [list(run) for _, run in groupby(ops, kind)]
    return [run for run in runs if len(run) >= _MIN_REPEATS]


def _corresponding_leaves(recorded: Recorded, blocks: list[list[Node]]) -> list[Node]:
    """Leaves at a place, input i of op j, where every one of ``blocks`` has a leaf."""
    places: dict[tuple[int, int], list[Node]] = {}
    for block in blocks:
        for j, node in enumerate(block):
            for i, x in enumerate(recorded.operands[node]):
                if isinstance(x, Node) and x.op is None:
                    places.setdefault((j, i), []).append(x)
    return [x for leaves in places.values() if len(leaves) == len(blocks) for x in leaves]


def _base(name: str) -> str:
    """``Linear`` for ``Linear 3``: the part of a name that blocks of one kind share."""
    return name.rstrip("0123456789").rstrip(" _.") or name


def _merge_parameters(recorded: Recorded, keys: dict[Node, _Key], pinned: Set[Node]) -> None:
    """Give one key to many parameters that a folded card alone uses; not to operands of a call."""
    scopes = set(chain(*recorded.paths.values()))
    called = {node for scope in scopes for node in scope.operands}
    parameters: dict[_Key, list[Node]] = {}
    for node, users in _users(recorded, keys).items():
        is_parameter = keys[node] is node and node.op is None and node.requires_grad
        if is_parameter and node not in called and node not in pinned:
            (user, *others) = users
            if isinstance(user, Scope) and not others:
                parameters.setdefault(user, []).append(node)
    for leaves in parameters.values():
        if len(leaves) > _MAX_PARAMETERS:
            group = _Parameters(f"{len(leaves)} parameters")
            keys |= dict.fromkeys(leaves, group)


def _users(recorded: Recorded, keys: dict[Node, _Key]) -> dict[Node, set[_Key]]:
    """The keys of the ops that use each node."""
    users: dict[Node, set[_Key]] = {}
    for x, node in recorded.uses():
        users.setdefault(x, set()).add(keys[node])
    return users


def _without_middle(keys: dict[Node, _Key], pinned: Set[Node]) -> dict[Node, _Key]:
    """Keep the first and last cards, ``KEPT`` with the gap; nodes between get the key ``_GAP``."""
    visible = list(dict.fromkeys(keys.values()))
    first = KEPT // 2
    hidden = set(visible[first : len(visible) - (KEPT - 1 - first)])
    hidden -= {keys[node] for node in pinned}
    return {node: _GAP if key in hidden else key for node, key in keys.items()}


def _cards(recorded: Recorded, keys: dict[Node, _Key]) -> dict[_Key, Card]:
    cards: dict[_Key, Card] = {}
    for node, key in keys.items():
        if key not in cards:
            name = key.name if isinstance(key, Scope) else ""
            cards[key] = Card(_kind(key), f"n{len(cards)}", name)
        cards[key].members.append(node)
    outputs = dict.fromkeys(recorded.roots)
    inputs: dict[_Key, dict[Node, None]] = {key: {} for key in cards}
    for x, node in recorded.uses():
        if keys[x] is not keys[node]:
            outputs[x] = None
            inputs[keys[node]][x] = None
    for key, card in cards.items():
        card.outputs = [node for node in card.members if node in outputs]
        card.inputs = _as_called(inputs[key], getattr(key, "operands", ()))
    return cards


def _as_called(inputs: dict[Node, None], operands: tuple[Node | None, ...]) -> list[Node]:
    """``inputs`` in the order of the call with ``operands``.

    None among the operands is a plain array: the next input that is no operand takes its place.
    Inputs that the call did not name follow, in the order of their first use.
    """
    named = set(operands)
    rest = iter([x for x in inputs if x not in named])
    called = [next(rest, None) if x is None else x for x in operands]
    return [x for x in dict.fromkeys([*called, *rest]) if x in inputs]


def _kind(key: _Key) -> Kind:
    if key is _GAP:
        return "gap"
    if isinstance(key, _Parameters):
        return "leaves"
    if isinstance(key, Scope):
        return "scope"
    return "leaf" if key.op is None else "op"


def _edges(recorded: Recorded, keys: dict[Node, _Key], cards: dict[_Key, Card]) -> list[Edge]:
    """An edge per op input between cards; parallel ones merge at groups, or if they are many."""
    edges: list[Edge] = []
    merged: dict[tuple[Card, Card], list[tuple[Node, int]]] = {}
    for node in recorded.order:
        operands = recorded.operands[node]
        for i, x in enumerate(operands):
            if not isinstance(x, Node) or keys[x] is keys[node]:
                continue
            tail, head = cards[keys[x]], cards[keys[node]]
            if tail.kind in ("gap", "leaves") or isinstance(keys[node], _Group):
                merged.setdefault((tail, head), []).append((node, i))
            else:
                position = i + 1 if _position_matters(node, operands, head) else None
                edges.append(Edge(tail, head, ((node, i),), position))
    if len(edges) > _MAX_EDGES:
        for edge in edges:
            merged.setdefault((edge.tail, edge.head), []).extend(edge.uses)
        edges = []
    return edges + [Edge(*ends, uses=tuple(uses)) for ends, uses in merged.items()]


_COMMUTATIVE = {"add", "multiply", "maximum", "minimum", "logaddexp"}


def _position_matters(node: Node, operands: list[Any], head: Card) -> bool:
    """Whether the op uses one operand twice and is not commutative."""
    nodes = [x for x in operands if isinstance(x, Node)]
    repeated = len(set(nodes)) < len(nodes)
    return head.kind == "op" and repeated and node.op.name not in _COMMUTATIVE


def _clusters(cards: dict[_Key, Card]) -> Cluster:
    """The tree of open scopes around the cards."""
    top = Cluster()
    cluster_of: dict[Scope, Cluster] = {}
    for key, card in cards.items():
        around = key.parent if isinstance(key, Scope) else key.scope
        cluster = top
        for scope in around.path() if around else []:
            if scope not in cluster_of:
                cluster_of[scope] = Cluster(f"cluster_{len(cluster_of)}", scope.name)
                cluster.clusters.append(cluster_of[scope])
            cluster = cluster_of[scope]
            cluster.ops += card.ops
        cluster.cards.append(card)
    return top
