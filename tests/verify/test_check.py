"""What a check says, what it leaves alone, and what makes the checker itself fail."""

import importlib
import io
import json
import sys
from functools import partial
from io import StringIO

import numpy as np
import pytest
from hypothesis import strategies as st
from rich.console import Console

import minigrad as mg
from minigrad.verify import (
    campaign,
    check,
    check_backward,
    contract,
    diagnose,
    gradcheck,
    numeric,
    probes,
    reference,
    rounding,
)
from minigrad.verify.kinks import Kinks
from verify import corpus, others

INPUTS = np.random.default_rng(1).normal(size=(5, 3)), np.ones(3), np.zeros(3)
EPS = {"eps": 1e-5}


def test_an_output_whose_shape_changes_nearby_is_named():
    def cut(x):
        return x[: int(x[0])] * 2, x

    def cut_back(y_bar, x):
        return (np.pad(2 * y_bar, (0, len(x) - len(y_bar))),)

    def positive(x):
        return x[x > 0], x > 0

    def positive_back(y_bar, mask):
        x_bar = np.zeros(mask.shape)
        x_bar[mask] = y_bar
        return (x_bar,)

    point = np.array([[0.001, 1.0], [1.0, -1.0]])
    for pair in (cut, cut_back, np.array([1.99, 1.0, 5.0])), (positive, positive_back, point):
        report = check_backward(*pair)
        assert report.verdict == "VACUOUS"
        assert "y has shape" in report.notes[0].message and "nearby" in report.notes[0].message
    with pytest.raises(mg.errors.ShapeError, match="nearby"):
        gradcheck(lambda x: x[x.numpy() > 0], point)


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("300", 100), ("", 100)])
def test_a_report_is_as_wide_as_the_terminal_and_at_most_100(monkeypatch, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())  # no terminal
    finding = mg.verify.report.Finding("value", message="word " * 80)
    lines = str(mg.verify.report.Report("wide", findings=[finding])).splitlines()
    assert widest - 5 < max(len(line.rstrip()) for line in lines) <= widest


@pytest.fixture
def briefly(monkeypatch):
    """A campaign makes 20 identical calls where it makes 1,500: ``test_corpus.py`` needs those."""
    monkeypatch.setattr(importlib.import_module("minigrad.verify.campaign"), "_SOAK", 20)


def checked(name, **options):
    return check_backward(*corpus.WRONG[name][0](), INPUTS, params=EPS, **options)


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("alone", [np.array([0.5, -1.5, 2.0]), mg.tensor([[0.5, 2.0]]), 0.5])
def test_an_array_a_tensor_or_a_number_is_one_input(alone):
    def pull(xp, y_bar, x):
        return (y_bar * xp.exp(x),)

    def forward(x):
        return np.exp(x), x

    def backward(y_bar, x):
        return pull(np, y_bar, x)

    reports = [
        gradcheck(mg.exp, alone, order=2),
        check_backward(forward, backward, alone),
        mg.verify.three_way(lambda x: mg.exp(x) if hasattr(x, "node") else np.exp(x), pull, alone),
        campaign(lambda: (forward, backward), [("alone", alone, {})]),
    ]
    for report in reports:
        assert report.ok and report.rows, str(report)
    wrong = campaign(lambda: (forward, lambda y_bar, x: (2 * y_bar,)), [("alone", alone, {})])
    assert [finding.kind for finding in wrong.findings] == ["value"]


def test_a_finding_names_input_index_numbers_and_cause():
    report = checked("no variance path")
    (finding,) = report.findings
    assert (finding.kind, finding.input, finding.cause) == ("value", "x", "missing variance path")
    assert abs(finding.expected - finding.got) > finding.bound > 0
    assert len(finding.index) == 2
    for word in ("x_bar", f"{finding.got:.9g}", f"{finding.expected:.9g}", "missing variance path"):
        assert word in finding.message
    with pytest.raises(mg.errors.VerificationError, match="missing variance path"):
        report.raise_if_failed()


def test_a_report_is_text_data_and_html():
    report = checked("no variance path")
    assert "WRONG" in str(report) == repr(report)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (document["title"], document["verdict"]) == ("check_backward", "WRONG")
    assert document["ok"] is False
    assert report._repr_html_().startswith("<pre>")
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


def test_on_a_narrow_terminal_a_report_is_folded_and_nothing_of_it_cut():
    text = StringIO()
    Console(file=text, width=40).print(checked("no variance path"))
    assert "…" not in text.getvalue()


def test_a_function_that_ignores_its_input_is_vacuous_not_proven():
    report = check_backward(
        lambda x: (np.ones(3), x.shape), lambda dy, shape: (np.zeros(shape),), [np.ones((2, 2))]
    )
    assert not report.ok
    assert report.verdict == "VACUOUS"


def normalized(x):
    xc = x - x.mean(0)
    return xc / np.sqrt((xc * xc).mean(0) + 1e-5)


def test_where_every_cotangent_is_rounding_nothing_is_proven():
    zeros = lambda y_bar, x: (0 * x,)  # noqa: E731
    report = check_backward(lambda x: (normalized(x).sum(), x), zeros, INPUTS[:1])
    assert report.verdict == "VACUOUS", str(report)


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("ramp", [lambda xp, x: xp.maximum(x - 9, 0), lambda xp, x: 0 * x])
def test_where_every_cotangent_is_0_none_of_the_checks_proves_anything(ramp):
    f = lambda x: ramp(mg if hasattr(x, "node") else np, x)  # noqa: E731
    for report in (
        gradcheck(f, INPUTS[:1], order=2),
        mg.verify.three_way(f, lambda xp, y_bar, x: (0 * y_bar,), INPUTS[:1]),
        check_backward(lambda x: (f(x), x), lambda y_bar, x: (0 * y_bar,), INPUTS[:1]),
        campaign(lambda: (lambda x: (f(x), x), lambda y_bar, x: (0 * x,)), [("", INPUTS[:1], {})]),
    ):
        assert report.verdict == "VACUOUS", str(report)
        assert "every cotangent is 0 here" in str(report)


def test_one_cotangent_that_vanishes_beside_another_is_vacuous_alone():
    def forward(x, b):
        y = np.exp(x + b) / np.exp(x + b).sum(1, keepdims=True)
        return y, y.copy()

    def backward(y_bar, y):
        x_bar = y * (y_bar - (y_bar * y).sum(1, keepdims=True))
        return x_bar, x_bar.sum(1, keepdims=True)

    report = check_backward(forward, backward, [INPUTS[0], np.ones((5, 1))])
    assert report.ok
    assert [row.verdict for row in report.rows] == ["proven", "VACUOUS"]
    assert str(report).splitlines()[0] == "check_backward: PROVEN, but VACUOUS for b"
    f = lambda x, b: mg.softmax(x + b, axis=1)  # noqa: E731
    report = gradcheck(f, [INPUTS[0], np.ones((5, 1))])
    assert report.ok
    assert [row.verdict for row in report.rows] == ["proven", "proven", "VACUOUS", "VACUOUS"]


