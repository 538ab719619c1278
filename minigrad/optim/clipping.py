"""Gradient clipping: by the joint norm, by value, and adaptively for each unit (AGC)."""

from collections.abc import Iterable
from math import inf
from typing import Any

import numpy as np

from minigrad import backend
from minigrad.errors import UsageError, check_number, describe, facts, is_within
from minigrad.optim.optimizer import check_optimizer, leaf_tensors
from minigrad.tensor import Tensor

_TINY = float(np.finfo(np.float64).tiny)  # in place of a divisor 0


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint 2-norm is at most ``max_norm``.

    Returns:
        The joint norm before clipping. If it is nan or inf, the gradients stay as they are.

    >>> w = mg.tensor([0.0, 0.0], requires_grad=True)
    >>> w.grad = np.array([3.0, 4.0])
    >>> mg.optim.clip_grad_norm_([w], 1.0), w.grad.numpy().round(3)
    (5.0, array([0.6, 0.8]))
    """
    _check_limit("clip_grad_norm_: max_norm", max_norm)
    parameters = leaf_tensors(parameters, "clip_grad_norm_: parameters")
    with_grad = [p for p in parameters if p.grad is not None]
    total_norm = _norm(np.array([_norm(p.grad.array) for p in with_grad]))
    factor = float(max_norm) / (total_norm + 1e-6)  # PyTorch's formula
    if np.isfinite(total_norm) and factor < 1:
        for p in with_grad:
            p.node.grad = type(p)(p.grad.array * factor)  # p.grad = ... would copy the product
    return total_norm


def clip_grad_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Clip every element of every gradient to ``[-clip_value, clip_value]``.

    >>> w = mg.tensor([0.0, 0.0], requires_grad=True)
    >>> w.grad = np.array([3.0, -0.5])
    >>> mg.optim.clip_grad_value_([w], 1.0)
    >>> w.grad.numpy()
    array([ 1. , -0.5])
    """
    _check_limit("clip_grad_value_: clip_value", clip_value)
    for p in leaf_tensors(parameters, "clip_grad_value_: parameters"):
        if p.grad is not None:
            p.grad = backend.namespace(p.array).clip(p.grad.array, -clip_value, clip_value)


def _norm(array: Any) -> float:
    """The 2-norm of all elements, also where the sum of their squares overflows."""
    xp = backend.namespace(array)
    with np.errstate(over="ignore"):
        norm = float(xp.linalg.norm(array))
    if np.isinf(norm) and not backend.count_not_finite(array):
        largest = float(abs(array).max())  # even scaled, 65505 squares may overflow float16
        norm = largest * float(xp.linalg.norm(array.astype("float64") / largest))
    return norm


def _check_limit(what: str, value: Any) -> None:
    """Raise UsageError if ``value`` is nan, or negative, which would reverse the gradients."""
    if not is_within(value, 0, inf):
        raise UsageError(facts(what, expected="a number, 0 or more", got=describe(value)))


def unit_norms(array: Any) -> Any:
    """2-norm of each output unit, over all axes but the first; a vector or scalar is one unit.

    In float64, so that no square of a narrower float overflows.

    >>> mg.optim.unit_norms(np.array([[3.0, 4.0], [0.0, 1.0]]))
    array([[5.],
           [1.]])
    """
    axes = tuple(range(1, array.ndim)) or None
    xp = backend.namespace(array)
    return xp.sqrt(xp.square(array, dtype="float64").sum(axis=axes, keepdims=True))


class AGC:
    """Adaptive gradient clipping, a wrapper around an optimizer.

    Before each step the norm of the gradient of every output unit is limited relative to the norm
    of the unit's weights:
    ``g_i = g_i * clipping * max(|w_i|, eps) / |g_i|`` where ``|g_i| > clipping * max(|w_i|, eps)``.

    Args:
        optimizer: the optimizer that takes the steps.
        clipping: the largest allowed ratio of the norms.
        eps: lower bound for the norm of the weights, so that zero-initialized units can move.
        exclude: parameters that are not clipped; the paper excludes the last linear layer.

    Source:
        Brock, De, Smith, Simonyan 2021, arXiv:2102.06171, eq. 3.

    >>> w = mg.tensor([[3.0, 4.0]], requires_grad=True)
    >>> w.grad = np.array([[0.0, 100.0]])
    >>> mg.optim.AGC(mg.optim.SGD([w], lr=1.0), clipping=0.1).step()
    >>> w.numpy()  # the gradient's norm became 0.1 * 5
    array([[3. , 3.5]])
    """

    def __init__(
        self,
        optimizer: Any,
        clipping: float = 0.01,
        eps: float = 1e-3,
        exclude: Iterable[Tensor] = (),
    ):
        check_optimizer("AGC", optimizer)
        self.optimizer = optimizer
        self.eps = check_number("AGC: eps", eps)
        self.clipping = check_number("AGC: clipping", clipping, positive=True)
        # by identity, so that a deep copy excludes the copies
        self.excluded = frozenset(leaf_tensors(exclude, "AGC: exclude"))

    @property
    def parameters(self) -> list[Tensor]:
        return self.optimizer.parameters

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters to clip and update; see ``Optimizer.add_param_group``."""
        self.optimizer.add_param_group(group)

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer; clipping has none."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.optimizer.load_state_dict(state_dict)

    def step(self) -> None:
        """Clip the gradients, then let the optimizer step."""
        for p in self.parameters:
            if p.grad is not None and p not in self.excluded:
                xp = backend.namespace(p.array)
                max_norm = self.clipping * xp.maximum(unit_norms(p.array), self.eps)
                norm = xp.maximum(unit_norms(p.grad.array), max_norm)
                p.grad = p.grad.array * (max_norm / xp.maximum(norm, _TINY))
        self.optimizer.step()
