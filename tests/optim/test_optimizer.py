"""Optimizers against their formulas and against PyTorch; what they accept, save and restore."""

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, nn, optim
from minigrad.errors import DTypeError, ShapeError, UsageError

EPS = np.finfo(float).eps
OPTIMIZERS = {
    "sgd": (optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "dampened": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    "adam": (optim.Adam, {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    "adamw": (optim.AdamW, {"lr": 0.05, "weight_decay": 0.3}),
}


def start(rng):
    values = [rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=())]
    return [mg.tensor(v, requires_grad=True) for v in values]


def gradients(rng, steps=6):
    return [[rng.normal(size=s) for s in ((3, 2), (3,), ())] for _ in range(steps)]


def run(optimizer, params, steps):
    for grads in steps:
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
    return [p.numpy() for p in params]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_those_of_torch(name, rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    kind, words = OPTIMIZERS[name]
    params, steps = start(rng), gradients(rng)
    twins = [torch.tensor(p.numpy(), requires_grad=True) for p in params]
    theirs = getattr(torch.optim, kind.__name__)(twins, **words)
    for grads in steps:
        for p, g in zip(twins, grads, strict=True):
            p.grad = torch.tensor(g)
        theirs.step()
    for p, q in zip(run(kind(params, **words), params, steps), twins, strict=True):
        # six steps of some ten roundings each on numbers of size 1
        np.testing.assert_allclose(p, q.detach().numpy(), rtol=0, atol=60 * np.finfo(float).eps)


def test_a_step_takes_the_new_value_without_a_copy():
    class Halving(optim.Optimizer):
        def update(self, p, g, state, group):
            self.made = p / 2
            return self.made

    (p,) = params = [mg.tensor(np.ones(3), requires_grad=True)]
    p.grad = np.ones(3)
    halving = Halving(params)
    halving.step()
    assert p.array is halving.made and not p.array.flags.writeable
    assert p.tolist() == [0.5, 0.5, 0.5]


def test_a_new_value_is_cast_to_the_dtype_of_its_parameter_and_has_its_shape():
    class Rule(optim.Optimizer):
        def update(self, p, g, state, group):
            return group["new"]

    p = mg.tensor(np.ones(3, "float32"), requires_grad=True)
    p.grad = np.ones(3, "float32")
    Rule([p], new=np.full(3, 0.5)).step()
    assert p.dtype == np.float32 and p.tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(ShapeError):
        Rule([p], new=np.ones(2, "float32")).step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_optimizer_goes_on_bit_for_bit(name, rng):
    kind, words = OPTIMIZERS[name]
    steps = gradients(rng)
    seed = np.random.default_rng(1)
    whole = start(seed)
    expected = run(kind(whole, **words), whole, steps)
    first = start(np.random.default_rng(1))
    optimizer = kind(first, **words)
    run(optimizer, first, steps[:3])
    second = [mg.tensor(p.numpy(), requires_grad=True) for p in first]
    resumed = kind(second, lr=99.0)
    resumed.load_state_dict(optimizer.state_dict())
    for a, b in zip(run(resumed, second, steps[3:]), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loaded_state_is_no_longer_that_of_the_caller(name, rng):
    kind, words = OPTIMIZERS[name]
    steps, params = gradients(rng), start(rng)
    optimizer = kind(params, **words)
    run(optimizer, params, steps[:3])
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    for entries in state["state"]:
        for value in entries.values():
            if isinstance(value, np.ndarray):
                value[...] = np.nan
    assert all(np.isfinite(p).all() for p in run(optimizer, params, steps[3:]))


def test_groups_have_options_of_their_own(rng):
    a, b = start(rng)[:2]
    optimizer = optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b]}], lr=0.0)
    shared = "momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False"
    assert repr(optimizer) == f"SGD(lr=1.0, {shared}; lr=0.0, {shared})"
    assert all("params" not in group for group in optimizer.state_dict()["param_groups"])
    before = a.numpy(), b.numpy()
    run(optimizer, [a, b], [[np.ones((3, 2)), np.ones(3)]])
    np.testing.assert_array_equal(a.numpy(), before[0] - 1)
    np.testing.assert_array_equal(b.numpy(), before[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_group_that_is_added_trains_as_if_it_were_new(name, rng):
    kind, options = OPTIMIZERS[name]
    (a, b, c), steps = start(rng), gradients(rng, 4)
    alone = [mg.tensor(p, requires_grad=True) for p in (a, b, c)]
    optimizer = optim.AGC(kind([a, b], **options), clipping=1e9)
    schedule = optim.ExponentialLR(optimizer, 0.5)
    run(optimizer, [a, b], [g[:2] for g in steps[:2]])
    schedule.step()
    optimizer.add_param_group({"params": c, "lr": 0.07})
    run(optimizer, [a, b, c], steps[2:])
    run(kind(alone[2], **{**options, "lr": 0.07}), alone[2:], [g[2:] for g in steps[2:]])
    np.testing.assert_array_equal(c, alone[2])
    schedule.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == [options["lr"] * 0.25, 0.07 * 0.25]
    fresh = [mg.tensor(p, requires_grad=True) for p in (a, b, c)]
    again = kind([{"params": fresh[:2]}, {"params": fresh[2]}])
    again.load_state_dict(optimizer.state_dict())
    np.testing.assert_array_equal(
        run(again, fresh, steps[:1])[2], run(optimizer, [a, b, c], steps[:1])[2]
    )


def test_parameters_that_the_optimizer_was_not_told_of_are_refused(rng):
    a, b, c = start(rng)
    optimizer = optim.SGD([a], lr=0.1)
    with pytest.raises(UsageError, match="each Tensor once"):
        optimizer.add_param_group({"params": [b, a]})
    with pytest.raises(UsageError, match="SGD: lr"):
        optimizer.add_param_group({"params": b, "lr": -1.0})
    assert len(optimizer.param_groups) == len(optimizer.state) == 1
    optimizer.param_groups[0]["params"].append(c)
    with pytest.raises(UsageError, match="add_param_group"):
        optimizer.step()


def test_parameters_without_a_gradient_stay(rng):
    a, b = start(rng)[:2]
    optimizer = optim.Adam([a, b])
    a.grad, before = np.ones((3, 2)), b.numpy()
    optimizer.step()
    np.testing.assert_array_equal(b.numpy(), before)
    optimizer.zero_grad()
    assert a.grad is None


def test_float32_stays_float32_and_the_gradient_is_not_changed(rng):
    p = mg.tensor(rng.normal(size=3), dtype="float32", requires_grad=True)
    for kind, words in OPTIMIZERS.values():
        p.grad = np.ones(3, dtype="float32")
        kind([p], **words).step()
        assert p.dtype == np.float32
        np.testing.assert_array_equal(p.grad.numpy(), np.ones(3))


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_takes_the_dtype_of_its_parameter(name, loaded, rng):
    """With a state in float32, Adam would round all new values of a float64 parameter, too."""
    kind, words = OPTIMIZERS[name]
    net = nn.Linear(3, 2, dtype="float32", rng=0)
    steps = [[rng.normal(size=(2, 3)), rng.normal(size=2)] for _ in range(2)]
    optimizer = kind(net.parameters(), **words)
    run(optimizer, list(net.parameters()), steps[:1])
    state = copy.deepcopy(optimizer.state_dict())
    net.to(dtype="float64")
    if loaded:
        optimizer = kind(net.parameters(), **words)
        optimizer.load_state_dict(state)
    twins = [mg.tensor(p.numpy(), requires_grad=True) for p in net.parameters()]
    other = kind(twins, **words)
    arrays = [{k: v.astype(float) if hasattr(v, "shape") else v for k, v in entries.items()}
              for entries in state["state"]]  # fmt: skip
    other.load_state_dict({**state, "state": arrays})
    expected = run(other, twins, steps[1:])
    for p, q in zip(run(optimizer, list(net.parameters()), steps[1:]), expected, strict=True):
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (optim.SGD, {"momentum": np.float64(0.9), "dampening": np.float64(0.1)}),
        (optim.Adam, {"betas": (np.float64(0.9), np.float64(0.99)), "eps": np.float64(1e-8)}),
        (optim.AdamW, {"weight_decay": np.float64(0.1), "lr": np.float64(0.1)}),
    ],
    ids=str,
)
def test_an_option_that_is_a_number_of_numpy_is_that_of_python(kind, options, rng):
    def stepped(options):
        p = mg.tensor(values, dtype="float32", requires_grad=True)
        optimizer = kind([p], **options)
        schedule = optim.LambdaLR(optimizer, lambda epoch: np.float64(0.3))
        for g in gradients:
            p.grad = g
            optimizer.step()
            schedule.step()
        return p, optimizer.state[0]

    values, *gradients = rng.normal(size=(4, 3)).astype("float32")
    plain = {k: tuple(map(float, v)) if k == "betas" else float(v) for k, v in options.items()}
    (p, state), (q, _) = stepped(options), stepped(plain)
    np.testing.assert_array_equal(p, q)
    assert all(array.dtype == np.float32 for name, array in state.items() if name != "step")


