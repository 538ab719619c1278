"""Population statistics by formula, and batch norm folded away without a change of the outputs."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.errors import DTypeError, ShapeError, UsageError

LIMIT = 1e-12


def shared(second):
    """A Linear, a batch norm, and as ``second`` the same Linear or one that shares a tensor."""
    linear = nn.Linear(3, 3)
    return nn.Sequential(linear, nn.BatchNorm1d(3), second(linear))


def tied(name):
    def second(linear):
        layer = nn.Linear(3, 3)
        setattr(layer, name, getattr(linear, name))
        return layer

    return second


class Backwards(nn.Sequential):
    def forward(self, x):
        for module in reversed(list(self)):
            x = module(x)
        return x


class Rectified(nn.BatchNorm1d):
    def forward(self, x):
        return mg.relu(super().forward(x))


class Precise(nn.BatchNorm1d):
    def __init__(self, size):
        super().__init__(size, eps=1e-9)


def trained(net, rng, shape):
    """``net`` in evaluation, its statistics and parameters changed from the initial values."""
    for _ in range(5):
        net(mg.tensor(rng.normal(1.0, 2.0, shape)))
    for p in net.parameters():
        if p.ndim == 1:
            p.data = p.numpy() + 0.3 * rng.normal(size=p.shape)
    return net.eval()


# name -> network, shape of its input, number of batch norms that cannot be folded
NETS = {
    "lenet": (lambda: nn.models.lenet(side=8), (6, 1, 8, 8), 0),
    "mlp": (lambda: nn.models.mlp(side=4, sizes=(8, 6)), (6, 1, 4, 4), 0),
    "after the activation": (
        lambda: nn.models.mlp(side=4, sizes=(8,), order="after"),
        (6, 1, 4, 4),
        1,
    ),
    "resnet": (lambda: nn.models.resnet(widths=(3, 4)), (4, 1, 6, 6), 0),
    "rnn": (lambda: nn.models.RowRNN(side=4, hidden=3), (5, 1, 4, 4), 1),
    "conv1d, no bias": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2, bias=False), nn.BatchNorm1d(3, affine=False)),
        (4, 2, 6),
        0,
    ),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 4, 2, groups=2), nn.BatchNorm3d(4)),
               (2, 2, 3, 3, 3), 0),
    "standardized weights are left alone": (
        lambda: nn.Sequential(nn.ScaledWSLinear(4, 3), nn.BatchNorm1d(3)), (5, 4), 1,
    ),
    "a layer that is used again": (lambda: shared(lambda linear: linear), (5, 3), 1),
    "a weight that is used again": (lambda: shared(tied("weight")), (5, 3), 1),
    "a bias that is used again": (lambda: shared(tied("bias")), (5, 3), 1),
    "channels that are not the outputs": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(3)), (6, 3, 4), 1,
    ),
    "another order of the calls": (
        lambda: Backwards(nn.Linear(3, 3), nn.BatchNorm1d(3)), (5, 3), 1,
    ),
    "a net within a net, used twice": (
        lambda: nn.Sequential(*[nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))] * 2), (5, 3), 0,
    ),
    "a forward of its own": (lambda: nn.Sequential(nn.Linear(3, 3), Rectified(3)), (5, 3), 0),
    "a lone layer with a forward of its own": (lambda: Rectified(3), (5, 3), 0),
    "a subclass with other options": (lambda: nn.Sequential(Precise(3)), (5, 3), 1),
    "a lone layer": (lambda: nn.BatchNorm1d(3), (5, 3), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_folded_model_gives_the_outputs_of_the_model_in_evaluation(name, rng):
    make, shape, left_over = NETS[name]
    nn.manual_seed(1)
    net = trained(make(), rng, shape)
    before = {k: v.numpy() for k, v in net.state_dict().items()}
    folded = nn.fold_batch_norm(net)
    x = mg.tensor(rng.normal(1.0, 2.0, shape))
    expected = net(x).numpy()
    assert np.abs(folded(x).numpy() - expected).max() <= LIMIT * np.abs(expected).max()
    kinds = [type(m) for m in folded.modules()]
    assert not {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d} & set(kinds)
    assert kinds.count(nn.ChannelAffine) == left_over
    for k, v in net.state_dict().items():  # the original is untouched
        np.testing.assert_array_equal(v.numpy(), before[k])


def test_a_linear_layer_with_a_folded_batch_norm_refuses_more_axes():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(ShapeError, match=r"folded BatchNorm1d"):
        nn.fold_batch_norm(net)(mg.tensor(np.zeros((2, 3, 3))))


def test_a_batch_norm_without_running_statistics_cannot_be_folded():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(UsageError, match="no running statistics"):
        nn.fold_batch_norm(net)


@pytest.mark.parametrize(
    "use", [nn.fold_batch_norm, lambda net: nn.set_population_statistics(net, [np.eye(3)])]
)
def test_a_lazy_batch_norm_that_was_not_called_has_no_statistics_to_use(use):
    net = nn.Sequential(nn.Linear(3, 2), nn.LazyBatchNorm1d())
    with pytest.raises(UsageError, match=r"LazyBatchNorm1d.* at '1'\n.*one batch first"):
        use(net)
    net(np.eye(3))
    assert not isinstance(use(net)[1], nn.LazyBatchNorm1d)


@pytest.mark.parametrize(
    "use",
    [
        nn.fold_batch_norm,
        lambda f: nn.set_population_statistics(f, [np.eye(3)]),
        lambda f: nn.functional_call(f, {}, np.eye(3)),
    ],
    ids=["fold_batch_norm", "set_population_statistics", "functional_call"],
)
def test_a_function_that_is_no_module_is_refused(use):
    with pytest.raises(DTypeError, match=r"a Module\n"):
        use(lambda x: x)


def test_population_statistics_are_those_of_the_paper(rng):
    """E[x] = E_B[mean_B] and Var[x] = m / (m - 1) E_B[var_B], layer after layer."""
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.BatchNorm1d(2))
    batches = [rng.normal(2.0, 3.0, (5, 3)) for _ in range(4)]
    nn.set_population_statistics(net, [(x, None) for x in batches])
    first, linear, second = net
    np.testing.assert_allclose(first.running_mean, np.mean([x.mean(0) for x in batches], axis=0))
    expected = 5 / 4 * np.mean([x.var(0) for x in batches], axis=0)
    np.testing.assert_allclose(first.running_var, expected)
    hidden = [(x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in batches]
    hidden = [h @ linear.weight.numpy().T + linear.bias.numpy() for h in hidden]
    expected = 5 / 4 * np.mean([h.var(0) for h in hidden], axis=0)
    np.testing.assert_allclose(second.running_var, expected)
    assert not any(m.training for m in net.modules())
    assert first.num_batches_tracked.item() == 0 and first.momentum == 0.1


def test_population_statistics_weigh_batches_with_their_sizes(rng):
    bn = nn.BatchNorm1d(1)
    batches = [rng.normal(size=(n, 1)) for n in (3, 7)]
    nn.set_population_statistics(bn, batches)
    np.testing.assert_allclose(bn.running_mean.numpy(), [np.concatenate(batches).mean()])


def test_population_statistics_need_batches_and_leave_the_model_usable():
    bn = nn.BatchNorm1d(1)
    with pytest.raises(UsageError, match="no batches"):
        nn.set_population_statistics(bn, [])
    assert bn.pooled is None


def test_a_batch_norm_that_no_batch_reaches_is_named_and_nothing_changes():
    class Net(nn.Module):
        def __init__(self):
            self.a, self.spare = nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2))

        def forward(self, x):
            return self.a(x)

    net = Net()
    with pytest.raises(UsageError, match=r"no batch reached 'spare.0'$"):
        nn.set_population_statistics(net, [np.ones((3, 2))])
    np.testing.assert_array_equal(net.a.running_mean, [0.0, 0.0])
    assert net.a.pooled is None


@pytest.mark.parametrize(("unbiased", "var"), [(True, 5.0), (False, 2.5)])
def test_population_statistics_average_the_variance_that_the_layer_keeps(unbiased, var):
    bn = nn.BatchNorm1d(1, unbiased=unbiased)
    nn.set_population_statistics(bn, [np.array([[0.0], [2.0]]), np.array([[4.0], [8.0]])])
    assert bn.running_var.item() == var


# --- conventions ----------------------------------------------------------------------------------


def _theirs(library, batches, momentum):
    """Running statistics as ``library`` computes them, written from its documentation."""
    mean, var = np.zeros(3), np.ones(3)
    for x in batches:
        m = len(x)
        new_mean, new_var = x.mean(0), ((x - x.mean(0)) ** 2).sum(0) / m
        if library in ("pytorch", "chainer"):
            new_var = new_var * m / (m - 1)
        if library == "pytorch":
            mean = (1 - momentum) * mean + momentum * new_mean
            var = (1 - momentum) * var + momentum * new_var
        else:
            mean = momentum * mean + (1 - momentum) * new_mean
            var = momentum * var + (1 - momentum) * new_var
    return mean, var


EPS_OF = {"pytorch": 1e-5, "keras": 1e-3, "chainer": 2e-5, "d2l": 1e-5}
MOMENTUM_OF = {"pytorch": 0.1, "keras": 0.99, "chainer": 0.9, "d2l": 0.9}


@pytest.mark.parametrize("library", nn.CONVENTIONS)
def test_a_converted_layer_trains_and_evaluates_by_the_formulas_of_its_library(library, rng):
    momentum = {"pytorch": 0.2}.get(library, 0.8)
    names = nn.CONVENTIONS[library].names
    gamma, beta = rng.normal(size=3), rng.normal(size=3)
    values = (gamma, beta, np.zeros(3), np.ones(3))
    arrays = {n: v.reshape(1, 3, 1, 1) for n, v in zip(names, values, strict=True)}
    bn = nn.batch_norm_from(library, arrays, momentum=momentum, dims=1)
    assert bn.eps == EPS_OF[library]
    batches = [rng.normal(1.0, 2.0, (5, 3)) for _ in range(4)]
    for x in batches:
        bn(mg.tensor(x))
    mean, var = _theirs(library, batches, momentum)
    np.testing.assert_allclose(bn.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(bn.running_var, var, rtol=1e-12)
    x = rng.normal(size=(2, 3))
    expected = gamma * (x - mean) / np.sqrt(var + EPS_OF[library]) + beta
    np.testing.assert_allclose(bn.eval()(mg.tensor(x)), expected, rtol=1e-12)
    back = nn.batch_norm_to(library, bn)
    assert back["momentum"] == pytest.approx(momentum) and back["eps"] == EPS_OF[library]
    for name, value in zip(names, (gamma, beta, mean, var), strict=True):
        np.testing.assert_allclose(back[name], value, rtol=1e-12)
    back = nn.batch_norm_to(library, nn.batch_norm_from(library, arrays))
    assert back["momentum"] == pytest.approx(MOMENTUM_OF[library], rel=1e-14)


@pytest.mark.parametrize("unbiased", [True, False], ids=["from unbiased", "from biased"])
@pytest.mark.parametrize("library", nn.CONVENTIONS)
def test_the_divisor_is_converted_only_when_the_batch_size_is_known(library, unbiased, rng):
    bn = nn.BatchNorm1d(2, momentum=1.0, unbiased=unbiased)
    x = rng.normal(size=(5, 2))
    bn(mg.tensor(x))
    name = nn.CONVENTIONS[library].names[-1]
    np.testing.assert_array_equal(nn.batch_norm_to(library, bn)[name], bn.running_var)
    expected = x.var(0, ddof=int(library in ("pytorch", "chainer")))
    got = nn.batch_norm_to(library, bn, count=5)[name]
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_unknown_libraries_and_missing_names_are_named():
    with pytest.raises(UsageError, match="pytorch, keras, chainer, d2l"):
        nn.batch_norm_from("caffe", {})
    with pytest.raises(UsageError, match="moving_mean"):
        nn.batch_norm_from("keras", {"gamma": np.ones(1)})
    with pytest.raises(UsageError, match="momentum"):
        nn.batch_norm_to("keras", nn.BatchNorm1d(1, momentum=None))
    with pytest.raises(UsageError, match="batch_norm_from: dims"):
        nn.batch_norm_from("pytorch", {}, dims=4)
    for count in (1, "a", 2.5):
        with pytest.raises(UsageError, match="batch_norm_to: count"):
            nn.batch_norm_to("keras", nn.BatchNorm1d(1), count=count)
    with pytest.raises(UsageError, match=r"expected: a BatchNorm .*\n.*Linear"):
        nn.batch_norm_to("keras", nn.Linear(1, 1))
    with pytest.raises(UsageError, match=r"expected: a mapping .*\n.*None"):
        nn.batch_norm_from("keras", None)


def test_a_layer_is_made_of_integers_too():
    names = nn.CONVENTIONS["keras"].names
    bn = nn.batch_norm_from("keras", {name: np.array([1, 2]) for name in names})
    assert bn.weight.dtype == bn.running_var.dtype == np.float64
    assert bn.running_var.tolist() == [1.0, 2.0]
