"""Batch, layer and group norm, composed of ops and so differentiable to any order."""

from math import prod
from numbers import Integral

from minigrad.composite import composite, label, operand
from minigrad.context import scope
from minigrad.declaration import Case, Domain
from minigrad.errors import ShapeError, UsageError, describe, facts
from minigrad.ops.arithmetic import add, reciprocal, sqrt
from minigrad.ops.reduce import mean as mean_over
from minigrad.ops.reduce import narrow, wide
from minigrad.ops.shape import reshape

_ANY = (Domain(-2.0, 3.0),)


@composite(
    formula=r"y = \gamma \hat x + \beta,\quad \hat x = (x - \mu) / \sqrt{\sigma^2 + \epsilon}",
    domain=_ANY,
    cases=(
        Case(((5, 3), (3,), (3,))),
        Case(((4, 2, 3), (2,), (2,)), {"eps": 1e-3}),
        Case(((2, 3, 2, 2), (3,), (3,))),
        Case(((2, 2, 2, 1, 2), (2,), (2,)), {"eps": 0.1}),
        Case(((4, 2, 3), (2,), (2,)), {"axis": (2,)}),
    ),
    source="Ioffe, Szegedy 2015, arXiv:1502.03167, Algorithm 1",
)
def batch_norm(x, gamma, beta, *, mean=None, var=None, axis=None, eps=1e-5):
    """Normalize each channel over the batch, then scale and shift it.

    Without ``mean`` and ``var`` (training) ``x`` is normalized with its own mean and biased (1/N)
    variance over ``axis``, and the derivative includes their dependence on ``x``. With them
    (evaluation) no statistics are computed from ``x``.

    Args:
        x: (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W); any ndim >= 2.
        gamma, beta: (C,), aligned with axis 1 of ``x``.
        mean, var: (C,), both or neither; ``var`` does not contain ``eps``.
        axis: the axes to average over; None means every axis but 1.
        eps: added to the variance.

    Returns:
        An array of the shape of ``x``.

    Raises:
        ShapeError: other shapes. UsageError: one of ``mean`` and ``var`` without the other.

    Source:
        Ioffe, Szegedy 2015, arXiv:1502.03167, Algorithm 1.

    >>> x = mg.tensor([[1.0, 0.0], [3.0, 4.0]])
    >>> mg.ops.batch_norm(x, np.ones(2), np.zeros(2), eps=0.0)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    mean, var = (p if p is None else operand(p) for p in (mean, var))
    check_batch_norm(x, gamma=gamma, beta=beta, mean=mean, var=var)
    gamma, beta = per_channel(gamma, x), per_channel(beta, x)
    if mean is None:
        xc, variance = _deviations(wide(x), axis)
    else:
        mu, variance = per_channel(mean, x), per_channel(var, x)
        if mu is not mean:  # the caller's tensor keeps its own name
            label(mu, "mean")
        xc = label(x - mu, "xc")
    with scope("normalize"):
        inv_std = label(reciprocal(sqrt(add(variance, eps))), "inv_std")
        x_hat = label(xc * inv_std if mean is not None else narrow(xc * inv_std, x), "x_hat")
    with scope("affine"):
        return gamma * x_hat + beta


def per_channel(p, x):
    """``p``, (C,), reshaped to broadcast along axis 1 of ``x``."""
    return p if x.ndim == 2 else reshape(p, shape=(-1,) + (1,) * (x.ndim - 2))


def all_but_channels(x):
    """The axes of ``x`` but axis 1."""
    return tuple(i for i in range(x.ndim) if i != 1)


def _deviations(x, axis):
    """Deviations from the batch mean, and the biased variance."""
    axes = all_but_channels(x) if axis is None else axis
    with scope("mean"):
        mu = label(mean_over(x, axis=axes, keepdims=True), "mean")
    with scope("variance"):
        xc = label(x - mu, "xc")
        return xc, label(mean_over(xc * xc, axis=axes, keepdims=True), "var")


def check_batch_norm(x, **parameters):
    """Raise ShapeError or UsageError unless the arguments fit."""
    if x.ndim < 2:
        raise ShapeError(facts("batch_norm: x", expected="(N, C) or (N, C, ...)", got=describe(x)))
    given = {name: p for name, p in parameters.items() if p is not None}
    if ("mean" in given) != ("var" in given):
        missing = "var" if "mean" in given else "mean"
        raise UsageError(f"batch_norm: {missing} is missing; give both of mean and var, or neither")
    _check_channels("batch_norm", x, given)


def _check_channels(op, x, parameters):
    """Raise ShapeError unless each of the named parameters is (C,)."""
    for name, parameter in parameters.items():
        if tuple(parameter.shape) != (x.shape[1],):
            expected = f"({x.shape[1]},), one per channel of x {tuple(x.shape)}"
            got = describe(parameter)
            raise ShapeError(facts(f"{op}: {name}", expected=expected, got=got))


@composite(
    formula=r"y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta",
    domain=_ANY,
    cases=(Case(((3, 4), (4,), (4,))), Case(((2, 3, 4), (3, 4), (3, 4)), {"eps": 1e-3})),
    source="Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4",
)
def layer_norm(x, gamma, beta, *, eps=1e-5):
    """Normalize each example over its trailing axes, then scale and shift elementwise.

    Args:
        x: (..., *F).
        gamma, beta: (*F,); mean and biased (1/N) variance are taken over these trailing axes.
        eps: added to the variance.

    Returns:
        An array of the shape of ``x``.

    Raises:
        ShapeError: ``gamma`` or ``beta`` does not have the trailing shape of ``x``.

    Source:
        Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4.

    >>> mg.layer_norm(mg.tensor([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=0.0)
    tensor([[-1.,  1.]])
    """
    check_layer_norm(x, gamma, beta)
    axes = tuple(range(-len(gamma.shape), 0))
    return gamma * label(_standardized(x, axes, eps), "x_hat") + beta


def _standardized(x, axes, eps):
    """``x`` with mean 0 and variance ``var / (var + eps)`` over ``axes``."""
    xc = wide(x)
    xc = label(xc - mean_over(xc, axis=axes, keepdims=True), "xc")
    var = label(mean_over(xc * xc, axis=axes, keepdims=True), "var")
    inv_std = label(reciprocal(sqrt(var + eps)), "inv_std")
    return narrow(xc * inv_std, x)


def check_layer_norm(x, gamma, beta):
    """Raise ShapeError unless the arguments fit."""
    n = len(gamma.shape)
    trailing = tuple(x.shape[x.ndim - n :])
    if not n or tuple(gamma.shape) != trailing or tuple(beta.shape) != trailing:
        got = f"x {tuple(x.shape)}, {describe(gamma)}, {describe(beta)}"
        expected = "gamma and beta with the trailing shape of x"
        raise ShapeError(facts("layer_norm: operands", expected=expected, got=got))


@composite(
    formula=r"y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta",
    domain=_ANY,
    cases=(
        Case(((3, 4), (4,), (4,)), {"num_groups": 2}),
        Case(((2, 6, 3), (6,), (6,)), {"num_groups": 3, "eps": 1e-3}),
        Case(((2, 3, 2, 2), (3,), (3,)), {"num_groups": 1}),
        Case(((2, 2, 1, 3), (2,), (2,)), {"num_groups": 2}),
    ),
    source="Wu, He 2018, arXiv:1803.08494, eq. 7",
)
def group_norm(x, gamma, beta, *, num_groups, eps=1e-5):
    """Normalize each group of channels of each example, then scale and shift each channel.

    One group is a layer norm over all axes but the first; C groups are an instance norm.

    Args:
        x: (N, C) or (N, C, ...).
        gamma, beta: (C,), aligned with axis 1 of ``x``.
        num_groups: number of groups of C / num_groups neighbouring channels; mean and biased (1/m)
            variance are taken over the m values of a group in an example.
        eps: added to the variance.

    Returns:
        An array of the shape of ``x``.

    Raises:
        ShapeError: other shapes. UsageError: groups that do not divide the channels.

    Source:
        Wu, He 2018, arXiv:1803.08494, eq. 7.

    >>> x = mg.tensor([[1.0, 3.0, 10.0, 20.0]])
    >>> mg.group_norm(x, np.ones(4), np.zeros(4), num_groups=2, eps=0.0)
    tensor([[-1.,  1., -1.,  1.]])
    """
    check_group_norm(x, gamma, beta, num_groups)
    groups = reshape(x, shape=by_group(x, num_groups))
    x_hat = label(reshape(_standardized(groups, 2, eps), shape=x.shape), "x_hat")
    return per_channel(gamma, x) * x_hat + per_channel(beta, x)


def by_group(x, num_groups):
    """The shape (N, G, m) of ``x`` with a row of m values for each group of channels."""
    return x.shape[0], num_groups, prod(x.shape[1:]) // num_groups


def check_group_norm(x, gamma, beta, num_groups):
    """Raise ShapeError or UsageError unless the arguments fit."""
    if x.ndim < 2:
        raise ShapeError(facts("group_norm: x", expected="(N, C) or (N, C, ...)", got=describe(x)))
    if not isinstance(num_groups, Integral) or num_groups < 1 or x.shape[1] % num_groups:
        expected = f"a whole number that divides the {x.shape[1]} channels of x"
        raise UsageError(facts("group_norm: num_groups", expected=expected, got=num_groups))
    _check_channels("group_norm", x, {"gamma": gamma, "beta": beta})
