"""Formulas as MathML, which browsers show without a script or a network."""

from functools import cache
from html import escape
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

LOG = logging.getLogger(__name__)
_XMLNS = "{http://www.w3.org/1998/Math/MathML}"
_ACCENTS = {"\u00af": "\u00af", "^": "\u02c6", "~": "\u02dc", "\u02d9": "\u02d9"}
_THIN, _SIGNS, _OPEN, _CLOSE = "0.167em", {"+", "\u2212", "-"}, {"(", "["}, {")", "]", "|"}
_LARGE = {"\u2211", "\u220f"}
_BOLD = {
    **{chr(ord("A") + i): chr(0x1D400 + i) for i in range(26)},
    **{chr(ord("a") + i): chr(0x1D41A + i) for i in range(26)},
    **{chr(ord("0") + i): chr(0x1D7CE + i) for i in range(10)},
}


@cache
def mathml(latex: str, display: str) -> str:
    """The ``<math>`` element of a formula; ``display`` is ``"inline"`` or ``"block"``.

    Raises:
        ValueError: a command or an environment that latex2mathml does not know; it would be copied
            into the page as it stands.
    """
    try:
        root = ElementTree.fromstring(convert(latex, display=display))
    except ElementTree.ParseError:  # the & of an environment it does not know
        raise ValueError("an & is left over") from None
    for element in root.iter():
        element.tag = str(element.tag).removeprefix(_XMLNS)
    for element in list(root.iter()):
        text = element.text or ""
        if "\\" in text:
            raise ValueError(f"{text} is left over")
        _adapt(element, text)
        _space(element)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, text: str) -> None:
    """What browsers read differently from what latex2mathml writes."""
    if element.tag == "mo" and text in _ACCENTS:
        element.text = _ACCENTS[text]
        element.set("stretchy", "false")  # a bar as wide as its letter
    if element.tag == "mo" and len(element):  # what \mathrel makes of its argument
        element.text = "".join(element.itertext())
        del element[:]
    if element.tag == "mover":
        element.set("accent", "true")
    if element.tag in ("msub", "msubsup") and len(element) and element[0].text in _LARGE:
        element.tag = "munder" if element.tag == "msub" else "munderover"
        element[0].set("movablelimits", "true")  # beside the sign within a line of text
    variant = element.attrib.pop("mathvariant", "")  # browsers know "normal" alone
    if variant == "bold":
        element.text = "".join(_BOLD.get(letter, letter) for letter in text)
    elif variant and variant != "italic":
        element.set("mathvariant", "normal")


def _space(row: ElementTree.Element) -> None:
    """Spaces as TeX sets them: around names of functions, and none after a sign."""
    before = ElementTree.Element("mo")
    for i, element in enumerate(row):
        text, behind = element.text or "", row[i + 1] if i + 1 < len(row) else None
        if element.tag in ("mi", "mo") and len(text) > 1 and text.isalpha():
            element.tag = "mo"
            closed = behind is None or (behind.tag == "mo" and behind.text in _OPEN)
            element.set("lspace", "0" if before.tag == "mo" else _THIN)
            element.set("rspace", "0" if closed else _THIN)
        elif element.tag == "mo" and text == "|":
            element.attrib.update(lspace="0", rspace="0")
        elif text == "=" and before.tag == "mo" and before.text == "+":  # written +=
            before.set("rspace", "0")
            element.set("lspace", "0")
        elif text in _SIGNS and before.tag == "mo" and before.text not in _CLOSE:
            element.set("form", "prefix")
            element.attrib.update(lspace="0", rspace="0")
        before = element


def _markup(node: nodes.Element, display: str) -> str:
    latex = node.astext().strip()
    try:
        return mathml(latex, display)
    except Exception as error:  # somebody else's parser; the warning fails the build
        LOG.warning("no MathML for the formula %r: %s", latex, error, location=node)
        return f"<code>{escape(latex)}</code>"


def _visit_inline(translator, node):
    translator.body.append(_markup(node, "inline"))
    raise nodes.SkipNode


def _visit_block(translator, node):
    ids = f' id="{node["ids"][0]}"' if node["ids"] else ""
    number = node.get("number")
    label = f'<span class="eqno">({number})</span>' if number else ""
    translator.body.append(f'<div class="formula"{ids}>{_markup(node, "block")}{label}</div>\n')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer; ``html_math_renderer`` in conf.py selects it."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
