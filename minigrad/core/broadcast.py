"""Giving a cotangent the shape and dtype of its value: broadcast_to, its adjoint sum_to, astype."""

from typing import Any

from minigrad.backend import as_dtype
from minigrad.core.op import op
from minigrad.declaration import Case
from minigrad.errors import floating, wrong_cotangent, wrong_tangent

_BROADCASTS = (((3,), (2, 3)), ((2, 1), (4, 2, 3)), ((), (2, 2)), ((0, 3), (2, 0, 3)))


@op(
    formula=r"y_{ij} = x_j",
    pullback=r"\bar x_j = \sum_i \bar y_{ij}",
    linear="jointly",
    cases=tuple(Case((small,), {"shape": large}) for small, large in _BROADCASTS),
)
def broadcast_to(xp, x, *, shape):
    """Repeat ``x`` along new or unit axes until it has ``shape``; a read-only view on NumPy.

    >>> mg.broadcast_to(mg.tensor([1.0, 2.0]), (2, 2))
    tensor([[1., 2.],
            [1., 2.]])
    """
    return xp.broadcast_to(x, shape)


@broadcast_to.defvjp
def broadcast_to_vjp(y_bar, y, x, *, shape):
    return (sum_to(y_bar, shape=x.shape),)


@op(
    formula=r"y_j = \sum_i x_{ij}",
    pullback=r"\bar x_{ij} = \bar y_j",
    linear="jointly",
    cases=tuple(Case((large,), {"shape": small}) for small, large in _BROADCASTS),
)
def sum_to(xp, x, *, shape):
    """Sum ``x`` over every axis that broadcasting ``shape`` to ``x.shape`` would repeat.

    >>> mg.ops.sum_to(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), (2, 1))
    tensor([[3.],
            [7.]])
    """
    axes = repeated_axes(x.shape, shape)
    if axes is None:
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(x.shape)}")
    return x.sum(axis=axes).reshape(shape)


@sum_to.defvjp
def sum_to_vjp(y_bar, y, x, *, shape):
    return (broadcast_to(y_bar, shape=x.shape),)


def repeated_axes(shape: tuple, small: tuple) -> tuple | None:
    """The axes of ``shape`` along which ``small`` is repeated; None if it does not broadcast."""
    lead = len(shape) - len(small)
    if lead < 0 or any(n not in (1, m) for n, m in zip(small, shape[lead:], strict=True)):
        return None
    return tuple(i for i, m in enumerate(shape) if i < lead or m != small[i - lead])


@op(
    formula=r"y = x",
    pullback=r"\bar x = \bar y",
    linear="jointly",
    cases=(Case(((2, 3),), {"dtype": "float64"}), Case(((),), {"dtype": "float64"})),
)
def astype(xp, x, *, dtype):
    """Cast ``x`` to a floating ``dtype``; the cotangent is cast back.

    >>> mg.ops.astype(mg.tensor([0.1]), "float32")
    tensor([0.1], dtype=float32)
    """
    return x.astype(as_dtype(dtype, "f", expected="a floating dtype"))


@astype.defvjp
def astype_vjp(y_bar, y, x, *, dtype):
    return (astype(y_bar, dtype=x.dtype),)


def unbroadcast(op: Any, i: int, x_bar: Any, x: Any, y_shape: tuple) -> Any:
    """``x_bar`` summed over axes that were repeated, and cast to the dtype of ``x``, input ``i``.

    RuleError unless ``x_bar`` has the loop axes of the result and the core axes of ``x``.
    """
    if x_bar.__class__ is not x.__class__ and hasattr(x_bar, "node") and not hasattr(x, "node"):
        x_bar = x_bar.array  # a rule returned a tensor in a sweep over plain arrays
    if (shape := getattr(x_bar, "shape", (None,))) != x.shape:
        core = min(op.core[i], len(x.shape)) if op.core else 0
        loop = len(shape) - core if op.signature else 0
        axes = repeated_axes(shape, x.shape)
        if not axes or max(axes) >= loop or shape[:loop] != y_shape[:loop]:
            raise wrong_cotangent(op, i, x_bar, x)
        x_bar = sum_to(x_bar, shape=x.shape)
    return x_bar if x_bar.dtype == x.dtype else astype(x_bar, dtype=floating(op, x_bar, x))


def rebroadcast(op: Any, y_dot: Any, y: Any) -> Any:
    """``y_dot`` broadcast and cast to the shape and dtype of ``y``; RuleError if that fails."""
    if (shape := getattr(y_dot, "shape", (None,))) != y.shape:
        if repeated_axes(y.shape, shape) is None:
            raise wrong_tangent(op, y_dot, y)
        y_dot = broadcast_to(y_dot, shape=y.shape)
    return y_dot if y_dot.dtype == y.dtype else astype(y_dot, dtype=floating(op, y_dot, y))
