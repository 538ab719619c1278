"""The stepper in a terminal, and what it prints without one."""

import io
import os
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
from viz import graphs, names

import minigrad as mg
from minigrad.viz.keys import _posix
from minigrad.viz.terminal import _COLORS, _interact, lines, step_lines

GOLDEN = """\
step 1 of 6 · forward › block
v1 = x * w
  y = x₁ x₂    with y = v1, x₁ = x, x₂ = w
  [0, 0]: 1 * 3 = 3
  x (2, 1)     w (2,)     v1 (2, 2)
  1         *  3  5    =   3   5
  2                        6  10

step 2 of 6 · forward
y = sum(v1)
  y = ∑ᵢ xᵢ    with x = v1
  3 + 5 + 6 + 10 = 24
       v1 (2, 2)     y ()
  sum   3   5     =  24
        6  10

step 3 of 6 · seed
seed: the cotangent of y
  The backward sweep starts here and visits the ops in reverse order.
  y ()     y_bar: 1, as for every scalar ()
  24    ←  1

step 4 of 6 · backward
v1 ← sum(v1)
  x̄ᵢ = ȳ    with x = v1
  y_bar arrives ()     contribution to v1_bar (2, 2)
  1                 →  1  1
                       1  1
  only contribution: v1_bar = this, and it is complete

step 5 of 6 · backward › block
x ← x * w
  x̄₁ = ȳ x₂    with y = v1, x₁ = x, x₂ = w
  [0, 0]: ȳ = 1, x₂ = 3 → 3
  v1_bar arrives (2, 2)     w (2,)     what the rule returns (2, 2)
  1  1                   ,  3  5    →  3  5
  1  1                                 3  5
  x was broadcast to fit, so sum over axis 1: (2, 2) → (2, 1)
     contribution to x_bar (2, 1)
  ∑  8
     8
  [0, 0]: 3 + 5 = 8
  only contribution: x_bar = this, and it is complete

step 6 of 6 · backward › block
w ← x * w
  x̄₂ = ȳ x₁    with y = v1, x₁ = x, x₂ = w
  [0, 0]: ȳ = 1, x₁ = 1 → 1
  v1_bar arrives (2, 2)     x (2, 1)     what the rule returns (2, 2)
  1  1                   ,  1         →  1  1
  1  1                      2            2  2
  w was broadcast to fit, so sum over axis 0: (2, 2) → (2,)
     contribution to w_bar (2,)
  ∑  3  3
  [0]: 1 + 2 = 3
  only contribution: w_bar = this, and it is complete

"""


def outer():
    x, w = graphs.leaf([[1.0], [2.0]], "x"), graphs.leaf([3.0, 5.0], "w")
    with mg.scope("block"):
        h = x * w
    return mg.sum(h)


def test_without_a_terminal_all_steps_are_printed_as_the_golden_text():
    out = io.StringIO()
    mg.viz.walk(outer(), out=out, keys=io.StringIO())
    assert out.getvalue() == GOLDEN


def test_without_a_terminal_there_is_no_colour():
    out = io.StringIO()
    mg.viz.walk(graphs.product(*names.ALL), out=out, keys=io.StringIO(), seed=np.ones(2))
    assert "\x1b" not in out.getvalue() and "\0" not in out.getvalue()
    assert all(name in names.without_marks(out.getvalue()) for name in names.SHOWN)


def test_running_sum_and_statistics_are_told():
    text = "\n".join(lines(mg.viz.trace(graphs.batch_norm())))
    assert "xc_bar += this: path 2 of 3\n" in text
    assert "xc_bar += this: path 3 of 3, and it is complete" in text
    assert "first contribution: xc_bar = this; 2 more to come" in text
    big = mg.sum(graphs.leaf(np.arange(100.0).reshape(10, 10), "x"))
    assert "min 0  mean 49.5  max 99  std 28.9" in "\n".join(lines(mg.viz.trace(big)))


def test_a_mean_shares_its_cotangent_in_numbers():
    x = graphs.leaf([[1.0, 2.0], [3.0, 5.0]], "x")
    text = "\n".join(lines(mg.viz.trace(mg.mean(x, axis=0), np.array([0.5, 3.0]))))
    assert "[0, 0]: 0.5 / 2 = 0.25" in text


def test_contribution_of_zero_is_told():
    text = "\n".join(lines(mg.viz.trace(mg.sign(graphs.leaf(1.0, "x")) * 1.0)))
    assert "this contribution is 0" in text


PROGRAM = """
import minigrad as mg
x = mg.tensor(3.0, requires_grad=True, name="x")
mg.viz.walk(mg.exp(x * x))
"""


def at_a_terminal(keys, **environment):
    """The screens that the program writes to a terminal, one before each of ``keys``."""
    pty = pytest.importorskip("pty", reason="a terminal needs POSIX")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", PROGRAM]
    env = {**os.environ, "TERM": "xterm", **environment}
    program = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    screens = []
    try:
        for key in keys:
            screens.append(_screen(ours))
            os.write(ours, key.encode())
        assert program.wait(timeout=20) == 0
    finally:
        program.kill()
        program.wait()
        os.close(ours)
    return screens


def _screen(descriptor):
    """Everything written up to the line of hints, which is the last one."""
    text, limit = "", time.monotonic() + 20
    while "q quit" not in text and time.monotonic() < limit:
        text += os.read(descriptor, 65536).decode()
    return text


def test_one_key_each_at_a_terminal():
    keys = ["\x1b[C", "l", " ", "h", "\x1b[D", "b", "\x1b[F", "\x1b[C", "\x1b[H", "?", "q"]
    screens = at_a_terminal(keys)
    steps = [screen.split("step ")[1].split(" ")[0] for screen in screens]
    assert steps == ["1", "2", "3", "4", "3", "2", "3", "6", "6", "1", "1"]
    assert "\x1b[1;34m" in screens[0]  # the title of a forward step, in colour


