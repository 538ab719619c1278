"""Large points: compared along directions, and by complex steps where these disagree."""

from functools import partial, wraps
from itertools import pairwise

import numpy as np
import pytest

import minigrad as mg
from minigrad.verify import (
    check_backward,
    complex_step,
    gradcheck,
    jacobians,
    numeric,
    reference,
    three_way,
)

SIZES = 8, 30, 22, 10  # of a batch, an input, a hidden layer and an output: 1,142 numbers


def operands(rng, dtype=float, sizes=SIZES):
    n, *layers = sizes
    x = rng.normal(size=(n, layers[0]))
    w, v = (rng.normal(size=pair) / pair[0] ** 0.5 for pair in pairwise(layers))
    return [a.astype(dtype) for a in (x, w, 0.1 * rng.normal(size=layers[1]), v)]


def forward(x, w, b, v):
    h = np.tanh(x @ w + b)
    return np.maximum(h, -0.3) @ v, (x, w, v, h)


def backward(y_bar, cache):
    x, w, v, h = cache
    a_bar = y_bar @ v.T * (h > -0.3) * (1 - h * h)
    return a_bar @ w.T, x.T @ a_bar, a_bar.sum(0), np.maximum(h, -0.3).T @ y_bar


def spoiled(k, index, factor, pull=backward):
    """``backward`` with one element of the cotangent of input ``k`` multiplied by a factor."""

    def wrong(y_bar, cache):
        x_bars = [np.array(x_bar) for x_bar in pull(y_bar, cache)]
        x_bars[k][index] *= factor
        return x_bars

    return wrong


def counted(f):
    @wraps(f)
    def call(*args):
        call.count += 1
        return f(*args)

    call.count = 0
    return call


@pytest.fixture
def huge(monkeypatch):
    """Jacobians of more than 10,000 numbers are too large for the memory."""
    for module in numeric, reference:
        monkeypatch.setattr(module, "MAX_PAIRS", 10_000)


def test_a_large_right_backward_is_proven_along_directions(rng):
    f, inputs = counted(forward), operands(rng)
    report = check_backward(f, backward, inputs)
    assert report.verdict == "PROVEN"
    assert [note.kind for note in report.notes] == ["directions"]
    assert {row.index for row in report.rows} == {()}
    assert f.count < 2 * 1142  # differences of all elements take more than 12,000


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("error", [1e-2, 1e-6])
def test_one_wrong_element_among_many_is_found_at_its_place(k, error, rng):
    inputs = operands(rng)
    index = tuple(int(rng.integers(n)) for n in inputs[k].shape)
    report = check_backward(forward, spoiled(k, index, 1 + error), inputs)
    (finding,) = report.findings
    assert (finding.input, finding.index) == ("xwbv"[k], index)
    assert finding.got == pytest.approx(finding.expected * (1 + error), rel=1e-3 * error)


@pytest.mark.parametrize("k", range(4))
def test_a_wrong_element_of_a_huge_point_is_found_by_bisection(k, rng, huge):
    inputs = operands(rng)
    index = tuple(int(rng.integers(n)) for n in inputs[k].shape)
    report = check_backward(forward, spoiled(k, index, 1.01), inputs)
    (finding,) = report.findings
    assert (finding.input, finding.index) == ("xwbv"[k], index)
    assert finding.got == pytest.approx(1.01 * finding.expected, rel=1e-6)
    assert check_backward(forward, backward, inputs).verdict == "PROVEN"


def test_small_cotangents_are_not_hidden_by_large_ones(rng):
    def scaled(x, s):
        return x * s, (x, s)

    inputs = rng.normal(size=600), 10.0 ** -rng.uniform(0, 6, size=600)
    i = int(np.argmin(inputs[1]))

    def pull(y_bar, cache):
        x, s = cache
        return y_bar * s, y_bar * x

    report = check_backward(scaled, spoiled(0, i, 1.01, pull), inputs)
    assert [finding.index for finding in report.findings] == [(i,)]
    assert check_backward(scaled, pull, inputs).verdict == "PROVEN"


