"""After training: statistics of the whole training set, and batch norm folded away."""

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
from minigrad.nn.module import Module
from minigrad.ops.normalization import per_channel
from minigrad.tensor import Tensor, tensor

_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)
_CONVS = {Conv1d: BatchNorm1d, Conv2d: BatchNorm2d, Conv3d: BatchNorm3d}


def set_population_statistics(model: Module, loader: Iterable) -> Module:
    """Replace running statistics by averages over the training set, and switch to ``eval()``.

    Each batch is normalized with its own statistics, as in training; mean and variance, of a layer
    with ``unbiased=False`` the biased one, of every batch norm are averaged over the batches,
    weighted with their sizes. For batches of equal size m and the unbiased variance that is
    ``E[x] = E_B[mean_B]``, ``Var[x] = m / (m - 1) E_B[var_B]`` of the paper. Other layers run in
    evaluation mode.

    Args:
        model: any module; its BatchNorm layers that track statistics are changed.
        loader: yields batches ``x`` or ``(x, ...)``.

    Raises:
        UsageError: no batches, a batch norm that none of them reaches, or a lazy layer that was not
            called yet.

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
                model(x if isinstance(x, Tensor) else tensor(x))
                batches += 1
        if not batches:
            raise UsageError("set_population_statistics: the loader gave no batches")
        _assign(norms)
    finally:
        for norm in norms.values():
            norm.training, norm.pooled = False, None
    return model


def _check_ready(name: str, model: Module) -> None:
    """Raise UsageError for a lazy layer that was not called yet: it has no statistics."""
    for path, module in model.named_modules():
        if module._pending:
            got = f"{module!r} at {path!r}"
            expected, remedy = "layers whose sizes are known", "run one batch first"
            raise UsageError(facts(name, expected=expected, got=got, remedy=remedy))


def _assign(norms: dict[str, Any]) -> None:
    unused = [path for path, norm in norms.items() if not norm.pooled.count]
    if unused:
        expected = "a model that calls every batch norm"
        got = f"no batch that reached {', '.join(map(repr, unused))}"
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
    """In the place of a batch norm that the ``Linear`` before it computes, too.

    It returns its input, which must be (N, C): of (N, C, L) the Linear maps the last axis, and the
    batch norm would scale the one before.
    """

    def forward(self, x: Any) -> Any:
        if x.ndim != 2:
            remedy = "call the model that was folded; of (N, C, L) its batch norm scales axis 1"
            raise ShapeError(
                facts("a folded BatchNorm1d: x", expected="(N, C)", got=describe(x), remedy=remedy)
            )
        return x


def fold_batch_norm(model: Module) -> Module:
    """A copy of ``model`` for evaluation in which every batch norm is gone.

    A BatchNorm right behind a Linear or Conv in a ``Sequential`` is folded into its weight and
    bias, ``W' = s W``, ``b' = s (b - mean) + beta`` with ``s = gamma / sqrt(var + eps)``, unless
    another module has them, too; any other becomes a ``ChannelAffine``. The outputs equal those of
    ``model.eval()`` to rounding, but where a ``forward`` reaches into the ``Sequential`` for that
    layer or its weight. A Linear with a folded batch norm takes (N, C) only.

    Raises:
        UsageError: a BatchNorm without running statistics, or a lazy layer that was not called yet.

    >>> net = mg.nn.Sequential(mg.nn.Linear(3, 2), mg.nn.BatchNorm1d(2), mg.nn.ReLU())
    >>> mg.nn.fold_batch_norm(net)
    Sequential(
      0: Linear(3, 2, bias=True)
      1: Folded()
      2: ReLU()
    )
    """
    _check_ready("fold_batch_norm", model)
    if isinstance(model, _NORMS):
        return ChannelAffine(*_scale_and_shift(model)).eval()
    folded = copy.deepcopy(model).eval()
    modules = list(folded.modules())
    uses = Counter(id(part) for module in modules for part in _parts(module))
    for module in modules:
        previous: Any = None
        for name, child in list(module.named_children()):
            if isinstance(child, _NORMS):
                foldable = (
                    type(module).forward is Sequential.forward
                    and _is_folded_by(previous, child)
                    and all(uses[id(part)] == 1 for part in (previous, *_parts(previous)))
                )
                setattr(module, name, _replacement(previous if foldable else None, child))
            previous = child
    return folded.eval()


def _parts(module: Module) -> list[Any]:
    """Submodules and parameters of ``module`` itself; one that is shared comes once per name."""
    return [getattr(module, name) for name in (*module._modules, *module._parameters)]


def _replacement(layer: Any, norm: Any) -> Module:
    """What stands for ``norm`` when ``layer``, if there is one, has taken it over."""
    scale, shift = _scale_and_shift(norm)
    if layer is None:
        return ChannelAffine(scale, shift)
    weight = layer.weight.array
    channels = scale.reshape((-1,) + (1,) * (weight.ndim - 1))
    bias = 0.0 if layer.bias is None else layer.bias.array
    layer.weight.data = channels * weight
    layer.bias = tensor(scale * bias + shift, requires_grad=True, name="bias")
    return Folded() if type(layer) is Linear else Identity()


def _is_folded_by(layer: Any, norm: Any) -> bool:
    """Whether ``norm`` normalizes exactly the output units of ``layer``."""
    if type(layer) is Linear:  # a subclass may compute something else with its weight
        return type(norm) is BatchNorm1d and layer.out_features == norm.num_features
    return _CONVS.get(type(layer)) is type(norm)


def _scale_and_shift(norm: Any) -> tuple[Any, Any]:
    """``(s, beta - s * mean)``, plain arrays."""
    if not norm.track_running_stats:
        raise UsageError(f"fold_batch_norm: {norm!r} has no running statistics to fold")
    mean, var = norm.running_mean.array, norm.running_var.array
    gamma, beta = (getattr(p, "array", p) for p in norm.gamma_and_beta(mean))
    scale = gamma / backend.namespace(var).sqrt(var + norm.eps)
    return scale, beta - scale * mean
