"""Imports point down, the engine is small, and `import minigrad` loads nothing but NumPy."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import minigrad as mg

ROOT = Path(mg.__file__).parent
# From the bottom up. A module may import modules of earlier lines, and of its own package.
LAYERS = [
    ["errors", "special", "analytic"],
    ["files", "streams", "threads"],
    ["backend", "context", "declaration"],
    ["core.node"],
    ["composite", "observer", "seed", "core.op"],
    ["core.broadcast", "operators", "protocol"],
    ["core.sweep", "spelling"],
    ["ops"],
    ["fused"],
    ["tensor"],
    ["anomaly", "transforms"],
    ["data", "nn", "optim"],
    ["verify", "viz"],
    ["train"],
    ["pytest_plugin", "demo"],
    ["__init__"],
    ["cli"],
    ["__main__"],
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
OPTIONAL = {
    "cupy", "graphviz", "hypothesis", "latex2mathml", "matplotlib", "numba", "pygraphviz", "rich",
    "safetensors", "sympy",
}  # fmt: skip


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path


MODULES = dict(modules())


def unit(module):
    """The layer entry of a module: its package, or itself inside core."""
    return module if module in LAYER else module.partition(".")[0]


@cache
def imports(path):
    """(imported module, line, whether inside a function) of every import statement."""
    return list(_imports(path))


def _imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        child
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, node in inner
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                known = full.removeprefix("minigrad.") in MODULES
                yield (full if known else node.module), node.lineno, node in inner


def own_imports(module):
    """The minigrad modules that ``module`` imports."""
    for name, line, _ in imports(MODULES[module]):
        if name == "minigrad":
            yield "__init__", line
        elif name.startswith("minigrad."):
            yield name.removeprefix("minigrad."), line


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_layer(module):
    assert unit(module) in LAYER or module == "core", f"give {module} a layer"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    if module == "core":
        return
    for imported, line in own_imports(module):
        if unit(imported) == unit(module):
            continue
        assert LAYER[unit(imported)] < LAYER[unit(module)], f"{module}:{line} imports {imported}"


def test_imports_form_no_cycle():
    graph = {m: {i for i, _ in own_imports(m) if i in MODULES and i != m} for m in MODULES}
    done, path = set(), []

    def visit(module):
        assert module not in path, f"a cycle: {' -> '.join([*path, module])}"
        if module in done:
            return
        path.append(module)
        for imported in sorted(graph[module]):
            visit(imported)
        done.add(path.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_inside_functions_are_of_optional_packages_only(module):
    for name, line, inner in imports(MODULES[module]):
        assert not inner or name.partition(".")[0] in OPTIONAL, f"{module}:{line} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.partition(".")[0] == "analytic"])
def test_analytic_derivatives_import_nothing_of_the_engine(module):
    assert {unit(imported) for imported, _ in own_imports(module)} <= {"analytic"}


def test_numeric_derivatives_import_nothing_of_the_engine():
    if "verify.numeric" not in MODULES:
        pytest.skip("verify/numeric.py does not exist yet")
    reached, stack = set(), ["verify.numeric"]
    while stack:
        for imported, _ in own_imports(stack.pop()):
            if imported not in reached:
                reached.add(imported)
                stack.append(imported)
    engine = {"core", "ops", "tensor", "transforms", "__init__", "fused", "nn"}
    assert not {m for m in reached if m.partition(".")[0] in engine}


def test_the_reference_of_the_tests_imports_nothing_of_the_engine():
    here = Path(__file__).parent
    for helper in ("taylor.py", "differences.py"):
        names = {name.partition(".")[0] for name, _, _ in imports(here / helper)}
        assert "minigrad" not in names


def test_the_core_can_be_read_in_one_sitting():
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "core").glob("*.py"))
    assert lines <= 500


def test_lines_are_at_most_100_columns():
    for path in MODULES.values():
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 100, f"{path.name}:{i}"


def test_all_ops_modules_are_loaded_with_the_package():
    loaded = [name for name in sys.modules if name.startswith("minigrad.ops.")]
    missing = [m for m in MODULES if m.startswith("ops.") and f"minigrad.{m}" not in loaded]
    assert not missing, f"ops that no import of minigrad declares: {missing}"


def test_public_names_exist_and_are_sorted():
    names = [name for name in mg.__all__ if name not in ("verify", "viz")]
    assert all(hasattr(mg, name) for name in names)
    assert len(set(mg.__all__)) == len(mg.__all__)
    assert all(hasattr(mg.ops, name) for name in mg.ops.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mg.nonsense


def test_the_registry_is_whole_from_the_start():
    """Otherwise a loop over it would break when its body imports another part of the package."""
    script = """
import minigrad as mg
before = list(mg.REGISTRY)
for name in mg.__all__:
    getattr(mg, name)
import minigrad.cli
assert list(mg.REGISTRY) == before, set(mg.REGISTRY) - set(before)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_import_loads_no_third_party_package_but_numpy():
    script = """
import sys
before = set(sys.modules)
import minigrad
names = {n.partition(".")[0] for n in set(sys.modules) - before}
names -= set(sys.stdlib_module_names) | {"minigrad", "numpy"}
print(sorted(n for n in names if not n.startswith("_")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_import_does_not_load_the_slow_pathlib():
    script = """
import sys
import numpy
before = set(sys.modules)
import minigrad
assert "pathlib" not in set(sys.modules) - before
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_plugin_of_pytest_loads_nothing_of_the_package():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    module = project["project"]["entry-points"]["pytest11"]["minigrad"]
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = {target: source for source, target in wheel["force-include"].items()}
    source = ROOT.parent / places[f"{module}.py"]  # in a wheel it is a module beside the package
    script = f"""
import runpy, sys
import pytest
before = set(sys.modules)
runpy.run_path({str(source)!r})
assert not {{"minigrad", "numpy"}} & (set(sys.modules) - before)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
