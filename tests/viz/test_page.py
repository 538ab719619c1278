"""The HTML of the stepper: size, policy, escaping, what happens without a renderer."""

import hashlib
import json
import re
from base64 import b64encode
from contextlib import ExitStack
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from viz import graphs, names

import minigrad as mg
from minigrad.errors import GraphError, RenderError
from minigrad.viz import render


@pytest.fixture(scope="module")
def page(renderer):
    return mg.viz.step(graphs.batch_norm()).html


def data_of(html):
    return json.loads(re.search('class="data">(.*?)</script>', html, re.S).group(1))


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize(
    ("make", "limit"),
    [(graphs.batch_norm, 100_000), (graphs.perceptron, 600_000), (graphs.lenet, 3_000_000)],
    ids=["batch_norm (4, 3)", "mlp of 62 ops", "lenet with batch norm"],
)
def test_file_is_small(make, limit, tmp_path):
    path = mg.viz.step(make(), tmp_path / "page.html")
    assert path.stat().st_size <= limit


def test_policy_allows_this_script_and_this_style_and_nothing_else(page):
    policy = re.search('Content-Security-Policy" content="(.*?)"', page).group(1)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_page_has_no_handlers_no_inline_styles_no_ids_and_no_addresses(page):
    found = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.update(name for name, _ in attrs)
    parser.feed(page)
    assert "class" in found
    assert not {name for name in found if name.startswith("on")}
    assert not {"style", "src", "href", "id"} & found
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)


@pytest.mark.usefixtures("renderer")
def test_page_is_the_same_every_time():
    assert mg.viz.step(graphs.batch_norm()).html == mg.viz.step(graphs.batch_norm()).html


@pytest.mark.usefixtures("renderer")
def test_hostile_names_stay_data():
    html = mg.viz.step(graphs.product(*names.ALL), seed=[1.0, 1.0]).html
    inner = re.search('class="data">(.*?)</script>', html, re.S).group(1)
    assert not set("<>&") & set(inner)
    told = names.without_marks(json.dumps(data_of(html), ensure_ascii=False))
    assert all(json.dumps(name, ensure_ascii=False)[1:-1] in told for name in names.SHOWN)
    assert html.count("<script") == 2
    html.encode()


@pytest.mark.usefixtures("renderer")
def test_hostile_names_of_scopes_stand_over_their_clusters():
    y = graphs.scalar()
    for name in names.ALL:
        with mg.scope(name):
            y = mg.tanh(y)
    picture = re.search('<div class="picture">(.*?)</div>', mg.viz.step(y).html, re.S).group(1)
    texts = ElementTree.fromstring(picture).findall(".//g[@class='cluster']/text")
    assert [names.without_marks(text.text or "") for text in texts] == names.SHOWN


def test_every_card_and_edge_of_every_picture_can_be_addressed(page):
    data = data_of(page)
    pictures = re.findall('<div class="picture">(.*?)</div>', page, re.S)
    assert len(pictures) == len(data["levels"]) == 3
    for picture, level in zip(pictures, data["levels"], strict=True):
        for kind, marks in (("node", level["marks"]), ("edge", level["edges"])):
            found = re.findall(f'class="{kind}" data-i="([0-9]+)"', picture)
            assert sorted(map(int, found)) == list(range(len(marks)))


def test_edges_of_the_open_picture_are_the_op_inputs(page):
    level = data_of(page)["levels"][0]
    assert len(level["edges"]) == 15
    assert all(len(edge["b"]) == 1 for edge in level["edges"])


def test_folding_merges_the_steps_of_a_group_and_leaves_the_seed_alone(page):
    opened, half, closed = data_of(page)["levels"]
    assert opened["units"] == []
    assert [unit[:2] for unit in closed["units"]] == [[0, 9], [11, 25]]
    assert all(first > 10 or last < 10 for first, last, _ in half["units"])


def test_group_that_adds_to_what_others_gave_shows_a_running_sum(page):
    data = data_of(page)
    told = {
        data["stories"][unit[2]]["t"]: data["stories"][unit[2]]
        for unit in data["levels"][1]["units"]
    }
    captions = {
        title: [x[0] for x in told[title]["b"][0][1] if isinstance(x, list)] for title in told
    }
    assert captions["back through mean = mean(x)"][1:] == ["x_bar, sum of 2 of 2 paths"]
    assert captions["back through y = affine(gamma, x_hat, beta)"][1:] == [
        "beta_bar",
        "gamma_bar",
        "x_hat_bar",
    ]


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize(("ops", "pictures"), [(1, 1), (2, 5)])
def test_every_picture_has_fewer_cards_than_the_one_before_and_five_are_the_most(ops, pictures):
    y = graphs.scalar()
    with ExitStack() as scopes:
        for i in range(6):
            scopes.enter_context(mg.scope(f"s{i}"))
            y = graphs.chain(y, ops) if ops > 1 or i == 0 else y
    assert mg.viz.step(y).html.count('<div class="picture">') == pictures


@pytest.mark.usefixtures("renderer")
def test_graph_that_folds_by_itself_still_has_a_step_for_every_op():
    y = graphs.perceptron(layers=101, width=2)
    levels = data_of(mg.viz.step(y).html)["levels"]
    assert [len(level["units"]) for level in levels] == [0, 2]
    assert {level["picture"] for level in levels} == {0}
    assert len(levels[0]["marks"]) == 4


def test_notebook_gets_a_frame_of_its_own(page):
    shown = mg.viz.Page(page)._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<script" not in shown


def test_page_is_described_without_a_memory_address():
    assert repr(mg.viz.Page("<!doctype html>")) == "<page of 15 characters>"


def test_without_a_renderer_the_error_names_the_remedies(monkeypatch, tmp_path):
    monkeypatch.setattr(render, "_RENDERERS", [])
    with pytest.raises(RenderError, match="pip install 'minigrad") as caught:
        mg.viz.step(graphs.batch_norm(), tmp_path / "page.html")
    assert len(str(caught.value).splitlines()) <= 4
    assert not list(tmp_path.iterdir())


def test_what_has_no_graph_is_refused(tmp_path):
    with pytest.raises(GraphError, match="nothing was recorded"):
        mg.viz.step(mg.tensor([1.0]), tmp_path / "page.html")
