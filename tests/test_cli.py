"""The command line: what it prints, writes and returns."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad import cli
from minigrad.fused.declare import has_numba
from minigrad.verify import probes, targets
from minigrad.verify.exact import Proof
from minigrad.viz import render

WRONG = """
import numpy as np

def make():
    def forward(x, gamma, beta, eps):
        axes = tuple(i for i in range(x.ndim) if i != 1)
        xc = x - x.mean(axes, keepdims=True)
        inv_std = 1 / np.sqrt((xc * xc).mean(axes, keepdims=True) + eps)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        gamma, beta = gamma.reshape(shape), beta.reshape(shape)
        return gamma * xc * inv_std + beta, (xc * inv_std, inv_std, gamma, axes)

    def backward(dy, cache):
        x_hat, inv_std, gamma, axes = cache
        g = dy * gamma
        x_bar = inv_std * (g - g.mean(axes, keepdims=True))
        return x_bar, (dy * x_hat).sum(axes), dy.sum(axes)

    return forward, backward

forward, backward = make()
"""


@pytest.fixture
def run(command):
    return command


@pytest.mark.usefixtures("renderer")
def test_the_main_job_proves_batch_norm_and_draws_it(tmp_path):
    command = [sys.executable, "-m", "minigrad", "verify", "batch_norm", "--out", "out"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert "PROVEN" in result.stdout
    assert (tmp_path / "out" / "batch_norm.dot").read_text().startswith("digraph")
    svg = (tmp_path / "out" / "batch_norm.svg").read_text()
    assert "gamma" in svg
    assert "traced/" in svg


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes streams")
@pytest.mark.parametrize(
    ("args", "closed", "code"),
    [
        ("info", ">&-", 0),
        ("verify nope", ">&- 2>&-", 2),
        ("demo 1 --fast --step --out out", "<&-", 0),
        ("draw -o bn.dot", "<&- >&- 2>&-", 0),
    ],
)
@pytest.mark.usefixtures("renderer")
def test_streams_that_are_closed_are_written_to_in_vain(tmp_path, args, closed, code):
    """A service may start the command without streams: Python sets them to None."""
    shell = f'"$0" -m minigrad {args} {closed}'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable], capture_output=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk without room")
@pytest.mark.parametrize("args", ["--version", "info", "demo --list"])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_disk_without_room_is_told_in_one_line(args, buffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    for errors, said in (("", "[Errno 28] No space left on device: '<stdout>'\n"), ("2>&1", "")):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m minigrad {args} >/dev/full {errors}', sys.executable],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk without room")
@pytest.mark.parametrize(("args", "code"), [("train mlp --epochs 1", 0), ("verify nope", 2)])
def test_what_cannot_be_written_to_standard_error_is_dropped(args, code):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m minigrad {args} 2>/dev/full', sys.executable],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert ("epoch 1: loss" in done.stdout) == (code == 0)


@pytest.mark.parametrize(
    ("args", "code", "files"),
    [
        ("verify --shape 4,3 --out out", 0, {"batch_norm.dot"}),
        ("verify wrong:forward,backward --out out", 1, {"wrong_forward_backward.json"}),
        ("step --text", 0, set()),
        ("demo --list", 0, set()),
        ("info --json", 0, set()),
        ("ops nonsense", 2, set()),
    ],
)
def test_a_reader_that_goes_early_changes_neither_files_nor_exit_code(tmp_path, args, code, files):
    (tmp_path / "wrong.py").write_text(WRONG)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "minigrad", *args.split()],
        stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == code, done.stderr
    assert "Error" not in done.stderr
    assert {path.name for path in tmp_path.glob("out/*")} >= files


def test_json_is_one_document_and_nothing_else(run):
    document = strict(run("verify", "batch_norm", "--json", "--shape", "5,3").stdout)
    assert document["target"] == "batch_norm"
    assert document["device"] == "cpu"
    assert document["mode"] == "train"
    assert document["dtype"] == "float64"
    assert document["shape"] == [5, 3]
    assert document["ok"] is True
    pairs = {(row["input"], row["pair"]) for row in document["rows"]}
    ways = ("traced/analytic", "traced/numeric", "analytic/numeric")
    assert pairs == {(name, way) for name in ("x", "gamma", "beta") for way in ways}
    assert all(row["ok"] and row["error"] <= row["bound"] for row in document["rows"])


def strict(text):
    """``text`` parsed as strict JSON, which has no NaN and no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_stays_json_whatever_a_user_prints_and_returns(run, tmp_path, monkeypatch):
    (probe,) = [p for p in probes.batch_norm() if p[0] == "NC (1, 3) float64"]
    monkeypatch.setitem(targets.PROBES, "batch_norm", lambda: [probe])
    monkeypatch.setattr(sys, "path", [*sys.path])
    nan = "def nan(*a):\n    print('here')\n    return [b * np.nan for b in backward(*a)]"
    (tmp_path / "prints.py").write_text(f"{WRONG}\n\n{nan}")
    result = run("verify", "prints:forward,nan", "--json", cwd=tmp_path)
    document = strict(result.stdout)
    assert "here" in result.stderr
    assert [finding["got"] for finding in document["findings"]] == ["nan"] * 3


