"""Where in the code of a forward its backward goes wrong, and how.

``paths`` explains the error of one input by a part of its cotangent. Where that fails, the errors
of all inputs are taken together and searched for one mistake that explains all of them:

1. ``origin``: the values whose cotangent, if it alone were wrong, would explain the errors with
   the fewest numbers. The mistake is in the rule of an op that uses or made one of these.
2. ``derivatives``: elementwise ops there with another local derivative, found by a linear fit.
3. ``substitutes``: ops there, or all calls in a loop, whose rule reads a wrong value, and indexing
   that overwrites where it should add; found by trying.

``_hypotheses`` gives the order in which these are tried. Where none holds, the finding names the
code between which the error arises, if there is an origin.
"""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from minigrad.core.node import ancestors
from minigrad.verify import mixups
from minigrad.verify.case import Case
from minigrad.verify.derivatives import (
    LocalDerivatives,
    derivative_text,
    is_scaled,
    is_statement,
    runs_of,
)
from minigrad.verify.expression import is_quotable, quote
from minigrad.verify.fit import close, tolerance_of
from minigrad.verify.origin import Errors
from minigrad.verify.paths import Paths, paths_of
from minigrad.verify.subject import FAILURES
from minigrad.verify.substitutes import Substitutes


class FaultSearch:
    """The paths of a subject at one point and the fault in them, found once for all inputs.

    Whatever the forward, or an op that it calls, raises on tensors ends the search quietly.
    """

    def __init__(self):
        self._paths: dict[tuple, Paths | None] = {}
        self._faults: dict[Paths, tuple[str, str]] = {}

    def paths(self, case: Case) -> Paths | None:
        """``paths_of`` a case, traced once; None also if the forward fails on tensors."""
        key = case.subject.dtype, case.y_bar.tobytes()
        if key not in self._paths:
            self._paths[key] = None
            with suppress(*FAILURES):
                self._paths[key] = paths_of(case)
        return self._paths[key]

    def fault(self, paths: Paths) -> tuple[str, str]:
        """The mistake that explains the errors of all inputs; if none does, the code between which
        they arise, as the second text."""
        if paths not in self._faults:
            self._faults[paths] = "", ""
            errors = Errors(paths)
            derivatives = LocalDerivatives(errors)
            with suppress(*FAILURES), np.errstate(all="ignore"):
                fault = next(filter(None, _hypotheses(errors, derivatives)), "")
                self._faults[paths] = fault, "" if fault else _between(errors, derivatives)
        return self._faults[paths]


def _hypotheses(errors: Errors, derivatives: LocalDerivatives) -> Iterator[str]:
    """The mistakes that explain the errors, the most telling first; "" for a hypothesis that fails.

    A statement such as ``s = 1 / (1 + np.exp(-a))`` is suspected as a whole, before its parts.
    """
    substitutes = Substitutes(errors)
    if not errors.are_tractable:
        yield derivatives.in_repeated_code()
        yield substitutes.in_repeated_code()
        return
    operands, steps = errors.origins or list(errors.graph.consumers), derivatives.steps
    runs = list(runs_of(steps))
    statements = [run for run in runs if is_statement(run)]
    inside = {node for run in statements if len(run) > 2 for node in run[1:]}
    suspects = statements + [s for s in steps if s[-1] not in inside and s not in statements]
    outside = [run for run in runs if run[-1] not in inside]
    # 1. a derivative with formulas in y and the operands, or a wrong value in one op
    yield derivatives.with_formulas(statements, len(suspects))
    yield derivatives.with_formulas(outside, len(steps))
    yield substitutes.in_one_op(operands, without=inside)
    # 2. a derivative with formulas in any named value, or a mistake in a loop or an accumulation
    yield derivatives.with_formulas(statements, len(suspects), all_values=True)
    yield derivatives.with_formulas(outside, len(steps), all_values=True)
    yield derivatives.in_repeated_code()
    yield substitutes.in_repeated_code()
    yield from substitutes.overwritten()
    yield derivatives.between_elements()
    yield from _permuted(errors)
    # 3. the only suspect, if one of its two formulas is known
    only = _only_suspect(suspects, operands, errors, derivatives)
    formulas = derivatives.formulas(only, all_values=True) if only else ("", "")
    yield derivative_text(only[-1], *formulas) if only and any(formulas) else ""
    # 4. the parts of a statement
    yield derivatives.with_formulas([run for run in runs if run[-1] in inside], len(steps))
    yield substitutes.in_one_op(operands, without=set())
    # 5. vague or rare mistakes
    yield derivative_text(only[-1]) if only else ""
    yield substitutes.in_one_op(operands, without=set(), cotangents=True)
    yield derivatives.with_formulas(suspects, 1, all_values=True)  # even of an op that only scales


def _permuted(errors: Errors) -> Iterator[str]:
    """A value whose cotangent has the right numbers in the wrong places."""
    for node in errors.origins:
        right, got = np.stack(errors.paths.bars(node)), errors.wrong_bars(node)
        if got is not None:
            for text, wrong in mixups.permuted(right, got):
                if close(wrong, got, tolerance_of(got, right)):
                    yield f"the cotangent of {quote(node)} is {text}"


def _only_suspect(
    suspects: list, operands: list, errors: Errors, derivatives: LocalDerivatives
) -> list | None:
    """The only run whose derivative may be wrong; None if there is no such run.

    From an older origin of the same shape to the run the derivative has to be constant: any other
    could be the wrong one just as well. So could the sum over axes along which a user of the run
    repeats it, and what follows behind an op that mixes elements, if there is a factor per element.
    """
    if len(suspects) != 1 or not all(is_scaled(x, suspects[0][0]) for x in operands):
        return None
    (run,) = suspects
    is_elsewhere = errors.are_scaled and errors.mixes(run[0])
    fit = derivatives.fit(run)
    return run if fit is not None and fit.is_telling and not is_elsewhere else None


def _between(errors: Errors, derivatives: LocalDerivatives) -> str:
    """The code between which the errors arise; empty where no value alone explains them, or where
    that is all of the code."""
    origins = errors.origins if errors.are_tractable else []
    if not origins:
        return ""
    fits = map(derivatives.fit, derivatives.steps)
    is_local = any(fit is not None and fit.is_telling for fit in fits)
    first, last = origins[0], origins[-1]
    if errors.are_scaled and errors.mixes(first):  # a factor behind that explains them, too
        return ""
    users = errors.graph.users(last)
    if len(origins) == 1 and len(users) != 1:
        is_inner = users and last.op is not None  # neither y nor an input
        return f"the cotangent of {quote(first)} is wrong" if is_inner else ""
    if len(origins) == 1 and not is_local and is_quotable(users[0]):
        return f"the cotangent that {quote(users[0])} passes back to {quote(first)} is wrong"
    if not users and first.op is None:  # from y to an input: all of the code
        return ""
    elsewhere = {*errors.graph.users(first)} - {*ancestors(last)}  # where the error may be, too
    if first.op is None and elsewhere:
        return ""
    start = f"the uses of {quote(last)}" if users else "y"
    start = quote(users[0]) if len(users) == 1 and is_quotable(users[0]) else start
    what = "a local derivative is wrong" if is_local else "the error arises"
    return f"{what} on the way back from {start} to {quote(first)}"
