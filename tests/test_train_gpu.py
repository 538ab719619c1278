"""Training on a GPU: nothing waits inside a step, errors are still named, steps are recorded."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad import train as tr
from minigrad.errors import AnomalyError, BoundsError, DeviceError, UsageError
from minigrad.train.recorded import RecordedStep, train_step


@pytest.fixture(params=["portable", "kernels"])
def device(request, gpu):
    """A GPU whose fused ops are portable or CUDA kernels."""
    if request.param == "kernels":
        return request.getfixturevalue("kernels")
    if gpu.is_real:
        pytest.skip("on a GPU fused ops are kernels")
    return gpu


def lenet(device, n=4):
    net = nn.models.lenet_bn(dtype="float32", rng=0).to(device)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 1, 28, 28)).astype("float32")
    return net, x, rng.integers(0, 10, n)


def parameters(net):
    return {name: p.numpy() for name, p in net.named_parameters()}


@pytest.mark.parametrize(
    "make", [lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.01)]
)
def test_a_lenet_step_never_waits_for_the_device(make, device):
    net, x, labels = lenet(device.device)
    optimizer = make(list(net.parameters()))
    batch = mg.tensor(x, device="cuda"), mg.tensor(labels, device="cuda")
    train_step(net, optimizer, *batch)  # compiles
    with device.without_waiting():
        for _ in range(2):
            loss, right = train_step(net, optimizer, *batch)
    assert np.isfinite(device.host(loss)) and 0 <= device.host(right) <= 4


def test_a_lenet_step_changes_parameters_as_on_the_cpu(device):
    """float64 on both sides; 100 eps per step of the largest change leaves room for 60 sums."""
    found = []
    for place in ("cpu", device.device):
        net, x, labels = lenet(place)
        net = net.to(dtype="float64")
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            batch = mg.tensor(x.astype(float), device=place), mg.tensor(labels, device=place)
            train_step(net, optimizer, *batch)
        found.append(parameters(net))
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=0, atol=1e-11, err_msg=name)


def small(device, rng, n=20, batch_size=5, record=False, optimizer=None, **words):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    for p in net.parameters():
        p.data = np.random.default_rng(3).normal(size=p.shape)
    net = net.to(device)
    optimizer = (optimizer or optim.SGD)(net.parameters(), **{"lr": 0.1, **words})
    x, y = rng.normal(size=(n, 3)), rng.integers(0, 2, n)
    return tr.Trainer(
        net, optimizer, (x, y), (x, y), batch_size=batch_size, device=device, record=record
    )


@pytest.mark.parametrize("n", [20, 23, 160, 200])  # results are read after 32 batches of 5
def test_a_run_on_a_gpu_equals_one_on_the_cpu(n, device):
    runs = []
    for place in ("cpu", device.device):
        trainer = small(place, np.random.default_rng(0), n)
        runs.append((list(trainer.fit(2)), parameters(trainer.net)))
    for here, there in zip(*(history for history, _ in runs), strict=True):
        assert here.loss == pytest.approx(there.loss, rel=1e-12)
        assert (here.train_acc, here.test_acc) == (there.train_acc, there.test_acc)
    for name, expected in runs[0][1].items():
        np.testing.assert_allclose(runs[1][1][name], expected, rtol=0, atol=1e-11, err_msg=name)


def test_an_epoch_waits_once_for_all_its_steps(gpu, rng):
    if gpu.is_real:
        pytest.skip("CuPy does not count")
    import standin

    trainer = small(gpu.device, rng)
    list(trainer.fit(1))
    with standin.counting() as counts:
        for x, labels in trainer.loader:
            trainer.ahead.step(x, labels)
    assert not counts.synchronizations
    with standin.counting() as counts:
        trainer.ahead.settle()
    assert len(counts.synchronizations) == 3  # losses, right answers, whether all is finite


def test_a_diverging_run_stops_with_the_first_op_that_was_not_finite(device, rng):
    trainer = small(device.device, rng, lr=1e200)
    with pytest.raises(AnomalyError, match=r"produced (nan|inf)") as caught:
        list(trainer.fit(5))
    assert any("epoch 1, batch" in note for note in caught.value.__notes__)


def test_a_last_step_that_blows_up_is_named(device, rng):
    trainer = small(device.device, rng, lr=1e308)
    trainer.loader.batch_size = 20  # one step is the epoch
    trainer.net[1].weight.data = np.full(4, 1e3)
    with pytest.raises(AnomalyError, match=r"epoch 1, batch 1(.|\n)*finite parameters"):
        list(trainer.fit(1))


def test_a_loss_that_is_not_finite_stops_the_run_even_if_its_gradient_is_finite(device):
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = np.eye(2)
    net.to(device.device)
    data = np.full((4, 2), [1.5e308, -1.5e308]), np.ones(4, int)
    trainer = tr.Trainer(net, optim.SGD(net.parameters()), data, data, device=device.device)
    with pytest.raises(AnomalyError, match="produced inf"):
        list(trainer.fit(1))


def test_the_batch_that_holds_nan_is_named(device, rng):
    trainer = small(device.device, rng)
    order = trainer.loader.order(0)
    trainer.loader.dataset.arrays[0][order[12], 1] = np.nan  # of the third batch
    with pytest.raises(AnomalyError, match="holds nan in 1 of 15 elements") as caught:
        list(trainer.fit(1))
    assert any("batch 3" in note for note in caught.value.__notes__)
    assert trainer.progress.batch == 2  # as on the CPU: the steps before it are done


def test_a_label_that_is_no_class_is_named(device, rng):
    trainer = small(device.device, rng)
    trainer.loader.dataset.arrays[1][7] = 2
    with pytest.raises(BoundsError, match="0 to 1"):
        list(trainer.fit(1))


# --- recorded steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_recorded_steps_equal_single_ones(momentum, kernels):
    nets = []
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 1, 10, 10)).astype("float32")
    labels = rng.integers(0, 3, 4)
    for record in (False, True):
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3, rng=0), nn.BatchNorm2d(2), nn.Sigmoid(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32, 5, rng=1), nn.BatchNorm1d(5), nn.ReLU(),
            nn.Linear(5, 3, rng=2),
        ).to(kernels.device, "float32")  # fmt: skip
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=momentum)
        batch = mg.tensor(x, device="cuda"), mg.tensor(labels, device="cuda")
        losses = [train_step(net, optimizer, *batch)[0]]
        if record:
            step = RecordedStep(net, optimizer, x, labels)
            losses += [step(x + i, labels)[0] for i in range(3)]
            step.release()
        else:
            for i in range(3):
                batch = mg.tensor(x + i, device="cuda"), mg.tensor(labels, device="cuda")
                losses.append(train_step(net, optimizer, *batch)[0])
        nets.append((net, [float(kernels.host(loss)) for loss in losses], optimizer))
    (one, losses, a), (other, same, b) = nets
    assert same == losses  # bit for bit: small products are those of the package in both
    states = [net.state_dict() for net in (one, other)]
    for name, expected in states[0].items():
        np.testing.assert_array_equal(states[1][name].numpy(), expected.numpy(), err_msg=name)
    assert [sorted(s) for s in a.state] == [sorted(s) for s in b.state]


def test_a_recorded_step_leaves_other_arrays_alone(kernels, rng):
    """What a state_dict or a caller holds does not change when the graph runs."""
    trainer = small(kernels.device, rng)
    x, labels = next(iter(trainer.loader))
    trainer.ahead.step(x, labels)
    trainer.ahead.settle()
    step = RecordedStep(trainer.net, trainer.optimizer, x, labels)
    before = {k: (v, v.numpy()) for k, v in trainer.net.state_dict().items()}
    step(x, labels)
    step.release()
    between = {k: (v, v.numpy()) for k, v in trainer.net.state_dict().items()}
    step(x, labels)
    for held, copy in [*before.values(), *between.values()]:
        np.testing.assert_array_equal(held.numpy(), copy)
    step.release()
    after = trainer.net.state_dict()
    assert not np.array_equal(after["0.weight"].numpy(), before["0.weight"][1])
    assert after["1.num_batches_tracked"].item() == 3


def test_what_is_assigned_between_recorded_steps_is_used(kernels, rng):
    trainer = small(kernels.device, rng)
    x, labels = next(iter(trainer.loader))
    trainer.ahead.step(x, labels)
    trainer.ahead.settle()
    step = RecordedStep(trainer.net, trainer.optimizer, x, labels)
    start = {k: v.numpy() for k, v in trainer.net.state_dict().items()}
    first, second = (float(kernels.host(step(x, labels)[0])) for _ in range(2))
    step.release()
    trainer.net.load_state_dict(start)
    again = float(kernels.host(step(x, labels)[0]))
    assert again == first != second


def test_a_recording_fits_only_its_own_net_and_batches_of_its_shapes_and_dtypes(kernels, rng):
    trainer = small(kernels.device, rng)
    x, labels = next(iter(trainer.loader))
    trainer.ahead.step(x, labels)
    trainer.ahead.settle()
    net, optimizer = trainer.net, trainer.optimizer
    step = RecordedStep(net, optimizer, x, labels)
    assert step.fits(net, optimizer, x, labels)
    assert not step.fits(nn.Sequential(*net), optimizer, x, labels)
    for batch in (
        (x[:4], labels[:4]), (x.astype("float32"), labels), (x, labels.astype("int32")),
        (x, labels[:, None]),
    ):  # fmt: skip
        assert not step.fits(net, optimizer, *batch)
        with pytest.raises(UsageError, match="recorded"):
            step(*batch)
    delattr(net, "2")
    assert not step.fits(net, optimizer, x, labels)


def test_after_a_recording_products_are_those_of_the_library(kernels, rng):
    trainer = small(kernels.device, rng, record=True)
    list(trainer.fit(1))
    assert trainer.ahead.recorded is not None
    assert mg.backend.namespace(trainer.net[0].weight.array) is kernels.xp


def test_a_recording_that_could_not_be_released_is_lost(kernels, rng, monkeypatch):
    trainer = small(kernels.device, rng)
    batch = next(iter(trainer.loader))
    trainer.ahead.step(*batch)
    step = RecordedStep(trainer.net, trainer.optimizer, *batch)
    step(*batch)
    with monkeypatch.context() as patch:
        patch.setattr(RecordedStep, "_copies", lacks_memory)
        with pytest.raises(MemoryError):
            step.release()
    assert not step.fits(trainer.net, trainer.optimizer, *batch)
    trainer.net[0].bias.data = np.ones(4)
    step.release()  # does nothing more
    assert trainer.net[0].bias.tolist() == [1.0] * 4


def test_a_recording_that_is_dropped_gives_its_memory_back(kernels, rng):
    trainer = small(kernels.device, rng)
    x, labels = next(iter(trainer.loader))
    trainer.ahead.step(x, labels)
    step = RecordedStep(trainer.net, trainer.optimizer, x, labels)
    step(x, labels)
    step.release()
    pool = step.pool
    assert pool.total_bytes() > 0
    del step
    assert pool.total_bytes() == 0


@pytest.mark.parametrize("n", [20, 23])
def test_a_recorded_run_equals_one_on_the_cpu(n, kernels):
    runs = []
    for place, record in (("cpu", False), (kernels.device, True)):
        trainer = small(place, np.random.default_rng(0), n, record=record, momentum=0.5)
        runs.append((list(trainer.fit(3)), parameters(trainer.net)))
    assert trainer.ahead.recorded is not None and not trainer.ahead.why_not
    for here, there in zip(*(history for history, _ in runs), strict=True):
        assert here.loss == pytest.approx(there.loss, rel=1e-11)
    for name, expected in runs[0][1].items():
        np.testing.assert_allclose(runs[1][1][name], expected, rtol=0, atol=1e-11, err_msg=name)


def test_on_a_gpu_older_than_volta_a_run_is_portable_and_says_why_no_step_is_recorded(
    kernels, monkeypatch
):
    """Its compiler knows no __nanosleep, which is in the text of every kernel."""
    monkeypatch.setattr(mg.backend, "_capability", lambda xp, number: 61)
    monkeypatch.setattr(importlib.import_module("minigrad.fused.cuda.kernels"), "run", None)
    runs = []
    for place in ("cpu", kernels.device):
        trainer = small(place, np.random.default_rng(0), 23, record=place != "cpu", momentum=0.5)
        runs.append((list(trainer.fit(2)), parameters(trainer.net)))
    assert trainer.ahead.recorded is None and "capability 7.0" in trainer.ahead.why_not
    for here, there in zip(*(history for history, _ in runs), strict=True):
        assert here.loss == pytest.approx(there.loss, rel=1e-11)
    for name, expected in runs[0][1].items():
        np.testing.assert_allclose(runs[1][1][name], expected, rtol=0, atol=1e-11, err_msg=name)


def recorded_as_unrecorded(kernels, play, **words):
    """The trainer that recorded, after a check that ``play`` gives the same bits without it."""
    runs = []
    for record in (False, True):
        trainer = small(kernels.device, np.random.default_rng(0), record=record, **words)
        losses = [epoch.loss for epoch in play(trainer)]
        states = enumerate(trainer.optimizer.state_dict()["state"])
        kept = {f"{name} of {i}": v for i, state in states for name, v in state.items()}
        arrays = {k: v.numpy() for k, v in trainer.net.state_dict().items()}
        arrays |= {k: mg.backend.to_host(v) for k, v in kept.items()}
        runs.append((losses, arrays, [p.name for p in trainer.net.parameters()]))
    (expected, before, names), (losses, after, same) = runs
    assert losses == expected and after.keys() == before.keys() and names == same
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    return trainer


def test_a_recorded_run_that_diverges_names_the_op(kernels, rng):
    trainer = small(kernels.device, rng, record=True, lr=1e200)
    with pytest.raises(AnomalyError, match=r"produced (nan|inf)"):
        list(trainer.fit(5))


def test_a_new_learning_rate_is_recorded_into_the_same_memory(kernels):
    runs = []
    for place, record in (("cpu", False), (kernels.device, True)):
        trainer = small(place, np.random.default_rng(0), 23, record=record, momentum=0.5)
        trainer.schedule = optim.LambdaLR(trainer.optimizer, lambda epoch: 0.5**epoch)
        found = [trainer.ahead.recorded for _ in trainer.fit(4)] if record else list(trainer.fit(4))
        runs.append(parameters(trainer.net))
    assert found[0] is not None and len(set(found)) == 1 and not trainer.ahead.why_not
    for name, expected in runs[0].items():
        np.testing.assert_allclose(runs[1][name], expected, rtol=0, atol=1e-11, err_msg=name)


def _freeze(trainer):
    trainer.net[0].weight.requires_grad = False


def _unfreeze(trainer):
    trainer.net[3].bias.requires_grad = True


def _add_group(trainer):
    more = nn.Linear(2, 2, rng=0).to("cuda")
    setattr(trainer.net, "4", more)
    trainer.optimizer.add_param_group({"params": more.parameters(), "lr": 0.05})


def _replace_a_buffer(trainer):
    trainer.net[1].register_buffer("running_mean", mg.tensor(np.ones(4), device="cuda"))


def _change_a_layer(trainer):
    trainer.net[1].momentum = 0.5


def _decay_the_weights(trainer):
    trainer.optimizer.param_groups[0]["weight_decay"] = 0.1


def _swap_two_buffers(trainer):
    norm = trainer.net[1]
    norm.running_mean, norm.running_var = norm.running_var, norm.running_mean


def _tie_two_parameters(trainer):
    trainer.net[1].bias = trainer.net[1].weight


def _replace_the_optimizer(trainer):
    trainer.optimizer = optim.SGD(trainer.net.parameters(), lr=0.05, momentum=0.5)


def _begin_again(trainer):
    state = trainer.optimizer.state_dict()
    trainer.optimizer.load_state_dict({**state, "state": [{} for _ in state["state"]]})


def _smaller_batches(trainer):
    trainer.loader.batch_size = 4


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "change",
    [_freeze, _unfreeze, _add_group, _replace_a_buffer, _change_a_layer, _decay_the_weights,
     _swap_two_buffers, _tie_two_parameters,
     _replace_the_optimizer, _begin_again, _smaller_batches],
)  # fmt: skip
def test_what_changes_between_epochs_is_recorded_anew(change, momentum, kernels):
    def play(trainer):
        trainer.net[3].bias.requires_grad = False
        yield from trainer.fit(2)
        change(trainer)
        yield from trainer.fit(4)

    trainer = recorded_as_unrecorded(kernels, play, momentum=momentum)
    assert trainer.ahead.recorded is not None and not trainer.ahead.why_not


class Scaled(nn.Module):
    """Has attributes that are read in a step, but no state."""

    def __init__(self, device):
        self.factors, self.offsets, self.state = [1.0, 2.0], {0.25}, np.float32(0.5)
        self.tensor = mg.tensor(np.full(4, 2.0), device=device)
        self.array = self.tensor.array
        self.remark = object()

    def forward(self, x):
        y = x * self.factors[1] * float(self.state) * self.tensor * self.array
        return y + sum(self.offsets)


def _change_a_list(trainer):
    trainer.net[2].factors[1] = 3.0


def _change_a_set(trainer):
    trainer.net[2].offsets.add(0.5)


def _change_a_scalar(trainer):
    trainer.net[2].state = np.float32(0.25)


def _replace_a_tensor(trainer):
    trainer.net[2].tensor = mg.tensor(np.full(4, 3.0), device="cuda")


def _assign_to_a_tensor(trainer):
    trainer.net[2].tensor.data = np.full(4, 3.0)


def _replace_an_array(trainer):
    trainer.net[2].array = mg.tensor(np.full(4, 3.0), device="cuda").array


def _replace_an_object_by_a_number(trainer):
    trainer.net[2].remark = 1


def _clip_less(trainer):
    trainer.optimizer.clipping = 10.0


def _clip_more_inside(trainer):
    trainer.optimizer.optimizer.clipping = 1e-4


def _raise_the_floor_of_clipping(trainer):
    trainer.optimizer.eps = 10.0


def _exclude_from_clipping(trainer):
    trainer.optimizer.excluded |= {trainer.net[0].weight}


@pytest.mark.parametrize(
    "change",
    [_change_a_list, _change_a_set, _change_a_scalar, _replace_a_tensor, _assign_to_a_tensor,
     _replace_an_array, _replace_an_object_by_a_number, _clip_less, _clip_more_inside,
     _raise_the_floor_of_clipping, _exclude_from_clipping],
)  # fmt: skip
def test_attributes_that_change_between_epochs_are_recorded_anew(change, kernels):
    def play(trainer):
        setattr(trainer.net, "2", Scaled(kernels.device))
        yield from trainer.fit(2)
        change(trainer)
        yield from trainer.fit(4)

    def clipped(parameters, **words):
        inner = optim.AGC(optim.SGD(parameters, **words), clipping=1e-3)
        return optim.AGC(inner, clipping=5e-4)

    trainer = recorded_as_unrecorded(kernels, play, optimizer=clipped)
    assert trainer.ahead.recorded is not None and not trainer.ahead.why_not


def test_statistics_that_are_frozen_later_stay_as_they_are(kernels):
    def play(trainer):
        yield from trainer.fit(2)
        with nn.frozen_statistics():
            yield from trainer.fit(4)

    trainer = recorded_as_unrecorded(kernels, play)
    assert trainer.net[1].num_batches_tracked.item() == 8  # four steps in each of two epochs
    assert trainer.ahead.recorded is not None and not trainer.ahead.why_not


@pytest.mark.parametrize("record", [False, True])
def test_a_run_that_was_broken_off_goes_on_from_its_checkpoint(record, kernels, tmp_path):
    runs = []
    for place in ("cpu", kernels.device):
        trainer = small(
            place, np.random.default_rng(0), record=record and place != "cpu", momentum=0.5
        )
        trainer.path = tmp_path / "checkpoint"
        list(trainer.fit(1))
        good = [1, 2]
        trainer.on_batch = lambda n, good=good: good.pop()  # the third fails
        with pytest.raises(IndexError):
            list(trainer.fit(2))
        trainer.on_batch = None
        trainer.resume()
        runs.append((list(trainer.fit(3)), parameters(trainer.net)))
    for here, there in zip(*(history for history, _ in runs), strict=True):
        assert here.loss == pytest.approx(there.loss, rel=1e-11)
    for name, expected in runs[0][1].items():
        np.testing.assert_allclose(runs[1][1][name], expected, rtol=0, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("record", [False, True])
def test_amid_an_epoch_a_checkpoint_and_the_accuracy_are_those_of_all_steps(
    record, kernels, tmp_path
):
    found = []
    for place in ("cpu", kernels.device):
        trainer = small(
            place, np.random.default_rng(0), n=40, record=record and place != "cpu", lr=5.0
        )
        list(trainer.fit(1))
        trainer.path, steps = tmp_path / "checkpoint", iter(range(1, 100))

        def look(n, trainer=trainer, steps=steps):
            step = next(steps)
            if step == 3:
                trainer.save()
                arrays, meta = tr.load_checkpoint(trainer.path)
                found.append((arrays, meta["progress"]["batch"]))
            if step == 5:
                found.append(trainer.accuracy(*trainer.test))

        trainer.on_batch = look
        next(trainer.fit(2))
    (expected, batch), accuracy, (arrays, same), again = found
    assert batch == same == 3 and accuracy == again
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, rtol=0, atol=1e-11, err_msg=name)


class Growing(optim.SGD):
    """Keeps all gradients."""

    def update(self, p, g, state, group):
        state[f"gradient {len(state)}"] = g
        return super().update(p, g, state, group)


class Batched(nn.Module):
    """A product of arrays of three axes."""

    def __init__(self, device):
        self.factor = mg.tensor(np.eye(4)[None], device=device)

    def forward(self, x):
        return mg.matmul(x[:, None], self.factor)[:, 0]


class Counting(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Carrying(nn.Module):
    last = 0.0

    def forward(self, x):
        y = x + self.last
        self.last = y.detach().sum()
        return y


class Jitter(nn.Module):
    """Multiplies by a random number, from a generator of its own or the default one."""

    def __init__(self, seed=None):
        nn.manual_seed(0)
        self.source = None if seed is None else np.random.default_rng(seed)

    def forward(self, x):
        return x * nn.random.generator(self.source).random()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: setattr(t, "optimizer", optim.Adam(t.net.parameters())), "number of steps"),
        (lambda t: setattr(t, "optimizer", Growing(t.net.parameters())), "number of steps"),
        (lambda t: setattr(t.net[1], "momentum", None), "synchronous|H2D"),
        (lambda t: setattr(t.net, "2", Batched(t.device)), "cuBLAS"),
        (lambda t: setattr(t.net, "2", nn.Dropout(0.5, rng=0)), "random"),
        (lambda t: setattr(t.net, "2", Jitter()), "random"),
        (lambda t: setattr(t.net, "2", Jitter(0)), "random"),
        (lambda t: setattr(t.net, "2", Jitter(np.random.MT19937(0))), "random"),
        (lambda t: setattr(t.net, "2", Counting()), "attributes"),
        (lambda t: setattr(t.net, "2", Carrying()), "attributes"),
    ],
    ids=["Adam", "a state that grows", "a momentum that counts batches", "a product of three axes",
         "dropout", "a number of the default generator", "one of its own",
         "one whose state is an array", "a count", "a tensor kept"],
)  # fmt: skip
def test_what_cannot_be_recorded_runs_step_by_step_and_says_why(
    spoil, reason, kernels, monkeypatch
):
    if kernels.is_real:
        reason = "recorded"  # the messages of CUDA differ

    def play(trainer):
        spoil(trainer)
        yield from trainer.fit(2)

    pools, original = [], RecordedStep._record

    def record(self, is_first):
        pools.append(self.pool)
        original(self, is_first)

    monkeypatch.setattr(RecordedStep, "_record", record)
    trainer = recorded_as_unrecorded(kernels, play)
    assert trainer.ahead.recorded is None
    with pytest.raises(UsageError, match=reason):
        raise UsageError(trainer.ahead.why_not)
    assert [pool.total_bytes() for pool in pools] == [0]  # and gives its memory back


def lacks_memory(self, *words):
    raise MemoryError("Out of memory allocating 1 bytes")


@pytest.mark.parametrize("where", ["_copies", "_step", "_capture"])
def test_where_memory_does_not_suffice_for_a_recording_steps_run_one_by_one(
    where, kernels, monkeypatch
):
    monkeypatch.setattr(RecordedStep, where, lacks_memory)
    trainer = recorded_as_unrecorded(kernels, lambda trainer: trainer.fit(2))
    assert trainer.ahead.recorded is None and "Out of memory" in trainer.ahead.why_not


@pytest.mark.parametrize("where", ["ahead.train_step", "loop._count_right"])
def test_a_recording_gives_way_where_its_memory_is_needed(where, kernels, monkeypatch):
    """For the smaller batch at the end of an epoch, and for the accuracy; neither is recorded."""
    trainers, failed = [], []
    module = importlib.import_module(f"minigrad.train.{where.partition('.')[0]}")
    original = getattr(module, where.partition(".")[2])

    def fails_beside_a_recording(*words):
        result = original(*words)  # a step that fails may have changed the parameters
        if trainers[-1].ahead.recorded is not None:
            failed.append(trainers[-1])
            lacks_memory(None)
        return result

    def play(trainer):
        trainers.append(trainer)
        return trainer.fit(2)

    monkeypatch.setattr(module, original.__name__, fails_beside_a_recording)
    trainer = recorded_as_unrecorded(kernels, play, n=23, momentum=0.5)
    assert failed == [trainer] and trainer.ahead.recorded is None
    assert "Out of memory" in trainer.ahead.why_not


def test_without_a_recording_to_give_up_a_lack_of_memory_is_told(device, rng, monkeypatch):
    trainer = small(device.device, rng)
    monkeypatch.setattr(importlib.import_module("minigrad.train.ahead"), "train_step", lacks_memory)
    with pytest.raises(MemoryError, match="Out of memory"):
        list(trainer.fit(1))


@pytest.mark.parametrize("lr", [0.1, 0.05])
def test_no_step_is_lost_where_memory_does_not_suffice_to_release_them(lr, kernels, monkeypatch):
    """At the end of an epoch, or before that at another learning rate."""
    original = RecordedStep._copies

    def copies(self, arrays):
        return lacks_memory(self) if hasattr(self, "released") else original(self, arrays)

    def play(trainer):
        rates = [0.1] * 5 + [lr] * 35
        trainer.on_batch = lambda n: trainer.optimizer.param_groups[0].update(lr=rates.pop(0))
        return trainer.fit(2)

    monkeypatch.setattr(RecordedStep, "_copies", copies)
    trainer = recorded_as_unrecorded(kernels, play, n=100, momentum=0.5)
    assert trainer.ahead.recorded is None and "Out of memory" in trainer.ahead.why_not


def test_a_recording_that_could_not_be_renewed_fits_no_batch(kernels, rng, monkeypatch):
    trainer = small(kernels.device, rng)
    batch = next(iter(trainer.loader))
    trainer.ahead.step(*batch)
    step = RecordedStep(trainer.net, trainer.optimizer, *batch)
    trainer.optimizer.param_groups[0]["lr"] = 0.05
    monkeypatch.setattr(RecordedStep, "_capture", lacks_memory)
    with pytest.raises(MemoryError):
        step.renew(trainer.net, trainer.optimizer, *batch)
    assert not step.fits(trainer.net, trainer.optimizer, *batch)
    with pytest.raises(UsageError, match="recorded"):
        step(*batch)


def test_no_memory_that_a_graph_uses_is_freed_to_make_room(kernels, monkeypatch):
    """CuPy's own pool frees unused blocks and retries; the graph would still write to them."""
    if kernels.is_real:
        pytest.skip("a pool asks for more while a step is recorded, or it does not")
    cuda, lacking = kernels.xp.cuda, []
    original, capture = cuda.Memory, RecordedStep._capture

    def memory(size):
        if lacking:
            raise cuda.runtime.CUDARuntimeError(lacking.pop())  # once
        return original(size)

    def record(self, stream):
        lacking.append(2)
        return capture(self, stream)

    monkeypatch.setattr(cuda, "Memory", memory)
    monkeypatch.setattr(RecordedStep, "_capture", record)
    trainer = recorded_as_unrecorded(kernels, lambda trainer: trainer.fit(2))
    assert trainer.ahead.recorded is None and not lacking


