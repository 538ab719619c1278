"""The engine that the tour builds is small, and computes what minigrad computes."""

from pathlib import Path

import numpy as np
import pytest

import minigrad as mg

blocks = pytest.importorskip("minigrad_docs.blocks")

TOUR = (Path(__file__).parents[2] / "docs" / "tour.md").read_text(encoding="utf-8")
ENGINE = [b.text for b in blocks.parse(TOUR.partition("The engine is complete")[0])]
NORM = [b.text for b in blocks.parse(TOUR.partition("## Batch norm")[2]) if "def batch" in b.text]
EPS = np.finfo(float).eps


@pytest.fixture(scope="module")
def engine():
    space: dict = {}
    for text in [*ENGINE, *NORM]:
        exec(text, space)
    return space


def test_it_has_at_most_100_lines_of_code():
    lines = [line for text in ENGINE for line in text.splitlines() if line.strip()]
    assert 60 < len(lines) <= 100


@pytest.mark.parametrize("shape", [(2, 1), (5, 3), (16, 4)])
def test_its_batch_norm_equals_that_of_minigrad_to_order_3(engine, rng, shape):
    Box, sum_to, grad = engine["Box"], engine["sum_to"], engine["grad"]
    point = rng.normal(size=shape), rng.normal(size=shape[1]), rng.normal(size=shape[1])
    W, *ways = rng.normal(size=shape), *(rng.normal(size=p.shape) for p in point)

    def ours(*p):
        return sum_to(engine["batch_norm"](*p, eps=0.1) * Box(W), shape=())

    def theirs(*p):
        return mg.sum(mg.batch_norm(*p, eps=0.1) * W)

    def along(f, gradients, total):
        def derivative(*p):
            terms = [total(g * v) for g, v in zip(gradients(f)(*p), ways, strict=True)]
            return terms[0] + terms[1] + terms[2]

        return derivative

    for order in (1, 2, 3):
        ours = along(ours, grad, lambda x: sum_to(x, shape=()))
        theirs = along(theirs, lambda f: mg.grad(f, (0, 1, 2)), mg.sum)
        a, b = ours(*map(Box, point)).value.item(), theirs(*point).item()
        # eps = 0.1 bounds inv_std by 3.2; each order multiplies it and some N C terms
        scale = (abs(b) + 1) * 4**order * W.size
        assert abs(a - b) <= 64 * EPS * scale, order


def test_its_rules_equal_those_of_minigrad_under_broadcasting(engine, rng):
    Box = engine["Box"]
    a, b = rng.uniform(1, 2, size=(4, 3)), rng.uniform(1, 2, size=3)

    def f(a, b, sqrt):
        return (a / b - b * a) * sqrt(a + b)

    y = f(Box(a), Box(b), engine["sqrt"])
    y_bar = rng.normal(size=y.value.shape)
    _, pullback = mg.vjp(lambda a, b: f(a, b, mg.sqrt), a, b)
    leaves = Box(a), Box(b)
    bars = engine["backward"](f(*leaves, engine["sqrt"]), Box(y_bar))
    for leaf, expected in zip(leaves, pullback(y_bar), strict=True):
        # every entry is a sum of at most 4 x 4 terms, each below 10 |y_bar|
        bound = 16 * EPS * 16 * 10 * np.abs(y_bar).max()
        assert np.abs(bars[leaf].value - expected.numpy()).max() <= bound
