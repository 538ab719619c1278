"""Formulas become MathML that browsers set as TeX would."""

from xml.etree import ElementTree

import pytest

import minigrad as mg

pytest.importorskip("latex2mathml")
pytest.importorskip("sphinx")
from minigrad_docs.mathml import mathml


def elements(latex, display="inline"):
    root = ElementTree.fromstring(mathml(latex, display))
    return [(e.tag, e.text or "", e.attrib) for e in root.iter()]


@pytest.mark.parametrize("name", sorted(mg.REGISTRY))
def test_every_formula_of_an_op_has_markup(name):
    declared = mg.REGISTRY[name]
    for latex in (declared.formula, getattr(declared, "pullback", "x")):
        for display in ("inline", "block"):
            tags = {tag for tag, _, _ in elements(latex, display)}
            assert tags <= {
                "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msub", "msup", "msubsup",
                "mfrac", "msqrt", "mover", "munder", "munderover", "mstyle",
            }  # fmt: skip


@pytest.mark.parametrize("latex", [r"\nonsense{x}", r"\begin{aligned} a &= b \end{aligned}"])
def test_what_it_does_not_know_is_an_error(latex):
    with pytest.raises(ValueError, match="left over"):
        mathml(latex, "block")


def test_a_bar_is_as_wide_as_its_letter():
    assert ("mo", "\u00af", {"stretchy": "false"}) in elements(r"\bar x")


def test_limits_stand_below_a_sum():
    assert "munder" in {tag for tag, _, _ in elements(r"\sum_i x_i", "block")}


def test_a_sign_after_an_equals_sign_has_no_space():
    (sign,) = [attrs for tag, text, attrs in elements("y = -x") if text == "\u2212"]
    assert sign == {"form": "prefix", "lspace": "0", "rspace": "0"}
    (minus,) = [attrs for tag, text, attrs in elements("y - x") if text == "\u2212"]
    assert minus == {}


def test_a_function_stands_apart_from_its_argument():
    (cos,) = [attrs for _, text, attrs in elements(r"\cos x") if text == "cos"]
    assert float(cos["rspace"].removesuffix("em")) > 0
    (cos,) = [attrs for _, text, attrs in elements(r"\cos(x)") if text == "cos"]
    assert cos["rspace"] == "0"
