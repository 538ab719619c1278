"""Profiles of hypothesis, and fixtures that keep the tests apart from each other."""

import gc
import io
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minigrad as mg
from minigrad.context import CURRENT
from minigrad.viz.render import renderers

HERE = Path(__file__).parent
# One thread: there are as many processes as cores, and a product always sums in the same order.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the processes that pytest-xdist starts
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads of numba must not spin
os.environ["COLUMNS"] = "100"  # output must not depend on the terminal
sys.path[:0] = [str(HERE), str(HERE / "fused" / "cuda")]  # helpers: taylor, standin; shim, nvrtc

import accelerator  # noqa: E402
import shim  # noqa: E402

_COMMON = {
    "deadline": None,  # a shared machine pauses at random
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("dev", max_examples=3, **_COMMON)
settings.register_profile("ci", max_examples=8, derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=200, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser):
    parser.addoption("--device", dest="minigrad_device", default="cpu", help="cpu or cuda")


def pytest_configure(config):
    accelerator.use_real(config.getoption("--device") != "cpu")


def pytest_collection_finish():
    gc.freeze()  # modules and tests live to the end: collections need not walk them again


@pytest.fixture
def gpu():
    """A GPU's array library: CuPy with ``--device cuda``, else a stand-in (see ``accelerator``)."""
    with accelerator.chosen() as library:
        yield library


@pytest.fixture
def kernels(gpu):
    """``gpu`` with the package's CUDA kernels, which g++ compiles for the stand-in."""
    if not gpu.is_real and shim.unavailable():
        pytest.skip(f"CUDA kernels on the CPU: {shim.unavailable()}")
    with accelerator.kernels(gpu):
        yield gpu


@pytest.fixture(scope="session")
def renderer():
    """Skips a test that draws if Graphviz is not installed."""
    if not renderers():
        pytest.skip("drawing needs `dot` or pygraphviz")


def _global_state() -> dict:
    context = CURRENT.get()
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002, the state to protect
    return {
        "recording": context.recording,
        "scope": context.scope,
        "observer": context.observer,
        "errstate": np.geterr(),
        "numpy.random": (kind, keys.tobytes(), *rest),
        "registry": [
            n for n, op in mg.REGISTRY.items() if not op.__module__.startswith("minigrad.")
        ],
        "gc": gc.isenabled(),
    }


@pytest.fixture(autouse=True)
def _no_global_state_leaks():
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed global state: {', '.join(changed)}"


@pytest.fixture
def declared():
    """Removes the ops that a test declares from the registry when it ends."""
    known = dict(mg.REGISTRY)
    yield
    for name in [name for name in mg.REGISTRY if name not in known]:
        del mg.REGISTRY[name]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Run ``minigrad`` in this process, in another folder if asked."""
    from minigrad import cli  # imported here: it takes half a second

    def command(*args, cwd=None, typed=""):
        if cwd is not None:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["minigrad", *args])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Result(caught.value.code or 0, *capsys.readouterr())

    return command


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture
def no_gc():
    """The cycle collector stays off, so that only reference counting can free a graph."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()
