"""The table in the README is what the script prints, and the script can tell right from wrong."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import other_engines  # noqa: E402

sys.path.remove(str(ROOT / "docs"))


def readme_rows():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("| engine |")[2].partition("\n\n")[0].splitlines()[2:]
    for line in table:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        yield name, cells


README = dict(readme_rows())
ROWS = {name: other_engines.ENGINES[name] for name in other_engines.ENGINES}


def in_words(errors):
    return [re.sub(r" \(.*\)", "", other_engines.cell(error)) for error in errors.values()]


def test_minigrad_is_right_in_every_cell():
    assert in_words(other_engines.measured(other_engines.minigrad)) == README["minigrad"]
    assert set(README["minigrad"]) == {"right"}


@pytest.mark.parametrize("kernels", [(), ("numpy",), ("numba", "numpy")])
def test_the_layer_of_minigrad_is_right_in_every_cell(kernels):
    import minigrad as mg

    layer = mg.fused.batch_norm
    with mg.fused.use(*kernels):
        adapter = lambda: (  # noqa: E731
            other_engines._by_minigrad(mg, layer),
            other_engines._evaluation_by_minigrad(mg, layer),
        )
        assert set(in_words(other_engines.measured(adapter))) == {"right"}


@pytest.mark.parametrize(
    ("mistake", "wrong"),
    [
        (other_engines.detached_mean, {"order 2", "order 3"}),
        (other_engines.saved_statistics, {"order 2", "order 3", "order 2, gamma = 0"}),
        (other_engines.training_gradient_in_evaluation, {"evaluation"}),
    ],
)
@pytest.mark.usefixtures("declared")
def test_a_known_mistake_is_wrong_where_it_must_be_and_only_there(mistake, wrong):
    errors = {k: e for k, e in other_engines.measured(mistake).items() if e is not None}
    assert {column for column, error in errors.items() if error > 1e-3} == wrong
    assert all(error < 1e-9 for column, error in errors.items() if column not in wrong)


@pytest.mark.parametrize("name", ROWS)
def test_an_installed_engine_does_what_the_readme_says(name):
    distribution, _ = ROWS[name]
    if importlib.util.find_spec(distribution) is None:
        pytest.skip(f"{distribution} is not installed")
    shown = f"{name} {importlib.metadata.version(distribution)}"
    if shown not in README:
        pytest.skip(f"the README measured another version, not {shown}")
    command = [sys.executable, other_engines.__file__, distribution]  # they touch global state
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = re.sub(r" \([^)]*\)", "", done.stdout.splitlines()[-1])
    assert row == f"| {shown} | {' | '.join(README[shown])} |"


def test_the_readme_says_what_it_measured_of_every_engine():
    names = {name.rpartition(" ")[0] for name in README if name != "minigrad"}
    assert names == set(ROWS)
