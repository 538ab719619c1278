"""Where in the code of a forward its backward begins to go wrong.

The errors of all inputs are followed back to the value whose cotangent, were it alone wrong, would
explain them. There a local derivative is wrong, or another value stands for an operand.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice, pairwise
from typing import Any

import numpy as np

from minigrad.core.node import Node, ancestors
from minigrad.core.sweep import backward_sweep
from minigrad.verify.fit import explains, formula_of
from minigrad.verify.paths import Paths, paths_of
from minigrad.verify.subject import FAILURES, Subject
from minigrad.verify.traced import (
    Edge,
    as_array,
    every_time,
    is_quotable,
    is_square,
    quote,
    quote_operand,
)

_MOST = 1e9  # multiplications in singular value decompositions, at most: about a second
_PUSH = 1e4  # multiplications that take as long as to push a tangent through an op
_TRIES = 1000  # other operands that are tried, if their rules are not too many
_RULES = 30_000  # rules that are run for that
_STEPS = 8  # ops of a run, at most
_CUTOFF = 1e-10  # singular values that are zero, as a part of the largest
_NUMBER = r"-?[0-9/]+"  # a formula that is one
_RESULT, _BAR = -1, -2  # parts of a backward that are no operands: its result and its cotangent
_STANDS = "{} stands for {}"
_TURNED = "{}a .T is missing, or one too many, at {}"
_REVERSED = "{}{} is reversed"

Run = list[Node]  # values that elementwise ops make one of another; the first is an operand


class Followed:
    """The paths of a subject at one point, and the fault in them: found once for all inputs.

    Neither costs a verdict: whatever a forward on tensors, or an op of it, raises ends the search.
    """

    def __init__(self):
        self._paths: dict[tuple, Paths | None] = {}
        self._faults: dict[Paths, tuple[str, str]] = {}

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
        return self._found(paths)[0]

    def between(self, paths: Paths) -> str:
        """The code between which the errors begin; empty where a fault or no such code is found."""
        return self._found(paths)[1]

    def _found(self, paths: Paths) -> tuple[str, str]:
        if paths not in self._faults:
            self._faults[paths] = "", ""
            errors = Errors(paths)
            with suppress(*FAILURES), np.errstate(all="ignore"):
                fault = next(filter(None, errors.explained()), "")
                self._faults[paths] = fault, "" if fault else errors.between()
        return self._faults[paths]


class Errors:
    """The errors of all inputs together, held against each value of the graph.

    Attributes:
        all: (S, elements of all inputs).
    """

    def __init__(self, paths: Paths):
        self.paths, self.graph = paths, paths.graph
        got, self._right = (
            np.concatenate([a.reshape(len(a), -1) for a in each], axis=1)
            for each in (paths.got, paths.right)
        )
        self.all = got - self._right
        self._others: dict[tuple[Node, Node], tuple | None] = {}

    @property
    def cost(self) -> float:
        """Multiplications, or what takes as long, to follow the errors through all values."""
        sizes = [node.value.size for node in self.graph.consumers]
        pushes = self.all.shape[1] * len(sizes)
        products = [max(self.all.size, n) * min(self.all.size, n) ** 2 for n in sizes]
        return _PUSH * pushes + sum(products)

    @cached_property
    def _can_follow(self) -> bool:
        """Whether that takes no longer than a second, and LAPACK meets neither nan nor inf."""
        return self.cost <= _MOST and all(np.isfinite(j).all() for j in self.jacobians.values())

    @property
    def _most(self) -> int:
        """How often other operands are tried: each time all rules may run."""
        return min(_TRIES, _RULES // len(self.graph.consumers))

    def explained(self) -> Iterator[str]:
        """What may be wrong, the most telling first."""
        if not self._can_follow:
            yield self._each_time()
            return
        operands, local = self._tightest or list(self.graph.consumers), self._local
        runs = list(_runs(local))
        whole = [run for run in runs if _is_statement(run)]
        inside = {node for run in whole for node in run[1:]}  # of a line that may be wrong as one
        alone = whole + [step for step in local if step[-1] not in inside]
        outside = [run for run in runs if run[-1] not in inside]
        yield self._formulas(whole, len(alone))
        yield self._formulas(outside, len(local))
        yield self._mistaken(operands, inside)
        yield self._formulas(whole, len(alone), self._other_values)
        yield self._formulas(outside, len(local), self._other_values)
        yield self._each_time()
        yield from self._assigned()
        is_alone = len(alone) == 1 and all(self._is_handed(x, alone[0][0]) for x in operands)
        is_alone = is_alone and self._is_telling(alone[0])
        formulas = self._came(alone[0], self._other_values) if is_alone else ("", "")
        yield _derivative(alone[0][-1], *formulas) if any(formulas) else ""
        yield self._formulas([run for run in runs if run[-1] in inside], len(local))
        yield self._mistaken(operands, set())
        yield _derivative(alone[0][-1], "", "") if is_alone else ""
        yield self._mistaken(operands, set(), cotangents=True)
        yield self._formulas(alone, len(alone), self._other_values, most=2)

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

    @cached_property
    def _tightest(self) -> list[Node]:
        """The values, the oldest first, of which each alone explains the error with fewest numbers.

        A wrong cotangent of one of them would be the whole fault; of none behind them would it be.
        """
        ranks: dict[Node, int] = {}
        for node, jacobian in self.jacobians.items():
            alive = self._alive(node)
            for columns in (alive, slice(None))[int(alive.all()) :]:
                part = jacobian[:, columns]
                off, _, rank, _ = np.linalg.lstsq(part, self.all.T, rcond=_CUTOFF)
                if rank < len(part) and explains(part @ off, self.all.T):
                    ranks[node] = int(rank)
                    break
        least = [node for node, rank in ranks.items() if rank == min(ranks.values())]
        return [node for node in least if is_quotable(node)]

    def between(self) -> str:
        """The code between which the errors begin; empty where no value alone explains them."""
        chain = self._tightest if self._can_follow else []
        if not chain:
            return ""
        is_local = any(map(self._is_telling, self._local))
        first, last = chain[0], chain[-1]
        users = list(dict.fromkeys(node for node, _ in self.graph.consumers[last]))
        if len(chain) == 1 and len(users) != 1:
            has_code = users and last.op is not None
            return f"the cotangent of {quote(first)} is wrong" if has_code else ""
        if len(chain) == 1 and not is_local and is_quotable(users[0]):
            return f"what {quote(users[0])} passes back to {quote(first)} is wrong"
        if not users and first.op is None:  # that is all of the code
            return ""
        start = f"what is made of {quote(last)}" if users else "y"
        start = quote(users[0]) if len(users) == 1 and is_quotable(users[0]) else start
        what = "a local derivative is wrong" if is_local else "the error arises"
        return f"{what} on the way back from {start} to {quote(first)}"

    # --- a local derivative ----------------------------------------------------------------------

    @cached_property
    def _local(self) -> list[Run]:
        """Elementwise ops of which another derivative would be the whole fault."""
        nodes = self._tightest or list(self.graph.consumers)
        before = [p for node in self._tightest for p in node.parents if p in self.graph.consumers]
        steps = self._steps(list(dict.fromkeys([*before, *nodes])))
        return [step for step in steps if self._other_derivative(step)]

    def _steps(self, operands: Sequence[Node]) -> Iterator[Run]:
        for x in operands:
            for y in dict.fromkeys(node for node, _ in self.graph.consumers[x]):
                is_one = x.op is None or x.origin != y.origin  # not both inside of one expression
                if y.op.signature == "()" and y.value.shape == x.value.shape and is_one:
                    yield [x, y]

    @staticmethod
    def _is_handed(x: Node, y: Node) -> bool:
        """Whether ``x``, an older value, has the cotangent of ``y`` but for a constant."""
        if x.index >= y.index or x.value.shape != y.value.shape:
            return True
        local = backward_sweep(y, np.ones(y.value.shape), [x])[x]
        return local is not None and bool(np.ptp(local) <= 1e-9 * np.abs(local).max())

    def _is_telling(self, run: Run) -> bool:
        """Whether another derivative does not explain just anything: it does where y is one number,
        and all cotangents of a value are multiples of each other."""
        return (self._other_derivative(run) or (False,))[-1]

    def _other_derivative(self, run: Run) -> tuple[np.ndarray, np.ndarray, bool, bool] | None:
        """That of the last value by the first, if another one explains all: elements it is known
        of, by how much it is off there, whether nothing else explains it, and ``_is_telling``."""
        x, y = run[0], run[-1]
        if (x, y) not in self._others:
            alive, bars = self._alive(y) & self.jacobians[x].any(axis=0), self.paths.bars(y)
            terms = np.concatenate([(self.jacobians[x] * b.reshape(-1))[:, alive] for b in bars])
            error = self.all.reshape(-1)
            off, _, rank, _ = np.linalg.lstsq(terms, error, rcond=_CUTOFF)
            most = np.linalg.matrix_rank(self.jacobians[x])  # of so many per cotangent anything is
            fits = rank < len(bars) * most and explains(terms @ off, error)
            is_telling = rank < np.linalg.matrix_rank(np.stack(bars).reshape(len(bars), -1)) * most
            found = alive.reshape(y.value.shape), off, rank == len(off), bool(is_telling)
            self._others[x, y] = found if fits else None
        return self._others[x, y]

    def _formulas(self, runs: list[Run], others: int, beside: Any = None, most: int = 1) -> str:
        """The derivative that is wrong, as it is and as it should be, where that is one alone.

        Of ``others`` that may be wrong as well, what hands a cotangent on takes the formula over.
        """
        found = {run[-1]: both for run in runs if all(both := self._came(run, beside))}
        if others > 1:
            kept = {y: both for y, both in found.items() if not _hands_on(*both)}
            found = kept if kept or most == 1 else found
        if len(found) > most:
            return ""
        return ", or ".join(_derivative(y, *both) for y, both in found.items())

    def _came(self, run: Run, beside: Any = None) -> tuple[str, str]:
        """Formulas of the derivative of the last value of a run by the first, as it came and as it
        should be; empty where none fits."""
        x, y = run[0], run[-1]
        right = backward_sweep(y, np.ones(y.value.shape), [x])[x]
        other = self._other_derivative(run)
        if other is None or right is None or not other[1].size or not other[2]:
            return "", ""
        alive, off = other[:2]
        values = {_name(y) or "y": y.value}
        if len(run) == 2:
            texts = [quote_operand(y, i).strip("`") for i in range(len(y.inputs))]
            values |= {v: a for v, a in zip(texts, y.inputs, strict=True) if v.isidentifier()}
        of = {
            v: np.broadcast_to(np.asarray(a, np.float64), y.value.shape)[alive]
            for v, a in values.items()
        }
        given = map(np.asarray, (*y.inputs, *y.params.values()))
        ends = sorted(float(a) for a in given if not a.ndim and a.dtype.kind in "if")
        came, known = right[alive] + off, formula_of(right[alive], of, ends=ends)
        numbers = ("1",) if beside is None else ("1", "2", "1/2")
        one = formula_of(came, of, ends=ends)
        if re.fullmatch(_NUMBER, one) and one.lstrip("-") not in numbers:
            return "", known  # what may be any number is seldom one that somebody wrote
        others = {v: a[alive] for v, a in beside(y).items() if v not in of} if beside else {}
        return one or formula_of(came, others, powers=(1, 2)), known

    def _other_values(self, y: Node) -> dict[str, np.ndarray]:
        """The values of the code that have a name, and the shape of one."""
        same = [node for node in self.graph.consumers if node.value.shape == y.value.shape]
        return {name: node.value for node in same if node is not y and (name := _name(node))}

    # --- another value ---------------------------------------------------------------------------

    def _mistaken(self, operands: Sequence[Node], but: set[Node], cotangents: bool = False) -> str:
        """What stands for an operand, the result or its cotangent in the backward of an op."""
        found: dict[tuple[Node, int, str], list[str]] = {}
        edges = [edge for parent in operands for edge in self.graph.consumers[parent]]
        edges = [edge for edge in edges if edge[0] not in but and is_quotable(edge[0])]
        alike = (self._bars if cotangents else self._alike)(edges)
        for (node, i), j, other, form, a in islice(alike, self._most):
            (xs, y), bars = _with(node, j, a), a if j == _BAR else self.paths.bars(node)
            parents = tuple(p if n == i else None for n, p in enumerate(node.parents))
            wrong, parent = Node(node.op, node.params, parents, xs, y, None), node.parents[i]
            if self._comes((node, i), (backward_sweep(wrong, b, [parent])[parent] for b in bars)):
                found.setdefault((node, j, form), []).append(other)
        if len(found) != 1:  # products commute: of several places none is told
            return ""
        (((node, j, form), others),) = found.items()
        what = _said_part(node, j)
        if what in others:  # two values of one name
            return ""
        return f"{form.format(' or '.join(others[:2]), what)} in the backward of {quote(node)}"

    def _alike(self, edges: list[Edge]) -> Iterator[tuple[Edge, int, str, str, Any]]:
        """An edge, a part of the backward there, and what may stand for it: how that is called,
        the words for it, and the array, or a cotangent for each of ``y_bar``."""
        for edge, own in ((edge, np.stack(self.paths.bars(edge[0]))) for edge in edges):
            node, is_moved = edge[0], edge[0].op.signature != "()"
            for j, x in [*enumerate(node.inputs), (_RESULT, node.value)]:
                for other in self._values if np.ndim(x) else ():
                    if other.value.shape == x.shape and other.value is not x:
                        yield edge, j, quote(other), _STANDS, other.value
                if is_moved and is_square(x):
                    yield edge, j, "", _TURNED, np.swapaxes(x, -1, -2)
            if is_moved and is_square(node.value):
                yield edge, _BAR, "", _TURNED, np.swapaxes(own, -1, -2)

    def _bars(self, edges: list[Edge]) -> Iterator[tuple[Edge, int, str, str, Any]]:
        """The same of other cotangents that are known before; of equal ones the first."""
        for edge in edges:
            seen, before = [np.stack(self.paths.bars(edge[0]))], set(ancestors(edge[0]))
            for other in self._values:
                bars = np.stack(self.paths.bars(other))
                is_new = bars.shape == seen[0].shape and np.ptp(bars[0]) and other not in before
                if is_new and not any(np.array_equal(bars, one) for one in seen):
                    seen.append(bars)
                    yield edge, _BAR, f"the cotangent of {quote(other)}", _STANDS, bars

    @cached_property
    def _values(self) -> list[Node]:
        """What stands in the code, first that which has a name."""
        return sorted(filter(is_quotable, self.graph.consumers), key=lambda node: not _name(node))

    def _each_time(self) -> str:
        """What stands for an operand, or the result, each time that code runs again and again."""
        again = [nodes for nodes in self.graph.repeated() if len(nodes) > 1]
        for nodes, j, other, form, values in islice(self._alike_each_time(again), self._most):
            if self._gives(nodes, j, values):
                words = form.format(other, _said_part(nodes[0], j))
                return f"{words} in the backward of {every_time(quote(nodes[0]))}"
        return ""

    @staticmethod
    def _alike_each_time(again: list[list[Node]]) -> Iterator[tuple[list, int, str, str, list]]:
        for nodes in again:
            for j in range(_RESULT, len(nodes[0].inputs)):
                own = [_part(node, j) for node in nodes]
                if is_square(own[0]):
                    yield nodes, j, "", _TURNED, [np.swapaxes(x, -1, -2) for x in own]
                for n in range(1, np.ndim(own[0]) + 1):
                    axes = tuple(range(-n, 0))
                    yield nodes, j, "", _REVERSED, [np.flip(x, axes) for x in own]
                for group in again if np.ndim(own[0]) else ():
                    for i in range(_RESULT, len(group[0].inputs)):
                        values = [_part(node, i) for node in group]
                        if list(map(np.shape, values)) == list(map(np.shape, own)):
                            text = every_time(quote(group[0]))
                            text = text if i < 0 else f"{quote_operand(group[0], i)} in {text}"
                            yield nodes, j, text, _STANDS, values

    def _gives(self, nodes: list[Node], j: int, values: list) -> bool:
        """Whether these values, in the place of parts of some nodes, explain all."""
        own = [(node, node.inputs, node.value) for node in nodes]
        try:
            for node, a in zip(nodes, values, strict=True):
                node.inputs, node.value = _with(node, j, a)
            for y_bar, right, error in zip(self.paths.y_bar, self._right, self.all, strict=True):
                found = self.graph.pull(y_bar)[0]
                off = np.concatenate([x_bar.reshape(-1) for x_bar in found]) - right
                if not explains(off, error):
                    return False
            return True
        finally:
            for node, inputs, value in own:
                node.inputs, node.value = inputs, value

    def _assigned(self) -> Iterator[str]:
        """Where elements are taken repeatedly, and only one cotangent of each counts."""
        for edge in (edge for edges in self.graph.consumers.values() for edge in edges):
            node, bars = edge[0], self.paths.bars(edge[0])
            if node.op.name == "getitem" and is_quotable(node):
                last = [np.zeros(node.parents[0].value.shape) for _ in bars]
                for x_bar, bar in zip(last, bars, strict=True):
                    x_bar[node.params["key"]] = bar
                if self._comes(edge, last):
                    again = f"an element that {quote(node)} takes again counts once"
                    yield f"{again}: = for +=, or no np.add.at"

    def _comes(self, edge: Edge, pulled: Iterable[np.ndarray | None]) -> bool:
        """Whether these cotangents of an edge's operand, for the right ones, explain all."""
        parent = edge[0].parents[edge[1]]
        for its, right, error in zip(
            pulled, self.paths.bars(parent, [edge]), self.all, strict=True
        ):
            off = as_array(its, parent) - right
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
    before, *inner = ((p.lines, p.repeat) if (p := node.origin) else () for node in run)
    is_whole = run[-1].origin is not None and run[-1].origin.is_statement
    return is_whole and before != inner[-1] and set(inner) == {inner[-1]}


