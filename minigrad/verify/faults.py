"""Where in the code of a forward its backward begins to go wrong.

The errors of all inputs are followed back to the value whose cotangent, were it alone wrong, would
explain them. There a local derivative is wrong, or another value stands for an operand.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise, product

import numpy as np

from minigrad.core.node import Node
from minigrad.core.sweep import backward_sweep
from minigrad.verify.fit import close
from minigrad.verify.paths import Paths, explains
from minigrad.verify.traced import Edge, known, said, said_operand

_MOST = 20000  # tangents of values, at most, with which an error is followed
_TRIES = 1000  # other operands that are tried
_CUTOFF = 1e-10  # singular values that are zero, as a part of the largest

Step = tuple[Node, Node]  # an operand and what an elementwise op made of it


def fault(paths: Paths) -> str:
    """What is wrong where the errors begin; empty where that cannot be told."""
    errors = Errors(paths)
    tangents = errors.all.shape[1] * len(paths.graph.consumers)
    try:
        with np.errstate(all="ignore"):
            return next(filter(None, errors.explained()), "") if tangents <= _MOST else ""
    except np.linalg.LinAlgError:  # not all derivatives are finite
        return ""


class Errors:
    """The errors of all inputs together, held against each value of the graph.

    Attributes:
        all: (S, elements of all inputs).
    """

    def __init__(self, paths: Paths):
        self.paths, self.graph = paths, paths.graph
        off = zip(paths.got, paths.right, strict=True)
        self.all = np.concatenate([(a - b).reshape(len(a), -1) for a, b in off], axis=1)

    def explained(self) -> Iterator[str]:
        """What may be wrong, the most telling first."""
        chain = self._tightest()
        operands = chain or list(self.graph.consumers)
        local = [step for step in self._steps(operands) if self._other_derivative(*step)]
        runs = (local[i:j] for j in range(1, len(local) + 1) for i in range(j))
        yield from map(self._formulas, runs)
        yield from self._mistaken(operands)
        yield from self._assigned()
        if len(local) == 1:
            yield f"the local derivative of {said(local[0][1])} is wrong"
        if chain:
            yield self._between(chain, "a local derivative is wrong" if local else "wrong")

    # --- which value -----------------------------------------------------------------------------

    @cached_property
    def jacobians(self) -> dict[Node, np.ndarray]:
        """The derivative of each value by the elements of all inputs: (elements, its size)."""
        rows: dict[Node, list] = {node: [] for node in self.graph.consumers}
        for end in self.graph.leaves:
            for way in np.eye(end.value.size):
                dots = self.graph.push(end, way.reshape(end.value.shape))
                for node, its in rows.items():
                    its.append(np.reshape(dots.get(node, np.zeros(node.value.shape)), -1))
        return {node: np.stack(its) for node, its in rows.items()}

    def _tightest(self) -> list[Node]:
        """The values, the oldest first, of which each alone explains the error with fewest numbers.

        A wrong cotangent of one of them would be the whole fault; of none behind them would it be.
        """
        ranks: dict[Node, int] = {}
        for node, jacobian in self.jacobians.items():
            off, _, rank, _ = np.linalg.lstsq(jacobian, self.all.T, rcond=_CUTOFF)
            if rank < len(jacobian) and explains(jacobian @ off, self.all.T):
                ranks[node] = int(rank)
        return [node for node, rank in ranks.items() if rank == min(ranks.values())]

    def _between(self, chain: list[Node], what: str) -> str:
        """The code between which the errors begin, from y on."""
        first, last = chain[0], chain[-1]
        users = list(dict.fromkeys(node for node, _ in self.graph.consumers[last]))
        if len(chain) == 1 and len(users) != 1:
            is_told = users and last.op is not None
            return f"the cotangent of {said(first)} is wrong" if is_told else ""
        start = f"what is made of {said(last)}" if users else "y"
        start = said(users[0]) if len(users) == 1 else start
        return f"{what} on the way back from {start} to {said(first)}"

    # --- a local derivative ----------------------------------------------------------------------

    def _steps(self, operands: Sequence[Node]) -> Iterator[Step]:
        for x in operands:
            for y, _ in self.graph.consumers[x]:
                if y.op.signature == "()" and y.value.shape == x.value.shape:
                    yield x, y

    def _other_derivative(self, x: Node, y: Node) -> tuple[np.ndarray, bool] | None:
        """How far the derivative of ``y`` by ``x``, elementwise, is off if that explains all, and
        whether nothing else does."""
        bars = self.paths.bars(y)
        terms = np.concatenate([self.jacobians[x] * bar.reshape(-1) for bar in bars])
        off, _, rank, _ = np.linalg.lstsq(terms, self.all.reshape(-1), rcond=_CUTOFF)
        fits = explains(terms @ off, self.all.reshape(-1))
        return (off.reshape(x.value.shape), rank == len(off)) if fits else None

    def _formulas(self, run: list[Step]) -> str:
        """The derivative of the last value of a run by its first operand, as it is and as it should
        be; empty where they have no short formula."""
        (x, first), y = run[0], run[-1][1]
        off, is_known = self._other_derivative(x, y) or (None, False)
        right = backward_sweep(y, np.ones(y.value.shape), [x])[x]
        if not is_known or right is None or any(a[1] is not b[0] for a, b in pairwise(run)):
            return ""
        name = (y.origin.name if y.origin is not None else "") or "y"
        texts = [said_operand(first, i).strip("`") for i in range(len(first.inputs))]
        values = dict(zip(texts, first.inputs, strict=True)) if first is y else {}
        values = {v: a for v, a in values.items() if v.isidentifier() and v != name}
        came, known = (_formula(d, {name: y.value, **values}) for d in (right + off, right))
        what = said(y) if name != "y" else f"y = {said(y)}"
        both = f"{known} is right, {came} came" if came and known else ""
        return both and f"the local derivative of {what} is wrong: {both}"

    # --- another value ---------------------------------------------------------------------------

    def _mistaken(self, operands: Sequence[Node]) -> Iterator[str]:
        """Which value stands for an operand, or for the result, in the rule of an op."""
        for (node, i), j, other in islice(self._alike(operands), _TRIES):
            xs = tuple(other.value if n == j else x for n, x in enumerate(node.inputs))
            y = other.value if j < 0 else node.value
            parents = tuple(p if n == i else None for n, p in enumerate(node.parents))
            mistaken, parent = Node(node.op, node.params, parents, xs, y, None), node.parents[i]
            bars = self.paths.bars(node)
            if self._comes(
                (node, i), (backward_sweep(mistaken, bar, [parent])[parent] for bar in bars)
            ):
                what = said_operand(node, j) if j >= 0 else "the result"
                yield f"{said(other)} stands for {what} in the rule of {said(node)}"

    def _alike(self, operands: Sequence[Node]) -> Iterator[tuple[Edge, int, Node]]:
        """Edges to these, the number of an operand there (-1: the result), and another value."""
        edges = [edge for parent in operands for edge in self.graph.consumers[parent]]
        for edge, other in product(edges, self.graph.consumers):
            for j, x in [*enumerate(edge[0].inputs), (-1, edge[0].value)]:
                if np.ndim(x) and other.value.shape == x.shape and other.value is not x:
                    yield edge, j, other

    def _assigned(self) -> Iterator[str]:
        """Where elements are taken repeatedly, and only one cotangent of each counts."""
        for edge in (edge for edges in self.graph.consumers.values() for edge in edges):
            node, bars = edge[0], self.paths.bars(edge[0])
            if node.op.name == "getitem":
                last = [np.zeros(node.parents[0].value.shape) for _ in bars]
                for x_bar, bar in zip(last, bars, strict=True):
                    x_bar[node.params["key"]] = bar
                if self._comes(edge, last):
                    again = f"an element that {said(node)} takes again counts once"
                    yield f"{again}: = for +=, or no np.add.at"

    def _comes(self, edge: Edge, pulled: Iterable[np.ndarray | None]) -> bool:
        """Whether these cotangents of an edge's operand, for the right ones, explain all."""
        parent = edge[0].parents[edge[1]]
        for its, right, error in zip(
            pulled, self.paths.bars(parent, [edge]), self.all, strict=True
        ):
            off = known(its, parent) - right
            found = [self.graph.pull_from(parent, off, end) for end in self.graph.leaves]
            if not explains(np.concatenate([x_bar.reshape(-1) for x_bar in found]), error):
                return False
        return True


def _formula(d: np.ndarray, values: dict[str, np.ndarray]) -> str:
    """A short formula of a local derivative in one of these values; empty where none fits."""
    for v, value in values.items():
        a = np.broadcast_to(np.asarray(value, np.float64), d.shape)
        forms = {
            "1": a**0, "-1": -(a**0), v: a, f"1 - {v}": 1 - a, f"{v}^2": a * a, f"2 {v}": 2 * a,
            f"1 - {v}^2": 1 - a * a, f"{v} (1 - {v})": a * (1 - a), f"3 {v}^2": 3 * a * a,
            f"1/{v}": 1 / a, f"1/(2 {v})": 0.5 / a, f"1/{v}^2": 1 / a**2, f"-1/{v}^2": -1 / a**2,
            f"-{v}^2": -a * a, f"({v} > 0)": (a > 0) * 1.0, f"({v} < 0)": (a < 0) * 1.0,
            f"cos({v})": np.cos(a), f"sin({v})": np.sin(a), f"-sin({v})": -np.sin(a),
        }  # fmt: skip
        for form, one in forms.items():
            if close(one, d, 1e-6):
                return form
    return ""
