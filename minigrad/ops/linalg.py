"""Products of matrices and tensors."""

from string import ascii_letters

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from minigrad.backend import namespace
from minigrad.composite import composite
from minigrad.core.broadcast import broadcast_to, sum_to
from minigrad.core.op import op
from minigrad.declaration import Case
from minigrad.errors import ShapeError, describe, facts
from minigrad.ops.select import where
from minigrad.ops.shape import expand_dims, reshape, swapaxes


@op(
    formula=r"Y = A B",
    pullback=r"\bar A = \bar Y B^\mathsf{T},\quad \bar B = A^\mathsf{T} \bar Y",
    symbol="@",
    signature="(m?,k),(k,n?)->(m?,n?)",
    linear="separately",
)
def matmul(xp, a, b):
    """Matrix product; dimensions before the last two broadcast, a vector is a row or a column.

    Args:
        a: (..., m, k) or (k,).
        b: (..., k, n) or (k,).

    Returns:
        (..., m, n), without m or n where that operand is a vector.

    >>> mg.matmul(mg.tensor([[1.0, 2.0]]), mg.tensor([3.0, 4.0]))
    tensor([11.])
    """
    return xp.matmul(a, b)


@matmul.defvjp
def matmul_vjp(y_bar, y, a, b):
    # a vector is a matrix with one row (column): put that axis back, and drop it from the cotangent
    rows, columns = a, b
    if b.ndim == 1:
        columns, y_bar = expand_dims(b, axis=1), expand_dims(y_bar, axis=-1)
    if a.ndim == 1:
        rows, y_bar = expand_dims(a, axis=0), expand_dims(y_bar, axis=-2)

    def a_bar():
        full = matmul(y_bar, swapaxes(columns, axis1=-1, axis2=-2))
        return reshape(sum_to(full, shape=rows.shape), shape=a.shape) if a.ndim == 1 else full

    def b_bar():
        full = matmul(swapaxes(rows, axis1=-1, axis2=-2), y_bar)
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
    """The layer ``x w^T + b`` of neural networks.

    Args:
        x: (..., K).
        w: (A, K), a row per output.
        b: (A,); it may be left out.

    Returns:
        (..., A).

    Raises:
        ShapeError: operands that do not fit.

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
    """Einstein summation, ``einsum("ij,jk->ik", a, b)``, as ``numpy.einsum``.

    ``subscripts`` may come first, as in NumPy, or by name.
    Ellipses, implicit output, repeated letters (diagonals) and broadcast unit axes are supported.

    >>> mg.einsum("ij,j->i", mg.tensor([[1.0, 2.0], [3.0, 4.0]]), mg.tensor([1.0, 1.0]))
    tensor([3., 7.])
    """
    return xp.einsum(subscripts, *xs, optimize=len(xs) > 1)


@einsum.defvjp
def einsum_vjp(y_bar, y, *xs, subscripts):
    inputs, output = _explicit(subscripts, [x.ndim for x in xs])

    def x_bar(i):
        others = [
            (letters, x) for j, (letters, x) in enumerate(zip(inputs, xs, strict=True)) if j != i
        ]
        return _einsum_cotangent(xs[i], inputs[i], [(output, y_bar), *others])

    return tuple(lambda i=i: x_bar(i) for i in range(len(xs)))


def _einsum_cotangent(x, letters, terms):
    """einsum(terms -> letters), where a letter of ``x`` that no term has is a broadcast axis."""
    unique = "".join(dict.fromkeys(letters))
    present = set("".join(term for term, _ in terms))
    known = "".join(c for c in unique if c in present)
    total = einsum(*(a for _, a in terms), subscripts=",".join(t for t, _ in terms) + "->" + known)
    length = dict(zip(letters, x.shape, strict=True))
    found = dict.fromkeys(unique, 1) | dict(zip(known, total.shape, strict=True))
    column = reshape(total, shape=tuple(found[c] for c in unique))
    common = tuple(length[c] if found[c] == 1 else found[c] for c in unique)
    diagonal = broadcast_to(column, shape=common)
    diagonal = sum_to(diagonal, shape=tuple(length[c] for c in unique))  # a unit axis broadcast
    return diagonal if unique == letters else _on_diagonal(diagonal, letters, x)


def _on_diagonal(values, letters, x):
    """The adjoint of taking a diagonal: zeros where the indices of a repeated letter differ."""
    xp = namespace(getattr(x, "array", x))
    first = [letters.index(c) for c in letters]
    index = [xp.arange(n).reshape(n, *(1,) * (x.ndim - 1 - i)) for i, n in enumerate(x.shape)]
    equal = xp.ones((1,) * x.ndim, dtype=bool)
    for i, j in enumerate(first):
        if i != j:
            equal = equal & (index[i] == index[j])
    own = tuple(n if first[i] == i else 1 for i, n in enumerate(x.shape))
    return where(equal, reshape(values, shape=own), 0)


def _explicit(subscripts, ndims):
    """``subscripts`` as a list of inputs and an output, without ellipses or blanks."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    free = "".join(c for c in ascii_letters if c not in subscripts)
    dots = [n - len(s.replace("...", "")) for s, n in zip(inputs, ndims, strict=True)]
    widest = max([d for s, d in zip(inputs, dots, strict=True) if "..." in s], default=0)
    names = free[:widest]
    if not arrow:  # implicit output: the ellipsis, then the letters that occur once, sorted
        once = sorted(c for c in set(left) - set(".,") if left.count(c) == 1)
        output = ("..." if "..." in left else "") + "".join(once)
    inputs = [s.replace("...", names[widest - d :]) for s, d in zip(inputs, dots, strict=True)]
    return inputs, output.replace("...", names)


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
    """Sum of products over ``axes``, as ``numpy.tensordot``.

    Args:
        a, b: any shapes.
        axes: how many last axes of ``a`` meet the first of ``b``, or one pair of axis lists.

    >>> mg.tensordot(mg.tensor([[1.0, 2.0]]), mg.tensor([[3.0], [4.0]]), axes=1)
    tensor([[11.]])
    """
    if isinstance(axes, (int, np.integer)):
        axes = (range(-axes, 0), range(axes))
    of_a, of_b = (
        normalize_axis_tuple(np.ravel(axis).tolist(), x.ndim, "axes")
        for axis, x in zip(axes, (a, b), strict=True)
    )
    if [a.shape[i] for i in of_a] != [b.shape[j] for j in of_b]:
        got = f"{describe(a)} over {of_a}, {describe(b)} over {of_b}"
        raise ShapeError(facts("tensordot: summed axes", expected="equal lengths", got=got))
    in_a = list(ascii_letters[: a.ndim])
    in_b = list(ascii_letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(of_a, of_b, strict=True):
        in_b[j] = in_a[i]
    joined = {in_a[i] for i in of_a}
    output = [c for c in (*in_a, *in_b) if c not in joined]
    return einsum(a, b, subscripts=f"{''.join(in_a)},{''.join(in_b)}->{''.join(output)}")