def test_what_is_no_parameter_is_refused(rng):
    with pytest.raises(UsageError, match="leaf Tensors"):
        optim.SGD([np.ones(3)])
    with pytest.raises(UsageError, match="leaf Tensors"):
        optim.SGD([start(rng)[0] * 2.0])
    with pytest.raises(UsageError, match="no parameters"):
        optim.SGD([])
    for words in ({}, {"momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(UsageError, match="nesterov"):
            optim.SGD(start(rng), nesterov=True, **words)
        with pytest.raises(UsageError, match="nesterov"):
            optim.SGD([{"params": start(rng), "nesterov": True, **words}])
    with pytest.raises(UsageError, match="SGD: momentum"):
        optim.SGD(start(rng), momentum=None, nesterov=True)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (optim.SGD, {"lr": -1.0}),
        (optim.SGD, {"lr": np.nan}),
        (optim.SGD, {"lr": np.inf}),
        (optim.SGD, {"lr": 10**400}),
        (optim.SGD, {"momentum": -0.1}),
        (optim.SGD, {"dampening": -0.1}),
        (optim.AdamW, {"weight_decay": -0.1}),
        (optim.Adam, {"eps": -1e-8}),
        (optim.Adam, {"betas": (1.0, 0.9)}),
        (optim.Adam, {"betas": (0.9, 1.5)}),
        (optim.Adam, {"betas": (0.9, 10**400)}),
        (optim.Adam, {"betas": (0.9,)}),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_options_out_of_their_range_are_refused(kind, options, rng):
    (name,) = options
    for make in (lambda p: kind(p, **options), lambda p: kind([{"params": p, **options}])):
        with pytest.raises(UsageError, match=f"{kind.__name__}: {name}"):
            make(start(rng))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in (optim.SGD, optim.Adam, optim.AdamW)
     for name in ("amsgrad", "maximize")] + [(optim.Adam, "decoupled_weight_decay")],
)  # fmt: skip
def test_a_rule_of_torch_that_is_missing_is_refused(kind, name, rng):
    params = start(rng)
    with pytest.raises(UsageError, match=f"{kind.__name__}: {name}\n.*lr, "):
        kind([{"params": params, name: True}])
    optimizer = kind([{"params": params, name: False}])
    state = optimizer.state_dict()
    (options,) = state["param_groups"]
    with pytest.raises(UsageError, match=f"{kind.__name__}: {name}"):
        optimizer.load_state_dict({**state, "param_groups": [{**options, name: True}]})
    own = type("Own", (kind,), {})(params)
    own.defaults[name] = False  # what a subclass declares is its own affair
    own.load_state_dict({**state, "param_groups": [{**options, name: True}]})
    assert own.param_groups[0][name] is True


