"""What users' own tests are given."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given

import minigrad as mg
from minigrad import declaration
from minigrad.core.op import op


@given(mg.verify.calls("matmul"))
def test_a_strategy_draws_calls_that_fit_the_signature(call):
    assert mg.matmul(*call.inputs, **call.params).shape


def test_a_strategy_of_no_op_is_refused_as_a_check_of_it_is():
    for take in (mg.verify.calls, mg.verify.check_op):
        with pytest.raises(mg.errors.UsageError, match="no op 'nonsense'"):
            take("nonsense")
        with pytest.raises(mg.errors.UsageError, match="did you mean batch_norm or"):
            take("BatchNorm2d")


@pytest.mark.parametrize("signature", ["", "(i,j)->(j,i)"])
def test_an_op_whose_declaration_gives_no_shapes_is_told_what_to_declare(monkeypatch, signature):
    monkeypatch.setattr(declaration, "REGISTRY", {})
    fields = {"formula": "y = x^T", "pullback": r"\bar x = \bar y^T", "linear": "jointly"}
    flipped = op(signature=signature, **fields)(lambda xp, x: xp.swapaxes(x, -1, -2))
    flipped.defvjp(lambda y_bar, y, x: (mg.swapaxes(y_bar, -1, -2),))
    with pytest.raises(mg.errors.UsageError, match=r"cases=\(Case"):
        mg.verify.check_op(flipped)
    flipped.cases = (declaration.Case(shapes=((2, 3),)),)
    assert mg.verify.check_op(flipped).ok


def test_the_fixture_passes_a_right_function(gradcheck):
    gradcheck(lambda x: mg.sin(x) * x, [np.array([0.1, 2.0])], order=2)


def test_the_assertion_calls_inputs_as_asked():
    report = mg.verify.assert_gradients(lambda *xs: xs[0] * xs[1], [0.5, 2.0], names=["p", "q"])
    assert {row.input for row in report.rows} == {"p", "q"}


def test_the_assertion_fails_with_the_report(monkeypatch):
    monkeypatch.setattr(mg.ops.sin, "partials", lambda y, x: (-mg.cos(x),))
    with pytest.raises(AssertionError, match="vjp/numeric"):
        mg.verify.assert_gradients(mg.sin, [np.array([0.1, 2.0])])


def test_pytest_shows_the_line_of_the_users_test_and_no_code_of_the_checker(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import minigrad as mg\n"
        "def test_fixture(gradcheck):\n"
        "    gradcheck(lambda x: 0 * x, [[1.0, 2.0]])\n"
        "def test_report():\n"
        "    mg.verify.gradcheck(lambda x: 0 * x, [[1.0, 2.0]]).raise_if_failed()\n"
    )
    plugin = ["-p", "no:minigrad", "-p", "minigrad.pytest_plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugin, tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "2 failed" in run.stdout
    failures = run.stdout.split("= short test summary info =")[0]  # where CI is set, both repeat
    assert failures.count(">  ") == 2 and failures.count("┏") == 2  # one line, one table each


def test_the_device_fixture_gives_what_the_option_names(device, pytestconfig):
    assert device == pytestconfig.getoption("--device")  # the CPU by default


def test_a_device_that_cannot_exist_is_an_error_and_no_reason_to_skip(tmp_path):
    (tmp_path / "test_mine.py").write_text("def test_mine(device):\n    pass\n")
    plugin = [
        "-p",
        "no:minigrad",
        "-p",
        "minigrad.pytest_plugin",
    ]  # the file here, installed or not
    for name, code, said in (("cpu", 0, "1 passed"), ("cdua", 4, "cuda:<n>, got 'cdua'")):
        command = [sys.executable, "-m", "pytest", *plugin, "--minigrad-device", name]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert result.returncode == code, result.stdout
        assert said in result.stdout + result.stderr


def test_a_check_of_a_graph_names_the_first_wrong_op_and_its_line(monkeypatch):
    monkeypatch.setattr(mg.ops.sin, "partials", lambda y, x: (mg.cos(x) * 1.001,))
    with mg.anomaly_mode():
        x = mg.tensor([0.3, 0.8], requires_grad=True, name="x")
        y = mg.exp(mg.sin(x) * 2.0)
    report = mg.verify.check_graph(y)
    assert not report.ok
    assert report.findings[0].cause == "sin"
    assert "test_testing.py:" in report.findings[0].message
    assert {finding.cause for finding in report.findings} == {"sin"}


def test_a_check_of_a_graph_tells_equal_numbers_of_another_shape_apart(monkeypatch):
    def partials(y, x):
        return (mg.cos(x) * (1.001 if x.shape == (2, 1) else 1),)

    monkeypatch.setattr(mg.ops.sin, "partials", partials)
    x = mg.tensor([0.3, 0.8], requires_grad=True)
    assert not mg.verify.check_graph(mg.sum(mg.sin(x)) + mg.sum(mg.sin(x.reshape(2, 1)))).ok


def test_an_op_that_has_no_value_at_its_point_is_not_blamed():
    with np.errstate(all="ignore"):
        y = mg.sum(mg.sin(mg.log(mg.tensor([0.3, -0.8], requires_grad=True))))
        steep = mg.sqrt(mg.tensor([0.0, 1.0], requires_grad=True))
        reports = [mg.verify.check_graph(result) for result in (y, steep)]
    assert [report.verdict for report in reports] == ["VACUOUS", "VACUOUS"]
    said = [
        (note.cause, note.message.partition(": ")[2][:6])
        for report in reports
        for note in report.notes
    ]
    assert said == [("log", "its ou"), ("sin", "its in"), ("sum", "its in"), ("sqrt", "the fu")]


def test_a_check_of_a_graph_needs_one():
    with pytest.raises(mg.errors.GraphError, match="recorded"):
        mg.verify.check_graph(mg.tensor([1.0]))
    with pytest.raises(mg.errors.GraphError, match=r"got: +3\.0"):
        mg.verify.check_graph(3.0)