def test_a_refused_or_undefined_point_is_neither_right_nor_wrong():
    def refuses(x):
        raise ValueError("one value per channel")

    report = check_backward(refuses, lambda dy, cache: (dy,), [np.ones(3)])
    assert not report.findings
    assert [note.kind for note in report.notes] == ["refused"]
    constant = np.ones((4, 2)), np.ones(2), np.zeros(2)
    report = check_backward(*corpus.RIGHT["closed form"](), constant, params={"eps": 0.0})
    assert not report.findings
    assert [note.kind for note in report.notes] == ["undefined"]


@pytest.mark.parametrize(("slope", "ok"), [(0.0, True), (0.3, True), (1.0, True), (1.1, False)])
def test_at_a_kink_every_subgradient_is_accepted_and_no_other_slope(slope, ok):
    def forward(x):
        return np.maximum(x, 0), x

    def backward(dy, x):
        return (dy * np.where(x > 0, 1, np.where(x == 0, slope, 0)),)

    report = check_backward(forward, backward, [np.array([-1.0, 0.0, 2.0])])
    assert report.ok is ok, str(report)
    if ok and slope not in (0.0, 1.0):
        assert [note.kind for note in report.notes] == ["kink"]
    if not ok:
        assert report.findings[0].index == (1,)


def test_at_a_kink_nan_is_no_subgradient():
    backward = lambda dy, x: (dy * np.sign(x) + 0 / x,)  # noqa: E731
    report = check_backward(lambda x: (np.abs(x), x), backward, [np.array([-1.0, 0.0, 2.0])])
    (finding,) = report.findings
    assert (finding.kind, finding.index) == ("domain", (1,))
    assert "random y_bar" in finding.message
    assert not report.notes


@pytest.mark.parametrize("width", [1e-5, 1e-8, 1e-10])
def test_a_sharp_bend_is_no_kink(width):
    def forward(x):
        return np.sqrt(x * x + width**2), x

    report = check_backward(forward, lambda dy, x: (0.7 * dy,), [np.zeros(2)])
    assert [(finding.kind, finding.input) for finding in report.findings] == [("value", "x")]


@pytest.mark.parametrize(("dtype", "at"), [("f8", 0.0), ("f8", 1e4), ("f4", 1.0)])
def test_a_kink_is_one_wherever_it_lies_and_whatever_cancels_on_the_way(dtype, at):
    def forward(x):
        return np.maximum((x + x.dtype.type(100)) - x.dtype.type(100 + at), 0), x

    report = check_backward(
        forward, lambda dy, x: (dy * x.dtype.type(0.3),), [np.array([at], dtype)]
    )
    assert report.ok, str(report)
    assert [note.kind for note in report.notes] == ["kink"]


@pytest.mark.parametrize(("last", "slope", "kinks"), [(0.0, 0.3, 33), (1.0, 0.3, 0), (0.0, 1.1, 0)])
def test_as_many_kinks_as_there_are_elements_are_accepted_and_no_fault_among_them(
    last, slope, kinks
):
    x, y_bar = np.append(np.zeros(32), last), np.linspace(1.0, 2.0, 33)
    got, expected = slope * y_bar, y_bar * np.where(x > 0, 1.0, 0.5)
    at_point = Kinks(lambda x: np.maximum(x, 0), [x], np.zeros(33))
    accepted, found, _ = at_point.between_slopes(0, y_bar, got, expected, np.full(33, 1e-12))
    assert found == kinks
    assert (accepted == (got if kinks else expected)).all()


def test_one_sided_maxima_share_their_cotangent_any_way_that_sums_to_it():
    for share in ([0.5, 0.5, 0.0], [1.0, 0.0, 0.0]):
        report = check_backward(
            lambda x: (np.asarray(x.max()), x),
            lambda dy, x, share=share: (dy * np.array(share),),
            [np.array([3.0, 3.0, 1.0])],
        )
        assert not report.findings, str(report)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 1.2])
@pytest.mark.parametrize("seed", range(3))
def test_each_element_of_y_has_a_subgradient_of_its_own(seed, slope):
    def forward(x, w):
        return np.maximum(x @ w, 0), (x, w)

    def backward(dy, cache):
        x, w = cache
        a = x @ w
        a_bar = dy * np.where(a > 0, 1, np.where(a == 0, slope, 0))
        return a_bar @ w.T, x.T @ a_bar

    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(4, 3)), rng.normal(size=(3, 4))
    x[1] = 0  # as padding is
    for rows in (x, 0 * x):
        report = check_backward(forward, backward, [rows, w], rng=seed)
        assert report.ok == (slope <= 1), str(report)
    assert gradcheck(lambda x, w: mg.relu(x @ w), [x, w], rng=seed).ok


@pytest.mark.parametrize("x", [np.array([0.0, 0, 0, 0, 1]), np.maximum(INPUTS[0][:, 0], 0)])
@pytest.mark.parametrize(("lost", "ok"), [(0, True), (1, False)])
def test_overlapping_windows_of_zeros_choose_each_its_maximum(x, lost, ok):
    def forward(x):
        windows = np.lib.stride_tricks.sliding_window_view(x, 2)
        return windows.max(axis=1), np.arange(len(windows)) + windows.argmax(axis=1)

    def backward(dy, at):
        x_bar = np.zeros(x.shape)
        np.add.at(x_bar, at[lost:], dy[lost:])
        return (x_bar,)

    for seed in range(5):
        report = check_backward(forward, backward, [x], rng=seed)
        assert report.ok is ok, str(report)


@pytest.mark.parametrize("seed", range(5))
def test_kinks_in_common_are_taken_together(seed):
    rng = np.random.default_rng(seed)
    w, slopes = rng.normal(size=(2, 4, 3))
    slopes = 1 / (1 + np.exp(-3 * slopes))  # each is one, and those of one unit are none together
    report = check_backward(
        lambda x: (np.maximum(x @ w, 0), x), lambda dy, x: ((w * slopes) @ dy,), [np.zeros(4)]
    )
    assert ", expected " in report.findings[0].cause, str(report)


