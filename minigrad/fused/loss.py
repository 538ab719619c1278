"""Softmax, its logarithm and cross entropies as one op each, with hand-written backwards."""

from minigrad.fused.declare import fused
from minigrad.ops.loss import (
    binary_cross_entropy_with_logits,
    checked_labels,
    checked_target,
    cross_entropy,
    log_softmax,
    softmax,
    with_nan_rows,
)
from minigrad.ops.reduce import mean, narrow, over, shifted, wide
from minigrad.ops.shape import floating


@fused(softmax, pullback=r"\bar x_i = y_i\,(\bar y_i - \sum_j \bar y_j\,y_j)")
def fused_softmax(xp, x, *, axis=-1):
    """``ops.softmax`` with a hand-written backward; higher orders go through the composite.

    >>> mg.fused.softmax(mg.tensor([1000.0, 1000.0]))
    tensor([0.5, 0.5])
    """
    z = shifted(wide(x), axis)
    y = xp.exp(z, out=z if z.ndim else None)
    y /= y.sum(axis=axis, keepdims=True)
    return narrow(y, x), (y, axis)


@fused_softmax.defbackward
def softmax_backward(xp, y_bar, cache):
    y, axis = cache
    x_bar = y_bar - (y_bar * y).sum(axis=axis, keepdims=True)
    x_bar *= y
    return (x_bar,)


@fused(
    log_softmax,
    pullback=r"\bar x_i = \bar y_i - \mathrm{softmax}(x)_i \sum_j \bar y_j",
)
def fused_log_softmax(xp, x, *, axis=-1):
    """``ops.log_softmax`` with a hand-written backward; higher orders go through the composite.

    >>> mg.fused.log_softmax(mg.tensor([0.0, 0.0]))
    tensor([-0.69314718, -0.69314718])
    """
    z = shifted(wide(x), axis)
    e = xp.exp(z)
    total = e.sum(axis=axis, keepdims=True)
    z -= xp.log(total)
    return narrow(z, x), (e, total, axis)


@fused_log_softmax.defbackward
def log_softmax_backward(xp, y_bar, cache):
    e, total, axis = cache
    x_bar = e * (y_bar.sum(axis=axis, keepdims=True) / total)
    return (xp.subtract(y_bar, x_bar, out=x_bar if x_bar.ndim else None),)


@fused(
    cross_entropy,
    pullback=r"\bar x_{nk} = \frac{\bar y}{N} (\mathrm{softmax}(x_n)_k - [k = k_n])",
)
def fused_cross_entropy(xp, logits, labels):
    """``ops.cross_entropy`` with a hand-written backward; higher orders go through the composite.

    Args:
        logits: (N, K), unnormalized log-probabilities.
        labels: (N,) integers in ``range(K)``.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ShapeError: other shapes. DTypeError: labels that are not integers. BoundsError: a label
            outside ``range(K)``.

    >>> mg.fused.cross_entropy(mg.tensor([[0.0, 0.0]]), np.array([1]))
    tensor(0.69314718)
    """
    labels = checked_labels(xp, logits, labels)
    z = wide(floating(with_nan_rows(xp, logits, labels)))
    n = xp.arange(len(labels))
    z = z - z.max(axis=1, keepdims=True)
    e = xp.exp(z)
    total = e.sum(axis=1)
    y = (xp.log(total) - z[n, labels]).mean()
    e /= total[:, None]
    return narrow(y, logits), (e, n, labels)


@fused_cross_entropy.defbackward
def cross_entropy_backward(xp, y_bar, cache):
    probabilities, n, labels = cache
    x_bar = probabilities.copy()
    x_bar[n, labels] -= 1
    x_bar *= over(y_bar, len(labels))
    return x_bar, None


@fused(
    binary_cross_entropy_with_logits,
    pullback=r"\bar x_i = \frac{\bar y}{n} (\sigma(x_i) - t_i),\quad"
    r" \bar t_i = -\frac{\bar y}{n}\,x_i",
)
def fused_binary_cross_entropy_with_logits(xp, logits, target):
    """``ops.binary_cross_entropy_with_logits`` with one exponential for value and slope.

    >>> mg.fused.binary_cross_entropy_with_logits(mg.tensor([0.0, 800.0]), np.array([1, 1]))
    tensor(0.34657359)
    """
    x, t = map(wide, checked_target(logits, target))
    losses, slope = two_class_losses(xp, x, t)
    return narrow(mean.forward(xp, losses), logits, target), (slope, x)


@fused_binary_cross_entropy_with_logits.defbackward
def binary_cross_entropy_backward(xp, y_bar, cache):
    slope, x = cache
    share = over(y_bar, x.size)
    return share * slope, lambda: -share * x


def two_class_losses(xp, x, t):
    """``t ln(1 + e^-x) + (1 - t) ln(1 + e^x)`` for each element, and its derivative by x."""
    side = (x > 0).astype(x.dtype)
    small, wrong = xp.exp(-xp.abs(x)), xp.abs(t - side)
    losses = xp.log1p(small) + xp.abs(x) * wrong
    return losses, (wrong - small / (1 + small)) * (2 * side - 1)
