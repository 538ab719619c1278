"""Formulas with the numbers put in: how the first element of a result comes about."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minigrad.viz.formula import shown
from minigrad.viz.latex import subscript
from minigrad.viz.record import repeated_axes

_TERMS = 4  # of a sum that are written out
_DIGITS, _MOST = 4, 9
_REDUCTIONS = {"sum": " + ", "mean": " + ", "prod": " * ", "max": ", ", "min": ", "}


def computed(value: Any, values: Sequence[Any]) -> str:
    """``[0, 0]: -0.068 * 4.007 = -0.274`` for the first element of an op's result; or ``""``.

    Args:
        value: a ``trace.Value`` that an op made.
        values: those that its inputs refer to.
    """
    xs = [values[x].array if isinstance(x, int) else np.asarray(x) for x in value.inputs]
    if not value.array.size or any(not x.size for x in xs):
        return ""
    y = _element(value.array)
    digits = _digits(y, map(_element, xs)) if value.op.signature == "()" else _DIGITS
    text = _elementwise(value, xs, digits) or _reduced(value, xs) or _matrix_product(value, xs)
    return f"{_first(value.array)}{text} = {_n(y, digits=digits)}" if text else ""


def pulled_back(value: Any, step: Any, used: Sequence[tuple[str, np.ndarray]]) -> str:
    """``[0, 0]: ȳ = 0.22, y = 4 → -3.57``: what the rule of an elementwise op starts from.

    Of a mean it is all that the rule does: ``[0, 0]: 0.2 / 4 = 0.05``.
    """
    if value.op.name == "mean" and step.raw.size:
        share = f"{_n(_element(step.y_bar))} / {step.raw.size // step.y_bar.size}"
        return f"{_first(step.raw)}{share} = {_n(_element(step.raw))}"
    if value.op.signature != "()" or not step.raw.size:
        return ""
    parts = [("ȳ", step.y_bar), *used]
    given = ", ".join(f"{subscript(letter)} = {_n(_element(array))}" for letter, array in parts)
    return f"{_first(step.raw)}{given} → {_n(_element(step.raw))}"


def summed_up(raw: np.ndarray, contribution: np.ndarray) -> str:
    """``[0]: 0.1 + 0.2 + 0.3 = 0.6``: which elements of ``raw`` un-broadcasting adds up."""
    if raw.shape == contribution.shape or not contribution.size or not raw.size:
        return ""
    axes = repeated_axes(raw.shape, contribution.shape)
    terms = raw[tuple(slice(None) if i in axes else 0 for i in range(raw.ndim))].ravel()
    return f"{_first(contribution)}{_joined(terms, ' + ')} = {_n(_element(contribution))}"


def added(before: np.ndarray | None, contribution: np.ndarray, total: np.ndarray) -> str:
    """``[0, 0]: 0.1 + 0.2 = 0.3``: the running sum at its first element."""
    if before is None or not total.size:
        return ""
    a, b, y = map(_element, (before, contribution, total))
    digits = _digits(y, (a, b))
    b = _n(b, closed=True, digits=digits)
    return f"{_first(total)}{_n(a, digits=digits)} + {b} = {_n(y, digits=digits)}"


def _elementwise(value: Any, xs: list, digits: int) -> str:
    op = value.op
    if op.signature != "()" or not xs:
        return ""
    numbers = [_element(x) for x in xs]
    symbol = op.symbol or op.name
    if symbol.isidentifier() or len(numbers) > 2:
        words = [f"{key}={_n(word)}" for key, word in value.params.items()
                 if isinstance(word, int | float)]  # fmt: skip
        return f"{symbol}({', '.join([*(_n(x, digits=digits) for x in numbers), *words])})"
    closed = (symbol == "**", True) if len(numbers) == 2 else (True,)
    texts = [_n(x, closed, digits) for x, closed in zip(numbers, closed, strict=True)]
    return f"{texts[0]} {symbol} {texts[1]}" if len(texts) == 2 else f"{symbol}{texts[0]}"


def _reduced(value: Any, xs: list) -> str:
    name, x = value.op.name, xs[0]
    if name not in _REDUCTIONS or len(xs) != 1:
        return ""
    axis = value.params.get("axis")
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis)
    axes = {int(i) % max(x.ndim, 1) for i in axes}
    terms = x[tuple(slice(None) if i in axes else 0 for i in range(x.ndim))].ravel()
    text = _joined(terms, _REDUCTIONS[name])
    if name == "mean":
        return f"({text}) / {terms.size}"
    return f"{name}({text})" if name in ("max", "min") else text


def _matrix_product(value: Any, xs: list) -> str:
    if value.op.name != "matmul" or len(xs) != 2 or any(not x.ndim for x in xs):
        return ""
    a, b = xs
    row = a[(0,) * (a.ndim - 1)]
    column = b if b.ndim == 1 else b[(0,) * (b.ndim - 2)][:, 0]
    terms = enumerate(zip(row, column, strict=True))
    pairs = [f"{_n(p, closed=i > 0)} * {_n(q, closed=True)}" for i, (p, q) in terms]
    return _shortened(pairs, " + ")


def _joined(terms: np.ndarray, sign: str) -> str:
    closed = sign != ", "
    texts = [_n(term, closed=closed and bool(i)) for i, term in enumerate(terms[: _TERMS + 2])]
    return _shortened(texts, sign, terms.size)


def _shortened(texts: list[str], sign: str, n: int | None = None) -> str:
    n = len(texts) if n is None else n
    if n <= _TERMS + 1:
        return sign.join(texts)
    return f"{sign.join(texts[:_TERMS])}{sign}… {n - _TERMS} more"


def _element(array: np.ndarray) -> Any:
    return array[(0,) * array.ndim].item()


def _first(array: np.ndarray) -> str:
    """Which element it is; nothing for a scalar."""
    return f"[{', '.join('0' * array.ndim)}]: " if array.ndim else ""


def _digits(y: Any, xs: Iterable[Any]) -> int:
    """As many as tell a result from the operands that differ from it: 0.82757 + 1e-05 = 0.82758."""
    others = [x for x in xs if isinstance(x, float) and x != y]
    enough = (n for n in range(_DIGITS, _MOST) if all(f"{x:.{n}g}" != f"{y:.{n}g}" for x in others))
    return next(enough, _DIGITS) if isinstance(y, float) else _DIGITS


def _n(x: Any, closed: bool = False, digits: int = _DIGITS) -> str:
    """A number in so many digits; in parentheses where its sign would meet another."""
    x = x.item() if isinstance(x, np.ndarray | np.generic) else x
    text = f"{x + 0.0:.{digits}g}" if isinstance(x, float) else shown(x)  # no -0
    return f"({text})" if closed and text.startswith("-") else text
