"""Verdict badges: what a report of ``minigrad.verify`` says about each input, for a picture."""

from typing import Any

Verdict = tuple[bool | None, str]


def verdicts(report: Any) -> dict[str, Verdict]:
    """For each input of ``report``, whether all its comparisons held, and the worst of them.

    An input with a comparison that proved nothing is not run, unless another one failed: a picture
    must not show it as proven.

    >>> f = lambda x: mg.sum(x * x)
    >>> report = mg.verify.gradcheck(f, [np.ones(2)], names=["x"])
    >>> mg.viz.verdicts(report)["x"][0]
    True
    """
    found: dict[str, Verdict] = {}
    for name in dict.fromkeys(row.input for row in report.rows):
        rows = [row for row in report.rows if row.input == name]
        ok = all(row.ok for row in rows)
        worst = max(rows, key=_excess)
        found[name] = ok, f"{worst.pair}: {worst.error:.1e} (bound {worst.bound:.1e})"
        if ok and any(row.verdict == "VACUOUS" for row in rows):
            found[name] = None, "nothing to compare"
    return found


def _excess(row: Any) -> float:
    """How large the error is in units of its bound; a failed row comes before all others."""
    ratio = row.error / row.bound if row.bound else row.error
    return ratio if row.ok else float("inf")
