"""What demos 1 to 9, 28 and 29 claim, as assertions on the numbers they print."""

import numpy as np

EPS = float(np.finfo(np.float64).eps)


def scalar_chain(n):
    assert n["nodes"] == 4 and n["edges"] == 4 and n["paths from y to x"] == 2
    # Each way rounds at most 10 times, by eps / 2 of a number near 2.33.
    assert n["largest difference / eps"] <= 2 * 10 * 0.5 * 2.34
    assert n["log2 of the derivative of 50 doublings"] == 50


def chain_rule(n):
    assert n["backward steps"] == 2 * n["forward steps"] - 1 == 9  # one per edge; tanh has one
    assert n["sweeps of forward mode"] == 4
    # About 10 roundings of numbers below 1 in either way.
    assert n["largest difference from the chain rule by hand"] <= 2 * 10 * EPS / 2
    assert n["largest difference from forward mode"] <= 2 * 10 * EPS / 2


def standardization(n):
    assert n["steps saved"] >= 0.95
    for name in ("as measured", "standardized"):
        assert n[f"steps, {name}"] == n[f"steps predicted, {name}"]
    assert n["condition number, as measured"] > 10 * n["condition number, standardized"]


def batch_norm_by_hand(n):
    for name in ("x", "gamma", "beta"):
        assert n[f"largest difference in {name}_bar"] <= 1e-14
    assert n["means of x_hat"] <= 1e-14
    *two, rest = np.split(np.array(n["eigenvalues / inv_std"]), [1, 2])
    rounding = 8 * 8 * EPS  # of sums of 8 in each of the 8 reflections that a solver makes
    assert abs(two[0]) <= rounding and abs(two[1] - n["eps / (var + eps)"]) <= rounding
    assert (abs(rest - 1) <= rounding).all() and len(rest) == 6


def three_ways(n):
    assert n["pairs that agree"] == 9
    assert n["sum(y): nothing"] <= 1e-13 and n["sum(y): no_variance_path"] <= 1e-13
    assert n["sum(y^2) / 2: nothing"] <= 1e-3  # of the order of eps over the variance
    wrong = ("no_variance_path", "statistics_are_constants", "nothing")
    assert all(n[f"sum(W y): {way}"] > 0.05 for way in wrong)
    assert n["sum(W y): right"] <= 1e-14


def graph_of_batch_norm(n):
    assert n["ops of the forward pass"] == 10 and n["edges"] == 15
    assert n["ops to x_bar, derived"] == 30 and n["ops to x_bar, in closed form"] == 17
    assert n["ops of the sweep among them"] == 23
    assert [n[f"cards at depth {depth}"] for depth in (0, 1, 2)] == [4, 7, 13]
    # 30 roundings of numbers below inv_std |g| < 16
    assert n["largest difference"] <= 30 * 16 * EPS
    assert n["the same as x.grad"] is True


def find_the_bug(n):
    assert n["the right one is proven"] is True
    assert n["found by the checker"] == 6
    causes = {
        "variance taken as constant": "missing variance path",
        "mean taken as constant": "missing mean path",
        "gamma forgotten": "factor 1/gamma: gamma is missing",
        "N - 1 in the variance": "factor N/(N - 1) in the variance path",
        "x for x_hat in gamma_bar": "computes sum(y_bar x): x is not normalized",
        "eps forgotten": "eps is missing",
    }
    assert {bug: n[bug] for bug in causes} == causes
    assert len(n["found by differences of sum(y)"]) == 2


def axes(n):
    sizes = {"(N, C)": 4, "(N, C, L)": 20, "(N, C, H, W)": 100, "(N, C, D, H, W)": 200}
    for name, size in sizes.items():
        assert n[f"{name}: inputs of one output"] == size
        assert n[f"{name}: outside its channel"] == 0
    # Two orders of summing 100 numbers of size 3, divided by a standard deviation near 1.
    assert n["images against rows, largest difference"] <= 100 * 3 * EPS
    assert n["one mean per channel: shifted image changes by"] <= 100 * 3 * EPS
    assert n["one mean per pixel: shifted image changes by"] > 0.1


def running_statistics(n):
    error = 4 * n["standard error of that"]
    assert abs(n["running variance / true one, 1/(N-1)"] - 1) < error
    assert abs(n["running variance / true one, 1/N"] - 0.75) < 0.75 * error
    for momentum in (0.1, 0.9):
        words = f"noise of the running mean / noise of a batch mean, momentum {momentum}"
        ratio = n[words] / n[f"in theory, momentum {momentum}"]
        assert abs(ratio - 1) < 4 * n["relative standard error of the noise in 64 channels"]
    assert abs(n["d2l's momentum 0.9 as ours"] - 0.1) <= EPS
    assert n["change of an example's output with its batch, training"] > 0.1
    assert n["change of an example's output with its batch, evaluation"] == 0
    assert "2 or more values per channel" in n["a batch of one, training"]


def higher_derivatives(n):
    for k in (1, 2, 3):
        # The polynomial's own error: 21 values rounded, T_20^(k)(0) <= 20^k over 0.2^k, and
        # max |L| / |derivative| <= 10.
        bound = 10 * 21 * EPS * (20 / 0.2) ** k
        assert n[f"relative error of batch_norm, order {k}"] <= bound
        wrong = n[f"relative error of detached_mean, order {k}"]
        assert wrong <= bound if k == 1 else wrong > 0.1
    if "relative error of torch, order 3" in n:  # a bug of theirs may be mended one day
        assert n["relative error of torch, order 2"] <= 10 * 21 * EPS * 100**2


def your_own_op(n):
    assert n["log cosh is proven"] is True and n["the kernel is proven"] is True
    assert n["the rule from y is proven"] is False
    assert n["error of the third derivative"] <= 20 * EPS  # 20 roundings of numbers below 1


CLAIMS = {
    "01_scalar_chain": scalar_chain,
    "02_chain_rule": chain_rule,
    "03_standardization": standardization,
    "04_batch_norm_by_hand": batch_norm_by_hand,
    "05_three_ways": three_ways,
    "06_graph_of_batch_norm": graph_of_batch_norm,
    "07_find_the_bug": find_the_bug,
    "08_axes": axes,
    "09_running_statistics": running_statistics,
    "28_higher_derivatives": higher_derivatives,
    "29_your_own_op": your_own_op,
}
