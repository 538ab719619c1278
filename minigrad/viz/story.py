"""The content of a step: a title, a sentence and blocks of formulas, numbers and arrays.

The page and the terminal show the same blocks; their words are chosen here.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from minigrad.viz.badge import verdict_text, worst_of
from minigrad.viz.document import unbroadcast_text
from minigrad.viz.example import added, computed, pulled_back, unbroadcast
from minigrad.viz.formula import literal
from minigrad.viz.latex import pullback_of
from minigrad.viz.legend import legend, used_by_rule
from minigrad.viz.trace import Step, Trace, Value

_OPERANDS = 6  # arrays of one call that are shown
_INFIX = {"+", "-", "*", "/", "@", "**"}


@dataclass(frozen=True)
class Formula:
    """A LaTeX formula, and a legend: what its letters stand for in this step."""

    latex: str
    legend: str = ""


@dataclass(frozen=True)
class Line:
    """A line of text: numbers put into a formula, a remark, or the verdict "wrong"."""

    kind: Literal["numbers", "note", "wrong"]
    text: str


@dataclass(frozen=True, eq=False)
class Figure:
    """An array with a caption; ``role`` decides the colour of its frame, which its card shares."""

    caption: str
    array: Any
    role: Literal["operand", "result", "arriving", "gradient"] = "operand"


@dataclass(frozen=True, eq=False)
class Row:
    """Figures side by side with signs between them."""

    items: list[Figure | str]


Block = Formula | Line | Row


@dataclass(frozen=True, eq=False)
class Story:
    """What is told about one step, or about several that are stepped over at once."""

    kind: Literal["forward", "seed", "backward"]
    title: str
    where: list[str]  # the scopes around it, outermost first
    sentence: str
    blocks: list[Block] = field(default_factory=list)


def tell(trace: Trace, i: int) -> Story:
    """The story of step ``i`` (from 0) of ``trace``."""
    step = trace.steps[i]
    tell_kind = {"forward": _forward, "seed": _seed, "backward": _backward}[step.kind]
    title, sentence, blocks = tell_kind(trace, step)
    where = trace.scope_path(trace.values[step.value].scope)
    return Story(step.kind, title, where, sentence, blocks)


def overview(trace: Trace, steps: Iterable[int], title: str, members: set[int]) -> Story:
    """The story of ``steps`` of one kind inside a folded scope, seen from outside.

    Args:
        trace: the steps and their values.
        steps: positions in ``trace.steps``.
        title: the title of the folded card.
        members: positions of the values that the card stands for.
    """
    chosen = [trace.steps[i] for i in steps]
    first, n = chosen[0], len(chosen)
    where = trace.scope_path(trace.values[first.value].scope)[:-1]
    if first.kind == "forward":
        sentence = f"{n} {'op' if n == 1 else 'ops'} stepped over: {title}"
        return Story("forward", title, where, sentence, _forward_overview(trace, chosen, members))
    sentence = f"{n} backward {'step' if n == 1 else 'steps'} stepped over: {title}"
    blocks = [*_verdicts(trace, chosen), *_backward_overview(trace, chosen, members)]
    return Story("backward", f"back through {title}", where, sentence, blocks)


# --- forward -------------------------------------------------------------------------------------


def _forward(trace: Trace, step: Step) -> tuple[str, str, list[Block]]:
    value = trace.values[step.value]
    assert value.op is not None
    formula = Formula(value.op.formula, legend(trace, value))
    row = Row([*_operands(trace, value), "=", _result(value)])
    blocks = [formula, *_numbers(computed(value, trace.values)), row]
    return value.title, f"{value.title}, shape {tuple(value.array.shape)}", blocks


def _numbers(text: str) -> list[Block]:
    return [Line("numbers", text)] if text else []


def _operands(trace: Trace, value: Value) -> list[Figure | str]:
    """The operands as in a formula: ``x - mean``, or the name of the op and commas."""
    symbol = value.op.symbol or value.op.name if value.op else ""
    infix = symbol in _INFIX and len(value.inputs) == 2
    items: list[Figure | str] = []
    if not infix:
        items.append("index" if symbol == "[]" else symbol)
    for i, x in enumerate(value.inputs[:_OPERANDS]):
        if i:
            items.append(symbol if infix else ",")
        items.append(_operand(trace.values[x]) if isinstance(x, int) else literal(x))
    if len(value.inputs) > _OPERANDS:
        items.append(f"… {len(value.inputs) - _OPERANDS} more")
    return items


def _operand(value: Value) -> Figure:
    return Figure(value.name, value.array)


def _result(value: Value) -> Figure:
    return Figure(value.name, value.array, "result")


# --- backward ------------------------------------------------------------------------------------


def _seed(trace: Trace, step: Step) -> tuple[str, str, list[Block]]:
    value = trace.values[step.value]
    ones = "1, as for every scalar" if not step.total.shape and step.total == 1 else "the seed"
    title = f"seed: the cotangent of {value.name}"
    row = Row([_result(value), "←", Figure(f"{bar(value.name)}: {ones}", step.total, "gradient")])
    note = Line("note", "The backward sweep starts here and visits the ops in reverse order.")
    return title, f"the backward sweep starts at {value.name}", [note, row]


def _backward(trace: Trace, step: Step) -> tuple[str, str, list[Block]]:
    assert step.into is not None and step.input is not None
    value, into = trace.values[step.value], trace.values[step.into]
    assert value.op is not None
    rule = pullback_of(value.op, step.input)
    title = f"{into.name} ← {value.call}"
    formula = Formula(rule, legend(trace, value, step.input))
    blocks: list[Block] = [formula, *_verdicts(trace, [step])]
    if step.raw is None:
        blocks.append(Line("note", "The rule says that this contribution is 0: nothing is added."))
        return title, f"{_which_contribution(step)} {into.name}: nothing", blocks
    used = used_by_rule(trace, value, rule, step.input)
    arriving = _arriving(value, used, step)
    arrays = [(letter, x.array if isinstance(x, Value) else np.asarray(x)) for letter, x in used]
    blocks += _numbers(pulled_back(value, step, arrays))
    blocks.append(Row([*arriving, "→", _returned(into, step)]))
    blocks += _unbroadcast(into, step)
    blocks += _running_sum(into, step)
    return title, f"{_which_contribution(step)} {into.name}, through {value.call}", blocks


def _verdicts(trace: Trace, steps: list[Step]) -> list[Block]:
    """The verdict on the rules of ``steps``, and on the gradients of leaves that they complete."""
    ops = {step.value: trace.values[step.value].op for step in steps}
    judged = [(op.name, trace.verdicts[i]) for i, op in ops.items() if op and i in trace.verdicts]
    named = [("these rules", worst_of(judged))]
    if len(steps) == 1:
        named = [("this rule", trace.verdicts.get(steps[0].value))]
    for step in steps:
        if step.into is not None and step.path == step.paths and trace.values[step.into].op is None:
            named.append((bar(trace.values[step.into].name), trace.verdicts.get(step.into)))
    return [Line("wrong" if verdict[0] is False else "note", f"{name}: {verdict_text(*verdict)}")
            for name, verdict in named if verdict is not None]  # fmt: skip


def _arriving(value: Value, used: list[tuple[str, Any]], step: Step) -> list[Figure | str]:
    """The cotangent that arrives, then the values that the rule uses."""
    items: list[Figure | str] = [Figure(f"{bar(value.name)} arrives", step.y_bar, "arriving")]
    for x in dict.fromkeys(x for _, x in used if isinstance(x, Value)):
        items += [",", _operand(x)]
    return items


def _returned(into: Value, step: Step) -> Figure:
    whole = step.raw.shape == step.contribution.shape
    caption = f"contribution to {bar(into.name)}" if whole else "what the rule returns"
    return Figure(caption, step.raw, "gradient" if whole else "operand")


def _unbroadcast(into: Value, step: Step) -> list[Block]:
    """The sum over the axes of broadcasting; or a note on a cast, if only the dtype changed."""
    text = unbroadcast_text(step.raw, step.contribution)
    if not text:
        cast = step.raw.dtype != step.contribution.dtype
        return [Line("note", f"cast to {step.contribution.dtype}")] if cast else []
    note = f"{into.name} was broadcast to fit, so {text.replace('->', '→')}"
    figure = Figure(f"contribution to {bar(into.name)}", step.contribution, "gradient")
    numbers = _numbers(unbroadcast(step.raw, step.contribution))
    return [Line("note", note), Row(["∑", figure]), *numbers]


def _running_sum(into: Value, step: Step) -> list[Block]:
    name = bar(into.name)
    if step.path == 1:
        word = "first contribution" if step.paths > 1 else "only contribution"
        more = f"; {step.paths - 1} more to come" if step.paths > 1 else ""
        note = f"{word}: {name} = this{more}"
        return [Line("note", note + ("" if more else ", and it is complete"))]
    done = ", and it is complete" if step.path == step.paths else ""
    count = f"{name} += this: path {step.path} of {step.paths}{done}"
    terms: list[Figure | str] = []
    if step.before is not None:
        terms = [Figure(f"{name} so far", step.before), "+",
                 Figure("this", step.contribution), "="]  # fmt: skip
    row = Row([*terms, Figure(f"{name}, running sum", step.total, "gradient")])
    return [Line("note", count), row, *_numbers(added(step.before, step.contribution, step.total))]


def _which_contribution(step: Step) -> str:
    if step.paths == 1:
        return "the only contribution to"
    return f"contribution {step.path} of {step.paths} to"


def bar(name: str) -> str:
    """The name of a cotangent: ``xc_bar``, ``(x * x)_bar``."""
    return f"{name}_bar" if re.fullmatch(r"\w+", name) else f"({name})_bar"


def shape_and_dtype(array: Any) -> str:
    """The shape of ``array``, and its dtype unless that is float64."""
    dtype = "" if array.dtype == np.float64 else f" {array.dtype}"
    return f"{tuple(array.shape)}{dtype}"


# --- several steps at once -----------------------------------------------------------------------


def _forward_overview(trace: Trace, steps: list[Step], members: set[int]) -> list[Block]:
    inside = [trace.values[step.value] for step in steps]
    operands = dict.fromkeys(x for value in inside for x in value.inputs
                             if isinstance(x, int) and x not in members)  # fmt: skip
    results = _used_outside(trace, [step.value for step in steps], members)
    left = [_operand(trace.values[x]) for x in list(operands)[:_OPERANDS]]
    right = [_result(trace.values[x]) for x in results[:_OPERANDS]]
    return [Row([*_with_commas(left), "→", *_with_commas(right)])]


def _backward_overview(trace: Trace, steps: list[Step], members: set[int]) -> list[Block]:
    arriving, reached = {}, {}
    contributions = Counter(step.into for step in steps)
    results = set(_used_outside(trace, [step.value for step in steps], members))
    for step in steps:
        if step.value in results:
            arriving[step.value] = step.y_bar
        if step.into not in members and step.total is not None:
            reached[step.into] = step
    left = [Figure(f"{bar(trace.values[i].name)} arrives", y_bar, "arriving")
            for i, y_bar in list(arriving.items())[:_OPERANDS]]  # fmt: skip
    right = [Figure(_progress(trace.values[i], step, contributions[i]), step.total, "gradient")
             for i, step in list(reached.items())[:_OPERANDS]]  # fmt: skip
    return [Row([*_with_commas(left), "→", *_with_commas(right)])]


def _progress(value: Value, step: Step, contributions: int) -> str:
    """``x_bar``, and the state of its running sum unless these steps make all contributions."""
    state = f", sum of {step.path} of {step.paths} paths" * (contributions < step.paths)
    return bar(value.name) + state


def _used_outside(trace: Trace, positions: list[int], members: set[int]) -> list[int]:
    """The values at ``positions`` that are used outside ``members``, or are the result."""
    used = {x for i, value in enumerate(trace.values) if i not in members for x in value.inputs
            if isinstance(x, int)} | {len(trace.values) - 1}  # fmt: skip
    return [i for i in positions if i in used]


def _with_commas(figures: list[Figure]) -> list[Figure | str]:
    items: list[Figure | str] = []
    for figure in figures:
        items += [",", figure] if items else [figure]
    return items