def test_titles_can_be_read_on_white_and_on_black():
    """Their contrast is 3 or more, as WCAG asks of large text, in xterm's bold colours."""
    rgb = {31: (255, 0, 0), 32: (0, 255, 0), 33: (255, 255, 0), 34: (92, 92, 255),
           35: (255, 0, 255), 36: (0, 255, 255)}  # fmt: skip
    for color in _COLORS.values():
        linear = (np.array(rgb[int(color[-3:-1])]) / 255) ** 2.2  # of sRGB, nearly
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) >= 3 and (luminance + 0.05) / 0.05 >= 3


def test_figures_stand_side_by_side_as_far_as_the_terminal_is_wide():
    wide = at_a_terminal(["\x1b[F", "q"], COLUMNS="80")[1]
    narrow = at_a_terminal(["\x1b[F", "q"], COLUMNS="40")[1]
    figures = [len(line) for line in narrow.splitlines() if " (" in line and "with" not in line]
    assert max(figures) <= 40 < max(map(len, wide.splitlines())) <= 80


def test_a_step_taller_than_the_terminal_scrolls_below_its_title():
    def lines_of(screen):
        return [line.rstrip("\r") for line in screen.split("\x1b[H")[1].splitlines()]

    (whole,) = map(lines_of, at_a_terminal(["q"], NO_COLOR="1", LINES="40"))
    title, body, hint = whole[:2], whole[2:-2], whole[-1]
    keys = ["\x1b[B", "j", *"jjjjjjjj", "k", "\x1b[A", "l", "h", "q"]
    screens = [*map(lines_of, at_a_terminal(keys, NO_COLOR="1", LINES="7"))]
    assert all(len(screen) <= 6 and screen[:2] == title for screen in screens[:-2])
    assert all(screen[-1] == f"↑ ↓ scroll   {hint}" for screen in screens[:-2])
    shown = [screen[2:-2] for screen in screens]
    last = len(body) - 2
    tops = [0, 1, 2, *(min(n, last) for n in range(3, 11)), last - 1, last - 2]
    assert shown[:-2] == [body[top : top + 2] for top in tops]
    assert shown[-1] == body[:2]  # the next step and back: from its top


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 20), (40, 12)])
def test_every_step_fits_below_its_title_whatever_the_width(columns, rows, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = mg.tensor(rng.normal(size=(8, 1, 28, 28)), name="images"), np.arange(8)
    steps = mg.viz.trace(mg.cross_entropy(mg.nn.models.lenet_bn(rng=0)(images), labels))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    out = io.StringIO()
    _interact(steps, out, iter(["right"] * (len(steps) - 1)), colored=False)
    screens = out.getvalue().split("\x1b[2J\x1b[H")[1:]
    assert len(screens) == len(steps)
    for i, screen in enumerate(screens):
        shown = screen.split("\n")
        assert shown[0].startswith(f"step {i + 1} of {len(steps)}")
        assert len(shown) <= rows and max(map(len, shown)) <= columns
        last = " ".join(" ".join(shown[-4:]).split())
        assert last.endswith("Home first End last q quit")


def test_lines_that_fit_are_shown_as_they_are(monkeypatch):
    images = mg.tensor(np.random.default_rng(0).normal(size=(8, 1, 28, 28)), name="images")
    steps = mg.viz.trace(mg.nn.models.lenet_bn(rng=0)(images).sum())
    monkeypatch.setenv("COLUMNS", "62")
    monkeypatch.setenv("LINES", "400")
    out = io.StringIO()
    _interact(steps, out, iter(["right"] * (len(steps) - 1)), colored=False)
    screens = out.getvalue().split("\x1b[2J\x1b[H")[1:]
    told = [step_lines(steps, i, 60) for i in range(len(steps))]
    fitting = [i for i, step in enumerate(told) if max(map(len, step)) <= 62]
    assert any("" in told[i] for i in fitting)  # above a sign that begins a line of figures
    assert all(screens[i].split("\n")[: len(told[i])] == told[i] for i in fitting)


def test_keys_pressed_in_haste_all_count():
    ours, theirs = os.pipe()
    os.write(theirs, b"\x1b[C\x1bOHl\n\x1b")
    os.close(theirs)
    assert list(_posix(ours)) == ["right", "home", "l", "enter", "escape"]
    os.close(ours)


def test_no_color_is_respected_at_a_terminal():
    (screen,) = at_a_terminal(["q"], NO_COLOR="1")
    assert "\x1b[1;" not in screen


def columns(text):
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def test_figures_with_captions_of_wide_characters_stand_in_columns():
    y = graphs.leaf([[1.0], [2.0]], "質問の行列") * graphs.leaf([[3.0], [4.0]], "🔑")
    *_, captions, first, second = step_lines(mg.viz.trace(y, np.ones((2, 1))), 0)
    starts = [columns(captions[: captions.index(name)]) for name in ("質", "🔑", "y (")]
    assert starts == [first.index(number) for number in "138"[:2]] + [first.rindex("3")]
    assert [second.index(number) for number in "24"] == starts[:2]


def test_every_step_of_names_of_wide_characters_fits_the_terminal(monkeypatch):
    y = graphs.product("質問の行列", "日本語の長い長い長い長い名前", "🔑" * 15)
    steps = mg.viz.trace(y, [1.0, 1.0])
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "16")
    out = io.StringIO()
    _interact(steps, out, iter(["right"] * (len(steps) - 1)), colored=False)
    for screen in out.getvalue().split("\x1b[2J\x1b[H")[1:]:
        assert max(map(columns, screen.split("\n"))) <= 40
