"""A wrong backward of any function is told with the code of the forward where it goes wrong."""

import inspect
import re
import time

import numpy as np
import pytest

from minigrad.verify import check_backward
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
