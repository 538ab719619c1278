"""Titles of cards, and counts of what a card hides."""

from minigrad.viz.fold import Card
from minigrad.viz.formula import Formulas


def title(card: Card, formulas: Formulas) -> str:
    """The title of a card: a formula, a folded scope as if it were one call, or what is hidden."""
    if card.kind == "gap":
        return gap_lines(card)[0]
    if card.kind in ("scope", "leaves"):
        return formulas.title_of_scope(card)
    return formulas.title(card.outputs[0])


def gap_lines(card: Card) -> list[str]:
    """``["… 168 more ops folded", "and 335 leaves"]``: what is in the middle of a long graph."""
    counts = [count_of_ops(card.ops, "more ")] if card.ops else []
    counts += [count_of_leaves(card.leaves, "more " * (not counts))] if card.leaves else []
    return [f"… {counts[0]} folded", *(f"and {count}" for count in counts[1:])]


def count_of_ops(n: int, more: str = "") -> str:
    """``1 op``, ``168 more ops``."""
    return f"{n:,} {more}op{'s' * (n != 1)}"


def count_of_leaves(n: int, more: str = "") -> str:
    """``1 leaf``, ``335 leaves``."""
    return f"{n:,} {more}{'leaf' if n == 1 else 'leaves'}"
