"""Which subgradients are accepted at kinks and ties."""

from functools import partial

import numpy as np
import pytest

import minigrad as mg
from minigrad.verify import check_backward, gradcheck
from minigrad.verify.kinks import Kinks
from verify.pairs import INPUTS


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


@pytest.mark.parametrize("width", [1e-5, 1e-7, 1e-9])
def test_a_sharp_bend_of_a_forward_that_casts_to_float64_is_no_kink(width):
    forward = lambda x: (np.sqrt(x.astype("f8") ** 2 + width**2), x)  # noqa: E731
    assert not check_backward(forward, lambda dy, x: (0.7 * dy,), [np.zeros(2)]).ok


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


def test_tied_maxima_may_not_all_get_their_whole_cotangent():
    report = check_backward(
        lambda x: (x.max(axis=1), x),
        lambda dy, x: (dy[:, None] * (x == x.max(axis=1, keepdims=True)),),
        [np.array([[3.0, 3.0, 1.0], [2.0, 2.0, 2.0]])],
    )
    assert "elements tie: their sum is" in report.findings[0].cause, str(report)


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


def patches(image):
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 1), (3, 3))
    return windows.reshape(-1, 9)


def convolution(image, w, b, v):
    cols = patches(image)
    h = np.maximum(cols @ w + b, 0)
    return (h * v).sum(), (cols, w, h, v)


def convolution_back(y_bar, cache, slope=0.0):
    cols, w, h, v = cache
    a_bar = y_bar * v * np.where(h > 0, 1, slope)
    side = int(len(cols) ** 0.5)
    padded = np.zeros((side + 2, side + 2))
    for k, row in enumerate(a_bar @ w.T):
        i, j = divmod(k, side)
        padded[i : i + 3, j : j + 3] += row.reshape(3, 3)
    return padded[1:-1, 1:-1].copy(), cols.T @ a_bar, a_bar.sum(0), y_bar * h


@pytest.mark.parametrize("seed", range(2))
def test_zeros_of_an_image_under_zero_biases_allow_a_slope_of_0(seed):
    rng = np.random.default_rng(seed)
    image = np.maximum(rng.normal(size=(6, 6)), 0)
    image[:3] = 0
    inputs = image, rng.normal(size=(9, 4)), np.zeros(4), rng.normal(size=(36, 4))
    assert check_backward(convolution, convolution_back, inputs).verdict == "PROVEN"


def test_zeros_of_an_image_under_zero_biases_allow_no_slope_of_2(rng):
    inputs = np.zeros((4, 4)), rng.normal(size=(9, 2)), np.zeros(2), rng.normal(size=(16, 2))
    wrong = partial(convolution_back, slope=2.0)
    assert check_backward(convolution, wrong, inputs).findings


def test_many_zeros_under_two_layers_with_zero_biases_allow_a_slope_of_0(rng):
    def forward(x, w, b, v, c, u):
        return np.maximum(np.maximum(x @ w + b, 0) @ v + c, 0) @ u

    x, expected, y_bar = np.zeros((8, 60)), np.zeros((8, 60)), np.zeros((8, 3))
    w, v, u = (rng.normal(size=s) * (2 / s[0]) ** 0.5 for s in ((60, 30), (30, 20), (20, 3)))
    inputs = x, w, np.zeros(30), v, np.zeros(20), u
    kinks = Kinks(forward, inputs, np.full((8, 3), 1e-16))
    expected[-1], y_bar[-1, 0] = 1, 1
    accepted, n, _ = kinks.between_slopes(0, y_bar, 0 * x, expected, np.full(x.shape, 1e-9))
    assert n == 60 and not accepted.any()