def test_adamw_takes_the_options_of_torch_s_adamw(rng):
    torch = pytest.importorskip("torch")
    peer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))], lr=0.5)
    (options,) = peer.state_dict()["param_groups"]
    assert options["decoupled_weight_decay"]
    own = optim.AdamW(start(rng)[:1])
    own.load_state_dict({"state": [{}], "param_groups": [options]})
    assert own.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("given", [lambda p: p, lambda p: [p], lambda p: iter([p])])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("shape", [(), (3, 2)], ids=str)
def test_parameters_come_as_one_tensor_a_list_or_an_iterator(given, grouped, shape, rng):
    g = rng.normal(size=shape)
    (p,) = graded(g)
    before = p.numpy()
    optim.SGD([{"params": given(p)}] if grouped else given(p), lr=0.1).step()
    np.testing.assert_array_equal(p.numpy(), before - 0.1 * g)


@pytest.mark.parametrize("bad", [None, "0.1", [0.1], mg.tensor(0.1)], ids=repr)
def test_what_is_no_number_or_no_optimizer_is_refused(bad, rng):
    params = start(rng)
    for make in (
        lambda: optim.SGD(params, lr=bad),
        lambda: optim.Adam(params, betas=bad),
        lambda: optim.Adam(params, betas=(0.9, bad)),
        lambda: optim.AGC(optim.SGD(params), clipping=bad),
        lambda: optim.AGC(optim.SGD(params), eps=bad),
        lambda: optim.AGC(bad),
        lambda: optim.StepLR(bad, 2),
        lambda: mg.nn.Dropout(bad),
    ):
        with pytest.raises(UsageError, match="expected"):
            make()


def test_a_parameter_that_comes_twice_is_refused(rng):
    a, b, _ = start(rng)
    for params in ([a, b, a], [{"params": [a, b]}, {"params": [a]}]):
        with pytest.raises(UsageError, match="each Tensor once"):
            optim.SGD(params)


def test_a_state_of_other_parameters_is_refused(rng):
    params = start(rng)
    optimizer = optim.Adam(params)
    run(optimizer, params, gradients(rng, 1))
    state = optimizer.state_dict()
    with pytest.raises(UsageError, match="2 parameters"):
        optim.Adam(params[:2]).load_state_dict(state)
    with pytest.raises(UsageError, match="exp_avg of parameter 0"):
        optim.Adam([params[1], params[0], params[2]]).load_state_dict(state)
    (options,) = state["param_groups"]
    for spoilt, text in (
        ({"state": [3, {}, {}]}, "state of parameter 0"),
        ({"state": dict(enumerate(state["state"]))}, r"state\n.*a list (.|\n)*got: .*dict"),
        ({"param_groups": [options, options]}, "got: *2 groups, 3 parameters"),
        ({"param_groups": None}, r"param_groups\n.*a list (.|\n)*got: .*None"),
        ({"param_groups": [{**options, "lr": -5}]}, "Adam: lr"),
        ({"param_groups": [{**options, "betas": [0.9, 1.0]}]}, "Adam: betas"),
        ({"param_groups": [{"lr": 0.1}]}, "a group of Adam"),
        (optim.SGD(params).state_dict(), r"a group of Adam\n.*lr, betas(.|\n)*momentum"),
    ):
        with pytest.raises(UsageError, match=text):
            optimizer.load_state_dict({**state, **spoilt})
        assert optimizer.param_groups[0]["lr"] == 1e-3 and optimizer.state[0]["step"] == 1
    first, *others = state["state"]
    for step in (-1, "1", None, np.array(-1.0), np.float32(1.5), np.array(np.nan)):
        with pytest.raises(UsageError, match="step of parameter 0"):
            optimizer.load_state_dict({**state, "state": [{**first, "step": step}, *others]})
    for owner in (optimizer, optim.StepLR(optimizer, 2)):
        for missing in ({}, None):
            with pytest.raises(UsageError, match=r"load_state_dict\n.*a dict with"):
                owner.load_state_dict(missing)
    for rates in ([], [0.1, 0.2]):
        with pytest.raises(UsageError, match="1 base rates"):
            optim.StepLR(optimizer, 2).load_state_dict({"last_epoch": 1, "base_lrs": rates})


