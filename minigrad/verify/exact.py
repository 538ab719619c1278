r"""The gradient as a formula: the engine run on SymPy expressions.

To the engine, arrays of expressions are one more array library: the ops, rules and sweep that
compute with numbers also compute with symbols. For batch norm of N values the result is compared
with the closed form by exact rational arithmetic, with ``R = sqrt(var + eps)`` as a symbol.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import analytic, ops
from minigrad.backend import Library, register
from minigrad.core.node import ancestors, leaf
from minigrad.core.sweep import backward_sweep
from minigrad.errors import MissingPackageError
from minigrad.tensor import Tensor


class Expressions(np.ndarray):
    """An array of SymPy expressions."""


class _Namespace:
    """NumPy's functions for arrays of expressions; a few are replaced by symbolic ones."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def sqrt(self, x: Any) -> Any:
        return np.vectorize(_sympy().sqrt, otypes=[object])(x).view(Expressions)

    def zeros_like(self, x: Any) -> Any:
        return expressions(np.full(np.shape(x), _sympy().Integer(0), dtype=object))


def _sympy() -> Any:
    try:
        import sympy
    except ImportError as error:
        raise MissingPackageError(
            "verify --exact needs sympy: pip install 'minigrad[exact]'"
        ) from error
    return sympy


def expressions(values: Any) -> Expressions:
    """Nested sequences of expressions as an array."""
    return np.array(values, dtype=object).view(Expressions)


LIBRARY = register(
    Library(
        xp=_Namespace(),  # type: ignore[arg-type]
        types=(Expressions,),
        device_of=lambda array: "cpu",
        to_host=np.asarray,
        from_host=lambda array, device: expressions(array),
    )
)


@dataclass(frozen=True)
class Proof:
    """Whether the derived gradient of batch norm equals the closed form for N values.

    Attributes:
        n: the number of values.
        ok: whether the difference simplifies to 0 for each cotangent.
        x_bar: the derived cotangent of the first value as LaTeX.
        steps: the derivation as LaTeX, one line per op of the backward sweep.
    """

    n: int
    ok: bool
    x_bar: str
    steps: list[str]


def prove_batch_norm(n: int) -> Proof:
    """Derive the gradient of batch norm of ``n`` values in one channel, and compare it.

    Raises:
        MissingPackageError: sympy is not installed.
    """
    sympy = _sympy()
    x = expressions([[s] for s in sympy.symbols(f"x1:{n + 1}", real=True)])
    y_bar = expressions([[s] for s in sympy.symbols(f"ybar1:{n + 1}", real=True)])
    gamma, beta, root = sympy.symbols("gamma beta R", positive=True)
    mu = sum(x.reshape(-1)) / sympy.Integer(n)
    eps = root**2 - sum((xi - mu) ** 2 for xi in x.reshape(-1)) / sympy.Integer(n)
    named = {"x": x, "gamma": expressions([gamma]), "beta": expressions([beta])}
    inputs = [Tensor(array, leaf(array, True, name)) for name, array in named.items()]
    given = expressions([sympy.Symbol("eps", positive=True)])
    y = ops.batch_norm(*inputs, eps=given)
    assert y.node is not None
    traced = backward_sweep(y.node, y_bar, [t.node for t in inputs])
    raw = [t.array for t in inputs]
    by_hand = analytic.batch_norm_vjp(LIBRARY.xp, y_bar, *raw, eps=given)
    differences = [
        (a - b).reshape(-1) for a, b in zip((traced[t.node] for t in inputs), by_hand, strict=True)
    ]
    remainders = [_rational(d, sympy, eps) for part in differences for d in part]
    x_bar = sympy.factor(_rational(traced[inputs[0].node][0, 0], sympy, eps))
    return Proof(n, all(r == 0 for r in remainders), sympy.latex(x_bar), _steps(y.node))


def _rational(expression: Any, sympy: Any, eps: Any) -> Any:
    """``expression`` with ``eps = R^2 - var``, so that sqrt(var + eps) becomes the symbol R."""
    replaced = sympy.sympify(expression).subs(sympy.Symbol("eps", positive=True), eps)
    return sympy.cancel(sympy.powdenest(sympy.simplify(replaced), force=True))


def _steps(root: Any) -> list[str]:
    """One line per op, newest first: the formulas of its value and of its pullback."""
    order = [node for node in ancestors(root) if node.op is not None]
    names = {None: "eps", root: "y"}  # eps is the only operand without a node
    for node in ancestors(root):
        names.setdefault(node, node.name or f"v{order.index(node) + 1}")
    return [
        f"{names[node]} = {node.op.name}({', '.join(names[parent] for parent in node.parents)}): "
        rf"{node.op.formula} \quad\Rightarrow\quad {node.op.pullback}"
        for node in reversed(order)
    ]
