"""What demos 19 to 21 and 23 to 27 claim, as assertions on the numbers they print.

A factor such as 10 or 2 is the one the claim names. Where a claim only says which is less, the test
says: nearer, as a ratio, to the one than to the other.
"""

import math

import numpy as np

EPS = float(np.finfo(np.float64).eps)
UNINFORMED = math.log(10)  # the loss of a network that finds all ten digits equally likely


def is_nearer(value, near, far):
    """Whether ``value`` is nearer to ``near`` than to ``far`` on a log scale."""
    return abs(math.log(value / near)) < abs(math.log(value / far))


def covariate_shift(n):
    for kind in ("ReLU", "Sigmoid"):
        drift, change = (
            n[f"{name}, {kind}, without BN"] / n[f"{name}, {kind}, with BN"]
            for name in ("drift of the mean in standard deviations", "change of the gradient")
        )
        assert drift > 20 and 2 <= round(change) <= 8


def landscape(n):
    names = ("range of the loss along the gradient", "largest change of the gradient")
    for name in names:
        assert n[f"{name}, without BN"] > 10 * n[f"{name}, with BN"]
    # A step may be as long as the inverse of this: at least twice as long with batch norm.
    name = "largest change per length"
    assert n[f"{name}, without BN"] > 2 * n[f"{name}, with BN"]


def small_batches(n):
    assert n["one example: largest |x_bar|"] == 0
    # Six roundings by eps / 2, of numbers at most 1000 times as large as x_1 - x_2.
    assert all(abs(size - 1) <= 6 * 1000 * EPS / 2 for size in n["two examples: |x_hat| from, to"])
    assert "2 or more values per channel" in n["the layer says of one"]
    loss = {
        (kind, size): n[f"training loss, batch size {size}, {kind}"]
        for kind in ("no normalization", "batch norm", "batch renormalization")
        for size in (2, 64)
    }
    assert 2 * loss["batch renormalization", 2] < loss["batch norm", 2]
    assert loss["batch norm", 2] > 2 * loss["batch norm", 64]
    # The batch size itself changes little beside what it does to the statistics.
    plain = abs(loss["no normalization", 2] - loss["no normalization", 64])
    assert 10 * plain < loss["batch norm", 2] - loss["batch norm", 64]
    assert loss["no normalization", 2] < loss["batch renormalization", 2]


def recurrent(n):
    nowhere, inputs, inside = (
        n[f"training loss at the best rate, BN {kind}"]
        for kind in ("nowhere", "on inputs", "inside")
    )
    assert 2 * inputs < nowhere and inputs < inside < nowhere  # after four epochs
    assert n["that rate, BN on inputs"] >= n["that rate, BN nowhere"]
    kinds = "nowhere", "on inputs", "inside"
    rates = [n[f"largest rate that learns, BN {kind}"] for kind in kinds]
    assert rates[0] < rates[1] < rates[2]


def whitening(n):
    for kind in ("ZCA", "Cholesky"):
        # The covariance has a condition number of 2,000, which multiplies some 20 roundings.
        assert n[f"correlation, whitening, {kind}"] <= 20 * 2000 * EPS
        assert n[f"steps, whitening, {kind}"] == 1
    for kind in ("batch norm", "integral transform"):
        # Variances 1 and correlation rho: eigenvalues 1 + rho and 1 - rho. A step of the best
        # length multiplies both errors by rho and the loss by rho^2.
        rho = n[f"correlation, {kind}"]
        assert rho > 0.5
        # The integral transform reaches variance 1 only about, within a few percent.
        predicted = math.log(1e-6) / (2 * math.log(rho))
        slack = 0 if kind == "batch norm" else 0.1 * predicted
        assert predicted - slack <= n[f"steps, {kind}"] < predicted + 1 + slack
    assert n["largest |y|, integral transform"] <= math.sqrt(3) < n["largest |y|, batch norm"]
    loss = {name.split(", ")[1]: v for name, v in n.items() if name.startswith("training loss")}
    assert loss["whitening"] > loss["batch norm"]
    assert is_nearer(loss["integral transform"], loss["batch norm"], loss["whitening"])
    assert is_nearer(loss["block whitening"], loss["batch norm"], loss["whitening"])


def normalizer_free(n):
    kept = {kind: n[f"variance kept over the layers, {kind}"] for kind in ("plain", "standardized")}
    assert kept["plain"] < 1 < kept["standardized"]
    kinds = ("plain", "plain, AGC", "standardized", "standardized, AGC", "batch norm")
    at_large_rate = {kind: n[f"loss at rate 0.3, {kind}"] for kind in kinds}
    bounded = at_large_rate["standardized, AGC"]
    assert min(at_large_rate["plain"], at_large_rate["standardized"]) > 2 * bounded
    assert is_nearer(bounded, at_large_rate["batch norm"], at_large_rate["plain, AGC"])
    assert bounded < min(n["loss at rate 0.1, standardized"], n["loss at rate 0.1, plain"])


def gradient_explosion(n):
    depth, width, ratios = 20, 512, 2 * (20 - 10)  # of the fast size
    theories = []
    for B in (8, 16, 32):
        measured, error, theory = n[f"growth, batch {B}: measured, its error, theory"]
        assert abs(measured - theory) < 4 * error < (theory - 1) / 2
        theories.append(theory)
    assert theories == sorted(theories, reverse=True)
    assert theories[-1] > n["theory for an infinite batch"] == math.pi / (math.pi - 1)
    growth = {kind: n[f"growth over {depth - 1} layers, {kind}"] for kind in
              ("BN", "BN, weights x 10", "BN and skips", "no BN")}  # fmt: skip
    # Two sums of 20 logarithms, whose deviation follows from the error of the mean at batch 32.
    deviation = error / measured * math.sqrt(ratios) * math.sqrt(2 * depth)
    assert abs(math.log(growth["BN"] / growth["BN, weights x 10"])) < 4 * deviation
    # The variance over the batch grows by a constant per layer: a power of the depth results.
    assert 1 < growth["BN and skips"] < depth ** n["theory for an infinite batch"] < growth["BN"]
    # Hanin, Rolnick 2018: the logarithm has a variance of 5 depth / width at most.
    assert abs(math.log(growth["no BN"])) < 4 * math.sqrt(5 * depth / width)


def batch_sizes(n):
    one, mini, full = "one example", "64 examples", "all examples"
    epochs, steps, work = (
        {kind: n[f"{unit}, {kind}"] for kind in (one, mini, full)}
        for unit in ("epochs", "steps", "work of 64 lanes")
    )
    assert epochs[one] < epochs[full] and steps[full] < steps[one]
    assert is_nearer(epochs[mini], epochs[one], epochs[full])
    assert is_nearer(steps[mini], steps[full], steps[one])
    assert work[mini] < min(work[one], work[full]) / 2


CLAIMS = {
    "19_covariate_shift": covariate_shift,
    "20_landscape": landscape,
    "21_small_batches": small_batches,
    "23_recurrent": recurrent,
    "24_whitening": whitening,
    "25_normalizer_free": normalizer_free,
    "26_gradient_explosion": gradient_explosion,
    "27_batch_sizes": batch_sizes,
}
