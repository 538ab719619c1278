"""Names of PyTorch raise an AttributeError with a replacement, and the replacement runs."""

import copy
import pickle
from contextlib import suppress

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import DeviceError, DTypeError, hinting
from minigrad.spelling import INSTEAD, NAMES


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_said_runs(name, tmp_path):
    x = mg.tensor(np.ones((2, 3)), name="x", requires_grad=True)
    file = tmp_path / "state.npz"
    np.savez(file, x=x)
    known = {
        "mg": mg, "np": np, "x": x, "xs": [x, x], "a": np.ones(3), "n": 2, "shape": (2, 3),
        "y": mg.tensor(np.eye(3)) if "@" in INSTEAD[name] else x, "axes": (1, 0), "index": [0],
        "mask": np.ones((2, 3), bool), "rng": np.random.default_rng(0), "file": file,
        "net": mg.nn.Sequential(mg.nn.Linear(3, 2)), "layer": mg.nn.ReLU(), "name": "part", "p": x,
        "layers": mg.nn.ModuleList(), "targets": np.zeros((2, 3)),
        "images": np.ones((1, 2, 4, 4)), "w": np.ones((3, 2, 2, 2)), "logits": x,
        "labels": np.zeros(2, int), "f": mg.sum, "dataset": [1.0, 2.0],
        "optimizer": mg.optim.SGD([x], lr=0.1), "factor": lambda epoch: 0.5**epoch,
    }  # fmt: skip
    with suppress(DeviceError):  # of x.to("cuda"), where there is no GPU
        exec(INSTEAD[name], known)


@pytest.mark.parametrize("name", sorted(NAMES.union(mg.ops.__all__)))
def test_what_tensors_do_not_have_is_answered(name):
    x = mg.tensor([1.0])
    if name not in dir(x):
        assert not hasattr(x, name) and not hasattr(mg.Tensor, name)
        with pytest.raises(AttributeError, match=rf"'Tensor' .* '{name}'; write ") as caught:
            getattr(x, name)
        assert (caught.value.name, caught.value.obj) == (name, x)


def test_an_op_is_named_where_it_is():
    x = mg.tensor([1.0])
    with pytest.raises(AttributeError, match=r"'logsumexp'; write mg\.logsumexp\(x\)"):
        x.logsumexp()
    with pytest.raises(AttributeError, match=r"'maximum'; write mg\.maximum\(x1, x2\)"):
        x.maximum(0)
    with pytest.raises(AttributeError, match=r"'stack'; write mg\.stack\(xs\)"):
        x.stack()
    with pytest.raises(AttributeError, match=r"'inv'; write mg\.ops\.inv\(a\)"):
        x.inv()
    with pytest.raises(AttributeError, match=r"'minigrad' .* 'inv'; write mg\.ops\.inv\(a\)"):
        _ = mg.inv


@pytest.mark.parametrize(
    ("module", "name"),
    [(mg, "zeros"), (mg, "cat"), (mg, "randn"), (mg.nn, "Parameter"), (mg.nn, "functional"),
     (mg.ops, "binary_cross_entropy"), (mg.optim, "DataLoader"), (mg.data, "random_split"),
     (mg, "abs"), (mg.optim, "OneCycleLR"), (mg.optim.lr_scheduler, "OneCycleLR"),
     (mg.nn.init, "trunc_normal_")],
)  # fmt: skip
def test_modules_answer_too(module, name):
    with pytest.raises(AttributeError, match=f"'{module.__name__}' .* '{name}'; write mg"):
        getattr(module, name)


def test_one_name_has_an_answer_for_each_of_its_owners():
    for owner, instead in (
        (mg, "mg.backend.unavailable()"), (mg.tensor(1.0), 'x.to("cuda")'),
        (mg.nn.ReLU(), 'net.to("cuda")'),
    ):  # fmt: skip
        with pytest.raises(AttributeError) as caught:
            _ = owner.cuda
        assert instead in str(caught.value)
    for owner, instead in (mg, "DataLoader"), (mg.nn, "clip_grad_norm_"):
        with pytest.raises(AttributeError, match=rf"'utils'; write mg\.\w+\.{instead}"):
            _ = owner.utils


def test_what_numpy_asks_of_tensors_is_left_to_numpy():
    for owner in (mg, mg.tensor([1.0])):
        with pytest.raises(AttributeError, match=r"'isnan'; write np\.isnan\(x\)$"):
            _ = owner.isnan


