"""``device="cuda"`` and ``--device cuda`` everywhere; on a stand-in without a GPU."""

import importlib

import numpy as np
import pytest
from typer.testing import CliRunner

import minigrad as mg
from minigrad import backend, errors, verify
from minigrad.cli import app
from minigrad.fused.cuda import PAIRS
from minigrad.verify import probes, targets
from minigrad.verify.device import pairs_elsewhere
from minigrad.verify.ops import check_op


def run(*words):
    return CliRunner().invoke(app, [*words, "--device", "cuda"])


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "batch_norm", "--shape", "8,4"),
        ("verify", "batch_norm", "--shape", "8,4", "--mode", "eval"),
        ("verify", "batch_norm", "--shape", "2,3,2,2", "--dtype", "float32", "--axes", "0"),
        ("verify", "softplus"),
        ("verify", "getitem", "--order", "1"),
        ("verify", "cross_entropy"),
    ],
    ids=" ".join,
)
def test_commands_compute_on_a_gpu(words, kernels):
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize("words", [("draw", "-o", "y.svg"), ("step", "-o", "y.html")])
def test_graphs_on_a_gpu_are_drawn(words, gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert (tmp_path / words[-1]).stat().st_size > 1000


@pytest.mark.parametrize("words", [("verify",), ("draw",), ("step",), ("train",)])
def test_without_a_gpu_commands_say_why(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reason = backend.unavailable("cuda")
    if not reason:
        pytest.skip("a GPU is here")
    result = run(*words)
    assert isinstance(result.exception, (errors.DeviceError, errors.UsageError))
    assert reason.split(": ")[1] in str(result.exception)


@pytest.mark.parametrize("name", ["tanh", "matmul", "max", "where", "astype"])
def test_ops_are_proven_on_a_gpu(name, gpu):
    report = check_op(name, order=2, device="cuda")
    assert report.ok, report


def test_float32_is_judged_on_a_gpu_without_long_double(gpu):
    report = check_op("softplus", order=2, dtype="float32", device="cuda")
    assert report.ok, report


def test_a_wrong_rule_is_found_on_a_gpu(gpu, declared):
    @mg.core.op.elementwise(formula="y = x^3", pullback="x_bar = 2 x^2 y_bar")
    def cube(xp, x):
        """A cube whose rule is wrong."""
        return x * x * x

    @cube.defpartials
    def dcube(y, x):
        return (2.0 * x * x,)

    assert not check_op("cube", device="cuda").ok


def pair():
    """Batch norm's CUDA kernels as a hand-written pair over plain arrays."""
    cuda = PAIRS["batch_norm"]

    def forward(x, gamma, beta, **params):
        return cuda.forward(backend.namespace(x), x, gamma, beta, **params)

    def backward(y_bar, cache):
        return cuda.backward(backend.namespace(y_bar), y_bar, cache)

    return forward, backward


def test_the_kernels_of_batch_norm_pass_the_campaign_of_probes(kernels, monkeypatch):
    """The checks of hand-written backwards (values, contracts, repetition), all on a GPU."""
    points = list(probes.batch_norm())
    if not kernels.is_real:  # launches on the stand-in are slow: small points, few repeats
        labels = "NC (5, 3) float32", "NC eps 0 float64", "NC offset 10000 float64"
        points = [p for p in points if p[0] in labels or p[0] == "NCHW (1, 2, 3, 2) float64"]
        monkeypatch.setattr(importlib.import_module("minigrad.verify.campaign"), "_SOAK", 5)
    assert len(points) >= 3
    assert all(PAIRS["batch_norm"].accepts(*inputs, **params) for _, inputs, params in points)
    report = verify.campaign(pairs_elsewhere(pair, "cuda"), points)
    assert report.ok, report


def test_code_named_on_the_command_line_gets_arrays_of_the_device(gpu):
    seen = []

    def make():
        def forward(x, gamma, beta, epsilon):
            seen.append(type(x))
            y = mg.analytic.batch_norm(gpu.xp, x, gamma, beta, eps=epsilon)
            return y, (x, gamma, beta, epsilon)

        def backward(y_bar, cache):
            *inputs, eps = cache
            return mg.analytic.batch_norm_vjp(gpu.xp, y_bar, *inputs, eps=eps)

        return forward, backward

    some = list(probes.batch_norm())[:3]
    assert verify.campaign(pairs_elsewhere(make, "cuda"), some).ok
    assert set(seen) == {gpu.xp.ndarray} and targets.check_code


def test_a_loader_moves_batches_to_its_device(gpu):
    data = mg.data.TensorDataset(np.arange(6.0).reshape(3, 2), np.arange(3))
    for x, labels in mg.data.DataLoader(data, 2, device="cuda"):
        assert backend.device_of(x) == backend.device_of(labels) == "cuda:0"
        net = mg.nn.Linear(2, 3, dtype="float64").to("cuda")
        assert np.isfinite(mg.nn.CrossEntropyLoss()(net(mg.tensor(x)), labels).item())