def test_elements_are_compared_where_one_can_move_very_little(rng):
    def entropy(p, w):
        return -(w * p * np.log(p)).sum(axis=1), (p, w)

    def entropy_back(y_bar, cache, one=1.0):
        p, w = cache
        return -y_bar[:, None] * w * (np.log(p) + one), -y_bar[:, None] * p * np.log(p)

    p = 10 ** -rng.uniform(0, 14, size=(30, 20))
    p, w = p / p.sum(axis=1, keepdims=True), rng.normal(size=p.shape)
    assert check_backward(entropy, entropy_back, (p, w)).verdict == "PROVEN"
    wrong = partial(entropy_back, one=1.001)
    assert {f.input for f in check_backward(entropy, wrong, (p, w)).findings} == {"p"}


def test_a_large_point_in_float32_is_compared_by_elements(rng):
    inputs = operands(rng, np.float32)
    report = check_backward(forward, backward, inputs)
    assert report.verdict == "PROVEN" and not report.notes
    (finding,) = check_backward(forward, spoiled(1, (3, 5), 1.01), inputs).findings
    assert finding.index == (3, 5)


def test_a_huge_point_in_float32_is_bad_usage(rng, huge):
    with pytest.raises(mg.errors.UsageError, match="91,360, of 1,142 and 80 elements"):
        check_backward(forward, backward, operands(rng, np.float32))


def relu(x, w):
    return np.maximum(x @ w, 0), (x, w)


def relu_back(y_bar, cache, slope=0.0):
    x, w = cache
    a_bar = y_bar * np.where(x @ w == 0, slope, x @ w > 0)
    return a_bar @ w.T, x.T @ a_bar


def test_kinks_of_a_large_point_allow_any_subgradient(rng):
    x, w = rng.normal(size=(12, 60)), rng.normal(size=(60, 9))
    x[3] = 0  # relu(0) in a whole row
    for slope in 0.0, 1.0:
        report = check_backward(relu, lambda y_bar, c, s=slope: relu_back(y_bar, c, s), (x, w))
        assert report.verdict == "PROVEN"
    assert check_backward(relu, lambda y_bar, c: relu_back(y_bar, c, 2.0), (x, w)).findings


def test_kinks_of_a_huge_point_accuse_nobody(rng, huge):
    x, w = rng.normal(size=(12, 60)), rng.normal(size=(60, 9))
    x[3] = 0
    report = check_backward(relu, relu_back, (x, w))
    assert report.ok and not report.findings
    assert "there may be kinks" in str(report) and "VACUOUS for x" in str(report)


ANALYTIC = {
    "tanh": np.tanh,
    "mask": lambda x: np.where(x > 0, x * x, 0.1 * x),
    "maximum": lambda x: np.maximum(x, 0.1).max(axis=1),
    "norm": lambda x: (x - x.mean(1, keepdims=True)) / np.sqrt((x**2).mean(1, keepdims=True)),
    "logsumexp": lambda x: np.log(np.exp(x).sum(axis=1)),
    "power": lambda x: (x * x + 1) ** -0.3 + x**3,
}


def by_complex_steps(f, x):
    point = [x], [numeric.default_scale(x)]
    return complex_step.complex_jacobians(f, *point, numeric.noise_of(f, *point), x.size)


@pytest.mark.parametrize("f", ANALYTIC.values(), ids=ANALYTIC)
def test_complex_steps_give_the_jacobian_of_an_analytic_function(f, rng):
    x = rng.normal(size=(3, 4))
    y_bar = rng.normal(size=f(x).shape)
    (found, error, _), (right, room, _) = (
        jacobian.pull(y_bar) for (jacobian,) in (by_complex_steps(f, x), jacobians(f, [x]))
    )
    assert (np.abs(found - right) <= error + room).all()
    assert error.max() < 1e-12


