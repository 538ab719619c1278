"""What a picture shows of a graph: clusters, folding, repeated blocks."""

import re
import time
from weakref import ref

import numpy as np
import pytest
from viz import graphs
from viz.graphs import batch_norm, chain, scalar
from viz.reading import cards, clusters, edges

import minigrad as mg
from minigrad.verify.batch_norm import problem
from minigrad.viz.fold import fold
from minigrad.viz.graph import Recorded
from minigrad.viz.title import gap_lines

# --- clusters and folding ------------------------------------------------------------------------


def test_composites_are_nested_clusters():
    names = ["batch_norm", "mean", "variance", "normalize", "affine"]
    assert clusters(mg.viz.to_dot(batch_norm(swept=False))) == [
        (f"cluster_{i}", name) for i, name in enumerate(names)
    ]


def test_depth_0_folds_every_outermost_scope_to_one_card():
    dot = mg.viz.to_dot(batch_norm(swept=False), depth=np.int64(0))
    assert list(cards(dot)) == ["x", "gamma", "beta", "y = batch_norm(x, gamma, beta)"]
    assert "10 ops folded · (4, 3), (3,), (3,) → (4, 3)" in dot
    assert clusters(dot) == []
    assert sorted(tail for tail, _ in edges(dot)) == ["beta", "gamma", "x", "x"]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)])
@pytest.mark.parametrize("constant", [(), ("gamma",), ("x", "beta")])
def test_a_folded_composite_names_its_operands_in_the_order_of_the_call(shape, constant):
    names = {"x": np.random.default_rng(0).normal(size=shape), "gamma": np.ones(3),
             "beta": np.ones(3)}  # fmt: skip
    given = [x if name in constant else graphs.leaf(x, name) for name, x in names.items()]
    (title,) = [t for t in cards(mg.viz.to_dot(mg.batch_norm(*given), depth=0)) if "=" in t]
    numbers = (f"c{i}" for i in (1, 2))
    wanted = [next(numbers) if name in constant else name for name in names]
    assert title == f"y = batch_norm({', '.join(wanted)})"


def test_operands_of_one_name_are_told_apart():
    x, other, third = scalar("x"), scalar("x"), scalar("x#2")
    assert "y = x * x#3 * x#2" in cards(mg.viz.to_dot(x * other * third))


class Net(mg.nn.Module):
    def __init__(self):
        self.rows = mg.nn.ModuleList([mg.nn.Linear(2, 2), mg.nn.Linear(2, 2, bias=False)])
        self.scale = mg.tensor(2.0, requires_grad=True)
        self.unused = mg.nn.LazyLinear(2)  # which has no parameters yet

    def forward(self, x):
        return self.scale * self.rows[1](self.rows[0](x))


def test_parameters_that_share_a_name_are_called_by_their_path_in_the_model():
    net = Net()
    found = cards(mg.viz.to_dot(net(np.ones((1, 2)))))
    names = {"c1", "rows.0.weight", "bias", "rows.1.weight", "scale"}
    assert {title for title in found if "=" not in title} - {"v1", "v2"} == names


def test_a_graph_keeps_no_model_alive():
    net = Net()
    y, alive = net(np.ones((1, 2))), ref(net)
    del net
    assert alive() is None
    assert "weight#2" in cards(mg.viz.to_dot(y))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)])
def test_the_constants_of_batch_norm_in_evaluation_have_names(shape):
    job = problem(shape=shape, mode="eval")
    titles = list(cards(mg.viz.to_dot(job.recorded())))
    assert {"mean", "inv_std", "xc = x - mean", "x_hat = xc * inv_std"} <= {*titles}


@pytest.mark.parametrize(
    ("call", "name", "title"),
    [
        (lambda x: mg.cross_entropy(x, np.arange(4) % 3), "max", "y = cross_entropy(x)"),
        (mg.nn.Dropout(0.5), "mask", "y = Dropout(x)"),
        (mg.nn.RNNCell(3, 2), "h0", "y = RNNCell(x, weight_ih, bias_ih,"),
    ],
)
def test_a_constant_that_a_call_makes_lies_in_its_frame_and_is_none_of_its_operands(
    call, name, title
):
    y = call(mg.tensor(np.random.default_rng(0).normal(size=(4, 3)), requires_grad=True, name="x"))
    dot = mg.viz.to_dot(y)
    assert dot.index(clusters(dot)[-1][0]) < dot.index(f"<B>{name}</B>") < dot.index("->")
    assert name in cards(dot)
    assert list(cards(mg.viz.to_dot(y, depth=0)))[-1] == title


