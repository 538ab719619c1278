"""Products of matrices and tensors."""

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from minigrad.backend import namespace
from minigrad.composite import composite
from minigrad.core.broadcast import broadcast_to, sum_to
from minigrad.core.op import op
from minigrad.declaration import Case
from minigrad.errors import ShapeError, describe, facts
from minigrad.ops.arithmetic import multiply
from minigrad.ops.select import where
from minigrad.ops.shape import expand_dims, reshape, swapaxes

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # as einsum allows


@op(
    formula=r"Y = A B",
    pullback=r"\bar A = \bar Y B^\mathsf{T},\quad \bar B = A^\mathsf{T} \bar Y",
    symbol="@",
    signature="(m?,k),(k,n?)->(m?,n?)",
    linear="separately",
)
def matmul(xp, a, b):
    """Matrix product; axes before the last two broadcast, a vector acts as a row or a column.

    Args:
        a: (..., m, k) or (k,).
        b: (..., k, n) or (k,).

    Returns:
        (..., m, n), without m if ``a`` is a vector and without n if ``b`` is.

    >>> mg.matmul(mg.tensor([[1.0, 2.0]]), mg.tensor([3.0, 4.0]))
    tensor([11.])
    """
    return xp.matmul(a, b)


@matmul.defvjp
def matmul_vjp(y_bar, y, a, b):
    # a vector is treated as a matrix with one row (column); its cotangent drops that axis again
    rows, columns = a, b
    if b.ndim == 1:
        columns, y_bar = expand_dims(b, axis=1), expand_dims(y_bar, axis=-1)
    if a.ndim == 1:
        rows, y_bar = expand_dims(a, axis=0), expand_dims(y_bar, axis=-2)

    def product(a, b):  # BLAS is slow at products of one column with one row
        return multiply(a, b) if a.shape[-1] == 1 else matmul(a, b)

    def a_bar():
        full = product(y_bar, swapaxes(columns, axis1=-1, axis2=-2))
        return reshape(sum_to(full, shape=rows.shape), shape=a.shape) if a.ndim == 1 else full

    def b_bar():
        full = product(swapaxes(rows, axis1=-1, axis2=-2), y_bar)
        return reshape(sum_to(full, shape=columns.shape), shape=b.shape) if b.ndim == 1 else full

    return a_bar, b_bar


@composite(
    formula=r"y_{\dots a} = \sum_k x_{\dots k}\,w_{a k} + b_a",
    symbol="linear",
    cases=(
        Case(((4, 3), (2, 3), (2,))),
        Case(((3,), (2, 3), (2,))),
        Case(((2, 2, 3), (4, 3))),
        Case(((2, 0), (3, 0), (3,))),
    ),
)
def linear(x, w, b=None):
    """The linear layer ``x w^T + b``.

    Args:
        x: (..., K).
        w: (A, K), one row per output.
        b: (A,); optional.

    Returns:
        (..., A).

    Raises:
        ShapeError: the shapes of the operands do not fit.

    >>> mg.ops.linear(mg.tensor([3.0, 4.0]), np.array([[1.0, 10.0]]), np.array([0.5]))
    tensor([43.5])
    """
    check_linear(x, w, b)
    y = matmul(x, swapaxes(w, axis1=0, axis2=1))
    return y if b is None else y + b


def check_linear(x, w, b):
    """Raise ShapeError unless the operands fit."""
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        got = f"x {describe(x)}, w {describe(w)}"
        raise ShapeError(facts("linear: operands", expected="x (..., K) and w (A, K)", got=got))
    if b is not None and tuple(b.shape) != w.shape[:1]:
        got = f"b {describe(b)}, w {describe(w)}"
        raise ShapeError(facts("linear: b", expected=f"({w.shape[0]},), one per output", got=got))


@op(
    formula=r"y_{\mathrm{out}} = \sum \prod_i x_{i,\mathrm{in}_i}",
    pullback=r"\bar x_i = \mathrm{einsum}(\mathrm{out}, \mathrm{in}_{j \ne i} \to \mathrm{in}_i)",
    symbol="einsum",
    linear="separately",
    cases=(
        Case(((2, 3), (3, 4)), {"subscripts": "ij,jk->ik"}),
        Case(((2, 3), (2, 3)), {"subscripts": "ij,ij"}),
        Case(((2, 3),), {"subscripts": "ij->j"}),
        Case(((3, 3),), {"subscripts": "ii->i"}),
        Case(((3, 3), (3,)), {"subscripts": "ii,i"}),
        Case(((5, 2, 3), (3, 4)), {"subscripts": "...ij,jk->...ik"}),
        Case(((2, 1), (2, 3), (3,)), {"subscripts": "ij,ij,j->i"}),
        Case(((0, 3), (3,)), {"subscripts": "ij,j->i"}),
        Case(((0, 3),), {"subscripts": "ij->j"}),
    ),
)
def einsum(xp, *xs, subscripts):
    """Einstein summation as in ``numpy.einsum``: ``einsum("ij,jk->ik", a, b)``.

    ``subscripts`` may be the first argument, as in NumPy, or a keyword. Ellipses, implicit output,
    repeated letters (diagonals) and broadcast unit axes are supported.

    >>> mg.einsum("ij,j->i", mg.tensor([[1.0, 2.0], [3.0, 4.0]]), mg.tensor([1.0, 1.0]))
    tensor([3., 7.])
    """
    return xp.einsum(subscripts, *xs, optimize=len(xs) > 1)


