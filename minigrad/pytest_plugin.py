"""A pytest plugin: the fixtures ``gradcheck`` and ``device``, and the option ``--device``."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from minigrad import backend


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minigrad")
    group.addoption("--device", default="cpu", help="where gradients are checked: cpu, cuda")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device named by ``--device``; the test is skipped, with the reason, where it is not."""
    name = str(request.config.getoption("--device"))
    reason = backend.unavailable(name)
    if reason:
        pytest.skip(f"{name}: {reason}")
    return name


@pytest.fixture
def gradcheck() -> Callable[..., Any]:
    """``minigrad.verify.assert_gradients``: fails the test with a readable report."""
    return importlib.import_module("minigrad.verify").assert_gradients  # only where it is used