@pytest.mark.parametrize("deed", ["sys.stdout.close()", "sys.stdout = io.StringIO()"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_verdict_is_shown_whatever_a_user_does_to_stdout(product, deed, form):
    rude = f"import io, sys\nfrom product import *\n{deed}\n"
    (product / "rude.py").write_text(rude)
    target = "rude:forward,backward,inputs"
    command = [sys.executable, "-m", "minigrad", "verify", target, *form]
    result = subprocess.run(command, capture_output=True, text=True, cwd=product, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "PROVEN" in result.stdout


def test_the_exact_proof_is_json_too(run, monkeypatch):
    monkeypatch.setattr(cli, "prove_batch_norm", lambda n: Proof(n, n != 3, "x", ["sum: y = x"]))
    result = run("verify", "--exact", "--json")
    document = strict(result.stdout)
    assert [proof["n"] for proof in document["proofs"]] == [2, 3, 4]
    assert document["ok"] is False
    assert result.returncode == 1
    assert "N = 3: the derived gradient DIFFERS" in run("verify", "--exact").stdout


def test_the_exact_proof_is_text_without_commands_of_latex(run, monkeypatch):
    step = r"inv_std = sqrt(v_1): y = \sqrt{x} \quad\Rightarrow\quad \bar x = \bar y / (2 y)"
    proof = Proof(2, True, r"\frac{\bar{y}_{1} \left(x_{1} - x_{2}\right)}{R^{3}}", [step])
    monkeypatch.setattr(cli, "prove_batch_norm", lambda n: proof)
    result = run("verify", "--exact")
    shown = result.stdout
    assert result.returncode == run("verify", "--exact", "--json").returncode == 0
    assert "inv_std = sqrt(v_1): y = √x  ⇒  x\u0304 = y\u0304 / (2 y)" in shown
    assert "x\u0304₁ = (y\u0304₁ (x₁ - x₂))/R³" in shown


@pytest.mark.parametrize("name", ["batch_norm", "fused_group_norm"])
def test_the_text_on_an_op_breaks_between_words(run, monkeypatch, name):
    wide = run("ops", name).stdout
    monkeypatch.setenv("COLUMNS", "70")
    narrow = run("ops", name).stdout
    assert narrow.split() == wide.split()
    assert max(map(len, wide.splitlines())) > 80 and max(map(len, narrow.splitlines())) <= 70
    assert "\n    gamma, beta: (C,), aligned" in narrow  # the indentation stays


def test_json_records_the_options_that_were_used(run):
    document = strict(run("verify", "tanh", "--json", "--order", "1", "--dtype", "float32").stdout)
    assert document["dtype"] == "float32"
    assert not {"mode", "shape"} & document.keys()


def test_verify_all_checks_the_precision_asked_for(run, monkeypatch):
    monkeypatch.setattr(targets, "REGISTRY", {"tanh": mg.REGISTRY["tanh"]})
    for options in ([], ["--dtype", "float32"]):
        document = strict(run("verify", "all", "--order", "1", "--json", *options).stdout)
        found = {row["input"].split()[1] for row in document["rows"]}
        assert found == ({*options[1:]} or {"float64", "float32"})


@pytest.mark.parametrize(
    "options",
    [
        ["--shape", "4,3,5"],
        ["--shape", "2,3,4,4", "--dtype", "float32"],
        ["--shape", "2,2,2,2,2", "--mode", "eval"],
        ["--shape", "1,3"],
        ["--shape", "2,3", "--eps", "1e-12"],
        ["--shape", "2,8", "--eps", "1e-20"],
        ["--shape", "5,32", "--eps", "1e-20", "--dtype", "float32"],
        ["--shape", "6,3", "--gamma", "0", "--eps", "0.1"],
        ["--shape", "3,4,5", "--axes", "2"],
    ],
)
def test_every_listed_case_is_proven(run, options):
    result = run("verify", "batch_norm", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    shape = options[1].replace(",", ", ")
    heading = rf"pixels of the UCI digits as x \({shape}\) float\d\d, averaged over \(\d"
    assert re.match(heading, result.stdout)
    assert ("variance 0 in 3 of 3" in result.stdout) == (options[1] == "1,3")


def test_a_wrong_formula_is_the_odd_one_out():
    def wrong_vjp(xp, y_bar, x, gamma, beta, **params):
        x_bar, gamma_bar, beta_bar = mg.analytic.batch_norm_vjp(xp, y_bar, x, gamma, beta, **params)
        return x_bar * (1 + 1e-9), gamma_bar, beta_bar

    inputs = np.random.default_rng(0).normal(size=(5, 3)), np.ones(3), np.zeros(3)
    report = mg.verify.three_way(mg.batch_norm, wrong_vjp, inputs)
    assert not report.ok
    assert [finding.cause for finding in report.findings] == ["analytic"]
    with pytest.raises(mg.errors.VerificationError, match="analytic way is the odd one out"):
        report.raise_if_failed()


def test_a_wrong_backward_pass_fails_from_the_shell(run, tmp_path, monkeypatch):
    points = [p for p in probes.batch_norm() if p[0] in ("NC (5, 3) float64", "NC (5, 3) float32")]
    monkeypatch.setitem(targets.PROBES, "batch_norm", lambda: points)
    (tmp_path / "mine.py").write_text(WRONG)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for target in ("mine:forward,backward", "mine:make", "./mine.py:forward,backward"):
        result = run("verify", target, cwd=tmp_path)
        assert result.returncode == 1
        assert "missing variance path" in " ".join(result.stdout.split())


PRODUCT = """
import numpy as np

def forward(x, w):
    return x * w, (x, w)

def backward(y_bar, cache):
    return y_bar * cache[1], y_bar * cache[0]

def wrong(y_bar, cache):
    return y_bar * cache[1], 2 * y_bar * cache[0]

class layer:
    forward, backward = staticmethod(forward), staticmethod(backward)

def inputs():
    return np.array([0.5, -1.0, 2.0]), np.array([2.0, 3.0, 1.0])

arrays = list(inputs())
whole = np.arange(3)

def fails(*inputs, **params):
    raise ValueError("no inputs today")

def forgets():
    inputs()
"""


@pytest.fixture
def product(tmp_path, monkeypatch):
    """The folder of a module ``product`` that is not imported yet."""
    (tmp_path / "product.py").write_text(PRODUCT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "product", raising=False)
    return tmp_path


@pytest.mark.parametrize("place", ["../product.py", "{folder}/product.py"])
def test_the_file_of_a_pair_may_be_in_another_folder(run, product, place):
    (product / "here").mkdir()
    target = f"{place.format(folder=product)}:forward,backward,inputs"
    assert run("verify", target, cwd=product / "here").returncode == 0


@pytest.mark.parametrize("given", ["inputs", "arrays"])
def test_any_pair_is_checked_at_the_inputs_that_its_module_gives(run, product, given):
    for pair in "forward,backward", "layer.forward,layer.backward":
        right = run("verify", f"product:{pair},{given}", cwd=product)
        assert right.returncode == 0 and "PROVEN" in right.stdout
    target = f"product:forward,wrong,{given}"
    wrong = run("verify", target, "--json", "--dtype", "float32", cwd=product)
    document = strict(wrong.stdout)
    assert wrong.returncode == 1 and document["title"] == target
    assert [finding["cause"] for finding in document["findings"]] == ["factor 2"]
    assert document["findings"][0]["bound"] > np.finfo("f4").eps / 8  # values near 1


@pytest.mark.parametrize(
    ("forward", "code", "stream"), [("forward", 2, "stderr"), ("fails", 1, "stdout")]
)
def test_the_points_of_a_pair_without_inputs_are_said_to_be_those_of_batch_norm(
    run, product, forward, code, stream
):
    result = run("verify", f"product:{forward},backward", cwd=product)
    assert result.returncode == code
    said = " ".join(getattr(result, stream).split())
    assert "those of a batch norm" in said and "MODULE:forward,backward,inputs" in said


def test_one_op_is_proven(run):
    result = run("verify", "tanh")
    assert result.returncode == 0
    assert "order 2" in result.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["verify", "nonsense"], "nonsense"),
        (["verify", "batch_norm", "--shape", "4"], "at least two"),
        (["verify", "batch_norm", "--shape", "a,b"], "--shape"),
        (["verify", "batch_norm", "--axes", "7"], "axes"),
        (["verify", "--gamma", "nan"], "finite gamma"),
        (["verify", "--gamma", "1e200", "--dtype", "float32"], "finite gamma in float32"),
        (["verify", "--eps", "inf"], "finite eps"),
        (["verify", "--eps", "1e39", "--dtype", "float32"], "finite eps of at least 0 in float32"),
        (["verify", "--eps", "1e-46", "--dtype", "float32"], "constant channels"),
        (["verify", "--eps", "1e-25"], "an eps of 1e-20 or more"),
        (["verify", "--eps", "0"], "constant channels"),
        (["verify", "--shape", "64,256", "--axes", "0,1", "--dtype", "float32"], "276,824,064"),
        (["verify", "no_such_module:make"], "no_such_module"),
        (["verify", "exits:forward,backward"], "SystemExit"),
        (["verify", "skips:forward,backward"], "Skipped: no GPU"),
        (["verify", "broken:make"], "SyntaxError"),
        (["verify", ":make"], "Empty module name"),
        (["verify", "builtins:len"], "TypeError"),
        (["verify", "builtins:exit"], "SystemExit"),
        (["verify", "builtins:dict"], "{}"),
        (["verify", "--axes", "0,0", "--shape", "4,3"], "distinct axes within the shape"),
        (["verify", "--axes=-1,1", "--shape", "4,3"], "distinct axes within the shape"),
        (["verify", "--device", "gpu", "--shape", "4,3"], "'gpu'"),
        (["verify", "exp", "--dtype", "float16"], "float64 or float32"),
        (["verify", "exp", "--mode", "foo"], "train or eval"),
        (["verify", "exp", "--shape", "3,4"], "got:      --shape"),
        (["verify", "all", "--seed", "3"], "got:      --seed"),
        (["verify", "builtins:f,g", "--eps", "0"], "got:      --eps"),
        (["verify", "product:forward,backward,whole"], "remedy:   x.astype(float)"),
        (["verify", "product:forward,backward,fails"], "ValueError: no inputs today"),
        (
            ["verify", "product:forward,backward,forgets"],
            "forgets\n  expected: an array, a tensor, or a sequence of one or more\n  got: ",
        ),
        (["verify", "product:forward,backward,nope"], "no attribute 'nope'"),
        (["verify", "product:forward,whole,inputs"], "expected: forward and backward"),
        (["verify", "product:a,b,c", "--probes", "batch_norm"], "got:      --probes"),
        (["verify", "--exact", "--eps", "0"], "got:      --eps"),
        (["verify", "--seed", "-1"], "--seed"),
        (["verify", "exp", "--order", "11"], "--order"),
        (["draw", "--seed", "-1"], "--seed"),
        (["demo", "3", "--seed", "-1"], "--seed"),
        (["draw", "-o", "no_folder/bn.dot"], "no_folder"),
        (["draw", "--shape", "300000000,300000000"], "Unable to allocate 639. PiB"),
        (["draw", "--shape", "3000000000,3000000000"], "fewer than 2**60 elements"),
        (["draw", "3", "--eps", "0"], "got:      --eps"),
        (["draw", "--shape", "3"], "batch_norm\n  expected: a shape of at least two"),
        (["step", "3", "--text"], "demo 03_standardization\n  expected: a demo that shows a graph"),
        (["draw", "--backward", "--device", "cpu"], "got:      --device"),
        (["step", "-o", "steps.svg"], "ends in .html"),
        (["step", "--text", "-o", "steps.html"], "got:      --output"),
        (["ops", "nonsense"], "nonsense"),
        (["verify", "--no-such-option"], "no-such-option"),
        (["train", "--seed", "-1"], "--seed"),
        (["train", "--epochs", "0"], "train: epochs"),
        (["train", "--epochs", "-1"], "train: epochs"),
        (["train", "--batch-size", "0"], "train: batch_size"),
        (["train", "--lr", "-0.1"], "train: lr"),
        (["train", "--lr", "nan"], "train: lr"),
        (["train", "--dtype", "foo"], "train: dtype"),
        (["train", "--dtype", "int32"], "train: dtype"),
        (["verify", "all", "--out", "/dev/null"], "verify all: --out\n  expected: a folder"),
        (["verify", "--json", "--out", "/dev/null/nope"], "verify batch_norm: --out"),
        (["train", "--out", "/dev/null"], "train: out"),
        (["train", "--out", "/dev/null/nope"], "train: out"),
    ],
)
@pytest.mark.usefixtures("product")
def test_bad_usage_exits_with_2_and_says_why(run, tmp_path, monkeypatch, args, words):
    (tmp_path / "exits.py").write_text("raise SystemExit(0)")
    skipped = "class Skipped(BaseException):\n    pass\n\n\nraise Skipped('no GPU')"  # as pytest's
    (tmp_path / "skips.py").write_text(skipped)
    (tmp_path / "broken.py").write_text("def make(:")
    monkeypatch.setattr(sys, "path", [*sys.path])
    result = run(*args, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_with_a_dot_in_its_name_is_refused_and_a_folder_with_one_is_not(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "v1.2").mkdir()
    for name in ("v1.2/versioned.py", "my.model.py"):
        (tmp_path / name).write_text(PRODUCT)
    assert run("verify", "v1.2/versioned.py:forward,backward,inputs", cwd=tmp_path).returncode == 0
    result = run("verify", "my.model.py:forward,backward,inputs", cwd=tmp_path)
    assert result.returncode == 2
    assert "without a dot before that of .py\n  got:      my.model.py" in result.stderr


def test_an_error_of_the_code_to_check_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing.py").write_text(
        "import minigrad as mg\nmg.add([1.0, 2.0], [1.0, 2.0, 3.0])"
    )
    with pytest.raises(mg.errors.UsageError) as caught:
        targets.check_code("failing:forward,backward")
    *_, got = lines = str(caught.value).splitlines()
    assert len(lines) == 3 and got.startswith("  got:      ShapeError: add: operands could not be")


def test_out_keeps_the_report_of_what_has_no_picture(run, tmp_path):
    shown = run("verify", "exp", "--json", "--out", "new/out", cwd=tmp_path).stdout
    assert (tmp_path / "new" / "out" / "exp.json").read_text() == shown


@pytest.mark.usefixtures("product")
def test_the_report_is_where_out_said_even_if_checked_code_changes_the_folder(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "elsewhere").mkdir()
    code = "import os\n\nfrom product import *\n\nos.chdir('elsewhere')"
    (tmp_path / "moves.py").write_text(code)
    monkeypatch.chdir(tmp_path)  # restores the folder afterwards
    run("verify", "moves:forward,backward,inputs", "--out", "out", cwd=tmp_path)
    assert [path.name for path in tmp_path.rglob("*.json")] == [
        "moves_forward_backward_inputs.json"
    ]
    assert not any((tmp_path / "elsewhere").iterdir())


def test_only_the_points_of_a_dtype_or_a_layout_are_taken_if_one_is_given(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "refusing.py").write_text(
        "def forward(*a, **k): raise ValueError\nbackward = print"
    )

    def points(name="batch_norm", dtype=None):
        return targets.check_code("refusing:forward,backward", name, dtype=dtype).facts["probes"]

    assert 0 < points(dtype="float32") < points(dtype="float64")
    assert points(dtype="float32") + points(dtype="float64") == points()
    assert 0 < points("batch_norm:NCHW") < points("batch_norm:NC")
    assert points("batch_norm:NC") + points("batch_norm:NCHW") == points()


def test_ops_lists_all_and_shows_one(run):
    listed = run("ops").stdout
    assert all(name[:8] in listed for name in mg.REGISTRY)
    assert "x\u0304 = y\u0304 [x > 0]" in listed
    shown = run("ops", "relu").stdout
    assert shown.startswith("relu(x)\n\nformula:") and "\n\n\n" not in shown
    assert "kinks:      0.0" in shown
    assert "checked on: x in [-3, 3]" in shown and "signature:  elementwise" in shown
    tanh = run("ops", "tanh").stdout
    assert "x\u0304 = 4 y\u0304 σ(2x) σ(-2x)" in tanh and "where:      σ(x) = 1/(1 + e⁻ˣ)" in tanh
    assert "where:" not in run("ops", "sigmoid").stdout  # its formula says so itself
    assert "source:     Ba, Kiros, Hinton 2016" in run("ops", "layer_norm").stdout
    assert "pullback:   (composed)" in run("ops", "softmax").stdout
    assert "\\bar" not in listed + tanh
    documented = run("ops", "max").stdout
    assert "Largest element over axis." in documented
    assert all(line == line.rstrip() for line in documented.splitlines())


def test_info_tells_the_versions_and_why_there_is_no_gpu(run):
    found = json.loads(run("info", "--json").stdout)
    assert found["minigrad"] == mg.__version__
    assert found["cuda"] and not found["cuda"].startswith("cuda")
    assert (found["cuda"] == "available") == (not mg.backend.unavailable("cuda"))
    assert ("not installed" in found["numba"]) == (not has_numba())
    assert run("--version") == (0, f"minigrad {mg.__version__}\n", "")


@pytest.mark.parametrize("args", ["ops", "verify nope", "train --help"])
def test_a_console_that_says_it_has_no_columns_is_written_to(tmp_path, args):
    command = [sys.executable, "-m", "minigrad", *args.split()]
    done = subprocess.run(
        command, capture_output=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "0"}, check=False
    )
    assert (done.stdout + done.stderr).strip()


