"""The linear layer as one op: the bias is added in place."""

from math import prod

from minigrad.fused.declare import fused
from minigrad.ops.linalg import check_linear, linear


@fused(
    linear,
    pullback=r"\bar x = \bar y w,\quad \bar w = \bar y^\mathsf{T} x,\quad \bar b = \sum_n \bar y_n",
)
def fused_linear(xp, x, w, b=None):
    """``ops.linear`` as one op.

    Args:
        x: (..., K).
        w: (A, K), a row per output.
        b: (A,); it may be left out.

    Returns:
        (..., A).

    Raises:
        ShapeError: operands that do not fit.

    >>> mg.fused.linear(mg.tensor([3.0, 4.0]), np.array([[1.0, 10.0]]))
    tensor([43.])
    """
    check_linear(x, w, b)
    y = xp.matmul(x, w.T)
    if b is not None:
        y = xp.add(y, b, out=y if y.ndim and y.dtype == b.dtype else None)
    return y, (x, w, b is not None)


@fused_linear.defbackward
def linear_backward(xp, y_bar, cache):
    x, w, has_bias = cache
    n = prod(x.shape[:-1])
    g = y_bar.reshape(n, w.shape[0])

    def x_bar():
        return xp.matmul(g, w).reshape(x.shape)

    def w_bar():
        product = xp.multiply if n == 1 else xp.matmul  # BLAS is slow where sums have one term
        return product(g.T, x.reshape(n, w.shape[1]))

    return (x_bar, w_bar, lambda: g.sum(axis=0)) if has_bias else (x_bar, w_bar)
