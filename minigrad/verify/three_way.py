"""The same derivative found three ways that share no code: traced, analytic, numeric."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.backend import namespace, to_device, to_host
from minigrad.tensor import Tensor, tensor
from minigrad.transforms import vjp
from minigrad.verify.device import moved
from minigrad.verify.numeric import Jacobian, jacobians
from minigrad.verify.randomness import generator
from minigrad.verify.report import Finding, Report, compare
from minigrad.verify.rounding import Rounding, looks_like_batch_norm, normalization

_WAYS = ("traced", "analytic", "numeric")


def three_way(
    f: Callable[..., Tensor],
    analytic_vjp: Callable[..., Sequence[Any]],
    inputs: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    rng: Any = 0,
    device: str = "cpu",
    **params: Any,
) -> Report:
    """Hold the traced cotangents of ``f`` against the analytic and the numeric ones.

    * traced: the engine sweeps the graph that ``f`` recorded,
    * analytic: ``analytic_vjp(xp, y_bar, *inputs, **params)``, written by hand,
    * numeric: differences of ``f`` on plain arrays, which neither of the others looks at.

    The cotangent of the result is random: with ones the true x_bar of a normalization is 0.

    Args:
        f: ``f(*inputs, **params)`` on tensors and on plain arrays.
        analytic_vjp: the hand-written pullback, one cotangent per input.
        inputs: floating arrays of one dtype.
        names: what the report calls them.
        rng: seed or ``numpy.random.Generator`` of the cotangent.
        device: where the traced and the analytic way run.
        **params: passed to ``f`` and ``analytic_vjp``.

    Returns:
        A Report with a row for each input and pair of ways; a finding names the odd one out.

    >>> inputs = np.random.default_rng(0).normal(size=(5, 3)), np.ones(3), np.zeros(3)
    >>> mg.verify.three_way(mg.ops.batch_norm, mg.analytic.batch_norm_vjp, inputs).ok
    True
    """
    hosts = [to_host(getattr(x, "array", x)) for x in inputs]
    names = list(names or _default_names(hosts))
    y, cotangents, y_bar = _traced(f, hosts, rng, device, params)
    there = moved((y_bar, *hosts), device)
    by_hand = analytic_vjp(namespace(*there), *there, **moved(params, device))
    jacobian = jacobians(lambda *arrays: f(*arrays, **params), hosts)
    pulled = [j.pull(y_bar) for j in jacobian]
    rounding = _rounding(y, y_bar, hosts, jacobian, params)
    report = Report("three ways", facts={"shape": list(hosts[0].shape), "dtype": str(y.dtype)})
    for k, bound in enumerate(rounding.bounds(y.dtype)):
        value, error, _ = pulled[k]
        ways = {"traced": cotangents[k], "analytic": to_host(by_hand[k]), "numeric": value}
        for a, b in (("traced", "analytic"), ("traced", "numeric"), ("analytic", "numeric")):
            numeric_error = error if b == "numeric" else 0
            row = compare(names[k], f"{a}/{b}", ways[a], ways[b], 2 * bound + numeric_error)
            report.rows.append(row)
        report.findings += _odd_one_out(report.rows[-3:], ways)
    return report


def _default_names(inputs: list[np.ndarray]) -> list[str]:
    if len(inputs) == 3 and inputs[1].shape == inputs[2].shape == inputs[0].shape[1:2]:
        return ["x", "gamma", "beta"]
    return [f"input {k}" for k in range(len(inputs))]


def _traced(
    f: Callable, hosts: list[np.ndarray], rng: Any, device: str, params: dict
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """The result, the engine's cotangents and the random cotangent they belong to."""
    tensors = [tensor(x, requires_grad=True, device=device) for x in hosts]
    there = moved(params, device)
    y, pullback = vjp(lambda *args: f(*args, **there), *tensors)
    y_bar = generator(rng).normal(size=y.shape).astype(y.dtype)
    cotangents = [x_bar.numpy() for x_bar in pullback(to_device(y_bar, device))]
    return y.numpy(), cotangents, y_bar


def _rounding(
    y: np.ndarray, y_bar: np.ndarray, hosts: list, jacobian: list[Jacobian], params: dict
) -> Rounding:
    given = {k: v for k, v in params.items() if k in ("mean", "var", "axis", "eps")}
    if "mean" in given or "axis" in given or looks_like_batch_norm(y, hosts, params):
        return normalization(y_bar, hosts, **given)
    return Rounding([j.pull(y_bar)[2] for j in jacobian], y.size)


def _odd_one_out(rows: list, ways: dict) -> list[Finding]:
    """A finding if a pair disagrees; it names the way that disagrees with the two others."""
    wrong = [row for row in rows if not row.ok]
    if not wrong:
        return []
    votes = {way: sum(way in row.pair.split("/") for row in wrong) for way in _WAYS}
    odd = [way for way in _WAYS if votes[way] == 2] if len(wrong) == 2 else []
    worst = wrong[0]
    suspect = f"the {odd[0]} way is the odd one out" if odd else "no way agrees with another"
    if len(wrong) == 1:
        suspect = "the third way lies between them"
    numbers = ", ".join(f"{way} {float(ways[way][worst.index]):.6g}" for way in _WAYS)
    message = f"{worst.input}{list(worst.index)}: {suspect}: {numbers} (bound {worst.bound:.1e})"
    return [Finding("value", worst.input, worst.index, bound=worst.bound, message=message,
                    cause=odd[0] if odd else "")]  # fmt: skip
