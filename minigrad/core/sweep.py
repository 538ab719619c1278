"""The two sweeps over a recorded graph: the chain rule as plain loops.

``backward_sweep`` visits nodes newest first. All uses of a value are newer than the value, so its
cotangent is complete when its node is reached; the vjp rule then gives a term of the cotangent of
each parent. ``forward_sweep`` visits nodes oldest first; jvp rules combine the inputs' tangents.
With ``record=True`` the rules run on boxes, so the sweep is itself recorded and can be
differentiated; its ops land in scopes that mirror those of the forward pass (``∇ batch_norm``).
"""

from collections.abc import Collection
from typing import Any

from minigrad.backend import SCALARS, zeros_like
from minigrad.context import CURRENT, Scope, setting
from minigrad.core.broadcast import rebroadcast, unbroadcast
from minigrad.core.node import Node, ancestors
from minigrad.errors import no_rule, not_overwritten, wrong_entries, wrong_partial


def backward_sweep(
    root: Node, seed: Any, targets: Collection[Node] | None = None, record: bool = False
) -> dict[Node, Any]:
    """Pull the cotangent ``seed`` of ``root`` back; returns ``{target: cotangent}``, None for zero.

    By default the targets are ``root`` and all nodes with ``keep_grad``, and each cache is freed
    once used. OverwrittenError if a tensor in the graph was assigned after it was recorded.
    """
    order = not_overwritten(ancestors(root, targets or ()))
    if targets is None:
        result = {node: None for node in order if node.keep_grad or node is root}
        cotangents = {node: None for node in order if node.requires_grad}
    else:
        result = dict.fromkeys(targets)
        cotangents = dict(result)
        for node in order:
            if not cotangents.keys().isdisjoint(node.parents):
                cotangents[node] = None
    cotangents[root] = seed  # now the keys are the root, the targets and the nodes between them
    owned: set[Node] = set()  # nodes whose cotangent may change in place: nothing else refers to it
    observer = CURRENT.get().observer
    mirror = _Mirror("∇ ", seed) if record else None
    with setting(observer=observer if record else None):  # plain arithmetic is not observed
        for node in reversed(order):
            if (y_bar := cotangents.pop(node, None)) is None:  # pop frees its memory early
                continue
            if node in result:
                result[node] = y_bar
                owned.discard(node)
            if node.op is None:
                continue
            if mirror is None:
                _pull(node, y_bar, None, cotangents, owned, observer)
                if targets is None and node.op.pull is not None:
                    node.drop_cache()
            else:
                with mirror.scope_of(node):
                    _pull(node, y_bar, mirror.operands(node), cotangents, owned, observer)
    return result


def _pull(node: Any, y_bar: Any, boxes: Any, cotangents: dict, owned: set, observer: Any) -> None:
    """Run the rule of ``node``, on ``boxes`` (y, xs) if given; add to its parents' cotangents."""
    op, params, partials = node.op, node.params, node.op.partials
    pull: Any = op.pull if boxes is None else None  # of a fused op
    if observer is not None:
        observer.pulling(node, y_bar)
    if pull is not None:
        xs = node.kinds
        entries = pull(y_bar, node.cache, node in owned and observer is None)
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
        if parent not in cotangents:
            continue
        raw: Any = entries[i]() if callable(entries[i]) else entries[i]
        if raw is None:
            continue
        if partials is not None:
            try:
                raw = y_bar * raw if raw.__class__ is not int else _scaled(op, y_bar, raw)
            except (TypeError, ValueError) as error:
                raise wrong_partial(op, y_bar, raw) from error
        x, x_bar, raw_class = xs[i], raw, raw.__class__
        if raw_class is not x.__class__ or raw_class not in SCALARS:  # scalars of one class fit
            x_bar = unbroadcast(op, i, raw, x, y_bar.shape)
        total = cotangents[parent]
        if total is None:
            total = x_bar
            if pull is not None:  # it returns new arrays
                owned.add(parent)
        elif parent in owned and observer is None:
            total += x_bar  # in place
        else:
            total = total + x_bar
            owned.add(parent)
        cotangents[parent] = total
        if observer is not None:
            observer.pulled(node, i, raw, x_bar, total)


def forward_sweep(root: Node, tangents: dict[Node, Any], record: bool = False) -> Any:
    """Push ``{node: tangent}`` forward to ``root``; returns its tangent, or None if it is zero."""
    tangents = dict(tangents)
    mirror = _Mirror("d ", next(iter(tangents.values()))) if record else None
    observer = CURRENT.get().observer
    with setting(observer=observer if record else None):
        for node in not_overwritten(ancestors(root, tangents)):
            x_dots = [tangents.get(parent) for parent in node.parents]
            active = [i for i, x_dot in enumerate(x_dots) if x_dot is not None]
            if node in tangents or not active:
                continue
            if mirror is None:
                tangents[node] = _push(node, x_dots, active, node.value, node.inputs)
            else:
                with mirror.scope_of(node):
                    tangents[node] = _push(node, x_dots, active, *mirror.operands(node))
            if observer is not None:
                observer.pushed(node, x_dots, tangents[node])
    return tangents.get(root)


def _push(node: Node, x_dots: list, active: list[int], y: Any, xs: tuple) -> Any:
    """The tangent of ``node``, None for zero; ``x_dots`` are not None at the indices ``active``."""
    op, params = node.op, node.params
    if op.partials is not None:
        partials = op.partials(y, *xs, **params)
        if partials.__class__ is not tuple or len(partials) != len(xs):
            raise wrong_entries(op, partials, len(xs))
        terms = [_scaled(op, x_dots[i], p() if callable(p := partials[i]) else p) for i in active]
    elif op.jvp is not None:
        terms = [op.jvp(tuple(x_dots), y, *xs, **params)]
    elif op.linear == "jointly":
        pairs = zip(x_dots, node.inputs, strict=True)
        terms = [op(*(zeros_like(x) if dot is None else dot for dot, x in pairs), **params)]
    elif op.linear == "separately":
        terms = [op(*xs[:i], x_dots[i], *xs[i + 1 :], **params) for i in active]
    else:
        raise no_rule(op, "defjvp")
    terms = [rebroadcast(op, term, y) for term in terms if term is not None]
    return sum(terms[1:], terms[0]) if terms else None


def _scaled(op: Any, factor: Any, partial: Any) -> Any:
    """``factor * partial``; no product where the partial is None (zero), 1 or -1."""
    if partial.__class__ is int and partial * partial == 1:
        return factor if partial == 1 else -factor
    try:
        return None if partial is None else factor * partial
    except (TypeError, ValueError) as error:
        raise wrong_partial(op, factor, partial) from error


class _Mirror:
    """The forward graph as a recorded sweep sees it: operands as boxes, scopes with a prefix."""

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