def in_order(values, of):
    """A pair that takes these places of the sorted input, and any order of ties in its backward."""

    def backward(dy, cache):
        x, x_bar = cache, np.zeros_like(cache)
        np.add.at(x_bar, of(x)[values], dy)
        return (x_bar,)

    return lambda x: (np.sort(x)[values], x), backward


ORDERS = {
    "stable": lambda x: np.argsort(x, kind="stable"),
    "the last first": lambda x: len(x) - 1 - np.argsort(x[::-1], kind="stable"),
    "any": lambda x: np.lexsort((np.random.default_rng(len(x)).random(len(x)), x)),
}


@pytest.mark.parametrize("values", [slice(None), slice(3, 4), [3, 3, 0]])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("seed", "dtype"), [(0, "f8"), (1, "f4")])
def test_ties_of_three_or_more_may_be_broken_in_any_order(values, order, seed, dtype):
    rng = np.random.default_rng(seed)
    for x in ([1, 1, 1, 5], [0, 1, 1, 1, 2], 255 * rng.integers(0, 2, 12)):
        forward, backward = in_order(values, ORDERS[order])
        at = [np.array(x, dtype)]
        report = check_backward(forward, backward, at, rng=seed)
        assert report.ok, str(report)
        twice = lambda dy, cache: (2 * backward(dy, cache)[0],)  # noqa: B023, E731
        assert not check_backward(forward, twice, at, rng=seed).ok
        lost = lambda dy, cache: backward(np.append(dy[:-1], 0 * dy[:1]), cache)  # noqa: B023, E731
        assert not check_backward(forward, lost, at, rng=seed).ok


@pytest.mark.parametrize("slope", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_units_of_all_signs_are_at_their_kinks_where_a_row_and_biases_are_zero(seed, slope):
    def forward(x, w, b, v):
        a = x @ w + b
        return np.maximum(a, 0) @ v, (x, w, a, v)

    def backward(dy, cache):
        x, w, a, v = cache
        a_bar = (dy @ v.T) * np.where(a > 0, 1, np.where(a == 0, slope, 0))
        return a_bar @ w.T, x.T @ a_bar, a_bar.sum(axis=0), np.maximum(a, 0).T @ dy

    rng = np.random.default_rng(seed)
    x, w, v = rng.normal(size=(4, 3)), rng.normal(size=(3, 8)), rng.normal(size=(8, 2))
    x[1] = 0
    report = check_backward(forward, backward, [x, w, np.zeros(8), v], rng=seed)
    assert report.ok, str(report)


@pytest.mark.parametrize("width", [1e-5, 1e-7, 1e-9])
def test_a_sharp_bend_in_float64_is_no_kink(width):
    forward = lambda x: (np.sqrt(x.astype("f8") ** 2 + width**2), x)  # noqa: E731
    assert not check_backward(forward, lambda dy, x: (0.7 * dy,), [np.zeros(2)]).ok


def test_tied_maxima_may_not_all_get_it():
    report = check_backward(
        lambda x: (x.max(axis=1), x),
        lambda dy, x: (dy[:, None] * (x == x.max(axis=1, keepdims=True)),),
        [np.array([[3.0, 3.0, 1.0], [2.0, 2.0, 2.0]])],
    )
    assert "elements tie: their sum is" in report.findings[0].cause, str(report)


def test_a_campaign_takes_a_hypothesis_strategy_and_shrinks_to_the_smallest_point():
    def probe(n, c, seed):
        rng = np.random.default_rng(seed)
        arrays = rng.normal(size=(n, c)), rng.normal(size=c), rng.normal(size=c)
        return f"({n}, {c})", arrays, {"eps": 1e-3}

    strategy = st.builds(probe, st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
    assert campaign(corpus.RIGHT["closed form"], strategy).ok
    report = campaign(corpus.WRONG["no variance path"][0], strategy)
    assert report.findings[0].label == "(2, 1)"  # with one value per channel nothing is missing
    seldom = campaign(corpus.WRONG["every 100th call"][0], strategy)
    assert [finding.kind for finding in seldom.findings] == ["nondeterminism"]


def test_a_campaign_without_points_is_bad_usage():
    with pytest.raises(mg.errors.UsageError, match="at least one"):
        campaign(corpus.RIGHT["closed form"], [])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (corpus.RIGHT["closed form"](), "tuple"),
        (lambda: None, "a function that returns None"),
        (lambda: (1, 2), r"a function that returns \(1, 2\)"),
    ],
)
def test_a_campaign_over_no_pair_is_bad_usage(make, said):
    with pytest.raises(mg.errors.UsageError, match=f"campaign: make\n.*\n.*got: +{said}"):
        campaign(make, [("here", INPUTS, EPS)])


def test_points_of_another_form_are_bad_usage_and_of_integers_a_wrong_dtype():
    pair = lambda: (identity, copied)  # noqa: E731
    with pytest.raises(mg.errors.UsageError, match=r"\(label, inputs, params\)\n.*\(1, 2\)"):
        campaign(pair, [(1, 2)])
    with pytest.raises(mg.errors.DTypeError, match=r"the probe 'whole'\n.*\n.*int64"):
        campaign(pair, [("whole", [np.arange(3)], {})])
    assert campaign(pair, [("a list", [[1.0, 2.0]], None)]).ok


def test_layouts_are_one_or_several_names():
    labels = [label for label, *_ in probes.batch_norm("NC")]
    assert labels == [label for label, *_ in probes.batch_norm(["NC"])]
    with pytest.raises(mg.errors.UsageError, match=r"NC or NCHW\n.*'NHWC'"):
        list(probes.batch_norm(["NHWC"]))


NC = [p for p in probes.batch_norm(("NC",)) if p[0] in ("NC (3, 3) float64", "NC (2, 3) float64")]
NCHW = ("NCHW", (np.ones((2, 2, 2, 3)), np.ones(2), np.zeros(2)), EPS)


def leaves(*args, **params):
    sys.exit(0)


def test_a_cause_that_fits_few_of_the_points_is_not_named():
    forward, right = corpus.RIGHT["closed form"]()

    def backward(y_bar, s):  # of two rows x_hat is 1 in float16, as if eps were 0
        gamma_bar = (y_bar * s.x_hat.astype("f2").astype("f8")).sum(0)
        return right(y_bar, s)[0], gamma_bar, right(y_bar, s)[2]

    labels = "NC (2, 3) float64", "NC (5, 3) float64", "NC (7, 5) float64"
    points = [p for p in probes.batch_norm("NC") if p[0] in labels]
    (alone,) = campaign(lambda: (forward, backward), points[1:2]).findings
    assert alone.cause == "eps is missing"
    (finding,) = campaign(lambda: (forward, backward), points).findings
    assert finding.cause == ""
    assert finding.label == "NC (2, 3) float64"
    assert "eps is missing" not in finding.message


