"""For trained networks: statistics of the whole training set, and folding of batch norm."""

import copy
from collections import Counter
from collections.abc import Iterable
from typing import Any

from minigrad import backend
from minigrad.context import no_grad
from minigrad.errors import ShapeError, UsageError, describe, facts
from minigrad.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d, PooledStatistics
from minigrad.nn.container import Sequential
from minigrad.nn.conv import Conv1d, Conv2d, Conv3d
from minigrad.nn.layers import Identity, Linear
from minigrad.nn.module import Module, check_module
from minigrad.ops.normalization import per_channel
from minigrad.tensor import Tensor, tensor

_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)
_CONVS = {Conv1d: BatchNorm1d, Conv2d: BatchNorm2d, Conv3d: BatchNorm3d}


def set_population_statistics(model: Module, loader: Iterable) -> Module:
    """Replace running statistics by averages over the training set, and switch to ``eval()``.

    Each batch is normalized with its own statistics, as in training, and every batch norm averages
    the means and variances of its batches, weighted by their sizes. The variances are unbiased, or
    biased in a layer with ``unbiased=False``. With unbiased ones and batches of equal size m, these
    are the paper's ``E[x] = E_B[mean_B]`` and ``Var[x] = m / (m - 1) E_B[var_B]``. Other layers run
    in evaluation mode.

    Args:
        model: any module; its BatchNorm layers that track statistics are changed.
        loader: yields batches ``x`` or ``(x, ...)``.

    Returns:
        ``model``.

    Raises:
        UsageError: no batches, a batch norm that no batch reaches, or a lazy layer that has not
            been called yet.

    Source:
        Ioffe, Szegedy 2015, arXiv:1502.03167, Algorithm 2, steps 8 to 12.

    >>> bn = mg.nn.BatchNorm1d(1)
    >>> batches = [np.array([[0.0], [2.0]]), np.array([[4.0], [8.0]])]
    >>> _ = mg.nn.set_population_statistics(bn, batches)
    >>> bn.running_mean.item(), bn.running_var.item()  # (1 + 6) / 2, (2 + 8) / 2
    (3.5, 5.0)
    """
    _check_ready("set_population_statistics", model)
    norms = {
        path: module for path, module in model.named_modules()
        if isinstance(module, _NORMS) and module.track_running_stats
    }  # fmt: skip
    model.eval()
    for norm in norms.values():
        norm.training, norm.pooled = True, PooledStatistics()
    try:
        batches = 0
        with no_grad():
            for batch in loader:
                x = batch[0] if isinstance(batch, (tuple, list)) else batch
                model(tensor(x))
                batches += 1
        if not batches:
            raise UsageError("set_population_statistics: the loader gave no batches")
        _assign_population_statistics(norms)
    finally:
        for norm in norms.values():
            norm.training, norm.pooled = False, None
    return model


def _check_ready(name: str, model: Module) -> None:
    """Raise DTypeError for what is no module, and UsageError for a lazy layer that has not been
    called yet: it has no statistics."""
    check_module(f"{name}: model", model)
    for path, module in model.named_modules():
        if module._pending:
            got = f"{module!r} at {path!r}"
            expected, remedy = "layers whose sizes are known", "run one batch first"
            raise UsageError(facts(name, expected=expected, got=got, remedy=remedy))


def _assign_population_statistics(norms: dict[str, Any]) -> None:
    unused = [path for path, norm in norms.items() if not norm.pooled.count]
    if unused:
        expected = "a model that calls every batch norm"
        got = f"no batch reached {', '.join(map(repr, unused))}"
        raise UsageError(facts("set_population_statistics", expected=expected, got=got))
    for norm in norms.values():
        norm.running_mean.data = norm.pooled.mean
        norm.running_var.data = norm.pooled.var


