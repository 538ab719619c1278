"""The content of a step: a title, a sentence and blocks of formulas, numbers and arrays.

The page and the terminal show the same blocks; their words are chosen here.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np

from minigrad.viz.badge import verdict_text, worst_of
from minigrad.viz.document import unbroadcast_text
from minigrad.viz.example import added, computed, pulled_back, unbroadcast
from minigrad.viz.fold import Card
from minigrad.viz.formula import shown
from minigrad.viz.latex import pullback_of
from minigrad.viz.legend import legend, used_by_rule
from minigrad.viz.trace import Step, Value

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


def tell(step: Step) -> Story:
    """The story of one step."""
    tell_kind = {"forward": _forward, "seed": _seed, "backward": _backward}[step.kind]
    title, sentence, blocks = tell_kind(step)
    return Story(step.kind, title, _where(step), sentence, blocks)


def overview(card: Card, title: str, steps: list[Step]) -> Story:
    """The story of ``steps`` of one kind inside a folded ``card``, seen from outside."""
    kind, n = steps[0].kind, len(steps)
    where = _where(steps[0])[:-1]
    if kind == "forward":
        sentence = f"{n} {'op' if n == 1 else 'ops'} stepped over: {title}"
        return Story(kind, title, where, sentence, [_forward_overview(card, steps)])
    sentence = f"{n} backward {'step' if n == 1 else 'steps'} stepped over: {title}"
    blocks = [*_verdicts(steps), _backward_overview(card, steps)]
    return Story(kind, f"back through {title}", where, sentence, blocks)


def _where(step: Step) -> list[str]:
    scope = step.value.node.scope
    return [shown(scope.name) for scope in scope.path()] if scope else []


# --- forward -------------------------------------------------------------------------------------


def _forward(step: Step) -> tuple[str, str, list[Block]]:
    value = step.value
    formula = Formula(value.op.formula, legend(value))
    row = Row([*_operands(value), "=", _result(value)])
    blocks = [formula, *_numbers(computed(value)), row]
    return value.title, f"{value.title}, shape {tuple(value.array.shape)}", blocks


def _numbers(text: str) -> list[Block]:
    return [Line("numbers", text)] if text else []


def _operands(value: Value) -> list[Figure | str]:
    """The operands as in a formula: ``x - mean``, or the name of the op and commas."""
    symbol = value.op.symbol or value.op.name
    infix = symbol in _INFIX and len(value.inputs) == 2
    items: list[Figure | str] = []
    if not infix:
        items.append("index" if symbol == "[]" else symbol)
    for i, x in enumerate(value.inputs[:_OPERANDS]):
        if i:
            items.append(symbol if infix else ",")
        items.append(_operand(x) if x.node else x.name)
    if len(value.inputs) > _OPERANDS:
        items.append(f"… {len(value.inputs) - _OPERANDS} more")
    return items


def _operand(value: Value) -> Figure:
    return Figure(value.name, value.array)


def _result(value: Value) -> Figure:
    return Figure(value.name, value.array, "result")


# --- backward ------------------------------------------------------------------------------------


def _seed(step: Step) -> tuple[str, str, list[Block]]:
    value = step.value
    ones = "1, as for every scalar" if not step.total.shape and step.total == 1 else "the seed"
    title = f"seed: the cotangent of {value.name}"
    row = Row([_result(value), "←", Figure(f"{bar(value.name)}: {ones}", step.total, "gradient")])
    note = Line("note", "The backward sweep starts here and visits the ops in reverse order.")
    return title, f"the backward sweep starts at {value.name}", [note, row]


def _backward(step: Step) -> tuple[str, str, list[Block]]:
    value, into = step.value, step.into
    assert into is not None and step.input is not None
    rule = pullback_of(value.op, step.input)
    title = f"{into.name} ← {value.call}"
    formula = Formula(rule, legend(value, step.input))
    blocks: list[Block] = [formula, *_verdicts([step])]
    if step.raw is None:
        blocks.append(Line("note", "The rule says that this contribution is 0: nothing is added."))
        return title, f"{_which_contribution(step)} {into.name}: nothing", blocks
    used = used_by_rule(value, rule, step.input)
    blocks += _numbers(pulled_back(step, used))
    read = [_operand(x) for x in dict.fromkeys(x for _, x in used) if x.node]
    blocks.append(Row([*_with_commas([_arriving(step), *read]), "→", _returned(into, step)]))
    blocks += _unbroadcast(into, step)
    blocks += _running_sum(into, step)
    return title, f"{_which_contribution(step)} {into.name}, through {value.call}", blocks


def _verdicts(steps: list[Step]) -> list[Block]:
    """The verdict on the rules of ``steps``, and on the gradients of leaves that they complete."""
    values = dict.fromkeys(step.value for step in steps)
    judged = [(value.op.name, value.verdict) for value in values if value.verdict]
    named = [("these rules", worst_of(judged))]
    if len(steps) == 1:
        named = [("this rule", steps[0].value.verdict)]
    for step in steps:
        if step.into and step.path == step.paths and step.into.op is None:
            named.append((bar(step.into.name), step.into.verdict))
    return [Line("wrong" if verdict[0] is False else "note", f"{name}: {verdict_text(*verdict)}")
            for name, verdict in named if verdict is not None]  # fmt: skip


def _arriving(step: Step) -> Figure:
    return Figure(f"{bar(step.value.name)} arrives", step.y_bar, "arriving")


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


def _forward_overview(card: Card, steps: list[Step]) -> Row:
    values = [step.value for step in steps]
    operands = dict.fromkeys(x for value in values for x in value.inputs)
    members = {None, *card.members}  # None is the node of a number
    left = [_operand(x) for x in operands if x.node not in members]
    outputs = set(card.outputs)
    right = [_result(value) for value in values if value.node in outputs]
    return Row([*_with_commas(left[:_OPERANDS]), "→", *_with_commas(right[:_OPERANDS])])


def _backward_overview(card: Card, steps: list[Step]) -> Row:
    contributions = Counter(step.into for step in steps)
    members, outputs = set(card.members), set(card.outputs)
    arriving = {step.value: step for step in steps if step.value.node in outputs}
    left = [_arriving(step) for step in arriving.values()]
    reached = {step.into: step for step in steps if step.into and step.into.node not in members}
    right = [Figure(_progress(into, step, contributions[into]), step.total, "gradient")
             for into, step in reached.items() if step.total is not None]  # fmt: skip
    return Row([*_with_commas(left[:_OPERANDS]), "→", *_with_commas(right[:_OPERANDS])])


def _progress(into: Value, step: Step, contributions: int) -> str:
    """``x_bar``, and the state of its running sum unless these steps make all contributions."""
    state = f", sum of {step.path} of {step.paths} paths" * (contributions < step.paths)
    return bar(into.name) + state


def _with_commas(figures: list[Figure]) -> list[Figure | str]:
    return [*chain(*((",", figure) for figure in figures))][1:]