def test_no_remedy_is_invented_for_other_names():
    for owner in (mg, mg.nn, mg.ops, mg.optim, mg.data, mg.tensor([1.0]), mg.nn.ReLU()):
        with pytest.raises(AttributeError, match=r"has no attribute 'spam'$"):
            _ = owner.spam


def test_tensors_are_copied_and_listed_as_before():
    x = mg.tensor([1.0])
    assert {"sum", "T", "grad", "__len__"} <= set(dir(x)) and "expm1" not in dir(x)
    assert copy.deepcopy(x) == pickle.loads(pickle.dumps(x)) == x


@pytest.mark.parametrize(
    ("call", "named", "remedy"),
    [
        (lambda x: mg.sum(x).backward(retain_graph=True), "Tensor.backward", "always kept"),
        (lambda x: x.backward(gradient=x), "Tensor.backward", "use seed= instead of gradient="),
        (lambda x: x.flatten(start_dim=1), "Tensor.flatten", r"x\.flatten\(1\)"),
        (lambda x: x.var(axis=0, unbiased=False), "var", "use ddof=1 for .*, ddof=0 for False"),
        (lambda x: mg.mse_loss(x, x, reduction="sum"), "mse_loss", "plain means"),
        (lambda x: mg.nn.ReLU(inplace=True), "ReLU", "changed in place"),
        (lambda x: mg.nn.LeakyReLU(0.2, inplace=True), "LeakyReLU", "changed in place"),
        (lambda x: mg.nn.CrossEntropyLoss(label_smoothing=0.1), "CrossEntropyLoss", "log_softmax"),
        (lambda x: mg.nn.RNN(2, 3, batch_first=True), "RNN", r"\(N, T, C\)"),
        (lambda x: mg.nn.Linear(2, 3, device="cuda"), "Linear", r"write layer\.to\(device\)"),
        (lambda x: mg.nn.BatchNorm2d(3, device="cuda"), "BatchNorm2d", r"layer\.to\(device\)"),
        (lambda x: mg.nn.LazyConv2d(2, 3, device="cuda"), "LazyConv2d", r"layer\.to\(device\)"),
        (lambda x: mg.nn.Linear(2, 3).zero_grad(set_to_none=True), "Module.zero_grad", "leave it"),
        (lambda x: mg.optim.SGD([x]).zero_grad(set_to_none=True), "Optimizer.zero_grad", "leave"),
        (lambda x: mg.data.DataLoader([1.0], num_workers=2), "DataLoader", "this process"),
        (lambda x: mg.data.DataLoader([1.0], generator=0), "DataLoader", "use seed= instead"),
        (lambda x: mg.nn.init.kaiming_normal_(x, nonlinearity="relu"), "kaiming_normal_", "gain="),
        (lambda x: mg.nn.init.normal_(x, generator=0), "normal_", "use rng= instead of generator="),
        (lambda x: mg.nn.init.uniform_(x, a=0.0, b=1.0), "uniform_", "use low= .* use high= inst"),
        (lambda x: mg.nn.init.constant_(x, val=1.0), "constant_", "use value= instead of val="),
    ],
)  # fmt: skip
def test_words_of_pytorch_are_answered_where_they_are_no_parameters(call, named, remedy):
    with pytest.raises(DTypeError, match=rf"(?s)^{named}\(.* unexpected keyword .*{remedy}"):
        call(mg.tensor(np.ones((2, 3)), requires_grad=True))


def test_a_call_that_fails_otherwise_is_told_as_python_does():
    with pytest.raises(TypeError, match=r"^Sigmoid\(\) takes 1 positional .* given$"):
        mg.nn.Sigmoid(mg.tensor(1.0))

    @hinting
    def inside(dim):
        raise TypeError("of the function")

    with pytest.raises(TypeError, match=r"^of the function$"):
        inside(dim=1)


def test_a_model_of_a_user_is_told_nothing_of_pytorch():
    class Net(mg.nn.Module):
        def __init__(self, width):
            self.head = mg.nn.Linear(width, 1)

    with pytest.raises(TypeError, match=r"Net.__init__\(\) got an unexpected .* 'dim'$"):
        Net(dim=2)  # type: ignore[call-arg]


def test_layers_join_other_bases():
    class Mixin:
        def __init__(self):
            self.is_made = True

    class Net(mg.nn.ReLU, Mixin):
        pass

    assert Net().is_made
