"""Formulas with numbers put in: how the first element of a result is computed."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from minigrad.core.broadcast import repeated_axes
from minigrad.viz.formula import literal
from minigrad.viz.latex import subscript
from minigrad.viz.trace import Step, Value

_TERMS = 4  # terms of a sum that are written out
_DIGITS, _MAX_DIGITS = 4, 8  # of a number; more than 4 to tell a result from its operands
_REDUCTIONS = {"sum": " + ", "mean": " + ", "prod": " * ", "max": ", ", "min": ", "}


def computed(value: Value) -> str:
    """``[0, 0]: -0.068 * 4.007 = -0.274`` for the first element of an op's result; or ``""``."""
    xs = [x.array for x in value.inputs]
    if not value.array.size or any(not x.size for x in xs):
        return ""
    y = _first(value.array)
    digits = _digits(y, map(_first, xs)) if value.op.signature == "()" else _DIGITS
    text = _elementwise(value, xs, digits) or _reduced(value, xs) or _matrix_product(value, xs)
    return f"{_place(value.array)}{text} = {_number(y, digits)}" if text else ""


def pulled_back(step: Step, used: Iterable[tuple[str, Value]]) -> str:
    """``[0, 0]: ȳ = 0.22, y = 4 → -3.57``: what goes into the rule of an elementwise op, and out.

    For a mean it is the whole computation: ``[0, 0]: 0.2 / 4 = 0.05``.
    """
    op = step.value.op
    if op.name == "mean" and step.raw.size:
        share = f"{_number(_first(step.y_bar))} / {step.raw.size // step.y_bar.size}"
        return f"{_place(step.raw)}{share} = {_number(_first(step.raw))}"
    if op.signature != "()" or not step.raw.size:
        return ""
    parts = [("ȳ", step.y_bar), *((letter, x.array) for letter, x in used)]
    given = ", ".join(f"{subscript(letter)} = {_number(_first(array))}" for letter, array in parts)
    return f"{_place(step.raw)}{given} → {_number(_first(step.raw))}"


def unbroadcast(raw: np.ndarray, contribution: np.ndarray) -> str:
    """``[0]: 0.1 + 0.2 + 0.3 = 0.6``: the elements of ``raw`` that un-broadcasting sums."""
    if not raw.size:
        return ""
    terms = _along(repeated_axes(raw.shape, contribution.shape) or (), raw)
    return f"{_place(contribution)}{_joined(terms, ' + ')} = {_number(_first(contribution))}"


def added(before: np.ndarray | None, contribution: np.ndarray, total: np.ndarray) -> str:
    """``[0, 0]: 0.1 + 0.2 = 0.3``: the running sum at its first element."""
    if before is None or not total.size:
        return ""
    a, b, y = map(_first, (before, contribution, total))
    digits = _digits(y, (a, b))
    sum_of_two = f"{_number(a, digits)} + {_bracketed(b, digits)}"
    return f"{_place(total)}{sum_of_two} = {_number(y, digits)}"


def _elementwise(value: Value, xs: list, digits: int) -> str:
    op = value.op
    if op.signature != "()":
        return ""
    numbers = [_first(x) for x in xs]
    symbol = op.symbol or op.name
    if symbol.isidentifier() or len(numbers) > 2:
        params = [f"{key}={_number(x)}" for key, x in value.node.params.items()
                  if isinstance(x, int | float)]  # fmt: skip
        return f"{symbol}({', '.join([*(_number(x, digits) for x in numbers), *params])})"
    last = _bracketed(numbers[-1], digits)
    if len(numbers) == 1:
        return f"{symbol}{last}"
    write = _bracketed if symbol == "**" else _number
    return f"{write(numbers[0], digits)} {symbol} {last}"


def _reduced(value: Value, xs: list) -> str:
    name, x = value.op.name, xs[0]
    if name not in _REDUCTIONS or len(xs) != 1:
        return ""
    axis = value.node.params.get("axis")
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis)
    terms = _along({int(i) % max(x.ndim, 1) for i in axes}, x)
    text = _joined(terms, _REDUCTIONS[name])
    if name == "mean":
        return f"({text}) / {terms.size}"
    return f"{name}({text})" if name in ("max", "min") else text


def _matrix_product(value: Value, xs: list) -> str:
    if value.op.name != "matmul" or len(xs) != 2 or any(not x.ndim for x in xs):
        return ""
    a, b = xs
    row = a[(0,) * (a.ndim - 1)]
    column = b if b.ndim == 1 else b[(0,) * (b.ndim - 2)][:, 0]
    terms = enumerate(zip(row, column, strict=True))
    pairs = [f"{_bracketed(p) if i else _number(p)} * {_bracketed(q)}" for i, (p, q) in terms]
    return _shortened(pairs, " + ", len(pairs))


def _along(axes: Collection[int], array: np.ndarray) -> np.ndarray:
    """The elements along ``axes``, at index 0 of all other axes, as a vector."""
    return array[tuple(slice(None) if i in axes else 0 for i in range(array.ndim))].ravel()


def _joined(terms: np.ndarray, sign: str) -> str:
    first, *others = terms[: _TERMS + 2]
    write = _number if sign == ", " else _bracketed
    return _shortened([_number(first), *map(write, others)], sign, terms.size)


def _shortened(texts: list[str], sign: str, n: int) -> str:
    """The first of ``n`` terms, and how many more there are."""
    if n <= _TERMS + 1:
        return sign.join(texts)
    return f"{sign.join(texts[:_TERMS])}{sign}… {n - _TERMS} more"


def _first(array: np.ndarray) -> Any:
    """The first element."""
    return array.item(0)


def _place(array: np.ndarray) -> str:
    """The index of the first element, ``[0, 0]:``; nothing for a scalar."""
    return f"[{', '.join('0' * array.ndim)}]: " if array.ndim else ""


def _digits(y: Any, xs: Iterable[Any]) -> int:
    """Enough digits that ``y`` looks different from each operand: 0.82757 + 1e-05 = 0.82758."""
    others = [x for x in xs if isinstance(x, float) and x != y]
    if isinstance(y, float):
        for n in range(_DIGITS, _MAX_DIGITS + 1):
            if all(f"{x:.{n}g}" != f"{y:.{n}g}" for x in others):
                return n
    return _DIGITS


def _number(x: Any, digits: int = _DIGITS) -> str:
    return literal(x, digits)


def _bracketed(x: Any, digits: int = _DIGITS) -> str:
    """A number that follows an operator: in parentheses if it is negative."""
    text = _number(x, digits)
    return f"({text})" if text.startswith("-") else text
