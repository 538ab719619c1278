"""LaTeX formulas of declared ops, as MathML for a browser or as a line of text for a terminal.

MathML needs the package latex2mathml; without it the browser gets the text, too.
"""

import importlib.util
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from html.entities import html5
from typing import Any
from xml.etree import ElementTree

from minigrad.core.op import Op
from minigrad.errors import facts
from minigrad.viz.formula import shown

_SYMBOLS = {  # besides those that HTML calls by the same name, such as the Greek letters
    "varphi": "φ", "to": "→", "mid": "|", "dots": "…", "cdot": "·", "infty": "∞", "partial": "∂",
    "quad": "\u2003", ",": " ", " ": " ", ";": " ", "!": "",
}  # fmt: skip
_ATOM = re.compile(r".|√?[^\W_]+[\u0302-\u0307]?|√\([^()]*\)")  # needs no parentheses in a/b
_ACCENTS = {"bar": "\u0304", "hat": "\u0302", "dot": "\u0307", "tilde": "\u0303"}
_FONTS = {"mathrm", "mathit", "mathsf", "mathbf", "text", "mathrel", "operatorname"}
_NAMES = {
    "arccos", "arcsin", "arctan", "arg", "cos", "cosh", "cot", "coth", "csc", "det", "exp", "ln",
    "log", "max", "min", "sec", "sin", "sinh", "tan", "tanh",
}  # fmt: skip
_SUPER = dict(zip("0123456789+-()nTixyp", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿᵀⁱˣʸᵖ", strict=True))
_SUB = dict(zip("0123456789+-()aeijkmnopstx", "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑᵢⱼₖₘₙₒₚₛₜₓ", strict=True))
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|.", re.S)
_MATHML = "{http://www.w3.org/1998/Math/MathML}"
_OVER = {"\u00af": "\u00af", "^": "\u02c6", "~": "\u02dc", "\u02d9": "\u02d9"}  # accents
_BOLD = {ord(a) + i: code + i for a, code, count in (("A", 0x1D400, 26), ("a", 0x1D41A, 26),
         ("0", 0x1D7CE, 10)) for i in range(count)}  # to Unicode's bold signs  # fmt: skip
_THIN, _THICK = "0.167em", "0.278em"  # TeX's spaces
_SIGNS, _CLOSE, _LARGE = {"+", "\u2212", "-"}, {")", "]", "|"}, {"\u2211", "\u220f"}
_ARGUMENTS = {"mfrac": 2, "msup": 2, "msub": 2, "msubsup": 3, "mroot": 2}  # children of an element
_SHOWN = 200  # characters of a faulty formula that are shown
_INERT = {"display", "stretchy", "width", "height", "depth", "mathvariant", "linethickness",
          "separator", "form", "fence", "minsize", "maxsize", "columnalign", "lspace", "rspace",
          "movablelimits", "symmetric", "accent"}  # attributes that cannot act  # fmt: skip


def pullback_of(op: Op, i: int) -> str:
    """The part of ``op.pullback`` for input ``i``; all of it where it has no part per input."""
    parts = re.split(r",\s*\\quad\s*(?=\\bar)", op.pullback)
    one_per_input = len(parts) == op.arity and all(part.startswith(r"\bar") for part in parts)
    return parts[i] if one_per_input else op.pullback


def subscript(letter: str) -> str:
    """``x₁`` for ``x1``."""
    head = letter.rstrip("0123456789")
    return head + "".join(_SUB[digit] for digit in letter[len(head) :])


def marked(latex: str) -> str:
    """``⚠ y = x^2} (one brace too many)``: a faulty formula and its fault; "" if it has none."""
    wrong = fault(latex)
    return f"⚠ {shown(latex, _SHOWN)} ({wrong})" if wrong else ""


def warn_of_faults(ops: Iterable[Op]) -> None:
    """Warn of each formula of ``ops`` that is not valid LaTeX."""
    for op in dict.fromkeys(ops):
        for field in ("formula", "pullback"):
            if text := marked(getattr(op, field)):
                warning = facts(f"step: the {field} of {op.name}", expected="LaTeX", got=text)
                warnings.warn(warning, stacklevel=3)


def _can_convert() -> bool:
    return importlib.util.find_spec("latex2mathml") is not None


def _converted(latex: str, display: str = "inline") -> ElementTree.Element:
    import latex2mathml.converter

    return ElementTree.fromstring(latex2mathml.converter.convert(latex, display=display))


@cache
def fault(latex: str) -> str:
    """The fault of ``latex``, or "" if none is found.

    Braces are counted. Other faults show in the output of latex2mathml, which accepts almost
    anything: commands it does not know are left as text, missing arguments leave elements short.
    """
    depth = 0
    for token in _TOKEN.findall(latex):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            break
    if depth:
        return "one brace too many" if depth < 0 else "a brace is not closed"
    if not latex.strip() or not _can_convert():
        return ""
    try:
        root = _converted(latex)
    except Exception as error:  # as in mathml
        return f"latex2mathml: {type(error).__name__}"
    for element in root.iter():
        tag, text = str(element.tag).removeprefix(_MATHML), element.text or ""
        if "\\" in text:
            return f"unknown command {shown(text)}"
        if len(element) != _ARGUMENTS.get(tag, len(element)):
            return "an argument is missing"
    return ""


@cache
def mathml(latex: str, display: str = "inline") -> str:
    """``latex`` as one ``<math>`` element; "" without latex2mathml, or where it fails.

    Only elements and attributes that cannot act are allowed, as anybody may declare a formula.

    Args:
        latex: a formula.
        display: ``"inline"``, or ``"block"`` for a formula on a line of its own.
    """
    if not _can_convert():
        return ""
    try:
        root = _converted(latex, display)
    except Exception:  # somebody else's parser on somebody else's formula; the text will do
        return ""
    elements = list(root.iter())
    for element in elements:
        element.tag = str(element.tag).removeprefix(_MATHML)
        if not re.fullmatch(r"m[a-z]+", element.tag) or set(element.keys()) - _INERT:
            return ""
    for element in elements:
        _adapt(element)
    for row in root.iter():
        _space(row)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element) -> None:
    """Change an element of latex2mathml to what browsers need for the same picture."""
    tag, text = element.tag, element.text or ""
    if tag == "mo" and text in _OVER:
        element.text = _OVER[text]
        element.set("stretchy", "false")  # as wide as its letter
    if tag == "mover":
        element.set("accent", "true")
    if tag in ("msub", "msubsup") and len(element) and element[0].text in _LARGE:
        element.tag = "munder" if tag == "msub" else "munderover"
        element[0].set("movablelimits", "true")  # in a line of text they stand beside the sign
    is_word = tag == "mrow" and len(element) > 0 and all(
        letter.tag == "mi" and "mathvariant" in letter.attrib for letter in element
    )  # fmt: skip
    if is_word:
        element.tag, element.attrib = "mi", element[0].attrib
    if is_word or (tag == "mo" and len(element)):  # \mathrel puts its argument into an <mo>
        element.text = text = "".join(element.itertext())
        del element[:]
    variant = element.attrib.pop("mathvariant", "")  # browsers know only "normal"
    if variant == "bold":
        element.text = text.translate(_BOLD)
    elif variant:  # the style sheet slants italic
        element.set("mathvariant", "italic" if variant == "italic" else "normal")


def _space(row: ElementTree.Element) -> None:
    """Set spaces as TeX does: around the name of a function, and none after a sign."""
    before = ElementTree.Element("mo")
    for i, element in enumerate(row):
        text, after = element.text or "", row[i + 1] if i + 1 < len(row) else None
        at_start = before.tag == "mo" and before.text not in _CLOSE  # of a row or an operand
        is_name = len(text) > 1 and text.isalpha() and element.get("mathvariant") != "italic"
        if element.tag in ("mi", "mo") and is_name:
            element.tag = "mo"
            element.set("lspace", "0" if at_start else _THIN)
            element.set("rspace", "0" if after is None or after.tag == "mo" else _THIN)
        elif text == ":":
            element.tag = "mo"
            element.attrib.update(lspace=_THICK, rspace=_THICK)
        elif element.tag == "mo" and text == "|":
            element.attrib.update(lspace="0", rspace="0")
        elif text == "=" and before.tag == "mo" and before.text == "+":  # +=
            before.set("rspace", "0")
            element.set("lspace", "0")
        elif text in _SIGNS and at_start:
            element.set("form", "prefix")
            element.attrib.update(lspace="0", rspace="0")
        before = element


@cache
def plain(latex: str) -> str:
    """``latex`` as a line of text: ``x̄₁ = ȳ x₂``. Unknown commands stay LaTeX.

    >>> from minigrad.viz.latex import plain
    >>> plain(r"y = \\frac{1}{N} \\sum_i x_i^2")
    'y = 1/N ∑ᵢ xᵢ²'
    """
    text = "".join(_pieces(iter(_TOKEN.findall(latex))))
    return re.sub(r" *\u2003 *", "  ", re.sub(r" +", " ", text)).strip()


def _pieces(tokens: Iterator[str]) -> Iterator[str]:
    """The text of every token up to the brace that closes the group."""
    for token in tokens:
        if token == "}":
            return
        if token in ("^", "_"):
            yield _script(token, _group(tokens))
        else:
            yield _piece(token, tokens)


def _piece(token: str, tokens: Iterator[str]) -> str:
    """The text of a token and of the arguments that it takes from ``tokens``."""
    if token == "{":
        return "".join(_pieces(tokens))
    if not token.startswith("\\"):
        return token if not token.isspace() else " "
    name = token[1:]
    if name in _ACCENTS:
        return _group(tokens) + _ACCENTS[name]
    if name in _FONTS:
        return _group(tokens)
    if name in ("left", "right"):
        return _group(tokens).replace(".", "")  # the point stands for no bracket
    if name == "frac":
        top, bottom = _group(tokens), _group(tokens)
        return f"{_atom(top)}/{_atom(bottom)}"
    if name == "sqrt":
        root = _group(tokens)
        return f"√{root}" if len(root) == 1 else f"√({root})"
    if name in _NAMES:
        return name
    return _SYMBOLS.get(name, html5.get(f"{name};", name if len(name) == 1 else token))


def _group(tokens: Iterator[str]) -> str:
    """The argument of a command: the next group, or the next single token."""
    for token in tokens:
        if not token.isspace():
            return _piece(token, tokens)
    return ""


def _atom(text: str) -> str:
    """``text`` in parentheses, unless it is one letter, number or root."""
    return text if _ATOM.fullmatch(text) else f"({text})"


def _script(mark: str, text: str) -> str:
    """A sub- or superscript in Unicode characters where they exist, else ``_(...)``."""
    table: dict[str, Any] = _SUPER if mark == "^" else _SUB
    if text and all(char in table for char in text):
        return "".join(table[char] for char in text)
    return mark + (text if len(text) == 1 else f"({text})")
