"""Module: what is registered, saved, loaded, moved, shown."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.errors import DTypeError, GraphError, OverwrittenError, ShapeError, UsageError


class Net(nn.Module):
    def __init__(self):
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.scale = mg.tensor(2.0, requires_grad=True)
        self.remark = "not a part"

    def forward(self, x):
        return self.scale * self.norm(self.first(x))


KEYS = ["scale", "first.weight", "first.bias", "norm.weight", "norm.bias", "norm.running_mean",
        "norm.running_var", "norm.num_batches_tracked"]  # fmt: skip


def test_parameters_buffers_and_modules_have_paths():
    net = Net()
    assert list(net.state_dict()) == KEYS
    assert [n for n, _ in net.named_parameters()] == KEYS[:5]
    assert [n for n, _ in net.named_buffers()] == KEYS[5:]
    assert [n for n, _ in net.named_modules()] == ["", "first", "norm"]
    assert list(net.children()) == [net.first, net.norm]


def test_every_layer_says_which_arguments_it_takes_and_refuses_others_at_once():
    layers = [v for k, v in vars(nn).items() if inspect.isclass(v) and issubclass(v, nn.Module)]
    assert len(layers) > 40
    for layer in layers:
        parameters = inspect.signature(layer).parameters
        assert not {"args", "kwargs"} & {*parameters}, layer
        with pytest.raises(TypeError):
            layer(inplace=True)


def test_results_and_constants_are_no_parameters():
    net = Net()
    net.last = net.scale * 2.0
    net.constant = mg.tensor(1.0)
    net.first.bias = None
    assert list(net.state_dict()) == [k for k in KEYS if k != "first.bias"]


@pytest.mark.parametrize(
    ("name", "replace"),
    [
        ("scale", lambda scale: scale * 2.0),
        ("scale", lambda scale: np.ones(())),
        ("buffer", lambda buffer: np.ones(2)),
        ("first", lambda first: mg.relu),
    ],
)
def test_what_would_not_be_saved_cannot_replace_what_is(name, replace):
    net = Net()
    net.register_buffer("buffer", np.zeros(2))
    before = list(net.state_dict())
    kind = {"scale": "parameter", "buffer": "buffer", "first": "submodule"}[name]
    with pytest.raises(TypeError, match=f"Net: assignment to the {kind} '{name}'"):
        setattr(net, name, replace(getattr(net, name)))
    assert list(net.state_dict()) == before


def test_a_part_of_another_kind_may_take_a_name():
    net = Net()
    net.scale = nn.Linear(2, 1)
    assert "scale.weight" in net.state_dict() and "scale" not in net.state_dict()
    net.scale = mg.tensor(2.0, requires_grad=True)
    assert "scale" in net.state_dict() and "scale.weight" not in net.state_dict()


def test_a_path_too_few_or_too_many_is_refused_unless_not_strict():
    state = nn.Linear(2, 1).state_dict()
    for wrong in ({"weight": state["weight"]}, {**state, "more": state["bias"]}):
        with pytest.raises(UsageError, match=r"missing \[.*\], unexpected \[.*\]"):
            nn.Linear(2, 1).load_state_dict(wrong)
        nn.Linear(2, 1).load_state_dict(wrong, strict=False)


@pytest.mark.parametrize("name", ["forward", "training", "first", "scale", "remark", "a.b", ""])
def test_a_buffer_has_a_name_of_its_own(name):
    net = Net()
    with pytest.raises(UsageError, match=f"Net.register_buffer: name\n.*\n.*'{name}'"):
        net.register_buffer(name, np.zeros(2))
    assert list(net.state_dict()) == KEYS
    for _ in range(2):
        net.register_buffer("own", np.zeros(2))
    assert next(iter(net.buffers())) is net.own


def test_an_assignment_that_fails_leaves_the_module_as_it_was():
    class Derived(Net):
        double = property(lambda self: self.scale * 2.0)

    net = Derived()
    with pytest.raises(DTypeError, match="real numbers"):
        net.register_buffer("label", "three")
    with pytest.raises(AttributeError, match="no setter"):
        net.double = mg.tensor(2.0, requires_grad=True)
    assert list(net.state_dict()) == KEYS


@pytest.mark.parametrize("mode", ["no", 0, None], ids=repr)
def test_a_mode_is_true_or_false(mode):
    net = Net().eval()
    with pytest.raises(UsageError, match=r"Net.train: mode\n.*True or False"):
        net.train(mode)
    assert not net.training and net.train(np.True_).training is True


def test_no_module_is_a_part_of_itself():
    net = Net()
    outer = nn.Sequential(net)
    for part in (net, outer):
        with pytest.raises(UsageError, match="Net: assignment of a submodule"):
            net.part = part
    assert list(net.state_dict()) == KEYS


def test_a_constant_in_the_place_of_a_parameter_is_a_frozen_one():
    net = Net()
    before = list(net.state_dict())
    net.scale = mg.tensor(7.0)
    assert list(net.state_dict()) == before
    assert net.state_dict()["scale"] == 7.0 and not net.scale.requires_grad


def test_parts_are_replaced_by_their_like_and_frozen_ones_stay():
    net = Net()
    net.scale = mg.tensor(3.0, requires_grad=True)
    net.norm.running_mean = mg.tensor(np.ones(4))
    net.first = nn.Linear(3, 4).requires_grad_(False)
    net.first.weight = net.first.weight
    assert sorted(net.state_dict()) == sorted(KEYS)
    del net.first
    delattr(net, "scale")
    assert list(net.state_dict()) == KEYS[3:]
    with pytest.raises(AttributeError):
        del net.scale


def test_a_shared_module_is_trained_once_and_saved_under_both_paths():
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(list(net.parameters())) == 2
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    norm = nn.BatchNorm1d(2)
    assert len(list(nn.Sequential(norm, norm).buffers())) == 3
    other = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    other.load_state_dict(net.state_dict())
    x = mg.tensor([[1.0, -2.0]])
    np.testing.assert_array_equal(other(x).numpy(), net(x).numpy())


def test_a_parameter_of_two_modules_is_listed_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]


def test_a_part_that_is_shared_at_many_levels_is_visited_once():
    net = nn.Linear(2, 3)
    parts = [net]
    for _ in range(40):  # 2 ** 40 paths
        net = nn.Sequential(net, net)
        parts.append(net)
    assert list(net.modules()) == parts[::-1]
    names = [name for name, _ in net.named_parameters()]
    assert names == ["0." * 40 + "weight", "0." * 40 + "bias"]
    assert list(net.buffers()) == []
    net.eval().requires_grad_(False).to(dtype="float32").zero_grad()


@pytest.mark.parametrize("part", [mg.relu, None, nn.ReLU, [nn.ReLU()], np.ones(2)], ids=repr)
def test_what_is_no_module_is_no_part_of_a_container(part):
    with pytest.raises(DTypeError, match="Sequential: part 1"):
        nn.Sequential(nn.Linear(2, 3), part)
    with pytest.raises(TypeError, match="ModuleList: part 0"):
        nn.ModuleList().append(part)


def test_containers_are_sliced_and_assigned_like_lists(rng):
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    x = mg.tensor(rng.normal(size=(4, 2)))
    np.testing.assert_array_equal(net[1:](net[:1](x)), net(x))
    assert list(net[1:].state_dict()) == ["2.weight", "2.bias"]
    net[-2] = nn.Tanh()
    assert [type(m) for m in net] == [nn.Linear, nn.Tanh, nn.Linear]
    with pytest.raises(DTypeError, match="part 1"):
        net[1] = None
    with pytest.raises(UsageError, match=r"assignment of parts\n.*an index\n.*slice\(0, 1"):
        net[0:1] = [nn.ReLU()]
    rest = nn.ModuleList(net)[1:]
    rest.append(nn.ReLU())
    assert [type(m) for m in rest] == [nn.Tanh, nn.Linear, nn.ReLU]
    assert type(rest) is nn.ModuleList


def test_parts_are_deleted_as_in_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for key in (0, -1, slice(1, None, 2), slice(0, 0)):
        ours, theirs = (
            n.Sequential(n.Linear(2, 3), n.ReLU(), n.Linear(3, 1), n.Tanh())
            for n in (nn, torch.nn)
        )  # fmt: skip
        del ours[key], theirs[key]
        assert [type(m).__name__ for m in ours] == [type(m).__name__ for m in theirs]
        assert list(ours.state_dict()) == list(theirs.state_dict())
    with pytest.raises(IndexError):
        del ours[4]
    assert len(ours) == 4


def test_train_and_eval_reach_every_module():
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    assert net.train().norm.training


def test_a_state_dict_is_a_snapshot():
    net = Net()
    before = net.state_dict()
    old = before["scale"].item()
    net.scale.data = 7.0
    assert before["scale"].item() == old


def test_loading_names_all_missing_and_unexpected_keys_and_changes_nothing():
    net, other = Net(), Net()
    state = other.state_dict()
    del state["first.bias"], state["norm.running_var"]
    state["first.bais"] = np.zeros(4)
    before = net.first.weight.numpy()
    with pytest.raises(UsageError) as caught:
        net.load_state_dict(state)
    for name in ("first.bias", "norm.running_var", "first.bais", "8 keys"):
        assert name in str(caught.value)
    np.testing.assert_array_equal(net.first.weight.numpy(), before)
    net.load_state_dict(state_dict=state, strict=False)
    np.testing.assert_array_equal(net.first.weight.numpy(), other.first.weight.numpy())


def test_loading_names_all_wrong_shapes_and_changes_nothing():
    net = Net()
    state = {k: v.numpy() + 1 for k, v in net.state_dict().items()}
    state["first.weight"], state["norm.bias"] = np.zeros((4, 2)), np.zeros(3)
    before = net.scale.item()
    with pytest.raises(ShapeError) as caught:
        net.load_state_dict(state)
    for text in ("first.weight (4, 3)", "first.weight (4, 2)", "norm.bias (3,)"):
        assert text in str(caught.value)
    assert net.scale.item() == before


@pytest.mark.parametrize(
    "bad", [np.nan, -np.inf, 1e30, np.float32(-1e20), 2.0**63, np.uint64(2**63)], ids=repr
)
def test_loading_what_no_count_can_be_is_refused_and_changes_nothing(bad):
    net = Net()
    state = {k: v.numpy() + 1.0 for k, v in net.state_dict().items()}
    net.load_state_dict(state)  # whole numbers may come as floats
    assert net.norm.num_batches_tracked.item() == 1
    before = net.scale.item()
    state = {k: v + 1 for k, v in state.items()} | {"norm.num_batches_tracked": bad}
    with pytest.raises(DTypeError, match=r"norm.num_batches_tracked\n.*int64"):
        net.load_state_dict(state)
    assert net.scale.item() == before


@pytest.mark.parametrize(
    "count",
    [True, np.float16(7), -(2**63), 2**63 - 1, np.uint64(2**63 - 1), -(2.0**63), 2.0**63 - 1024],
    ids=repr,
)
def test_a_count_may_be_any_number_that_fits(count):
    layer = nn.BatchNorm1d(1)
    layer.load_state_dict({"num_batches_tracked": count}, strict=False)
    assert layer.num_batches_tracked.item() == int(count)


def test_loading_names_all_buffers_that_hold_a_result_and_changes_nothing():
    class Sums(nn.Module):
        def __init__(self):
            self.w = mg.tensor(1.0, requires_grad=True)
            self.register_buffer("h", 0.0)

        def forward(self, x):
            self.h = self.h + self.w * x
            return self.h

    net = nn.Sequential(Sums(), Sums())
    state = {k: v.numpy() + 5 for k, v in net.state_dict().items()}
    net(2.0)
    with pytest.raises(GraphError, match=r"Sequential.load_state_dict(.|\n)*0\.h, 1\.h"):
        net.load_state_dict(state)
    assert [p.item() for p in net.parameters()] == [1.0, 1.0]


def test_loading_keeps_the_dtype_of_the_module():
    net = nn.Linear(2, 1).to(dtype="float32")
    net.load_state_dict({"weight": [[1.0, 2.0]], "bias": [3.0]})
    assert net.weight.dtype == np.float32


def test_to_casts_floating_state_and_keeps_the_tensors():
    net = Net()
    weight = net.first.weight
    net.to("cpu", "float32")
    assert net.first.weight is weight and weight.dtype == np.float32 and weight.requires_grad
    assert net.norm.num_batches_tracked.dtype == np.int64
    x = mg.tensor(np.ones((4, 3)), dtype="float32")
    assert net(x).dtype == np.float32


def test_to_carries_gradients_along_and_graphs_of_old_values_refuse_to_be_swept(rng):
    net = nn.Linear(3, 2)
    loss = (net(mg.tensor(rng.normal(size=(4, 3)))) * rng.normal(size=(4, 2))).sum()
    loss.backward()
    grad, node = net.weight.grad.numpy(), net.weight.node
    assert net.to("cpu").to(dtype="float64").weight.node is node
    loss.backward()
    np.testing.assert_array_equal(net.weight.grad, 2 * grad)
    net.to(dtype="float32")
    assert net.weight.grad.dtype == np.float32
    np.testing.assert_array_equal(net.weight.grad, (2 * grad).astype("float32"))
    with pytest.raises(OverwrittenError, match="weight"):
        loss.backward()


@pytest.mark.parametrize("dtype", ["int8", bool, "complex128", "foo"], ids=repr)
def test_to_refuses_what_is_no_floating_dtype_and_changes_nothing(dtype):
    net = nn.Linear(3, 2)
    before = net.weight.numpy()
    with pytest.raises(DTypeError, match="a floating dtype"):
        net.to(dtype=dtype)
    np.testing.assert_array_equal(net.weight.numpy(), before)


def test_a_module_can_be_copied_and_pickled():
    net = Net()
    x = mg.tensor(np.arange(12.0).reshape(4, 3))
    with nn.frozen_statistics():
        expected = net(x).numpy()
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            np.testing.assert_array_equal(twin(x).numpy(), expected)
            twin.scale.data = 0.0
            assert net.scale.item() == 2.0


def test_errors_name_the_layer_they_come_from():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2))
    with pytest.raises(ShapeError) as caught:
        net(mg.tensor(np.zeros((2, 3))))
    assert caught.value.__notes__ == ["in Linear 1", "in Sequential"]


def test_a_call_runs_in_a_scope_named_after_class_and_attribute():
    y = Net()(mg.tensor(np.arange(12.0).reshape(4, 3)))
    inner = y.node.parents[1]
    assert [s.name for s in y.node.scope.path()] == ["Net"]
    assert [s.name for s in inner.scope.path()][:2] == ["Net", "BatchNorm1d norm"]


def test_apply_visits_the_innermost_first():
    seen = []
    Net().apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Net" and len(seen) == 3


def test_repr_shows_the_tree():
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))).splitlines() == [
        "Sequential(",
        "  0: Linear(2, 3, bias=True)",
        "  1: Sequential(",
        "    0: ReLU()",
        "  )",
        ")",
    ]


def test_repr_shows_the_sizes_even_of_a_layer_with_parts():
    assert repr(nn.RNNCell(3, 2)) == "RNNCell(3, 2)"
    assert repr(nn.RNN(3, 2)) == "RNN(3, 2)"
    assert repr(nn.RNN(3, 2, batch_norm=True)).splitlines() == [
        "RNN(",
        "  3, 2",
        "  norm: BatchNorm1d(2, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)",
        ")",
    ]
    assert repr(nn.MaxPool2d(2, dilation=3)).endswith("stride=None, padding=0, dilation=3)")


@pytest.mark.parametrize("affine", [False, True])
def test_repr_shows_whether_a_norm_has_parameters(affine):
    for layer in (
        nn.BatchNorm2d(4, affine=affine),
        nn.InstanceNorm1d(4, affine=affine),
        nn.GroupNorm(2, 4, affine=affine),
        nn.LayerNorm(4, elementwise_affine=affine),
    ):
        assert f"affine={affine}" in repr(layer)


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match=r"Module has no forward\(\)"):
        nn.Module()(1.0)


def test_zero_grad_forgets():
    net = Net()
    net(mg.tensor(np.arange(12.0).reshape(4, 3))).sum().backward()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


# --- deferred sizes -------------------------------------------------------------------------------


def test_a_module_may_have_a_list_that_is_pending():
    net = nn.Sequential(nn.Linear(2, 3))
    net.pending = [1]
    assert len(list(net.parameters())) == 2


def test_lazy_layers_become_the_layer_that_knows_its_size(rng):
    net = nn.Sequential(
        nn.LazyConv2d(3, 2), nn.LazyBatchNorm2d(eps=1e-3), nn.Flatten(), nn.LazyLinear(2)
    )
    net.eval()
    with pytest.raises(UsageError, match="run one batch first"):
        list(net.parameters())
    y = net(mg.tensor(rng.normal(size=(4, 2, 3, 3))))
    assert [type(m) for m in net] == [nn.Conv2d, nn.BatchNorm2d, nn.Flatten, nn.Linear]
    assert net[1].eps == 1e-3 and net[1].num_features == 3 and not net[1].training
    assert y.shape == (4, 2) and len(list(net.parameters())) == 6


def test_a_lazy_layer_keeps_what_was_assigned_to_it():
    layer = nn.LazyLinear(2)
    layer.remark, layer.scale = "first", mg.tensor(3.0, requires_grad=True)
    layer.register_buffer("calls", 0)
    layer(np.ones((1, 3)))
    assert layer.remark == "first" and type(layer) is nn.Linear
    assert list(layer.state_dict()) == ["weight", "bias", "scale", "calls"]
    assert list(vars(layer)).count("arguments") == 0


def test_a_lazy_layer_has_no_subclass_whose_methods_it_would_lose():
    with pytest.raises(UsageError, match=r"Doubled: base class\n.*nn.Module\n.*LazyLinear"):

        class Doubled(nn.LazyLinear):
            def forward(self, x):
                return 2.0 * super().forward(x)


@pytest.mark.parametrize(
    ("lazy", "shape", "size"),
    [
        (nn.LazyConv1d(2, 1), (2, 5, 3), 5),
        (nn.LazyConv3d(2, 1), (2, 4, 3, 3, 3), 4),
        (nn.LazyBatchNorm1d(), (3, 6), 6),
        (nn.LazyBatchNorm3d(), (2, 3, 2, 2, 2), 3),
        (nn.LazyLinear(2), (2, 7, 9), 9),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_missing_size_is_that_of_the_right_axis(lazy, shape, size):
    lazy(mg.tensor(np.random.default_rng(0).normal(size=shape)))
    assert str(size) in repr(lazy).split(",")[0]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Flatten(), ()),
        (nn.LazyLinear(2), ()),
        (nn.LazyConv2d(3, 2), (5,)),
        (nn.LazyConv2d(3, 2), (28, 28)),
        (nn.LazyBatchNorm1d(), (4,)),
    ],
    ids=str,
)
def test_too_few_axes_are_refused_and_teach_a_lazy_layer_nothing(layer, shape):
    before = repr(layer)
    with pytest.raises(ShapeError, match="x\n"):
        layer(mg.tensor(np.zeros(shape)))
    assert repr(layer) == before


@pytest.mark.parametrize("size", [-2, 2.5, "2", None, True], ids=repr)
def test_sizes_that_are_no_whole_numbers_are_refused(size):
    for make in (
        lambda: nn.Linear(size, 1),
        lambda: nn.Conv2d(1, size, 3),
        lambda: nn.Embedding(size, 2),
        lambda: nn.RNN(2, size),
        lambda: nn.LayerNorm(size),
        lambda: nn.BatchNorm1d(size, affine=False),
        lambda: nn.Whitening1d(size, affine=False),
        lambda: nn.GroupNorm(1, size),
    ):
        with pytest.raises((ShapeError, UsageError), match="whole number"):
            make()


NORMS = {
    nn.BatchNorm2d: (3,),
    nn.BatchRenorm1d: (3,),
    nn.InstanceNorm2d: (3,),
    nn.Whitening1d: (3,),
    nn.ProbabilityIntegralNorm1d: (3,),
    nn.LayerNorm: (3,),
    nn.GroupNorm: (1, 3),
}


@pytest.mark.parametrize("norm", NORMS)
def test_an_eps_or_momentum_that_would_give_nan_is_refused_when_the_layer_is_made(norm):
    for value in (-1e-5, float("nan"), float("inf"), "1e-5", None):
        with pytest.raises(UsageError, match=f"{norm.__name__}: eps"):
            norm(*NORMS[norm], eps=value)
    if norm not in (nn.LayerNorm, nn.GroupNorm):
        averages = norm not in (nn.Whitening1d, nn.ProbabilityIntegralNorm1d)
        for value in (-0.1, 1.5, float("nan"), "0.1", *([] if averages else [None])):
            with pytest.raises(UsageError, match=f"{norm.__name__}: momentum"):
                norm(*NORMS[norm], momentum=value)


@pytest.mark.parametrize("layer", [nn.LeakyReLU, nn.ELU])
def test_a_slope_that_is_no_finite_number_is_refused_when_the_layer_is_made(layer):
    for value in (1j, "0.1", None, float("nan"), float("inf"), [0.1]):
        with pytest.raises(UsageError, match=rf"{layer.__name__}: .*\n.*a finite number"):
            layer(value)
    assert nn.LeakyReLU(-1)(mg.tensor([-2.0])).item() == 2.0


HALF = np.float64(0.5)


@pytest.mark.parametrize(
    "make",
    [
        *(lambda n=n: n(*NORMS[n], eps=HALF, dtype="float32") for n in NORMS),
        lambda: nn.ProbabilityIntegralNorm1d(3, bandwidth=HALF, dtype="float32"),
        lambda: nn.LeakyReLU(HALF),
        lambda: nn.ELU(HALF),
    ],
)
def test_an_option_that_is_a_number_of_numpy_leaves_float32_alone(make, rng):
    layer = make()
    shape = (5, 3, 2, 2) if "2d" in type(layer).__name__ else (5, 3)
    x = rng.normal(size=shape).astype("float32")
    assert layer(x).dtype == layer.eval()(x).dtype == np.float32


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(nn).values()
        if inspect.isclass(kind) and "dtype" in inspect.signature(kind).parameters
        if not kind._pending
    ],
)
def test_all_numbers_of_a_layer_have_the_dtype_that_it_is_made_with_and_counts_are_integers(kind):
    words = inspect.signature(kind).parameters
    sizes = [2 for word in words.values() if word.default is word.empty]
    options = {n: True for n in ("affine", "track_running_stats", "batch_norm") if n in words}
    state = kind(*sizes, **options, dtype="float32").state_dict()
    assert state
    for name, value in state.items():
        assert value.dtype == (np.int64 if "num_batches" in name else np.float32), name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ({"kernel_size": 0}, "kernel_size"),
        ({"stride": 0}, "stride"),
        ({"stride": 1.5}, "stride"),
        ({"padding": "same"}, "padding"),
        ({"padding": (1, 1, 1)}, "padding"),
        ({"dilation": 0}, "dilation"),
    ],
    ids=str,
)
def test_windows_that_no_image_could_have_are_refused_when_the_layer_is_made(words, name):
    makers = [lambda **words: nn.Conv2d(1, 1, **words), nn.MaxPool2d]
    makers += [] if name == "dilation" else [nn.AvgPool2d]
    for make in makers:
        with pytest.raises(ShapeError, match=f"window: {name}"):
            make(**{"kernel_size": 2, **words})


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 3, 4, 4, 4)], ids=str)
@pytest.mark.parametrize(
    "layer", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.GlobalAvgPool2d()], ids=repr
)
def test_pooling_layers_refuse_what_are_no_images(layer, shape):
    with pytest.raises(ShapeError, match=r"Pool2d: x\n.*\(N, C, H, W\)"):
        layer(mg.tensor(np.zeros(shape)))


@pytest.mark.parametrize("groups", [0, -1, 3])
def test_groups_must_divide_the_channels(groups):
    with pytest.raises(UsageError, match=f"groups={groups}"):
        nn.Conv2d(4, 4, 1, groups=groups)
    with pytest.raises(UsageError, match=f"groups={groups}"):
        nn.GroupNorm(groups, 4)


@pytest.mark.parametrize("operand", [[[1.0, 2.0]], None, 2.5], ids=str)
@pytest.mark.parametrize("kind", [nn.Linear, nn.BatchNorm1d, nn.Conv2d])
def test_what_is_neither_tensor_nor_array_is_refused_by_name(kind, operand):
    net = nn.Sequential(kind(*{nn.Conv2d: (2, 3, 1), nn.Linear: (2, 3)}.get(kind, (2,))))
    with pytest.raises(DTypeError, match=f"(?s){kind.__name__}.*a tensor or an array") as caught:
        net(operand)
    assert repr(operand) in str(caught.value)


def test_an_attribute_that_forward_misses_itself_is_not_blamed_on_the_input():
    class Misspelt(nn.Module):
        def forward(self, x):
            return mg.reshape(x, self.shape)

    class Forgotten(nn.Module):
        def forward(self, x):
            hidden = vars(self).get("hidden")
            return x + hidden.ndim

    for net, text in [(Misspelt(), "'Misspelt' .* 'shape'"), (Forgotten(), "'NoneType' .* 'ndim'")]:
        with pytest.raises(AttributeError, match=text):
            net(np.ones((2, 3)))


def test_a_shape_may_be_an_integer_of_numpy():
    assert nn.LayerNorm(np.int64(3))(np.ones((2, 3))).shape == (2, 3)
    assert nn.LayerNorm(np.array([2, 3])).normalized_shape == (2, 3)


# --- random numbers, initial values ---------------------------------------------------------------


def test_seeds_decide_initial_values_and_leave_numpys_generator_alone():
    a, b, c = (nn.Linear(3, 3, rng=seed).weight.numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        (nn.init.xavier_uniform_, 2 / (300 + 400)),
        (nn.init.xavier_normal_, 2 / (300 + 400)),
        (nn.init.kaiming_uniform_, 2 / 300),
        (nn.init.kaiming_normal_, 2 / 300),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_initial_variance_is_that_of_the_paper(init, variance):
    w = init(mg.tensor(np.zeros((400, 300))), rng=0).numpy()
    # 120,000 draws: the variance's own standard error is at most sqrt(2/120000) = 0.4 %
    assert abs(w.var() / variance - 1) < 5 * 0.0041
    assert abs(w.mean()) < 5 * np.sqrt(variance / w.size)


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda: nn.Linear(64, 500, rng=0), 64),
        (lambda: nn.Conv2d(8, 500, 4, groups=2, rng=0), 64),
        (lambda: nn.RNNCell(5, 64, rng=0), 64),  # all of its parameters by the size of the state
    ],
    ids=["Linear", "Conv2d", "RNNCell"],
)
def test_weights_and_biases_of_a_new_layer_reach_up_to_the_bound_of_torch(make, fan_in):
    for name, p in make().named_parameters():
        # of n draws none lies in the outermost 20/n of the range with probability below e^-20
        assert 1 - 20 / p.size < np.abs(p.numpy()).max() * np.sqrt(fan_in) <= 1, name


@pytest.mark.parametrize(
    "init",
    [nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.xavier_uniform_,
     nn.init.xavier_normal_, nn.init.orthogonal_],
)  # fmt: skip
def test_a_gain_that_is_no_number_is_refused(init):
    for gain in ("relu", None):
        with pytest.raises(UsageError, match="init: gain"):
            init(mg.tensor(np.zeros((2, 2))), gain=gain)


def test_a_gain_of_kaiming_is_never_taken_for_the_slope_of_torch():
    for init in (nn.init.kaiming_uniform_, nn.init.kaiming_normal_):
        with pytest.raises(TypeError, match="positional"):
            init(mg.tensor(np.zeros((2, 2))), 5**0.5)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (4, 1, 3, 3)], ids=str)
def test_orthogonal_weights_have_orthonormal_rows_or_columns(shape):
    w = nn.init.orthogonal_(mg.tensor(np.zeros(shape)), gain=2.0, rng=0).numpy()
    w = w.reshape(shape[0], -1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-14)


def test_integers_take_constants_and_nothing_drawn():
    w = mg.tensor(np.ones((3, 3), dtype=int))
    assert nn.init.constant_(w, 7).tolist() == [[7] * 3] * 3
    for name in ("uniform_", "normal_", "xavier_normal_", "kaiming_uniform_", "orthogonal_"):
        with pytest.raises(DTypeError, match=r"init: weight\n.*a floating dtype"):
            getattr(nn.init, name)(w, rng=0)
    assert w.tolist() == [[7] * 3] * 3


def test_what_cannot_be_drawn_is_refused():
    w = mg.tensor(np.ones(3))
    for draw, words in (
        (nn.init.normal_, {"std": -1}),
        (nn.init.normal_, {"std": "1"}),
        (nn.init.uniform_, {"low": 1, "high": 0}),
    ):
        with pytest.raises(UsageError, match="init: "):
            draw(w, **words)
    for fill in nn.init.normal_, nn.init.ones_, nn.init.kaiming_uniform_, nn.init.orthogonal_:
        for weight in np.ones((3, 2)), 3:
            with pytest.raises(DTypeError, match=r"init: weight\n.*a Tensor"):
                fill(weight)


def test_a_constant_that_is_no_number_is_refused():
    w = mg.tensor(np.ones((3, 2)))
    for value in ("one", None, 1j):
        with pytest.raises(DTypeError, match=r"init: value: .*\n.*real numbers"):
            nn.init.constant_(w, value)
    with pytest.raises(ShapeError, match=r"init: value\n.*broadcasts to \(3, 2\)\n.*\(3,\)"):
        nn.init.constant_(w, np.ones(3))
    assert (w == 1).all()
    assert nn.init.constant_(w, mg.tensor([2.0, 3.0])).tolist() == [[2.0, 3.0]] * 3


def test_a_weight_without_elements_is_left_as_it_is():
    for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        for shape in ((0, 0), (2, 0), (0, 3, 5)):
            assert getattr(nn.init, name)(mg.tensor(np.zeros(shape)), rng=0).shape == shape
    assert nn.RNNCell(1, 0)(np.ones((4, 1))).shape == (4, 0)


def test_fans_of_a_vector_are_refused():
    with pytest.raises(ShapeError, match="init"):
        nn.init.xavier_uniform_(mg.tensor(np.zeros(3)))


def test_dropout_keeps_the_mean_and_is_the_identity_in_evaluation():
    drop = nn.Dropout(0.25, rng=0)
    y = drop(mg.tensor(np.ones(40_000))).numpy()
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs(y.mean() - 1) < 5 * np.sqrt(0.25 / 0.75 / 40_000)
    x = mg.tensor([1.0, 2.0])
    assert drop.eval()(x) is x


def test_dropout_scales_integers_as_numbers():
    x = np.arange(1, 100)
    y = nn.Dropout(0.3, rng=0)(x)
    np.testing.assert_array_equal(y, nn.Dropout(0.3, rng=0)(x.astype(float)))
    assert y.max() > 99


@pytest.mark.parametrize("p", [1, 1.0, np.float32(1)], ids=repr)
def test_dropout_of_all_gives_zeros_and_no_gradient(p):
    x = mg.tensor([1.0, -2.0, 1e308], requires_grad=True)
    y = nn.Dropout(p)(x)
    y.sum().backward()
    np.testing.assert_array_equal([y, x.grad], np.zeros((2, 3)))


def test_a_sequence_without_steps_is_refused():
    with pytest.raises(ShapeError, match=r"RNN: x\n.*T >= 1 steps"):
        nn.RNN(3, 2)(np.zeros((4, 0, 3)))


def test_where_batch_norm_stands_is_before_or_after():
    for batch_norm in (True, False):
        with pytest.raises(UsageError, match=r"order.*\n.*'before' or 'after'"):
            nn.models.mlp(batch_norm, side=2, order="behind")


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.RNNCell(3, 2), (4, 3)), (nn.RNN(3, 2), (4, 5, 3))], ids=repr
)
@pytest.mark.parametrize("state", [(1, 2), (2,), (4, 1), (4, 3)], ids=str)
def test_a_hidden_state_of_another_shape_is_refused(layer, shape, state, rng):
    with pytest.raises(ShapeError, match=r": h\n.*\(4, 2\)"):
        layer(mg.tensor(rng.normal(size=shape)), mg.tensor(np.ones(state)))


def test_copies_of_a_dropout_share_the_default_generator():
    x = mg.tensor(np.ones(100))
    first, second = (copy.deepcopy(nn.Dropout(0.5)) for _ in range(2))
    nn.manual_seed(3)
    a, b = first(x).numpy(), second(x).numpy()
    nn.manual_seed(3)
    np.testing.assert_array_equal(second(x), a)
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("p", [-0.1, 1.001, 2.0, np.nan])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(UsageError, match="probability"):
        nn.Dropout(p)


def test_embedding_takes_a_list_of_indices():
    layer = nn.Embedding(7, 2)
    np.testing.assert_array_equal(layer([[1, 6]]), layer.weight.numpy()[[[1, 6]]])


@pytest.mark.parametrize("indices", [[7], [-1], [0.5]])
def test_embedding_refuses_indices_outside_its_table(indices):
    with pytest.raises((IndexError, TypeError)):
        nn.Embedding(7, 2)(np.array(indices))


def test_a_shallow_copy_shares_parameters_and_not_their_list():
    layer = mg.nn.Linear(3, 2)
    twin = copy.copy(layer)
    assert twin.weight is layer.weight
    twin.bias = None
    assert list(layer.state_dict()) == ["weight", "bias"] and list(twin.state_dict()) == ["weight"]
