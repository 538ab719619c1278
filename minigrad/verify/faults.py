"""Where in the code of a forward its backward begins to go wrong.

The errors of all inputs are followed back to the value whose cotangent, were it alone wrong, would
explain them. There a local derivative is wrong, or another value stands for an operand.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice, pairwise, product

import numpy as np

from minigrad.core.node import Node
from minigrad.core.sweep import backward_sweep
from minigrad.verify.fit import close
from minigrad.verify.paths import Paths, explains, paths_of
from minigrad.verify.subject import FAILURES, Subject
from minigrad.verify.traced import Edge, known, said, said_operand

_MOST = 1e9  # multiplications in singular value decompositions, at most: about a second
_PUSH = 1e4  # multiplications that take as long as to push a tangent through an op
_TRIES = 1000  # other operands that are tried
_STEPS = 8  # ops of a run, at most
_CUTOFF = 1e-10  # singular values that are zero, as a part of the largest

Run = list[Node]  # values that elementwise ops make one of another; the first is an operand


class Followed:
    """The paths of a subject at one point, and the fault in them: found once for all inputs.

    Neither costs a verdict: whatever a forward on tensors, or an op of it, raises ends the search.
    """

    def __init__(self):
        self._paths: dict[tuple, Paths | None] = {}
        self._faults: dict[Paths, str] = {}

    def paths(self, subject: Subject, y_bar: np.ndarray, right: list[np.ndarray]) -> Paths | None:
        """``paths_of`` the same."""
        key = subject.dtype, y_bar.tobytes()
        if key not in self._paths:
            try:
                self._paths[key] = paths_of(subject, y_bar, right)
            except FAILURES:
                self._paths[key] = None
        return self._paths[key]

    def fault(self, paths: Paths) -> str:
        """What is wrong where the errors begin; empty where that cannot be told."""
        if paths not in self._faults:
            self._faults[paths] = ""
            errors = Errors(paths)
            if errors.cost <= _MOST:
                with suppress(*FAILURES), np.errstate(all="ignore"):
                    self._faults[paths] = next(filter(None, errors.explained()), "")
        return self._faults[paths]


class Errors:
    """The errors of all inputs together, held against each value of the graph.

    Attributes:
        all: (S, elements of all inputs).
    """

    def __init__(self, paths: Paths):
        self.paths, self.graph = paths, paths.graph
        off = zip(paths.got, paths.right, strict=True)
        self.all = np.concatenate([(a - b).reshape(len(a), -1) for a, b in off], axis=1)
        self._others: dict[tuple[Node, Node], tuple | None] = {}

    @property
    def cost(self) -> float:
        """Multiplications, or what takes as long, to follow the errors through all values."""
        sizes = [node.value.size for node in self.graph.consumers]
        pushes = self.all.shape[1] * len(sizes)
        products = [max(self.all.size, n) * min(self.all.size, n) ** 2 for n in sizes]
        return _PUSH * pushes + sum(products)

    def explained(self) -> Iterator[str]:
        """What may be wrong, the most telling first."""
        chain = self._tightest()
        operands = chain or list(self.graph.consumers)
        local = [step for step in self._steps(operands) if self._other_derivative(step)]
        runs = list(_runs(local))
        whole = [run for run in runs if _is_statement(run)]
        inside = {node for run in whole for node in run[1:]}  # of a line that may be wrong as one
        yield self._formulas(whole, len(whole))
        yield self._formulas([run for run in runs if run[-1] not in inside], len(local))
        yield self._mistaken(operands, inside)
        yield from self._assigned()
        alone = whole or local
        if len(alone) == 1:
            yield _derivative(alone[0][-1], *self._came(alone[0]))
        if chain:
            yield self._between(chain, is_local=bool(local))

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

    def _alive(self, node: Node) -> np.ndarray:
        """Elements of a value that a cotangent reaches: behind a mask or an index, not all."""
        return np.any([bar.reshape(-1) != 0 for bar in self.paths.bars(node)], axis=0)

    def _tightest(self) -> list[Node]:
        """The values, the oldest first, of which each alone explains the error with fewest numbers.

        A wrong cotangent of one of them would be the whole fault; of none behind them would it be.
        """
        ranks: dict[Node, int] = {}
        for node, jacobian in self.jacobians.items():
            for columns in (self._alive(node), slice(None)):
                part = jacobian[:, columns]
                off, _, rank, _ = np.linalg.lstsq(part, self.all.T, rcond=_CUTOFF)
                if rank < len(part) and explains(part @ off, self.all.T):
                    ranks[node] = int(rank)
                    break
        return [node for node, rank in ranks.items() if rank == min(ranks.values())]

    def _between(self, chain: list[Node], is_local: bool) -> str:
        """The code between which the errors begin."""
        first, last = chain[0], chain[-1]
        users = list(dict.fromkeys(node for node, _ in self.graph.consumers[last]))
        if len(chain) == 1 and len(users) != 1:
            is_told = users and last.op is not None
            return f"the cotangent of {said(first)} is wrong" if is_told else ""
        if len(chain) == 1 and not is_local:
            return f"what {said(users[0])} passes back to {said(first)} is wrong"
        if not users and first.op is None:  # that is all of the code
            return ""
        start = f"what is made of {said(last)}" if users else "y"
        start = said(users[0]) if len(users) == 1 else start
        what = "a local derivative is wrong" if is_local else "the error arises"
        return f"{what} on the way back from {start} to {said(first)}"

    # --- a local derivative ----------------------------------------------------------------------

    def _steps(self, operands: Sequence[Node]) -> Iterator[Run]:
        for x in operands:
            for y in dict.fromkeys(node for node, _ in self.graph.consumers[x]):
                if y.op.signature == "()" and y.value.shape == x.value.shape:
                    yield [x, y]

    def _other_derivative(self, run: Run) -> tuple[np.ndarray, np.ndarray, bool] | None:
        """That of the last value by the first, if another one explains all: elements it is known
        of, by how much it is off there, and whether nothing else explains it."""
        x, y = run[0], run[-1]
        if (x, y) not in self._others:
            alive, bars = self._alive(y), self.paths.bars(y)
            terms = np.concatenate([(self.jacobians[x] * b.reshape(-1))[:, alive] for b in bars])
            error = self.all.reshape(-1)
            off, _, rank, _ = np.linalg.lstsq(terms, error, rcond=_CUTOFF)
            most = len(bars) * np.linalg.matrix_rank(self.jacobians[x])  # of these anything is one
            fits = rank < most and explains(terms @ off, error)
            found = alive.reshape(y.value.shape), off, rank == len(off)
            self._others[x, y] = found if fits else None
        return self._others[x, y]

    def _formulas(self, runs: list[Run], others: int) -> str:
        """The derivative that is wrong, as it is and as it should be, where that is one alone.

        Of ``others`` that may be wrong as well, what hands a cotangent on takes the formula over.
        """
        found = {run[-1]: both for run in runs if all(both := self._came(run))}
        if others > 1:
            found = {y: both for y, both in found.items() if not _hands_on(*both)}
        if len(found) != 1:
            return ""
        ((y, both),) = found.items()
        return _derivative(y, *both)

    def _came(self, run: Run) -> tuple[str, str]:
        """Formulas of the derivative of the last value of a run by the first, as it came and as it
        should be; empty where none fits."""
        x, y = run[0], run[-1]
        right = backward_sweep(y, np.ones(y.value.shape), [x])[x]
        other = self._other_derivative(run)
        if other is None or right is None or not other[1].size or not other[2]:
            return "", ""
        alive, off, _ = other
        values = {_name(y) or "y": y.value}
        if len(run) == 2:
            texts = [said_operand(y, i).strip("`") for i in range(len(y.inputs))]
            values |= {v: a for v, a in zip(texts, y.inputs, strict=True) if v.isidentifier()}
        of = {
            v: np.broadcast_to(np.asarray(a, np.float64), y.value.shape)[alive]
            for v, a in values.items()
        }
        return _formula(right[alive] + off, of), _formula(right[alive], of)

    # --- another value ---------------------------------------------------------------------------

    def _mistaken(self, operands: Sequence[Node], but: set[Node]) -> str:
        """Which value stands for an operand, or for the result, in the backward of an op."""
        found: dict[tuple[Node, int], list[Node]] = {}
        for (node, i), j, other in islice(self._alike(operands, but), _TRIES):
            xs = tuple(other.value if n == j else x for n, x in enumerate(node.inputs))
            y = other.value if j < 0 else node.value
            parents = tuple(p if n == i else None for n, p in enumerate(node.parents))
            wrong, parent = Node(node.op, node.params, parents, xs, y, None), node.parents[i]
            bars = (backward_sweep(wrong, bar, [parent])[parent] for bar in self.paths.bars(node))
            if self._comes((node, i), bars):
                found.setdefault((node, j), []).append(other)
        if len(found) != 1:  # products commute: of several places none is told
            return ""
        (((node, j), others),) = found.items()
        what = said_operand(node, j) if j >= 0 else "the result"
        words = " or ".join(map(said, others[:2]))
        if what in map(said, others):  # two values of one name
            return ""
        return f"{words} stands for {what} in the backward of {said(node)}"

    def _alike(self, operands: Sequence[Node], but: set[Node]) -> Iterator[tuple[Edge, int, Node]]:
        """Edges to these, the number of an operand there (-1: the result), and another value."""
        edges = [edge for parent in operands for edge in self.graph.consumers[parent]]
        edges = [edge for edge in edges if edge[0] not in but]
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


def _runs(steps: list[Run]) -> Iterator[Run]:
    """Steps of which each begins where the one before it ends, joined; the short ones first."""
    for n in range(1, _STEPS + 1):
        for i in range(len(steps) - n + 1):
            part = steps[i : i + n]
            if all(a[-1] is b[0] for a, b in pairwise(part)):
                yield [part[0][0], *(step[-1] for step in part)]


def _is_statement(run: Run) -> bool:
    """Whether it is all that a line of code does."""
    before, *inner = ((p.lines, p.turn) if (p := node.origin) else () for node in run)
    is_whole = run[-1].origin is not None and run[-1].origin.is_whole
    return is_whole and before != inner[-1] and set(inner) == {inner[-1]}


def _derivative(y: Node, came: str, right: str) -> str:
    """That the derivative which made ``y`` is wrong, with formulas if there are two."""
    came, right = ("", "") if came == right else (came, right)  # off by less than they tell
    words = f"should be {right}" if right else "is wrong"
    words += f", not {came}" if right and came else f": it should not be {came}" if came else ""
    is_y = not _name(y) and re.search(r"\by\b", words)
    value = ", with y its value" if is_y else ""
    return f"the local derivative of {said(y)} {words}{value}"


def _hands_on(came: str, right: str) -> bool:
    """Whether a derivative should be 1, or 1 and 0; one that came without the zeros lacks them."""
    return right == "1" or (bool(re.search("[<>]", right)) and came != "1")


def _name(node: Node) -> str:
    return node.origin.name if node.origin is not None else ""


def _formula(d: np.ndarray, values: dict[str, np.ndarray]) -> str:
    """A short formula of a local derivative in one of these values; empty where none fits."""
    for v, a in values.items():
        forms = {
            "1": a**0, "-1": -(a**0), v: a, f"-{v}": -a, f"2 {v}": 2 * a, f"{v}/2": a / 2,
            f"{v}^2": a * a, f"-{v}^2": -a * a, f"3 {v}^2": 3 * a * a, f"1 - {v}": 1 - a,
            f"{v} - 1": a - 1, f"1 - {v}^2": 1 - a * a, f"1 + {v}^2": 1 + a * a,
            f"{v} (1 - {v})": a * (1 - a), f"1/{v}": 1 / a, f"1/(2 {v})": 0.5 / a,
            f"1/{v}^2": 1 / a**2, f"-1/{v}^2": -1 / a**2, f"({v} > 0)": (a > 0) * 1.0,
            f"({v} < 0)": (a < 0) * 1.0, f"sign({v})": np.sign(a), f"exp({v})": np.exp(a),
            f"cos({v})": np.cos(a), f"sin({v})": np.sin(a), f"-sin({v})": -np.sin(a),
        }  # fmt: skip
        for form, one in forms.items():
            if close(one, d, 1e-6):
                return form
    return ""
