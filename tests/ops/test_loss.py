"""Losses beyond the cases of the registry: tails, label dtypes and invalid targets."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import BoundsError, DTypeError, ShapeError

LABELS = {"ints": np.array([1, 0]), "bytes": np.array([1, 0], np.uint8), "bools": [True, False]}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_confident_and_correct_logit_x_costs_exp_of_minus_abs_x(labels, dtype):
    """The loss ln(1 + e^-x) as softplus(x) - x would be 0. Labels do not change the dtype."""
    x = mg.tensor([50.0, -80.0], dtype=dtype, requires_grad=True)
    loss = mg.binary_cross_entropy_with_logits(x, np.asarray(labels))
    loss.backward()
    tail = np.exp(-np.abs(x.numpy().astype(np.float64)))  # ln(1 + e^-50) rounds to e^-50
    rtol = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(loss.item(), tail.mean(), rtol=rtol)
    np.testing.assert_allclose(x.grad.numpy(), tail * [-0.5, 0.5], rtol=rtol)
    assert loss.dtype == x.grad.dtype == dtype


@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False]], ids=str)
@pytest.mark.parametrize("f", [mg.ops.cross_entropy, mg.fused.cross_entropy])
def test_labels_that_are_no_integers_are_refused(f, labels):
    with pytest.raises(DTypeError, match="labels"):
        f(np.zeros((2, 2)), np.array(labels))


@pytest.mark.parametrize(
    "shapes", [((3,), (3,)), ((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 0), (2,))], ids=str
)
@pytest.mark.parametrize("f", [mg.ops.cross_entropy, mg.fused.cross_entropy])
def test_logits_and_labels_of_other_shapes_are_refused(f, shapes):
    logits, labels = shapes
    with pytest.raises(ShapeError, match=r"cross_entropy: shapes\n.*\(N, K\).*\(N,\)\n.*labels"):
        f(np.zeros(logits), np.zeros(labels, int))


@pytest.mark.parametrize(("labels", "got"), [([0, -1], "-1 to 0"), ([3, 1], "1 to 3")], ids=str)
@pytest.mark.parametrize("f", [mg.ops.cross_entropy, mg.fused.cross_entropy])
def test_a_label_out_of_range_is_refused_on_the_host(f, labels, got):
    with pytest.raises(BoundsError, match=rf"cross_entropy: labels\n.*0 to 2\n.* {got}"):
        f(np.zeros((2, 3)), np.array(labels))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_makes_the_loss_nan_on_a_gpu(label, gpu):
    """The index would wrap around."""
    logits = mg.tensor(np.zeros((2, 3)), device="cuda")
    assert np.isnan(mg.ops.cross_entropy(logits, gpu.xp.asarray([0, label])).item())
    assert np.isfinite(mg.ops.cross_entropy(logits, gpu.xp.asarray([0, 2])).item())


@pytest.mark.parametrize(("target", "got"), [([0, 2], "0 to 2"), ([-1, 1], "-1 to 1"),
                                             ([0.5, np.nan], "nan")])  # fmt: skip
def test_a_target_that_is_no_probability_is_refused(target, got):
    with pytest.raises(BoundsError, match=rf"target\n.*0 to 1\n.*{got}"):
        mg.binary_cross_entropy_with_logits(mg.tensor([0.0, 1.0]), np.array(target))


@pytest.mark.parametrize(
    "loss", [mg.mse_loss, mg.l1_loss, mg.binary_cross_entropy_with_logits], ids=lambda f: f.name
)
def test_losses_of_pairs_do_not_broadcast_and_keep_their_dtype(loss):
    with pytest.raises(
        ShapeError, match=rf"{loss.name}: operands\n.*equal shapes\n.*\(2,\).*\(1,\)"
    ):
        loss(mg.tensor([0.5, 0.5]), np.ones(1))
    assert loss(mg.tensor([0.5, 0.5], dtype="float32"), np.array([0, 1])).dtype == "float32"
