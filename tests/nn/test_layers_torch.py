"""Every layer that PyTorch has, on the same weights, in float64: values, gradients, statistics."""

import inspect
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings from the import of another package
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
tn = torch.nn
LIMIT = 1e-12  # relative to the largest element: some 4,000 units in the last place of float64

IMAGES, SIGNALS, VOLUMES = (3, 4, 6, 5), (4, 4, 7), (2, 4, 4, 3, 5)
BOTH = {"stride": 2, "padding": 1, "dilation": 2}
PAIRS = {
    "linear": (lambda m: m.Linear(5, 3), (4, 5)),
    "linear of sequences": (lambda m: m.Linear(5, 3, bias=False), (2, 4, 5)),
    "conv1d": (lambda m: m.Conv1d(4, 6, 2, **BOTH), SIGNALS),
    "conv2d": (lambda m: m.Conv2d(4, 6, (2, 3), **BOTH), IMAGES),
    "conv2d groups": (lambda m: m.Conv2d(4, 6, 3, padding=(0, 2), groups=2, bias=False), IMAGES),
    "conv2d depthwise": (lambda m: m.Conv2d(4, 8, 3, stride=(2, 1), groups=4), IMAGES),
    "conv2d 1x1": (lambda m: m.Conv2d(4, 3, 1), IMAGES),
    "conv3d": (lambda m: m.Conv3d(4, 2, (2, 3, 2), padding=(1, 0, 2), groups=2), VOLUMES),
    "max_pool": (lambda m: m.MaxPool2d(2), IMAGES),
    "max_pool overlapping": (lambda m: m.MaxPool2d((3, 2), 1, (1, 0), 2), IMAGES),
    "avg_pool": (lambda m: m.AvgPool2d(3, 2, 1), IMAGES),
    "flatten": (lambda m: m.Flatten(), IMAGES),
    "relu": (lambda m: m.ReLU(), IMAGES),
    "leaky_relu": (lambda m: m.LeakyReLU(0.2), IMAGES),
    "elu": (lambda m: m.ELU(0.7), IMAGES),
    "gelu": (lambda m: m.GELU(), IMAGES),
    "sigmoid": (lambda m: m.Sigmoid(), IMAGES),
    "tanh": (lambda m: m.Tanh(), IMAGES),
    "softplus": (lambda m: m.Softplus(), IMAGES),
    "softmax": (lambda m: m.Softmax(dim=1), IMAGES),
    "batch_norm1d": (lambda m: m.BatchNorm1d(5), (6, 5)),
    "batch_norm1d of signals": (lambda m: m.BatchNorm1d(4, momentum=None), SIGNALS),
    "batch_norm2d": (lambda m: m.BatchNorm2d(4, eps=1e-3, momentum=0.3), IMAGES),
    "batch_norm2d no affine": (lambda m: m.BatchNorm2d(4, affine=False), IMAGES),
    "batch_norm2d untracked": (lambda m: m.BatchNorm2d(4, track_running_stats=False), IMAGES),
    "batch_norm3d": (lambda m: m.BatchNorm3d(4), VOLUMES),
    "layer_norm": (lambda m: m.LayerNorm((6, 5)), IMAGES),
    "layer_norm no affine": (lambda m: m.LayerNorm(5, elementwise_affine=False), IMAGES),
    "group_norm": (lambda m: m.GroupNorm(2, 4), IMAGES),
    "instance_norm1d": (lambda m: m.InstanceNorm1d(4), SIGNALS),
    "instance_norm2d": (
        lambda m: m.InstanceNorm2d(4, affine=True, track_running_stats=True),
        IMAGES,
    ),
    "instance_norm3d": (lambda m: m.InstanceNorm3d(4), VOLUMES),
    "rnn_cell": (lambda m: m.RNNCell(5, 3), (4, 5)),
    "rnn_cell relu": (lambda m: m.RNNCell(5, 3, nonlinearity="relu"), (4, 5)),
}


def numpy_of(t):
    return t.detach().numpy()


def agree(got, expected, what):
    assert got.shape == expected.shape, what
    scale = max(np.abs(expected).max(initial=0), 1e-3)
    error = np.abs(got - expected).max(initial=0) / scale
    assert error <= LIMIT, (what, error)


def twins(make, rng):
    """The layer here and there, with the same random parameters."""
    ours, theirs = make(nn), make(tn).double()
    state = {}
    for name, value in theirs.state_dict().items():
        random = rng.normal(size=tuple(value.shape))
        state[name] = np.exp(random) if "var" in name else random
        if name.endswith("num_batches_tracked"):
            state[name] = value.numpy()
    theirs.load_state_dict({k: torch.as_tensor(v) for k, v in state.items()})
    ours.load_state_dict(state)
    return ours, theirs


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PAIRS)
def test_layer_equals_torch(name, training, rng):
    make, shape = PAIRS[name]
    ours, theirs = twins(make, rng)
    ours.train(training), theirs.train(training)
    for _ in range(5 if training else 1):
        array = rng.normal(1.0, 2.0, shape)
        x = mg.tensor(array, requires_grad=True)
        t = torch.tensor(array, requires_grad=True)
        y, expected = ours(x), theirs(t)
        agree(y.numpy(), numpy_of(expected), "value")
        seed = rng.normal(size=y.shape)
        ours.zero_grad(), theirs.zero_grad()
        y.backward(seed), expected.backward(torch.tensor(seed))
        agree(x.grad.numpy(), numpy_of(t.grad), "x_bar")
        for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            agree(p.grad.numpy(), numpy_of(q.grad), key)
    for key, value in theirs.state_dict().items():
        if not (key == "num_batches_tracked" and "instance" in name):  # there it never counts
            agree(ours.state_dict()[key].numpy(), numpy_of(value), key)


