"""A pytest plugin: the fixtures ``gradcheck`` and ``device``; the option ``--minigrad-device``.

Installed as the module ``pytest_minigrad``: every pytest where minigrad is installed loads it, and
inside the package it would load the engine and NumPy, too.
"""

import importlib
from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minigrad")
    # a name of its own: many a project that has minigrad installed has a --device, too
    what = "where gradients are checked: cpu, cuda"
    group.addoption("--minigrad-device", default="cpu", help=what)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device that ``--minigrad-device`` names; where it is not, the test is skipped."""
    name = str(request.config.getoption("--minigrad-device"))
    reason = importlib.import_module("minigrad.backend").unavailable(name)
    if reason:
        pytest.skip(f"{name}: {reason}")
    return name


@pytest.fixture
def gradcheck() -> Callable[..., Any]:
    """``minigrad.verify.assert_gradients``: fails the test with a readable report."""
    return importlib.import_module("minigrad.verify").assert_gradients  # only where it is used
