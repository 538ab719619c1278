"""A wrong backward of any function is told with the code of the forward where it goes wrong."""

import inspect
import re
import time
from functools import partial

import numpy as np
import pytest

from minigrad.verify import check_backward
from minigrad.verify.expression import quote
from minigrad.verify.subject import Subject
from minigrad.verify.traced import trace
from verify import students


def check(make, mistake, shapes, seed=5):
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=shape) for shape in shapes.values()]
    return check_backward(*make(mistake), inputs, names=list(shapes))


@pytest.mark.parametrize("name", students.PAIRS)
def test_a_right_backward_of_a_student_is_not_accused(name):
    make, shapes = students.PAIRS[name]
    report = check(make, "", shapes)
    assert report.ok, str(report)


@pytest.mark.parametrize(("name", "mistake"), students.MISTAKES)
def test_a_mistake_is_told_with_its_place(name, mistake):
    make, shapes = students.PAIRS[name]
    report = check(make, mistake, shapes)
    assert not report.ok
    words = re.escape(students.MISTAKES[name, mistake]).replace(r"\{\}", r"\d+")
    causes = [finding.cause for finding in report.findings]
    assert all(causes), str(report)
    assert any(re.search(words, cause) for cause in causes), str(report)


def causes(forward, backward, *inputs, names=None):
    report = check_backward(forward, backward, inputs, names=names)
    assert not report.ok
    return [finding.cause for finding in report.findings]


def test_the_line_is_that_of_the_code():
    code, start = inspect.getsourcelines(students._attention)
    line = start + next(i for i, text in enumerate(code) if "e / e.sum" in text)
    finding = check(*students.PAIRS["attention"][:1], "no sum", students.PAIRS["attention"][1])
    assert f"`e.sum(axis=1, keepdims=True)` (line {line})" in finding.findings[0].cause


def test_code_over_several_lines_is_one_expression(rng):
    def forward(x):
        scale = np.exp(
            x.mean(axis=1, keepdims=True),
        )
        return x * scale, scale

    found = causes(forward, lambda y_bar, scale: (y_bar * scale,), rng.normal(size=(3, 4)))
    assert found[0].startswith("missing path through `x.mean(axis=1, keepdims=True)` (line ")


def test_both_lines_of_a_function_that_forward_calls_are_told(rng):
    def softplus(x):
        return np.log(1 + np.exp(x))

    def forward(x):
        return softplus(x) * x, x

    def backward(y_bar, x):
        return (y_bar * softplus(x),)

    (found,) = causes(forward, backward, rng.normal(size=(2, 3)))
    start = inspect.getsourcelines(forward)[1]
    assert found.endswith(f"`np.exp(x)` (line {start - 2}, called in line {start + 1})")


def test_a_method_has_its_array_as_operand(rng):
    def forward(x, lo):
        return np.maximum(x, lo).clip(-9, 9), (x, lo)

    def backward(y_bar, cache):
        x, lo = cache
        return y_bar * (x > lo), (y_bar * (x > lo)).sum()

    found = causes(forward, backward, rng.normal(size=(4, 3)), np.array(0.1), names=["x", "lo"])
    assert len(found) == 1


def test_a_forward_that_fills_an_array_has_a_cause_without_a_place(rng):
    def forward(x):
        y = np.empty_like(np.asarray(x))
        for i in range(len(y)):
            y[i] = np.sin(x[i])
        return y, x

    (found,) = causes(forward, lambda y_bar, x: (y_bar * x,), rng.normal(size=5))
    assert "line" not in found


@pytest.mark.parametrize(
    "move",
    [
        np.ravel, np.copy, np.diag, np.triu, lambda x: np.tile(x, (2, 1)), lambda x: x.repeat(2),
        lambda x: np.hstack([x, np.ones((4, 1))]), lambda x: np.roll(x, 1, axis=0),
        lambda x: np.take_along_axis(x, np.array([[0, 0], [1, 3], [2, 1], [3, 2]]), axis=1),
        lambda x: np.outer(x[0], x[1]),
    ],
)  # fmt: skip
def test_a_function_that_moves_elements_is_followed(move, rng):
    assert_followed(move, rng)


def assert_followed(f, rng):
    def forward(x):
        h = np.exp(x)
        return f(h), h

    x = rng.normal(size=(4, 4))
    graph = trace(Subject(forward, None, (x,), {}, ("x",)))
    y_bar = rng.normal(size=forward(x)[0].shape)
    (found,), _ = graph.pull(y_bar)
    ways = 1e-6 * np.eye(16).reshape(16, 4, 4)
    slopes = [((forward(x + w)[0] - forward(x - w)[0]) * y_bar).sum() / 2e-6 for w in ways]
    np.testing.assert_allclose(found.reshape(-1), slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.log(np.cosh(x - 1)), lambda x: np.sinh(x / 4), np.log2, np.log10,
        lambda x: np.hypot(x, 2), np.diff, lambda x: np.diff(x, axis=0), lambda x: np.vdot(x, x.T),
        lambda x: np.logaddexp.reduce(x), lambda x: np.logaddexp.reduce(x, axis=1),
        lambda x: x * np.full_like(x, 0.25),
    ],
)  # fmt: skip
def test_a_function_that_ops_express_is_followed(f, rng):
    assert_followed(f, rng)


def test_a_list_that_is_made_an_array_is_followed(rng):
    def forward(x):
        return np.array([np.sin(one) for one in x]), x

    graph = trace(Subject(forward, None, (rng.normal(size=5),), {}, ("x",)))
    assert "np.sin(one)" in " ".join(map(quote, graph.consumers))


def test_a_copy_that_is_changed_leaves_its_original_as_it_is(rng):
    def forward(x):
        y = np.array(x)
        y[0] = 5
        return x * y, x

    x = rng.normal(size=3)
    graph = trace(Subject(forward, None, (x,), {}, ("x",)))
    np.testing.assert_array_equal(graph.root.value, forward(x)[0])


def test_of_a_loss_no_derivative_is_blamed_for_whatever_came(rng):
    """All cotangents of a value are multiples of each other there."""
    off, hot = rng.normal(size=(3, 3)), np.eye(3)[[0, 2, 1]]

    def forward(z):
        e = np.exp(z)
        p = e / e.sum(axis=1, keepdims=True)
        return -(np.log(p) * hot).sum(), p

    def backward(y_bar, p, off=off):
        return (y_bar * (p - hot + off),)

    z = rng.normal(size=(3, 3))
    assert check_backward(forward, partial(backward, off=0), [z]).ok
    assert not any("derivative" in cause for cause in causes(forward, backward, z))

    def unsigned(y_bar, diff):
        return (y_bar * 2 * np.abs(diff) / diff.size,)

    def squares(z, target):
        diff = z - target
        return (diff**2).mean(), diff

    (found,) = causes(partial(squares, target=hot), unsigned, z)
    assert "should be 2 diff, not 2 |diff|" in found


def test_of_a_loss_with_ignored_examples_no_derivative_is_blamed_for_whatever_came(rng):
    rows, labels = np.array([0, 1, 3]), np.array([2, 0, 1])

    def forward(z):
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -log_p[rows, labels].mean(), np.exp(log_p)

    def backward(y_bar, p, shift=0):
        z_bar = np.zeros_like(p)
        z_bar[rows] = p[rows] - np.eye(3)[(labels + shift) % 3]
        return (y_bar * z_bar / 3,)

    z = rng.normal(size=(4, 3))
    assert check_backward(forward, backward, [z]).ok
    (found,) = causes(forward, partial(backward, shift=1), z)
    assert "derivative" not in found, found


