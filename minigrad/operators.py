"""The binary operators of boxes: a fast path for op calls with two ordinary operands.

A graph of scalars spends most of its time in calling ops. ``Op.__call__`` accepts operands of any
number and kind; the fast path handles two boxes, or a box and a number, in half the time. All else
(constants, sequences, observers, errors) is left to ``Op.__call__``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from minigrad.backend import MODULES, WEAK
from minigrad.context import CURRENT
from minigrad.core.node import Box, Node
from minigrad.core.op import NO_PARAMS, Op
from minigrad.errors import GraphError, describe, facts

_T = TypeVar("_T")


def binary(op: Op) -> tuple[Callable, Callable]:
    """``op`` of two operands as an operator of boxes, and as its reflection."""

    def operator(self: Box, other: Any) -> Any:
        x, node, y = self.array, self.node, None
        if other.__class__ is self.__class__:
            if node is not None and other.node is not None and other.array.__class__ is x.__class__:
                y = _recorded(op, self, (x, other.array), (node, other.node))
        elif MODULES.get(other.__class__) is WEAK:
            y = _recorded(op, self, (x, other), (node, None))
        return op(self, other) if y is None else y

    def reflected(self: Box, other: Any) -> Any:
        y = None
        if MODULES.get(other.__class__) is WEAK:
            y = _recorded(op, self, (other, self.array), (None, self.node))
        return op(other, self) if y is None else y

    return operator, reflected


def in_place(operator: Callable[..., _T]) -> Callable[..., _T]:
    """``w -= step`` rebinds ``w`` to ``w - step``; under ``no_grad`` it assigns to a leaf ``w``.

    Only leaves with a node are assigned to: parameters, frozen or not, buffers, and tensors that
    have a name or are in a graph. Outside ``no_grad`` a step without history would be lost on a
    leaf that has a gradient: GraphError.
    """

    def assigned(self: Any, other: Any) -> Any:
        y, node = operator(self, other), self.node
        if node is None or node.op is not None:
            return y
        if not CURRENT.get().recording:
            self.data = y
            return self
        step = other.node if isinstance(other, Box) else None
        if node.grad is not None and not (step is not None and step.requires_grad):
            expected = "no_grad() around the step, or an optimizer"
            got, remedy = describe(self), "write w = w - step if you want a new tensor"
            headline = "in-place operator on a leaf that has a gradient"
            raise GraphError(facts(headline, expected=expected, got=got, remedy=remedy))
        return y

    return assigned


def _recorded(op: Op, box: Box, inputs: tuple, parents: tuple) -> Any:
    """``op(*inputs)`` as a box like ``box``; None if the call must take the slow path.

    Args:
        op: takes two operands, has no parameters, and keeps no cache.
        box: one of the operands.
        inputs: two arrays of one class, or an array and a number.
        parents: the nodes that made them; None for a number.
    """
    context, xp = CURRENT.get(), MODULES.get(box.array.__class__, WEAK)
    p, q = parents
    if (
        xp is WEAK  # an array whose library is not registered yet
        or not context.recording
        or context.observer is not None
        or not ((p is not None and p.requires_grad) or (q is not None and q.requires_grad))
    ):
        return None
    x1, x2 = inputs
    try:
        value = op.forward(xp, x1, x2)
    except (LookupError, OverflowError, TypeError, ValueError):
        return None
    return box.__class__(value, Node(op, NO_PARAMS, parents, inputs, value, context.scope))
