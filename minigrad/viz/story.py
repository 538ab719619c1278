"""What a step tells: a title, a sentence and blocks of formulas, numbers and arrays.

The page and the terminal show the same blocks; what they say is decided here.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from minigrad.core.op import Op
from minigrad.viz.badge import verdict_text
from minigrad.viz.example import added, computed, pulled_back, unbroadcast
from minigrad.viz.latex import pullback_of, subscript
from minigrad.viz.record import unbroadcast_text
from minigrad.viz.trace import Step, Trace, Value

_OPERANDS = 6  # arrays of one call that are shown
_SHORT = {"condition": "c", "stride": "s", "padding": "p", "dilation": "d"}  # in formulas
_INFIX = {"+", "-", "*", "/", "@", "**"}


@dataclass(frozen=True)
class Formula:
    """A LaTeX formula and what its letters stand for here."""

    latex: str
    legend: str = ""


@dataclass(frozen=True)
class Line:
    """A line of text: numbers put into a formula, a remark, or what was found to be wrong."""

    kind: Literal["numbers", "note", "wrong"]
    text: str


@dataclass(frozen=True, eq=False)
class Figure:
    """An array under a caption; ``role`` is how the picture marks the value it belongs to."""

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
    """One step, or several that were stepped over at once."""

    kind: Literal["forward", "seed", "backward"]
    title: str
    where: list[str]
    say: str
    blocks: list[Block] = field(default_factory=list)


def tell(trace: Trace, i: int) -> Story:
    """The story of step ``i`` (from 0) of ``trace``."""
    step = trace.steps[i]
    how = {"forward": _forward, "seed": _seed, "backward": _backward}[step.kind]
    title, say, blocks = how(trace, step)
    where = trace.scope_path(trace.values[step.value].scope)
    return Story(step.kind, title, where, say, blocks)


def overview(trace: Trace, steps: Iterable[int], title: str, members: set[int]) -> Story:
    """The story of ``steps`` of one kind inside a folded scope, told from outside.

    Args:
        title: what the folded card is called.
        members: positions of the values that the card stands for.
    """
    chosen = [trace.steps[i] for i in steps]
    first = chosen[0]
    where = trace.scope_path(trace.values[first.value].scope)[:-1]
    if first.kind == "forward":
        ops = len(chosen)
        say = f"{ops} {'op' if ops == 1 else 'ops'} stepped over: {title}"
        return Story("forward", title, where, say, _passed_forward(trace, chosen, members))
    n = len(chosen)
    say = f"{n} backward {'step' if n == 1 else 'steps'} stepped over: {title}"
    blocks = _passed_backward(trace, chosen, members)
    return Story("backward", f"back through {title}", where, say, blocks)


# --- forward -------------------------------------------------------------------------------------


def _forward(trace: Trace, step: Step) -> tuple[str, str, list[Block]]:
    value = trace.values[step.value]
    assert value.op is not None
    blocks: list[Block] = [Formula(value.op.formula, legend(trace, value))]
    numbers = computed(value, trace.values)
    if numbers:
        blocks.append(Line("numbers", numbers))
    blocks.append(Row([*_operands(trace, value), "=", _result(value)]))
    return value.title, f"{value.title}, shape {tuple(value.array.shape)}", blocks


def _operands(trace: Trace, value: Value) -> list[Figure | str]:
    """The operands as they stand in the call: with the operator between two, else commas."""
    symbol = value.op.symbol or value.op.name if value.op else ""
    infix = symbol in _INFIX and len(value.inputs) == 2
    items: list[Figure | str] = [] if infix else [symbol if symbol != "[]" else "index"]
    for i, x in enumerate(value.inputs[:_OPERANDS]):
        if i:
            items.append(symbol if infix else ",")
        items.append(_figure(trace.values[x]) if isinstance(x, int) else _number(x))
    if len(value.inputs) > _OPERANDS:
        items.append(f"… {len(value.inputs) - _OPERANDS} more")
    return items


def _figure(value: Value) -> Figure:
    return Figure(value.name, value.array)


def _result(value: Value) -> Figure:
    return Figure(value.name, value.array, "result")


def _number(x: Any) -> str:
    return f"{np.asarray(x).item():g}"


def legend(trace: Trace, value: Value, i: int | None = None) -> str:
    """``x₁ = xc, x₂ = inv_std``: what the letters of the formula of an op stand for.

    Where an op takes any number of inputs, it is input ``i`` (from 0) that is told.
    """
    if value.op is None or value.op.arity is None:
        return "" if i is None else f"xᵢ = {trace.values[value.inputs[i]].name}, i = {i + 1}"
    pairs = [(_result_letter(value.op), value.name)]
    for letter, x in zip(letters(value.op), value.inputs, strict=False):
        pairs.append((letter, trace.values[x].name if isinstance(x, int) else _number(x)))
    words = {**_defaults(value.op), **value.params}
    pairs += [(_letter(value.op, k), _word(word)) for k, word in words.items() if _is_short(word)]
    return ", ".join(f"{subscript(letter)} = {name}" for letter, name in pairs if letter != name)


def _defaults(op: Op) -> dict[str, Any]:
    """The parameters that the formulas of ``op`` name, as they are where none were given."""
    declared, latex = op.__signature__.parameters, f"{op.formula} {op.pullback}"
    named = [key for key in op.words if _letter(op, key) != key or re.search(rf"\b{key}\b", latex)]
    return {key: declared[key].default for key in named}


def letters(op: Op) -> list[str]:
    """What the formula of ``op`` calls its inputs: x1, x2; or A, B where it writes matrices."""
    return [_letter(op, name) for name in op.__signature__.parameters if name not in op.words]


def _letter(op: Op, name: str) -> str:
    """What the formula of ``op`` writes for an input, or a parameter, of this name."""
    short = name.upper() if len(name) == 1 else _SHORT.get(name, name)
    return short if _occurs(short, op.formula) else name


def _result_letter(op: Op) -> str:
    return "Y" if _occurs("Y", op.formula) else "y"


def _is_short(word: Any) -> bool:
    return word is not None and word is not False and len(_word(word)) <= 12


def _word(word: Any) -> str:
    if isinstance(word, float):
        return f"{word:g}"
    simple = isinstance(word, bool | int | tuple) and not hasattr(word, "shape")
    return str(word) if simple else " " * 99


# --- backward ------------------------------------------------------------------------------------


def _seed(trace: Trace, step: Step) -> tuple[str, str, list[Block]]:
    value = trace.values[step.value]
    ones = "1, as for every scalar" if not step.total.shape and step.total == 1 else "the seed"
    title = f"seed: the cotangent of {value.name}"
    row = Row([_result(value), "←", Figure(f"{bar(value.name)}: {ones}", step.total, "gradient")])
    note = Line("note", "The backward sweep starts here and visits the ops in reverse order.")
    return title, f"the backward sweep starts at {value.name}", [note, row]


def _backward(trace: Trace, step: Step) -> tuple[str, str, list[Block]]:
    value, into = trace.values[step.value], trace.values[step.into or 0]
    assert value.op is not None
    rule = pullback_of(value.op, step.input or 0)
    title = f"{into.name} ← {value.call}"
    letters_are = legend(trace, value, step.input)
    blocks: list[Block] = [Formula(rule, letters_are), *_proven(trace, step)]
    if step.raw is None:
        blocks.append(Line("note", "The rule says that this contribution is 0: nothing is added."))
        return title, f"{_path(step)} {into.name}: nothing", blocks
    used = _used(trace, value, rule, step.input or 0)
    arriving = _arriving(value, used, step)
    arrays = [(letter, x.array if isinstance(x, Value) else np.asarray(x)) for letter, x in used]
    numbers = pulled_back(value, step, arrays)
    blocks += [Line("numbers", numbers)] if numbers else []
    blocks.append(Row([*arriving, "→", _raw(into, step)]))
    blocks += _unbroadcast(into, step)
    blocks += _running_sum(into, step)
    return title, f"{_path(step)} {into.name}, through {value.call}", blocks


def _proven(trace: Trace, step: Step) -> list[Block]:
    """The verdict on the rule, and on the gradient of a leaf that is complete after this step."""
    found = [("this rule", trace.verdicts.get(step.value))]
    if step.into is not None and step.path == step.paths and trace.values[step.into].op is None:
        found.append((bar(trace.values[step.into].name), trace.verdicts.get(step.into)))
    return [Line("wrong" if verdict[0] is False else "note", f"{name}: {verdict_text(*verdict)}")
            for name, verdict in found if verdict is not None]  # fmt: skip


def _arriving(value: Value, used: list[tuple[str, Any]], step: Step) -> list[Figure | str]:
    """The cotangent that arrives, then the values that the rule uses."""
    items: list[Figure | str] = [Figure(f"{bar(value.name)} arrives", step.y_bar, "arriving")]
    for x in dict.fromkeys(x for _, x in used if isinstance(x, Value)):
        items += [",", _figure(x)]
    return items


def _used(trace: Trace, value: Value, rule: str, i: int) -> list[tuple[str, Any]]:
    """The letters on the right-hand side of ``rule``, without bars, and the values and numbers
    they mean.

    ``j`` are the inputs but ``i``, of an op that takes any number.
    """
    assert value.op is not None
    right = re.sub(r"\\bar\s*[a-zA-Z]", " ", rule.partition("=")[2])
    names = ["j" if k != i else "" for k in range(len(value.inputs))]
    names = names if value.op.arity is None else letters(value.op)
    inputs = [trace.values[x] if isinstance(x, int) else x for x in value.inputs]
    pairs = [(_result_letter(value.op), value), *zip(names, inputs, strict=False)]
    return [(letter, x) for letter, x in pairs if letter and _occurs(letter, right)]


def _occurs(letter: str, latex: str) -> bool:
    spelled = re.sub(r"(\d+)$", r"_\1", letter)
    return re.search(rf"(?<![a-zA-Z\\]){spelled}(?![a-zA-Z0-9])", latex) is not None


def _raw(into: Value, step: Step) -> Figure:
    whole = step.raw.shape == step.contribution.shape
    caption = f"contribution to {bar(into.name)}" if whole else "what the rule returns"
    return Figure(caption, step.raw, "gradient" if whole else "operand")


def _unbroadcast(into: Value, step: Step) -> list[Block]:
    text = unbroadcast_text(step.raw, step.contribution)
    if not text:
        cast = step.raw.dtype != step.contribution.dtype
        return [Line("note", f"cast to {step.contribution.dtype}")] if cast else []
    note = f"{into.name} was repeated to fit, so: {text.replace('->', '→')}"
    figure = Figure(f"contribution to {bar(into.name)}", step.contribution, "gradient")
    numbers = unbroadcast(step.raw, step.contribution)
    return [Line("note", note), Row(["∑", figure]), Line("numbers", numbers)]


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
    numbers = added(step.before, step.contribution, step.total)
    return [Line("note", count), row, *([Line("numbers", numbers)] if numbers else [])]


def _path(step: Step) -> str:
    if step.paths == 1:
        return "the only contribution to"
    return f"contribution {step.path} of {step.paths} to"


def bar(name: str) -> str:
    """``xc_bar``: how the cotangent of a value is written."""
    return f"{_closed(name)}_bar"


def _closed(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else f"({name})"


def about(array: Any) -> str:
    """The shape of ``array``, and its dtype where it is not the usual one."""
    dtype = "" if array.dtype == np.float64 else f" {array.dtype}"
    return f"{tuple(array.shape)}{dtype}"


# --- what is stepped over ------------------------------------------------------------------------


def _passed_forward(trace: Trace, steps: list[Step], members: set[int]) -> list[Block]:
    inside = [trace.values[step.value] for step in steps]
    given = dict.fromkeys(x for value in inside for x in value.inputs
                          if isinstance(x, int) and x not in members)  # fmt: skip
    made = _leaving(trace, [step.value for step in steps], members)
    left = [_figure(trace.values[x]) for x in list(given)[:_OPERANDS]]
    right = [_result(trace.values[x]) for x in made[:_OPERANDS]]
    return [Row([*_separated(left), "→", *_separated(right)])]


def _passed_backward(trace: Trace, steps: list[Step], members: set[int]) -> list[Block]:
    arriving, reached = {}, {}
    added = Counter(step.into for step in steps)
    leaving = set(_leaving(trace, [step.value for step in steps], members))
    for step in steps:
        if step.value in leaving:
            arriving[step.value] = step.y_bar
        if step.into not in members and step.total is not None:
            reached[step.into] = step
    left = [Figure(f"{bar(trace.values[i].name)} arrives", a, "arriving")
            for i, a in list(arriving.items())[:_OPERANDS]]  # fmt: skip
    right = [Figure(_progress(trace.values[i], step, added[i]), step.total, "gradient")
             for i, step in list(reached.items())[:_OPERANDS]]  # fmt: skip
    return [Row([*_separated(left), "→", *_separated(right)])]


def _progress(value: Value, step: Step, added: int) -> str:
    """A cotangent that only some of its paths, or some others before, make up says so."""
    return bar(value.name) + f", sum of {step.path} of {step.paths} paths" * (added < step.paths)


def _leaving(trace: Trace, places: list[int], members: set[int]) -> list[int]:
    """Which of the values at ``places`` something outside ``members`` uses."""
    used = {x for i, value in enumerate(trace.values) if i not in members for x in value.inputs
            if isinstance(x, int)} | {len(trace.values) - 1}  # fmt: skip
    return [i for i in places if i in used]


def _separated(figures: list[Figure]) -> list[Figure | str]:
    items: list[Figure | str] = []
    for figure in figures:
        items += [",", figure] if items else [figure]
    return items
