"""What a check of one point finds, proves, and cannot know."""

from functools import partial

import numpy as np
import pytest

import minigrad as mg
from minigrad.verify import (
    campaign,
    check_backward,
    gradcheck,
)
from verify import corpus, others
from verify.pairs import EPS, INPUTS, checked, copied, identity, squared


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


def test_cotangents_of_a_wrong_shape_are_not_held_against_differences():
    calls = []

    def forward(x):
        calls.append(x)
        return np.tanh(x), x

    report = check_backward(forward, lambda dy, x: [np.ones((1, *x.shape))], [np.ones((8, 8))])
    assert report.findings[0].kind == "shape"
    assert len(calls) < 64


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


@pytest.mark.parametrize("eps", [None, "default", {"value": 1e-5}, np.array([1e-5, 1e-3])])
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_eps_need_not_be_a_number(eps, factor, rng):
    def forward(x, gamma, beta, eps):
        xc = x - x.mean(axis=0)
        inv_std = 1 / np.sqrt((xc**2).mean(axis=0) + (eps if isinstance(eps, np.ndarray) else 1e-5))
        return gamma * xc * inv_std + beta, (xc * inv_std, inv_std, gamma)

    def backward(y_bar, cache):
        x_hat, inv_std, gamma = cache
        g = gamma * y_bar * factor
        x_bar = inv_std * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0))
        return x_bar, (y_bar * x_hat).sum(axis=0), y_bar.sum(axis=0)

    inputs = [rng.normal(size=shape) for shape in ((5, 2), 2, 2)]
    report = check_backward(forward, backward, inputs, params={"eps": eps})
    assert report.verdict == ("PROVEN" if factor == 1 else "WRONG"), str(report)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a"], [1]])
def test_names_that_do_not_match_are_bad_usage(names):
    with pytest.raises(mg.errors.UsageError, match="check_backward: names"):
        check_backward(identity, copied, [np.ones(3)], names=names)
    with pytest.raises(mg.errors.UsageError, match="gradcheck: names"):
        mg.verify.gradcheck(mg.exp, [np.ones(3)], names=names)


def test_a_normalization_is_one_whatever_its_inputs_are_called():
    forward, backward = corpus.RIGHT["closed form"]()
    names = ("images", "weight", "bias")
    assert check_backward(forward, backward, INPUTS, params=EPS, names=names, rng=None).ok


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
    ({"x": np.ones(2)}, None, "check_backward: inputs\n  expected: an array, .*\n  got:      {'x'"),
])  # fmt: skip
def test_no_inputs_and_no_dictionary_are_bad_usage(inputs, params, expected):
    with pytest.raises(mg.errors.UsageError, match=expected):
        check_backward(lambda x: (x * x, x), lambda dy, x: (2 * dy * x,), inputs, params=params)


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


@pytest.mark.parametrize("params", [None, {"scale": 2.0}])
def test_params_that_forward_needs_and_does_not_get_are_bad_usage(params):
    def forward(x, bn_param, *, scale=1.0):
        return scale * x, scale

    said = "its 1 input: bn_param, scale\n.*got: .*\n.*pass bn_param as an input or in params"
    with pytest.raises(mg.errors.UsageError, match=said):
        check_backward(forward, copied, INPUTS[:1], params=params)
    with pytest.raises(mg.errors.UsageError, match=said):
        campaign(lambda: (forward, copied), [("a point", INPUTS[:1], params)])


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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_loss_may_be_a_python_float(dtype, rng):
    x = rng.normal(size=(3, 2)).astype(dtype)

    def forward(x):
        return float((x * x).mean()), x

    assert check_backward(forward, lambda y_bar, x: y_bar * 2 * x / x.size, x).ok
    (finding,) = check_backward(forward, lambda y_bar, x: y_bar * x / x.size, x).findings
    assert finding.kind == "value" and "factor 1/2" in finding.cause


@pytest.mark.parametrize("inputs", [[], None, {"x": np.ones(2)}])
def test_inputs_that_are_no_sequence_of_arrays_are_named(inputs):
    expected = r"check_backward: inputs\n  expected: .* a sequence of one or more"
    with pytest.raises(mg.errors.UsageError, match=expected):
        check_backward(lambda x: (x, x), lambda dy, x: (dy,), inputs)


def test_integer_inputs_are_refused():
    with pytest.raises(mg.errors.DTypeError, match="int64"):
        check_backward(lambda x: (x, x), lambda dy, x: (dy,), [np.arange(3)])


def test_wrong_numbers_are_told_beside_a_wrong_form(rng):
    x = rng.uniform(1, 2, size=(3, 4))
    report = check_backward(lambda x: (np.log(x), x), lambda y_bar, x: (y_bar,), [x])
    assert report.findings[0].cause.startswith("it is y_bar; the local derivative of")
    assert "aliasing" in {finding.kind for finding in report.findings}


def test_wrong_numbers_are_told_beside_a_cotangent_that_is_read_only(rng):
    def backward(y_bar, shape):  # without / 3
        return (np.broadcast_to(y_bar[:, None], shape),)

    report = check_backward(lambda x: (x.mean(axis=1), x.shape), backward, rng.normal(size=(4, 3)))
    assert [finding.kind for finding in report.findings][:2] == ["value", "aliasing"]
    assert report.findings[0].cause.startswith("factor C = 3: perhaps a mean became a sum")


def test_of_sizes_that_are_equal_those_without_the_channels_are_told_first(rng):
    x = rng.normal(size=(3, 4, 2, 2))

    def backward(y_bar, size):
        return (np.full(x.shape, y_bar / size),)

    def forward(x):  # 12 times too much, as N C or N H W
        return x.sum() / x.size, x.size / 12

    report = check_backward(forward, backward, [x])
    assert report.findings[0].cause.startswith("factor (N H W) = 12: perhaps a mean became a sum")


def opaquely(x):
    """``x``, by a function that no tensor passes."""
    return np.frompyfunc(float, 1, 1)(x).astype(x.dtype)


@pytest.mark.parametrize(
    ("forward", "backward", "cause"),
    [
        (lambda x: x * x, lambda y_bar, x: 2 * x * y_bar * y_bar,
         "not linear in y_bar, but quadratic: one cotangent is multiplied by another"),
        (lambda x: opaquely(x) + opaquely(x).sum(axis=0), lambda y_bar, x: y_bar + y_bar.mean(0),
         "factor 1/5 in the paths between elements: perhaps a sum became a mean"),
        (lambda x: opaquely(x) + opaquely(x).mean(axis=0), lambda y_bar, x: y_bar + y_bar.sum(0),
         "factor 5 in the paths between elements: perhaps a mean became a sum"),
    ],
)  # fmt: skip
def test_mistakes_that_show_in_the_numbers_alone_are_named(forward, backward, cause):
    report = check_backward(lambda x: (forward(x), x), backward, INPUTS[:1])
    assert report.findings[0].cause == cause