def test_a_bias_that_centering_removes_hides_no_place(rng):
    def forward(x, w, b, v):
        a = x @ w + b
        h = np.tanh(a - 1 / 5 * a.sum(axis=0))
        return np.exp(h @ v).mean(), (x, w, v, h)

    def backward(y_bar, cache, n=2):
        x, w, v, h = cache
        z_bar = y_bar / 10 * np.exp(h @ v)
        g = z_bar @ v.T * (1 - h**n)
        a_bar = g - g.mean(axis=0)
        return a_bar @ w.T, x.T @ a_bar, a_bar.sum(axis=0), h.T @ z_bar

    inputs = [rng.normal(size=shape) for shape in ((5, 3), (3, 4), (4,), (4, 2))]
    assert check_backward(forward, backward, inputs).ok
    found = causes(forward, partial(backward, n=1), *inputs)
    assert all("on the way back from `h @ v`" in cause for cause in found), found


def test_a_missing_exponent_is_told_from_another_factor_of_that_size(rng):
    def forward(a, b):
        d = a * b + b**3
        return 3 * d, (a, b)

    def backward(y_bar, cache, exponent=3):
        a, b = cache
        d_bar = 3 * y_bar
        return d_bar * b, d_bar * (a + exponent * b**2)

    inputs = list(rng.normal(size=(2, 4)))
    assert check_backward(forward, backward, inputs).ok
    (found,) = causes(forward, partial(backward, exponent=1), *inputs)
    assert "the exponent of `b**3`" in found and "3 * d" not in found


def test_of_a_variance_by_hand_the_other_divisor_is_told(rng):
    def forward(x):
        n = len(x)
        diff = x - x.mean(axis=0)
        return diff / (1 / (n - 1) * (diff**2).sum(axis=0)), diff

    def backward(y_bar, diff, off=1):
        n = len(diff)
        var = (diff**2).sum(axis=0) / (n - 1)
        var_bar = -(y_bar * diff).sum(axis=0) / var**2
        bar = y_bar / var + 2 * diff * var_bar / (n - off)
        return (bar - bar.mean(axis=0),)

    x = rng.normal(size=(5, 3))
    assert check_backward(forward, backward, [x]).ok
    (found,) = causes(forward, partial(backward, off=0), x)
    assert "factor 4/5 in the path through" in found and "biased and unbiased" in found


@pytest.mark.parametrize(("mistake", "words"), [
    ("no gate", "the factor `f` is left out in the backward of `f * c` (line"),
    ("new cell", "`cell = f * c + (1 - f) * g` (line {}, every time) is used instead of `c`"),
    ("sign", "wrong sign in the path through `f = 1 / (1 + np.exp(-x[k, :, :2] - t))` (line {}"),
    ("cell", "`t = np.tanh(cell)` (line {}, every time) should be 1 - t^2, not 1 - cell^2"),
])  # fmt: skip
def test_a_mistake_in_every_step_of_a_loop_is_told(mistake, words, rng):
    def forward(x):
        c, t, ts, steps = np.zeros((3, 2)), np.zeros((3, 2)), [], []
        for k in range(len(x)):
            f = 1 / (1 + np.exp(-x[k, :, :2] - t))
            g = x[k, :, 2:]
            cell = f * c + (1 - f) * g
            t = np.tanh(cell)
            steps.append((f, g, c, cell, t))
            ts.append(t)
            c = cell
        return np.stack(ts), steps

    def backward(y_bar, steps, mistake=""):
        x_bars, carry, a_bar = [], 0, 0
        for t_bar, (f, g, c, cell, t) in zip(y_bar[::-1], steps[::-1], strict=True):
            cell_bar = carry + (t_bar + a_bar) * (1 - (cell if mistake == "cell" else t) ** 2)
            f_bar = cell_bar * ((cell if mistake == "new cell" else c) - g)
            f_bar = -f_bar if mistake == "sign" else f_bar
            carry = cell_bar * (1 if mistake == "no gate" else f)
            a_bar = f_bar * f * (1 - f)
            x_bars.append(np.hstack([a_bar, cell_bar * (1 - f)]))
        return (np.stack(x_bars[::-1]),)

    x = rng.normal(size=(4, 3, 4))
    assert check_backward(forward, backward, [x]).ok
    (found,) = causes(forward, partial(backward, mistake=mistake), x)
    assert re.search(re.escape(words).replace(r"\{\}", r"\d+"), found), found


def test_a_forgotten_operand_of_einsum_is_told(rng):
    def forward(x, w, gate):
        h = np.tanh(np.einsum("nd,edf->nef", x, w))
        return np.einsum("ne,nef->nf", gate, h), (x, w, gate, h)

    def backward(y_bar, cache, gated=True):
        x, w, gate, h = cache
        h_bar = (gate if gated else np.ones_like(gate))[:, :, None] * y_bar[:, None, :]
        a_bar = h_bar * (1 - h**2)
        x_bar = np.einsum("nef,edf->nd", a_bar, w)
        return x_bar, np.einsum("nd,nef->edf", x, a_bar), np.einsum("nf,nef->ne", y_bar, h)

    inputs = [rng.normal(size=shape) for shape in ((4, 3), (2, 3, 3), (4, 2))]
    assert check_backward(forward, backward, inputs).ok
    found = causes(forward, partial(backward, gated=False), *inputs)
    assert all("the factor `gate` is left out in the backward of" in cause for cause in found)


def test_rows_that_an_embedding_assigns_to_a_tied_weight_are_told(rng):
    ids = np.array([2, 0, 3])

    def forward(table):
        x = table[ids]
        return x @ table.T, (table, x)

    def backward(y_bar, cache, add=True):
        table, x = cache
        table_bar = y_bar.T @ x
        table_bar[ids] = y_bar @ table + (table_bar[ids] if add else 0)
        return (table_bar,)

    table = rng.normal(size=(5, 3))
    assert check_backward(forward, backward, [table]).ok
    (found,) = causes(forward, partial(backward, add=False), table)
    assert "passes back overwrites the other paths to `table`: = instead of +=" in found


def test_the_operands_of_an_assignment_such_as_p_over_its_sum_are_quoted(rng):
    def forward(z):
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        return p, p

    def backward(y_bar, p, direct=1):
        return (p * (direct * y_bar - (y_bar * p).sum(axis=1, keepdims=True)),)

    z = rng.normal(size=(3, 4))
    assert check_backward(forward, backward, [z]).ok
    (found,) = causes(forward, partial(backward, direct=0), z)
    assert "missing path through `p` in `p /= p.sum(axis=1, keepdims=True)`" in found


@pytest.mark.parametrize("mixed", [False, True])
def test_numbers_that_differ_are_printed_with_the_digits_in_which_they_do(mixed, rng):
    def forward(x):
        return (np.sort(x)[0] * x if mixed else np.arctan(x)), x

    def backward(y_bar, x):
        x_bar = y_bar * (x.min() if mixed else 1 / (1 + x * x))
        x_bar[x.argmin()] += (y_bar * x).sum() if mixed else 0
        return (x_bar * (1 + 1e-7 * np.sin(x)),)

    x = rng.normal(size=5)
    (found,) = causes(forward, backward, x)
    ends = re.findall(r"-?\d+\.?\d*e?-?\d*", found)
    assert "such as 1 - " in found if mixed else ends[0] != ends[2], found


