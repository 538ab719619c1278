"""What rounds is no fault, and no fault is taken for what rounds: at points where much cancels."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import minigrad as mg

SEEDS = range(8)
erf, erfc = (np.vectorize(f, otypes=[float]) for f in (math.erf, math.erfc))


def sigmoid(x):
    y = 1 / (1 + np.exp(-x))
    return y, y.copy()


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    y = e / e.sum(1, keepdims=True)
    return y, y.copy()


def confident(x):  # cross entropy with the class 0
    y = softmax(x)[0]
    return -np.log(y[:, 0]).mean(), y


def confident_in_float64(x):
    return confident(x.astype(np.float64))


def confident_back(y_bar, y):
    return (y_bar * (y - np.eye(y.shape[1], dtype=y.dtype)[0]) / len(y),)


def softmax_back(y_bar, y):
    return (y * (y_bar - (y_bar * y).sum(1, keepdims=True)),)


def normalized(x):
    xc = x - x.mean(0)
    inv_std = 1 / np.sqrt((xc * xc).mean(0) + x.dtype.type(1e-5))
    return xc * inv_std, inv_std


def normalized_back(g, x_hat, inv_std):
    return (inv_std * (g - g.mean(0) - x_hat * (g * x_hat).mean(0)),)


def scaled(scale, *shape, shift=0.0):
    return lambda rng: scale * rng.normal(size=shape) + shift


RIGHT = {
    "tanh": (
        lambda x: (np.tanh(x), np.tanh(x)),
        lambda y_bar, y: (y_bar * (1 - y * y),),
        scaled(10, 5),
    ),
    "sigmoid": (sigmoid, lambda y_bar, y: (y_bar * y * (1 - y),), scaled(1, 5, shift=15)),
    "softmax": (softmax, softmax_back, scaled(20, 3, 4)),
    "confident": (confident, confident_back, scaled(1, 4, 3, shift=np.array([20.0, 0, 0]))),
    "log cosh": (
        lambda x: (np.log(np.cosh(x)), x),
        lambda y_bar, x: (y_bar * np.tanh(x),),
        scaled(1e-4, 5),
    ),
    "exp - 1": (
        lambda x: (np.exp(x) - 1, x),
        lambda y_bar, x: (y_bar * np.exp(x),),
        scaled(1e-5, 5),
    ),
    "half the squares": (
        lambda x: (lambda x_hat, s: ((x_hat * x_hat).sum() / 2, (x_hat, s)))(*normalized(x)),
        lambda y_bar, cache: normalized_back(y_bar * cache[0], *cache),
        scaled(1, 5, 3),
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_code_is_proven_where_much_cancels(name, dtype):
    forward, backward, draw = RIGHT[name]
    for seed in SEEDS:
        x = draw(np.random.default_rng(seed)).astype(dtype)
        mg.verify.check_backward(forward, backward, [x], rng=seed).raise_if_failed()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_rounding_leaves_of_a_gradient_that_vanishes_is_not_wrong(dtype):
    def forward(x):
        x_hat, inv_std = normalized(x)
        return x_hat.sum(), (x_hat, inv_std)

    def backward(y_bar, cache):
        return normalized_back(y_bar * np.ones_like(cache[0]), *cache)

    for seed in SEEDS:
        x = np.random.default_rng(seed).normal(size=(5, 3)).astype(dtype)
        report = mg.verify.check_backward(forward, backward, [x], rng=seed)
        assert not report.findings, report


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_ways_agree_on_saturated_points(scale, dtype):
    def tanh_vjp(xp, y_bar, x):
        return (y_bar * (1 - xp.tanh(x) ** 2),)

    def softmax_vjp(xp, y_bar, x):
        return softmax_back(y_bar, softmax(x)[0])

    for seed in SEEDS:
        x = (scale * np.random.default_rng(seed).normal(size=(3, 4))).astype(dtype)
        mg.verify.three_way(mg.tanh, tanh_vjp, [x], rng=seed).raise_if_failed()
        mg.verify.three_way(mg.softmax, softmax_vjp, [x], rng=seed).raise_if_failed()
        mg.verify.gradcheck(mg.softmax, [x], order=2, rng=seed).raise_if_failed()


def test_op_is_proven_where_its_function_rounds_more_than_its_size_tells():
    def log_cosh(x):
        return mg.mean(mg.log((mg.exp(x) + mg.exp(-x)) / 2))

    for seed in SEEDS:
        x = (1e-2 * np.random.default_rng(seed).normal(size=5)).astype("float32")
        mg.verify.gradcheck(log_cosh, [x], rng=seed).raise_if_failed()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("target", [0, 1])
def test_loss_of_a_batch_norm_is_proven_far_from_0(target, dtype):
    def forward(x):
        x_hat, inv_std = normalized(x)
        return ((x_hat - target) ** 2).mean(), (x_hat, inv_std)

    def backward(y_bar, cache):
        g = y_bar * 2 * (cache[0] - target) / cache[0].size
        return normalized_back(g.astype(y_bar.dtype), *cache)

    for seed in SEEDS:
        x = (np.random.default_rng(seed).normal(size=(5, 3)) + 1e4).astype(dtype)
        mg.verify.check_backward(forward, backward, [x], rng=seed).raise_if_failed()


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "tanh", "confident"])
def test_no_point_that_hypothesis_finds_accuses_right_code(name):
    forward, backward, _ = RIGHT[name]
    elements = st.floats(-50, 50, width=32)
    points = arrays("float32", (3, 4), elements=elements).map(lambda x: ("", [x], {}))
    report = mg.verify.campaign(lambda: (forward, backward), points)
    assert not report.findings, report


def test_element_whose_derivative_is_infinite_is_not_judged():
    x = np.array([0.0, 1.0, 4.0])

    def forward(x):
        return np.sqrt(x), x

    def backward(y_bar, x, factor=1.0):
        with np.errstate(all="ignore"):
            return (y_bar * factor / (2 * np.sqrt(x)),)

    assert not mg.verify.check_backward(forward, backward, [x]).findings
    wrong = mg.verify.check_backward(forward, partial(backward, factor=1.01), [x])
    assert wrong.findings[0].kind == "value"


def one_wrong(rule, index, factor):
    """A backward pass whose cotangent is wrong in one element."""

    def backward(y_bar, x):
        x_bar = rule(y_bar, x)
        x_bar[index] *= x_bar.dtype.type(factor)
        return (x_bar,)

    return backward


BESIDE_STEEP = {
    "1/x, sign": (lambda x: 1 / x, lambda g, x: -g / x**2, [1e-3, 1.0], -1),
    "1/x, half": (lambda x: 1 / x, lambda g, x: -g / x**2, [3e-3, 0.4, 1.5, -2.0], 1.5),
    "exp, sign": (np.exp, lambda g, x: g * np.exp(x), [15.0, 0.0, -1.0], -1),
    "square, zero": (np.square, lambda g, x: 2 * g * x, [1e4, 1e-3], 0),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", BESIDE_STEEP)
def test_wrong_element_beside_a_steep_one_is_found(name, dtype):
    f, rule, x, factor = BESIDE_STEEP[name]
    x = np.array(x, dtype)
    report = mg.verify.check_backward(lambda x: (f(x), x), one_wrong(rule, -1, factor), [x])
    assert report.findings[0].index == (len(x) - 1,)
    right = mg.verify.check_backward(lambda x: (f(x), x), one_wrong(rule, -1, 1), [x])
    assert right.ok, right


def test_fault_as_small_as_rounding_is_found_by_staying_in_wider_numbers():
    def forward(x):
        return np.logaddexp(x, 0), x

    def backward(y_bar, x, factor=1.04):
        return (y_bar * factor * np.exp(x) / (1 + np.exp(x)),)

    x = np.array([-36.0, -35.0])  # all derivatives are of the size of eps
    assert mg.verify.check_backward(forward, backward, [x]).findings[0].kind == "value"


@pytest.mark.parametrize("seed", [1, 4])  # at which a huge cotangent was shown
def test_where_nothing_is_off_the_row_has_the_bound_of_a_random_cotangent(seed):
    def backward(y_bar, kept):
        w_bar = np.zeros(kept[0], y_bar.dtype)
        np.add.at(w_bar, kept[1], y_bar)
        return (w_bar,)

    def rows(w, ids):
        return w[ids], (w.shape, ids)

    w, ids = np.random.default_rng(seed).normal(size=7), np.array([1, 1, 3])
    report = mg.verify.check_backward(rows, backward, [w], params={"ids": ids}, rng=seed)
    (row,) = report.rows
    assert row.verdict == "proven" and row.error == 0
    assert row.bound < 1e-12  # of two summands about 1 and of differences


@pytest.mark.parametrize("scale", [0.1, 0.01, 0.001])
def test_backward_rounds_as_much_as_its_forward_where_numbers_of_size_1_cancel(scale):
    def forward(x):
        return x - np.sin(x), x

    def backward(y_bar, x, factor=1):
        return (factor * y_bar * (1 - np.cos(x)),)

    for seed in SEEDS:
        x = scale * np.random.default_rng(seed).uniform(0.1, 2, size=5)
        assert mg.verify.check_backward(forward, backward, [x]).verdict == "PROVEN", seed
        wrong = partial(backward, factor=1 + 1e-6)  # this does not vanish in wider numbers
        assert mg.verify.check_backward(forward, wrong, [x]).verdict == "WRONG", seed


def test_right_code_is_proven_where_all_units_are_saturated():
    w = np.random.default_rng(5).normal(size=(3, 2)).astype("f4")

    def backward(y_bar, x):
        return ((y_bar * (1 - np.tanh(x @ w) ** 2)) @ w.T,)

    for seed in SEEDS:
        x = 30 * np.random.default_rng(seed).normal(size=(4, 3)).astype("f4")
        report = mg.verify.check_backward(lambda x: (np.tanh(x @ w), x), backward, [x], rng=seed)
        assert report.ok, str(report)


def gelu_by_erf(x):
    return 0.5 * x * (1 + erf(x / 2**0.5)), x


def gelu_by_erf_back(y_bar, x):
    pdf = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return (y_bar * (0.5 * (1 + erf(x / 2**0.5)) + x * pdf),)


def gelu_by_erfc(x):
    return 0.5 * x * erfc(-x / 2**0.5), x


def gelu_by_erfc_back(y_bar, x):
    pdf = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return (y_bar * (0.5 * erfc(-x / 2**0.5) + x * pdf),)


def gelu_by_tanh(x):
    return 0.5 * x * (1 + np.tanh(0.8 * x + 0.036 * x**3)), x


def gelu_by_tanh_back(y_bar, x):
    t = np.tanh(0.8 * x + 0.036 * x**3)
    return (y_bar * 0.5 * (1 + t + x * (1 - t * t) * (0.8 + 0.108 * x * x)),)


@pytest.mark.parametrize("middle", [-9, -8, -7, -6, 6, 7, 8, 9])
def test_right_gelu_is_accused_nowhere_in_its_tails(middle):
    # erf is one of float64, with digits that are seen or not depending on the step
    for seed in SEEDS:
        x = middle + 0.3 * np.random.default_rng(seed).normal(size=5)
        for forward, backward in (
            (gelu_by_erf, gelu_by_erf_back),
            (gelu_by_erfc, gelu_by_erfc_back),
            (gelu_by_tanh, gelu_by_tanh_back),
        ):
            report = mg.verify.check_backward(forward, backward, [x], rng=seed)
            assert not report.findings, str(report)


@pytest.mark.parametrize("margin", [20, 30, 33, 35, 36, 37, 40, 60])
def test_right_cross_entropy_is_accused_nowhere_however_sure_of_its_class(margin):
    labels = np.zeros(4, int)
    for seed in SEEDS:
        x = np.random.default_rng(seed).normal(size=(4, 3))
        x[:, 0] += margin  # from 37 on, 1 + exp(-margin) is 1
        reports = [
            mg.verify.check_backward(confident, confident_back, [x], rng=seed),
            mg.verify.check_backward(confident_in_float64, confident_back, [x], rng=seed),
            mg.verify.gradcheck(lambda x: mg.cross_entropy(x, labels), [x], rng=seed),
        ]
        for report in reports:
            assert not report.findings, str(report)
            assert report.ok or margin > 30, str(report)


@pytest.mark.parametrize("centre", [-7, -6, -5, 0, 5])
def test_right_gelu_is_proven_with_an_erf_that_only_knows_float64(centre):
    erf = np.vectorize(math.erf, otypes=[np.float64])

    def forward(x):  # in long double x is finer than 1 + erf, and the result is long double
        return x * 0.5 * (1 + erf(x / math.sqrt(2))), x

    def backward(y_bar, x):
        density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return (y_bar * (0.5 * (1 + erf(x / math.sqrt(2))) + x * density),)

    for seed in SEEDS:
        x = np.random.default_rng(seed).normal(centre, 0.3, size=5)
        report = mg.verify.check_backward(forward, backward, [x], rng=seed)
        assert not report.findings, str(report)


def test_fault_is_found_where_channels_mix_at_some_points_only():
    point = np.random.default_rng(0).normal(size=(4, 3))

    def forward(x):
        y = np.exp(x)
        return (y + x.sum() if (x != point).all() else y), y

    report = mg.verify.check_backward(forward, lambda y_bar, y: (2 * y_bar * y,), [point])
    assert report.verdict == "WRONG"


def turn(x):
    return np.stack([-x[1], x[0]])


def turn_back(y_bar, by=np.pi / 2):
    turned = [[np.cos(by), -np.sin(by)], [np.sin(by), np.cos(by)]]
    return np.array(turned, y_bar.dtype).T @ y_bar


def shift_back(y_bar):
    phases = np.exp(2j * np.pi * np.fft.fftfreq(len(y_bar)) * 2)
    return np.fft.ifft(np.fft.fft(y_bar) * phases).real.astype(y_bar.dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("f", "back", "shape"), [
    (turn, turn_back, (2, 4)), (lambda x: np.roll(x, 2), shift_back, (7,)),
])  # fmt: skip
def test_what_cancels_where_a_derivative_is_exactly_0_is_rounding(f, back, shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    check = partial(mg.verify.check_backward, lambda x: (f(x), None), inputs=[x])
    assert check(lambda y_bar, _: (back(y_bar),)).verdict == "PROVEN"
    more = np.finfo(dtype).eps ** 0.75  # beside which no rounding counts
    wrong = check(lambda y_bar, _: (back(y_bar) + np.asarray(more, dtype) * y_bar[::-1],))
    assert wrong.verdict == "WRONG"


def test_no_effect_of_rounding_is_computed_for_an_error_that_is_none():
    rng, calls = np.random.default_rng(0), []

    def forward(x, w):
        calls[-1] += 1
        h = np.tanh(x @ w)
        return h, (x, w, h)

    for slope in (lambda h: 1 - h * h, lambda h: 1 - h):

        def backward(y_bar, cache, slope=slope):
            x, w, h = cache
            a_bar = y_bar * slope(h)
            return a_bar @ w.T, x.T @ a_bar

        calls.append(0)
        inputs = rng.normal(size=(6, 5)), rng.normal(size=(5, 4))
        assert mg.verify.check_backward(forward, backward, inputs).ok == (len(calls) == 1)
    of_right, of_wrong = calls
    assert of_wrong < of_right  # the effect at four points would take twice as many
