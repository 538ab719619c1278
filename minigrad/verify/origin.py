"""The value of a graph at which the errors of all inputs originate.

If the cotangent of one value v were wrong by d and the rest of the backward right, the cotangents
of all inputs together would be wrong by J d, where J holds the derivatives of v by the elements of
all inputs, one row per element. So v may be the origin if a least-squares fit by J explains
the errors for every ``y_bar``. A J of full row rank fits any errors and tells nothing. Of the
other values that fit, those with the J of smallest rank are the origins: they need the fewest
numbers.
"""

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from minigrad.core.node import Node
from minigrad.verify.expression import is_quotable
from minigrad.verify.fit import explains
from minigrad.verify.graph import Changes, Edge, as_array
from minigrad.verify.paths import Paths

CUTOFF = 1e-10  # singular values that count as zero, relative to the largest
_ZERO = 1e-6  # relative to the largest cotangent
_MOST = 1e9  # multiplications in singular value decompositions, at most: about a second
_RULES = 30_000  # that run in sweeps over a changed graph, at most
_PUSH = 1e4  # multiplications that take as long as to push a tangent through an op
_PICKED = 700  # elements of all inputs whose errors are compared, at most


class Errors:
    """The errors of all inputs together, compared with what each value of the graph can cause.

    Of inputs with more than 700 elements together, some of each are picked at random.

    Attributes:
        picked: per input, the numbers of these elements.
        rows: (S, P), for each ``y_bar`` the errors of the cotangents of all P picked elements.
        right: (S, P), the right cotangents.
    """

    def __init__(self, paths: Paths):
        self.paths, self.graph = paths, paths.graph
        sizes = [end.value.size for end in self.graph.leaves]
        most = _PICKED // len(sizes) if sum(sizes) > _PICKED else _PICKED
        rng = np.random.default_rng(0)
        self.picked = [np.sort(rng.permutation(size)[:most]) for size in sizes]
        got, self.right = (
            np.stack([self._joined(x_bars) for x_bars in zip(*of_inputs, strict=True)])
            for of_inputs in (paths.got, paths.right)
        )
        self.rows = got - self.right

    def _joined(self, x_bars: Iterable[np.ndarray]) -> np.ndarray:
        """The picked elements of all cotangents as one row."""
        pairs = zip(x_bars, self.picked, strict=True)
        return np.concatenate([x_bar.reshape(-1)[picked] for x_bar, picked in pairs])

    @cached_property
    def are_tractable(self) -> bool:
        """Whether a search takes no longer than a second, and LAPACK gets neither nan nor inf."""
        sizes, total = [node.value.size for node in self._known], self.rows.size
        pushes = self.rows.shape[1] * len(self.graph.consumers)
        products = sum(max(total, n) * min(total, n) ** 2 for n in sizes)
        is_cheap = _PUSH * pushes + products <= _MOST
        return is_cheap and all(np.isfinite(j).all() for j in self.jacobians.values())

    @cached_property
    def _known(self) -> list[Node]:
        """The values whose Jacobian is computed: all but inputs that are picked in part."""
        pairs = zip(self.graph.leaves, self.picked, strict=True)
        in_part = [end for end, picked in pairs if len(picked) < end.value.size]
        return [node for node in self.graph.consumers if node not in in_part]

    @property
    def most_sweeps(self) -> int:
        """How often a changed graph may be swept."""
        return _RULES // len(self.graph.consumers)

    @cached_property
    def jacobians(self) -> dict[Node, np.ndarray]:
        """The derivatives of each value by the picked elements: (P, size of the value)."""
        rows: dict[Node, list] = {node: [] for node in self._known}
        for end, picked in zip(self.graph.leaves, self.picked, strict=True):
            for i in picked:
                tangent = np.zeros(end.value.shape)
                tangent.reshape(-1)[i] = 1
                dots = self.graph.push(end, tangent)
                for node, of_node in rows.items():
                    of_node.append(np.reshape(dots.get(node, np.zeros(node.value.shape)), -1))
        return {node: np.stack(of_node) for node, of_node in rows.items()}

    @cached_property
    def are_scaled(self) -> bool:
        """Whether each cotangent is a multiple of the right one, the same for every ``y_bar``.

        Where only one element of y depends on that input, any cotangent is: False.
        """
        wrong = self.rows.any(axis=0)
        if (np.count_nonzero(self.jacobians[self.graph.root][wrong], axis=1) < 2).any():
            return False
        size = np.abs(self.right).max(initial=0)
        known = (np.abs(self.right) > _ZERO * size).all(axis=0)
        factors = self.rows[:, known] / self.right[:, known]
        same = np.ptp(factors, axis=0) <= _ZERO * np.abs(factors).max(initial=0)
        return bool(same.all()) and np.abs(self.rows[:, ~known]).max(initial=0) <= _ZERO * size

    def mixes(self, node: Node) -> bool:
        """Whether an element of this value depends on several of the inputs."""
        jacobian = self.jacobians.get(node)  # None for an input
        return jacobian is not None and bool((np.count_nonzero(jacobian, axis=0) > 1).any())

    def reached(self, node: Node) -> np.ndarray:
        """A mask of the elements that have a nonzero cotangent for some ``y_bar``.

        Those behind a mask or an index of the forward may have none.
        """
        return np.any([bar.reshape(-1) != 0 for bar in self.paths.bars(node)], axis=0)

    @cached_property
    def origins(self) -> list[Node]:
        """The values with code that explain the errors with the fewest numbers, the oldest first.

        An error of the reached elements alone is tried before one of all elements.
        """
        ranks: dict[Node, int] = {}
        for node, jacobian in self.jacobians.items():
            reached = self.reached(node)
            for columns in [reached] if reached.all() else [reached, slice(None)]:
                part = jacobian[:, columns]
                d, _, rank, _ = np.linalg.lstsq(part, self.rows.T, rcond=CUTOFF)
                if rank < len(part) and explains(part @ d, self.rows.T):
                    ranks[node] = int(rank)
                    break
        fewest = [node for node, rank in ranks.items() if rank == min(ranks.values())]
        return [node for node in fewest if is_quotable(node)]

    def wrong_bars(self, node: Node) -> np.ndarray | None:
        """The cotangents of a value that explain the errors, one per ``y_bar``; None unless only
        these do."""
        d, _, rank, _ = np.linalg.lstsq(self.jacobians[node], self.rows.T, rcond=CUTOFF)
        right = np.stack(self.paths.bars(node))
        return right + d.T.reshape(right.shape) if rank == node.value.size else None

    def explained_by(self, edge: Edge, pulled: Iterable[np.ndarray | None]) -> bool:
        """Whether the errors arise if an edge passes these cotangents back to its operand.

        ``pulled`` has one for each ``y_bar``, in the place of the right ones; None is zero.
        """
        parent = edge[0].parents[edge[1]]
        right = self.paths.bars(parent, [edge])
        wrong = (as_array(bar, parent) - r for bar, r in zip(pulled, right, strict=True))
        return self.arise_from(parent, wrong)

    def arise_from(self, node: Node, wrong_by: Iterable[np.ndarray]) -> bool:
        """Whether the errors arise if the cotangents of a value, one per ``y_bar``, are wrong by
        these."""
        return self._are(self._joined(self.graph.pull_from(node, d)) for d in wrong_by)

    def arise_if(self, changes: Changes) -> bool:
        """Whether a sweep over the changed graph gives what was got."""
        got = (self._joined(self.graph.pull(y_bar, changes)[0]) for y_bar in self.paths.y_bar)
        return self._are(row - right for row, right in zip(got, self.right, strict=True))

    def _are(self, errors: Iterable[np.ndarray]) -> bool:
        """Whether these are the errors, for every ``y_bar``."""
        return all(explains(own, row) for own, row in zip(errors, self.rows, strict=True))