@pytest.mark.parametrize(("f", "words"), [
    (lambda x: np.minimum(np.maximum(x, 0), 6), "(y < 6), not 1"),
    (lambda x: np.clip(x, 0, 6), "(0 < y < 6), not (y > 0)"),
])  # fmt: skip
def test_the_upper_end_that_a_mask_lacks_is_told(f, words, rng):
    x = rng.normal(3, 5, size=20)
    (found,) = causes(lambda x: (f(x), x), lambda y_bar, x: (y_bar * (x > 0),), x)
    assert f"should be {words}, where y is its value" in found


def test_a_factor_of_the_code_comes_before_one_of_a_size(rng):
    mask = np.array([1.0, 0, 1, 1])[:, None]

    def forward(x):
        return np.sin(x) * mask / 0.75, x

    def backward(y_bar, x):
        return (y_bar * np.cos(x) * mask,)

    (found,) = causes(forward, backward, rng.normal(size=(4, 3)))
    assert re.search(r"the factor of `np.sin\(x\) \* mask / 0.75` \(line \d+\) is left out", found)


def test_an_operand_of_einsum_is_called_by_its_own_name(rng):
    def forward(x, w, z):
        return np.einsum("bi,kij,bj->bk", x, w, z), (x, w, z)

    def backward(y_bar, cache):
        x, w, z = cache
        x_bar = np.einsum("bk,kij,bi->bj", y_bar, w, z)
        w_bar = np.einsum("bk,bi,bj->kij", y_bar, x, z)
        return x_bar, w_bar, np.einsum("bk,kij,bi->bj", y_bar, w, x)

    shapes = (4, 3), (2, 3, 3), (4, 3)
    (found,) = causes(forward, backward, *map(rng.normal, [0] * 3, [1] * 3, shapes))
    assert "at `w` in the backward of" in found


@pytest.mark.parametrize(("join", "names"), [
    (lambda x: np.concatenate([x, x], 1), ("`x`", "`x`")),
    (lambda x: np.concatenate((x, x), axis=-1), ("`x`", "`x`")),
    (lambda x: np.stack([x, x], 1).reshape(3, 4), ("`x`", "`x`")),
    (lambda x: np.hstack((x, x)), ("`x`", "`x`")),
    (lambda x: np.vstack((x, x)).reshape(2, 3, 2).transpose(1, 0, 2).reshape(3, 4), ("`x`", "`x`")),
    (lambda x: np.concatenate([x] * 2, 1), ("operand 0", "operand 1")),
    (lambda x: np.concatenate([*[x], x], 1), ("operand 0", "operand 1")),
    (lambda x: np.stack([x for _ in range(2)], 1).reshape(3, 4), ("operand 0", "operand 1")),
])  # fmt: skip
def test_a_missing_part_of_joined_arrays_is_called_by_its_own_name(join, names, rng):
    for kept, name in ((slice(2, 4), names[0]), (slice(2), names[1])):
        x, backward = rng.normal(size=(3, 2)), lambda y_bar, _, kept=kept: (y_bar[:, kept].copy(),)
        (found,) = causes(lambda x: (join(x), None), backward, x)
        assert found.startswith(f"missing path through {name} in `np."), found


def test_an_argument_of_a_call_is_no_variable(rng):
    def doubled(value):
        return 2 * value

    # fmt: off
    def forward(x):
        y = doubled(
            value=np.tanh(x)
        )
        return y, y / 2
    # fmt: on

    (found,) = causes(forward, lambda y_bar, h: (2 * y_bar * (1 - h),), rng.normal(size=5))
    assert found.startswith("the local derivative of `np.tanh(x)` (line "), found


@pytest.mark.parametrize(("slope", "text"), [
    (lambda z, s: s, "s"), (lambda z, s: 1 - s, "1 - s"), (lambda z, s: 0 * s + 1, "1"),
    (lambda z, s: 1 - s * s, "1 - s^2"), (lambda z, s: z, "z"),
])  # fmt: skip
def test_a_statement_is_told_as_a_whole_though_its_operand_is_used_elsewhere(slope, text, rng):
    def forward(x, w):
        z = x @ w
        s = 1 / (1 + np.exp(-z))
        return s * z, (x, w, z, s)

    def backward(y_bar, cache):
        x, w, z, s = cache
        z_bar = y_bar * s + y_bar * z * slope(z, s)
        return z_bar @ w.T, x.T @ z_bar

    for found in causes(forward, backward, rng.normal(size=(3, 4)), rng.normal(size=(4, 2))):
        assert found.startswith("the local derivative of `s = 1 / (1 + np.exp(-z))` (line"), found
        assert found.endswith(f") should be s (1 - s), not {text}"), found


@pytest.mark.parametrize("join", [np.hstack, lambda parts: np.vstack(parts)[:, 0]])
def test_a_number_may_be_joined_with_a_vector(join, rng):
    def forward(x):
        return join((x.sum(), x[0])), None

    def backward(y_bar, _):
        x_bar = np.zeros((2, 1))
        x_bar[0] = y_bar[1]
        return (x_bar,)

    (found,) = causes(forward, backward, rng.normal(size=(2, 1)))
    assert found.startswith("missing path through `x.sum()` (line"), found


def test_of_a_long_order_only_the_beginning_is_told(rng):
    order = rng.permutation(300)
    x, backward = rng.normal(size=300), lambda y_bar, _: (2 * y_bar[order],)
    (found,) = causes(lambda x: (2 * x, None), backward, x)
    told = ", ".join(map(str, order[:12]))
    assert found == f"in another order along axis 0: [{told}, ...]"


def test_a_factor_that_could_be_of_several_lines_is_told_of_none(rng):
    def forward(x):
        t = np.tanh(0.8 * (x + 0.04 * x**3))
        return 0.5 * x * (1 + t), (x, t)

    def backward(y_bar, cache):
        x, t = cache
        return (y_bar * (0.5 * (1 + t) + 0.5 * x * (1 - t**2)),)  # without the inner derivative

    (found,) = causes(forward, backward, rng.normal(size=(3, 4)))
    assert found.startswith("the local derivative is wrong: ") and "line" not in found


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: (np.asarray(x) * 2 + np.sin(x), x),  # a part of the graph is lost
        lambda x: (np.arctan(x), x),  # no op of that name
        lambda x: (np.add.reduce(x, axis=0) + x, x),
        lambda x: (x.astype(object).astype(float) * 3, x),
        lambda x: (np.frompyfunc(lambda a: a * a, 1, 1)(x).astype(float), x),
        lambda x: (np.multiply(x, 2, out=np.empty(4)), x),
    ],
)
def test_what_the_engine_cannot_follow_is_reported_all_the_same(forward, rng):
    found = causes(forward, lambda y_bar, x: (y_bar * np.exp(x),), rng.normal(size=4))
    assert "missing path" not in found[0] and "on the way back" not in found[0]


def test_an_error_in_a_large_graph_is_not_followed_for_long(rng):
    def forward(x, w):
        for _ in range(400):
            x = np.tanh(x * w + 0.1)
        return x, (x, w)

    start = time.process_time()
    causes(forward, lambda y_bar, c: (y_bar * c[0], y_bar * c[1]), *rng.normal(size=(2, 6)))
    assert time.process_time() - start < 30  # without the limits it takes minutes


def test_derivatives_that_are_not_finite_inside_are_no_obstacle():
    def forward(x):
        return np.where(x > 0, np.sqrt(np.maximum(x, 0)), x), x

    found = causes(forward, lambda y_bar, x: (y_bar * 3,), np.array([1.0, -2, 0.5, -0.1]))
    assert found


