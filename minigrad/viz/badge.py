"""Verdict badges: what a report of ``minigrad.verify`` says about inputs or ops, for a picture."""

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.core.node import Node
from minigrad.errors import UsageError, describe, facts
from minigrad.viz.formula import shown
from minigrad.viz.graph import Recorded

Verdict = tuple[bool | None, str]
Verdicts = Mapping[str | Node, Verdict]
BADGES = {  # a colour, and a word for who cannot tell colours apart
    True: ("#00663f", "✓ proven"),
    False: ("#b3261e", "✗ wrong"),
    None: ("#5f6368", "– not run"),
}


def verdicts(report: Any) -> dict[str | Node, Verdict]:
    """Whether all comparisons of ``report`` held, and the worst of them: for each input, by name.

    Of three ways it is the worst with the traced one, whose gradient a picture shows; but one that
    failed comes first.
    An input with a comparison that proved nothing is not run, unless another one failed: a picture
    must not show it as proven. The report of ``check_graph`` tells the same of each op, by node.

    >>> f = lambda x: mg.sum(x * x)
    >>> report = mg.verify.gradcheck(f, [np.ones(2)], names=["x"])
    >>> mg.viz.verdicts(report)["x"][0]
    True
    """
    if report.ops:
        return {node: _of_op(found) for node, found in report.ops.items()}
    names = dict.fromkeys(row.input for row in report.rows)
    return {name: _of_rows([row for row in report.rows if row.input == name]) for name in names}


def judged(who: str, verdicts: Verdicts | None, recorded: Recorded) -> dict[Node, Verdict]:
    """What ``verdicts`` say of each leaf, by its name, and of each op of a graph.

    Raises:
        UsageError: one is about nothing in the graph; ``who`` wanted to show it.
    """
    verdicts = verdicts or {}
    paired = isinstance(verdicts, Mapping) and all(map(_is_pair, verdicts.values()))
    if not paired:
        expected = "name or node -> (whether it was proven, text), as viz.verdicts(report) finds"
        raise UsageError(facts(f"{who}: verdicts", expected=expected, got=describe(verdicts)))
    names = [node.name for node in recorded.order if node.op is None and node.name]
    unknown = [x for x in verdicts if x not in recorded.operands and x not in names]
    if unknown:
        expected = f"names of leaves: {', '.join(map(shown, names[:8])) or 'this graph has none'}"
        expected += "; or nodes of ops in it"
        got = ", ".join(shown(x) if isinstance(x, str) else _elsewhere(x) for x in unknown)
        raise UsageError(facts(f"{who}: verdicts", expected=expected, got=got))
    keys = {node: (node.name or "") if node.op is None else node for node in recorded.order}
    return {node: verdicts[key] for node, key in keys.items() if key in verdicts}


def _is_pair(verdict: Any) -> bool:
    return isinstance(verdict, tuple) and len(verdict) == 2


def words(ok: bool | None, text: str) -> str:
    """``✗ wrong: vjp/numeric: 1.6e+00 (bound 3.6e-14)``."""
    word = BADGES[None if ok is None else bool(ok)][1]
    return f"{word}: {shown(text, 60)}" if text else word


def _elsewhere(node: Node) -> str:
    return f"{node.op.name if node.op else 'a leaf'} of another graph"


def of_all(found: Iterable[tuple[str, Verdict]]) -> Verdict | None:
    """One verdict on all ops of a card, given (name of the op, its own) for those that have one."""
    found = list(found)
    for ok in (False, None, True):
        names = [name for name, (its, _) in found if its is ok]
        if names:
            first = "" if ok else f": {names[0]}" + ", …" * (len(names) > 1)
            return ok, f"{len(names)} of {len(found)} ops{first}"
    return None


def _of_op(report: Any) -> Verdict:
    if not report.rows:
        said = [one.message for one in (*report.findings, *report.notes)]
        return (False if report.findings else None), said[0] if said else "nothing to compare"
    ok, text = _of_rows(report.rows)
    which = max(report.rows, key=_excess).input.rpartition(", ")[2]
    return ok, "" if ok else text if ok is None else f"{which}, {text}"  # many, so short


def _of_rows(rows: list[Any]) -> Verdict:
    ok = all(row.ok for row in rows)
    if ok and all(row.verdict == "VACUOUS" for row in rows):
        return None, "nothing to compare"
    worst = max(rows, key=lambda row: (not row.ok, "traced" in row.pair, _excess(row)))
    return ok, f"{worst.pair}: {worst.error:.1e} (bound {worst.bound:.1e})"


def _excess(row: Any) -> float:
    """How large the error is in units of its bound; a failed row comes before all others."""
    ratio = row.error / row.bound if row.bound else row.error
    return ratio if row.ok else float("inf")
