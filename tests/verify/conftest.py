"""A fixture that several tests of the checker share."""

import importlib

import pytest


@pytest.fixture
def briefly(monkeypatch):
    """Campaigns make 20 identical calls instead of 1,500: no rare fault is looked for."""
    module = importlib.import_module("minigrad.verify.campaign")  # the attribute is the function
    monkeypatch.setattr(module, "_SOAK", 20)