def test_the_cause_that_fits_most_points_is_told_though_the_smallest_point_cannot_tell_it():
    forward, right = corpus.RIGHT["closed form"]()

    def sum_for_mean(y_bar, s):
        x_bar, gamma_bar, beta_bar = right(y_bar, s)
        g = s.gamma * y_bar
        return x_bar + s.r * (g.mean(0) - g.sum(0)), gamma_bar, beta_bar

    points = [p for p in probes.batch_norm("NC") if p[0].endswith(") float64")]
    (finding,) = campaign(lambda: (forward, sum_for_mean), points).findings
    assert finding.label == "NC (2, 3) float64"
    assert finding.cause == "factor N in the mean path"  # all points are (N, C): that says nothing
    assert "; likely cause: factor N in the mean path [" in finding.message


def two_rows(x, gamma, beta, eps):
    return (x - x.mean(0)) * gamma + beta


def columns(x, gamma, beta, eps):
    """Cannot take images of more than one pixel."""
    return (x - x.mean(0)) * gamma[None, :] + beta, (x, gamma)


@pytest.mark.parametrize(
    ("forward", "backward", "message", "cause"),
    [
        (columns, leaves, "backward fails: SystemExit: 0 [2 of 2 points]", "SystemExit"),
        (two_rows, leaves, "got ndarray (2, 3) float64 [2 of 2 points]", "no cache"),
        (lambda *a, **k: (1, 2, 3), leaves, "got a tuple of 3 [3 of 3 points]", "no cache"),
    ],
)
def test_a_campaign_counts_a_failing_pair_once_at_each_point_it_could_judge(
    forward, backward, message, cause
):
    report = campaign(lambda: (forward, backward), [*NC, NCHW])
    (finding,) = report.findings
    assert finding.message.endswith(message)
    assert finding.cause == cause
    assert not report.ok


def test_cotangents_of_a_wrong_shape_are_not_held_against_differences():
    calls = []

    def forward(x):
        calls.append(x)
        return np.tanh(x), x

    report = check_backward(forward, lambda dy, x: [np.ones((1, *x.shape))], [np.ones((8, 8))])
    assert report.findings[0].kind == "shape"
    assert len(calls) < 64


def test_a_cache_may_hold_objects_whose_slots_cannot_be_read():
    class Foreign:
        @property
        def __weakref__(self):
            raise TypeError("descriptor of another type")

    Foreign.__slots__ = ("__weakref__",)
    report = check_backward(
        lambda x: (x * x, (x, Foreign())), lambda dy, c: [2 * dy * c[0]], [np.ones(3)]
    )
    assert report.ok, str(report)


def test_a_campaign_says_once_which_points_a_forward_refuses():
    report = campaign(lambda: (leaves, leaves), [*NC, NCHW])
    (note,) = report.notes
    assert note.message.endswith("refuses this point: SystemExit: 0 [3 of 3 points]")
    assert report.verdict == "VACUOUS"


def test_the_row_of_a_wrong_input_tells_the_numbers_of_its_finding():
    def backward(y_bar, cache):
        x, gamma = cache
        return (y_bar * gamma, (y_bar * (x - x.mean(0))).sum(0), y_bar.sum(0))

    report = campaign(lambda: (columns, backward), NC[::-1])
    (finding,) = report.findings
    (row,) = (row for row in report.rows if not row.ok)
    assert "random y_bar" in finding.message  # although a huge one is off by more
    assert (row.index, row.bound) == (finding.index, finding.bound)
    assert row.error == abs(finding.got - finding.expected)


def cast(*grads, dtype="float32"):
    return [grad.astype(dtype).astype(np.float64) for grad in grads]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda x, gamma, beta: (x * (1 + 1e-10), gamma, beta), "constant factor 1 + 1e-10"),
        (lambda x, gamma, beta: (x, gamma * (1 - 2e-9), beta), "constant factor 1 - 2e-09"),
        (lambda x, gamma, beta: (x, gamma * 1.37, beta), "constant factor 1.37"),
        (cast, "an error as large as rounding in float32: lower precision inside, or a small term"),
        (
            partial(cast, dtype="float16"),
            "an error as large as rounding in float16: lower precision inside, or a small term",
        ),
    ],
)
def test_a_cause_explains_the_error_and_not_only_the_cotangent(change, cause):
    forward, backward = corpus.RIGHT["closed form"]()
    report = check_backward(forward, lambda *a: change(*backward(*a)), INPUTS, params=EPS)
    assert {finding.cause for finding in report.findings} == {cause}


def squared(x):
    return x * x, 2 * x


def averaged(x):
    return x.mean(), x


def plus_bias(x, b):
    return x + b, None


def overwriting(y_bar, slope):
    y_bar *= 1
    return (y_bar * slope,)


@pytest.mark.parametrize(
    ("forward", "backward", "text"),
    [
        (
            averaged,
            lambda y_bar, x: (np.full(x.shape, y_bar),),
            "x.size = 15: perhaps a mean became a sum",
        ),
        (squared, lambda y_bar, slope: None, "got None (is a `return` missing?)"),
        (plus_bias, lambda y_bar, _: y_bar, "got ndarray (5, 3) float64"),
        (squared, lambda y_bar, slope: {"x": y_bar * slope}, "a tuple of cotangents: got dict"),
        (squared, lambda y_bar, slope: (1 * slope,), "y_bar is missing"),
        (squared, overwriting, "belongs to the caller"),
        (plus_bias, lambda y_bar, _: (y_bar, y_bar), "has shape (5, 3), but b has shape (3,)"),
    ],
)
def test_what_students_forget_is_the_first_finding_and_said_plainly(forward, backward, text):
    names = ("x", "b")[: forward.__code__.co_argcount]
    report = check_backward(forward, backward, INPUTS[: len(names)], names=names)
    assert text in report.findings[0].message


def identity(x):
    return x * 1, None


def copied(y_bar, cache):
    return [y_bar.copy()]


@pytest.mark.parametrize("options", [{"inputs": []}, {"names": ["a", "b"]}, {"names": ["a", "a"]}])
def test_no_inputs_and_names_that_do_not_match_are_bad_usage(options):
    with pytest.raises(mg.errors.UsageError, match="expected:"):
        check_backward(identity, copied, **{"inputs": [np.ones(3)], **options})
    with pytest.raises(mg.errors.UsageError, match="gradcheck: names"):
        mg.verify.gradcheck(mg.exp, **{"inputs": [np.ones(3)], **options})