@pytest.mark.parametrize(
    "bad", [[1.0] * 4, "a", np.array(["a"] * 4), np.ones(4) * 1j, np.array([None] * 4)], ids=repr
)
def test_a_state_of_other_objects_than_arrays_is_refused(bad):
    """Such as lists, which JSON has in place of arrays."""
    optimizer = optim.SGD(mg.tensor(np.ones(4), requires_grad=True), momentum=0.9)
    state = {**optimizer.state_dict(), "state": [{"momentum_buffer": bad}]}
    with pytest.raises((UsageError, DTypeError), match="momentum_buffer of parameter 0"):
        optimizer.load_state_dict(state)
    assert optimizer.state == [{}]


@pytest.mark.parametrize("number", [np.array(1.0, "float32"), np.float32(1), np.array(1)], ids=repr)
def test_a_step_in_an_array_counts_as_the_same_number(number, rng):
    """PyTorch keeps it as a float32, in which ``1 - beta2**t`` loses four digits."""
    w = mg.tensor(rng.normal(size=50).astype("float32"), requires_grad=True)
    first, second = rng.normal(size=(2, 50))
    before = optim.Adam([w])
    run(before, [w], [[first]])
    state, found = before.state_dict(), []
    for step in (1, number):
        twin = mg.tensor(w.numpy(), requires_grad=True)
        resumed = optim.Adam([twin])
        resumed.load_state_dict({**state, "state": [{**state["state"][0], "step": step}]})
        found += run(resumed, [twin], [[second]])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "spoilt",
    [{"last_epoch": bad} for bad in (-3, "3", 1.5, None)]
    + [{"base_lrs": bad} for bad in (["a"], [-1.0], [np.nan], "a", 0.1, {0: 0.1})],
    ids=str,
)
def test_a_state_of_a_schedule_that_is_no_count_or_no_rates_is_refused(spoilt, rng):
    optimizer = optim.SGD(start(rng), lr=2.0)
    schedule = optim.StepLR(optimizer, 1)
    state = schedule.state_dict()
    with pytest.raises(UsageError, match=r"StepLR.load_state_dict"):
        schedule.load_state_dict({**state, "last_epoch": 1, **spoilt})
    assert schedule.state_dict() == state and schedule.get_last_lr() == [2.0]


def test_a_state_with_numbers_for_parameters_leaves_the_tensors(rng):
    (p,) = params = start(rng)[:1]
    optimizer = optim.SGD(params, lr=0.5)
    options = {**optimizer.state_dict()["param_groups"][0], "params": [0], "lr": 0.25}
    optimizer.load_state_dict({"state": [{}], "param_groups": [options]})
    assert optimizer.parameters == [p] and optimizer.param_groups[0]["lr"] == 0.25


# --- clipping -------------------------------------------------------------------------------------


def graded(*gradients, weight=None):
    tensors = []
    for g in gradients:
        p = mg.tensor(np.zeros_like(g) if weight is None else weight, requires_grad=True)
        p.grad = g
        tensors.append(p)
    return tensors


def test_the_joint_norm_is_clipped_and_returned(rng):
    gs = [rng.normal(size=(3, 2)), rng.normal(size=4)]
    norm = np.sqrt(sum((g**2).sum() for g in gs))
    params = graded(*gs)
    assert optim.clip_grad_norm_(params, norm / 2) == pytest.approx(norm, rel=1e-14)
    clipped = np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in params))
    assert clipped == pytest.approx(norm / 2, rel=2e-6)
    before = params[0].grad.numpy()
    optim.clip_grad_norm_(params, norm)
    np.testing.assert_array_equal(params[0].grad.numpy(), before)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_clipped_gradients_keep_the_dtype_of_their_parameter(shape):
    w = mg.tensor(np.ones(shape), dtype="float32", requires_grad=True)
    w.grad = given = np.full(shape, 4.0, np.float32)
    optim.clip_grad_norm_([w], np.float64(1e-3))
    assert w.grad.dtype == np.float32 and w.grad.shape == shape
    assert np.linalg.norm(w.grad) == pytest.approx(1e-3, rel=1e-5)  # 1e-6 is added to the norm
    assert (given == 4).all()


