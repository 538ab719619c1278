"""Which elementwise op has a wrong local derivative in the backward, and which derivative that is.

Let y be the result of such an op and x its operand. If a backward used D' for the derivative D of y
by x, the errors of all inputs would be J ((D' - D) y_bar), with J the derivatives of x by the
inputs and y_bar the cotangent of y. That is linear in D' - D, which does not depend on y_bar: a
least-squares fit finds it, or excludes the mistake. Where the fit is unique, D and D' are put into
words: a formula in y, in the operands, or in other values.

Ops are joined to runs (x, .., y), so that a line such as ``s = 1 / (1 + np.exp(-a))``, whose
derivative people know as a whole, is described as a whole.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from minigrad.core.node import Node, ancestors
from minigrad.core.sweep import backward_sweep
from minigrad.ops.arithmetic import multiply
from minigrad.verify.expression import every_time, is_quotable, name_of, quote, quote_operand
from minigrad.verify.fit import axes_text, explains, formula_of
from minigrad.verify.graph import Changes, as_array
from minigrad.verify.origin import CUTOFF, Errors

_LONGEST = 8  # ops of a run
_NUMBER = r"-?[0-9/]+"  # a formula that is a number
_CONFUSED: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # derivatives, as formulas in y
    "1": np.ones_like, "{y}": np.copy, "1 - {y}": lambda y: 1 - y, "1 - {y}^2": lambda y: 1 - y * y,
    "{y} (1 - {y})": lambda y: y * (1 - y),
}  # fmt: skip

Run = list[Node]  # an operand, and the values that a chain of elementwise ops makes of it


class Fit(NamedTuple):
    """The error of a local derivative that explains the errors of all inputs.

    Attributes:
        used: the mask of the elements of y that a cotangent reaches and an input changes.
        error: D' - D in these elements.
        is_unique: whether no other D' - D explains the same.
        is_telling: whether there are errors of these elements that no D' would explain, but only a
            mistake in this derivative. There are none if the forward returns a single number: then
            all cotangents of a value are multiples of each other. Nor if a user of y repeats it
            along axes: a wrong sum over these has the same effect.
    """

    used: np.ndarray
    error: np.ndarray
    is_unique: bool
    is_telling: bool


class LocalDerivatives:
    """Elementwise ops whose local derivative, if it were another one, would explain the errors."""

    def __init__(self, errors: Errors):
        self.errors, self.graph, self.paths = errors, errors.graph, errors.paths
        self._fits: dict[tuple[Node, Node], Fit | None] = {}

    @cached_property
    def steps(self) -> list[Run]:
        """Such ops that use an origin of the errors, or an operand of one, as runs of one op.

        Without an origin all ops are tried.
        """
        origins = self.errors.origins
        before = [p for node in origins for p in node.parents if p in self.graph.consumers]
        operands = list(dict.fromkeys([*before, *(origins or self.graph.consumers)]))
        return [step for step in self._elementwise(operands) if self.fit(step)]

    def _elementwise(self, operands: Sequence[Node]) -> Iterator[Run]:
        for x in operands:
            for y in self.graph.users(x):
                within_one_expression = x.op is not None and x.origin == y.origin
                is_elementwise = y.op.signature == "()" and y.value.shape == x.value.shape
                if is_elementwise and not within_one_expression:
                    yield [x, y]

    def fit(self, run: Run) -> Fit | None:
        """The error of the derivative of the last value by the first; None if none fits."""
        x, y = run[0], run[-1]
        if x not in self.errors.jacobians:  # a large input
            return None
        if (x, y) not in self._fits:
            jacobian, bars = self.errors.jacobians[x], self.paths.bars(y)
            used = self.errors.reached(y) & jacobian.any(axis=0)
            terms = np.concatenate([(jacobian * bar.reshape(-1))[:, used] for bar in bars])
            rows = self.errors.rows.reshape(-1)
            d, _, rank, _ = np.linalg.lstsq(terms, rows, rcond=CUTOFF)
            most = np.linalg.matrix_rank(jacobian)  # so many numbers per y_bar fit any errors
            fits = rank < len(bars) * most and explains(terms @ d, rows)
            independent = np.linalg.matrix_rank(np.stack(bars).reshape(len(bars), -1))
            longer = [u for u in self.graph.users(y) if u.value.size > y.value.size]
            is_repeated = any(user.op.signature == "()" for user in longer)
            there = np.linalg.matrix_rank(jacobian[:, used]) if used.any() else 0
            is_telling = bool(rank < independent * there) and not is_repeated
            fit = Fit(used.reshape(y.value.shape), d, rank == len(d), is_telling)
            self._fits[x, y] = fit if fits else None
        return self._fits[x, y]

    def with_formulas(self, runs: list[Run], suspects: int, all_values: bool = False) -> str:
        """The wrong derivative as it is and as it should be; empty unless one run has formulas.

        An op that only scales a cotangent, as ``+`` does, explains the errors of its neighbours,
        too. So of several suspects such ops are dropped.

        Args:
            runs: the candidates.
            suspects: how many derivatives may be wrong, those of other runs included.
            all_values: whether a formula may be of any named value of the code, not only of y and
                its operands.
        """
        found = {run[-1]: both for run in runs if all(both := self.formulas(run, all_values))}
        if suspects > 1:
            found = {y: both for y, both in found.items() if not re.fullmatch(_NUMBER, both[1])}
        texts = [derivative_text(y, *both) for y, both in found.items()]
        return texts[0] if len(texts) == 1 else ""

    def formulas(self, run: Run, all_values: bool) -> tuple[str, str]:
        """Formulas of the derivative of the last value by the first: the one in the backward and
        the right one; empty where none fits."""
        x, y = run[0], run[-1]
        right, fit = _derivative(x, y), self.fit(run)
        if fit is None or right is None or not fit.error.size or not fit.is_unique:
            return "", ""
        right, wrong = right[fit.used], right[fit.used] + fit.error
        named = {name_of(y) or "y": y.value}
        if len(run) == 2:
            texts = [quote_operand(y, i).strip("`") for i in range(len(y.inputs))]
            named |= {v: a for v, a in zip(texts, y.inputs, strict=True) if v.isidentifier()}
        values = {
            v: np.broadcast_to(np.asarray(a, np.float64), y.value.shape)[fit.used]
            for v, a in named.items()
        }
        arguments = map(np.asarray, (*y.inputs, *y.params.values()))
        ends = sorted(float(a) for a in arguments if not a.ndim and a.dtype.kind in "if")
        right_formula = formula_of(right, values, ends=ends)
        formula = formula_of(wrong, values, ends=ends)
        plausible = ("1", "2", "1/2") if all_values else ("1",)
        if re.fullmatch(_NUMBER, formula) and formula.lstrip("-") not in plausible:
            return "", right_formula  # few people write any other number for a derivative
        if not formula and all_values:
            rest = {v: a[fit.used] for v, a in self._other_values(y).items() if v not in values}
            formula = formula_of(wrong, rest, powers=(1, 2))
        return formula, right_formula

    def between_elements(self) -> str:
        """The paths between elements of a value that are missing on the way back from a later one,
        as in a softmax with the derivative ``p (1 - p)``.

        Several values may explain it; of these, one whose derivative has a formula is told.
        """
        origins, values = self.errors.origins, filter(is_quotable, self.graph.consumers)
        before = ((w, {*ancestors(w)}) for w in values)
        pairs = ((v, w) for w, nodes in before for v in origins if v in nodes)
        pairs = ((v, w) for v, w in pairs if v.value.shape == w.value.shape)
        most = self.errors.most_sweeps // max((v.value.size for v in origins), default=1)
        found = []
        for v, w in islice(pairs, most):
            shape, same = v.value.shape, np.eye(v.value.size)
            rows = (backward_sweep(w, one_hot.reshape(shape), [v])[v] for one_hot in same)
            jacobian = np.stack([as_array(row, v).reshape(-1) for row in rows])
            between = jacobian * (1 - same)
            lost = (bar.reshape(-1) @ between for bar in self.paths.bars(w))
            if between.any() and self.errors.arise_from(v, (-d.reshape(shape) for d in lost)):
                a, b = (np.stack(np.unravel_index(i, shape)) for i in np.nonzero(between))
                axes = axes_text(np.flatnonzero((a != b).any(axis=1)))
                way = f"on the way back from {quote(w)} to {quote(v)}"
                text = f"paths between elements along {axes} are missing {way}"
                has_formula = formula_of(jacobian.diagonal(), {"y": w.value.reshape(-1)}) != ""
                found.append((has_formula, text))
        return max(found, key=itemgetter(0))[1] if found else ""

    def in_repeated_code(self) -> str:
        """The wrong derivative of code that runs several times, such as the tanh of an RNN.

        It is wrong every time, which no fit of one op explains. So the derivatives that people
        confuse are tried in sweeps, for statements first, then for their last ops.
        """
        statements = [[self._run_to(y) for y in ys] for ys in self.graph.loops()]
        statements.sort(key=lambda runs: -len(runs[0]))
        groups = statements + [[run[-2:] for run in runs] for runs in statements]
        groups = [runs for runs in groups if all(len(run) > 1 for run in runs)]
        tries = (each for runs in groups for each in self._confused(runs))
        for runs, wrong, text in islice(tries, self.errors.most_sweeps):
            if self._would_explain(runs, wrong):
                return text
        return ""

    @staticmethod
    def _confused(runs: list[Run]) -> Iterator[tuple[list[Run], list[np.ndarray], str]]:
        """Wrong derivatives of the same code in all its runs, with the text of the mistake."""
        (x, *_, y), ys = runs[0], [run[-1] for run in runs]
        slopes = [np.asarray(_derivative(run[0], run[-1])) for run in runs]
        ends = {name_of(y) or "y": [each.value for each in ys]}
        together = {v: np.concatenate([np.ravel(a) for a in each]) for v, each in ends.items()}
        right = formula_of(np.concatenate([np.ravel(slope) for slope in slopes]), together)
        if name_of(x):
            ends |= {name_of(x): [run[0].value for run in runs]}
        for v, values in ends.items():
            for form, derivative in _CONFUSED.items():
                wrong = form.format(y=v)
                if wrong != right and not re.fullmatch(_NUMBER, right or "1"):
                    text = every_time(derivative_text(y, wrong, right), ys)
                    yield runs, [derivative(value) for value in values], text
        text = f"wrong sign in the path through {every_time(quote(y), ys)}"
        yield runs, [-slope for slope in slopes], text

    def _run_to(self, y: Node) -> Run:
        """The ops of one statement, each with one operand in the graph, that end in y."""
        run = [y]
        while run[0].op is not None and run[0].op.signature == "()":
            operands = [p for p in run[0].parents if p in self.graph.consumers]
            if [x.value.shape for x in operands] != [y.value.shape]:
                break
            run = [*operands, *run]
            (x,), of_y = operands, y.origin.lines
            if x.origin is None or x.origin.lines != of_y or len(self.graph.consumers[x]) > 1:
                break
        return run

    def _would_explain(self, runs: list[Run], derivatives: list[np.ndarray]) -> bool:
        """Whether the actual cotangents arise if the runs have these derivatives."""
        changes: Changes = {}
        for (x, *_, y), derivative in zip(runs, derivatives, strict=True):
            changes[y] = {"op": multiply, "params": {}, "parents": (None, x)}
            changes[y]["inputs"] = derivative, x.value
        return self.errors.arise_if(changes)

    def _other_values(self, y: Node) -> dict[str, np.ndarray]:
        """The other values of the code that have a name and the shape of y."""
        same = [node for node in self.graph.consumers if node.value.shape == y.value.shape]
        return {name: node.value for node in same if node is not y and (name := name_of(node))}


def runs_of(steps: list[Run]) -> Iterator[Run]:
    """Steps, each beginning where the one before it ends, joined; short runs first.

    Of several runs between two values only the shortest is yielded.
    """
    after: dict[Node, list[Node]] = {}
    for x, y in steps:
        after.setdefault(x, []).append(y)
    ends, runs = set(), steps
    for _ in range(_LONGEST):
        new = {(run[0], run[-1]): run for run in runs if (run[0], run[-1]) not in ends}
        ends |= new.keys()
        yield from new.values()
        runs = [[*run, y] for run in new.values() for y in after.get(run[-1], ())]


def is_statement(run: Run) -> bool:
    """Whether a run is everything that one statement of the code does."""
    first, *rest = ((p.lines, p.repeat) if (p := node.origin) else () for node in run)
    ends_one = run[-1].origin is not None and run[-1].origin.is_statement
    return ends_one and first != rest[-1] and set(rest) == {rest[-1]}


def is_scaled(x: Node, y: Node) -> bool:
    """Whether an older x of y's shape has the cotangent of y times a constant; True for other x."""
    if x.index >= y.index or x.value.shape != y.value.shape:
        return True
    local = _derivative(x, y)
    return local is not None and bool(np.ptp(local) <= 1e-9 * np.abs(local).max())


def _derivative(x: Node, y: Node) -> Any:
    """The right derivative of an elementwise y by an older x; None if it is zero."""
    return backward_sweep(y, np.ones(y.value.shape), [x])[x]


def derivative_text(y: Node, wrong: str = "", right: str = "") -> str:
    """The finding that the local derivative of ``y`` is wrong, with its formulas if known."""
    if wrong == right:  # empty, or they differ by less than formulas tell
        wrong = right = ""
    words = "is wrong"
    if right:
        words = f"should be {right}" + (f", not {wrong}" if wrong else "")
    elif wrong:
        words = f"is wrong: it should not be {wrong}"
    is_y = not name_of(y) and re.search(r"\by\b", words)
    words += ", where y is its value" if is_y else ""
    return f"the local derivative of {quote(y)} {words}"
