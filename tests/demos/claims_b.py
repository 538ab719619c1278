"""What demos 10 to 18 and 22 claim, as assertions on the numbers they print."""

import math

import numpy as np

EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)
CHANCE = 0.1  # of ten classes
FAN_INS = 9 + 6 * 9 + 64 + 120 + 84  # of LeNet's five layers for 8 x 8 images


def lenet_bn(n):
    assert n["least lead in train acc of all epochs"] > CHANCE
    loss, train_acc, _ = n["loss, train acc, test acc of lenet-bn on digits"]
    assert loss < 0.2 * math.log(10) and train_acc > 0.9
    assert n["loss, train acc, test acc of lenet on digits"][1] < 2 * CHANCE
    gamma, beta = (np.array(n[f"{p} of the first batch norm"]) for p in ("gamma", "beta"))
    assert gamma.shape == beta.shape == (6,)
    assert (gamma > 0).all() and abs(gamma - 1).max() > 0.05 and abs(beta).max() > 0.05


def concise(n):
    assert (n["sizes to fill in"], n["sizes still to fill in"]) == (9, 0)
    assert n["features found in 8 x 8 images"] == 16 * 2 * 2
    assert n["features found in 28 x 28 images"] == 16 * 7 * 7
    assert n["largest difference of losses"] == 0
    assert 0 < n["loss of the last epoch"] < math.log(10)


def learning_rates(n):
    for depth in (2, 6):
        without, (smallest, largest) = (
            n[f"smallest and largest rate that trains, depth {depth}, {how} batch norm"]
            for how in ("without", "with")
        )
        assert largest >= 16 * smallest
        assert not without or (smallest <= without[0] and largest >= 4 * without[1])


def initial_weights(n):
    with_bn, without = (
        np.array(n[f"mean test accuracy per scale, {how}"])
        for how in ("with batch norm", "without")
    )
    assert with_bn.shape == (5,) and (without > 0.5).tolist() == [False, False, True, False, False]
    assert n["scales that it learns from, with batch norm"] == 5
    assert n["scales that it learns from, without"] == 1
    assert min(n["lowest, without"]) < 2 * CHANCE


def before_or_after(n):
    small, _, large = (
        {
            name: n[f"training loss, {name}, after, lr 0.125 to 2"][i]
            / n[f"training loss, {name}, before, lr 0.125 to 2"][i]
            for name in ("LeNet, sigmoid", "perceptron, ReLU")
        }
        for i in range(3)
    )
    assert small["LeNet, sigmoid"] < 0.5 and large["LeNet, sigmoid"] > 2
    assert small["LeNet, sigmoid"] < small["perceptron, ReLU"] < 1  # "the same, but faintly"
    assert large["LeNet, sigmoid"] > large["perceptron, ReLU"]
    # The integral of sigmoid^2 over N(0, 1), less 1/4, is 0.04338; 100,000 draws are 0.5 % off.
    assert abs(n["variance of the sigmoid of N(0, 1)"] - 0.04338) < 0.02 * 0.04338


def every_layer(n):
    def accuracy(name):
        return n[f"training accuracy, {name}"]

    for name in ("none", "conv 6", "conv 16", "both convolutions"):
        assert accuracy(name) < 2 * CHANCE
    assert accuracy("linear 84") > 5 * CHANCE
    # A difference of two shares of 1,437 images has a standard deviation below 0.019.
    assert abs(accuracy("both linear layers") - accuracy("all four")) < 3 * 0.019
    assert accuracy("all, mean only") < 2 * CHANCE and accuracy("all, deviation only") < 2 * CHANCE
    assert abs(accuracy("all, gamma and beta fixed") - accuracy("all four")) < 0.05


def dropout(n):
    wrong = n["wrong labels of 200"]
    assert 40 < wrong < 80  # 30 % of 200, within 3 standard deviations
    by_heart, right = (
        {name: n[f"{what}, {name}"] for name in ("none", "dropout", "batch norm", "both")}
        for what in ("wrong labels learned by heart", "test accuracy")
    )
    assert by_heart["batch norm"] > 0.9 and by_heart["dropout"] < 0.5
    # A difference of two shares of 360 test images has a standard deviation below 0.035.
    assert right["dropout"] - right["batch norm"] > 3 * 0.035
    shift = {name: n[f"variance in evaluation / running variance, {name}"] for name in by_heart
             if name in ("batch norm", "both")}  # fmt: skip
    assert shift["both"] < 0.8 < shift["batch norm"] < 1.2


def dead_bias(n):
    assert n["gradient of b, nothing rounded"] == [0, 0]
    assert np.any(n["gradient of W, nothing rounded"])
    live = n["largest gradient of the last bias"]
    summands = 256 * 64  # that cancel in the gradient of a convolution's bias
    assert n["largest gradient of the four dead biases"] <= summands * EPS * live
    assert n["smallest of the layers' largest weight gradients"] > 1e-3 * live
    steps = math.ceil(1437 / 64)
    assert n["largest movement of a dead bias in training"] <= steps * 0.5 * summands * EPS * live
    assert n["parameters removed"] == 6 + 16 + 120 + 84
    assert n["largest change of a logit"] <= FAN_INS * EPS * n["largest logit"]


def scale_invariance(n):
    assert n["change of the loss, W -> 8 W"] == 0
    assert n["largest |8 grad(8 W) - grad(W)|"] == 0
    weights = 32 * 64  # summands of a dot product
    assert abs(n["cosine of W and its gradient"]) <= weights * EPS
    slopes = {
        name: n[f"slope of log |grad| over log a, {name}"]
        for name in ("eps = 0", "eps = 1e-5", "no batch norm")
    }
    assert abs(slopes["eps = 0"] + 1) <= weights * EPS  # over 18 nats
    assert -0.95 < slopes["eps = 1e-5"] < -0.5 and abs(slopes["no batch norm"]) < 0.5
    grown, expected = n["|W|^2 after training / before"], n["the same by Pythagoras"]
    assert grown > 1.001 and abs(grown - expected) <= 20 * weights * EPS  # 20 steps
    assert n["largest difference of losses, (W, lr) against (4 W, 16 lr)"] == 0


def folding(n):
    assert n["operations folded"] == n["operations of the twin without batch norm"]
    assert n["operations with batch norm"] > n["operations folded"]
    differ = [
        n[f"largest |difference of logits| / largest |logit|, {dtype}"]
        for dtype in ("float32", "float64")
    ]
    assert differ[0] <= FAN_INS * EPS32 and differ[1] <= FAN_INS * EPS
    assert n["same answers of 360, float32"] == n["same answers of 360, float64"] == 360


CLAIMS = {
    "10_lenet_bn": lenet_bn,
    "11_concise": concise,
    "12_learning_rates": learning_rates,
    "13_initial_weights": initial_weights,
    "14_before_or_after": before_or_after,
    "15_every_layer": every_layer,
    "16_dropout": dropout,
    "17_dead_bias": dead_bias,
    "18_scale_invariance": scale_invariance,
    "22_folding": folding,
}