def test_one_tensor_alone_is_clipped_as_a_list_of_it(rng):
    g = rng.normal(size=(3, 2))
    for clip in (optim.clip_grad_norm_, optim.clip_grad_value_):
        (a,), (b,) = graded(g), graded(g)
        assert clip(a, 0.1) == clip([b], 0.1)
        np.testing.assert_array_equal(a.grad, b.grad)
        assert np.abs(a.grad.numpy()).max() <= 0.1
    (p,) = graded(g)
    optim.AGC(optim.SGD([p], lr=0.1), exclude=p).step()
    np.testing.assert_array_equal(p.grad, g)


@pytest.mark.parametrize("limit", [-1.0, np.nan, None, "1", 10**400], ids=lambda x: f"{x!r:.4}")
def test_a_limit_that_would_turn_gradients_round_is_refused(limit):
    params = graded(np.array([3.0, -4.0]))
    for clip in (optim.clip_grad_norm_, optim.clip_grad_value_):
        with pytest.raises(UsageError, match=f"{clip.__name__}: .*\n.*0 or more"):
            clip(params, limit)
    assert optim.clip_grad_norm_(params, np.inf) == 5.0
    assert params[0].grad.numpy().tolist() == [3.0, -4.0]
    assert optim.clip_grad_norm_(params, 0) == 5.0
    assert params[0].grad.numpy().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("clip", [optim.clip_grad_norm_, optim.clip_grad_value_])
def test_what_is_no_parameter_cannot_be_clipped(clip):
    for bad in ([np.ones(3)], np.ones(3), 3, nn.Linear(2, 2)):
        with pytest.raises(UsageError, match=rf"{clip.__name__}: parameters\n.*Tensors\n"):
            clip(bad, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_not_finite_is_told_and_changes_nothing(bad):
    params = graded(np.array([bad, 1.0]), np.array(2.0))
    np.testing.assert_equal(optim.clip_grad_norm_(params, 1.0), abs(bad))
    np.testing.assert_array_equal(params[0].grad, [bad, 1.0])
    assert params[1].grad.item() == 2.0


def test_what_has_no_gradient_is_not_clipped():
    p, q = graded(np.array([3.0, 4.0]), np.array([1.0]))
    q.zero_grad()
    optim.clip_grad_value_([p, q], 5.0)
    assert optim.clip_grad_norm_([p, q], 1.0) == 5.0
    optim.AGC(optim.SGD([p, q], lr=1.0)).step()
    assert q.grad is None and q.numpy() == 0.0 and (p.numpy() != 0.0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_norm_whose_square_overflows_is_clipped(dtype):
    large = float(np.finfo(dtype).max) / 64  # so is the joint norm, 13 / 64 of the largest number
    params = graded(*np.array([[3.0, 4.0], [12.0, 0.0]], dtype) * large)
    assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(13 * large)
    clipped = [p.grad.numpy() for p in params]
    # 4 roundings of numbers below 1
    np.testing.assert_allclose(
        clipped, [[3 / 13, 4 / 13], [12 / 13, 0.0]], rtol=0, atol=4 * np.finfo(dtype).eps
    )


def test_the_norm_of_a_long_float16_gradient_is_finite():
    (p,) = graded(np.full(90_000, 2, np.float16))
    assert optim.clip_grad_norm_([p], 6.0) == 600.0
    assert p.grad.dtype == np.float16
    np.testing.assert_allclose(p.grad.numpy(), 0.02, rtol=2 * np.finfo("float16").eps)


@pytest.mark.parametrize(("dtype", "large"), [("float16", 300), ("float32", 1e20)])
def test_adaptive_clipping_shrinks_units_whose_square_overflows(dtype, large):
    (p,) = graded(np.array([[3, 4], [3e-3, 0]], dtype) * np.array([[large], [1]], dtype),
                  weight=np.array([[0, 8], [8, 0]], dtype))  # fmt: skip
    second = p.grad.numpy()[1]
    optim.AGC(optim.SGD([p], lr=1.0), clipping=0.5).step()
    assert p.grad.dtype == dtype
    # the length becomes 4; 2 roundings of numbers below 4
    atol = 2 * 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(p.grad.numpy()[0], [2.4, 3.2], rtol=0, atol=atol)
    np.testing.assert_array_equal(p.grad.numpy()[1], second)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2), (5,)], ids=str)