def test_a_path_of_no_probability_makes_lapack_say_nothing(rng, capfd):
    labels = 0, 1, 1, 2  # as in CTC; what cannot be reached yet has the score -inf

    def forward(x):
        score = np.full((6, 4), -np.inf)
        score[0, 0] = x[0, 0]
        for t in range(1, 6):
            for k in range(4):
                before = score[t - 1, k - 1] if k else -np.inf
                score[t, k] = np.logaddexp(score[t - 1, k], before) + x[t, labels[k]]
        return score[-1, -1], (x, score)

    def backward(y_bar, cache):
        x, score = cache
        bar, x_bar = np.zeros_like(score), np.zeros_like(x)
        bar[-1, -1] = y_bar
        for t in reversed(range(6)):
            for k in range(4):
                x_bar[t, labels[k]] = bar[t, k]  # += is right
                for i in {k, max(k - 1, 0)} if t and np.isfinite(score[t, k]) else ():
                    own = score[t, k] - x[t, labels[k]]
                    bar[t - 1, i] += bar[t, k] * np.exp(score[t - 1, i] - own)
        return (x_bar,)

    (cause,) = causes(forward, backward, rng.normal(size=(6, 3)))
    assert "= instead of +=" in cause
    assert capfd.readouterr() == ("", "")


def test_steps_that_are_not_linked_are_no_run(rng):
    def forward(x):
        a = np.exp(x)
        b = np.concatenate([0.3 * x, a], axis=1)
        return b + 1.5, a

    assert causes(forward, lambda y_bar, a: (y_bar[:, :3] + a * y_bar[:, 3:] * a,),
                  rng.normal(size=(3, 3)))  # fmt: skip


def test_extended_precision_is_followed_too(rng):
    def forward(x, w):
        return np.tanh(x * w), (x, w)

    wide = [rng.normal(size=3).astype(np.longdouble) for _ in range(2)]
    found = causes(forward, lambda y_bar, c: (y_bar * c[1] * c[0], y_bar * c[0] * c[0]), *wide)
    assert len(found) == 2


class Stateful:
    """A layer that keeps what it saw: a running mean, a log and a cache."""

    def __init__(self):
        self.mean, self.log, self.cache = np.zeros(4), [], None

    def forward(self, x):
        mean = x.mean(axis=0)
        self.mean = 0.9 * self.mean + 0.1 * mean
        self.log.append(mean)
        self.cache = (x, mean)
        return np.tanh(x - mean) * x, (x, mean)


def wrong(y_bar, cache):
    return (y_bar * cache[0],)


def test_no_tensor_stays_in_an_object(rng):
    layer = Stateful()
    causes(layer.forward, wrong, rng.normal(size=(3, 4)))
    kept = [layer.mean, *layer.log, *layer.cache]
    assert {type(array) for array in kept} == {np.ndarray}


def test_no_tensor_stays_in_a_closure_or_in_what_it_holds(rng):
    layer, log, last = Stateful(), {"last": []}, None

    def forward(x):
        nonlocal last
        last = x.mean(axis=0)
        log["last"].append(last * 2)
        log["mean"] = last
        return layer.forward(x)

    causes(forward, wrong, rng.normal(size=(3, 4)))
    kept = [last, *log["last"], log["mean"], layer.mean, *layer.log, *layer.cache]
    assert {type(array) for array in kept} == {np.ndarray}


MASK = np.array([1.0, 0, 1, 1])


def masked(x, w, v):
    h = np.tanh(x @ w)
    d = h * MASK
    return d @ v, (x, w, v, h, d)


def indexed(x, w, v):
    h = np.tanh(x @ w)
    d = h[1:]
    return d @ v, (x, w, v, h, d)


def rectified(x, w, v):
    h = np.tanh(x @ w)
    d = np.maximum(h, 0)
    return d @ v, (x, w, v, h, d)


@pytest.mark.parametrize(
    ("forward", "back"),
    [
        (masked, lambda d_bar, h: d_bar * MASK),
        (indexed, lambda d_bar, h: np.concatenate([0 * h[:1], d_bar])),
        (rectified, lambda d_bar, h: d_bar * (h > 0)),
    ],
)
def test_a_fault_before_a_mask_or_an_index_is_found_there(forward, back, rng):
    def backward(y_bar, cache):
        x, w, v, h, d = cache
        a_bar = back(y_bar @ v.T, h) * (1 - h)
        return a_bar @ w.T, x.T @ a_bar, d.T @ y_bar

    shapes = (6, 3), (3, 4), (4, 2)
    found = causes(forward, backward, *(rng.normal(size=shape) for shape in shapes))
    said = "the local derivative of `h = np.tanh(x @ w)` (line "
    assert all(said in cause and cause.endswith("1 - h^2, not 1 - h") for cause in found), found


@pytest.mark.parametrize(
    ("local", "said"),
    [
        (lambda s: s, "should be s (1 - s), not s"),
        (lambda s: 1 - s, "should be s (1 - s), not 1 - s"),
        (lambda s: np.ones_like(s), "should be s (1 - s), not 1"),
        (lambda s: (1 - s) ** 2, "should be s (1 - s)"),
    ],
)
def test_a_line_is_told_as_a_whole(local, said, rng):
    def forward(x, w, v):
        a = x @ w
        s = 1 / (1 + np.exp(-a))
        return s @ v, (x, w, v, s)

    def backward(y_bar, cache):
        x, w, v, s = cache
        a_bar = (y_bar @ v.T) * local(s)
        return a_bar @ w.T, x.T @ a_bar, s.T @ y_bar

    for cause in causes(forward, backward, *rng.normal(size=(3, 3, 3))):
        assert "`s = 1 / (1 + np.exp(-a))` (line " in cause and cause.endswith(said)


def test_a_statement_of_one_op_may_read_a_wrong_value(rng):
    def forward(x, w):
        a = x @ w
        s = np.logaddexp(0, a)
        return np.tanh(s), (x, w, s)

    def backward(y_bar, cache):
        x, w, s = cache
        a_bar = y_bar * (1 - np.tanh(s) ** 2) / (1 + np.exp(-s))
        return a_bar @ w.T, x.T @ a_bar

    for cause in causes(forward, backward, *rng.normal(size=(2, 3, 3))):
        assert " is used instead of `a` in the backward of `s = np.logaddexp(0, a)` (" in cause


@pytest.mark.parametrize(
    ("local", "said"),
    [(lambda s: np.ones_like(s), "1"), (lambda s: s, "s"), (lambda s: s * (1 - s), "s (1 - s)")],
)
def test_the_derivative_of_a_softplus_is_told_by_its_value(local, said, rng):
    def forward(x, w):
        s = np.log1p(np.exp(x @ w))
        return np.tanh(s), (x, w, s)

    def backward(y_bar, cache):
        x, w, s = cache
        a_bar = y_bar * (1 - np.tanh(s) ** 2) * local(s)
        return a_bar @ w.T, x.T @ a_bar

    for cause in causes(forward, backward, *rng.normal(size=(2, 3, 3))):
        assert "`s = np.log1p(np.exp(x @ w))` (line " in cause
        assert cause.endswith(f"should be 1 - exp(-s), not {said}")


