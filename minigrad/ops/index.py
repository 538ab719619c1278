"""Indexing and its adjoint, the scatter-add."""

import numpy as np

from minigrad import backend
from minigrad.core.op import op
from minigrad.declaration import Case

_ROWS = np.array([2, 0, 2])  # row 2 is repeated: its cotangents must add up
_MASK = np.array([[True, False, True], [False, False, True]])


@op(
    formula=r"y = x[k]",
    pullback=r"\bar x[k] \mathrel{+}= \bar y",
    symbol="[]",
    linear="jointly",
    cases=(
        Case(((4, 3),), {"key": (slice(1, 4, 2), -1)}),
        Case(((4, 3),), {"key": (None, ..., slice(None, None, -1))}),
        Case(((3, 2),), {"key": _ROWS}),
        Case(((3, 3),), {"key": (_ROWS, _ROWS)}),
        Case(((2, 3),), {"key": _MASK}),
        Case(((3,),), {"key": 1}),
        Case(((),), {"key": ()}),
        Case(((2, 3),), {"key": slice(0, 0)}),
    ),
)
def getitem(xp, x, *, key):
    """``x[key]`` with ints, slices, None, ..., integer arrays or booleans, as in NumPy.

    Raises:
        BoundsError: an index outside ``x``. Index arrays on a GPU are not read back to check this;
            their indices wrap around.

    >>> mg.tensor([1.0, 2.0, 3.0])[[0, 0, 2]]
    tensor([1., 1., 3.])
    """
    return x[backend.checked_key(xp, x, key)]


@getitem.defvjp
def getitem_vjp(y_bar, y, x, *, key):
    return (scatter_add(y_bar, key=key, shape=x.shape),)


@op(
    formula=r"x[k] \mathrel{+}= y,\quad x = 0 \text{ before}",
    pullback=r"\bar y = \bar x[k]",
    linear="jointly",
    cases=(
        Case(((3, 2),), {"key": _ROWS, "shape": (4, 2)}),
        Case(((2,),), {"key": (slice(1, 4, 2), -1), "shape": (4, 3)}),
        Case(((3,),), {"key": _MASK, "shape": (2, 3)}),
    ),
)
def scatter_add(xp, y, *, key, shape):
    """An array of zeros with ``y`` added at ``key``; repeated indices add up.

    It is the adjoint of ``getitem``.

    Args:
        y: the values to add, of the shape of ``x[key]``.
        key: see ``getitem``.
        shape: the shape of the result ``x``.

    >>> mg.ops.scatter_add(np.array([1.0, 2.0, 4.0]), key=[0, 0, 2], shape=(3,))
    array([3., 0., 4.])
    """
    x = xp.zeros(shape, dtype=y.dtype)
    if _is_basic(key):
        x[key] = y  # basic indexing selects no element twice
    else:
        backend.scatter_add(xp, x, key, y)
    return x


def _is_basic(key):
    """Whether ``key`` has only ints, slices, None and ``...``, NumPy's basic indexing."""
    parts = key if isinstance(key, tuple) else (key,)
    return all(part is None or part is ... or isinstance(part, (int, slice)) for part in parts)


@scatter_add.defvjp
def scatter_add_vjp(x_bar, x, y, *, key, shape):
    return (getitem(x_bar, key=key),)
