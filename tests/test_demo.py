"""What demos share: options, numbers, pictures; finding one, playing it, stepping through it."""

import contextlib
import errno
import gc
import importlib.util
import os
import subprocess
import sys
import traceback
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad as mg
from minigrad import demo, files
from minigrad.demo import finding, player
from minigrad.viz import render

ROOT = Path(__file__).parents[1]
DEMO = '''"""Seven is prime.

It has two divisors.
"""

# %% Begin
# Prose of the
# first cell.
import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
x = mg.tensor([1.0, 2.0], requires_grad=True, name="x")

# %% Go on
mg.sum(x * x).backward()
# a comment inside the code
divisors = [d for d in range(1, 8) if 7 % d == 0]
run.number("divisors", divisors)
run.number("draw", run.rng.normal())
run.save("note.txt", f"fast: {run.fast}, seed: {run.seed}")
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "07_prime.py"
    path.write_text(DEMO)
    return path


@pytest.fixture
def run(tmp_path):
    return demo.Run("A claim.", seed=1, folder=tmp_path / "deep" / "out")


@pytest.mark.parametrize(
    ("value", "shown", "kept"),
    [
        (3, "3", 3),
        (np.float64(1.23456), "1.235", 1.23456),
        (np.array(2), "2", 2),
        (mg.tensor(0.5), "0.5", 0.5),
        ([1.0, 2], "[1, 2]", [1.0, 2]),
        ("words", "words", "words"),
        (True, "True", True),
    ],
)
def test_a_number_is_printed_kept_and_returned(run, capsys, value, shown, kept):
    assert run.number("n", value) == kept
    assert run.numbers == {"n": kept}
    assert type(run.numbers["n"]) is type(kept)
    assert capsys.readouterr().out == f"n: {shown}\n"


def test_an_array_is_printed_by_its_format(run, capsys):
    run.number("n", np.array([[1 / 3, 2.0]]), ".2f")
    assert capsys.readouterr().out == "n: [[0.33, 2.00]]\n"


def test_the_numbers_behind_the_claim_are_marked(run):
    run.number("a", 1)
    run.number("b", 2, key=True)
    assert run.numbers == {"a": 1, "b": 2} and run.keys == ["b"]


def test_random_numbers_follow_the_seed(run):
    assert run.rng.normal() == np.random.default_rng(1).normal()


def test_text_callables_and_figures_are_saved_into_a_folder_made_on_demand(run, capsys):
    assert not run.folder.exists()
    run.save("a.txt", "βγ")
    run.save("b.txt", lambda path: path.write_text("b"))
    fig, ax = demo.figure()
    ax.plot([1, 2])
    run.save("c.svg", fig)
    run.save("c.png", fig)
    assert (run.out / "a.txt").read_text(encoding="utf-8") == "βγ"
    assert [path.name for path in run.saved] == ["a.txt", "b.txt", "c.svg", "c.png"]
    assert all(path.stat().st_size for path in run.saved)
    assert f"wrote {run.out.as_posix()}/c.svg" in capsys.readouterr().out


@pytest.mark.parametrize(("shell", "count"), [(None, 0), ("terminal", 0), ("notebook", 1)])
def test_a_picture_is_shown_in_the_cell_of_a_notebook(run, monkeypatch, shell, count):
    shown = []
    words = {"kernel": None} if shell == "notebook" else {}
    there = shell and SimpleNamespace(**words)
    display = SimpleNamespace(display=shown.append, SVG=lambda filename: filename)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: there))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    paths = [run.save(name, "<svg/>") for name in ("a.svg", "b.html")]
    assert shown == [str(paths[0])] * count


@pytest.mark.parametrize("name", ["f.svg", "f.png"])
def test_a_figure_that_cannot_be_written_leaves_the_old_file(run, monkeypatch, name):
    fig, _ = demo.figure()
    old = run.save(name, fig).read_bytes()

    def fail(*args):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match=f"disk full: '.*{name}'"):
        run.save(name, demo.figure()[0])
    assert (run.out / name).read_bytes() == old


def test_a_figure_is_the_same_file_every_time(run):
    texts = set()
    for _ in range(2):
        fig, axes = demo.figure(1, 2, sharey=True)
        axes[0].plot([1, 3, 2])
        texts.add(run.save("f.svg", fig).read_bytes())
    assert len(texts) == 1
    assert b"<dc:date>" not in texts.pop()


def test_a_figure_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(mg.errors.MissingPackageError, match=r"minigrad\[demos\]"):
        demo.figure()


def test_a_demo_without_a_claim_is_refused():
    for doc in (None, "", "\n"):
        with pytest.raises(mg.errors.UsageError, match="begins with the claim"):
            demo.start(doc)


@pytest.mark.parametrize("there", [{}, {"__file__": "/demo.py"}])
def test_pasted_into_a_prompt_or_a_notebook_a_demo_starts_without_its_claim(there, capsys):
    doc = "Automatically created module for IPython interactive environment" if there else None
    names = {"__doc__": doc, **there}
    exec("from minigrad import demo\nrun = demo.start(__doc__)", names)
    assert names["run"].claim == capsys.readouterr().out == ""


def test_a_script_reads_its_options(script, tmp_path):
    words = [sys.executable, str(script), "--fast", "--seed", "5", "--out", str(tmp_path / "o")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Seven is prime.\ndivisors: [1, 7]\n")
    assert (tmp_path / "o" / "note.txt").read_text() == "fast: True, seed: 5"


def test_an_imported_demo_leaves_the_options_of_its_caller_alone(monkeypatch, script):
    monkeypatch.setattr(sys, "argv", ["pytest", "--no-such-option"])
    names = {"__file__": str(script), "__doc__": "A claim."}
    exec("from minigrad import demo\nrun = demo.start(__doc__)", names)
    assert (names["run"].fast, names["run"].seed) == (False, 0)


def test_cells_have_titles_prose_and_code(script):
    head, first, second = demo.cells(script)
    assert (head.title, head.prose, head.line) == ("", "", 1)
    assert (first.title, first.prose) == ("Begin", "Prose of the\nfirst cell.")
    assert first.code.startswith("import minigrad as mg\n")
    assert second.prose == ""
    assert "# a comment inside" in second.code
    lines = DEMO.splitlines()
    assert all(lines[cell.line - 1] == cell.code.splitlines()[0] for cell in (first, second))


def test_a_copy_whose_stream_was_closed_is_collected_silently(monkeypatch, tmp_path):
    complaints = []  # from Python 3.13 on, a finalizer that fails complains
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with (tmp_path / "log").open("w") as stream:
        copy = player._Copy(stream)
    del copy
    assert complaints == []


def test_playing_gives_the_run_and_what_each_cell_printed(script, tmp_path, capsys):
    run = demo.play(script, fast=True, seed=3, out=tmp_path / "o")
    assert (run.claim, run.about) == ("Seven is prime.", "It has two divisors.")
    assert run.numbers["divisors"] == [1, 7]
    assert run.numbers["draw"] == np.random.default_rng(3).normal()
    assert run.printed[:2] == ["", "Seven is prime.\n"]
    assert run.printed[2].endswith("wrote out/note.txt\n")
    assert (tmp_path / "o" / "note.txt").read_text() == "fast: True, seed: 3"
    assert f"wrote {(tmp_path / 'o').as_posix()}/note.txt" in capsys.readouterr().out


def test_an_error_in_a_demo_is_shown_at_its_line(script):
    script.write_text(DEMO + "\n# %% Fail\nraise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError) as caught:
        demo.play(script, out=script.parent)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == (str(script), len(DEMO.splitlines()) + 3)


def test_a_demo_that_never_starts_is_refused(script):
    script.write_text('"""A claim."""\n')
    with pytest.raises(mg.errors.UsageError, match="no cell calls run"):
        demo.play(script)


def test_playing_leaves_the_settings_of_matplotlib_alone(script):
    matplotlib = pytest.importorskip("matplotlib")
    script.write_text(DEMO + "demo.figure()\n")
    before = dict(matplotlib.rcParams)
    demo.play(script, out=script.parent)
    assert dict(matplotlib.rcParams) == before


def test_stepping_shows_prose_code_and_what_changed(script, capsys):
    hints = []
    demo.step(script, out=script.parent, pause=lambda hint: hints.append(hint) or "")
    text = capsys.readouterr().out
    assert len(hints) == 1  # between the two cells
    begin, _, go_on = text.partition("2 of 2 · Go on")
    assert begin.startswith("Seven is prime.\n\nIt has two divisors.\n")
    assert "   Prose of the" in begin
    assert "  new     x: Tensor (2,) 1 2\n" in begin
    assert "  changed x: Tensor (2,) 1 2; grad 2 4\n" in go_on
    assert "  new     divisors: [1, 7]\n" in go_on
    assert "run:" not in text


def test_prose_is_filled_to_the_width_of_the_terminal_and_formulas_are_not(
    script, capsys, monkeypatch
):
    prose = "# " + "word " * 18 + "end\n#     y = x\n# Next.\n"
    script.write_text(DEMO.replace("# Prose", f"{prose}# Prose"))
    for columns, lines in (("100", 1), ("60", 2)):
        monkeypatch.setenv("COLUMNS", columns)
        demo.step(script, out=script.parent, pause=lambda hint: "")
        said = capsys.readouterr().out.partition("1 of 2")[2].partition("       y = x\n")[0]
        filled = said.splitlines()[1:]
        assert len(filled) == lines and max(map(len, filled)) <= int(columns)
        assert " ".join(filled).split() == ["word"] * 18 + ["end"]
        assert all(line.startswith("   word") for line in filled)


def test_a_claim_is_filled_to_the_width_of_the_terminal(script, capsys, monkeypatch):
    claim = " ".join(["Seven is prime"] * 5)
    script.write_text(DEMO.replace("Seven is prime", claim))
    for columns, lines in (("200", 1), ("60", 2)):
        monkeypatch.setenv("COLUMNS", columns)
        demo.play(script, out=script.parent)
        said = capsys.readouterr().out.splitlines()[:lines]
        assert " ".join(said) == f"{claim}." and max(map(len, said)) <= int(columns)


def test_a_long_demo_says_how_long_it_takes_before_it_begins(script, capsys):
    script.write_text(DEMO.replace("(__doc__)", "(__doc__, minutes=2)"))
    demo.play(script, out=script.parent)
    said = capsys.readouterr().out
    assert said.startswith("Seven is prime.\nThis takes about 2 minutes; --fast takes seconds.\n")
    demo.play(script, out=script.parent, fast=True)
    assert "minute" not in capsys.readouterr().out


def test_stepping_sees_layers_and_arrays_that_change_in_place(script, capsys):
    script.write_text(
        DEMO + "bn = mg.nn.BatchNorm1d(1)\na = bn.running_mean.numpy()\nd = {1: 2}\nsame = 1\n"
        "# %% Change\nbn(mg.tensor([[1.0], [3.0]]))\na += 1\nd[1] = 3\nsame = 1\n"
    )
    demo.step(script, out=script.parent, pause=lambda hint: "")
    last = capsys.readouterr().out.partition("Change")[2]
    assert "  changed bn: " in last
    assert "  changed a: array (1,) 1\n" in last
    assert "  changed d: dict of [1]\n" in last
    assert "same" not in last.partition("──")[2]


def test_stepping_shows_a_value_in_one_line_and_no_private_name(script, capsys):
    script.write_text(
        DEMO + "import numpy as np\n_private = 1\nthird = 1 / 3\nn = np.arange(6)\n"
        "mixed = np.array([1, 'a'], dtype=object)\nlayers = [mg.nn.ReLU()]\n"
    )
    demo.step(script, out=script.parent, pause=lambda hint: "")
    said = capsys.readouterr().out
    assert "  new     third: 0.333333\n  new     n: array (6,) 0 1 2 3 …\n" in said
    assert (
        "  new     mixed: array([1, 'a'], dtype=object)\n  new     layers: list of 1 ReLU\n" in said
    )
    assert "_private:" not in said


def test_stepping_tells_a_class_of_layers_from_a_layer(script, capsys):
    script.write_text(DEMO + "norm = mg.nn.BatchNorm1d\nkinds = {'a': (norm, mg.optim.SGD)}\n")
    demo.step(script, out=script.parent, pause=lambda hint: "")
    said = capsys.readouterr().out
    assert "  new     norm: " in said and "  new     kinds: dict of ['a']\n" in said


def test_q_stops_and_the_end_of_input_plays_on(script, capsys):
    assert demo.step(script, out=script.parent, pause=lambda hint: "q") is None
    assert "divisors: " not in capsys.readouterr().out

    def nobody(hint):
        raise EOFError

    assert demo.step(script, out=script.parent, pause=nobody).numbers["divisors"] == [1, 7]


def test_the_graph_of_a_demo_is_found_silently(script, capsys):
    with pytest.raises(mg.errors.UsageError, match="07_prime"):
        demo.run_with_graph(script)
    script.write_text(DEMO + "run.graph = mg.sum(x)\n")
    assert demo.run_with_graph(script).graph.item() == 3
    assert capsys.readouterr().out == ""


def test_the_graph_of_a_demo_keeps_the_names_of_its_layers(script):
    net = "mg.nn.Sequential(mg.nn.Linear(1, 2), mg.nn.Linear(2, 3))"
    script.write_text(f"{DEMO}net = {net}\nrun.graph = net(mg.tensor([[1.0]]))\n")
    run = demo.run_with_graph(script)
    gc.collect()
    text = mg.viz.to_dot(run.graph)
    assert "0.weight" in text and "1.weight" in text


def test_the_graph_of_a_demo_is_found_without_a_renderer_for_its_pictures(script, monkeypatch):
    monkeypatch.setattr(render, "_RENDERERS", [])
    drawing = 'run.save("x.svg", lambda path: mg.viz.draw(run.graph, path))\n'
    script.write_text(f"{DEMO}run.graph = mg.sum(x)\n{drawing}")
    assert demo.run_with_graph(script).graph.item() == 3


@pytest.mark.parametrize(
    "name", [3, "3", "03", "03_standardization", "standardization", "stand", "03_st", "Stand.py"]
)
def test_a_demo_is_found_by_number_name_or_beginning(name):
    assert demo.find(name).name == "03_standardization.py"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("standr", "one of 03_standardization"),
        ("cha", "'cha', which matches 2 demos\n  remedy:   one of 01_chain, 02_chains_of_ops"),
        ("ardiz", "one of 03_standardization"),
        ("99", "`minigrad demo --list` shows all"),
        ("0", "expected: the number or name of a demo\n  got:      '0'"),
        ("qqqq", "`minigrad demo --list` shows all"),
        ("sails", "`minigrad demo --list` shows all"),
    ],
)
def test_a_demo_that_is_not_there_is_answered_with_the_near_ones(
    monkeypatch, tmp_path, name, words
):
    for stem in ("01_chain", "02_chains_of_ops", "03_standardization"):
        (tmp_path / f"{stem}.py").touch()
    monkeypatch.setattr(finding, "folder", lambda: tmp_path)
    assert demo.find("1").stem == "01_chain"
    with pytest.raises(mg.errors.UsageError) as caught:
        demo.find(name)
    assert words in str(caught.value)


def test_the_list_gives_every_demo_its_claim(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    narrow = command("demo")[1].splitlines()
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = command("demo", "--list")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == len(list((ROOT / "demos").glob("*.py")))
    for path, line in zip(demo.listed(), lines, strict=True):
        assert line.startswith(path.stem) and line.endswith(demo.claim_of(path))
    assert command("demo")[1] == out
    assert max(map(len, narrow)) <= 60 and " ".join(narrow).split() == out.split()


def test_a_folder_that_cannot_be_written_is_refused_before_a_demo_is_played(command, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = command("demo", "3", "--fast", "--out", str(tmp_path / "file"))
    assert (code, out) == (2, "")
    assert err.startswith("demo 3: --out\n  expected: a folder that can be written to\n")


@pytest.mark.usefixtures("renderer")
def test_the_command_plays_and_steps(command, tmp_path):
    code, out, _ = command("demo", "2", "--fast", "--out", str(tmp_path))
    assert code == 0
    assert "backward steps: 9" in out
    assert (tmp_path / "02_chain_rule.html").exists()
    code, out, _ = command("demo", "scalar", "--step", "--out", str(tmp_path), typed="\nq\n")
    assert code == 0
    assert "2 of " in out and "3 of " not in out
    assert "  new     x: Tensor () 0.8\n" in out
    code, _, err = command("demo", "standr")
    assert code == 2
    assert "03_standardization" in err


@pytest.mark.usefixtures("renderer")
def test_draw_and_step_take_a_demo(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("draw", "1", "-o", "a.dot")[0] == 0
    assert "square" in Path("a.dot").read_text(encoding="utf-8")
    code, out, _ = command("step", "chain_rule", "--text")
    assert code == 0
    assert "step 15 of 15" in out
    code, _, err = command("draw", "3")
    assert code == 2
    assert "01_scalar_chain" in err
    code, _, err = command("draw", "btch_norm_by_hnd")
    assert code == 2
    assert "batch_norm or a demo" in err and "04_batch_norm_by_hand" in err
    assert command("draw", "1", "--backward")[0] == 2


def test_a_wheel_brings_the_demos_along(tmp_path):
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with contextlib.closing(zipfile.ZipFile(wheel)) as archive:
        archive.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "minigrad", "demo", "--list"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        path.stem for path in demo.listed()
    ]
    where = "import minigrad.demo; print(minigrad.demo.folder(), minigrad.demo.find('3'))"
    done = subprocess.run(
        [sys.executable, "-c", where],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path / "site" / "minigrad" / "_demos") in done.stdout