@pytest.mark.parametrize("loss", ["BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss"])
def test_loss_equals_torch(loss, rng):
    x = rng.normal(size=(6, 4))
    target = rng.integers(0, 4, 6) if loss.startswith("Cross") else rng.random((6, 4))
    ours, gradient = mg.value_and_grad(lambda z: getattr(nn, loss)()(z, target))(x)
    t = torch.tensor(x, requires_grad=True)
    theirs = getattr(tn, loss)()(t, torch.tensor(target))
    theirs.backward()
    agree(ours.numpy(), numpy_of(theirs), "value")
    agree(gradient.numpy(), numpy_of(t.grad), "gradient")


_KNOWN = {("Softmax", "dim"), ("ModuleList", "modules")}  # other defaults, or spelt otherwise


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(nn, tn), (nn.init, tn.init), (mg.optim, torch.optim), (mg.optim, torch.optim.lr_scheduler)],
    ids=["nn", "init", "optim", "lr_scheduler"],
)
def test_options_have_the_defaults_of_torch(ours, theirs):
    compared = 0
    for name in sorted({*vars(ours)} & {*vars(theirs)} - {"Tensor"}):
        if name.startswith("_") or not callable(getattr(ours, name)):
            continue
        words = inspect.signature(getattr(theirs, name)).parameters
        for key, word in inspect.signature(getattr(ours, name)).parameters.items():
            if key in words and word.default is not word.empty and (name, key) not in _KNOWN:
                assert key == "dtype" or word.default == words[key].default, (name, key)
                compared += 1
    assert compared


def test_embedding_equals_torch(rng):
    ours, theirs = twins(lambda m: m.Embedding(7, 3), rng)
    indices = rng.integers(0, 7, (4, 5))
    y, expected = ours(indices), theirs(torch.tensor(indices))
    agree(y.numpy(), numpy_of(expected), "value")
    seed = rng.normal(size=y.shape)
    y.backward(seed), expected.backward(torch.tensor(seed))
    agree(ours.weight.grad.numpy(), numpy_of(theirs.weight.grad), "weight")


def test_rnn_without_batch_norm_equals_torch(rng):
    ours, theirs = nn.RNN(5, 3), tn.RNN(5, 3, batch_first=True).double()
    state = {k: numpy_of(v) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(
        {
            "weight_ih": state["weight_ih_l0"],
            "weight_hh": state["weight_hh_l0"],
            "bias": state["bias_ih_l0"] + state["bias_hh_l0"],
        }
    )
    x = rng.normal(size=(2, 6, 5))
    (h, last), (expected, expected_last) = ours(mg.tensor(x)), theirs(torch.tensor(x))
    agree(h.numpy(), numpy_of(expected), "states")
    agree(last.numpy(), numpy_of(expected_last)[0], "last state")


def test_whole_lenet_equals_torch_over_five_steps(rng):
    ours = nn.models.lenet_bn(rng=1)
    theirs = tn.Sequential(
        tn.Conv2d(1, 6, 5), tn.BatchNorm2d(6), tn.Sigmoid(), tn.MaxPool2d(2),
        tn.Conv2d(6, 16, 5), tn.BatchNorm2d(16), tn.Sigmoid(), tn.MaxPool2d(2), tn.Flatten(),
        tn.Linear(256, 120), tn.BatchNorm1d(120), tn.Sigmoid(),
        tn.Linear(120, 84), tn.BatchNorm1d(84), tn.Sigmoid(), tn.Linear(84, 10),
    ).double()  # fmt: skip
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    here = mg.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    there = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        x, labels = rng.random((8, 1, 28, 28)), rng.integers(0, 10, 8)
        here.zero_grad(), there.zero_grad()
        loss = mg.ops.cross_entropy(ours(mg.tensor(x)), labels)
        expected = tn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels))
        loss.backward(), expected.backward()
        here.step(), there.step()
    for key, value in theirs.state_dict().items():
        # each step amplifies the rounding of the steps before it: a hundredfold over five
        np.testing.assert_allclose(
            ours.state_dict()[key].numpy(), numpy_of(value), rtol=1e-10, atol=1e-10
        )


def test_labels_and_indices_may_be_tensors_of_torch():
    labels = np.array([2, 0, 1])
    table, loss = nn.Embedding(3, 4, rng=0), nn.CrossEntropyLoss()
    expected = table(labels)
    got = table(torch.tensor(labels))
    np.testing.assert_array_equal(got.data, expected.data)
    assert loss(got, torch.tensor(labels)).item() == loss(expected, labels).item()


OTHERS = {
    "dropout": (lambda m: m.Dropout(0.5, rng=0), (4, 5)),
    "probability integral norm": (lambda m: m.ProbabilityIntegralNorm1d(5), (6, 5)),
    "whitening": (lambda m: m.Whitening1d(3), (6, 3)),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", [*PAIRS, *OTHERS])
def test_a_layer_takes_a_tensor_of_torch_for_an_array(name, training, rng):
    make, shape = (PAIRS | OTHERS)[name]
    x = rng.normal(size=shape)
    results = []
    for each in x, torch.tensor(x):
        nn.manual_seed(0)
        results.append(make(nn).train(training)(each))
    np.testing.assert_array_equal(*results)
