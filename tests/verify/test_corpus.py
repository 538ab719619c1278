"""The checker reports every wrong backward of the corpus, and no right one."""

import importlib
import os

import numpy as np
import pytest

from minigrad.verify import campaign, check_backward, probes
from minigrad.verify.subject import default_names
from verify import corpus, others

POINTS = list(probes.batch_norm())
# enough points to show every fault of the corpus; all of them with HYPOTHESIS_PROFILE=thorough
_SHAPES = ["(5, 3)", "(1, 3)", "(2, 3)", "(3, 3)", "(4, 2)", "(2, 3, 4, 4)", "(1, 2, 3, 2)"]
_NAMED = [
    "NC (33, 17) float64",
    "NC (5, 3) float32",
    "NC eps 0 small float64",
    "NC eps 0.5 float64",
    "NC offset 10000 float32",
    "NC constant channel float64",
    "NC constant channel float32",
    "NC gamma 0 float64",
    "NC gamma negative float64",
    "NC Fortran order float64",
    "NCHW (2, 2, 2, 3) float64",
    "NCHW (2, 1, 12, 24) float64",
]
LABELS = {f"{'NCHW' if s.count(',') == 3 else 'NC'} {s} float64" for s in _SHAPES} | set(_NAMED)
SOME = [probe for probe in POINTS if probe[0] in LABELS]
STAGES = 2, 6, len(SOME)  # points; a fault that the first do not show is looked for at more
PARTS = 9  # a right backward is held against each ninth point, the next one against the next
if os.environ.get("HYPOTHESIS_PROFILE") == "thorough":
    SOME, STAGES, PARTS = POINTS, (len(POINTS),), 1


def briefly(make, points):
    """The campaign with 20 identical calls at its first point, where it makes 1,500 by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("minigrad.verify.campaign"), "_SOAK", 20)
        return campaign(make, points)


def test_the_corpus_is_large_enough():
    broken = len(others.BREAK) * sum(len(make()[2]) for make in others.RIGHT.values())
    assert len(SOME) >= len(LABELS)
    assert len(corpus.WRONG) + broken >= 80
    assert len(corpus.RIGHT) * 2 + len(others.RIGHT) >= 30  # each in two layouts


@pytest.mark.parametrize("layout", ["NC", "NCHW"])
@pytest.mark.parametrize("name", corpus.RIGHT)
def test_a_right_backward_is_not_accused(name, layout):
    points = list(probes.batch_norm(layouts=(layout,)))
    report = briefly(corpus.RIGHT[name], points[list(corpus.RIGHT).index(name) % PARTS :: PARTS])
    assert report.ok, str(report)
    assert [row.verdict for row in report.rows] == ["proven"] * 3


@pytest.mark.parametrize("name", corpus.WRONG)
def test_a_wrong_backward_is_reported_with_its_input_and_cause(name):
    make, inputs, cause = corpus.WRONG[name]
    for stage in STAGES:
        report = (campaign if stage == len(SOME) else briefly)(make, SOME[:stage])
        if not report.ok and any(cause in finding.cause for finding in report.findings):
            break
    assert not report.ok
    assert report.findings
    named = {finding.input for finding in report.findings if finding.input}
    assert not inputs or (named and named <= inputs), str(report)
    assert any(cause in finding.cause for finding in report.findings), str(report)


def point(shapes, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("name", others.RIGHT)
def test_right_backwards_of_other_functions_are_not_accused(name):
    forward, backward, shapes = others.RIGHT[name]()
    for dtype in (np.float64, np.float32):
        inputs = [x.astype(dtype) for x in point(shapes)]
        report = check_backward(forward, backward, inputs)
        assert report.ok, str(report)


@pytest.mark.parametrize("how", others.BREAK)
@pytest.mark.parametrize("name", others.RIGHT)
def test_wrong_backwards_of_other_functions_are_reported(name, how):
    for k, shape in enumerate(others.RIGHT[name]()[2]):
        if how == "transposed" and (len(shape) < 2 or shape[0] != shape[1]):
            continue
        forward, backward, shapes = others.broken(name, k, how)
        report = check_backward(forward, backward, point(shapes))
        assert not report.ok
        wanted = report.findings[0]
        assert wanted.input == default_names(point(shapes), forward)[k]
        assert others.BREAK[how][1] in wanted.cause, str(report)


@pytest.mark.parametrize("name", others.MIXUPS)
def test_what_is_mixed_up_is_named(name):
    forward, backward, shapes, k, words = others.MIXUPS[name]
    names = [f"input {i}" for i in range(len(shapes))]
    report = check_backward(forward, backward, point(shapes), names=names)
    wrong = [finding for finding in report.findings if finding.input == names[k]]
    assert words in wrong[0].cause, str(report)
