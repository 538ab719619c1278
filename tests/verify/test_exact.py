"""The derived gradient of batch norm as a formula."""

import pytest

from minigrad.verify import exact


@pytest.mark.parametrize("n", [2, 4])
def test_the_derived_formula_is_the_closed_form(n):
    pytest.importorskip("sympy", reason="the exact proof needs sympy")
    proof = exact.prove_batch_norm(n)
    assert proof.ok
    assert "R^{" in proof.x_bar
    calls = [step.partition(":")[0] for step in proof.steps]
    assert len(set(calls)) == 10
    assert calls[0] == "y = add(v9, beta)" and "var = mean(v3)" in calls


def test_a_wrong_closed_form_is_noticed(monkeypatch):
    pytest.importorskip("sympy", reason="the exact proof needs sympy")
    right = exact.analytic.batch_norm_vjp

    def without_variance_path(xp, y_bar, x, gamma, beta, *, eps):
        _, gamma_bar, beta_bar = right(xp, y_bar, x, gamma, beta, eps=eps)
        g = y_bar * gamma
        inv_std = 1 / xp.sqrt(((x - x.mean(0)) ** 2).mean(0) + eps)
        return inv_std * (g - g.mean(0)), gamma_bar, beta_bar

    monkeypatch.setattr(exact.analytic, "batch_norm_vjp", without_variance_path)
    assert not exact.prove_batch_norm(2).ok