def test_depth_1_shows_the_outermost_cluster_with_folded_cards_inside():
    dot = mg.viz.to_dot(batch_norm(swept=False), depth=1)
    assert [name for _, name in clusters(dot)] == ["batch_norm"]
    assert [title for title in cards(dot) if "=" in title] == [
        "mean = mean(x)",
        "xc, var = variance(x, mean)",
        "x_hat = normalize(var, xc)",
        "y = affine(gamma, x_hat, beta)",
    ]
    assert edges(dot).count(("xc, var = variance(x, mean)", "x_hat = normalize(var, xc)")) == 2


def test_a_folded_card_shows_its_first_two_results_and_the_last_and_counts_the_others():
    x = scalar()
    with mg.scope("block"):
        results = [x * float(i) for i in range(5)]
    card = cards(mg.viz.to_dot(results, depth=0))["y1, y2, y3, y4, y5 = block(x)"]
    assert re.findall(r"y\d value", card) == ["y1 value", "y2 value", "y5 value"]
    assert "… 2 more results" in card


def test_folding_changes_no_name():
    with mg.scope("block"):
        h = mg.exp(scalar() * scalar("w"))
    y = h + 1
    assert "v1 = exp(x * w)" in cards(mg.viz.to_dot(y))
    assert "v1 = block(x, w)" in cards(mg.viz.to_dot(y, depth=0))
    assert all("y = v1 + 1" in cards(mg.viz.to_dot(y, depth=depth)) for depth in (None, 0))


def test_more_than_300_cards_fold_to_a_smaller_depth_and_the_picture_says_so():
    x = scalar()
    with mg.scope("long"):
        y = chain(x, 400)
    dot = mg.viz.to_dot(mg.exp(y))
    assert len(cards(dot)) == 3
    assert "402 cards are too many to read: folded to depth 0" in dot


def test_what_fits_when_folded_keeps_its_middle():
    x = scalar()
    for i in range(150):
        with mg.scope(f"block {i}"):
            f = mg.tanh if i % 2 else mg.sin  # no block repeats the one before
            x = f(f(f(x)))
    dot = mg.viz.to_dot(x)
    assert len(cards(dot)) == 151
    assert "451 cards are too many to read: folded to depth 0<" in dot


def test_exactly_300_cards_do_not_fold():
    assert len(re.findall(r"\[label=", mg.viz.to_dot(chain(scalar(), 299), values=False))) == 300


def test_chain_of_20_000_ops_is_drawn_small_and_fast():
    y = chain(scalar(), 20_000)
    y.backward()
    start = time.process_time()
    dot = mg.viz.to_dot(y)
    assert time.process_time() - start < 2  # under 0.4 s on a quiet machine
    assert len(dot) < 200_000
    assert "… 19,902 more ops folded" in dot
    assert "in the middle" in dot


def test_a_call_of_many_operands_folds_at_once():
    x = scalar()
    recorded = Recorded([mg.stack([x * i for i in range(50_000)]).node])
    start = time.process_time()
    fold(recorded)
    assert time.process_time() - start < 5  # 0.6 s; 12 s if each input is looked up in a list


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: chain(scalar(), 400), ["… 302 more ops folded"]),
        (lambda: mg.stack([scalar() for _ in range(400)]), ["… 302 more leaves folded"]),
        (lambda: mg.sum(mg.stack([scalar() * scalar() for _ in range(200)])),
         ["… 168 more ops folded", "and 335 leaves"]),
    ],
    ids=["ops", "leaves", "both"],
)  # fmt: skip
def test_folded_middle_counts_what_it_hides(make, says):
    y = make()
    (found,) = (card for card in fold(Recorded([y.node])).cards if card.kind == "gap")
    assert gap_lines(found) == says
    seed = np.ones(y.shape)
    assert all(line in mg.viz.to_dot(y) and line in mg.viz.step(y, seed=seed).html for line in says)


def test_many_edges_into_a_folded_middle_are_one_that_says_how_many():
    x = y = scalar()
    for _ in range(1000):
        y = y * x
    dot = mg.viz.to_dot(y)
    assert re.search(r"n0 -> n\d+ \[taillabel=<.*× \d{3}<", dot)  # at x, not at the folded card
    assert dot.count("->") < 300


def test_many_edges_between_two_cards_are_one_that_says_how_many():
    x = y = graphs.leaf(1.0, "x")
    with mg.scope("long"):
        for _ in range(1300):
            y = y * x
    dot = mg.viz.to_dot(y)
    assert re.search(r"n0 -> n1 \[headlabel=<.*× 1,301<", dot)
    assert len(edges(dot)) == 1


