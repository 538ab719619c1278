"""Fixtures that several tests of the checker share."""

import importlib

import pytest


@pytest.fixture
def briefly(monkeypatch):
    """A campaign makes 20 identical calls where it makes 1,500: ``test_corpus.py`` needs those."""
    monkeypatch.setattr(importlib.import_module("minigrad.verify.campaign"), "_SOAK", 20)
