"""The reference of ops, generated from their declarations.

``.. ops:: ops.FAMILY`` documents every op declared in ``minigrad.ops.FAMILY``, in the order of the
source; ``.. op-table::`` lists all of them with their formulas.
"""

import ast
import inspect
import re
import textwrap
from typing import Any

import numpy as np
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

import minigrad as mg
from minigrad.core.op import Op
from minigrad.declaration import Declared
from minigrad.fused.declare import Fused

_SWEEPS = {
    "partials": "one rule for both sweeps: partial derivatives",
    "jointly": "a vjp rule; the op is linear, so its jvp is the op itself",
    "separately": "a vjp rule; the op is linear in each input, so its jvp is a sum of calls",
    "vjp": "a vjp rule and a jvp rule",
    "": "none: composed of ops that have rules",
    "fused": "a kernel for the first order; forward sweeps and recorded sweeps run the composite",
}


def declared_in(module: str) -> list[Declared]:
    """The ops and composites of a module or package, in the order of the source."""

    def position(declared: Declared) -> tuple[str, int]:
        return declared.__module__, forward_of(declared).__code__.co_firstlineno

    members = [d for d in mg.REGISTRY.values() if f"{position(d)[0]}.".startswith(f"{module}.")]
    return sorted(members, key=position)


def forward_of(declared: Declared) -> Any:
    """The decorated function itself; ``declared.forward`` may have been wrapped since."""
    return vars(declared)["__wrapped__"]


def public_name(declared: Declared) -> str:
    """The name under which a user calls the op."""
    if isinstance(declared, Fused):
        return f"minigrad.fused.{declared.composite.name}"
    return f"minigrad.ops.{declared.name}"


def escaped(doc: str) -> str:
    """A docstring with stars, as in ``(*kernel)``, and @, as in 6@5x5, escaped as plain text."""
    parts = re.split(r"(``.*?``|^ *(?:>>>|\.\.\.) [^\n]*$)", doc, flags=re.M | re.S)
    return "".join(
        p if i % 2 else re.sub(r"(?<!\\)\*|(?<=\w)@(?=\w)", r"\\\g<0>", p)
        for i, p in enumerate(parts)
    )


def prepared(doc: str) -> str:
    """An escaped docstring whose section ``Source:`` is a field like the others."""
    return re.sub(r"^( *)Source:\n((?:\1 +\S.*(?:\n|$))+)", _field, escaped(doc), flags=re.M)


def _field(section: re.Match) -> str:
    return f"{section[1]}:Source: {' '.join(section[2].split())}\n"


def _prepare(app, what, name, obj, options, lines) -> None:
    lines[:] = prepared("\n".join(lines)).split("\n")


def entry(declared: Declared, config) -> list[str]:
    """The description of one op as reStructuredText."""
    doc = GoogleDocstring(prepared(inspect.getdoc(declared) or ""), config, what="function").lines()
    head = doc.index("") if "" in doc else len(doc)
    lines = [f".. py:function:: {public_name(declared)}{declared.__signature__}", ""]
    body = [*doc[:head], "", *_facts(declared), "", *doc[head:], "", ".. code-details:: Code", ""]
    body += textwrap.indent(_code(declared), "   ").splitlines()
    return [*lines, *("   " + line if line else "" for line in body), ""]


def _facts(declared: Declared) -> list[str]:
    facts = {"Formula": f"\n\n   .. math:: {declared.formula}"}
    if isinstance(declared, Op):
        facts["Pullback"] = f"\n\n   .. math:: {declared.pullback}"
        facts["Signature"] = f"``{declared.signature}``" if len(declared.signature) > 2 else ""
    facts["Rule"] = _SWEEPS[_kind(declared)]
    facts["Checked on"] = ", ".join(f"``{x}`` in {text}" for x, text in declared.checked_on())
    facts["Kinks"] = "; ".join(_kinks(declared))
    doc = declared.__doc__ or ""
    facts["Source"] = declared.source if "Source:\n" not in doc else ""
    return "\n".join(f":{name}: {text}" for name, text in facts.items() if text).splitlines()


def _kind(declared: Declared) -> str:
    if isinstance(declared, Fused):
        return "fused"
    if not isinstance(declared, Op):
        return ""
    return "partials" if declared.partials else declared.linear or "vjp"


def _kinks(declared: Declared) -> list[str]:
    """The points where the derivative jumps, and the slope that the engine uses there."""
    points = [kink for domain in declared.domain for kink in domain.kinks]
    texts = []
    for point in sorted(set(points)):
        params = {k: v for case in reversed(declared.cases) for k, v in case.params.items()}
        _, pull = mg.vjp(lambda x, params=params: declared(x, **params), np.asarray(point))
        (slope,) = pull(np.ones(()))
        given = "".join(f", {key}={value:g}" for key, value in params.items())
        texts.append(f"at x = {point:g}{given}, where the slope {slope.item():g} is used")
    return texts


def _code(declared: Declared) -> str:
    """The source of the forward, without its docstring, and of the rules."""
    rules = [getattr(declared, name, None) for name in ("partials", "vjp", "jvp")]
    if isinstance(declared, Fused):  # show the portable kernel, not those of a library
        rules = [declared.pairs["portable"].backward]
    parts = [_without_docstring(forward_of(declared))]
    parts += [inspect.getsource(rule).strip() for rule in rules if rule is not None]
    return "\n\n\n".join(parts)


def _without_docstring(function) -> str:
    source = textwrap.dedent(inspect.getsource(function)).strip()
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    doc, lines = definition.body[0], source.splitlines()
    if ast.get_docstring(definition) is None:
        return source
    return "\n".join(lines[: doc.lineno - 1] + lines[doc.end_lineno :])


class Ops(SphinxDirective):
    """``.. ops:: ops.arithmetic`` documents the ops of a module."""

    required_arguments = 1

    def run(self):
        module = f"minigrad.{self.arguments[0]}"
        lines = [line for d in declared_in(module) for line in entry(d, self.config)]
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source=module), self.content_offset, container)
        return container.children


class OpTable(SphinxDirective):
    """``.. op-table::`` lists all ops with their formulas and pullbacks."""

    def run(self):
        rows = ["", ".. list-table::", "   :header-rows: 1", "   :class: op-table", ""]
        rows += ["   * - Op", "     - Formula and pullback"]
        for name, declared in sorted(mg.REGISTRY.items()):
            if isinstance(declared, Fused):
                continue
            rows += [
                f"   * - :py:func:`~minigrad.ops.{name}`",
                f"     - | :math:`{declared.formula}`",
            ]
            if isinstance(declared, Op):
                rows += [f"       | :math:`{declared.pullback}`"]
        container = nodes.container()
        self.state.nested_parse(StringList(rows, source="op-table"), 0, container)
        return container.children


class details(nodes.General, nodes.Element):
    """A section that opens at a click."""


class CodeDetails(SphinxDirective):
    """``.. code-details:: TITLE`` with Python code as content."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        code = "\n".join(self.content)
        block = nodes.literal_block(code, code, language="python")
        return [details("", block, title=self.arguments[0])]


def _open(translator, node):
    translator.body.append(f"<details><summary>{node['title']}</summary>\n")


def _close(translator, node):
    translator.body.append("</details>\n")


def setup(app):
    """Register the directives, and escape every docstring."""
    app.connect("autodoc-process-docstring", _prepare, priority=100)  # before napoleon
    app.add_directive("ops", Ops)
    app.add_directive("op-table", OpTable)
    app.add_directive("code-details", CodeDetails)
    app.add_node(details, html=(_open, _close))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