def test_leaf_with_a_verdict_is_not_hidden_in_the_folded_middle():
    leaves = [scalar(f"w{i}") for i in range(400)]
    y = mg.sum(mg.stack(leaves))
    dot = mg.viz.to_dot(y, verdicts={"w200": (False, "0.3")})
    assert "w200" in cards(dot)
    assert "w201" not in cards(dot)


def test_deeply_nested_scopes_need_no_recursion():
    def nested(x):
        scopes = []
        for i in range(1500):
            scopes.append(mg.scope(f"s{i}"))
            scopes[-1].__enter__()
        y = mg.exp(x)
        for inner in reversed(scopes):
            inner.__exit__(None, None, None)
        return y

    assert "s1499" in mg.viz.to_dot(nested(scalar()))


# --- repeated blocks -----------------------------------------------------------------------------


def test_repeated_blocks_fold_to_one_that_says_how_many():
    dot = mg.viz.to_dot(graphs.perceptron(layers=5), depth=0)
    assert list(cards(dot)) == ["x", "v5 = Linear × 5(x)", "v5 * v5", "y = sum(v5 * v5)"]
    assert "15 ops and 10 leaves folded · (8, 8) → (8, 8)" in dot


def test_repeated_blocks_may_compute_with_numbers():
    h = scalar()
    for i in range(3):
        with mg.scope(f"block {i}"):
            h = mg.tanh(2.0 * h)
    assert "y = block × 3(x)" in cards(mg.viz.to_dot(h, depth=0))


def test_open_blocks_and_blocks_of_another_shape_stay_apart():
    assert len(clusters(mg.viz.to_dot(graphs.perceptron(layers=5)))) == 5
    x = mg.tensor(np.ones((2, 1)), requires_grad=True, name="x")
    for i in range(6):
        with mg.scope(f"block {i}"):
            x = mg.concatenate([mg.tanh(x), x], axis=1)
    assert "×" not in mg.viz.to_dot(x, depth=0)


def test_blocks_of_different_scopes_and_blocks_named_by_numbers_stay_apart():
    x = y = scalar()
    for i, outer in enumerate("abc"):
        with mg.scope(outer), mg.scope("block"):
            x = mg.tanh(x)
        with mg.scope(str(i)):
            y = mg.tanh(y)
    assert "×" not in mg.viz.to_dot(x, depth=1) + mg.viz.to_dot(y, depth=0)


def test_leaf_that_several_blocks_or_something_else_use_is_not_folded_with_them():
    shared, h = scalar("shared"), scalar()
    for i in range(4):
        with mg.scope(f"block {i}"):
            own = scalar(f"own {i}")
            h = mg.tanh(h * shared + own)
    folded = "v4 = block × 4(x, shared, own 3)"
    dot = mg.viz.to_dot(h * own, depth=0)
    assert {"shared", "own 3", folded} <= cards(dot).keys()
    assert edges(dot).count(("shared", folded)) == 1 and "× 4<" in dot
    h.backward()
    assert "sum of 4 paths" in cards(mg.viz.to_dot(h, depth=0))["shared"]


def test_leaf_with_a_verdict_is_not_folded_with_the_blocks():
    y = graphs.perceptron(layers=5)
    assert "W3" in cards(mg.viz.to_dot(y, depth=0, verdicts={"W3": (True, "")}))


def test_more_than_300_cards_fold_to_repeated_blocks():
    dot = mg.viz.to_dot(graphs.perceptron(layers=80, width=2))
    assert "v80 = Linear × 80(x)" in cards(dot)
    assert "folded to depth 0" in dot


@pytest.mark.parametrize(("layers", "folds"), [(4, False), (5, True)])
def test_many_parameters_of_one_folded_card_are_one_that_lists_them(layers, folds):
    net = mg.nn.Sequential(*(mg.nn.Linear(2, 2) for _ in range(layers)))
    x = graphs.leaf(np.ones((3, 2)), "x")
    for i, p in enumerate(net.parameters()):
        p.name = f"p{i}"
    y = mg.sum(net(x) * net[0].bias)  # that one has another use
    y.backward()
    found = cards(mg.viz.to_dot(y, depth=0))
    kept = [f"p{i}" for i in range(2 * layers) if not folds or i == 1]
    assert [title for title in found if re.fullmatch(r"p\d", title)] == kept
    if folds:
        listed = re.findall(r"(p\d) \((\S.*?)\) float64", found["9 parameters"])
        assert listed == [(f"p{i}", "2, 2" if i % 2 == 0 else "2,")
                          for i in range(10) if i != 1]  # fmt: skip
        one = {"p4": (False, "wrong")}
        assert "p4" in cards(mg.viz.to_dot(y, depth=0, verdicts=one))
