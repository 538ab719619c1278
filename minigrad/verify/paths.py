"""Which path of a forward is missing in its backward, or has a wrong factor.

The cotangent of an input is a sum over the paths of the graph from y to it. If its error is a
multiple of the part that flows through one value, or through one edge, the finding quotes the code
of that value or edge: minus one times the part is a missing path, minus two times a wrong sign.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from minigrad.core.node import Node, ancestors
from minigrad.verify.case import Case, Hypothesis
from minigrad.verify.expression import every_time, is_quotable, name_of, quote, quote_operand
from minigrad.verify.fit import (
    PLAIN_FACTORS,
    POWERS,
    close,
    explains,
    factor_text,
    mean_factors,
    names_of,
    root_factors,
)
from minigrad.verify.graph import Edge, Graph, changed_operands, without
from minigrad.verify.traced import trace

_TANGENTS = 3  # random ones, which tell the parts of a cotangent apart
_TOLERANCE = 1e-6  # of factors, relative
_SAME = 1e-3  # largest relative difference of the graph's cotangents from the expected ones
_ZERO = 1e-12  # the same, relative to the largest cotangent of any input

_MISSING, _NAMED, _ANY = range(3)  # kinds of factors of a path, the likelier ones first


def paths_of(case: Case) -> "Paths | None":
    """The paths of a subject; None where its graph is lost, or gives not the expected cotangents.

    They are the same for all inputs.
    """
    graph = trace(case.subject)
    if graph is None:
        return None
    paths = Paths(graph, case)
    largest = max(np.abs(b).max(initial=0) for b in case.right)
    for a, b in zip(paths.right, case.right, strict=True):
        is_rounding = np.abs(a - b).max(initial=0) <= _ZERO * largest
        if not is_rounding and not close(a, b, _SAME) and b.any():
            return None
    return paths


class Paths:
    """The graph of a forward, with the results of a backward for some cotangents of y.

    Attributes:
        y_bar: (S, \\*y.shape), those cotangents.
        right, got: per input, (S, \\*its shape), the cotangents by the graph and by the backward.
    """

    def __init__(self, graph: Graph, case: Case):
        self.graph, self.y_bar = graph, case.y_bar
        right, self._bars = zip(*map(graph.pull, self.y_bar), strict=True)
        got = map(case.subject.pull, self.y_bar)
        self.right = [np.stack(each) for each in zip(*right, strict=True)]
        self.got = [np.stack(each).astype(np.float64) for each in zip(*got, strict=True)]

    def bars(self, node: Node, edges: Sequence[Edge] = ()) -> list[np.ndarray]:
        """The right cotangents of a value, one per ``y_bar``, or their parts from some edges."""
        if node is self.graph.root:
            return list(self.y_bar)
        edges, zero = edges or self.graph.consumers[node], np.zeros(node.value.shape)
        return [sum((bars[e] for e in edges if e in bars), zero) for bars in self._bars]

    @property
    def _symbol(self) -> str:
        """What a text calls a value that has no name."""
        return "v" if all(end.name != "v" for end in self.graph.leaves) else "c"

    def quotable_values(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """The values that ops of the code made, with what a text calls them, and that code."""
        for node in filter(is_quotable, self.graph.consumers):
            if node.op is not None:
                yield name_of(node) or self._symbol, quote(node), np.asarray(node.value)

    def wrong_path(self, case: Case) -> str:
        """The path that is missing in the cotangents of an input, or has a wrong factor.

        Where a part has the factor 1 + d instead of 1, the error is d times that part. Their inner
        products with random tangents of the input are compared: for a part they follow from the
        tangents of its value, without a sweep back to the input.
        """
        end, error = self.graph.leaves[case.k], self.got[case.k] - self.right[case.k]
        rng = np.random.default_rng(0)
        tangents = [rng.normal(size=end.value.shape) for _ in range(_TANGENTS)]
        pushed = [self.graph.push(end, tangent) for tangent in tangents]
        projected_error = np.array([(e * tangent).sum() for e in error for tangent in tangents])
        found = []
        for parent, edges in self._parts(end):
            if parent not in pushed[0]:
                continue
            bars = self.bars(parent, edges)
            projected = np.array([(bar * dots[parent]).sum() for bar in bars for dots in pushed])
            size = float(projected @ projected)
            d = float(projected @ projected_error) / size if size else 0.0
            if not explains(d * projected, projected_error):
                continue
            kind, words = self._meaning(d, parent)
            if kind == _ANY and error[0].size == 1:
                continue  # one number is a multiple of any other
            is_value = parent.op is not None and edges == self.graph.consumers[parent]
            quoted = quote(parent) if is_value else self._quote_edge(*edges[0])
            index = parent.index if is_value else edges[0][0].index
            found.append((kind == _ANY, not is_value, kind, index, words.format(quoted)))
        return min(found)[-1] if found else case.cause_in(self._missing_every_time(case.k))

    def wrong_constant(self, k: int, deviation: float) -> str:
        """The code whose factor, the same for all elements, explains cotangents of input ``k``
        that are 1 + deviation times the right ones."""
        for nodes in self.graph.repeated():
            mistake = _mistaken(nodes, deviation)
            if mistake and self._is_factor(nodes, k):
                return mistake
        return next(self._scalars(deviation), "")

    def _scalars(self, deviation: float) -> Iterator[str]:
        """The texts of powers of single numbers that the code computes, if they are a factor."""
        for node in self.graph.consumers:
            if node.op is not None and node.origin is not None and np.size(node.value) == 1:
                value = float(np.reshape(node.value, ()))
                powers = [(value**n, form) for n, form in POWERS] if value else []
                for form in names_of(deviation, powers, _TOLERANCE):
                    v = name_of(node) or self._symbol
                    yield f"factor {form.format(v)}: {v} is the value of {quote(node)}"

    def _is_factor(self, nodes: list[Node], k: int) -> bool:
        """Whether the cotangents of input ``k`` are a multiple of the constant factor of nodes.

        They are if all of them flow through a node, or through ops that multiply by its value.
        """
        edges = [edge for node in nodes for edge in self.graph.consumers[node]]
        rest = self.graph.pull(self.y_bar[0], without(edges))[0][k] if edges else np.zeros(1)
        if np.abs(rest).max(initial=0) <= _TOLERANCE * np.abs(self.right[k][0]).max(initial=0):
            return True
        twice = changed_operands(edges, "inputs", lambda value: 2 * value)
        doubled = self.graph.pull(self.y_bar[0], twice)[0][k]
        return close(doubled, 2 * self.right[k][0], _TOLERANCE)

    @cached_property
    def _named_factors(self) -> list[tuple[float, str]]:
        """Factors that have a name; sizes are those of sums, means, variances and products
        of matrices."""
        sizes, of_variances = [], []
        constants = {abs(_constant_factor(node)) for node in self.graph.consumers}
        for node in self.graph.consumers:
            name = node.op.name if node.op is not None else ""
            if name in ("sum", "mean", "var"):
                n = node.inputs[0].size // max(node.value.size, 1)
                is_divided = name == "sum" and n > 2 and {1 / n, 1 / (n - 1)} & constants
                sizes += [n] * (name != "var")
                of_variances += [n] * (name == "var" or bool(is_divided))
            elif name == "matmul":
                sizes.append(node.inputs[0].shape[-1])
        named, mix_up = list(PLAIN_FACTORS), "biased and unbiased variance mixed up"
        for n in dict.fromkeys(n for n in sizes if n > 1):
            named += mean_factors(n) + root_factors(n)
        for a, b in ((n, n - 1) for n in dict.fromkeys(of_variances) if n > 2):
            named += [(a / b, f"factor {a}/{b}: {mix_up}"), (b / a, f"factor {b}/{a}: {mix_up}")]
        return named

    def _meaning(self, deviation: float, node: Node) -> tuple[int, str]:
        """The kind of the factor 1 + deviation of a path through a node, and its text with a gap
        for the code."""
        if abs(1 + deviation) < _TOLERANCE:
            return _MISSING, "missing path through {}"
        names = names_of(deviation, self._named_factors, _TOLERANCE)
        name = names[0] if names else next(self._factors_near(node, deviation), "")
        what, _, why = (name or f"factor {factor_text(deviation)}").partition(": ")
        words = f"{what} in the path through {{}}" + (f": {why}" if why else "")
        return (_NAMED if names else _ANY), words

    def _factors_near(self, node: Node, deviation: float) -> Iterator[str]:
        """The texts of what the code multiplies by before or behind a node, the nearest first."""
        before, near = set(ancestors(node)), lambda other: abs(other.index - node.index)
        for other in sorted(filter(is_quotable, self.graph.consumers), key=near):
            mistake = _mistaken([other], deviation)
            if mistake and (other in before or node in ancestors(other)):
                yield mistake
        yield from self._scalars(deviation)

    def _missing_every_time(self, k: int) -> Iterator[Hypothesis]:
        """A path through repeated code that is missing in each repetition."""
        groups: dict[tuple, list[Edge]] = {}
        for node, i in (edge for edges in self.graph.consumers.values() for edge in edges):
            if node.origin is not None:
                groups.setdefault((node.origin.text, node.origin.lines, i), []).append((node, i))
        for edges in groups.values():
            if len(edges) > 1:
                text = f"missing path through {every_time(self._quote_edge(*edges[0]))}"
                rest = [self.graph.pull(each, without(edges))[0][k] for each in self.y_bar]
                yield text, np.stack(rest)

    def only_path(self, k: int) -> Iterator[Hypothesis]:
        """The one edge of input ``k`` that the backward counts, where it should add up several."""
        end = self.graph.leaves[k]
        for edge in filter(lambda edge: is_quotable(edge[0]), self.graph.consumers[end]):
            text = f"only the path through {self._quote_edge(*edge)} counts: = instead of +="
            yield text, np.stack(self.bars(end, [edge]))

    def _parts(self, end: Node) -> Iterator[tuple[Node, list[Edge]]]:
        """The parts of a cotangent: the flow through each value, and through each single edge."""
        for node, edges in self.graph.consumers.items():
            if node.op is not None and is_quotable(node):
                yield node, edges
            if node is end or len(edges) > 1:
                yield from ((node, [edge]) for edge in edges if is_quotable(edge[0]))

    def _quote_edge(self, node: Node, i: int) -> str:
        parents = [parent for parent in node.parents if parent in self.graph.consumers]
        return f"{quote_operand(node, i)} in {quote(node)}" if len(parents) > 1 else quote(node)


def _mistaken(nodes: list[Node], deviation: float) -> str:
    """What was done to the constant factor of nodes of the same code, if cotangents are
    1 + deviation times the right ones; or empty."""
    factor, part, plain = _constant_factor(nodes[0]), "factor", (0, 1)
    mistakes = {"is left out": -1, "is applied twice": 1, "is inverted": -2}
    if nodes[0].op is not None and nodes[0].op.name == "power" and np.size(nodes[0].inputs[1]) == 1:
        factor, part = float(np.reshape(nodes[0].inputs[1], ())), "exponent"
        mistakes, plain = {"is left out": -1}, (0, 1, 2)  # 1/2 has many other reasons
    powers = [(factor**n, what) for what, n in mistakes.items()] if abs(factor) not in plain else []
    for mistake in names_of(deviation, powers, _TOLERANCE):
        quoted = quote(nodes[0]) if len(nodes) == 1 else every_time(quote(nodes[0]))
        return f"factor {factor_text(deviation)}: the {part} of {quoted} {mistake}"
    return ""


def _constant_factor(node: Node) -> float:
    """The number by which an op multiplies, with a mask or without: 1/n for a mean of n; 1 for most
    ops."""
    name, factor = node.op.name if node.op is not None else "", 1.0
    if name == "mean":
        return node.value.size / node.inputs[0].size
    if name in ("multiply", "divide"):
        for i, (x, parent) in enumerate(zip(node.inputs, node.parents, strict=True)):
            nonzero = np.reshape(x, -1)[np.reshape(x, -1) != 0] if parent is None else np.empty(0)
            if nonzero.size and (nonzero == nonzero[0]).all():
                factor = float(nonzero[0]) ** (-1 if name == "divide" and i else 1)
    return factor