def test_info_tells_the_renderers_or_how_to_get_one(run, monkeypatch):
    found = [("dot", lambda: True, lambda dot, form: b"<svg"), ("other", lambda: False, None)]
    for here, words in ((found, "renderers: dot\n"), (found[1:], "none; pip install")):
        monkeypatch.setattr(render, "_RENDERERS", here)
        assert words in run("info").stdout


@pytest.mark.parametrize("target", ["batch_norm", "product:forward,backward,inputs"])
def test_a_device_that_is_not_there_is_one_clear_error(run, product, target):
    if not mg.backend.unavailable("cuda"):
        pytest.skip("a GPU is there")
    result = run("verify", target, "--device", "cuda", cwd=product)
    assert result.returncode == 2
    assert "cuda" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("module", "args"),
    [
        ("sympy", "verify --exact"),
        ("safetensors.numpy", "train mlp-bn --epochs 1 --out out"),
        ("matplotlib", "demo 3 --fast"),
        ("cupy", "verify --device cuda"),
        ("cupy", "train --device cuda"),
    ],
)
def test_a_package_that_is_not_there_is_no_failed_check(run, monkeypatch, tmp_path, module, args):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "cupy" and not mg.backend.unavailable("cuda"):
        pytest.skip("it is found already")
    result = run(*args.split(), cwd=tmp_path)
    assert result.returncode == 2
    assert "pip install" in result.stderr