def test_a_limit_that_steps_keep_to_frees_nothing_that_a_graph_uses(kernels, monkeypatch):
    """The limit holds for every pool of CuPy; before one refuses memory it frees unused blocks."""
    monkeypatch.setenv("CUPY_GPU_MEMORY_LIMIT", "1024")
    trainer = recorded_as_unrecorded(kernels, lambda trainer: trainer.fit(2))
    assert trainer.ahead.recorded is not None and not trainer.ahead.why_not


def test_memory_that_a_step_left_is_free_for_the_recording(kernels, rng, monkeypatch):
    trainer, events = small(kernels.device, rng), []
    x, labels = next(iter(trainer.loader))
    trainer.ahead.step(x, labels)
    pool = SimpleNamespace(free_all_blocks=lambda: events.append("freed"))
    monkeypatch.setattr(kernels.xp, "get_default_memory_pool", lambda: pool)
    original = RecordedStep._step

    def step(self):
        events.append("step")
        return original(self)

    monkeypatch.setattr(RecordedStep, "_step", step)
    RecordedStep(trainer.net, trainer.optimizer, x, labels)
    assert events == ["freed", "step", "step"]  # once to load kernels, once to record


def test_without_a_gpu_training_there_is_refused_with_the_reason():
    reason = mg.backend.unavailable("cuda")
    if not reason:
        pytest.skip("a GPU is here")
    with pytest.raises(DeviceError, match=r"train: cuda(.|\n)*remedy"):
        tr.train("mlp-bn", device="cuda")


def test_train_runs_on_a_gpu(device):
    lines = []
    tr.train("mlp-bn", "digits", epochs=1, batch_size=512, device="cuda", say=lines.append)
    assert lines[0].endswith("on cuda") and "loss" in lines[0]