def test_a_normalization_is_one_whatever_its_inputs_are_called():
    forward, backward = corpus.RIGHT["closed form"]()
    names = ("images", "weight", "bias")
    assert check_backward(forward, backward, INPUTS, params=EPS, names=names, rng=None).ok


def test_a_campaign_speaks_of_vectors_too():
    points = [("three", (np.arange(3.0),), {}), ("four", (np.arange(4.0),), {})]
    report = campaign(lambda: (squared, lambda y_bar, slope: (7 * y_bar * slope,)), points)
    assert report.findings[0].cause == "constant factor 7"


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True)
    return y.copy(), y


def softmax_backward(y_bar, y):
    return (y * (y_bar - (y_bar * y).sum(-1, keepdims=True)),)


def tanh(x):
    return np.tanh(x), np.tanh(x)


def tanh_backward(y_bar, y):
    return (y_bar * (1 - y * y),)


def by_y(f):
    return lambda x: (f(x), f(x))


HARD = {
    "a mask of -1e9": (
        softmax, softmax_backward, np.where(np.tri(4), np.linspace(-1, 1, 16).reshape(4, 4), -1e9)),
    "twelve decades": (
        lambda x: (1 / x, x), lambda y_bar, x: (-y_bar / (x * x),), np.array([1e-5, 300.0])),
    "all saturated": (tanh, tanh_backward, np.array([8.0, 9.0])),
    "all saturated in float32": (tanh, tanh_backward, np.array([4, 5], np.float32)),
    "one hot": (softmax, softmax_backward, np.array([[15.0, 0, 0], [0, 0, 15]])),
    "float32 inside": (
        by_y(lambda x: np.tanh(x.astype(np.float32)).astype(np.float64)), tanh_backward,
        np.linspace(-1, 1, 6)),
    "a cotangent that float32 cannot hold": (
        by_y(np.exp), lambda y_bar, y: (y_bar * y,), np.array([70], np.float32)),
    "a square that float64 cannot hold": (
        lambda x: (x * x, x), lambda y_bar, x: (2 * y_bar * x,), np.array([1e-200, 0])),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_a_right_backward_is_proven_where_that_is_hard(name):
    forward, backward, x = HARD[name]
    report = check_backward(forward, backward, [x])
    assert report.verdict == "PROVEN", str(report)
    wrong = check_backward(forward, lambda *a: (backward(*a)[0] * x.dtype.type(1.001),), [x])
    assert not wrong.ok


def test_at_an_infinite_input_nothing_is_proven_or_wrong():
    report = check_backward(softmax, softmax_backward, [np.array([[-np.inf, 1.0, 2.0]])])
    assert report.verdict == "VACUOUS" and "an input is not finite" in report.notes[0].message


def only_float32(x):
    if x.dtype != np.float32:
        raise TypeError("float32 only")
    return x * x, x


@pytest.mark.parametrize("seed", range(3))
def test_what_cannot_be_known_at_a_point_is_said(seed):
    x = np.random.default_rng(seed).normal(size=4)
    report = check_backward(only_float32, lambda dy, x: (2 * dy * x,), [x.astype("f4")])
    assert not report.ok
    assert "in float64, which the check needs" in report.notes[0].message
    x[0] = 0
    slope = lambda dy, x: (dy / (3 * np.cbrt(x) ** 2),)  # noqa: E731
    report = check_backward(lambda x: (np.cbrt(x), x), slope, [x], rng=seed)
    assert "no finite derivative" in report.findings[0].cause, str(report)
    memory = {}
    memo = lambda x: (memory.setdefault(x.shape, np.exp(x)).copy(), np.exp(x))  # noqa: E731
    report = check_backward(memo, lambda dy, y: (dy * y,), [x], rng=seed)
    assert report.findings[0].cause == "forward ignores x: other values give the same y"


@pytest.mark.parametrize(("inputs", "params", "expected"), [
    (None, None, "an array, a tensor"), ([np.ones(2)], [1], "a dictionary or None"),
])  # fmt: skip
def test_no_inputs_and_no_dictionary_are_bad_usage(inputs, params, expected):
    with pytest.raises(mg.errors.UsageError, match=expected):
        check_backward(lambda x: (x * x, x), lambda dy, x: (2 * dy * x,), inputs, params=params)


def test_a_point_whose_jacobian_would_not_fit_is_bad_usage(rng):
    def backward(y_bar, cache):
        x, w = cache
        return y_bar @ w.T, x.T @ y_bar

    inputs = [rng.normal(size=(64, 64)), rng.normal(size=(64, 65))]
    with pytest.raises(mg.errors.UsageError, match="34,344,960, of 8,256 and 4,160 elements"):
        check_backward(lambda x, w: (x @ w, (x, w)), backward, inputs)


@pytest.mark.parametrize("kind", [np.ma.MaskedArray, np.matrix])
def test_a_cotangent_is_a_plain_array(kind, rng):
    x = rng.normal(size=(2, 3))
    report = check_backward(lambda x: (x * x, x), lambda y_bar, x: (kind(2 * y_bar * x),), [x])
    assert report.findings[0].cause == kind.__name__


def test_a_view_of_an_input_is_called_one():
    def flat(x):
        return x.reshape(-1), x.shape

    report = check_backward(flat, lambda y_bar, s: (y_bar.reshape(s).copy(),), [INPUTS[0]])
    assert [finding.cause for finding in report.findings] == ["a view of an input"]


HEADS = {  # what may follow a normalization: y no longer has the shape of x
    "loss": (lambda y: (y**3).sum(), lambda d, y: d * 3 * y**2),
    "pool": (lambda y: y.mean((2, 3)), lambda d, y: d[:, :, None, None] * np.ones_like(y) / 2),
    "rows": (lambda y: y.sum(1), lambda d, y: d[:, None] * np.ones_like(y)),
    "flatten": (lambda y: y.reshape(len(y), -1).copy(), lambda d, y: d.reshape(y.shape)),
    "one axis more": (lambda y: y[None].copy(), lambda d, y: d[0]),
}


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("head", HEADS)
def test_a_normalization_may_be_followed_by_what_changes_its_shape(head, dtype, rng):
    after, back = HEADS[head]
    normalize, right = corpus.RIGHT["closed form"]()

    def forward(x, gamma, beta, eps=1e-5):
        y, cache = normalize(x, gamma, beta, eps)
        return after(y), (y.copy(), cache)

    def backward(y_bar, cache, wrong=1):
        x_bar, gamma_bar, beta_bar = right(back(y_bar, cache[0]), cache[1])
        return x_bar, gamma_bar, wrong * beta_bar

    inputs = [rng.normal(size=shape).astype(dtype) for shape in ((4, 3, 1, 2), (3,), (3,))]
    report = check_backward(forward, backward, inputs)
    assert report.verdict == "PROVEN", str(report)
    assert campaign(lambda: (forward, backward), [(head, inputs, EPS)]).ok
    report = check_backward(forward, lambda *a: backward(*a, wrong=-1), inputs)
    assert [(f.input, f.cause) for f in report.findings] == [("beta", "wrong sign")]


@pytest.mark.usefixtures("briefly")
def test_eps_may_have_another_name():
    normalize, backward = corpus.RIGHT["closed form"]()
    epsilon = lambda x, gamma, beta, epsilon: normalize(x, gamma, beta, epsilon)  # noqa: E731
    later = lambda x, gamma, beta, train=True, bn_eps=7.0: normalize(x, gamma, beta, bn_eps)  # noqa: E731
    anything = lambda *operands: normalize(*operands)  # noqa: E731
    for forward in epsilon, later, anything:
        assert check_backward(forward, backward, INPUTS, params=EPS).ok
        assert campaign(lambda f=forward: (f, backward), [("here", INPUTS, EPS)]).ok


@pytest.mark.usefixtures("briefly")
def test_statistics_that_a_forward_keeps_in_its_parameters_are_its_own():
    """As the exercises of CS231n have it: a dictionary gives the mode, and gets the statistics."""
    normalize, backward = corpus.RIGHT["closed form"]()

    def forward(x, gamma, beta, bn_param):
        if bn_param["mode"] == "train":
            before = bn_param.get("running_mean", np.zeros_like(gamma))
            bn_param["running_mean"] = 0.9 * before + 0.1 * x.mean(0)
        return normalize(x, gamma, beta, bn_param.get("eps", 1e-5))

    for given in {"mode": "train"}, {"mode": "train", "running_mean": np.ones(3)}:
        report = check_backward(forward, backward, INPUTS, params={"bn_param": given})
        assert (report.verdict, report.notes) == ("PROVEN", [])
        assert np.array_equal(given.get("running_mean", np.ones(3)), np.ones(3))
    assert campaign(lambda: (forward, backward), [("here", INPUTS, EPS)]).ok


@pytest.mark.parametrize("params", [{"epsilon": 1e-3}, {"eps": 1e-3, "scales": 2}, {"x": 1}])
def test_params_that_forward_does_not_take_are_bad_usage(params):
    def forward(x, scale=2.0, eps=1e-5):
        return scale * x, scale

    said = "expected: parameters of forward after its 1 input: scale, eps"
    with pytest.raises(mg.errors.UsageError, match=said):
        check_backward(forward, lambda y_bar, scale: (y_bar * scale,), INPUTS[:1], params=params)
    with pytest.raises(mg.errors.UsageError, match="campaign: params of the probe 'a point'"):
        campaign(lambda: (forward, copied), [("a point", INPUTS[:1], params)])
    with pytest.raises(mg.errors.UsageError, match="input: none"):
        check_backward(identity, copied, INPUTS[:1], params=EPS)


def test_the_cotangent_of_a_single_input_may_come_without_a_tuple():
    assert check_backward(squared, lambda y_bar, slope: y_bar * slope, INPUTS[0]).ok
    (finding,) = check_backward(squared, lambda y_bar, slope: y_bar.sum(), INPUTS[0]).findings
    assert "x_bar has shape ()" in finding.message


def test_tensors_are_inputs():
    assert check_backward(identity, copied, [mg.tensor([1.5, 2.0])]).ok


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_a_random_forward_proves_nothing_and_a_random_backward_is_called_so(size):
    rng = np.random.default_rng(0)
    noise = lambda x: size * rng.normal(size=x.shape)  # noqa: E731
    noisy, exact = lambda x: (x * x + noise(x), x), lambda x: (x * x, x)
    for forward, backward in (
        (noisy, lambda y_bar, x: (0 * y_bar,)),
        (exact, lambda y_bar, x: (2 * y_bar * x + noise(x),)),
    ):
        report = check_backward(forward, backward, INPUTS[:1])
        assert [finding.kind for finding in report.findings] == ["nondeterminism"], str(report)
    report = gradcheck(lambda x: x * x + noise(x), INPUTS[:1])
    assert [finding.kind for finding in report.findings] == ["nondeterminism"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(0.8 * x * (1 + 0.045 * x * x)))


def gelu_slope(x):
    t = np.tanh(0.8 * x * (1 + 0.045 * x * x))
    return 0.5 * (1 + t) + 0.4 * x * (1 - t * t) * (1 + 0.135 * x * x)


CANCELLING = {  # a difference of numbers as large as 1 where the slope all but vanishes
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x: (s := 1 / (1 + np.exp(-x))) * (1 - s)),
    "gelu": (gelu, gelu_slope),
}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", CANCELLING)
def test_the_tails_of_an_activation_round_as_its_middle(name, dtype):
    f, slope = CANCELLING[name]
    x = (4 * np.random.default_rng(0).normal(size=(8, 16))).astype(dtype)
    backward = lambda y_bar, x: ((y_bar * slope(x)).astype(x.dtype),)  # noqa: E731
    report = check_backward(lambda x: (f(x), x), backward, [x])
    assert report.ok, str(report)
    assert not report.notes  # no kinks


