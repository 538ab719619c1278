"""Long names in tables break behind their last dot, without one behind an underscore."""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

_DOTTED = re.compile(r"([\w.]{5,}\.)(\w.*)")  # after less a break is not worth it
_LONG = re.compile(r"(\w+\.\w{12,}?_)(\w{12,})")  # such as mg.binary_cross_entropy_with_logits


class Breaks(SphinxPostTransform):
    """Marks where the code in a cell may break."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs):
        for table in self.document.findall(nodes.table):
            for code in table.findall(nodes.literal):
                if parts := _DOTTED.fullmatch(code.astext()) or _LONG.fullmatch(code.astext()):
                    here = nodes.raw("", "<wbr>", format="html")
                    code.children = []
                    code += [nodes.Text(parts[1]), here, nodes.Text(parts[2])]


def setup(app):
    """Register the transform."""
    app.add_post_transform(Breaks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
