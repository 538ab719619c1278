"""Which path of a forward its backward lacks, or counts wrongly.

A cotangent is a sum over the paths of the graph. What each edge adds to it is known, so an error
that is a multiple of one such part has a name: the code that the path leads through.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from minigrad.core.node import Node
from minigrad.verify.fit import close, factor_text, mean_factors, root_factors
from minigrad.verify.subject import Subject
from minigrad.verify.traced import Edge, Graph, every_time, is_quotable, quote, quote_operand, trace

_WAYS = 3  # random tangents that tell the parts of a cotangent apart
_DIGITS = 1e-6  # of an error: what an explanation may leave of it
_SAME = 1e-3  # of a cotangent: how far that of the graph may be from the one by differences


def paths_of(subject: Subject, y_bar: np.ndarray, right: list[np.ndarray]) -> "Paths | None":
    """What of a subject can be followed; None unless its graph gives the right cotangents.

    Args:
        subject: the pair and its point.
        y_bar: (S, \\*y.shape), cotangents of y.
        right: per input, (S, \\*its shape), what should come of each.
    """
    graph = trace(subject)
    if graph is None:
        return None
    paths = Paths(graph, y_bar, [subject.pull(one) for one in y_bar])
    pairs = zip(paths.right, right, strict=True)
    return paths if all(close(a, b, _SAME) or not b.any() for a, b in pairs) else None


class Paths:
    """The graph of a forward, and what a backward made of some cotangents of y.

    Args:
        graph: of the forward.
        y_bar: (S, \\*y.shape).
        got: the cotangents of all inputs, for each of ``y_bar``.

    Attributes:
        right, got: per input, (S, \\*its shape), what should have come and what did.
    """

    def __init__(self, graph: Graph, y_bar: np.ndarray, got: list[list[np.ndarray]]):
        self.graph, self.y_bar = graph, y_bar
        pulls = [graph.pull(one) for one in y_bar]
        self._bars = [bars for _, bars in pulls]
        self.right = [np.stack(each) for each in zip(*(x_bars for x_bars, _ in pulls), strict=True)]
        self.got = [np.stack(each).astype(np.float64) for each in zip(*got, strict=True)]

    def bars(self, node: Node, edges: Sequence[Edge] = ()) -> list[np.ndarray]:
        """The cotangents of a value, or the parts of them that come over some edges."""
        if node is self.graph.root:
            return list(self.y_bar)
        edges, zero = edges or self.graph.consumers[node], np.zeros(node.value.shape)
        return [sum((bars[e] for e in edges if e in bars), zero) for bars in self._bars]

    def wrong(self, k: int, tolerance: float) -> str:
        """The path that is missing in the cotangents of input ``k``, or has a factor of its own.

        Args:
            k: an input.
            tolerance: how far an explanation may be off, relative to the largest element.
        """
        end, error = self.graph.leaves[k], self.got[k] - self.right[k]
        rng = np.random.default_rng(0)
        ways = [rng.normal(size=end.value.shape) for _ in range(_WAYS)]
        dots = [self.graph.push(end, way) for way in ways]
        seen = np.array([(one * way).sum() for one in error for way in ways])
        found = []
        for parent, edges in self._parts(end):
            if parent not in dots[0]:
                continue
            bars = self.bars(parent, edges)
            part = np.array([(bar * dot[parent]).sum() for bar in bars for dot in dots])
            off = float(part @ seen) / size if (size := float(part @ part)) else 0.0
            if not off or not explains(off * part, seen):
                continue
            through = np.stack([self.graph.pull_from(parent, bar, end) for bar in bars])
            if close(self.right[k] + off * through, self.got[k], tolerance):
                is_value = parent.op is not None and edges == self.graph.consumers[parent]
                where = quote(parent) if is_value else self._said_edge(*edges[0])
                likely, words = self._counted(off)
                if likely == 2 and error[0].size == 1:
                    continue  # one number is a multiple of any other
                index = parent.index if is_value else edges[0][0].index
                found.append((likely == 2, not is_value, likely, index, words.format(where)))
        return min(found)[-1] if found else self._never(k, tolerance)

    def scaled(self, off: float) -> str:
        """The code whose factor is left out, or counted otherwise, if all is 1 + off times right.

        The factor is that of a mean, or a number that the code multiplies or divides by.
        """
        for node in filter(is_quotable, self.graph.consumers):
            name, factor = node.op.name if node.op is not None else "", 1.0
            for i, (x, parent) in enumerate(zip(node.inputs, node.parents, strict=True)):
                is_number = parent is None and np.size(x) == 1 and np.all(x)
                if name in ("multiply", "divide") and is_number:
                    factor = float(np.reshape(x, ())) ** (-1 if name == "divide" and i else 1)
            if name == "mean":
                factor = node.value.size / node.inputs[0].size
            ways = (-1, "is left out"), (1, "counts twice"), (-2, "is inverted")
            for power, way in ways if abs(factor) != 1 else ():
                if abs(1 + off - factor**power) <= _DIGITS * abs(1 + off):
                    return f"factor {factor_text(off)}: that of {quote(node)} {way}"
        return ""

    @cached_property
    def _named(self) -> list[tuple[float, str]]:
        """Factors that have a name; sizes are those of sums, means and products of matrices."""
        sizes = []
        for node in self.graph.consumers:
            if node.op is not None and node.op.name in ("sum", "mean"):
                sizes.append(node.inputs[0].size // max(node.value.size, 1))
            elif node.op is not None and node.op.name == "matmul":
                sizes.append(node.inputs[0].shape[-1])
        named = [(-1.0, "wrong sign"), (2.0, "factor 2"), (0.5, "factor 1/2")]
        for n in dict.fromkeys(n for n in sizes if n > 1):
            named += mean_factors(n) + root_factors(n)
        return named

    def _counted(self, off: float) -> tuple[int, str]:
        """What a factor 1 + off of a path means; the less likely, the larger the number."""
        if abs(1 + off) < _DIGITS:
            return 0, "missing path through {}"
        names = [name for c, name in self._named if abs(1 + off - c) <= _DIGITS * abs(c)]
        what, _, why = (names or [f"factor {factor_text(off)}"])[0].partition(": ")
        return 1 if names else 2, f"{what} in the path through {{}}" + f": {why}" * bool(why)

    def _never(self, k: int, tolerance: float) -> str:
        """The path that is missing each time, of code that runs again and again."""
        same: dict[tuple, list[Edge]] = {}
        for node, i in (edge for edges in self.graph.consumers.values() for edge in edges):
            if node.origin is not None:
                same.setdefault((node.origin.text, node.origin.lines, i), []).append((node, i))
        for edges in same.values():
            if len(edges) > 1:
                found = [self.graph.pull_without(edges, one)[k] for one in self.y_bar]
                if close(np.stack(found), self.got[k], tolerance):
                    return f"missing path through {every_time(self._said_edge(*edges[0]))}"
        return ""

    def alone(self, k: int, tolerance: float) -> str:
        """The one path that counts where others should, too."""
        end = self.graph.leaves[k]
        for edge in self.graph.consumers[end]:
            if is_quotable(edge[0]) and close(
                np.stack(self.bars(end, [edge])), self.got[k], tolerance
            ):
                return f"only the path through {self._said_edge(*edge)} counts: = for +="
        return ""

    def _parts(self, end: Node) -> Iterator[tuple[Node, list[Edge]]]:
        """What a cotangent is a sum of: all that flows through a value, and through an edge."""
        for node, edges in self.graph.consumers.items():
            if node.op is not None and is_quotable(node):
                yield node, edges
            if node is end or len(edges) > 1:
                yield from ((node, [edge]) for edge in edges if is_quotable(edge[0]))

    def _said_edge(self, node: Node, i: int) -> str:
        others = [parent for parent in node.parents if parent in self.graph.consumers]
        return f"{quote_operand(node, i)} in {quote(node)}" if len(others) > 1 else quote(node)


def explains(cause: np.ndarray, error: np.ndarray) -> bool:
    """Whether one is the other, but for rounding."""
    return bool(np.abs(cause - error).max() <= _DIGITS * np.abs(error).max())