def test_conditioning_is_measured_of_a_scalar_too():
    f, slope = lambda x: np.sin(100 * x), lambda x: 100 * np.cos(100 * x)
    for x in (-0.58537325, 0.3, -2.1):
        report = check_backward(lambda x: (f(x), x), lambda dy, x: (dy * slope(x),), [np.array(x)])
        assert report.ok, str(report)


def test_conditioning_counts_what_cancels_in_layer_norm():
    forward, backward, _ = others.RIGHT["layer norm"]()
    x = (1e3 + np.random.default_rng(0).normal(size=(4, 4))).astype("f4")
    report = check_backward(forward, backward, [x, np.ones(4, "f4"), np.zeros(4, "f4")])
    assert report.ok, str(report)


def test_the_byte_order_of_a_file_does_not_make_a_right_backward_wrong():
    report = check_backward(squared, lambda dy, slope: (dy * slope,), [np.array([0.5, 2], ">f8")])
    assert report.ok, str(report)


def test_scalars_are_checked_like_arrays():
    def forward(x):
        return np.sin(x), x

    for slope, ok in ((np.cos, True), (np.sin, False)):
        backward = lambda dy, x, slope=slope: (dy * slope(x),)  # noqa: E731
        assert check_backward(forward, backward, [np.array(0.3)]).ok is ok