def test_a_fault_of_minigrad_is_no_failed_check(run, monkeypatch):
    monkeypatch.setattr(cli, "check_op", lambda *args, **options: [][0])
    result = run("verify", "tanh")
    assert result.returncode == 3
    assert "IndexError" in result.stderr


def test_an_error_without_words_is_shown_by_its_type(run, monkeypatch):
    def exhaust(*args, **words):
        raise MemoryError

    monkeypatch.setattr(mg.train, "train", exhaust)
    assert run("train") == (2, "", "MemoryError\n")


def test_an_error_is_shown_with_the_layers_and_the_batch_it_comes_from(run, monkeypatch):
    def diverge(*args, **words):
        error = mg.errors.AnomalyError("linear: produced inf in 2 of 4 elements")
        error.add_note("in Linear 1")
        error.add_note("in training: epoch 1, batch 2")
        raise error

    monkeypatch.setattr(mg.train, "train", diverge)
    result = run("train")
    assert result.returncode == 1
    assert result.stderr.endswith("elements\nin Linear 1\nin training: epoch 1, batch 2\n")


@pytest.mark.usefixtures("renderer")
def test_step_writes_a_page_and_prints_the_same_steps(run, tmp_path):
    result = run("step", "-o", "bn.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "bn.html").read_bytes()) < 100_000
    text = run("step", "--text").stdout
    assert "step 1 of 26" in text
    assert "step 26 of 26" in text


@pytest.mark.usefixtures("renderer")
def test_without_an_output_the_file_is_named_after_its_content(run, tmp_path):
    for command, name in (("draw", "batch_norm.svg"), ("step", "batch_norm.html")):
        assert run(command, "--shape", "2,1", cwd=tmp_path).stdout == f"wrote {name}\n"
        assert (tmp_path / name).stat().st_size


def test_draw_shows_the_forward_graph_or_the_derived_backward_one(run, tmp_path):
    assert run("draw", "-o", "bn.dot", cwd=tmp_path).returncode == 0
    assert run("draw", "-o", "backward.dot", "--backward", cwd=tmp_path).returncode == 0
    assert run("draw", "-o", "folded.dot", "--depth", "0", cwd=tmp_path).returncode == 0
    assert "x_hat" in (tmp_path / "bn.dot").read_text()
    assert "x_hat" not in (tmp_path / "folded.dot").read_text()
    assert "∇" in (tmp_path / "backward.dot").read_text(encoding="utf-8")


def test_a_file_name_that_no_encoding_knows_is_no_failure(run, tmp_path, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert run("draw", "-o", "\udcfc.dot", cwd=tmp_path).returncode == 0
    output.flush()
    assert output.buffer.getvalue() == b"wrote \\udcfc.dot\n"


def test_train_says_how_it_goes(run):
    result = run("train", "mlp-bn", "--epochs", "1")
    assert result.returncode == 0, result.stderr
    assert "test acc" in result.stdout
    assert run("train", "no-such-model").returncode == 2