def test_adaptive_clipping_limits_each_unit_to_its_share_of_the_weights(shape, rng):
    w, g = rng.normal(size=shape), rng.normal(size=shape)
    w[0] = 0.0  # a unit of zeros moves by eps
    clipping, eps = 0.3, 1e-3
    (p,) = graded(g, weight=w)
    optim.AGC(optim.SGD([p], lr=1.0), clipping, eps).step()
    axes = tuple(range(1, w.ndim)) or None

    def norm(a):
        return np.sqrt((a * a).sum(axis=axes, keepdims=True))

    most = clipping * np.maximum(norm(w), eps)
    expected = g * np.minimum(1.0, most / norm(g))
    np.testing.assert_allclose(p.grad.numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(p.numpy(), w - expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("length", "expected"), [(0.0, 0.0), (1e-8, 1e-8), (1e-7, 2e-8)])
def test_adaptive_clipping_knows_no_smallest_norm(length, expected, rng):
    direction = rng.normal(size=(1, 4))
    direction /= np.linalg.norm(direction)
    (p,) = graded(length * direction)  # the weights are 0
    optim.AGC(optim.SGD([p], lr=1.0), clipping=2e-5, eps=1e-3).step()
    np.testing.assert_allclose(p.grad.numpy(), expected * direction, rtol=1e-14, atol=0)


def test_adaptive_clipping_of_nothing_without_a_bound_gives_nothing():
    (p,) = graded(np.zeros((2, 3)))
    optim.AGC(optim.SGD([p], lr=1.0), eps=0.0).step()
    assert (p.grad.numpy() == 0).all()


def test_adaptive_clipping_leaves_excluded_parameters_and_passes_the_rest_on(rng):
    p, q = graded(rng.normal(size=(2, 2)), rng.normal(size=(2, 2)))
    before = q.grad.numpy()
    wrapper = optim.AGC(optim.SGD([p, q], lr=0.5, momentum=0.9), exclude=[q])
    schedule = optim.ExponentialLR(wrapper, 0.5)
    wrapper.step()
    np.testing.assert_array_equal(q.grad.numpy(), before)
    schedule.step()
    assert wrapper.optimizer.param_groups[0]["lr"] == 0.25
    loaded = optim.AGC(optim.SGD([p, q], momentum=0.9))
    loaded.load_state_dict(state_dict=wrapper.state_dict())
    assert loaded.optimizer.param_groups[0]["lr"] == 0.25
    wrapper.zero_grad()
    assert p.grad is None
    with pytest.raises(UsageError, match="positive"):
        optim.AGC(wrapper, clipping=0.0)


@pytest.mark.parametrize("excluded", ["weight", np.ones((2, 2))], ids=["name", "array"])
def test_what_is_no_tensor_cannot_be_excluded_from_clipping(excluded, rng):
    params = graded(rng.normal(size=(2, 2)))
    with pytest.raises(UsageError, match=r"AGC: exclude\n.*leaf Tensors"):
        optim.AGC(optim.SGD(params), exclude=[excluded])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_copy_of_adaptive_clipping_excludes_the_copies_of_the_parameters(copied, rng):
    p, q = graded(rng.normal(size=(2, 2)), rng.normal(size=(2, 2)))
    before = q.grad.numpy()
    (p, q), wrapper = copied(([p, q], optim.AGC(optim.SGD([p, q]), exclude=[q])))
    clipped = p.grad.numpy()
    wrapper.step()
    np.testing.assert_array_equal(q.grad.numpy(), before)
    assert not np.array_equal(p.grad.numpy(), clipped)


# --- schedules ------------------------------------------------------------------------------------


SCHEDULES = {
    "StepLR": ({"step_size": 2, "gamma": 0.5}, lambda e: 0.5 ** (e // 2)),
    "MultiStepLR": (
        {"milestones": [1, 3], "gamma": 0.1},
        lambda e: 0.1 ** ((e >= 1) + (e >= 3)),
    ),
    "ExponentialLR": ({"gamma": 0.9}, lambda e: 0.9**e),
    "LinearLR": (
        {"start_factor": 0.25, "total_iters": 3},
        lambda e: 0.25 + 0.75 * min(e, 3) / 3,
    ),
    "CosineAnnealingLR": (
        {"T_max": 5, "eta_min": 0.1},
        lambda e: 0.05 + (1 - 0.05) * (1 + np.cos(np.pi * e / 5)) / 2,
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_their_formula_and_resume(name, rng):
    words, factor = SCHEDULES[name]
    optimizer = optim.SGD(start(rng), lr=2.0)
    schedule = getattr(optim, name)(optimizer, **words)
    other = optim.SGD(start(rng), lr=77.0)
    resumed = getattr(optim, name)(other, **words)
    for epoch in range(6):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * factor(epoch), rel=1e-14)
        resumed.load_state_dict(state_dict=schedule.state_dict())
        assert resumed.get_last_lr() == schedule.get_last_lr() == [optimizer.param_groups[0]["lr"]]
        schedule.step()


@pytest.mark.parametrize("make_twin", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_can_be_copied_and_pickled_with_its_optimizer(name, make_twin, rng):
    schedule = getattr(optim, name)(optim.SGD(start(rng), lr=2.0), **SCHEDULES[name][0])
    schedule.step()
    twin = make_twin(schedule)
    before = schedule.get_last_lr()
    for _ in range(3):
        twin.step()
    assert schedule.get_last_lr() == before
    for _ in range(3):
        schedule.step()
    assert twin.get_last_lr() == schedule.get_last_lr()


def test_a_group_that_was_added_since_the_last_step_is_resumed_as_such(rng):
    def make(lr, groups):
        optimizer = optim.SGD([{"params": p} for p in start(rng)[:groups]], lr=lr)
        return optimizer, optim.StepLR(optimizer, 1)

    optimizer, schedule = make(1.0, 1)
    schedule.step()
    optimizer.add_param_group({"params": start(rng)[1], "lr": 0.5})
    other, resumed = make(77.0, 2)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for _ in range(3):
        assert resumed.get_last_lr() == schedule.get_last_lr()
        assert resumed.state_dict() == schedule.state_dict()
        schedule.step()
        resumed.step()
    assert schedule.base_lrs == [1.0, 0.5]


def test_milestones_may_come_from_an_iterator(rng):
    optimizer = optim.SGD(start(rng), lr=2.0)
    schedule = optim.MultiStepLR(optimizer, iter([1, 3]), gamma=0.5)
    for rate in (1.0, 1.0, 0.5):
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize(
    ("name", "option"),
    [("LinearLR", "total_iters"), ("StepLR", "step_size"), ("CosineAnnealingLR", "T_max")],
)
def test_a_schedule_over_no_epochs_is_refused(name, option, rng):
    with pytest.raises(UsageError, match=f"{name}: {option}"):
        getattr(optim, name)(optim.SGD(start(rng)), **{option: 0})


@pytest.mark.parametrize(
    ("name", "option", "bad"),
    [("LambdaLR", "lr_lambda", [float]), ("LambdaLR", "lr_lambda", 0.5),
     ("MultiStepLR", "milestones", 30), ("MultiStepLR", "milestones", [30, "80"]),
     ("MultiStepLR", "gamma", None), ("StepLR", "gamma", "0.1"), ("ExponentialLR", "gamma", 1j),
     ("CosineAnnealingLR", "eta_min", "0"), ("LinearLR", "start_factor", None),
     ("LinearLR", "end_factor", [1.0])],
)  # fmt: skip
def test_an_argument_of_a_schedule_that_is_of_another_kind_is_refused(name, option, bad, rng):
    arguments = {**SCHEDULES[name][0], option: bad} if name in SCHEDULES else {option: bad}
    with pytest.raises(UsageError, match=f"{name}: {option}\n  expected: .*\n  got: "):
        getattr(optim, name)(optim.SGD(start(rng)), **arguments)


def test_a_rate_that_overflows_is_refused(rng):
    schedule = optim.ExponentialLR(optim.SGD(start(rng)), 2.0)
    schedule.load_state_dict({"last_epoch": 1023, "base_lrs": [1.0]})
    with pytest.raises(UsageError, match=r"ExponentialLR: lr after 1024 epochs(.|\n)*got: *inf"):
        schedule.step()


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_rate_that_is_negative_or_not_finite_is_refused(bad, rng):
    optimizer = optim.SGD(start(rng), lr=0.5)
    for name, words in (
        ("LinearLR", {"start_factor": bad}),
        ("LambdaLR", {"lr_lambda": lambda epoch: bad}),
    ):
        with pytest.raises(UsageError, match=f"{name}: lr after 0 epochs"):
            getattr(optim, name)(optimizer, **words)
    assert optimizer.param_groups[0]["lr"] == 0.5
    schedule = optim.ExponentialLR(optimizer, bad)
    with pytest.raises(UsageError, match="ExponentialLR: lr after 1 epochs"):
        schedule.step()


@pytest.mark.parametrize("bad", [None, "0.1", 1j, np.ones(1), np.array(None)], ids=repr)
def test_a_factor_that_is_no_number_is_refused_with_its_epoch(bad, rng):
    optimizer = optim.SGD(start(rng), lr=0.5)
    schedule = optim.LambdaLR(optimizer, lambda epoch: 1.0 if epoch < 2 else bad)
    schedule.step()
    with pytest.raises(UsageError, match=r"LambdaLR: lr_lambda\(2\)\n.*: a number\n  got: "):
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("kind", [np.float32, np.array, mg.tensor])
def test_a_factor_may_be_any_kind_of_a_single_number(kind, rng):
    optimizer = optim.SGD(start(rng), lr=0.1)
    optim.LambdaLR(optimizer, lambda epoch: kind(0.5))
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_rule_of_a_user_replaces_that_of_sgd(kernels):
    """Even on a GPU, where SGD's own rule updates all parameters at once."""

    class SignSGD(optim.SGD):
        def update(self, p, g, state, group):
            return p - group["lr"] * np.sign(self.direction(p, g, state, group))

    def stepped(kind, update=None):
        w = mg.tensor([1.0, 2.0], requires_grad=True, device=kernels.device)
        w.grad = kernels.array([-30.0, 0.2])
        optimizer = kind([w], lr=0.5)
        if update is not None:
            optimizer.update = update
        optimizer.step()
        return w.numpy()

    np.testing.assert_array_equal(stepped(SignSGD), [1.5, 1.5])
    np.testing.assert_array_equal(stepped(optim.SGD, lambda p, g, state, group: g * p), [-30, 0.4])


def test_a_rule_may_keep_integers_and_floats_wider_than_its_parameter():
    integers = np.zeros(2, np.int8)
    starts = {"count": integers, "step": integers, "sum": np.full(2, 2.0**-40)}

    class Summing(optim.Optimizer):
        def update(self, p, g, state, group):
            for name, start in starts.items():
                state[name] = state.get(name, start) + g.astype(start.dtype)
            return p - g

    w = mg.tensor([1.0, 2.0], dtype="float32", requires_grad=True)
    w.grad = np.array([3.0, 4.0])
    first, second = Summing([w]), Summing([w])
    first.step()
    second.load_state_dict(first.state_dict())
    second.step()
    for name, array in second.state[0].items():
        np.testing.assert_array_equal(array, starts[name] + np.array([6, 8], np.int8))
        assert array.dtype == starts[name].dtype


def test_an_optimizer_needs_a_rule():
    (w,) = graded([1.0])
    with pytest.raises(NotImplementedError, match=r"Optimizer has no update\(\)"):
        optim.Optimizer([w]).step()


@pytest.mark.parametrize(
    "name",
    ["SGD", "Adam", "AdamW", "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR",
     "LinearLR"],
)  # fmt: skip
def test_defaults_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    own = inspect.signature(getattr(optim, name)).parameters
    peer = inspect.signature(
        getattr(torch.optim, name, None) or getattr(torch.optim.lr_scheduler, name)
    )
    assert {n: p.default for n, p in own.items()} == {n: peer.parameters[n].default for n in own}


def test_sgd_without_momentum_keeps_no_state(rng):
    optimizer = optim.SGD(start(rng))
    run(optimizer, optimizer.parameters, gradients(rng, 1))
    assert optimizer.state_dict()["state"] == [{}, {}, {}]


@pytest.mark.parametrize("places", [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_sgd_takes_parameters_of_several_devices(places, kernels):
    ws = [mg.tensor([1.0, 2.0], requires_grad=True, device=place) for place in places]
    for w in ws:
        w.grad = mg.tensor([0.5, 0.25], device=w.device)
    optim.SGD(ws, lr=np.uint8(1)).step()  # an unsigned lr cannot be negated as it is
    for w in ws:
        np.testing.assert_array_equal(w.numpy(), [0.5, 1.75])


@pytest.mark.parametrize("places", [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize(("kind", "words"), [(optim.SGD, {"momentum": 0.5}), (optim.Adam, {})])
def test_a_state_moves_to_the_device_of_its_parameter(kind, words, places, gpu):
    state, found = None, []
    for place in (places[0], *places):  # the second step on the first device, then on the other
        w = mg.tensor([1.0, 2.0], requires_grad=True, device=place)
        optimizer = kind([w], lr=0.1, **words)
        if state is not None:
            optimizer.load_state_dict(state)
        w.grad = mg.tensor([0.5, 0.25], device=place)
        optimizer.step()
        found.append(w.numpy())
        assert type(optimizer.state[0].get("step", 0)) is int  # a number stays on the host
        state = optimizer.state_dict() if state is None else state
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[1], found[2], rtol=1e-14)  # a GPU uses fused multiply-adds


@pytest.mark.parametrize("places", [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize(("kind", "words"), [(optim.SGD, {"momentum": 0.5}), (optim.Adam, {})])
def test_a_state_follows_a_network_that_moves(kind, words, places, gpu):
    def trained(*places):
        net = nn.Linear(3, 2, rng=0).to(places[0])
        optimizer = kind(net.parameters(), lr=0.1, **words)
        for place in places:
            net.to(place).zero_grad()
            net(mg.tensor(np.ones((2, 3)), device=place)).sum().backward()
            optimizer.step()
        assert all(backend.is_on(s, place) for s in states(optimizer))
        return net.weight.numpy()

    def states(optimizer):
        return (v for state in optimizer.state for v in state.values() if hasattr(v, "shape"))

    # a GPU uses fused multiply-adds: 2 steps of some 8 roundings of numbers below 1
    np.testing.assert_allclose(trained(*places), trained("cpu", "cpu"), rtol=0, atol=16 * EPS)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (mg.nn.Linear(1, 1), "remedy: +model.parameters"),
        (mg.nn.Sequential(mg.nn.Linear(1, 1)), "remedy: +model.parameters"),
        (3.0, "got: +float$"),
        ([{"lr": 1.0}], r"got: +the keys \['lr'\]"),
        ([{"params": mg.tensor(1.0)}, mg.tensor([1.0])], r"group\n.*params\n.*Tensor \(1,\)"),
        ([{"params": mg.tensor(1.0)}, None], r"group\n.*params\n.*None"),
    ],
)
def test_what_is_no_list_of_parameters_is_bad_usage(params, words):
    with pytest.raises(mg.errors.UsageError, match=words):
        mg.optim.SGD(params, lr=0.1)
    if isinstance(params, mg.nn.Module):
        with pytest.raises(mg.errors.UsageError, match=words):
            mg.optim.clip_grad_norm_(params, 1.0)


def test_schedules_are_where_pytorch_has_them():
    from minigrad.optim.lr_scheduler import StepLR

    assert optim.lr_scheduler.StepLR is optim.StepLR is StepLR
