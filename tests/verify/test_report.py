"""A report as text, data and HTML."""

import io
import json
import re
import sys
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

import minigrad as mg
from minigrad.verify import (
    check_backward,
)
from verify import corpus
from verify.pairs import EPS, INPUTS, checked, squared


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("300", 100), ("", 100)])
def test_a_report_is_as_wide_as_the_terminal_and_at_most_100(monkeypatch, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())  # no terminal
    finding = mg.verify.report.Finding("value", message="word " * 80)
    lines = str(mg.verify.report.Report("wide", findings=[finding])).splitlines()
    assert widest - 5 < max(len(line.rstrip()) for line in lines) <= widest


def test_a_report_is_text_data_and_html():
    report = checked("no variance path")
    assert "WRONG" in str(report) == repr(report)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (document["title"], document["verdict"]) == ("check_backward", "WRONG")
    assert document["ok"] is False
    assert report._repr_html_().startswith("<pre ")
    right = check_backward(*corpus.RIGHT["closed form"](), INPUTS, params=EPS)
    assert right.ok
    assert "PROVEN" in str(right)
    assert right.raise_if_failed() is right
    forward, backward = corpus.RIGHT["closed form"]()
    nan = lambda *a: [bar * np.nan for bar in backward(*a)]  # noqa: E731
    document = check_backward(forward, nan, INPUTS, params=EPS).to_dict()
    assert [finding["got"] for finding in document["findings"]] == ["nan"] * 3
    assert json.dumps(document, allow_nan=False)


def test_the_text_of_a_report_is_the_same_in_a_notebook_and_takes_names_as_they_are(monkeypatch):
    report = check_backward(squared, lambda y_bar, slope: (y_bar,), INPUTS[:1], names=["w[b]:up:"])
    text = str(report)
    assert "│ w[b]:up: │" in text
    assert "✗ w[b]:up:_bar" in text
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(report) == text


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_the_text_of_a_report_has_the_characters_of_the_terminal(monkeypatch, encoding):
    forward, backward = corpus.WRONG["no variance path"][0]()
    report = check_backward(forward, backward, INPUTS, params=EPS)
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        print(report)


@pytest.mark.parametrize("width", [60, 66, 72, 100])
def test_no_cell_of_a_report_is_broken_at_60_columns_or_more(width):
    report = checked("no variance path")
    text = StringIO()
    Console(file=text, width=width).print(report)
    for row in report.rows:
        for cell in (row.pair, f"{row.error:.2e}", f"{row.bound:.2e}"):
            assert re.search(rf"│ ?{re.escape(cell)} *│", text.getvalue())


def test_on_a_narrow_terminal_a_report_is_folded_and_nothing_of_it_cut():
    text = StringIO()
    Console(file=text, width=40).print(checked("no variance path"))
    assert "…" not in text.getvalue()