def test_a_fault_that_is_not_linear_has_no_place(rng):
    def forward(x, w):
        h = np.maximum(x @ w, 0)
        return h.mean(axis=0), (x, w, h)

    def backward(y_bar, cache):
        x, w, h = cache
        a_bar = np.broadcast_to(y_bar / len(x) * (y_bar > 0), h.shape)
        return a_bar @ w.T, x.T @ a_bar

    for cause in causes(forward, backward, *rng.normal(size=(2, 3, 3))):
        assert "not linear" in cause and "(line" not in cause


def test_many_terms_are_searched_in_a_moment(rng):
    def forward(x):
        return sum(np.sin(k * x) for k in range(1, 101)), x

    start = time.process_time()
    causes(forward, lambda y_bar, x: (y_bar * np.cos(x),), rng.normal(size=3))
    assert time.process_time() - start < 10  # 0.5 s; with all runs of terms it took 15


def inside(var, eps):
    return np.sqrt(var + eps), 1


def outside(var, eps):
    return np.sqrt(var) + eps, 1 + eps / np.sqrt(var)


def unbiased(var, eps, n=6):
    return np.sqrt(var * n / (n - 1) + eps), n / (n - 1)


@pytest.mark.parametrize(("there", "here", "words"), [
    ((inside, 1e-3), (inside, 1e-5), "eps = 1e-05, unlike in forward"),
    ((inside, 1e-5), (inside, 1e-2), "eps = 0.01, unlike in forward"),
    ((inside, 1e-3), (outside, 1e-3), "eps = 0.001 outside the root, unlike in forward"),
    ((outside, 1e-3), (inside, 1e-3), "eps = 0.001 in the root of the biased variance"),
    ((unbiased, 1e-3), (inside, 1e-3), "eps = 0.001 in the root of the biased variance"),
    ((inside, 1e-3), (unbiased, 1e-3), "eps = 0.001 in the root of the unbiased variance"),
])  # fmt: skip
def test_the_backward_of_a_normalization_may_divide_by_something_else(there, here, words, rng):
    def normal(x, form):
        xc = x - x.mean(axis=0)
        std, slope = form[0]((xc * xc).mean(axis=0), form[1])
        return xc / std, std, slope

    def forward(x, gamma, beta):
        return gamma * normal(x, there)[0] + beta, (x, gamma)

    def backward(y_bar, cache, form=here):
        x, gamma = cache
        x_hat, std, slope = normal(x, form)
        g = y_bar * gamma
        x_bar = (g - g.mean(axis=0) - slope * x_hat * (g * x_hat).mean(axis=0)) / std
        return x_bar, (y_bar * x_hat).sum(axis=0), y_bar.sum(axis=0)

    inputs = rng.normal(size=(6, 3)), rng.normal(size=3), rng.normal(size=3)
    assert check_backward(forward, partial(backward, form=there), inputs).ok
    found = causes(forward, backward, *inputs)
    assert found[0].startswith(words)
    assert found[1] == f"computes sum(y_bar x_hat): {words.removesuffix(', unlike in forward')}"


def test_the_backward_of_a_normalization_may_forget_that_eps_is_outside_the_root(rng):
    def forward(x, eps=1e-2):
        std = x.std(axis=0) + eps
        x_hat = (x - x.mean(axis=0)) / std
        return x_hat, (x_hat.copy(), std)

    def backward(y_bar, cache):  # right for sqrt(var + eps)
        x_hat, std = cache
        return ((y_bar - mean(y_bar) - x_hat * mean(y_bar * x_hat)) / std,)

    (cause,) = causes(forward, backward, rng.normal(size=(6, 3)))
    assert cause == "eps is differentiated as if inside the root in the variance path"


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("eps", [1e-3, 2e-5, 1e-6, 1e-8, 1e-12])
def test_a_normalization_may_have_an_eps_of_its_own(eps, scale, rng):
    def forward(x, gamma, beta):
        inv_std = 1 / np.sqrt(x.var(axis=0) + eps)
        x_hat = (x - x.mean(axis=0)) * inv_std
        return gamma * x_hat + beta, (x_hat, inv_std, gamma)

    def backward(y_bar, cache):
        x_hat, inv_std, gamma = cache
        g, n = gamma * y_bar, len(y_bar)
        along = x_hat * (g * x_hat).sum(axis=0) / (n - 1)
        return inv_std * (g - mean(g) - along), (y_bar * x_hat).sum(axis=0), y_bar.sum(axis=0)

    inputs = rng.normal(0, scale, (6, 3)), rng.normal(size=3), rng.normal(size=3)
    assert causes(forward, backward, *inputs) == ["factor N/(N - 1) in the variance path"]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_normalization_may_divide_by_the_length_of_another_axis(axis, rng):
    def forward(x):
        std = np.sqrt(x.var(axis=axis, keepdims=True) + 1e-5)
        x_hat = (x - x.mean(axis=axis, keepdims=True)) / std
        return x_hat, (x_hat.copy(), std)

    def backward(y_bar, cache):
        x_hat, std = cache
        n = x_hat.shape[1 - axis]
        along = x_hat * (y_bar * x_hat).sum(axis=axis, keepdims=True)
        return ((y_bar - y_bar.sum(axis=axis, keepdims=True) / n - along / n) / std,)

    n, other = (4, 5)[axis], (4, 5)[1 - axis]
    said = f"divide by {other}, the length of axis {1 - axis}, not by N = {n}"
    (cause,) = causes(forward, backward, rng.normal(size=(4, 5)))
    assert cause == f"the mean path and the variance path {said}"


@pytest.mark.parametrize("divides_by_terms", [False, True])
@pytest.mark.parametrize(
    ("wrong", "axes", "words"),
    [
        ("mean", (0,), "the mean path sums over axis 0"),
        ("variance", (0, 2), "the variance path sums over axes 0 and 2"),
        ("variance", (0, 1, 2, 3), "the variance path sums over axes 0, 1, 2 and 3"),
        ("both", (2, 3), "the mean path and the variance path sum over axes 2 and 3"),
    ],
)
def test_paths_of_a_normalization_may_sum_over_other_axes(
    wrong, axes, words, divides_by_terms, rng
):
    every = (0, 2, 3)

    def forward(x):
        std = np.sqrt(x.var(every, keepdims=True) + 1e-5)
        x_hat = (x - x.mean(every, keepdims=True)) / std
        return x_hat, (x_hat.copy(), std)

    def backward(y_bar, cache):
        x_hat, std = cache

        def mean(a, path):
            if wrong not in (path, "both"):
                return a.mean(every, keepdims=True)
            n = np.prod([a.shape[i] for i in (axes if divides_by_terms else every)])
            return a.sum(axes, keepdims=True) / n

        return ((y_bar - mean(y_bar, "mean") - x_hat * mean(y_bar * x_hat, "variance")) / std,)

    (cause,) = causes(forward, backward, rng.normal(size=(4, 3, 2, 5)))
    assert cause == f"{words}, not over axes 0, 2 and 3"


