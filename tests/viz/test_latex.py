"""Formulas of declared ops as MathML and as text."""

import importlib.util
import re
from io import StringIO
from xml.etree import ElementTree

import pytest

import minigrad as mg
from minigrad.core.op import Op
from minigrad.viz.latex import fault, marked, mathml, plain, pullback_of
from minigrad.viz.legend import letters

FORMULAS = sorted(
    {text for op in mg.REGISTRY.values() for text in (op.formula, getattr(op, "pullback", ""))}
    - {""}
)
needs_latex2mathml = pytest.mark.skipif(
    importlib.util.find_spec("latex2mathml") is None, reason="latex2mathml is not installed"
)


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\bar x_1 = \bar y\,x_2", "x\u0304₁ = y\u0304 x₂"),
        (r"y = \frac{1}{N} \sum_i x_i^2", "y = 1/N ∑ᵢ xᵢ²"),
        (r"\bar A = \bar Y B^\mathsf{T}", "A\u0304 = Y\u0304 Bᵀ"),
        (r"x / \sqrt{\sigma^2 + \epsilon}", "x / √(σ² + ε)"),
        (r"\frac{x + 1}{2}", "(x + 1)/2"),
        (r"\frac{\bar y}{\sqrt\pi}", "y\u0304/√π"),
        (r"\frac{\sqrt{x + 1}}{\sqrt{x} + 1}", "√(x + 1)/(√x + 1)"),
        (r"[i \in \text{window } o],\quad \, x", "[i ∈ window o],  x"),
        (r"y_{\mathrm{out}}", "y_(out)"),
        (r"e^{x_i}", "e^(xᵢ)"),
        (r"\unknown x", r"\unknown x"),
        (r"\{j : x\}", "{j : x}"),
        ("x_", "x_()"),
        (r"\frac{1}", "1/()"),
        ("}}{{", ""),
        (r"y = \left(\frac{a}{b}\right)^2 \left. z \right|_0", "y = (a/b)² z |₀"),
    ],
)
def test_text_reads_like_the_formula(latex, text):
    assert plain(latex) == text


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\sinh x + \arctan y", "sinh x + arctan y"),
        (r"\det A", "det A"),
        (r"\delta\eta\tau\phi", "δητφ"),
        (r"\Gamma\Omega", "ΓΩ"),
    ],
)
def test_formulas_of_ops_to_come_may_use_functions_and_greek_letters_of_tex(latex, text):
    assert plain(latex) == text


@pytest.mark.parametrize("latex", FORMULAS)
def test_every_declared_formula_has_a_text_without_commands(latex):
    assert "\\" not in plain(latex)


@needs_latex2mathml
@pytest.mark.parametrize("latex", FORMULAS)
@pytest.mark.parametrize("display", ["inline", "block"])
def test_every_declared_formula_becomes_mathml_of_a_few_elements(latex, display):
    found = elements(latex, display)
    assert {tag for tag, _, _ in found} <= {
        "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msub", "msup", "msubsup", "mfrac",
        "msqrt", "mover", "munder", "munderover", "mstyle",
    }  # fmt: skip
    assert "\\" not in "".join(text for _, text, _ in found)


def elements(latex, display="inline"):
    root = ElementTree.fromstring(mathml(latex, display))
    return [(e.tag, e.text or "", e.attrib) for e in root.iter()]


def attributes(latex, text):
    """The attributes of the one element whose text is ``text``."""
    (found,) = [attrs for _, shown, attrs in elements(latex) if shown == text]
    return found


@needs_latex2mathml
def test_a_bar_is_as_wide_as_its_letter():
    assert attributes(r"\bar x", "\u00af") == {"stretchy": "false"}


@needs_latex2mathml
def test_limits_stand_below_a_sum():
    assert "munder" in {tag for tag, _, _ in elements(r"\sum_i x_i", "block")}


@needs_latex2mathml
def test_a_sign_after_an_equals_sign_has_no_space():
    sign = {"form": "prefix", "lspace": "0", "rspace": "0"}
    assert attributes("y = -x", "\u2212") == attributes(r"\sigma(-2x)", "\u2212") == sign
    assert attributes("y - x", "\u2212") == {}


@needs_latex2mathml
def test_the_two_signs_of_an_assignment_stand_together():
    latex = r"\bar x[k] \mathrel{+}= \bar y"
    assert attributes(latex, "+") == {"rspace": "0"}
    assert attributes(latex, "=") == {"lspace": "0"}


@needs_latex2mathml
@pytest.mark.parametrize("name", ["\\cos", r"\operatorname{cos}", r"\mathrm{cos}"])
def test_a_function_stands_apart_from_its_argument_and_from_its_factor(name):
    spaces = [attributes(latex, "cos") for latex in (f"y {name} x", f"y = {name}(x)")]
    assert [(s["lspace"], s["rspace"]) for s in spaces] == [("0.167em", "0.167em"), ("0", "0")]