SPREAD = {
    "log": (np.log, lambda x: 1 / x, [1e-8, 1e-3, 1.0]),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x), [1e-12, 1e-3, 1.0]),
    "1/x": (lambda x: 1 / x, lambda x: -1 / x**2, [1e-3, 1.0, 1e3]),
    "sin 1000 x": (lambda x: np.sin(1e3 * x), lambda x: 1e3 * np.cos(1e3 * x), [0.3, 0.7, 1.2]),
    "sin 1e5 x": (lambda x: np.sin(1e5 * x), lambda x: 1e5 * np.cos(1e5 * x), [0.3, 0.7, 1.2]),
}


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_elements_may_differ_in_size_and_waves_may_be_short(name, factor):
    f, slope, x = SPREAD[name]
    report = check_backward(
        lambda x: (f(x), x), lambda dy, x: (factor * dy * slope(x),), [np.array(x)]
    )
    assert report.ok is (factor == 1), str(report)


def test_an_input_in_float32_rounds_the_cotangents_of_the_others(rng):
    def forward(x, w):
        return np.exp(x) * np.sin(w), (x, w)

    def backward(dy, cache, factor=1.0):
        x, w = cache
        bars = factor * dy * np.exp(x) * np.sin(w), dy * np.exp(x) * np.cos(w)
        return [bar.astype(x.dtype) for bar, x in zip(bars, cache, strict=True)]

    inputs = rng.normal(size=4), rng.normal(size=4).astype("f4")
    assert check_backward(forward, backward, inputs).ok
    wrong = check_backward(forward, lambda dy, cache: backward(dy, cache, 1 + 1e-4), inputs)
    assert [finding.input for finding in wrong.findings] == ["x"]


@pytest.mark.parametrize(
    ("y", "got"),
    [
        (0.5, "float"),
        (3, "int"),
        ([np.ones(2)] * 2, "list"),
        (np.arange(2), "int64"),
        (mg.tensor(np.ones(2)), "Tensor"),
    ],
)
def test_a_forward_that_returns_no_floating_array_is_a_finding(y, got):
    report = check_backward(lambda x: (y, x), lambda dy, x: (dy,), [np.ones(2)])
    (finding,) = report.findings
    assert finding.message.startswith(f"y must be one floating array, got {got}")


def test_integer_inputs_are_refused():
    with pytest.raises(mg.errors.DTypeError, match="int64"):
        check_backward(lambda x: (x, x), lambda dy, x: (dy,), [np.arange(3)])


# --- no trace -------------------------------------------------------------------------------------


def fingerprint(arrays):
    state = np.random.get_state()  # noqa: NPY002
    return [a.tobytes() for a in arrays], state[1].tobytes(), state[2], np.geterr()


@pytest.mark.parametrize("name", ["x overwritten", "random seed set", "error state set", "reads y"])
def test_a_check_leaves_no_trace_of_what_the_subject_does(name):
    before = fingerprint(INPUTS)
    checked(name)
    campaign(corpus.WRONG[name][0], [("here", INPUTS, EPS)])
    assert fingerprint(INPUTS) == before


def doubles(x, m):
    m *= 2
    return x * m, m.copy()


def clips(x, m):
    m[m > 0] = 1
    return x * m, m.copy()


def halves_in_a_list(x, m):
    m[0] *= 0.5
    return x * m[0], m[0].copy()


def later(dy, m):
    m += 1
    return (dy * (m - 1),)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("forward", "backward"), [
    (doubles, lambda dy, m: (dy * m,)), (clips, lambda dy, m: (dy * m,)),
    (halves_in_a_list, lambda dy, m: (dy * m,)), (lambda x, m: (x * m, m), later),
])  # fmt: skip
def test_arrays_in_params_are_watched_and_stay_as_they_are(forward, backward, seed):
    rng = np.random.default_rng(seed)
    x, m = rng.normal(size=(2, 5))
    before, given = m.copy(), [m] if forward is halves_in_a_list else m
    report = check_backward(forward, backward, [x], params={"m": given}, rng=seed)
    assert (m == before).all()
    assert ("purity", "mutated input") in {(f.kind, f.cause) for f in report.findings}, str(report)
    assert not any(finding.kind == "value" for finding in report.findings), str(report)
    points = [("", [x], {"m": given})]
    assert not campaign(lambda: (forward, backward), points).ok
    assert (m == before).all()
    assert check_backward(lambda x, m: (x * m, m), lambda dy, m: (dy * m,), [x], params={"m": m}).ok


def test_a_gradcheck_of_a_layer_leaves_its_statistics_alone_even_after_an_exception():
    running = mg.tensor(np.zeros(3), name="running mean")
    weight = mg.tensor(np.ones(3), requires_grad=True)
    kept = running.node, running.data.tobytes()
    calls = []

    def layer(x, fail=None):
        running.data = 0.9 * running.data + 0.1 * np.asarray(x.data, np.float64).mean(0)
        calls.append(running.data.copy())
        if fail is not None and len(calls) > fail:
            raise RuntimeError("in the middle")
        return mg.batch_norm(x, weight, np.zeros(3))

    before = fingerprint([running.data, weight.data])
    assert gradcheck(layer, [INPUTS[0]], order=2).ok
    assert len(calls) > 10
    limit = len(calls) + 7
    with pytest.raises(RuntimeError, match="in the middle"):
        gradcheck(lambda x: layer(x, fail=limit), [INPUTS[0]])
    assert fingerprint([running.data, weight.data]) == before
    assert (running.node, running.data.tobytes()) == kept
    assert weight.grad is None
    assert not running.node.overwritten


# --- gradcheck ------------------------------------------------------------------------------------


def test_gradcheck_proves_orders_one_to_three():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 2))
    report = gradcheck(lambda x: mg.batch_norm(x, np.ones(2), np.zeros(2)), [x], order=3)
    assert report.ok, str(report)
    assert {row.pair for row in report.rows} >= {"vjp/numeric", "vjp/numeric (order 3)"}


@pytest.mark.parametrize(("dtype", "size"), [("float64", 1e-9), ("float32", 1e-4)])
def test_gradcheck_names_a_wrong_rule(dtype, size):
    x = np.linspace(0.2, 1.0, 5).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mg.ops.tanh, "partials", lambda y, x: ((1 - y * y) * (1 + size),))
        report = gradcheck(mg.tanh, [x])
    assert not report.ok
    assert report.findings[0].input == "x"
    assert gradcheck(mg.tanh, [x]).ok


