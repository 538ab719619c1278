"""The picture of the architecture, drawn from the import statements of the package."""

import ast
from collections import defaultdict
from html import escape
from pathlib import Path

import minigrad
from minigrad.viz.render import render

ROOT = Path(minigrad.__file__).parent
# modules that are drawn as part of another card; all others have their own card
_PART_OF = {"operators": "tensor", "special": "ops"}
_LEFT_OUT = {  # modules that nearly everything imports, or that hardly anything imports
    "__init__", "__main__", "_demos", "anomaly", "context", "declaration", "errors", "files",
    "observer", "pytest_plugin",
}  # fmt: skip
_COLOURS = {
    "core": "#cfe3f5", "ops": "#cfe3f5", "tensor": "#cfe3f5", "transforms": "#cfe3f5",
    "analytic": "#d5ecdf", "verify": "#d5ecdf", "viz": "#f5e3cf",
}  # fmt: skip


def units() -> dict[str, list[Path]]:
    """Card -> the files that it represents."""
    cards = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").parts[0]
        if name not in _LEFT_OUT:
            cards[_PART_OF.get(name, name)].append(path)
    return dict(cards)


def imports(cards: dict[str, list[Path]]) -> dict[str, set[str]]:
    """Card -> the cards it imports from."""
    return {
        name: {u for path in paths for u in _imported(path) if u in cards} - {name}
        for name, paths in cards.items()
    }


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minigrad"):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            full = [alias.name for alias in node.names if alias.name.startswith("minigrad.")]
        else:
            continue
        names |= {name.split(".")[1] for name in full if "." in name}
    return {_PART_OF.get(name, name) for name in names}


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The transitive reduction: the graph without the edges that a longer path implies."""

    def reachable(start: str) -> set[str]:
        seen, stack = set(), list(graph[start])
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                stack += graph[name]
        return seen

    return {
        name: {u for u in uses if not any(u in reachable(v) for v in uses - {u})}
        for name, uses in graph.items()
    }


def _card(name: str, paths: list[Path]) -> str:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    main = ROOT / name / "__init__.py" if (ROOT / name).is_dir() else ROOT / f"{name}.py"
    doc = ast.get_docstring(ast.parse(main.read_text(encoding="utf-8"))) or _PURPOSE[name]
    text = doc.partition("\n\n")[0].replace("\n", " ").partition(". ")[0].rstrip(".")
    text = text.replace("``", "")
    wrapped = "<br/>".join(map(escape, _wrapped(text, 24)))
    title = f"<b>{escape(name)}</b>  <font color='#555555'>{lines:,} lines</font>"
    return f"<{title}<br/><font point-size='13'>{wrapped}</font>>"


_PURPOSE = {"core": "Nodes, ops, un-broadcasting and the two sweeps"}


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def dot() -> str:
    """The picture as DOT text; each card imports only cards below it."""
    cards = units()
    lines = [
        "digraph architecture {",
        '  graph [rankdir=TB, nodesep=0.12, ranksep=0.35, fontname="Helvetica"];',
        '  node [shape=box, style="rounded,filled", color="#8a8f98", fontname="Helvetica",'
        " fontsize=15, margin=0.08];",
        '  edge [color="#8a8f98", arrowsize=0.7];',
    ]
    for name, paths in cards.items():
        fill = _COLOURS.get(name, "#f2f4f7")
        lines.append(f'  {name} [label={_card(name, paths)}, fillcolor="{fill}"];')
    for name, uses in reduced(imports(cards)).items():
        lines += [f"  {name} -> {used};" for used in sorted(uses)]
    return "\n".join([*lines, "}", ""])


def _draw(app) -> None:
    target = Path(app.srcdir) / "_cache" / "architecture.svg"
    target.parent.mkdir(exist_ok=True)
    svg = render(dot(), "svg")
    if not target.exists() or target.read_bytes() != svg:
        target.write_bytes(svg)


def setup(app):
    """Draw the picture before the pages are read."""
    app.connect("builder-inited", _draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