@needs_latex2mathml
def test_a_word_is_one_element():
    assert attributes(r"\mathit{ddof}", "ddof") == {"mathvariant": "italic"}
    assert "\U0001d7cf\U0001d7d0" in [text for _, text, _ in elements(r"\mathbf{12}")]


@needs_latex2mathml
@pytest.mark.parametrize(
    "latex",
    [r"\href{javascript:alert(1)}{x}", r"\unicode{x}", r"\text{<script>alert(1)</script>}", "<b>"],
)
def test_formula_that_could_act_is_text_or_inert(latex):
    for element in ElementTree.fromstring(mathml(latex) or "<none/>").iter():
        assert "href" not in element.attrib
        assert element.tag not in ("script", "b")


@pytest.mark.parametrize("latex", FORMULAS)
def test_no_declared_formula_is_called_wrong(latex):
    assert fault(latex) == ""


@pytest.mark.parametrize(
    ("latex", "wrong"),
    [
        (r"y = \frac{1}{x", "a brace is not closed"),
        ("y = x^2}", "one brace too many"),
        ("y = x}{", "one brace too many"),
        pytest.param(r"y = \halve x", r"unknown command \halve", marks=needs_latex2mathml),
        pytest.param(r"y = \frac{1}", "an argument is missing", marks=needs_latex2mathml),
        pytest.param("y = x_", "latex2mathml: Missing", marks=needs_latex2mathml),
        (r"\{x\}", ""),
        ("", ""),
    ],
)
def test_formula_that_is_no_latex_is_named_and_shown_as_it_was_written(latex, wrong):
    assert fault(latex).startswith(wrong)
    assert bool(fault(latex)) == bool(wrong)
    assert marked(latex).startswith(f"⚠ {latex} ({wrong}" if wrong else "")


def walked(y):
    out = StringIO()
    mg.viz.walk(y, out=out)
    return out.getvalue()


@pytest.fixture(params=["page", "terminal"])
def show(request):
    """The steps of ``y`` as text."""
    if request.param == "terminal":
        return walked
    request.getfixturevalue("renderer")
    return lambda y: mg.viz.step(y).html


@pytest.mark.usefixtures("declared")
def test_stepping_through_an_op_whose_formula_is_no_latex_warns_and_marks_it(show):
    @mg.elementwise(formula=r"y = \frac{x}{2", pullback=r"\bar x = \bar y / 2")
    def halved(xp, x):
        """Half of ``x``."""
        return x / 2

    @halved.defpartials
    def _(y, x):
        return (0.5 + 0 * x,)

    x = mg.tensor(1.0, requires_grad=True)
    with pytest.warns(UserWarning, match="the formula of halved") as warned:
        text = show(halved(halved(x)))
    assert len(warned) == 1 and warned[0].filename == __file__
    assert r"⚠ y = \frac{x}{2 (a brace is not closed)" in text


def test_without_latex2mathml_there_is_no_mathml(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    mathml.cache_clear()
    assert mathml("y = x") == ""
    mathml.cache_clear()


@pytest.mark.parametrize(
    ("name", "i", "part"),
    [
        ("multiply", 1, r"\bar x_2 = \bar y\,x_1"),
        ("matmul", 0, r"\bar A = \bar Y B^\mathsf{T}"),
        ("sqrt", 0, r"\bar x = \bar y / (2 y)"),
    ],
)
def test_pullback_of_one_input_is_its_part(name, i, part):
    assert pullback_of(mg.REGISTRY[name], i) == part


INPUTS = [
    (op, i, re.sub(r"(\d)$", r"_\1", letter) + r"(?![a-zA-Z\d])")
    for op in mg.REGISTRY.values()
    if isinstance(op, Op) and op.arity
    for i, letter in enumerate(letters(op))
    if op.domain_of(i).kind == "real"
]
NAMED = [(*given, x) for *given, x in INPUTS if re.search(rf"(?<![a-zA-Z]){x}", given[0].formula)]


@pytest.mark.parametrize(("op", "i", "letter"), NAMED, ids=lambda x: getattr(x, "name", x))
def test_every_input_that_a_formula_names_is_told_its_cotangent(op, i, letter):
    assert re.search(rf"\\bar\s*\\?{letter}", pullback_of(op, i))


def test_letter_that_a_pullback_explains_is_explained_to_the_input_that_needs_it():
    parts = [plain(pullback_of(mg.REGISTRY["fused_layer_norm"], i)) for i in range(3)]
    assert [part.count("g =") for part in parts] == [1, 0, 0]
    assert parts[2] == "β\u0304ⱼ = ∑ₙ y\u0304ₙⱼ"


def test_pullback_with_a_side_condition_stays_whole():
    gelu = mg.REGISTRY["gelu"]
    assert pullback_of(gelu, 0) == gelu.pullback