@pytest.mark.parametrize("f", [
    lambda x: np.abs(x) * x, lambda x: x / x.std(axis=1, keepdims=True), np.cbrt, np.sign,
    lambda x: x.astype(float), lambda x: x.real * x, lambda x: np.maximum(x, x.conj() + 1e-9),
])  # fmt: skip
def test_complex_steps_are_refused_where_they_would_be_wrong(f, rng):
    assert by_complex_steps(f, rng.normal(size=(3, 4))) is None


def loss(x, w, b, v):
    return mg.ops.cross_entropy(mg.tanh(x @ w + b) @ v, np.arange(8))


@pytest.mark.parametrize("order", [1, 2])
def test_gradcheck_proves_a_large_function_along_directions(order, rng):
    f = counted(loss)
    report = gradcheck(f, operands(rng), order=order)
    assert report.verdict == "PROVEN" and len(report.rows) == 8 * order
    assert [note.kind for note in report.notes] == ["directions"] * order
    assert f.count < 1142 * order


@pytest.mark.parametrize("order", [1, 2])
def test_gradcheck_finds_a_wrong_derivative_of_a_large_function(order, rng):
    def detached(x, w, b, v):
        scale = (
            (w * w).sum().detach() if order == 1 else (mg.grad(lambda w: (w * w).sum())(w)).detach()
        )
        return loss(x, w, b, v) + (scale * w * w).sum() * 1e-3

    report = gradcheck(detached, operands(rng), order=order)
    assert [finding.input for finding in report.findings] == ["w"]


@pytest.mark.parametrize("limit", [2**25, 10_000])
def test_gradcheck_locates_a_wrong_element_of_a_large_function(limit, rng, monkeypatch):
    def detached(x, w, b, v):
        first = w[3, 5]
        return mg.tanh(x @ w + b) @ v + first.detach() * first

    monkeypatch.setattr(reference, "MAX_PAIRS", limit)
    f = counted(detached)
    (finding,) = gradcheck(f, operands(rng)).findings
    assert finding.input == "w" and finding.index == (3, 5)
    assert f.count < 4 * 1142  # differences of all elements take more than 12,000


def test_gradcheck_accuses_no_kinks_of_a_huge_function(rng, huge):
    x, w = rng.normal(size=(12, 90)), rng.normal(size=(90, 9))
    x[3] = 0
    report = gradcheck(lambda x, w: mg.relu(x @ w), [x, w])
    assert report.ok and "there may be kinks" in str(report)


def layers(x, w, b, v):
    h = np.tanh(x @ w + b)
    return h @ v, (x, w, v, h)


def layers_back(y_bar, cache, slope=lambda h: 1 - h * h, bias=np.sum):
    x, w, v, h = cache
    a_bar = y_bar @ v.T * slope(h)
    return a_bar @ w.T, x.T @ a_bar, bias(a_bar, axis=0), h.T @ y_bar


CAUSES = {
    "slope": ({"slope": lambda h: 1 - h}, "x", "(line {}) should be 1 - h^2, not 1 - h"),
    "mean": ({"bias": np.mean}, "b", "factor 1/N = 1/3: perhaps a sum became a mean (with a batch"),
}


@pytest.mark.parametrize("wrong", CAUSES)
@pytest.mark.parametrize("sizes", [SIZES, (16, 300, 40, 10)], ids=["large", "huge"])
def test_the_cause_at_a_large_point_is_sought_in_a_few_rows(wrong, sizes, rng, monkeypatch):
    if sizes != SIZES:
        monkeypatch.setattr(reference, "MAX_PAIRS", 10_000)
    mistake, name, words = CAUSES[wrong]
    pull = partial(layers_back, **mistake)
    finding = check_backward(layers, pull, operands(rng, sizes=sizes)).findings[0]
    line = layers.__code__.co_firstlineno + 1
    assert finding.input == name and words.format(line) in finding.cause


