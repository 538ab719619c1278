"""DOT to SVG, PNG and PDF: which renderer runs, what happens without one, and hostile names."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from viz import names
from viz.graphs import batch_norm, chain, leaf, product

import minigrad as mg
from minigrad.errors import RenderError, UsageError
from minigrad.viz import render
from minigrad.viz.fold import fold
from minigrad.viz.formula import Formulas
from minigrad.viz.graph import Recorded
from minigrad.viz.skeleton import skeleton

needs_pygraphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="no dot on PATH")

MAGIC = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}


def only(monkeypatch, *names):
    """Leave only the renderers of these names."""
    kept = [entry for entry in render._RENDERERS if entry[0] in names]
    monkeypatch.setattr(render, "_RENDERERS", kept)


def fake(monkeypatch, run):
    monkeypatch.setattr(render, "_RENDERERS", [("fake", lambda: True, run)])


@pytest.mark.usefixtures("renderer")
def test_titles_of_frames_stand_above_all_lines_each_once():
    y = batch_norm()
    svg = mg.viz.draw(y)._repr_svg_()
    *before, after = svg.split('class="edge"')
    for name in ("batch_norm", "variance", "normalize", "affine"):
        assert f">{name}</text>" in after and f">{name}</text>" not in "".join(before)
    patch = re.findall(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="16"', after)[0]
    title, count = re.findall(r'x="(\S+)" y="(\S+)"', after[after.index("<rect") :])[1:3]
    assert patch[0] == title[0] and float(count[0]) - float(title[0]) < float(patch[2])
    ElementTree.fromstring(svg)


# --- names ---------------------------------------------------------------------------------------


@needs_pygraphviz
def test_hostile_names_give_well_formed_svg_that_shows_them_verbatim():
    with mg.scope('</g>"\\N<&\0'):
        y = product(*names.ALL)
    verdicts = {name: (False, name) for name in names.ALL}
    svg = render.render(mg.viz.to_dot(y, verdicts=verdicts), "svg")
    texts = ElementTree.fromstring(svg).findall(".//{*}text")
    plain = {names.without_marks(node.text or "") for node in texts}
    assert plain >= {*names.SHOWN, '</g>"\\N<&␀'}
    assert b"href" not in svg.replace(b"xlink=", b"")


def test_dot_text_of_hostile_names_is_ascii_safe_where_it_must_be():
    dot = mg.viz.to_dot(product(*names.ALL))
    dot.encode()  # no lone surrogate is left
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", dot)
    assert "<b>" not in dot and "<script" not in dot
    assert "URL" not in dot


# --- files ---------------------------------------------------------------------------------------


@needs_pygraphviz
@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_pygraphviz_draws_every_format_with_an_empty_path(form, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = tmp_path / f"picture.{form.upper()}"
    assert mg.viz.draw(product("x"), str(path)) == path
    assert path.read_bytes().startswith(MAGIC[form])


@needs_dot
@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_dot_draws_every_format(form, monkeypatch):
    only(monkeypatch, "dot")
    assert render.render(mg.viz.to_dot(product("x")), form).startswith(MAGIC[form])


def test_dot_suffix_writes_the_text_and_needs_no_renderer(tmp_path, monkeypatch):
    only(monkeypatch)
    y = product("λ")
    path = mg.viz.draw(y, tmp_path / "picture.dot", depth=0)
    assert path.read_bytes() == mg.viz.to_dot(y, depth=0).encode()


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "svg", "picture.svg.txt"])
def test_other_suffix_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match=r"\.svg, \.png, \.pdf or \.dot"):
        mg.viz.draw(product("x"), tmp_path / name)
    assert not list(tmp_path.iterdir())


@needs_pygraphviz
def test_batch_norm_with_badges_is_drawn_from_the_same_text_as_its_dot_file(tmp_path):
    x = mg.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True, name="x")
    y = mg.batch_norm(x, np.ones(2), np.zeros(2))
    svg = mg.viz.draw(y, tmp_path / "bn.svg", verdicts={"x": (False, "planted")}).read_text()
    assert "✗ wrong: planted" in svg
    assert "#b3261e" in svg


# --- renderers -----------------------------------------------------------------------------------


def test_without_a_renderer_one_error_names_the_remedies_and_the_saved_text(tmp_path, monkeypatch):
    only(monkeypatch)
    y = product("x")
    with pytest.raises(RenderError) as caught:
        mg.viz.draw(y, tmp_path / "picture.svg")
    text = str(caught.value)
    saved = tmp_path / "picture.dot"
    assert str(saved) in text
    assert all(word in text for word in ("apt install graphviz", "brew", "winget", "pip install"))
    assert "minigrad[render]" in text
    assert len(text.splitlines()) == 4
    assert saved.read_text(encoding="utf-8") == mg.viz.to_dot(y)
    assert not (tmp_path / "picture.svg").exists()


def test_layout_that_takes_too_long_is_stopped_and_says_so(tmp_path, monkeypatch):
    def sleep(dot, form):
        words = [sys.executable, "-c", "import time; time.sleep(60)"]
        return subprocess.run(words, input=dot, timeout=0.2, check=True).stdout

    fake(monkeypatch, sleep)
    with pytest.raises(RenderError, match="within 20 s") as caught:
        mg.viz.draw(product("x"), tmp_path / "picture.svg")
    assert "picture.dot" in str(caught.value)
    assert (tmp_path / "picture.dot").exists()


def test_every_renderer_runs_under_the_time_limit(monkeypatch):
    limits = []

    def run(words, *, timeout, **others):
        limits.append(timeout)
        return subprocess.CompletedProcess(words, 0, b"", b"")

    monkeypatch.setattr(subprocess, "run", run)
    for _, _, renderer in render._RENDERERS:
        renderer(b"digraph {}", "svg")
    assert limits == [20.0, 20.0]


def stacked(blocks):
    h = leaf(np.ones((4, 4)), "x")
    for i in range(blocks):
        with mg.scope(f"block {i}"):
            h = mg.tanh(h @ leaf(np.eye(4), "w") + leaf(np.zeros(4), "b")) * 0.5
    return mg.sum(h)


def recurrent(steps):
    """A recurrent layer: all steps share their weights."""
    h = mg.tensor(np.zeros((2, 3)), name="h0")
    W, U = leaf(np.eye(3), "W"), leaf(np.ones((2, 3)), "U")
    for i in range(steps):
        with mg.scope("cell"):
            h = mg.tanh(h @ W + mg.tensor(np.full((2, 2), i)) @ U)
    return mg.mean(h * h)


def twice_derived(norms):
    x, gamma, beta = leaf(np.sin(np.arange(6.0)).reshape(3, 2), "x"), np.ones(2), np.zeros(2)

    def f(x):
        for _ in range(norms):
            x = mg.tanh(mg.batch_norm(x, gamma, beta))
        return mg.sum(x * x)

    x_bar = mg.grad(f)(x)
    return mg.sum(x_bar * x_bar)


def densely_connected(layers):
    ys = [leaf(np.ones((3, 2)), "x")]
    for i in range(layers):
        with mg.scope(f"layer {i}"):
            ys.append(
                mg.tanh(mg.concatenate(ys, axis=1) @ leaf(np.ones((2 * len(ys), 2)), f"W{i}"))
            )
    return mg.sum(ys[-1])


@needs_pygraphviz
@pytest.mark.parametrize(
    ("make", "n"),
    [(recurrent, 5), (recurrent, 6), (recurrent, 20), (twice_derived, 2), (densely_connected, 9)],
)
def test_the_flow_goes_down_however_often_a_value_is_used(make, n):
    y = make(n)
    y.backward()
    recorded = Recorded([y.node])
    for dot in (mg.viz.to_dot(y), skeleton(fold(recorded), Formulas(recorded))):
        svg = render.render(dot, "svg").decode()
        found = re.findall(
            r'class="node">\n<title>(n\d+)</title>.*?<text[^>]* y="(\S+)"', svg, re.S
        )
        top = {name: float(y) for name, y in found}
        lines = re.findall(r"^ *(n\d+) -> (n\d+)", dot, re.M)
        assert len(lines) >= 5 * n
        assert [line for line in lines if not top[line[0]] < top[line[1]]] == []


@needs_pygraphviz
@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (batch_norm, 1.0),  # the layout takes 0.02 s; the rest is the start of a process
        (lambda: chain(leaf(0.5, "x"), 500), 1.0),
        (lambda: stacked(500), 3.0),
    ],
    ids=["batch norm", "500 ops", "2,000 stacked ops"],
)
def test_layout_is_fast(make, limit):
    y = make()
    if y.grad is None:
        y.backward()
    dot = mg.viz.to_dot(y)
    times = []
    for _ in range(2):  # the faster of two: a shared machine pauses at random
        start = time.perf_counter()
        render.render(dot, "svg")
        times.append(time.perf_counter() - start)
    assert min(times) <= limit


def test_layout_that_crashes_is_an_error_that_names_the_signal(tmp_path, monkeypatch):
    def crash(dot, form):
        raise subprocess.CalledProcessError(-11, "dot")

    fake(monkeypatch, crash)
    with pytest.raises(RenderError, match="crashed with signal 11"):
        mg.viz.draw(product("x"), tmp_path / "picture.svg")


def test_second_renderer_is_used_when_the_first_fails(monkeypatch):
    def fail(dot, form):
        raise subprocess.CalledProcessError(1, "dot", stderr=b"no such format")

    entries = [("first", lambda: True, fail), ("second", lambda: True, lambda dot, form: b"<svg")]
    monkeypatch.setattr(render, "_RENDERERS", entries)
    assert render.render("digraph {}", "svg") == b"<svg"


@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
@pytest.mark.parametrize("output", [b"", b"warning\n", b"\x9e\xff"], ids=repr)
def test_what_a_renderer_writes_is_checked_to_be_a_picture(monkeypatch, tmp_path, output, form):
    fake(monkeypatch, lambda dot, form: output)
    assert render.renderers() == []
    with pytest.raises(RenderError, match=rf"fake: {len(output)} bytes that are no {form}"):
        mg.viz.draw(batch_norm(), tmp_path / f"a.{form}")
    assert not (tmp_path / f"a.{form}").exists()


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, "x"), OSError("no")], ids=repr)
def test_what_is_installed_and_cannot_draw_is_no_renderer(monkeypatch, error):
    def fail(dot, form):
        raise error

    entries = [("first", lambda: True, fail), ("second", lambda: True, lambda dot, form: b"<svg")]
    monkeypatch.setattr(render, "_RENDERERS", entries)
    assert render.renderers() == ["second"]


def test_dot_on_path_is_preferred(monkeypatch):
    assert [name for name, _, _ in render._RENDERERS] == ["dot", "pygraphviz"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not render._has_dot()


@needs_pygraphviz
def test_text_that_is_not_dot_is_a_render_error(monkeypatch):
    only(monkeypatch, "pygraphviz")
    with pytest.raises(RenderError, match="the layout failed"):
        render.render("this is not dot", "svg")


# --- notebooks -----------------------------------------------------------------------------------


def test_notebook_gets_text_and_svg(monkeypatch):
    fake(monkeypatch, lambda dot, form: b"<?xml version='1.0'?>\n<svg></svg>")
    y = product("x")
    assert mg.viz.mimebundle(y) == {"text/plain": repr(y), "image/svg+xml": "<svg></svg>"}


@needs_pygraphviz
def test_pictures_of_one_notebook_share_no_id():
    svg = mg.viz.mimebundle(product('id="x"', "b"))["image/svg+xml"]
    ids = [node.get("id") for node in ElementTree.fromstring(svg).iter()]
    assert set(ids) == {None}
    assert "id=&quot;x&quot;" in svg


def test_drawing_without_a_path_is_a_picture_for_a_cell(monkeypatch):
    drawn = []

    def run(dot, form):
        drawn.append((dot.decode(), form))
        return b"<?xml version='1.0'?>\n<svg></svg>"

    fake(monkeypatch, run)
    y = batch_norm()
    shown = mg.viz.draw(y, depth=1, values=False)
    assert (shown._repr_svg_(), repr(shown)) == ("<svg></svg>", "<picture of 11 characters>")
    assert drawn == [(mg.viz.to_dot(y, depth=1, values=False), "svg")]


def test_notebook_gets_text_alone_without_a_renderer(monkeypatch):
    only(monkeypatch)
    y = product("x")
    assert mg.viz.mimebundle(y) == {"text/plain": repr(y)}


@pytest.mark.parametrize("y", [mg.tensor([1.0]), mg.tensor(1.0, requires_grad=True), None, 3.0])
def test_notebook_never_sees_an_error(y):
    assert mg.viz.mimebundle(y) == {"text/plain": repr(y)}