def _derivative(y: Node, came: str, right: str) -> str:
    """That the derivative which made ``y`` is wrong, with formulas if there are two."""
    came, right = ("", "") if came == right else (came, right)  # off by less than they tell
    words = f"should be {right}" if right else "is wrong"
    words += f", not {came}" if right and came else f": it should not be {came}" if came else ""
    is_y = not _name(y) and re.search(r"\by\b", words)
    value = ", with y its value" if is_y else ""
    return f"the local derivative of {quote(y)} {words}{value}"


def _hands_on(came: str, right: str) -> bool:
    """Whether a derivative should be a number, or 1 and 0; a number that came lacks the zeros."""
    return bool(re.fullmatch(_NUMBER, right)) or (
        bool(re.search("[<>]", right)) and not re.fullmatch(_NUMBER, came)
    )


def _part(node: Node, j: int) -> Any:
    return node.value if j == _RESULT else node.inputs[j]


def _with(node: Node, j: int, a: Any) -> tuple[tuple, Any]:
    """Operands and result of a node, but for one; the rule of tanh reads y from x."""
    is_tanh = j == _RESULT and node.op.name == "tanh"
    xs = tuple(a if n == j else x for n, x in enumerate(node.inputs))
    return ((np.arctanh(a),) if is_tanh else xs), a if j == _RESULT else node.value


def _said_part(node: Node, j: int) -> str:
    kinds = {_RESULT: "the result", _BAR: "the cotangent of the result"}
    return kinds.get(j) or quote_operand(node, j)


def _name(node: Node) -> str:
    """What the code calls a value; empty where it does not, or several times."""
    return (node.origin.name if node.origin is not None else node.name) or ""
