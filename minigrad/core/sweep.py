"""The two sweeps over a recorded graph: cotangents backward, tangents forward.

Both are loops over ``ancestors(root)``. With ``record=False`` the rules run on plain arrays. With
``record=True`` they run on boxes, so the sweep is itself recorded and can be differentiated; its
ops land in scopes that mirror those of the forward pass (``∇ batch_norm``).
"""

from collections.abc import Iterable
from typing import Any

from minigrad.core.broadcast import broadcast_to, fit, unbroadcast
from minigrad.core.node import THREAD, Node, Scope, ancestors, setting
from minigrad.errors import RuleError, facts, overwritten


def backward_sweep(
    root: Node, seed: Any, targets: Iterable[Node] | None = None, record: bool = False
) -> dict[Node, Any]:
    """Pull the cotangent ``seed`` of ``root`` back to ``targets``.

    Args:
        root: the node to start from.
        seed: its cotangent, of its shape and dtype; a box when ``record`` is true.
        targets: the nodes whose cotangents are asked for. None: the root and every node with
            ``keep_grad``. Nothing is computed for nodes that depend on no target.
        record: run the rules on boxes.

    Returns:
        ``{target: cotangent}``, with None for a cotangent that is zero.

    Raises:
        OverwrittenError: a tensor this graph used was assigned after it was recorded.
        RuleError: a rule returned a cotangent of the wrong shape, number or type.
    """
    order = _checked_ancestors(root)
    if targets is None:
        result = {node: None for node in order if node.keep_grad or node is root}
        bars = {node: None for node in order if node.requires_grad}
    else:
        result = dict.fromkeys(targets)
        bars = dict(result)
        for node in order:
            if not bars.keys().isdisjoint(node.parents):
                bars[node] = None
    bars[root] = seed  # a node that is not in bars leads to no target
    observer = THREAD.context.observer
    mirror = _Mirror("∇ ", seed) if record else None
    with setting(observer=observer if record else None):  # it watches pulls, not plain arithmetic
        for node in reversed(order):
            y_bar = bars.get(node)
            if y_bar is None:
                continue
            bars[node] = None  # free it as soon as it is used
            if node in result:
                result[node] = y_bar
            if node.op is None:
                continue
            if mirror is None:
                _pull(node, y_bar, node.value, node.inputs, bars, observer)
            else:
                with mirror.scope_of(node):
                    _pull(node, y_bar, *mirror.operands(node), bars, observer)
    return result


def _pull(node: Node, y_bar: Any, y: Any, xs: tuple, bars: dict, observer: Any) -> None:
    """Run the vjp rule of ``node`` and add its cotangents to those of the parents."""
    op = node.op
    if observer is not None:
        observer.pulling(node, y_bar)
    partials, params = op.partials, node.params
    if partials is not None:
        entries = partials(y, *xs, **params) if params else partials(y, *xs)
    elif op.vjp is not None:
        entries = op.vjp(y_bar, y, *xs, **params)
    else:
        raise RuleError(f"{op.name}: no derivative rule is declared; use @{op.name}.defvjp")
    if entries.__class__ is not tuple or len(entries) != len(xs):
        got = f"{len(entries)} entries" if type(entries) is tuple else type(entries).__name__
        headline = f"{op.name}: the derivative rule must return one entry per input"
        raise RuleError(facts(headline, expected=f"a tuple of {len(xs)}", got=got))
    for i, parent in enumerate(node.parents):
        if parent not in bars:
            continue
        entry = entries[i]
        if callable(entry):
            entry = entry()
        if entry is None:
            continue
        if partials is not None:
            entry = y_bar * entry if entry.__class__ is not int else _times(y_bar, entry)
        raw = x_bar = entry
        x = node.inputs[i]
        if getattr(raw, "shape", None) != x.shape or raw.dtype is not x.dtype:
            x_bar = unbroadcast(op, i, raw, x)
        total = bars[parent]
        bars[parent] = total = x_bar if total is None else total + x_bar
        if observer is not None:
            observer.pulled(node, i, raw, x_bar, total)


def forward_sweep(root: Node, tangents: dict[Node, Any], record: bool = False) -> Any:
    """Push ``tangents`` (node -> tangent, of its shape and dtype) forward to ``root``.

    Returns:
        The tangent of ``root``, or None where it is zero.
    """
    dots = dict(tangents)
    mirror = _Mirror("d ", next(iter(tangents.values()))) if record else None
    for node in _checked_ancestors(root):
        x_dots = [dots.get(parent) for parent in node.parents]
        if node in dots or all(x_dot is None for x_dot in x_dots):
            continue
        if mirror is None:
            dots[node] = _push(node, x_dots, node.value, node.inputs)
        else:
            with mirror.scope_of(node):
                dots[node] = _push(node, x_dots, *mirror.operands(node))
    return dots.get(root)


def _push(node: Node, x_dots: list, y: Any, xs: tuple) -> Any:
    """The tangent of ``node``, of the shape and dtype of its value; None where it is zero."""
    op, params = node.op, node.params
    known = [i for i, x_dot in enumerate(x_dots) if x_dot is not None]
    if op.partials is not None:
        found = op.partials(y, *xs, **params)
        pairs = [(x_dots[i], found[i]() if callable(found[i]) else found[i]) for i in known]
        terms = [_times(x_dot, partial) for x_dot, partial in pairs if partial is not None]
    elif op.jvp is not None:
        terms = [op.jvp(tuple(x_dots), y, *xs, **params)]
    elif op.linear == "jointly":
        dense = [x * 0 if x_dot is None else x_dot for x_dot, x in zip(x_dots, xs, strict=True)]
        terms = [op(*dense, **params)]
    elif op.linear == "separately":
        terms = [op(*xs[:i], x_dots[i], *xs[i + 1 :], **params) for i in known]
    else:
        raise RuleError(f"{op.name}: no jvp rule is declared; use @{op.name}.defjvp")
    y_dot = None
    for term in terms:
        term = broadcast_to(term, shape=y.shape) if term.shape != y.shape else term
        y_dot = term if y_dot is None else y_dot + term
    return y_dot if y_dot is None else fit(y_dot, y)


def _times(bar: Any, partial: Any) -> Any:
    """``bar * partial``, where a partial of 1 or -1 costs nothing or a negation."""
    if partial.__class__ is int and partial * partial == 1:
        return bar if partial == 1 else -bar
    return bar * partial


def _checked_ancestors(root: Node) -> list[Node]:
    """``ancestors(root)``, none of which was assigned since it was recorded."""
    order = ancestors(root)
    for node in order:
        if node.overwritten:
            user = next(child for child in order if node in child.parents)
            raise overwritten(user.op.name, user.parents.index(node), node)
    return order


class _Mirror:
    """How a recorded sweep sees a forward graph: operands as boxes, scopes with a prefix."""

    def __init__(self, prefix: str, seed: Any):
        self.prefix = prefix
        self.box = type(seed)
        self.scopes: dict[Scope | None, Scope | None] = {None: THREAD.context.scope}

    def operands(self, node: Node) -> tuple[Any, tuple]:
        pairs = zip(node.inputs, node.parents, strict=True)
        xs = tuple(x if parent is None else self.box(x, parent) for x, parent in pairs)
        return self.box(node.value, node), xs

    def scope_of(self, node: Node) -> Any:
        for scope in node.scope.path() if node.scope else ():
            if scope not in self.scopes:
                self.scopes[scope] = Scope(self.prefix + scope.name, self.scopes[scope.parent])
        return setting(scope=self.scopes[node.scope])