def test_a_wrong_batch_norm_inside_a_large_network_has_a_cause(rng):
    def forward(x, w, gamma, beta):
        a = x @ w
        xc = a - a.mean(0)
        inv_std = 1 / np.sqrt((xc * xc).mean(0) + 1e-5)
        return gamma * (xc * inv_std) + beta, (x, w, gamma, xc, inv_std)

    def without_mean(y_bar, cache):
        x, w, gamma, xc, inv_std = cache
        g, x_hat = y_bar * gamma, xc * inv_std
        a_bar = inv_std * (g - x_hat * (g * x_hat).mean(0))
        return a_bar @ w.T, x.T @ a_bar, (y_bar * x_hat).sum(0), y_bar.sum(0)

    x, w = rng.normal(size=(20, 40)), rng.normal(size=(40, 12))
    report = check_backward(forward, without_mean, (x, w, np.ones(12), np.zeros(12)))
    assert "missing path through `a.mean(0)`" in report.findings[0].cause


def test_a_mistake_in_rows_that_are_cut_is_sought_in_all_of_them(rng):
    def last_row(y_bar, cache):
        x_bar, *others = layers_back(y_bar, cache)
        x_bar[-1] *= 2
        return x_bar, *others

    (finding,) = check_backward(layers, last_row, operands(rng)).findings
    assert finding.cause == "only the last row is wrong: factor 2"


def test_three_ways_agree_along_the_directions_of_a_large_point(rng):
    inputs = rng.normal(size=(32, 3, 6, 6)), rng.normal(size=3), rng.normal(size=3)
    report = three_way(mg.batch_norm, mg.analytic.batch_norm_vjp, inputs)
    assert report.verdict == "PROVEN" and {row.index for row in report.rows} == {()}
    assert max(row.error for row in report.rows if row.pair == "traced/analytic") < 1e-13

    def wrong(xp, y_bar, x, gamma, beta):
        x_bar, *others = mg.analytic.batch_norm_vjp(xp, y_bar, x, gamma, beta)
        x_bar[3, 1, 2, 5] *= 1 + 1e-4
        return x_bar, *others

    (finding,) = three_way(mg.batch_norm, wrong, inputs).findings
    assert (finding.input, finding.index, finding.cause) == ("x", (3, 1, 2, 5), "analytic")


def test_columns_that_are_wrong_in_a_few_rows_are_not_told_of_all(rng):
    def network(x, w, labels):
        z = x @ w
        e = np.exp(z)
        p = e / e.sum(1, keepdims=True)
        return -np.log(p[np.arange(len(x)), labels]).sum(), (x, w, p)

    def without_labels(loss_bar, cache):
        x, w, p = cache
        return p * loss_bar @ w.T, x.T @ (p * loss_bar)

    params = {"labels": np.arange(16) % 10}
    inputs = rng.normal(size=(16, 100)), rng.normal(size=(100, 10)) / 10
    findings = check_backward(network, without_labels, inputs, params=params).findings
    (cause,) = (f.cause for f in findings if f.input == "w")
    assert cause.startswith("only columns [0, 1, 2] are wrong")
    assert cause.endswith("(with a batch of 3)")


def test_a_wrong_element_of_a_slow_point_is_found_without_comparing_all(rng, monkeypatch):
    def last(y_bar, cache):  # of all rows: a few have no such element
        x_bar, *others = backward(y_bar, cache)
        x_bar[7:8] *= 1.01
        return x_bar, *others

    monkeypatch.setattr(reference, "_MOST_COLUMNS", 1141)
    monkeypatch.setattr(reference, "complex_jacobians", None)
    f, inputs = counted(forward), operands(rng)
    (finding,) = check_backward(f, last, inputs).findings
    assert finding.input == "x" and finding.index[0] == 7 and not finding.cause


def counted_at_all_rows(f):
    @wraps(f)
    def call(x, *others):
        call.count += len(x) == SIZES[0]
        return f(x, *others)

    call.count = 0
    return call


def test_rounding_at_a_large_point_is_told_by_complex_steps(rng):
    def without_cause(y_bar, cache):
        x_bar, *others = layers_back(y_bar, cache)
        return x_bar * (1 + 1e-9 * np.cos(x_bar)), *others

    f = counted_at_all_rows(layers)
    assert check_backward(f, without_cause, operands(rng)).findings
    assert f.count < 20_000  # differences at 4 points nearby take another 40,000


