"""A pytest plugin: the fixtures ``gradcheck`` and ``device``; the option ``--minigrad-device``.

Installed as the separate module ``pytest_minigrad``: every pytest run in an environment with
minigrad loads it, and as a part of the package it would load the engine and NumPy, too.
"""

import importlib
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minigrad")
    # with a prefix, because many projects have a --device of their own
    text = "device to check gradients on: cpu or cuda"
    group.addoption("--minigrad-device", default="cpu", type=_device_name, help=text)


def _device_name(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ArgumentTypeError(f"expected cpu, cuda or cuda:<n>, got {text!r}")
    return text


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device that ``--minigrad-device`` names; the test is skipped if it is not available."""
    name = str(request.config.getoption("--minigrad-device"))
    reason = importlib.import_module("minigrad.backend").unavailable(name)
    if reason:
        pytest.skip(f"{name}: {reason}")
    return name


@pytest.fixture
def gradcheck() -> Callable[..., Any]:
    """``minigrad.verify.assert_gradients``: fails the test with a readable report."""
    return importlib.import_module("minigrad.verify").assert_gradients  # loaded only if used
