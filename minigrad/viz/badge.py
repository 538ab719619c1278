"""Verdict badges: what a report of ``minigrad.verify`` says about inputs or ops, for a picture."""

from collections.abc import Iterable
from typing import Any

from minigrad.core.node import Node

Verdict = tuple[bool | None, str]


def verdicts(report: Any) -> dict[str | Node, Verdict]:
    """Whether all comparisons of ``report`` held, and the worst of them: for each input, by name.

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
    if ok and any(row.verdict == "VACUOUS" for row in rows):
        return None, "nothing to compare"
    worst = max(rows, key=_excess)
    return ok, f"{worst.pair}: {worst.error:.1e} (bound {worst.bound:.1e})"


def _excess(row: Any) -> float:
    """How large the error is in units of its bound; a failed row comes before all others."""
    ratio = row.error / row.bound if row.bound else row.error
    return ratio if row.ok else float("inf")
