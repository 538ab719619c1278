"""Faults planted in the checker itself: each makes it judge wrongly."""

from dataclasses import replace

import numpy as np
import pytest

from minigrad.verify import (
    campaign,
    check,
    check_backward,
    contract,
    diagnose,
    numeric,
    probes,
    reference,
    rounding,
)
from minigrad.verify.kinks import Kinks
from verify import corpus, others

RIGHT = {"closed form", "unbiased variance", "eps outside the square root"}
POINTS = [p for p in probes.batch_norm() if p[0] in
          {"NC (5, 3) float64", "NC (2, 3) float64", "NC gamma 0 float64", "NC offset 100 float64",
           "NC (5, 3) float32", "NC constant channel float64"}]  # fmt: skip


def judges_rightly(name):
    """Whether the checker is right about a right or wrong backward."""
    try:
        if name.startswith("softmax"):
            forward, backward, shapes = others.RIGHT["softmax"]()
            if "off" in name:
                backward = others.broken("softmax", 0, "off by 1e-10")[1]
            rng = np.random.default_rng(3)
            report = check_backward(forward, backward, [rng.normal(size=shape) for shape in shapes])
            return report.ok is ("off" not in name)
        make = corpus.RIGHT[name] if name in RIGHT else corpus.WRONG[name][0]
        return campaign(make, POINTS).ok is (name in RIGHT)
    except ValueError:  # an index out of bounds, where the form is not checked
        return False


def only_ones(y, rng):
    yield "random", np.ones(y.shape, y.dtype)


def no_findings(*args):
    return iter(())


_romberg, _expected = numeric._romberg, reference.Reference.expected
_bounds, _closed = rounding.Rounding.bounds, reference.Reference._closed_form


def scaled(factor):
    return lambda self, dtype: [factor * bound for bound in _bounds(self, dtype)]


def nan_is_nothing(sample):
    return np.nan_to_num(np.abs(sample.got - sample.expected) / np.maximum(sample.bound, 1e-300))


# what is replaced, by what, and the backward of which the checker is wrong then
FAULTS = {
    "differences of the wrong size": (
        numeric, "_romberg", lambda *a: (_romberg(*a)[0] * 1.001, *_romberg(*a)[1:]), "softmax"),
    "no error of the differences": (
        numeric, "_romberg", lambda *a: (_romberg(*a)[0], _romberg(*a)[1] * 0, _romberg(*a)[2]),
        "eps outside the square root"),
    "infinite error of the differences": (
        numeric, "_romberg", lambda *a: (_romberg(*a)[0], _romberg(*a)[1] + 1, _romberg(*a)[2]),
        "softmax"),
    "bounds too wide": (rounding.Rounding, "bounds", scaled(1e7), "softmax off by 1e-10"),
    "bounds of zero": (rounding.Rounding, "bounds", scaled(0), "softmax"),
    "cotangents of ones only": (check, "cotangents", only_ones, "huge cotangents clipped"),
    "the comparison never fails": (diagnose.Sample, "excesses", property(
        lambda self: np.zeros(self.expected.shape)), "softmax off by 1e-10"),
    "the sign of the reference": (reference.Reference, "_closed_form", lambda self, y_bar: [
        -part for part in _closed(self, y_bar)], "closed form"),
    "a reference of zero": (reference.Reference, "expected", lambda self, y_bar: replace(
        _expected(self, y_bar), values=[0 * v for v in _expected(self, y_bar).values]), "softmax"),
    "nan is no error": (
        diagnose.Sample, "excesses", property(nan_is_nothing), "nan where gamma is 0"),
    "form is not checked": (contract, "form", no_findings, "beta not summed"),
    "purity is not checked": (contract, "purity", no_findings, "random seed set"),
    "interleaved calls are not made": (
        contract, "_interleaved", no_findings, "statistics of the last forward"),
    "points that share numbers are not asked": (
        contract, "partly_equal", no_findings, "statistics by x alone"),
    "every subgradient is accepted": (Kinks, "between_slopes", lambda self, k, dy, got, *a: (
        got, 1, ""), "softmax off by 1e-10"),
    "everything looks like batch norm": (
        reference.Reference, "_is_batch_norm", lambda self: True, "unbiased variance"),
}  # fmt: skip


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_checker_is_noticed(monkeypatch, fault):
    where, name, instead, noticed_by = FAULTS[fault]
    assert judges_rightly(noticed_by)
    if fault in ("everything looks like batch norm", "the sign of the reference"):
        monkeypatch.setattr(reference.Reference, "_confirmed", lambda self, *_: True)
    monkeypatch.setattr(where, name, instead)
    assert not judges_rightly(noticed_by)
