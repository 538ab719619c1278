"""What the letters in the formulas of an op stand for in one of its calls."""

import re
from typing import Any

from minigrad.core.op import Op
from minigrad.viz.formula import literal
from minigrad.viz.latex import subscript
from minigrad.viz.trace import Value

_SHOWN = 12  # characters of a parameter in a legend; a longer one is left out
_LETTERS = {"condition": "c", "stride": "s", "padding": "p", "dilation": "d"}  # in formulas


def legend(value: Value, i: int | None = None) -> str:
    """``x₁ = xc, x₂ = inv_std``: what the letters in the formula of an op stand for.

    For an op with any number of inputs: what input ``i`` (from 0) is, the one that a step passes.
    """
    if value.op.arity is None:
        return "" if i is None else f"xᵢ = {value.inputs[i].name}, i = {i + 1}"
    pairs = [(_result_letter(value.op), value.name)]
    pairs += [(y, x.name) for y, x in zip(letters(value.op), value.inputs, strict=False)]
    for name, param in {**_defaults(value.op), **value.node.params}.items():
        if text := _param_text(param):
            pairs.append((_letter(value.op, name), text))
    return ", ".join(f"{subscript(letter)} = {name}" for letter, name in pairs if letter != name)


def _defaults(op: Op) -> dict[str, Any]:
    """The parameters that the formulas of ``op`` mention, with their defaults."""
    declared, latex = op.__signature__.parameters, f"{op.formula} {op.pullback}"
    named = [
        key for key in op.keywords if _letter(op, key) != key or re.search(rf"\b{key}\b", latex)
    ]
    return {key: declared[key].default for key in named}


def letters(op: Op) -> list[str]:
    """The letters for the inputs in the formula of ``op``: x1, x2; A, B where they are matrices."""
    return [_letter(op, name) for name in op.__signature__.parameters if name not in op.keywords]


def _letter(op: Op, name: str) -> str:
    """The letter for the input or parameter ``name`` in the formula of ``op``; else the name."""
    letter = name.upper() if len(name) == 1 else _LETTERS.get(name, name)
    return letter if _occurs(letter, op.formula) else name


def _result_letter(op: Op) -> str:
    return "Y" if _occurs("Y", op.formula) else "y"


def _param_text(param: Any) -> str:
    """A parameter in a legend; "" for None, False, arrays and what is long."""
    if param is False or not isinstance(param, float | int | tuple):
        return ""
    text = literal(param)
    return text if len(text) <= _SHOWN else ""


def used_by_rule(value: Value, rule: str, i: int) -> list[tuple[str, Value]]:
    """The letters without a bar on the right-hand side of ``rule``, with their values.

    For an op with any number of inputs the letter ``j`` means every input but ``i``.
    """
    right = re.sub(r"\\bar\s*[a-zA-Z]", " ", rule.partition("=")[2])
    if value.op.arity is None:
        names = ["j" if j != i else "" for j in range(len(value.inputs))]
    else:
        names = letters(value.op)
    pairs = [(_result_letter(value.op), value), *zip(names, value.inputs, strict=False)]
    return [(letter, x) for letter, x in pairs if letter and _occurs(letter, right)]


def _occurs(letter: str, latex: str) -> bool:
    """Whether a letter such as ``x1`` occurs in a formula, written ``x_1``."""
    written = re.sub(r"(\d+)$", r"_\1", letter)
    return re.search(rf"(?<![a-zA-Z\\]){written}(?![a-zA-Z0-9])", latex) is not None