@pytest.mark.parametrize(("factor", "words"), [(1 / 3, "exponent"), (1.5, "factor 1.5")])
def test_a_constant_factor_is_not_taken_for_the_size_of_a_few_rows(factor, words, rng):
    def cubed(x, w):
        return (x @ w) ** 3, (x, w)

    def scaled(y_bar, cache):
        x, w = cache
        a_bar = y_bar * factor * 3 * (x @ w) ** 2
        return a_bar @ w.T, x.T @ a_bar

    inputs = rng.normal(size=(16, 60)), rng.normal(size=(60, 12)) / 8
    for finding in check_backward(cubed, scaled, inputs).findings:
        assert words in finding.cause and "batch" not in finding.cause


def test_few_rows_are_confirmed_by_few_calls(rng):
    f = counted(layers)
    wrong = partial(layers_back, slope=lambda h: 1 - h)
    assert "1 - h^2" in check_backward(f, wrong, operands(rng)).findings[0].cause
    assert f.count < 10_000  # the Jacobian of 3 rows and that of 2 take 20,000


def test_a_bias_before_a_batch_norm_needs_no_comparison_of_elements(rng):
    def forward(x, w, b, gamma):
        a = x @ w + b
        xc = a - a.mean(0)
        inv_std = 1 / np.sqrt((xc * xc).mean(0) + 1e-5)
        return np.maximum(gamma * xc * inv_std, 0), (x, w, gamma, xc * inv_std, inv_std)

    def backward(y_bar, cache):
        x, w, gamma, x_hat, inv_std = cache
        a_bar = y_bar * (gamma * x_hat > 0)
        gamma_bar, g = (a_bar * x_hat).sum(0), a_bar * gamma
        g = inv_std * (g - g.mean(0) - x_hat * (g * x_hat).mean(0))
        return g @ w.T, x.T @ g, g.sum(0), gamma_bar

    x, w = rng.normal(size=(20, 40)), rng.normal(size=(40, 12))
    f = counted(forward)
    report = check_backward(f, backward, (x, w, np.zeros(12), np.ones(12)))
    assert "PROVEN, but VACUOUS for b" in str(report)
    assert [note.kind for note in report.notes] == ["directions"]
    assert f.count < 1304


@pytest.mark.filterwarnings("error")
def test_gradcheck_of_a_large_function_warns_of_no_steps_out_of_its_domain(rng):
    x = rng.uniform(0.01, 2, size=(40, 40))
    assert gradcheck(mg.log, [x]).verdict == "PROVEN"


def test_an_empty_input_of_a_large_function_has_no_note_of_its_own(rng):
    def forward(x, w, empty):
        return np.tanh(x @ w) + empty.sum(), (x, w, empty, np.tanh(x @ w))

    def backward(y_bar, cache):
        x, w, empty, t = cache
        a_bar = y_bar * (1 - t * t)
        return a_bar @ w.T, x.T @ a_bar, np.zeros_like(empty)

    inputs = rng.normal(size=(20, 40)), rng.normal(size=(40, 12)) / 6, np.zeros((0, 3))
    report = check_backward(forward, backward, inputs)
    assert report.ok and [note.kind for note in report.notes] == ["directions"]


def test_a_network_of_many_layers_takes_seconds(rng):
    def forward(x, *weights):  # 33 inputs have 2^33 subsets
        layers = [x]
        for w in weights:
            layers.append(np.tanh(layers[-1] @ w))
        return layers[-1], (layers, weights)

    def backward(h_bar, cache):
        (*before, _), (_, *after), weights = cache[0], cache[0], cache[1]
        weights_bar = []
        for x, w, h in zip(before[::-1], weights[::-1], after[::-1], strict=True):
            a_bar = h_bar * (1 - h * h)
            weights_bar.append(x.T @ a_bar)
            h_bar = a_bar @ w.T
        return h_bar, *weights_bar[::-1]

    weights = [rng.normal(size=(6, 6)) / 6**0.5 for _ in range(32)]
    assert check_backward(forward, backward, [rng.normal(size=(4, 6)), *weights]).ok