@pytest.mark.parametrize("name", sorted(mg.REGISTRY))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_op_is_proven_at_order_one(name, dtype):
    report = mg.verify.check_op(name, dtype=dtype)
    flat = name == "sign" and report.verdict == "VACUOUS"  # 0 is all its derivative can be
    assert report.ok or not report.rows or flat, str(report)


# --- the checker's own faults ---------------------------------------------------------------------

RIGHT = {"closed form", "unbiased variance", "eps outside the square root"}
POINTS = [p for p in probes.batch_norm() if p[0] in
          {"NC (5, 3) float64", "NC (2, 3) float64", "NC gamma 0 float64", "NC offset 100 float64",
           "NC (5, 3) float32", "NC constant channel float64"}]  # fmt: skip


def judges_rightly(name):
    """Whether the checker is right about a right or wrong backward."""
    try:
        if name.startswith("softmax"):
            forward, backward, shapes = others.RIGHT["softmax"]()
            if "off" in name:
                backward = others.broken("softmax", 0, "off by 1e-10")[1]
            rng = np.random.default_rng(3)
            report = check_backward(forward, backward, [rng.normal(size=shape) for shape in shapes])
            return report.ok is ("off" not in name)
        make = corpus.RIGHT[name] if name in RIGHT else corpus.WRONG[name][0]
        return campaign(make, POINTS).ok is (name in RIGHT)
    except Exception:
        return False


def only_ones(y, rng):
    yield "random", np.ones(y.shape, y.dtype)


def no_findings(*args):
    return iter(())


_romberg, _expected = numeric._romberg, reference.Reference.expected
_bounds, _closed = rounding.Rounding.bounds, reference.Reference._closed_form


def scaled(factor):
    return lambda self, dtype: [factor * bound for bound in _bounds(self, dtype)]


def nan_is_nothing(sample):
    return np.nan_to_num(np.abs(sample.got - sample.expected) / np.maximum(sample.bound, 1e-300))


# what is replaced, by what, and the backward of which the checker is wrong then
FAULTS = {
    "differences of the wrong size": (
        numeric, "_romberg", lambda *a: (_romberg(*a)[0] * 1.001, *_romberg(*a)[1:]), "softmax"),
    "no error of the differences": (
        numeric, "_romberg", lambda *a: (_romberg(*a)[0], _romberg(*a)[1] * 0, _romberg(*a)[2]),
        "eps outside the square root"),
    "infinite error of the differences": (
        numeric, "_romberg", lambda *a: (_romberg(*a)[0], _romberg(*a)[1] + 1, _romberg(*a)[2]),
        "softmax"),
    "bounds too wide": (rounding.Rounding, "bounds", scaled(1e7), "softmax off by 1e-10"),
    "bounds of zero": (rounding.Rounding, "bounds", scaled(0), "softmax"),
    "cotangents of ones only": (check, "cotangents", only_ones, "huge cotangents clipped"),
    "the comparison never fails": (diagnose.Sample, "excesses", property(
        lambda self: np.zeros(self.expected.shape)), "softmax off by 1e-10"),
    "the sign of the reference": (reference.Reference, "_closed_form", lambda self, y_bar: [
        -part for part in _closed(self, y_bar)], "closed form"),
    "a reference of zero": (reference.Reference, "expected", lambda self, y_bar: reference.Expected(
        [0 * v for v in _expected(self, y_bar).values], _expected(self, y_bar).bounds), "softmax"),
    "nan is no error": (
        diagnose.Sample, "excesses", property(nan_is_nothing), "nan where gamma is 0"),
    "form is not checked": (contract, "form", no_findings, "beta not summed"),
    "purity is not checked": (contract, "purity", no_findings, "random seed set"),
    "interleaved calls are not made": (
        contract, "_interleaved", no_findings, "statistics of the last forward"),
    "points that share numbers are not asked": (
        contract, "partly_equal", no_findings, "statistics by x alone"),
    "every subgradient is accepted": (Kinks, "between_slopes", lambda self, k, dy, got, *a: (
        got, 1, ""), "softmax off by 1e-10"),
    "everything looks like batch norm": (
        reference.Reference, "_is_batch_norm", lambda self: True, "unbiased variance"),
}  # fmt: skip


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_checker_is_noticed(monkeypatch, fault):
    where, name, instead, noticed_by = FAULTS[fault]
    assert judges_rightly(noticed_by)
    if fault in ("everything looks like batch norm", "the sign of the reference"):
        monkeypatch.setattr(reference.Reference, "_confirmed", lambda self, *_: True)
    monkeypatch.setattr(where, name, instead)
    assert not judges_rightly(noticed_by)


def test_a_pair_that_keeps_its_own_result_is_right_and_says_so(rng):
    def forward(x):
        y = np.tanh(x)
        return y, y

    def scaled(x, w, b):
        y = np.tanh(x * w + b)
        return y, (x, w, y)

    def guarded(y_bar, y):
        assert (np.abs(y) <= 1).all()
        return (y_bar * (1 - y * y),)

    def scaled_backward(y_bar, cache):
        x, w, y = cache
        g = y_bar * (1 - y * y)
        return g * w, (g * x).sum(0), g.sum(0)

    for report in (
        check_backward(forward, lambda y_bar, y: (y_bar * (1 - y * y),), [rng.normal(size=5)]),
        check_backward(forward, guarded, [rng.normal(size=5)]),
        check_backward(scaled, scaled_backward, INPUTS),
    ):
        assert report.ok, str(report)
        assert [note.kind for note in report.notes] == ["retained"]


def test_wrong_numbers_are_told_beside_a_wrong_form(rng):
    x = rng.uniform(1, 2, size=(3, 4))
    report = check_backward(lambda x: (np.log(x), x), lambda y_bar, x: (y_bar,), [x])
    assert report.findings[0].cause.startswith("it is y_bar; the local derivative of")
    assert "aliasing" in {finding.kind for finding in report.findings}


@pytest.mark.parametrize("kept", [True, False])
def test_weights_that_a_backward_keeps_from_its_first_call_are_found(kept, rng):
    first = {}

    def backward(y_bar, cache):
        x, w = cache
        turned = first.setdefault("w.T", w.T.copy()) if kept else w.T
        return y_bar @ turned, x.T @ y_bar

    inputs = [rng.normal(size=(2, 3)), rng.normal(size=(3, 4))]
    report = check_backward(lambda x, w: (x @ w, (x, w)), backward, inputs, names=["x", "w"])
    assert report.ok != kept, str(report)
    assert [f.cause[:12] for f in report.findings] == ["stale buffer"] * kept
