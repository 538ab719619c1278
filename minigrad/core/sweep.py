"""The two sweeps over a recorded graph, cotangents backward and tangents forward: plain loops.

With ``record=True`` the rules run on boxes, so the sweep is itself recorded and can be
differentiated; its ops land in scopes that mirror those of the forward pass (``∇ batch_norm``).
"""

from collections.abc import Collection
from typing import Any

from minigrad.backend import SCALARS, zeros_like
from minigrad.context import CURRENT, Scope, setting
from minigrad.core.broadcast import rebroadcast, unbroadcast
from minigrad.core.node import Node, ancestors
from minigrad.errors import no_rule, unchanged, wrong_entries, wrong_partial


def backward_sweep(
    root: Node, seed: Any, targets: Collection[Node] | None = None, record: bool = False
) -> dict[Node, Any]:
    """Pull the cotangent ``seed`` of ``root`` back: ``{target: cotangent}``, None where it is zero.

    ``targets`` of None: the root and all with ``keep_grad``; each cache is dropped once used. With
    ``record`` the rules run on boxes. OverwrittenError where a tensor was assigned since.
    """
    order = unchanged(ancestors(root, targets or ()))
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
    ours: set[Node] = set()  # whose cotangent is an array that nobody else holds
    observer = CURRENT.get().observer
    mirror = _Mirror("∇ ", seed) if record else None
    with setting(observer=observer if record else None):  # it watches pulls, not plain arithmetic
        for node in reversed(order):
            if (y_bar := bars.pop(node, None)) is None:  # popped lest it stay in memory
                continue
            if node in result:
                result[node] = y_bar
                ours.discard(node)
            if mirror is None and node.op is not None:
                _pull(node, y_bar, None, bars, ours, observer)
                if targets is None and node.op.pull is not None:
                    node.forget()
            elif mirror is not None and node.op is not None:
                with mirror.scope_of(node):
                    _pull(node, y_bar, mirror.operands(node), bars, ours, observer)
    return result


def _pull(node: Any, y_bar: Any, boxes: Any, bars: dict, ours: set, observer: Any) -> None:
    """Run a rule of ``node``, on ``boxes`` if given, and add its cotangents to the parents'."""
    op, params, partials = node.op, node.params, node.op.partials
    pull: Any = op.pull if boxes is None else None  # that of a kernel
    if observer is not None:
        observer.pulling(node, y_bar)
    if pull is not None:
        xs = node.kinds
        entries = pull(y_bar, node.cache, node in ours and observer is None)
    else:
        y, xs = (node.value, node.inputs) if boxes is None else boxes
        if partials is not None:
            entries = partials(y, *xs, **params) if params else partials(y, *xs)
        elif op.vjp is not None:
            entries = op.vjp(y_bar, y, *xs, **params)
        else:
            raise no_rule(op, "defvjp")
    if entries.__class__ is not tuple or len(entries) != len(xs):
        raise wrong_entries(op, entries, len(xs))
    for i, parent in enumerate(node.parents):
        if parent not in bars:
            continue
        raw: Any = entries[i]() if callable(entries[i]) else entries[i]
        if raw is None:
            continue
        if partials is not None:
            try:
                raw = y_bar * raw if raw.__class__ is not int else _times(op, y_bar, raw)
            except (TypeError, ValueError) as error:
                raise wrong_partial(op, y_bar, raw) from error
        x, x_bar, kind = xs[i], raw, raw.__class__
        if kind is not x.__class__ or kind not in SCALARS:
            x_bar = unbroadcast(op, i, raw, x, y_bar.shape)
        total = bars[parent]
        if total is None:
            total = x_bar
            if pull is not None:  # it made an array of its own
                ours.add(parent)
        elif parent in ours and observer is None:
            total += x_bar  # in place
        else:
            total = total + x_bar
            ours.add(parent)
        bars[parent] = total
        if observer is not None:
            observer.pulled(node, i, raw, x_bar, total)


def forward_sweep(root: Node, tangents: dict[Node, Any], record: bool = False) -> Any:
    """Push ``tangents`` (node -> tangent) forward to ``root``; None where its tangent is zero."""
    dots = dict(tangents)
    mirror = _Mirror("d ", next(iter(tangents.values()))) if record else None
    observer = CURRENT.get().observer
    with setting(observer=observer if record else None):
        for node in unchanged(ancestors(root, dots)):
            x_dots = [dots.get(parent) for parent in node.parents]
            known = [i for i, x_dot in enumerate(x_dots) if x_dot is not None]
            if node in dots or not known:
                continue
            if mirror is None:
                dots[node] = _push(node, x_dots, known, node.value, node.inputs)
            else:
                with mirror.scope_of(node):
                    dots[node] = _push(node, x_dots, known, *mirror.operands(node))
            if observer is not None:
                observer.pushed(node, x_dots, dots[node])
    return dots.get(root)


def _push(node: Node, x_dots: list, known: list[int], y: Any, xs: tuple) -> Any:
    """The tangent of ``node``, of the shape and dtype of its value; None where it is zero."""
    op, params = node.op, node.params
    if op.partials is not None:
        found = op.partials(y, *xs, **params)
        if found.__class__ is not tuple or len(found) != len(xs):
            raise wrong_entries(op, found, len(xs))
        partials = [found[i]() if callable(found[i]) else found[i] for i in known]
        terms = [_times(op, x_dots[i], p) for i, p in zip(known, partials, strict=True)]
    elif op.jvp is not None:
        terms = [op.jvp(tuple(x_dots), y, *xs, **params)]
    elif op.linear == "jointly":
        pairs = zip(x_dots, node.inputs, strict=True)
        terms = [op(*(zeros_like(x) if dot is None else dot for dot, x in pairs), **params)]
    elif op.linear == "separately":
        terms = [op(*xs[:i], x_dots[i], *xs[i + 1 :], **params) for i in known]
    else:
        raise no_rule(op, "defjvp")
    terms = [rebroadcast(op, term, y) for term in terms if term is not None]
    return sum(terms[1:], terms[0]) if terms else None


def _times(op: Any, bar: Any, partial: Any) -> Any:
    """``bar * partial``, where a partial of 1 or -1 costs nothing or a negation; None is zero."""
    if partial.__class__ is int and partial * partial == 1:
        return bar if partial == 1 else -bar
    try:
        return None if partial is None else bar * partial
    except (TypeError, ValueError) as error:
        raise wrong_partial(op, bar, partial) from error


class _Mirror:
    """How a recorded sweep sees a forward graph: operands as boxes, scopes with a prefix."""

    def __init__(self, prefix: str, seed: Any):
        self.prefix, self.box = prefix, type(seed)
        self.scopes: dict[Scope | None, Scope | None] = {None: CURRENT.get().scope}

    def operands(self, node: Node) -> tuple[Any, tuple]:
        pairs = zip(node.inputs, node.parents, strict=True)
        xs = tuple(x if parent is None else self.box(x, parent) for x, parent in pairs)
        return self.box(node.value, node), xs

    def scope_of(self, node: Node) -> Any:
        for scope in node.scope.path() if node.scope else ():
            if scope not in self.scopes:
                self.scopes[scope] = Scope(self.prefix + scope.name, self.scopes[scope.parent])
        return setting(scope=self.scopes[node.scope])
