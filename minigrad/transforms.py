"""Derivatives of functions: grad, value_and_grad, vjp, jvp, hvp, jacobian. All nest freely.

Each argument enters the function as a fresh node, so that its derivative includes no other use of
the same tensor (no perturbation confusion). A sweep is recorded if its result may be differentiated
again: if the function depends on an argument of an enclosing transform or on a leaf from outside.
"""

from collections.abc import Callable
from math import inf
from numbers import Integral
from typing import Any, Self

from minigrad import backend, ops
from minigrad.composite import label
from minigrad.context import CURRENT, setting
from minigrad.core.node import Node, ancestors
from minigrad.core.sweep import backward_sweep, forward_sweep
from minigrad.errors import (
    DTypeError,
    GraphError,
    OverwrittenError,
    ShapeError,
    UsageError,
    describe,
    facts,
    naming,
)
from minigrad.seed import as_seed
from minigrad.tensor import Tensor, tensor


def grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The function that computes the gradient of a scalar-valued ``f``.

    Args:
        f: tensors -> scalar Tensor.
        argnums: which arguments to differentiate; a tuple gives a tuple of gradients.

    >>> mg.grad(lambda x: x**3)(2.0)
    tensor(12.)
    >>> mg.grad(mg.grad(lambda x: x**3))(2.0)
    tensor(12.)
    """
    value_and_gradient = _with_gradient("grad", f, argnums)
    return _named("grad", f, lambda *args, **kwargs: value_and_gradient(*args, **kwargs)[1])


def value_and_grad(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0
) -> Callable[..., tuple[Tensor, Any]]:
    """Like ``grad``, but returns ``(f(...), gradient)``.

    >>> mg.value_and_grad(lambda x: x**3)(2.0)
    (tensor(8.), tensor(12.))
    """
    return _with_gradient("value_and_grad", f, argnums)


def _with_gradient(
    caller: str, f: Callable[..., Any], argnums: int | tuple[int, ...]
) -> Callable[..., tuple[Tensor, Any]]:
    """``value_and_grad`` on behalf of ``caller``, which the errors name."""

    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        run = _Run(f, args, _positions(caller, argnums, args), kwargs)
        y = run.y
        if y.shape != ():
            headline = f"{caller}: f must return a scalar"
            raise ShapeError(facts(headline, expected="shape ()", got=describe(y)))
        gradients = run.pull(as_seed(None, y))
        run.close()
        return run.value, gradients if isinstance(argnums, tuple) else gradients[0]

    return _named(caller, f, value_and_gradient)


def _named(transform: str, f: Any, derivative: Callable) -> Callable:
    """``derivative`` under the name ``transform(f)``."""
    _check_function(transform, f)
    name = f"{transform}({getattr(f, '__name__', type(f).__name__)})"
    derivative.__name__ = derivative.__qualname__ = name
    return derivative


def _check_function(caller: str, f: Any) -> None:
    if not callable(f):
        remedy = "call y.backward(), then read x.grad" if isinstance(f, Tensor) else ""
        raise DTypeError(
            facts(f"{caller}: f", expected="a function of tensors", got=describe(f), remedy=remedy)
        )


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Tensor, Callable[[Any], tuple[Tensor, ...]]]:
    """``f(*primals)`` and its pullback: cotangent of the result -> tuple of cotangents.

    >>> y, pullback = mg.vjp(lambda x: x**2, [1.0, 2.0])
    >>> pullback([1.0, 10.0])
    (tensor([ 2., 40.]),)
    """
    if not primals:
        raise UsageError(facts("vjp: primals", expected="one or more", got="none"))
    run = _Run(f, primals, range(len(primals)))
    return run.value, lambda y_bar: run.pull(_seed(y_bar, run.y))


def jvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    """``f(*primals)`` and its derivative along ``tangents``.

    Args:
        f: tensors -> Tensor.
        primals, tangents: tuples of equal length and shapes; one array is taken as a 1-tuple.

    >>> mg.jvp(lambda x: x**2, [3.0], [1.0])
    (tensor(9.), tensor(6.))
    """
    primals, tangents = _as_tuples("jvp", primals, tangents)
    run = _Run(f, primals, range(len(primals)))
    y_dot = run.push("jvp", tangents)
    run.close()
    return run.value, y_dot


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """Product of the Hessian of a scalar-valued ``f`` with ``tangents``: forward over reverse.

    Args:
        f: tensors -> scalar Tensor.
        primals, tangents: as in ``jvp``.

    Returns:
        One Tensor per primal, as a tuple if ``primals`` is one.

    >>> mg.hvp(lambda x: (x**3).sum(), np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    tensor([6., 0.])
    """
    many = isinstance(primals, (tuple, list))
    primals, tangents = _as_tuples("hvp", primals, tangents)
    value_and_gradients = _with_gradient("hvp", f, tuple(range(len(primals))))
    gradients: list[Tensor] = []

    def first_gradient(*xs: Any) -> Tensor:
        gradients.extend(value_and_gradients(*xs)[1])
        return gradients[0]

    run = _Run(first_gradient, primals, range(len(primals)))  # one run, for one draw of dropout
    products = tuple(run.starting_at(y).push("hvp", tangents) for y in gradients)
    run.close()
    return products if many else products[0]


def jacobian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The function that computes all derivatives of ``f``: shape ``y.shape + x.shape``.

    One backward sweep per element of the result.

    >>> mg.jacobian(lambda x: x**2)([1.0, 3.0])
    tensor([[2., 0.],
            [0., 6.]])
    """

    def all_derivatives(*args: Any, **kwargs: Any) -> Any:
        positions = _positions("jacobian", argnums, args)
        run = _Run(f, args, positions, kwargs)
        y = run.y
        xp = backend.namespace(y.array)
        rows = [run.pull(one_hot.reshape(y.shape)) for one_hot in xp.eye(y.size, dtype=y.dtype)]
        blocks = []
        for k, i in enumerate(positions):
            shape = (*y.shape, *run.args[i].shape)
            if rows:
                blocks.append(ops.reshape(ops.stack([row[k] for row in rows]), shape=shape))
            else:
                blocks.append(Tensor(xp.zeros(shape, dtype=y.dtype)))
        run.close()
        return tuple(blocks) if isinstance(argnums, tuple) else blocks[0]

    return _named("jacobian", f, all_derivatives)


class _Run:
    """One recorded call of ``f`` with fresh nodes for the arguments to differentiate.

    ``outer``: whether the surrounding context records; ``record``: whether sweeps must be recorded.
    """

    def __init__(self, f: Callable, args: tuple, positions: Any, kwargs: dict | None = None):
        _check_function("function to differentiate", f)
        self.outer = CURRENT.get().recording
        self.args = list(args)
        for i in positions:
            arg = args[i]
            if isinstance(arg, Tensor) and arg.requires_grad and self.outer:
                self.args[i] = ops.positive(arg)  # a fresh node that stays in the outer graph
                continue
            name = arg.name if isinstance(arg, Tensor) else None
            with naming(f"argument {i}"):
                self.args[i] = tensor(arg, requires_grad=True, name=name)
        self.nodes: list[Node] = [self.args[i].node for i in positions]
        with setting(recording=True):
            self.y = f(*self.args, **(kwargs or {}))
        for i, node in zip(positions, self.nodes, strict=True):
            if node.overwritten:
                expected = "a pure function of its arguments"
                got = f"an assignment to argument {i}"
                raise OverwrittenError(
                    facts("function to differentiate", expected=expected, got=got)
                )
        if not isinstance(self.y, Tensor):
            expected, got = "one Tensor as the result", type(self.y).__name__
            raise GraphError(facts("function to differentiate", expected=expected, got=got))
        self.starting_at(self.y)

    def starting_at(self, y: Tensor) -> Self:
        """Let sweeps start at ``y``: the result, or another tensor that the call computed."""
        self.y = y
        self.record = self.outer and self._depends_on_outside()
        return self

    @property
    def value(self) -> Tensor:
        """The result; detached if nothing outside can ask for its derivative."""
        return self.y if self.record else self.y.detach()

    def _depends_on_outside(self) -> bool:
        """Whether the result depends on an older node, or another leaf, with ``requires_grad``."""
        if self.y.node is None:
            return False
        fresh, oldest = set(self.nodes), min((node.index for node in self.nodes), default=inf)
        return any(
            node.requires_grad and (node.index < oldest or (node.op is None and node not in fresh))
            for node in ancestors(self.y.node, self.nodes)
        )

    @property
    def _is_linear(self) -> bool:
        """Whether recording a sweep for the sake of its seed gives no other derivative, too."""
        return self.outer or not self._depends_on_outside()

    def close(self) -> None:
        """Make the fresh leaves constants: nothing will ask for their derivatives any more."""
        for node in self.nodes:
            if node.op is None:
                node.requires_grad = False

    def pull(self, seed: Any) -> tuple[Tensor, ...]:
        """Cotangents of the arguments for the cotangent ``seed`` of the result."""
        cotangents: dict = {}
        if self.y.node is not None:
            record = CURRENT.get().recording and (
                self.record or (isinstance(seed, Tensor) and seed.requires_grad and self._is_linear)
            )
            with setting(recording=record):
                boxed = seed if isinstance(seed, Tensor) else label(Tensor(seed), "seed")
                cotangents = backward_sweep(
                    self.y.node, boxed if record else boxed.array, self.nodes, record
                )
        return tuple(_as_tensor(cotangents.get(node), node.value) for node in self.nodes)

    def push(self, caller: str, tangents: tuple) -> Tensor:
        """Tangent of the result for the ``tangents`` of the arguments; errors name ``caller``."""
        with naming(f"{caller}: tangents"):
            boxes = [t if isinstance(t, Tensor) else tensor(t) for t in tangents]
        for i, (box, node) in enumerate(zip(boxes, self.nodes, strict=True)):
            backend.check_place(f"{caller}: tangent", box.array, node.value)
            if tuple(box.shape) != tuple(node.value.shape):
                got = f"{tuple(box.shape)} for argument {i}"
                expected = f"the shape {tuple(node.value.shape)} of its primal"
                raise ShapeError(facts(f"{caller}: tangent", expected=expected, got=got))
        record = self.record or (self.outer and any(box.requires_grad for box in boxes))
        dots: dict = {}
        for node, box in zip(self.nodes, boxes, strict=True):
            dtype = node.value.dtype
            dot = box if box.dtype == dtype else ops.astype(box, dtype=dtype)
            dots[node] = dot if record else dot.array
        y_dot = None
        if self.y.node is not None:
            with setting(recording=record):
                y_dot = forward_sweep(self.y.node, dots, record)
        return _as_tensor(y_dot, self.y.array)


def _as_tensor(derivative: Any, array: Any) -> Tensor:
    """The result of a sweep for ``array`` as a tensor; None is zero."""
    if isinstance(derivative, Tensor):
        return derivative
    return Tensor(backend.zeros_like(array) if derivative is None else derivative)


def _seed(y_bar: Any, y: Tensor) -> Any:
    """A cotangent for ``y``, checked; a recorded tensor keeps its history."""
    if isinstance(y_bar, Tensor) and y_bar.requires_grad and y_bar.shape == y.shape:
        return y_bar
    return as_seed(y_bar, y)


def _as_tuples(caller: str, primals: Any, tangents: Any) -> tuple[tuple, tuple]:
    """Both as tuples; UsageError unless they have the same length, at least 1."""
    xs, dots = (v if isinstance(v, (tuple, list)) else (v,) for v in (primals, tangents))
    if len(xs) != len(dots) or not xs:
        got = f"{len(dots)} for {len(xs)} primals"
        raise UsageError(facts(f"{caller}: tangents", expected="one per primal", got=got))
    return tuple(xs), tuple(dots)


def _positions(caller: str, argnums: int | tuple[int, ...], args: tuple) -> tuple[int, ...]:
    """``argnums`` as a tuple of positions in ``args``, none negative; UsageError if one is not."""
    positions = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(i, Integral) and -len(args) <= i < len(args) for i in positions):
        expected = "the position of an argument, or a tuple of positions"
        got = f"{argnums} for {len(args)} arguments"
        raise UsageError(facts(f"{caller}: argnums", expected=expected, got=got))
    return tuple(i % len(args) for i in positions)
