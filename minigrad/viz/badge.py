"""Verdicts of ``minigrad.verify`` on inputs and ops, in the short form that a picture shows."""

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.core.node import Node
from minigrad.errors import UsageError, describe, facts
from minigrad.viz.formula import shown
from minigrad.viz.graph import Recorded

Verdict = tuple[bool | None, str]
Verdicts = Mapping[str | Node, Verdict]
BADGES = {  # a colour, and a word for readers who cannot tell colours apart
    True: ("#00663f", "✓ proven"),
    False: ("#b3261e", "✗ wrong"),
    None: ("#5f6368", "– not run"),
}


def verdicts(report: Any) -> dict[str | Node, Verdict]:
    """For each input, by name: whether all comparisons in ``report`` held, and the worst of them.

    The worst is one that failed, if any did. Among three ways, one with the traced gradient is
    preferred, because the picture shows that gradient. An input of which nothing was proven, as all
    its comparisons are vacuous, counts as not run. For a report of ``check_graph`` the keys are the
    nodes of the ops.

    >>> f = lambda x: mg.sum(x * x)
    >>> report = mg.verify.gradcheck(f, [np.ones(2)], names=["x"])
    >>> mg.viz.verdicts(report)["x"][0]
    True
    """
    if report.ops:
        return {node: _verdict_on_op(on_op) for node, on_op in report.ops.items()}
    rows: dict[str, list[Any]] = {}
    for row in report.rows:
        rows.setdefault(row.input, []).append(row)
    return {name: _verdict_on_rows(of_input) for name, of_input in rows.items()}


def verdicts_by_node(
    who: str, verdicts: Verdicts | None, recorded: Recorded
) -> dict[Node, Verdict]:
    """The verdicts on the leaves, which are given by name, and on the ops of a graph.

    Raises:
        UsageError: a verdict is about nothing in the graph; the error begins with ``who``.
    """
    verdicts = verdicts or {}
    paired = isinstance(verdicts, Mapping) and all(
        isinstance(key, (str, Node)) and isinstance(verdict, tuple) and len(verdict) == 2
        for key, verdict in verdicts.items()
    )
    if not paired:
        expected = "a dict of name or node -> (proven, text), as viz.verdicts(report) returns"
        raise UsageError(facts(f"{who}: verdicts", expected=expected, got=describe(verdicts)))
    names = [node.name for node in recorded.order if node.op is None and node.name]
    unknown = [x for x in verdicts if x not in recorded.operands and x not in names]
    if unknown:
        expected = f"names of leaves: {', '.join(map(shown, names[:8])) or 'this graph has none'}"
        expected += "; or nodes of ops in the graph"
        got = ", ".join(shown(x) if isinstance(x, str) else _foreign(x) for x in unknown)
        raise UsageError(facts(f"{who}: verdicts", expected=expected, got=got))
    keys = {node: (node.name or "") if node.op is None else node for node in recorded.order}
    found = {node: verdicts[key] for node, key in keys.items() if key in verdicts}
    return {node: (None if ok is None else bool(ok), text) for node, (ok, text) in found.items()}


def verdict_text(ok: bool | None, text: str) -> str:
    """``✗ wrong: vjp/numeric: 1.6e+00 (bound 3.6e-14)``."""
    _, word = BADGES[ok]
    return f"{word}: {shown(text, 60)}" if text else word


def _foreign(node: Node) -> str:
    return f"{node.op.name if node.op else 'a leaf'} of another graph"


def worst_of(verdicts: Iterable[tuple[str, Verdict]]) -> Verdict | None:
    """One verdict on the ops of a card, from (name of an op, its verdict): wrong, then not run."""
    verdicts = list(verdicts)
    for worst in (False, None, True):
        names = [name for name, (ok, _) in verdicts if ok is worst]
        if names:
            first = "" if worst else f": {names[0]}" + ", …" * (len(names) > 1)
            return worst, f"{len(names)} of {len(verdicts)} ops{first}"
    return None


def _verdict_on_op(report: Any) -> Verdict:
    if not report.rows:
        messages = [finding.message for finding in (*report.findings, *report.notes)]
        ok = False if report.findings else None
        return ok, messages[0] if messages else "nothing to compare"
    ok, text = _verdict_on_rows(report.rows)
    if ok:
        return ok, ""  # a picture has many ops
    if ok is False:
        worst = max(report.rows, key=lambda row: row.telling).input  # "tanh, input 0"
        text = f"{worst.rpartition(', ')[2]}, {text}"
    return ok, text


def _verdict_on_rows(rows: list[Any]) -> Verdict:
    ok = all(row.ok for row in rows)
    if ok and all(row.verdict == "VACUOUS" for row in rows):
        return None, "nothing to compare"
    worst = max(rows, key=lambda row: (not row.ok, "traced" in row.pair, row.telling))
    return ok, f"{worst.pair}: {worst.error:.1e} (bound {worst.bound:.1e})"
