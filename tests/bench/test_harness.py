"""All contestants of a benchmark compute the same numbers, or say why they cannot take part."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from . import batch_norm, gpu, lenet, report
from .cli import PAGE, main
from .contestant import Missing, load
from .measure import Child, Spread, by_turns, ratio
from .report import page, table
from .run import Row, rows
from .works import MAKERS, WORKS, Pair, Work

# the sizes of the measured works made small, in float64
TINY = {
    "chain": {"ops": 40},
    "batch_norm": {"shape": (3, 2, 5, 4)},
    "lenet": {"batch": 3},
    "resnet": {"batch": 3},
    "depth": {"depth": 3},
}
TINY |= {f"gpu_{maker}": TINY[maker] for maker in ("batch_norm", "lenet")}
CASES = [(maker, name) for maker in TINY for name in MAKERS[maker] if not name.startswith("copy")]
# several training steps: updates, and state kept between steps, are compared, too
STEPS = gpu.INNER  # a GPU makes so many in one call


@pytest.fixture(scope="module")
def children():
    """The processes of the contestants, started when first needed."""
    started: dict[str, Child] = {}

    def child(name: str) -> Child:
        if name not in started:
            started[name] = Child(name)
        return started[name]

    yield child
    for process in started.values():
        process.__exit__()


@pytest.fixture(scope="module")
def numbers(children, tmp_path_factory):
    """``(maker, name)`` -> the numbers that this contestant computes."""
    known: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def compute(maker: str, name: str) -> dict[str, np.ndarray]:
        if (maker, name) not in known:
            child, path = children(name), tmp_path_factory.mktemp(maker) / f"{name}.npz"
            size = {**TINY[maker], "dtype": "float64"}
            child.ask("prepare", key=maker, work=maker, size=size)
            calls = 1 if maker.startswith("gpu_") else STEPS
            child.ask("result", key=maker, steps=calls, path=str(path))
            with np.load(path) as found:
                known[maker, name] = dict(found)
        return known[maker, name]

    return compute


def disagreement(found: dict, expected: dict) -> float:
    """The largest difference, relative to the largest number."""
    differences = [np.abs(found[key] - expected[key]).max() for key in found]
    return max(differences) / max(np.abs(value).max() for value in expected.values())


# No number of the tiny works goes through more than 100 sums and products in a row in one step, and
# no sum has more than 2,000 terms: each term may be rounded by eps in every step.
ROUNDING = STEPS * 100 * 2000 * np.finfo(np.float64).eps


@pytest.mark.parametrize(("maker", "name"), CASES)
def test_every_contestant_computes_the_same_numbers(maker, name, numbers):
    try:
        found = numbers(maker, name)
    except Missing as reason:
        pytest.skip(str(reason))
    expected = numbers(maker.removeprefix("gpu_"), "minigrad-plain")
    absent = expected.keys() - found.keys()
    assert found.keys() <= expected.keys()
    assert not absent or (name == "mygrad" and all(".running_" in key for key in absent))
    assert all(value.dtype == np.float64 for value in found.values())
    assert disagreement(found, expected) <= ROUNDING


@pytest.mark.parametrize(("module", "constant"), [(batch_norm, "EPS"), (lenet, "LR")])
def test_one_percent_on_a_constant_would_be_noticed(module, constant, monkeypatch, numbers):
    maker = module.__name__.rpartition(".")[2]
    expected = numbers(maker, "minigrad-plain")
    monkeypatch.setattr(module, constant, 1.01 * getattr(module, constant))
    one = MAKERS[maker]["minigrad"](**TINY[maker], dtype="float64")
    for _ in range(STEPS):
        one.step()
    assert disagreement(one.result(), expected) > ROUNDING


def test_contestants_run_by_turns_in_both_orders(children, monkeypatch):
    child = children("minigrad-plain")
    for key in "ab":
        child.ask("prepare", key=key, work="chain", size={"ops": 4, "dtype": "float32"})
    order, ask = [], child.ask
    monkeypatch.setattr(child, "ask", lambda do, **c: order.append(c["key"]) or ask(do, **c))
    times = by_turns({key: (child, key) for key in "ab"}, rounds=3, seconds=0.0)
    assert "".join(order) == "abbaab"
    assert [len(found) for found in times.values()] == [3, 3]


def test_a_ratio_compares_the_times_of_one_round():
    assert ratio([1.0, 20.0, 3.0], [2.0, 40.0, 6.0]) == Spread(0.5, 0.5, 0.5)
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)


def small(name: str, **changes) -> Work:
    """The first work of that name, made small."""
    work = WORKS[name][-1]
    return dataclasses.replace(work, size=TINY[work.maker] | {"dtype": "float32"}, **changes)


def test_numba_is_out_of_reach_where_the_name_says_so(children):
    assert not children("minigrad-plain").ask("can_import", name="numba")
    assert children("minigrad-plain").ask("can_import", name="numpy")


def test_rows_hold_positive_figures_of_real_runs():
    quiet = {"rounds": 2, "seconds": 0.0, "report": lambda text: None}
    pair = (Pair("minigrad", "minigrad-plain", 1e9),)
    (timed,) = rows(small("chain", pairs=pair), **quiet)
    assert timed.is_met and 0 < timed.figure.low <= timed.figure.median <= timed.figure.high
    assert timed.ours > 0 and timed.theirs > 0
    vary = ("depth", (1, 64))  # 64 layers take longer than one
    (slope,) = rows(small("growth", pairs=(Pair("minigrad", limit=9.0),), vary=vary), **quiet)
    assert slope.is_met and slope.figure.median > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_grows_with_the_arrays_in_use():
    def peak(n: int) -> float:
        size = {"shape": (n, 256), "dtype": "float32"}
        pairs = (Pair("minigrad-plain", "minigrad-plain"),)
        work = Work("", "batch_norm", size, pairs, kind="memory", small={**size, "shape": (2, 256)})
        return next(rows(work, 1, 0.0, lambda text: None)).ours

    # y and x_bar at least: 4 MiB each, against 1 MiB
    assert peak(4096) - peak(1024) > 2 * (4096 - 1024) * 256 * 4


def test_what_cannot_be_imported_is_a_row_with_a_reason(monkeypatch):
    with pytest.raises(Missing, match="no_such_package cannot be imported"):
        load("no_such_package")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (row,) = rows(WORKS["gpu"][-1], 1, 0.0, lambda text: None)
    assert row.figure is None and row.missing


def test_a_figure_is_met_on_the_right_side_of_its_limit():
    time, rate = WORKS["chain"][0], WORKS["gpu"][-1]
    assert [Row(time, Pair("a", "b", 0.5), Spread(x, x, x)).is_met for x in (0.4, 0.6)] == [
        True,
        False,
    ]
    assert [Row(rate, Pair("a", "", 10.0), Spread(x, x, x)).is_met for x in (9, 11)] == [
        False,
        True,
    ]
    assert Row(time, Pair("a", "b", 0.5)).is_met is None
    assert Row(time, Pair("a", "b"), Spread(1, 1, 1)).is_met is None


def test_the_page_holds_every_row_and_every_reason():
    found = []
    for name, works in WORKS.items():
        figure, missing = (None, "no card") if name == "gpu" else (Spread(0.123, 0.1, 0.2), "")
        found += [Row(w, p, figure, missing=missing) for w in works for p in w.pairs]
    text = page("", found, rounds=7, seconds=0.2)
    assert len(re.findall(r"\| 0\.12 +\|", text)) == sum(row.figure is not None for row in found)
    assert text.endswith("## GPU\n\nNot yet measured.\n") and "no card" in table(found)
    lines = [line for line in table(found).splitlines() if line.startswith("|")]
    assert len(lines) == len(found) + 2 and len({len(line) for line in lines}) == 1


def test_what_was_measured_replaces_the_part_of_its_machine(monkeypatch):
    def on(card: str | None, text: str, figure: float, *names: str) -> str:
        spread = Spread(figure, figure, figure)
        monkeypatch.setattr(report, "card", lambda: {"gpu": card})
        monkeypatch.setattr(report, "describe", lambda: {"processor": "Processor A"})
        return page(text, [
            Row(w, p, None if card is None and name == "gpu" else spread)
            for name in names for w in WORKS[name] for p in w.pairs
        ], rounds=7, seconds=0.2)  # fmt: skip

    kept = PAGE.read_text(encoding="utf-8")
    assert on(None, kept, 0.5, "gpu") == kept  # no GPU erases nothing
    one = on("Card A", kept, 111, "gpu")
    two = on("Card B", one, 222, "gpu")
    before, after = kept.index("## CPU"), kept.index("## GPU")
    assert kept[before:after] in two and two.startswith(one.rstrip())
    again = on("Card A", two, 333, "gpu")
    assert "111.00" not in again and again.index("333.00") < again.index("### Card B")
    assert again[again.index("### Card B") :] == two[two.index("### Card B") :]
    cpu = on(None, again, 444, *WORKS)
    assert cpu.index("### Processor A") < cpu.index("444.00") < cpu.index("## GPU")
    assert kept[before:after].rstrip() in cpu  # of other processors
    assert cpu[cpu.index("## GPU") :] == again[again.index("## GPU") :]


def test_without_a_gpu_the_command_leaves_the_page_as_it_stands(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("os.sched_setaffinity", lambda pid, cores: None, raising=False)
    monkeypatch.setitem(WORKS, "gpu", WORKS["gpu"][-1:])
    (path := tmp_path / "page.md").write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["gpu", "--write", str(path)]) == 0
    assert "not measured" in capsys.readouterr().out
    assert path.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_the_command_prints_json(capsys, monkeypatch):
    monkeypatch.setitem(
        WORKS, "chain", (small("chain", pairs=(Pair("minigrad-plain", "minigrad-plain"),)),)
    )
    monkeypatch.setattr("os.sched_setaffinity", lambda pid, cores: None, raising=False)
    assert main(["chain", "--json", "--rounds", "2", "--seconds", "0"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["figure"]["median"] > 0 and row["missing"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no work 'nonsense'; there are chain, batch_norm"),
        (["chain", "--write"], "--write replaces whole parts of the page"),
        (["--rounds", "0"], "--rounds: expected 1 or more, got 0"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
