"""anomaly_mode names the op and the line that made a NaN, an inf or a changed array."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import AnomalyError

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy warns, too
HERE = Path(__file__).name


def leaf(a, name=None):
    return mg.tensor(a, requires_grad=True, name=name)


def line_of(function, marker):
    lines, start = inspect.getsourcelines(function)
    return start + next(
        i for i, line in enumerate(lines) if marker in line and "marker" not in line
    )


def test_forward_names_op_count_and_line():
    x = leaf([1.0, 0.0, -1.0])
    with mg.anomaly_mode(), pytest.raises(AnomalyError) as caught:
        mg.log(x)  # HERE
    text = str(caught.value)
    assert "log" in text and "2 of 3" in text and "nan" in text and "inf" in text
    line = line_of(test_forward_names_op_count_and_line, "mg.log(x)  # HERE")
    assert f"{HERE}:{line}" in text
    assert isinstance(caught.value, FloatingPointError)


class Root(mg.nn.Module):
    def __init__(self):
        self.w = mg.tensor(0.0, requires_grad=True)

    def forward(self, x):
        return mg.log(self.w * x)  # NET


def test_the_line_is_one_of_the_net_and_none_of_what_trains_it():
    data = np.ones((8, 2)), np.arange(8) % 2
    layer = mg.nn.Linear(2, 2)
    layer.weight.data = np.full((2, 2), np.finfo(float).max)
    texts = []
    for net in (Root(), layer):
        trainer = mg.train.Trainer(net, mg.optim.SGD(net.parameters()), data, data)
        with pytest.raises(AnomalyError) as caught:
            list(trainer.fit(1))
        texts.append(str(caught.value).splitlines()[-1].strip())
    assert texts[0].startswith("got:      inf in 16 of 16 elements, at ")
    assert texts[0].endswith(f"{HERE}:{line_of(Root, '# NET')}")
    assert texts[1] == "got:      inf in 16 of 16 elements"


def test_forward_watches_operators_composites_and_unrecorded_ops():
    for call in (
        lambda: leaf(1.0) / 0.0,
        lambda: leaf([1.0, 1.0]) ** 1e9 * 1e308 * 1e308,
        lambda: mg.exp(mg.tensor(1e4)),
        lambda: mg.batch_norm(leaf(np.ones((2, 1))), [1.0], [0.0], eps=0.0),
        lambda: mg.log(np.zeros(2)),
    ):
        with mg.anomaly_mode(), pytest.raises(AnomalyError, match=HERE):
            call()


def test_nan_in_an_operand_is_named():
    x = leaf([1.0, np.nan], "pixels")
    with mg.anomaly_mode(), pytest.raises(AnomalyError, match="pixels"):
        _ = x * 2


def test_inf_may_pass_through_where_it_was_given():
    with mg.anomaly_mode():
        y = mg.minimum(leaf([1.0, np.inf]), 2.0)
    assert y.data.tolist() == [1.0, 2.0]


def backward_of_sqrt():
    x = leaf([4.0, 0.0], "radius")
    y = mg.sum(mg.sqrt(x))  # FORWARD
    y.backward()


def test_backward_names_op_input_and_forward_line():
    with mg.anomaly_mode(), pytest.raises(AnomalyError) as caught:
        backward_of_sqrt()
    text = str(caught.value)
    assert "sqrt" in text and "backward" in text and "radius" in text and "inf" in text
    assert f"{HERE}:{line_of(backward_of_sqrt, 'FORWARD')}" in text


def test_recorded_sweeps_are_watched_too():
    with mg.anomaly_mode(), pytest.raises(AnomalyError, match=r"sqrt|divide"):
        mg.grad(mg.grad(lambda x: mg.sqrt(x) * 1.0))(0.0)


def test_forward_sweeps_are_watched_too():
    with mg.anomaly_mode(), pytest.raises(AnomalyError, match="sqrt"):
        mg.jvp(mg.sqrt, (0.0,), (1.0,))


def test_a_graph_recorded_outside_is_checked_without_a_line():
    y = mg.sqrt(leaf([0.0]))
    with mg.anomaly_mode(), pytest.raises(AnomalyError, match="sqrt"):
        y.backward([1.0])


@pytest.mark.parametrize("which", ["input", "output"])
def test_a_saved_array_that_changed_is_found(which):
    with mg.anomaly_mode():
        x = leaf([1.0, 2.0], "weights")
        y = mg.exp(x)
        z = mg.sum(y * [1.0, 3.0])
        array = y.node.inputs[0] if which == "input" else y.node.value
        array.flags.writeable = True
        array[0] = 5.0
        with pytest.raises(AnomalyError, match="changed in place") as caught:
            z.backward()
    text = str(caught.value)
    assert HERE in text
    assert ("exp" in text and "weights" in text) if which == "input" else "multiply" in text


def test_results_are_the_same_with_and_without():
    f = lambda x: mg.sum(mg.batch_norm(x, np.ones(2), np.zeros(2)) ** 3)  # noqa: E731
    x = np.array([[1.0, 5.0], [2.0, -1.0], [4.0, 0.5]])
    expected = mg.grad(f)(x)
    with mg.anomaly_mode():
        np.testing.assert_array_equal(mg.grad(f)(x).data, expected.data)
        mg.hvp(f, x, x)
        mg.jacobian(mg.grad(f))(x)


def test_it_is_a_decorator_and_ends_with_its_block():
    @mg.anomaly_mode()
    def risky(x):
        return mg.log(x)

    with pytest.raises(AnomalyError):
        risky(leaf(0.0))
    assert mg.log(leaf(0.0)).item() == -np.inf


def test_a_user_file_beside_the_package_is_not_the_package(tmp_path):
    # a script whose path begins with the path of the package directory is still the caller
    package = Path(mg.__file__).parent
    source = "def run(mg, x):\n    return mg.log(x)\n"
    name = str(package) + "_demo.py"
    scope = {}
    exec(compile(source, name, "exec"), scope)
    with mg.anomaly_mode(), pytest.raises(AnomalyError, match=r"_demo\.py:2"):
        scope["run"](mg, leaf(0.0))
