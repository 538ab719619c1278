"""Softmax and the losses."""

import numpy as np

from minigrad.backend import namespace, to_host
from minigrad.composite import composite
from minigrad.declaration import Case, Domain
from minigrad.errors import BoundsError, DTypeError, ShapeError, describe, facts
from minigrad.ops.activation import softplus
from minigrad.ops.index import getitem
from minigrad.ops.reduce import logsumexp, mean, narrow, shifted, wide, wide_softmax
from minigrad.ops.select import absolute
from minigrad.ops.shape import astype, floating

_ROWS = (Case(((3, 4),)), Case(((3, 4),), {"axis": 0}), Case(((5,),)))


@composite(
    formula=r"y_i = e^{x_i} / \sum_j e^{x_j}",
    cases=_ROWS,
)
def softmax(x, *, axis=-1):
    """Exponentials of ``x``, divided by their sum along ``axis``, without overflow.

    >>> mg.softmax(mg.tensor([1000.0, 1000.0]))
    tensor([0.5, 0.5])
    """
    return narrow(wide_softmax(x, axis), x)


@composite(formula=r"y_i = x_i - \ln \sum_j e^{x_j}", cases=_ROWS)
def log_softmax(x, *, axis=-1):
    """Logarithm of ``softmax`` along ``axis``, without its quotient, which may round to 0.

    >>> mg.log_softmax(mg.tensor([0.0, 0.0]))
    tensor([-0.69314718, -0.69314718])
    """
    z = shifted(wide(x), axis)  # a large offset common to all x would cost digits
    return narrow(z - logsumexp(z, axis=axis, keepdims=True), x)


@composite(
    formula=r"y = -\frac{1}{N} \sum_n \ln \mathrm{softmax}(x_n)_{k_n}",
    domain=(Domain(), Domain(kind="index")),
    cases=(Case(((4, 3), (4,))), Case(((1, 2), (1,)))),
)
def cross_entropy(logits, labels):
    """Mean over the batch of the negative log-likelihood of the correct class.

    Args:
        logits: (N, K), unnormalized log-probabilities.
        labels: (N,) integers in ``range(K)``.

    Returns:
        A scalar.

    Raises:
        ShapeError: other shapes. DTypeError: labels that are not integers. BoundsError: a label
            outside ``range(K)``. Labels on a GPU are not read back to check this; one out of range
            makes the loss nan instead.

    >>> mg.ops.cross_entropy(mg.tensor([[0.0, 0.0]]), [1])
    tensor(0.69314718)
    """
    xp = namespace(getattr(logits, "array", logits))
    labels = checked_labels(xp, logits, labels)
    logits = with_nan_rows(xp, logits, labels)
    return -mean(getitem(log_softmax(logits), key=(xp.arange(len(labels)), labels)))


def checked_labels(xp, logits, labels):
    """``labels`` as an array of ``xp``, or the errors that ``cross_entropy`` documents."""
    labels = getattr(labels, "array", labels)
    on_gpu = namespace(labels) is xp and xp is not np
    labels = labels if on_gpu else to_host(labels)
    if len(logits.shape) != 2 or labels.shape != logits.shape[:1] or not logits.shape[1]:
        expected = "logits (N, K) with K >= 1 classes, labels (N,)"
        got = f"{describe(logits)} and labels {labels.shape}"
        raise ShapeError(facts("cross_entropy: shapes", expected=expected, got=got))
    if labels.dtype.kind not in "iu":
        raise DTypeError(facts("cross_entropy: labels", expected="integers", got=labels.dtype))
    if on_gpu:
        return labels  # to check them the host would have to wait for the GPU
    k = logits.shape[1]
    if labels.size and (labels.min() < 0 or labels.max() >= k):
        got = f"{labels.min()} to {labels.max()}"
        raise BoundsError(facts("cross_entropy: labels", expected=f"0 to {k - 1}", got=got))
    return xp.asarray(labels)


def with_nan_rows(xp, logits, labels):
    """``logits``; on a GPU, where indices wrap around, a label out of range makes its row nan."""
    if xp is np:
        return logits
    in_range = (labels >= 0) & (labels < logits.shape[1])
    return logits + xp.where(in_range, 0.0, xp.nan).astype(logits.dtype)[:, None]


_PAIRS = (Case(((3, 2), (3, 2))), Case(((), ())))


@composite(formula=r"y = \frac{1}{n} \sum_i (x_i - t_i)^2", cases=_PAIRS)
def mse_loss(prediction, target):
    """Mean of the squared differences over all elements.

    Args:
        prediction, target: of one shape; they do not broadcast, since that would hide mistakes.

    >>> mg.mse_loss(mg.tensor([1.0, 2.0]), np.array([1.0, 4.0]))
    tensor(2.)
    """
    x, t = _float_operands("mse_loss", prediction, target)
    difference = x - t
    return mean(difference * difference)


@composite(
    formula=r"y = \frac{1}{n} \sum_i |x_i - t_i|",
    domain=(Domain(-3.0, -1.0), Domain(1.0, 3.0)),  # disjoint: equal operands are at the kink
    cases=_PAIRS,
)
def l1_loss(prediction, target):
    """Mean of the absolute differences over all elements; the subgradient at a difference 0 is 0.

    Args:
        prediction, target: of one shape; they do not broadcast, since that would hide mistakes.

    >>> mg.l1_loss(mg.tensor([1.0, 2.0]), np.array([1.0, 4.0]))
    tensor(1.)
    """
    x, t = _float_operands("l1_loss", prediction, target)
    return mean(absolute(x - t))


@composite(
    formula=r"y = \frac{1}{n} \sum_i (t_i \ln(1 + e^{-x_i}) + (1 - t_i) \ln(1 + e^{x_i}))",
    domain=(Domain(), Domain(0.2, 0.8)),
    cases=_PAIRS,
)
def binary_cross_entropy_with_logits(logits, target):
    """Mean over all elements of the negative log-likelihood of the correct one of two classes.

    Args:
        logits: log-odds of class 1; the sigmoid of a logit is the probability of class 1.
        target: the same shape: 0 and 1, or probabilities of class 1.

    Raises:
        ShapeError: the shapes differ. BoundsError: a target outside [0, 1]; a target on a GPU is
            not read back to check this.

    >>> mg.binary_cross_entropy_with_logits(mg.tensor([0.0, 800.0]), np.array([1, 1]))
    tensor(0.34657359)
    """
    x, t = checked_target(logits, target)
    return mean(t * softplus(-x) + (1 - t) * softplus(x))


def checked_target(logits, target):
    """Both as floats, or the errors that ``binary_cross_entropy_with_logits`` documents."""
    name = "binary_cross_entropy_with_logits"
    values = getattr(target, "array", target)
    if namespace(values) is np and not np.all((values >= 0) & (values <= 1)):
        got = f"{np.min(values)} to {np.max(values)}"
        raise BoundsError(facts(f"{name}: target", expected="0 to 1", got=got))
    return _float_operands(name, logits, target)


def _float_operands(name, prediction, target):
    """Both operands as floats; integer or boolean targets take the dtype of the prediction."""
    if np.shape(prediction) != np.shape(target):
        got = f"{describe(prediction)} and {describe(target)}"
        raise ShapeError(facts(f"{name}: operands", expected="equal shapes", got=got))
    x = floating(prediction)
    if target.dtype.kind in "biu":
        target = astype(target, dtype=x.dtype)
    return x, target
