"""``.. command-line::`` documents every command of ``minigrad`` and its declared options."""

from typing import Any

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from minigrad.cli import app as program


def description(name: str, command: Any) -> list[str]:
    """The documentation of one command as reStructuredText."""
    arguments = [p for p in command.params if _is_argument(p)]
    words = " ".join(f"[{p.name.upper()}]" for p in arguments)
    usage = f"minigrad {name} {words}".rstrip()
    text = (command.help or "").replace("`", "``").replace("````", "``")
    lines = [usage, "-" * len(usage), "", *text.splitlines(), "", ".. list-table::"]
    lines += ["   :widths: 30 70", ""]
    for parameter in command.params:
        if parameter.name != "help":
            lines += _row(parameter)
    return lines if command.params else lines[:-2]


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def _row(parameter: Any) -> list[str]:
    if _is_argument(parameter):
        shown = str(parameter.name).upper()
    else:
        shown = ", ".join([*parameter.opts, *parameter.secondary_opts])
    note = str(getattr(parameter, "help", "") or "").rstrip(".")
    default = parameter.default
    if default not in (None, False, ""):
        note = f"{note} (``{default}`` if not given)"
    return [f"   * - ``{shown}``", f"     - {note}"]


class CommandLine(SphinxDirective):
    """``.. command-line::``."""

    def run(self):
        group = typer.main.get_command(program)
        sections = nodes.Element()
        for name, command in group.commands.items():
            lines = StringList(description(name, command), source="command-line")
            self.state.nested_parse(lines, 0, sections, match_titles=True)
        return sections.children


def setup(app):
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
