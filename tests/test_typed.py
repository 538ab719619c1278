"""Programs as users write them; ``pyright`` checks this file, too, and so what editors show."""

# pyright: reportUnknownMemberType=true, reportUnknownVariableType=true
from typing import assert_type

import numpy as np

import minigrad as mg
from minigrad import Tensor, nn


def test_what_is_made_of_a_tensor_is_known_as_one():
    x = mg.tensor([[1.0, 2.0]], requires_grad=True)
    made = [x + 1, 2 * x, x / x, x @ x.T, -x, abs(x), x**2, x > 1, x[0], x.T]
    made += [x.sum(), x.mean(axis=0), x.reshape(2), x.flatten(), x.argmax(1), x.detach()]
    made += [x.exp(), x.softmax(1)]
    for y in assert_type(made, list[Tensor]):
        assert isinstance(y, Tensor)
    assert (x == x).all() and not (x != x).any()


def test_a_training_loop_asks_a_type_checker_no_questions():
    class Net(nn.Module):
        def __init__(self, features: int):
            self.body = nn.Sequential(nn.Linear(features, 4), nn.ReLU(), nn.BatchNorm1d(4))
            self.head = nn.Linear(4, 2)
            self.register_buffer("calls", np.zeros(()))

        def forward(self, x):
            self.update_buffers(calls=self.calls.numpy() + 1)
            return self.head(self.body(x))

    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 3)), np.arange(6) % 2
    net = Net(3)
    optimizer = mg.optim.AGC(mg.optim.SGD(net.parameters(), lr=0.1))
    for batch, its_labels in mg.data.DataLoader(mg.data.TensorDataset(x, labels), 3):
        loss = mg.cross_entropy(net(batch), its_labels)
        loss.backward()
        assert net.body[0].weight.grad.numpy().any() and net.head.bias.grad.size == 2
        optimizer.step()
        optimizer.zero_grad()
    assert net.calls.item() == 2

    report = mg.verify.check_backward(lambda x: (x**2, x), lambda y_bar, x: (y_bar * x,), x)
    finding = report.findings[0]
    assert abs(finding.got - finding.expected) > finding.bound and len(finding.index) == 2


def test_functions_that_take_or_make_functions_have_known_types():
    rng = np.random.default_rng(0)
    x = mg.tensor(rng.normal(size=3), requires_grad=True)
    slope = mg.grad(mg.tanh)(0.5)
    y, pullback = mg.vjp(mg.tanh, x)
    (x_bar,) = pullback(y)
    assert assert_type(mg.jvp(mg.tanh, x, x_bar), tuple[Tensor, Tensor])[0].shape == (3,)
    value, gradient = mg.value_and_grad(lambda x: mg.sum(x * x))(x)
    products = mg.hvp(lambda x: mg.sum(x * x), x, x), mg.jacobian(mg.tanh)(x)
    assert slope.ndim == value.ndim == 0
    assert [z.ndim for z in (gradient, *products)] == [1, 1, 2]

    @mg.no_grad()
    def largest(x: Tensor) -> float:
        return x.max().item()

    @mg.no_grad
    def smallest(x: Tensor) -> float:
        return x.min().item()

    assert assert_type(smallest(x), float) < assert_type(largest(x), float)
    with mg.no_grad():
        x -= x
    assert not assert_type(x, Tensor).numpy().any()
