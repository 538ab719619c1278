"""Softmax and cross entropy as one op: the gradient is the probabilities minus the labels."""

from minigrad.fused.declare import fused
from minigrad.ops.loss import checked_labels, cross_entropy, marked
from minigrad.ops.reduce import narrow, over, wide
from minigrad.ops.shape import floating


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
    z = wide(floating(marked(xp, logits, labels)))
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
