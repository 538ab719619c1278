"""One pair at many points: which points a campaign takes, and how it sums up the faults."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import strategies as st

import minigrad as mg
from minigrad.verify import campaign, probes
from verify import corpus
from verify.pairs import EPS, INPUTS, copied, identity, squared


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


@pytest.mark.parametrize("seldom", [100, 300])
def test_a_backward_that_is_wrong_at_some_calls_fails_a_campaign_with_a_strategy(seldom):
    calls = itertools.count(1)
    backward = lambda y_bar, x: (y_bar * x * (2.5 if next(calls) % seldom == 0 else 2.0),)  # noqa: E731
    probe = lambda n: (str(n), [np.random.default_rng(n).normal(size=(3, n))], {})  # noqa: E731
    report = campaign(lambda: (lambda x: (x * x, x), backward), st.builds(probe, st.integers(1, 9)))
    assert report.verdict == "WRONG"


def test_a_campaign_draws_points_also_where_python_skips_assertions():
    code = """
import numpy as np
from hypothesis import strategies as st
from minigrad.verify import campaign
make = lambda: (lambda x: (x * x, x), lambda y_bar, x: (y_bar * x,))
probe = lambda n: (f"{n}", [np.random.default_rng(n).normal(size=n)], {})
report = campaign(make, st.builds(probe, st.integers(1, 9)))
print(report.verdict, report.findings[0].label)
"""
    command = [sys.executable, "-O", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "WRONG 1\n"


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


@pytest.mark.parametrize("eps", [None, "1e-3", {"value": 1e-3}, np.array([1e-5, 1e-3])])
def test_labels_and_eps_of_a_wrong_pair_may_be_anything(eps):
    def pair():
        return lambda x, eps: (x * x, x), lambda y_bar, x: (y_bar * x,)

    points = [(label, [np.ones((3, 2))], {"eps": eps}) for label in (1, None)]
    (finding,) = campaign(pair, points).findings
    assert (finding.label, finding.cause[:10]) == ("1", "factor 1/2")


def test_layouts_are_one_or_several_names():
    labels = [label for label, *_ in probes.batch_norm("NC")]
    assert labels == [label for label, *_ in probes.batch_norm(["NC"])]
    with pytest.raises(mg.errors.UsageError, match=r"NC or NCHW\n.*'NHWC'"):
        list(probes.batch_norm(["NHWC"]))


def test_points_of_a_batch_norm_name_its_operands():
    def forward(a, b, c, eps):
        xc = a - a.mean(axis=0)
        return b * xc / np.sqrt((xc * xc).mean(axis=0) + eps) + c, b

    points = [next(iter(probes.batch_norm(("NC",))))]
    report = campaign(lambda: (forward, lambda y_bar, b: (y_bar, b, b)), points)
    assert {finding.input for finding in report.findings} == {"x", "gamma", "beta"}


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


@pytest.mark.parametrize(
    ("divisor", "words"),
    [(lambda x: 8, "8, not by N = ..."),
     (len, "..., the length of axis 0, not by N = ...")],
)  # fmt: skip
def test_of_a_cause_whose_numbers_differ_the_words_are_told(divisor, words):
    def forward(x, gamma, beta, eps):
        r = 1 / np.sqrt(x.var((0, 2, 3), keepdims=True) + eps)
        x_hat = (x - x.mean((0, 2, 3), keepdims=True)) * r
        return x_hat * gamma[:, None, None] + beta[:, None, None], (x_hat, r, gamma)

    def backward(y_bar, cache):
        x_hat, r, gamma = cache
        g, n, axes = y_bar * gamma[:, None, None], divisor(x_hat), (0, 2, 3)
        along = x_hat * (g * x_hat).sum(axes, keepdims=True)
        x_bar = r * (g - (g.sum(axes, keepdims=True) + along) / n)
        return x_bar, (y_bar * x_hat).sum(axes), y_bar.sum(axes)

    points = [p for p in probes.batch_norm("NCHW") if p[0].endswith(") float64")]
    (finding,) = campaign(lambda: (forward, backward), points).findings
    assert f"the mean path and the variance path divide by {words} [" in finding.message


def test_a_cause_of_which_all_numbers_differ_is_told_of_the_point_shown():
    rng = np.random.default_rng(0)
    points = [(f"{n} numbers", (rng.normal(size=n),), {}) for n in (5, 4, 3)]
    pair = lambda x: (np.arctan(x), x), lambda y_bar, x: (y_bar / (1 + np.abs(x) ** 1.7),)
    (finding,) = campaign(lambda: pair, points).findings
    (alone,) = campaign(lambda: pair, points[-1:]).findings
    assert finding.label == alone.label == "3 numbers"
    assert finding.cause == alone.cause and alone.cause.startswith("the local derivative is wrong")


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


def test_a_campaign_speaks_of_vectors_too():
    points = [("three", (np.arange(3.0),), {}), ("four", (np.arange(4.0),), {})]
    report = campaign(lambda: (squared, lambda y_bar, slope: (7 * y_bar * slope,)), points)
    assert report.findings[0].cause == "constant factor 7"
