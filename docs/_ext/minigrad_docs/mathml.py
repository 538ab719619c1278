"""Formulas as MathML, which browsers render without scripts or network access."""

from html import escape

from docutils import nodes
from sphinx.util import logging

from minigrad.viz.latex import fault, mathml

LOG = logging.getLogger(__name__)


def _markup(node: nodes.Element, display: str) -> str:
    latex = node.astext().strip()
    error, text = fault(latex), mathml(latex, display)
    if error or not text:  # the warning fails the build
        LOG.warning("no MathML for the formula %r: %s", latex, error, location=node)
        return f"<code>{escape(latex)}</code>"
    return text


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