class ChannelAffine(Module):
    """``y = scale * x + shift`` per channel of (N, C, ...): a batch norm in evaluation.

    Attributes:
        scale, shift: (C,), buffers.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Any, shift: Any):
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Any) -> Any:
        return per_channel(self.scale, x) * x + per_channel(self.shift, x)


class Folded(Identity):
    """Stands in for a batch norm that is folded into the ``Linear`` before it; returns its input.

    The input must be (N, C): for (N, C, L) the Linear maps the last axis, but the batch norm would
    have scaled axis 1.
    """

    def forward(self, x: Any) -> Any:
        if x.ndim != 2:
            remedy = "call the original model: for (N, C, L), its batch norm scales axis 1"
            raise ShapeError(
                facts("a folded BatchNorm1d: x", expected="(N, C)", got=describe(x), remedy=remedy)
            )
        return x


def fold_batch_norm(model: Module) -> Module:
    """A copy of ``model`` for evaluation, without batch norm layers.

    A BatchNorm directly after a Linear or Conv in a ``Sequential`` is folded into the weight and
    bias of that layer: ``W' = s W``, ``b' = s (b - mean) + beta`` with
    ``s = gamma / sqrt(var + eps)``, unless the layer or its parameters are shared with another
    module. Any other BatchNorm becomes a ``ChannelAffine``; one whose class has its own ``forward``
    stays. The outputs equal those of ``model.eval()`` up to rounding, unless a ``forward`` takes a
    layer or its weight out of a ``Sequential`` and uses it alone. A Linear with a folded batch norm
    takes (N, C) only.

    Raises:
        UsageError: a BatchNorm without running statistics, or a lazy layer that has not been called
            yet.

    >>> net = mg.nn.Sequential(mg.nn.Linear(3, 2), mg.nn.BatchNorm1d(2), mg.nn.ReLU())
    >>> mg.nn.fold_batch_norm(net)
    Sequential(
      0: Linear(3, 2, bias=True)
      1: Folded()
      2: ReLU()
    )
    """
    _check_ready("fold_batch_norm", model)
    if _is_batch_norm(model):
        return ChannelAffine(*_scale_and_shift(model)).eval()
    folded = copy.deepcopy(model)
    modules = list(folded.modules())
    uses = Counter(id(part) for module in modules for part in _parts(module))
    for module in modules:
        previous: Any = None
        for name, child in list(module.named_children()):
            if _is_batch_norm(child):
                foldable = (
                    type(module).forward is Sequential.forward
                    and _matches(previous, child)
                    and all(uses[id(part)] == 1 for part in (previous, *_parts(previous)))
                )
                setattr(module, name, _fold(previous if foldable else None, child))
            previous = child
    return folded.eval()


def _is_batch_norm(module: Module) -> bool:
    """Whether ``module`` is a batch norm and computes as such: a subclass may do more."""
    return type(module).forward is BatchNorm1d.forward


def _parts(module: Module) -> list[Any]:
    """Direct submodules and parameters of ``module``; a shared one comes once per name."""
    return [getattr(module, name) for name in (*module._modules, *module._parameters)]


def _fold(layer: Any, norm: Any) -> Module:
    """Fold ``norm`` into ``layer``, if there is one; return the module that takes its place."""
    scale, shift = _scale_and_shift(norm)
    if layer is None:
        return ChannelAffine(scale, shift)
    weight = layer.weight.array
    channels = scale.reshape((-1,) + (1,) * (weight.ndim - 1))
    bias = 0.0 if layer.bias is None else layer.bias.array
    layer.weight.data = channels * weight
    layer.bias = tensor(scale * bias + shift, requires_grad=True, name="bias")
    return Folded() if type(layer) is Linear else Identity()


def _matches(layer: Any, norm: Any) -> bool:
    """Whether ``norm`` normalizes exactly the output units of ``layer``."""
    if type(layer) is Linear:  # a subclass may use its weight differently
        return type(norm) is BatchNorm1d and layer.out_features == norm.num_features
    return _CONVS.get(type(layer)) is type(norm)


def _scale_and_shift(norm: Any) -> tuple[Any, Any]:
    """``(s, beta - s * mean)`` of ``norm`` in evaluation, as plain arrays."""
    if not norm.track_running_stats:
        raise UsageError(f"fold_batch_norm: {norm!r} has no running statistics to fold")
    mean, var = norm.running_mean.array, norm.running_var.array
    gamma, beta = (getattr(p, "array", p) for p in norm.gamma_and_beta(mean))
    scale = gamma / backend.namespace(var).sqrt(var + norm.eps)
    return scale, beta - scale * mean
