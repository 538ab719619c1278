"""Every example in a docstring of the package runs and prints what it shows."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import minigrad as mg


def _examples():
    for info in pkgutil.walk_packages(mg.__path__, "minigrad."):
        module = importlib.import_module(info.name)
        for test in doctest.DocTestFinder().find(module, globs={"mg": mg, "np": np}):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("test", list(_examples()))
def test_example_prints_what_it_shows(test):
    report = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)