def test_gamma_may_be_missing_in_both_statistics(rng):
    def forward(x, gamma):
        inv_std = 1 / np.sqrt(x.var(axis=0) + 1e-5)
        x_hat = (x - mean(x)) * inv_std
        return gamma * x_hat, (x_hat, inv_std, gamma)

    def backward(y_bar, cache):
        x_hat, inv_std, gamma = cache
        statistics = mean(y_bar) + x_hat * mean(y_bar * x_hat)
        return inv_std * (gamma * y_bar - statistics), (y_bar * x_hat).sum(axis=0)

    (cause,) = causes(forward, backward, rng.normal(size=(6, 3)), rng.normal(size=3))
    assert cause == "gamma is missing in the mean path and the variance path"


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (3,)], ids=str)
@pytest.mark.parametrize(("mistake", "said"), [
    ("no variance", ["missing variance path"]),
    ("ddof", ["factor N/(N - 1) in the variance path"]),
    ("x", ["computes sum(y_bar x): x is not normalized"]),
    ("gamma", ["factor gamma"]),
    ("axis", ["wrong axes: computes sum(y_bar) over all axes but 0"]),
])  # fmt: skip
def test_a_normalization_may_keep_the_axes_of_its_parameters(shape, mistake, said, rng):
    size = (3, 3) if len(shape) < 3 else (3, 3, 2, 2)
    axes = tuple(i for i in range(len(size)) if i != 1)

    def total(a, axes=axes):
        return a.sum(axis=axes).reshape(shape)

    def forward(x, gamma, beta):
        xc = x - x.mean(axis=axes, keepdims=True)
        std = np.sqrt((xc * xc).mean(axis=axes, keepdims=True) + 1e-5)
        x_hat = xc / std
        return gamma * x_hat + beta, (x, x_hat, std, gamma)

    def backward(y_bar, cache):
        x, x_hat, std, gamma = cache
        g = gamma * y_bar
        along = x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
        n = x.size // 3
        along = along * {"no variance": 0, "ddof": n / (n - 1)}.get(mistake, 1)
        x_bar = (g - g.mean(axis=axes, keepdims=True) - along) / std
        gamma_bar = total(y_bar * (x if mistake == "x" else x_hat))
        others = axes if mistake != "axis" else tuple(i for i in range(len(size)) if i)
        gamma_bar = gamma_bar * gamma if mistake == "gamma" else gamma_bar
        return x_bar, gamma_bar, total(y_bar, others)

    inputs = rng.normal(size=size), rng.normal(size=shape), rng.normal(size=shape)
    assert causes(forward, backward, *inputs) == said


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda g, x_hat, r: 1 / r * mean(g * x_hat) * x_hat, "inv_std is missing in the"),
    (lambda g, x_hat, r: 1 / r**2 * mean(g * x_hat) * x_hat, "inv_std^2 is missing in the"),
    (lambda g, x_hat, r: r * mean(g * x_hat) * x_hat, "an extra inv_std in the"),
    (lambda g, x_hat, r: mean(g * x_hat), "x_hat is missing in the"),
    (lambda g, x_hat, r: mean(g) * x_hat, "x_hat is missing in the mean of the"),
])  # fmt: skip
def test_what_the_variance_path_lacks_or_has_too_much_is_told(wrong, words, rng):
    def forward(x):
        r = 1 / np.sqrt(x.var(axis=0) + 1e-5)
        x_hat = (x - x.mean(axis=0)) * r
        return x_hat, (x_hat.copy(), r)

    def backward(y_bar, cache):
        x_hat, r = cache
        return (r * (y_bar - mean(y_bar) - wrong(y_bar, x_hat, r)),)

    assert causes(forward, backward, rng.normal(size=(6, 3))) == [f"{words} variance path"]


@pytest.mark.parametrize("where", ["variance path", "mean of the variance path"])
def test_x_in_the_place_of_x_minus_its_mean_is_told(where, rng):
    def forward(x):
        r = 1 / np.sqrt(x.var(axis=0) + 1e-5)
        return (x - x.mean(axis=0)) * r, (x, x.mean(axis=0), r)

    def backward(y_bar, cache, outer=where == "variance path"):
        x, mu, r = cache
        outer, inner = (x, x - mu) if outer else (x - mu, x)
        var_bar = -0.5 * (y_bar * inner).sum(axis=0) * r**3
        return (r * (y_bar - mean(y_bar)) + var_bar * 2 * outer / len(x),)

    (found,) = causes(forward, backward, rng.normal(size=(6, 3)))
    assert found == f"x is not centered in the {where}"


def test_the_code_is_blamed_in_what_is_only_about_a_normalization(rng):
    r = np.array([1.03, 0.98, 1.0])  # as in batch renormalization, held constant

    def forward(x, gamma, beta):
        mu, sigma = x.mean(axis=0), np.sqrt(x.var(axis=0) + 1e-5)
        x_hat = (x - mu) / sigma * r
        return gamma * x_hat + beta, (x_hat, sigma, gamma)

    def backward(y_bar, cache, r_in_sigma_path=1):
        x_hat, sigma, gamma = cache
        g = gamma * y_bar
        variance_path = x_hat / r * mean(g * x_hat) / r_in_sigma_path
        x_bar = (r * (g - mean(g)) - variance_path) / sigma
        return x_bar, (y_bar * x_hat).sum(axis=0), y_bar.sum(axis=0)

    inputs = rng.normal(size=(6, 3)), rng.normal(size=3), rng.normal(size=3)
    assert check_backward(forward, backward, inputs).ok
    (found,) = causes(forward, partial(backward, r_in_sigma_path=r), *inputs)
    assert "in the backward of `(x - mu) / sigma` (line" in found


def mean(x):
    return x.mean(axis=0)


def test_a_factor_that_is_a_value_of_the_code_is_told_by_it(rng):
    def forward(x, v):
        n = np.sqrt((x * x).sum(axis=1, keepdims=True))
        y = x / n
        return v[0] * y, (y, v, n)

    def backward(y_bar, cache, x_too_large=True):
        y, v, n = cache
        v_bar = (y_bar * y).sum().reshape(1)
        x_bar = v * (y_bar - y * (y_bar * y).sum(axis=1, keepdims=True))
        return (x_bar, v_bar) if x_too_large else (x_bar / n / v, v_bar)

    x, v = rng.normal(size=(4, 3)), rng.normal(size=1)
    (found,) = causes(forward, backward, x, v)
    assert found.startswith("factor n in each element: n is the value of `n = np.sqrt((x * x)")
    assert causes(forward, partial(backward, x_too_large=False), x, v) == ["factor 1/v"]


@pytest.mark.parametrize(
    ("powers", "text"),
    [
        ((1, 0), "factor n: n is the value of `n = np.sqrt(v @ v)` (line"),
        ((-1, 0), "factor 1/n: n is the value of `n = np.sqrt(v @ v)` (line"),
        ((0, 1), "factor n in the path through `v @ v` (line"),
        ((0, 2), "factor c in the path through `v @ v` (line"),  # v is the input
    ],
)
def test_a_factor_of_all_elements_may_be_a_number_that_the_code_computes(rng, powers, text):
    def forward(v):
        n = np.sqrt(v @ v)
        return v / n, (v / n, n)

    def backward(u_bar, cache):
        (u, n), (i, j) = cache, powers
        return (n**i * (u_bar - n**j * u * (u @ u_bar)) / n,)

    (found,) = causes(forward, backward, rng.normal(size=5))
    assert found.startswith(text), found
    assert " is the value of `" in found


def test_a_factor_per_row_or_column_may_be_an_input(rng):
    def forward(x, w):
        return np.cumsum(x, axis=0) * w, x

    def backward(y_bar, x):
        w_bar = (y_bar * np.cumsum(x, axis=0)).sum(axis=0)
        return np.cumsum(y_bar[::-1], axis=0)[::-1].copy(), w_bar

    (found,) = causes(forward, backward, rng.normal(size=(4, 3)), rng.normal(size=3))
    assert found.startswith("factor 1/w in each element")


