"""Tensors in a graph: detaching, gradients, names, hashing, pickling, devices."""

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import errors


def leaf(a, name=None, dtype=None):
    return mg.tensor(a, requires_grad=True, name=name, dtype=dtype)


def test_detach_shares_the_value_and_drops_the_history():
    x = leaf([1.0, 2.0], "x")
    d = (x * 2).detach()
    assert not d.requires_grad and d.is_leaf and d.data.tolist() == [2.0, 4.0]
    (d * x).backward([1.0, 1.5])
    np.testing.assert_array_equal(x.grad.data, [2.0, 6.0])


def test_copy_method_is_a_new_node_of_the_graph():
    x = leaf(2.0)
    y = x.copy()
    (y * 3).backward()
    assert not y.is_leaf and x.grad.item() == 3.0


def test_gradients_are_assigned_and_reset():
    x = leaf([1.0, 2.0])
    x.grad = [5.0, 6.0]
    assert isinstance(x.grad, mg.Tensor)
    assert x.grad.shape == (2,) and x.grad.data.tolist() == [5.0, 6.0]
    (x * 2).backward([1.0, 2.0])
    assert x.grad.data.tolist() == [7.0, 10.0]
    x.grad = mg.tensor([1.0, 1.0])
    assert x.grad.data.tolist() == [1.0, 1.0]
    x.grad = None
    assert x.grad is None
    source = np.ones(2)
    x.grad = source
    source[:] = 9.0
    assert x.grad.data.tolist() == [1.0, 1.0]
    x = leaf([1.0, 2.0], dtype="float32")
    for given in (np.array([1, 2]), np.array([0.5, 2.0])):
        x.grad = given
        (x * 2).backward([1.0, 2.0])
        assert x.grad.dtype == np.float32 and x.grad.data.tolist() == [given[0] + 2, 6.0]
    with pytest.raises(errors.MinigradError):
        mg.tensor(1.0).grad = 1.0
    for constant in (mg.tensor(1.0), mg.tensor(1.0, name="c"), frozen(leaf(1.0))):
        with pytest.raises(errors.GraphError, match="does not require a gradient"):
            constant.retain_grad()


def frozen(x):
    x.requires_grad = False
    return x


def test_names_and_requires_grad_are_assignable_on_leaves():
    x = mg.tensor([1.0])
    x.name = "w"
    assert x.name == "w" and not x.requires_grad
    x.requires_grad = True
    assert x.requires_grad and x.name == "w"
    y = x * 2
    y.name = "y"
    assert y.name == "y"
    with pytest.raises(errors.GraphError, match="multiply"):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad


def test_a_constant_may_be_frozen_and_become_a_parameter():
    x = mg.tensor([1.0])
    x.zero_grad()
    for _ in range(2):
        x.requires_grad = False
        assert not x.requires_grad and x.grad is None
    x = mg.tensor([1.0])  # without a node
    x.requires_grad = True
    (x * 3.0).sum().backward()
    assert x.grad.item() == 3.0


def test_tensors_are_hashed_by_identity():
    x, y = leaf([1.0]), leaf([1.0])
    assert len({x, y, x}) == 2 and {x: 1}[x] == 1


@pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy"])
def test_leaves_are_pickled_and_copied_with_everything_they_hold(way):
    x = leaf([1.0, 2.0], "w", dtype="float32")
    (x * 3).backward([1.0, 2.0])
    y = {
        "pickle": lambda: pickle.loads(pickle.dumps(x)),
        "copy": lambda: copy.copy(x),
        "deepcopy": lambda: copy.deepcopy(x),
    }[way]()
    assert y is not x and y.dtype == np.float32 and y.name == "w" and y.requires_grad
    np.testing.assert_array_equal(y.data, x.data)
    np.testing.assert_array_equal(y.grad.data, [3.0, 6.0])
    assert y.grad.dtype == np.float32
    y.data = [7.0, 8.0]
    (y * 1).backward([1.0, 1.0])
    assert x.data.tolist() == [1.0, 2.0] and x.grad.data.tolist() == [3.0, 6.0]


@pytest.mark.parametrize("array", [1.5, [1, 2], [True], np.zeros((0, 2)), np.float32(1.5)])
def test_constants_are_pickled(array):
    y = pickle.loads(pickle.dumps(mg.tensor(array)))
    assert not y.requires_grad and y.grad is None and y.dtype == np.asarray(array).dtype
    np.testing.assert_array_equal(y.data, array)


def test_a_constant_with_a_gradient_is_pickled():
    c = mg.tensor([1.0, 2.0])
    _ = leaf([1.0, 2.0]) * c  # the graph gave it a node
    c.grad = [3.0, 4.0]
    y = pickle.loads(pickle.dumps(c))
    assert y.grad.data.tolist() == [3.0, 4.0]


def test_results_are_not_pickled_or_copied():
    y = leaf([1.0, 2.0]) * 2
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(errors.GraphError, match="multiply"):
            way(y)
    assert copy.copy(y.detach()).data.tolist() == [2.0, 4.0]


def test_to_the_same_device_is_the_same_tensor():
    x = leaf([1.0])
    assert x.to("cpu") is x
    for device in ("tpu", "cp", "", "cpu:1", "gpu"):
        with pytest.raises(errors.MinigradError):
            x.to(device)
