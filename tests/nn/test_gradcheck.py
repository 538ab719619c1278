"""The gradient checker proves every layer and loss, and leaves their state unchanged."""

import numpy as np
import pytest
from layer_zoo import ZOO, in_modes, pinned

import minigrad as mg
from minigrad import nn
from minigrad.errors import UsageError


def state_of(layer):
    return {name: value.numpy().tobytes() for name, value in layer.state_dict().items()}


def size(specimen):
    parameters = sum(p.size for p in specimen.layer().parameters())
    return int(np.prod(specimen.shape)) + parameters


# whole models have too many elements for full Jacobians; test_gradients covers them by directions
LAYERS = [s for s in ZOO if size(s) <= 250]


def test_only_whole_models_are_left_to_the_directional_test():
    assert {s.name for s in ZOO if s not in LAYERS} <= {"LeNet", "ResidualBlock", "RowRNN"}


@in_modes(LAYERS)
def test_the_checker_proves_every_layer_and_leaves_no_trace(specimen, training, rng):
    layer, x = specimen.layer().train(training), specimen.x(rng)
    pinned(layer, x)
    names = [name for name, _ in layer.named_parameters()]
    values = [p.numpy() for p in layer.parameters()]
    before = state_of(layer)

    def f(x, *params):
        return nn.functional_call(layer, dict(zip(names, params, strict=True)), x)

    with nn.frozen_statistics():
        report = mg.verify.gradcheck(f, [x, *values], names=["x", *names])
    report.raise_if_failed()
    assert state_of(layer) == before


@pytest.mark.parametrize("name", ["BatchNorm1d", "LayerNorm"])
def test_the_checker_proves_second_order(name, rng):
    specimen = next(s for s in ZOO if s.name == name)
    layer, x = specimen.layer(), specimen.x(rng)
    with nn.frozen_statistics():
        mg.verify.gradcheck(lambda x: mg.sin(layer(x)), [x], order=2).raise_if_failed()


def test_the_checker_leaves_running_statistics_alone_by_itself(rng):
    layer = nn.BatchNorm1d(2)
    layer(mg.tensor(rng.normal(size=(5, 2))))
    before = state_of(layer)
    mg.verify.gradcheck(layer, [rng.normal(size=(5, 2))]).raise_if_failed()
    assert state_of(layer) == before


@pytest.mark.parametrize("loss", ["BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss"])
def test_the_checker_proves_every_loss(loss, rng):
    target = rng.integers(0, 4, 5) if loss.startswith("Cross") else rng.random((5, 4))
    f = getattr(nn, loss)()
    report = mg.verify.gradcheck(lambda x: f(x, target), [rng.normal(size=(5, 4))], order=2)
    report.raise_if_failed()


def test_a_functional_call_restores_the_module_and_names_what_is_not_there():
    layer = nn.Linear(2, 1)
    own = layer.weight
    y = nn.functional_call(layer, {"weight": np.ones((1, 2))}, mg.tensor([[1.0, 2.0]]))
    assert y.item() == pytest.approx(3.0 + layer.bias.item()) and layer.weight is own
    with pytest.raises(UsageError, match=r"'a\.weight'"):
        nn.functional_call(layer, {"a.weight": own}, mg.tensor([[1.0, 2.0]]))
    for bad in (None, np.ones((1, 2)), [own]):
        with pytest.raises(UsageError, match="functional_call: state"):
            nn.functional_call(layer, bad, mg.tensor([[1.0, 2.0]]))
    with pytest.raises(UsageError, match="'wieght'"):
        nn.functional_call(layer, {"weight": 0.0 * own, "wieght": own}, mg.tensor([[1.0, 2.0]]))
    assert layer.weight is own


@pytest.mark.parametrize("training", [True, False])
def test_a_functional_call_takes_arrays_for_buffers_and_leaves_those_of_the_module(training, rng):
    norm = nn.BatchNorm1d(3).train(training)
    state = {name: rng.random(3) + 0.5 for name in ("running_mean", "running_var")}
    x = rng.normal(size=(4, 3))
    y = nn.functional_call(norm, state, x)
    own = nn.BatchNorm1d(3).train(training)
    own.load_state_dict(state, strict=False)
    np.testing.assert_array_equal(y, own(x))
    assert norm.running_mean.numpy().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("share", ["tensor", "layer"])
def test_a_functional_call_replaces_a_shared_weight_wherever_it_is(share, rng):
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    net = nn.Sequential(first, nn.Tanh(), second if share == "tensor" else first)
    x, y_bar = rng.normal(size=(2, 4, 3))

    def f(w, **others):
        return (nn.functional_call(net, {"0.weight": w, **others}, x) * y_bar).sum()

    w = mg.tensor(rng.normal(size=(3, 3)))
    direct = first.weight
    direct.data = w
    (net(mg.tensor(x)) * y_bar).sum().backward()
    np.testing.assert_array_equal(mg.grad(f)(w), direct.grad)
    assert net[0].weight is net[2].weight is direct
    if share == "tensor":  # if both paths are named, each gets its own value
        hidden = np.tanh(x @ (2 * w.numpy()).T)
        both = f(2.0 * w, **{"2.weight": w}).item()
        assert both == pytest.approx(((hidden @ w.numpy().T) * y_bar).sum(), rel=1e-13)


def test_the_checker_leaves_a_lazy_net_with_the_parameters_its_first_call_made(rng):
    def net():
        return nn.Sequential(nn.LazyLinear(3, rng=0), nn.Tanh(), nn.LazyLinear(1, rng=1))

    x, checked, called = rng.normal(size=(4, 2)), net(), net()
    assert mg.verify.gradcheck(checked, [x]).ok
    called(mg.tensor(x))
    assert state_of(checked) == state_of(called)


@pytest.mark.parametrize("specimen", ZOO, ids=repr)
def test_an_empty_batch_passes_in_evaluation(specimen, rng):
    x = specimen.x(rng)
    y = specimen.layer().eval()(mg.tensor(x[:0], requires_grad=x.dtype.kind == "f"))
    assert y.shape == (0, *specimen.layer().eval()(x).shape[1:])