def test_a_mean_over_an_axis_of_another_input_is_recognized(rng):
    def forward(q, keys):
        t = np.tanh(q + keys)
        return np.outer(t.sum(axis=0), [1, 2]), t

    def backward(y_bar, t):
        t_bar = (y_bar @ [1, 2]) * (1 - t**2)
        return t_bar.mean(axis=0), t_bar

    found = causes(forward, backward, rng.normal(size=3), rng.normal(size=(7, 3)))
    assert found == ["factor 1/7: perhaps a sum became a mean"]


def test_a_constant_of_the_code_is_blamed_only_if_all_of_the_cotangent_has_it(rng):
    def distances(a, b):
        return (a**2).sum(axis=1)[:, None] - 2 * a @ b.T + (b**2).sum(axis=1), (a, b)

    def backward(y_bar, cache):
        a, b = cache
        a_bar = y_bar.sum(axis=1)[:, None] * a - y_bar @ b
        return a_bar, y_bar.sum(axis=0)[:, None] * b - y_bar.T @ a

    found = causes(distances, backward, rng.normal(size=(4, 3)), rng.normal(size=(7, 3)))
    assert found == ["factor 1/2 or factor 1/sqrt(N) = 1/sqrt(4)"] * 2

    def scaled(a, b):
        return np.tanh((0.3 * a) @ b), (a, b)

    def without(y_bar, cache):
        a, b = cache
        y_bar = y_bar * (1 - np.tanh(0.3 * a @ b) ** 2)
        return 0.3 * y_bar @ b.T, a.T @ y_bar

    (found,) = causes(scaled, without, rng.normal(size=(5, 3)), rng.normal(size=(3, 7)))
    assert re.search(r"the factor of `0.3 \* a` \(line \d+\) is left out", found)


def test_a_flip_is_not_blamed_where_it_only_turns_a_wrong_piece_into_the_right_one(rng):
    def forward(x, w):  # maxout: the second piece is the larger one
        return np.maximum(x @ w[0], x @ w[1]), (x, w)

    def backward(y_bar, cache):
        x, w = cache
        first = (x @ w[0] > x @ w[1]) * y_bar
        return y_bar @ w[0].T, np.stack([x.T @ first, x.T @ (y_bar - first)])

    x, w = abs(rng.normal(size=(4, 3))), rng.normal(size=(2, 3, 2))
    w[1] = w[0] + abs(w[1])
    for cause in causes(forward, backward, x, w):
        assert "flip" not in cause


def test_a_constant_left_out_of_one_path_is_told_by_its_code_on_that_path(rng):
    def forward(x):
        mean = x.mean(axis=0)
        var = ((x - mean) ** 2).mean(axis=0)
        return 0.1 * x / np.sqrt(0.1 * var + 1) + 0.1 * mean, (x, mean, var)

    def backward(y_bar, cache, weight=1):
        x, mean, var = cache
        inv_std = 1 / np.sqrt(0.1 * var + 1)
        var_bar = -0.5 * 0.1 * 0.1 * (y_bar * x).sum(axis=0) * inv_std**3
        return (
            0.1 * (y_bar * inv_std + y_bar.mean(axis=0)) + weight * 2 / 5 * var_bar * (x - mean),
        )

    x = rng.normal(size=(5, 3))
    assert check_backward(forward, backward, [x]).ok
    (found,) = causes(forward, partial(backward, weight=10), x)
    assert re.match(r"factor 10 in the path through `x - mean`", found), found
    assert re.search(r": the factor of `0.1 \* var` \(line \d+\) is left out$", found)


def test_a_mean_that_a_loop_takes_many_times_is_told_as_the_factor_left_out(rng):
    def forward(x):
        return np.stack([x[:, i : i + 4].mean(axis=1) for i in range(0, 6, 2)], axis=1), x.shape

    def backward(y_bar, shape):
        x_bar = np.zeros(shape)
        for i in range(3):
            x_bar[:, 2 * i : 2 * i + 4] += y_bar[:, i, None]
        return (x_bar,)

    (found,) = causes(forward, backward, rng.normal(size=(2, 8)))
    assert re.match(
        r"factor 4: the factor of `.*mean\(axis=1\)` \(line \d+, every time\) is", found
    )


def test_the_scale_of_a_dropout_mask_as_in_cs231n_is_told(rng):
    mask = np.array([[1, 0, 1], [0, 1, 1]]) / 0.6

    def forward(x):
        out = x * mask
        return out.astype(x.dtype, copy=False), None

    (found,) = causes(forward, lambda y_bar, _: (y_bar * (mask > 0),), rng.normal(size=(2, 3)))
    assert found.startswith("factor 0.6: the factor of `out = x * mask` (line")


def test_a_path_through_an_unbiased_variance_with_the_biased_divisor_is_told(rng):
    def forward(x):
        var = x.var(axis=0, ddof=1)
        return np.log(var) + x, (x, var)

    def backward(y_bar, cache, n=6):
        x, var = cache
        return (y_bar + y_bar.sum(axis=0) * 2 * (x - x.mean(axis=0)) / (n - 1) / var,)

    x = rng.normal(size=(6, 3))
    assert check_backward(forward, backward, [x]).ok
    (found,) = causes(forward, partial(backward, n=7), x)
    assert found.startswith("factor 5/6 in the path through `var = x.var(axis=0, ddof=1)` (line")
    assert found.endswith(": biased and unbiased variance mixed up")


def test_another_value_in_the_place_of_a_transpose_is_told(rng):
    def forward(x, v, g):
        w = g * v
        return x @ w.T, (x, v, g)

    def backward(y_bar, cache):
        x, v, g = cache
        w_bar = y_bar.T @ x
        return y_bar @ v, g * w_bar, (v * w_bar).sum(axis=1, keepdims=True)

    shapes = (5, 4), (3, 4), (3, 1)
    (found,) = causes(forward, backward, *(rng.normal(size=shape) for shape in shapes))
    assert re.match(r"`v` is used instead of `w.T` in the backward of `x @ w.T` \(line", found)


def test_a_forward_that_factorizes_or_solves_is_followed(rng):
    def forward(x, b):
        s = x.T @ x + np.eye(3)
        low = np.linalg.cholesky(s)
        y = np.tanh(np.linalg.solve(s, b) + low)
        return y, (x, b, s, low, y)

    def backward(y_bar, cache, local=lambda y: 1 - y):
        x, b, s, low, y = cache
        low_bar, inv = y_bar * local(y), np.linalg.inv(low)
        b_bar = np.linalg.solve(s, low_bar)
        p = np.tril(low.T @ low_bar) * (1 - np.eye(3) / 2)
        s_bar = inv.T @ p @ inv - b_bar @ np.linalg.solve(s, b).T
        return x @ (s_bar + s_bar.T), b_bar

    inputs = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))
    assert check_backward(forward, partial(backward, local=lambda y: 1 - y * y), inputs).ok
    for cause in causes(forward, backward, *inputs):
        assert "should be 1 - y^2, not 1 - y" in cause


def test_a_constant_that_every_step_of_a_loop_leaves_out_is_told(rng):
    def forward(x, w):
        states, step = [x], 0.1
        for _ in range(3):
            states.append(states[-1] + step * np.tanh(w @ states[-1]))
        return states[-1], (states, w)

    def backward(y_bar, cache, step=1):
        states, w = cache
        w_bar = np.zeros_like(w)
        for x in reversed(states[:-1]):
            a_bar = step * y_bar * (1 - np.tanh(w @ x) ** 2)
            w_bar += np.outer(a_bar, x)
            y_bar = y_bar + w.T @ a_bar
        return y_bar, w_bar

    inputs = rng.normal(size=3), rng.normal(size=(3, 3))
    assert check_backward(forward, partial(backward, step=0.1), inputs).ok
    for found in causes(forward, backward, *inputs):
        assert found.startswith("the factor `step` is left out in the backward of `step * np.tanh")
        assert found.endswith("every time)")