@einsum.defvjp
def einsum_vjp(y_bar, y, *xs, subscripts):
    inputs, output = _explicit(subscripts, [getattr(x, "ndim", 0) for x in xs])

    def x_bar(i):
        others = [
            (letters, x) for j, (letters, x) in enumerate(zip(inputs, xs, strict=True)) if j != i
        ]
        return _einsum_cotangent(xs[i], inputs[i], [(output, y_bar), *others])

    return tuple(lambda i=i: x_bar(i) for i in range(len(xs)))


def _einsum_cotangent(x, letters, terms):
    """The cotangent of the operand ``x`` with these ``letters``: einsum(terms -> letters).

    The terms are the cotangent of the result and the other operands. Three cases need more than an
    einsum: a letter that only ``x`` has was summed over, so its axis is broadcast; a unit axis of
    ``x`` that was broadcast is summed; a repeated letter took a diagonal.
    """
    unique = "".join(dict.fromkeys(letters))
    in_terms = set("".join(term for term, _ in terms))
    shared = "".join(c for c in unique if c in in_terms)
    total = einsum(*(a for _, a in terms), subscripts=",".join(t for t, _ in terms) + "->" + shared)
    n_x = dict(zip(letters, x.shape, strict=True))  # lengths of the axes, by letter
    n_total = dict.fromkeys(unique, 1) | dict(zip(shared, total.shape, strict=True))
    total = reshape(total, shape=tuple(n_total[c] for c in unique))
    common = tuple(n_x[c] if n_total[c] == 1 else n_total[c] for c in unique)
    diagonal = sum_to(broadcast_to(total, shape=common), shape=tuple(n_x[c] for c in unique))
    return diagonal if unique == letters else _on_diagonal(diagonal, letters, x)


def _on_diagonal(values, letters, x):
    """The adjoint of taking a diagonal: zeros where the indices of a repeated letter differ."""
    xp = namespace(getattr(x, "array", x))
    first_axis = [letters.index(c) for c in letters]
    index = [xp.arange(n).reshape(n, *(1,) * (x.ndim - 1 - i)) for i, n in enumerate(x.shape)]
    on_diagonal = xp.ones((1,) * x.ndim, dtype=bool)
    for i, j in enumerate(first_axis):
        if i != j:
            on_diagonal = on_diagonal & (index[i] == index[j])
    shape = tuple(n if first_axis[i] == i else 1 for i, n in enumerate(x.shape))
    return where(on_diagonal, reshape(values, shape=shape), 0)


def _explicit(subscripts, ndims):
    """The letters of each input and of the output; unused letters take the place of ellipses."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    unused = "".join(c for c in _LETTERS if c not in subscripts)
    # the number of axes that the ellipsis of each input stands for
    dots = [n - len(s.replace("...", "")) for s, n in zip(inputs, ndims, strict=True)]
    widest = max(dots)  # ellipses are aligned at their last axes
    ellipsis = unused[:widest]
    if not arrow:  # implicit output: the ellipsis, then the letters that occur once, sorted
        once = sorted(c for c in set(left) - set(".,") if left.count(c) == 1)
        output = ("..." if "..." in left else "") + "".join(once)
    inputs = [s.replace("...", ellipsis[widest - d :]) for s, d in zip(inputs, dots, strict=True)]
    return inputs, output.replace("...", ellipsis)


@composite(
    formula=r"y = \sum_k a_{\dots k}\,b_{k \dots}",
    symbol="tensordot",
    cases=(
        Case(((2, 3, 4), (4, 3, 5)), {"axes": ((1, 2), (1, 0))}),
        Case(((2, 3), (3, 4)), {"axes": 1}),
        Case(((2,), (3,)), {"axes": 0}),
    ),
)
def tensordot(a, b, *, axes=2):
    """Sum of products over ``axes``, as in ``numpy.tensordot``.

    Args:
        a, b: any shapes.
        axes: how many of the last axes of ``a`` and the first axes of ``b`` are summed over, or two
            lists of axes, one of ``a`` and one of ``b``.

    >>> mg.tensordot(mg.tensor([[1.0, 2.0]]), mg.tensor([[3.0], [4.0]]), axes=1)
    tensor([[11.]])
    """
    if isinstance(axes, (int, np.integer)):
        axes = (range(-axes, 0), range(axes))
    axes_a, axes_b = (
        normalize_axis_tuple(np.ravel(axis).tolist(), x.ndim, "axes")
        for axis, x in zip(axes, (a, b), strict=True)
    )
    if [a.shape[i] for i in axes_a] != [b.shape[j] for j in axes_b]:
        got = f"{describe(a)} over {axes_a}, {describe(b)} over {axes_b}"
        raise ShapeError(facts("tensordot: summed axes", expected="equal lengths", got=got))
    letters_a = list(_LETTERS[: a.ndim])
    letters_b = list(_LETTERS[a.ndim : a.ndim + b.ndim])
    for i, j in zip(axes_a, axes_b, strict=True):
        letters_b[j] = letters_a[i]
    summed = {letters_a[i] for i in axes_a}
    output = [c for c in (*letters_a, *letters_b) if c not in summed]
    return einsum(a, b, subscripts=f"{''.join(letters_a)},{''.join(letters_b)}->{''.join(output)}")
