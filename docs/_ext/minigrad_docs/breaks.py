"""Line breaks in the HTML pages.

Long names in tables may break after their last dot or, without a dot, after an underscore. A
formula and the punctuation that follows it stay on one line.
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

_DOTTED = re.compile(r"([\w.]{5,}\.)(\w.*)")  # a break after fewer characters is not worth it
_LONG = re.compile(r"((?:\w+\.)?\w{12,}?_)(\w{12,}\S*)")  # binary_cross_entropy_with_logits()


class Breaks(SphinxPostTransform):
    """Marks where code in a table may break, and where a line may not break."""

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
            following = math.parent[math.parent.index(math) + 1 :]
            text = following[0] if following and isinstance(following[0], nodes.Text) else ""
            if mark := re.match(r"[.,;:)]+", text):
                math.parent.replace(text, nodes.Text(text[mark.end() :]))
                math.replace_self(pair := nodes.inline(classes=["together"]))
                pair += [math, nodes.Text(mark[0])]


def setup(app):
    """Register the transform."""
    app.add_post_transform(Breaks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
