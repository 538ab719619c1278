"""Kernels of softmax, its logarithm and cross entropies: a task is a block of rows, (R, K).

The rows of a block are walked together, because the loop of the exponential is fast only where it
is long. Parts of at most CHUNK exponentials are summed in the precision of the array, the parts
added in float64.
"""

import numpy as np
from numba import prange

from minigrad.fused import loss
from minigrad.fused.compiled.activation import exp, log1p
from minigrad.fused.compiled.jit import CHUNK, inner, kernel, read
from minigrad.fused.compiled.products import dot_1, row_sum
from minigrad.fused.declare import Pair, same_floats
from minigrad.fused.memory import empty_like
from minigrad.ops.loss import checked_labels, checked_target


@inner
def largest(row):
    """The largest value, by four running maxima, which need not wait for each other."""
    a = b = c = d = row[0]
    whole = row.size // 4 * 4
    for i in range(0, whole, 4):
        a, b = max(a, row[i]), max(b, row[i + 1])
        c, d = max(c, row[i + 2]), max(d, row[i + 3])
    for i in range(whole, row.size):
        a = max(a, row[i])
    return max(max(a, b), max(c, d))


@inner
def height_of(x):
    """Rows of a block."""
    return max(CHUNK // x.shape[1], 1)


@inner
def exponentials(x, block, e, top, total):
    """Of each row of a block: its maximum ``top``, ``e = e^(x - top)`` and the sum of that.

    Returns the bounds of the block.
    """
    n = x.shape[1]
    first = block * height_of(x)
    last = min(first + height_of(x), x.shape[0])
    for r in range(first, last):
        row, out = x[r], e[r]
        top[r] = largest(row)
        for k in range(n):
            out[k] = row[k] - top[r]
    flat = e.reshape(-1)[first * n : last * n]
    for i in range(flat.size):
        flat[i] = exp(flat[i])
    for r in range(first, last):
        total[r] = 0
        for start in range(0, n, CHUNK):
            total[r] += row_sum(e[r, start : start + CHUNK])
    return first, last


@kernel
def forward_softmax(x, y, top, total):
    for block in prange(-(-x.shape[0] // height_of(x))):
        first, last = exponentials(x, block, y, top, total)
        for r in range(first, last):
            out, scale = y[r], x.dtype.type(1 / total[r])
            for k in range(out.size):
                out[k] *= scale


@kernel
def forward_log_softmax(x, y, e, top, total):
    for block in prange(-(-x.shape[0] // height_of(x))):
        first, last = exponentials(x, block, e, top, total)
        for r in range(first, last):
            row, out, log_total = x[r], y[r], x.dtype.type(np.log(total[r]))
            for k in range(out.size):
                out[k] = row[k] - top[r] - log_total


@kernel
def backward_softmax(y_bar, y, x_bar):
    """``x_bar = y * (y_bar - sum(y_bar * y))``."""
    for r in prange(y.shape[0]):
        g, row, out, total = y_bar[r], y[r], x_bar[r], 0.0
        for start in range(0, row.size, CHUNK):
            total += dot_1(g[start : start + CHUNK], row[start : start + CHUNK])
        mean = row.dtype.type(total)
        for k in range(row.size):
            out[k] = row[k] * (g[k] - mean)


@kernel
def backward_log_softmax(y_bar, e, total, x_bar):
    """``x_bar = y_bar - e / total * sum(y_bar)``."""
    for r in prange(e.shape[0]):
        g, row, out, g_total = y_bar[r], e[r], x_bar[r], 0.0
        for start in range(0, row.size, CHUNK):
            g_total += row_sum(g[start : start + CHUNK])
        scale = row.dtype.type(g_total / total[r])
        for k in range(row.size):
            out[k] = g[k] - row[k] * scale


@kernel
def forward_two_class(x, t, slope, total):
    """``loss.two_class_losses`` of a row, float32; a task is a chunk, its losses add to a total."""
    one = x.dtype.type(1)
    for chunk in prange(total.size):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        row, targets, slopes = x[part], t[part], slope[part]
        losses = np.empty_like(row)
        for i in range(row.size):
            z = row[i]
            e = exp(-abs(z))
            wrong = one - targets[i] if z > 0 else targets[i]
            d = wrong - e / (one + e)
            losses[i] = log1p(e) + abs(z) * wrong
            slopes[i] = d if z > 0 else -d
        total[chunk] = row_sum(losses)


def _softmax_of(rows):
    y, top, total = empty_like(rows), np.empty(len(rows), rows.dtype), np.empty(len(rows))
    forward_softmax(rows, y, top, total)
    return y, top, total


def _softmax(xp, x, *, axis=-1):
    y, _, _ = _softmax_of(read(x.reshape(-1, x.shape[-1])))
    return y.reshape(x.shape), y


def _softmax_backward(xp, y_bar, y):
    x_bar = empty_like(y)
    backward_softmax(read(y_bar.reshape(y.shape)), read(y), x_bar)
    return (x_bar.reshape(y_bar.shape),)


def _log_softmax(xp, x, *, axis=-1):
    rows = read(x.reshape(-1, x.shape[-1]))
    y, e, total = empty_like(rows), empty_like(rows), np.empty(len(rows))
    forward_log_softmax(rows, y, e, np.empty(len(rows), x.dtype), total)
    return y.reshape(x.shape), (e, total)


def _log_softmax_backward(xp, y_bar, cache):
    e, total = cache
    x_bar = empty_like(e)
    backward_log_softmax(read(y_bar.reshape(e.shape)), read(e), total, x_bar)
    return (x_bar.reshape(y_bar.shape),)


def _accepts(x, *, axis=-1):
    is_last = type(axis) is int and axis in (-1, x.ndim - 1)
    return is_last and x.size > 0 and same_floats(x)


def _cross_entropy(xp, logits, labels):
    labels = checked_labels(xp, logits, labels)
    probabilities, top, total = _softmax_of(read(logits))
    n = np.arange(len(labels))
    losses = np.log(total) - (logits[n, labels] - top)
    return losses.mean().astype(logits.dtype), (probabilities, n, labels)


def _accepts_cross_entropy(logits, labels):
    return logits.ndim == 2 and same_floats(logits)


def _two_class(xp, logits, target):
    x, t = checked_target(logits, target)
    slope, total = empty_like(x), np.empty(-(-x.size // CHUNK))
    forward_two_class(read(x.reshape(-1)), read(t.reshape(-1)), slope.reshape(-1), total)
    return x.dtype.type(total.sum() / x.size), (slope, x)


def _accepts_two_class(logits, target):
    is_float32 = target.dtype.kind in "biu" or target.dtype == np.float32
    return logits.dtype == np.float32 and is_float32


softmax = Pair(_softmax, _softmax_backward, _accepts)
log_softmax = Pair(_log_softmax, _log_softmax_backward, _accepts)
cross_entropy = Pair(_cross_entropy, loss.cross_entropy_backward, _accepts_cross_entropy)
binary_cross_entropy_with_logits = Pair(
    _two_class, loss.binary_cross_entropy_backward, _accepts_two_class
)
