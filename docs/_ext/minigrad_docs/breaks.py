"""Where lines break.

Long names in tables break behind their last dot, without one behind an underscore. A formula and
the punctuation behind it stay together.
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

_DOTTED = re.compile(r"([\w.]{5,}\.)(\w.*)")  # after less a break is not worth it
_LONG = re.compile(r"((?:\w+\.)?\w{12,}?_)(\w{12,}\S*)")  # binary_cross_entropy_with_logits()


class Breaks(SphinxPostTransform):
    """Marks where the code in a cell may break, and where a line may not."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs):
        for table in self.document.findall(nodes.table):
            for code in table.findall(nodes.literal):
                if parts := _DOTTED.fullmatch(code.astext()) or _LONG.fullmatch(code.astext()):
                    here = nodes.raw("", "<wbr>", format="html")
                    code.children = []
                    code += [nodes.Text(parts[1]), here, nodes.Text(parts[2])]
        for math in list(self.document.findall(nodes.math)):
            behind = math.parent[math.parent.index(math) + 1 :]
            text = behind[0] if behind and isinstance(behind[0], nodes.Text) else ""
            if mark := re.match(r"[.,;:)]+", text):
                math.parent.replace(text, nodes.Text(text[mark.end() :]))
                math.replace_self(pair := nodes.inline(classes=["together"]))
                pair += [math, nodes.Text(mark[0])]


def setup(app):
    """Register the transform."""
    app.add_post_transform(Breaks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