@pytest.mark.parametrize("lengths", [(1, 2, 3), (3, 2, 1)])
def test_a_wrong_value_in_a_loop_over_stacks_of_several_lengths_is_told(lengths, rng):
    def forward(x):
        sums = [np.stack([x[i] for i in range(n)]).sum(axis=0) for n in lengths]
        y = np.stack([np.tanh(s) * x[0] for s in sums])
        return y, (x, sums)

    def backward(y_bar, cache):
        x, sums = cache
        x_bar = np.zeros_like(x)
        for n, s, bar in zip(lengths, sums, y_bar, strict=True):
            x_bar[:n] += bar * (1 - np.tanh(s) ** 2) * np.tanh(s)  # should be * x[0]
            x_bar[0] += bar * np.tanh(s)
        return (x_bar,)

    (cause,) = causes(forward, backward, rng.normal(size=(3, 4)))
    words = r"`np.tanh\(s\)` \(.*, every time\) is used instead of `x\[0\]` in the backward of"
    assert re.match(words, cause), cause


@pytest.mark.parametrize("wrong", ["1", "y", "1 - y", "1 - y^2"])
def test_a_derivative_that_every_layer_of_a_loop_gets_wrong_is_told_as_a_whole(rng, wrong):
    def local(y):
        return {"1": 1, "y": y, "1 - y": 1 - y, "1 - y^2": 1 - y * y}[wrong]

    def forward(x, v, w):
        ys = [x]
        for each in (v, w):
            z = ys[-1] @ each
            ys.append(1 / (1 + np.exp(-z)))
        return ys[-1].copy(), (ys, v, w)

    def backward(y_bar, cache, local=local):
        (x, h, y), v, w = cache
        b_bar = y_bar * local(y)
        a_bar = b_bar @ w.T * local(h)
        return a_bar @ v.T, x.T @ a_bar, h.T @ b_bar

    inputs = [rng.normal(size=shape) for shape in ((4, 3), (3, 5), (5, 2))]
    assert check_backward(forward, partial(backward, local=lambda y: y * (1 - y)), inputs).ok
    for cause in causes(forward, backward, *inputs):
        assert "the local derivative of `1 / (1 + np.exp(-z))` (line" in cause
        assert f"every time) should be y (1 - y), not {wrong}, where y is its value" in cause


def test_the_derivative_of_a_mask_is_the_mask_and_not_another_that_equals_it_there(rng):
    mask = rng.random(size=(4, 3)) < 0.6

    def forward(x):
        h = np.maximum(x, 0)
        return h * mask, x

    (found,) = causes(forward, lambda y_bar, x: (y_bar * (x > 0),), rng.normal(size=(4, 3)))
    assert "should be mask, not 1" in found


def test_no_other_use_of_an_input_is_blamed_than_may_be_wrong(rng):
    def cosine(a, b):
        norms = np.sqrt((a * a).sum(axis=1)) * np.sqrt((b * b).sum(axis=1))
        cos = (a * b).sum(axis=1) / norms
        return cos, (a, b, norms[:, None], cos[:, None].copy())

    def backward(y_bar, cache, product=None):
        a, b, norms, cos = cache
        y_bar, product = y_bar[:, None], norms if product is None else product
        a_bar = y_bar * (b / product - cos * a / (a * a).sum(axis=1, keepdims=True))
        return a_bar, y_bar * (a / norms - cos * b / (b * b).sum(axis=1, keepdims=True))

    inputs = list(rng.normal(size=(2, 4, 3)))
    assert check_backward(cosine, backward, inputs).ok
    assert causes(cosine, partial(backward, product=2.0), *inputs) == [""]  # not of a * a


def test_the_sum_over_repeats_may_be_wrong_instead_of_a_derivative(rng):
    def forward(x, w):
        e = np.exp(x)
        total = np.log(e.sum(axis=1, keepdims=True))
        return ((x - total) * w).sum(axis=1), (x, w, total)

    def backward(y_bar, cache):
        x, w, total = cache
        p = np.exp(x - total)
        x_bar = w - p * (w * w).sum(axis=1, keepdims=True)  # w.sum
        return y_bar[:, None] * x_bar, y_bar[:, None] * (x - total)

    (found,) = causes(forward, backward, *rng.normal(size=(2, 4, 3)))
    assert "error arises" in found and "derivative" not in found


def test_a_factor_per_group_blames_no_derivative_behind_the_mixing(rng):
    axes = 2, 3, 4

    def forward(x, gamma, beta):
        groups = x.reshape(2, 2, 2, 2, 3)
        mean, var = groups.mean(axis=axes, keepdims=True), groups.var(axis=axes, keepdims=True)
        x_hat = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(2, 4, 2, 3)
        y = x_hat * gamma.reshape(1, 4, 1, 1) + beta.reshape(1, 4, 1, 1)
        return y, (x_hat, var, gamma.reshape(1, 4, 1, 1))

    def backward(y_bar, cache):
        x_hat, var, gamma = cache
        g, h = (y_bar * gamma).reshape(2, 2, 2, 2, 3), x_hat.reshape(2, 2, 2, 2, 3)
        mixed = g.mean(axis=axes, keepdims=True) + h * (g * h).mean(axis=axes, keepdims=True)
        x_bar = (g - mixed) / (var + 1e-5)  # not its root
        channels = 0, 2, 3
        return x_bar.reshape(2, 4, 2, 3), (y_bar * x_hat).sum(channels), y_bar.sum(channels)

    inputs = map(rng.normal, [0] * 3, [1] * 3, [(2, 4, 2, 3), 4, 4])
    (found,) = causes(forward, backward, *inputs)
    assert found.startswith("a factor per element") and "derivative" not in found


def test_no_value_is_told_to_stand_for_another_of_its_name(rng):
    def forward(x, w):
        given, x = x, np.tanh(x)
        return x * w, (given, x, w)

    def backward(y_bar, cache):
        given, x, w = cache
        return y_bar * w * (1 - x * x), y_bar * given

    (cause,) = causes(forward, backward, *rng.normal(size=(2, 4, 3)))
    assert "should be x" in cause
    assert "`x` is used instead of `x`" not in cause


def test_a_module_that_the_forward_imports_is_no_operand(rng):
    def forward(x):
        import numpy as anp

        return anp.tanh(x * x), x

    def backward(y_bar, x):
        return (y_bar * (1 - np.tanh(x) ** 2) * 2 * x,)

    (cause,) = causes(forward, backward, rng.normal(size=(2, 3)))
    assert cause.startswith("`x` is used instead of `x * x` in the backward of `anp.tanh(x * x)`")


def test_a_comprehension_is_no_call_from_its_own_line(rng):
    def forward(x):
        return np.stack([x[:, i : i + 3].mean(axis=1) for i in (0, 2, 4)], axis=1), x

    def backward(y_bar, x):
        x_bar = np.zeros_like(x)
        for n in range(3):
            x_bar[:, 2 * n : 2 * n + 3] = y_bar[:, n : n + 1] / 3
        return (x_bar,)

    (found,) = causes(forward, backward, rng.normal(size=(3, 7)))
    assert "line" in found and "called in" not in found
