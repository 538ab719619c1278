"""An array the graph still needs cannot change unnoticed."""

from array import array
from collections import deque

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import GraphError, OverwrittenError


def leaf(a, name=None):
    return mg.tensor(a, requires_grad=True, name=name)


def test_data_is_a_read_only_view():
    for x in (leaf([1.0, 2.0]), leaf([1.0, 2.0]) * 2, mg.tensor([1.0, 2.0]), leaf([1.0]).detach()):
        with pytest.raises(ValueError, match="read-only"):
            x.data[0] = 1.0
        with pytest.raises(ValueError, match="read-only"):
            np.add(x.data, 1.0, out=x.data)
        with pytest.raises(ValueError, match="read-only"):
            np.asarray(x)[0] = 1.0


def test_a_tensor_cannot_be_the_output_of_a_ufunc():
    x = leaf([1.0, 2.0])
    with pytest.raises(TypeError):
        np.add(np.ones(2), np.ones(2), out=x)
    np.testing.assert_array_equal(x.data, [1.0, 2.0])


ASSIGNMENTS = {
    "data": lambda x: setattr(x, "data", [5.0, 6.0]),
    "item": lambda x: x.__setitem__(0, 5.0),
    "slice": lambda x: x.__setitem__(slice(None), 5.0),
    "mask": lambda x: x.__setitem__(x.data > 1, 5.0),
    "same value": lambda x: setattr(x, "data", [1.0, 2.0]),
}

SWEEPS = {
    "backward": lambda y, x: mg.sum(y).backward(),
    "seeded": lambda y, x: y.backward([1.0, 2.0]),
}


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_graph_of_an_assigned_tensor_refuses_to_be_swept(assignment, constant, sweep):
    w = leaf([3.0, 4.0], "w")
    x = mg.tensor([1.0, 2.0], requires_grad=not constant, name="weight")
    y = w * x
    ASSIGNMENTS[assignment](x)
    with pytest.raises(OverwrittenError) as caught:
        SWEEPS[sweep](y, x)
    text = str(caught.value)
    assert "multiply" in text and "weight" in text and "(2,)" in text
    assert isinstance(caught.value, RuntimeError)
    assert w.grad is None and x.grad is None


def test_a_graph_of_an_assigned_unnamed_constant_refuses_to_be_swept():
    w, c = leaf([3.0, 4.0]), mg.tensor([1.0, 2.0])
    y = w * c
    c[0] = 9.0
    with pytest.raises(OverwrittenError, match="multiply"):
        y.backward([1.0, 2.0])


def test_an_assignment_before_recording_is_what_counts():
    x = leaf([1.0, 2.0])
    x[1] = 5.0
    mg.sum(x * x).backward()
    np.testing.assert_array_equal(x.grad.data, [2.0, 10.0])
    np.testing.assert_array_equal(x.data, [1.0, 5.0])


def test_a_new_forward_after_an_assignment_works_while_the_old_graph_refuses():
    x = leaf([1.0, 2.0])
    old = mg.sum(x * x)
    x.data = x.data - 0.5  # an optimizer step
    new = mg.sum(x * x)
    new.backward()
    np.testing.assert_array_equal(x.grad.data, [1.0, 3.0])
    with pytest.raises(OverwrittenError):
        old.backward()
    np.testing.assert_array_equal(x.grad.data, [1.0, 3.0])


def test_the_gradient_survives_an_assignment():
    x = leaf([1.0, 2.0])
    mg.sum(x * x).backward()
    x.data = x.data - x.grad.data
    np.testing.assert_array_equal(x.grad.data, [2.0, 4.0])
    assert x.requires_grad and x.is_leaf


def test_pullbacks_of_an_assigned_closure_refuse():
    w = leaf([1.0, 2.0], "w")
    _, pullback = mg.vjp(lambda x: x * w, [3.0, 4.0])
    w[0] = 9.0
    with pytest.raises(OverwrittenError, match="w "):
        pullback([1.0, 2.0])


@pytest.mark.parametrize("transform", ["grad", "jvp", "jacobian", "nested"])
def test_a_function_that_assigns_its_argument_never_gives_a_wrong_gradient(transform):
    def f(x):
        x[0] = 5.0
        return mg.sum(x * x)

    run = {
        "grad": lambda: mg.grad(f)(np.ones(2)),
        "jvp": lambda: mg.jvp(f, (np.ones(2),), (np.array([1.0, 2.0]),)),
        "jacobian": lambda: mg.jacobian(f)(np.ones(2)),
        "nested": lambda: mg.grad(lambda x: mg.sum(mg.grad(f)(x)))(np.ones(2)),
    }[transform]
    with pytest.raises(GraphError):
        run()


def test_results_cannot_be_assigned():
    y = leaf([1.0, 2.0]) * 2
    for assign in (lambda: setattr(y, "data", [1.0, 2.0]), lambda: y.__setitem__(0, 1.0)):
        with pytest.raises(GraphError, match="multiply"):
            assign()


def test_an_assigned_value_that_requires_grad_is_not_lost_silently():
    x, w = mg.tensor([1.0, 2.0]), leaf(3.0, "w")
    with pytest.raises(mg.errors.MinigradError):
        x[0] = w


def test_the_source_of_a_tensor_may_change():
    for source in (np.array([1.0, 2.0]), np.array([[1.0, 9.0], [2.0, 9.0]])[:, 0]):
        x = leaf(source)
        y = x * x
        source[...] = 7.0
        y.backward([1.0, 2.0])
        np.testing.assert_array_equal(x.grad.data, [2.0, 8.0])


def test_a_read_only_source_with_a_writeable_view_may_change():
    source = np.array([1.0, 2.0])
    view = source[:]
    source.flags.writeable = False
    x, w = leaf(source), leaf([3.0, 4.0])
    y, z = x * x, w * source
    view[...] = 7.0
    y.backward(source * 0 + [1.0, 2.0])
    z.backward([1.0, 2.0])
    np.testing.assert_array_equal(x.grad.data, [2.0, 8.0])
    np.testing.assert_array_equal(w.grad.data, [1.0, 4.0])


def test_a_raw_operand_may_change_after_the_call():
    x, raw = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    y = x * raw
    raw[:] = -1.0
    y.backward([1.0, 2.0])
    np.testing.assert_array_equal(x.grad.data, [3.0, 8.0])


def test_an_operand_that_is_a_list_may_change_after_the_call():
    x, raw = leaf([1.0, 2.0]), [3.0, 4.0]
    y = raw * x
    raw[0] = -1.0
    y.backward([1.0, 2.0])
    np.testing.assert_array_equal(x.grad.data, [3.0, 8.0])


def test_an_index_may_change_after_the_call():
    x, rows, mask = leaf([1.0, 2.0, 3.0]), np.array([2, 2]), np.array([True, False, True])
    both = [0, 1]
    y = mg.sum(x[rows] * [1.0, 2.0]) + mg.sum(x[mask] * [10.0, 20.0]) + mg.sum(x[both] * 100.0)
    rows[:], mask[:], both[0] = 0, False, 2
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [110.0, 100.0, 23.0])


class Foreign:
    """An array of some other library."""

    def __init__(self, values):
        self.values = np.array(values)

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __setitem__(self, key, value):
        self.values[key] = value


@pytest.mark.parametrize(
    ("make", "index"),
    [
        (np.array, lambda i: slice(i, 2)),
        (np.array, lambda i: (..., slice(i, 2))),
        (mg.tensor, lambda i: slice(i, 2)),
        (mg.tensor, lambda i: [i, 1]),
        (mg.tensor, lambda i: (None, [i, 1])),
        (lambda i: array("l", [i, 1]), lambda rows: rows),
        (lambda i: array("l", [i, 1]), memoryview),
        (lambda i: deque([i, 1]), lambda rows: rows),
        (lambda i: Foreign([i, 1]), lambda rows: rows),
    ],
)
def test_what_an_index_is_made_of_may_change_after_the_call(make, index):
    x, part = leaf([1.0, 2.0, 3.0]), make(0)
    y = mg.sum(x[index(part)] * [10.0, 20.0])
    part[() if make in (np.array, mg.tensor) else 0] = 2
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [10.0, 20.0, 0.0])


def test_a_tensor_index_may_be_assigned_after_the_call():
    x, rows = leaf([1.0, 2.0, 3.0]), mg.tensor([2, 0])
    y = x[rows]
    rows.data = [1, 1]
    y.backward([1.0, 2.0])
    np.testing.assert_array_equal(x.grad.data, [2.0, 0.0, 1.0])


def test_a_clip_limit_may_change_after_the_call():
    x, low = leaf([1.0, 2.0, 3.0]), np.array([0.0, 2.5, 0.0])
    y = mg.clip(x, low, None)
    low[:] = 10.0
    np.testing.assert_array_equal(y.data, [1.0, 2.5, 3.0])
    y.backward([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(x.grad.data, [1.0, 0.0, 4.0])


def test_a_seed_may_change_after_the_sweep():
    x, seed = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    (x + 0.0).backward(seed)
    seed[:] = -1.0
    np.testing.assert_array_equal(x.grad.data, [3.0, 4.0])


def test_given_statistics_may_change_after_the_call(rng):
    x, mean, var = leaf(rng.normal(size=(4, 2))), np.zeros(2), np.ones(2)
    y = mg.batch_norm(x, np.ones(2), np.zeros(2), mean=mean, var=var, eps=0.0)
    mean[:], var[:] = 5.0, 25.0
    seed = rng.normal(size=(4, 2))
    y.backward(seed)
    np.testing.assert_array_equal(x.grad.data, seed)


def test_a_copy_made_by_numpy_belongs_to_the_caller():
    x = leaf([1.0, 2.0])
    y = x * x
    mine = y.numpy()
    mine[:] = 7.0
    np.array(y)[:] = 7.0
    np.testing.assert_array_equal(y.data, [1.0, 4.0])


def test_the_gradient_is_not_the_memory_of_another_gradient():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (a + b).backward([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        a.grad.data[0] = 9.0
    np.testing.assert_array_equal(b.grad.data, [1.0, 2.0])


def test_an_unchanged_requires_grad_keeps_the_graph_connected():
    x = leaf([1.0, 2.0])
    y = mg.sum(x * x)
    x.requires_grad = True
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [2.0, 4.0])


@pytest.mark.parametrize("was_on", [False, True])
def test_a_constant_that_becomes_a_leaf_is_refused_by_graphs_that_left_a_part_of_it_out(was_on):
    x = mg.tensor([2.0, 1.0], requires_grad=was_on, name="x")
    x.requires_grad = False
    w = leaf([1.0, 4.0])
    y = mg.sum(x * w) + mg.sum((x * 2) * w)  # x * 2 is not recorded
    x.requires_grad = True
    with pytest.raises(OverwrittenError, match=r"(?s)x \(2,\).*requires_grad"):
        y.backward()
    mg.sum(x * w).backward()
    np.testing.assert_array_equal(x.grad.data, [1.0, 4.0])


def test_switching_requires_grad_off_and_on_never_loses_a_gradient_silently():
    x = leaf([1.0, 2.0])
    y = mg.sum(x * x)
    x.requires_grad = False
    x.requires_grad = True
    try:
        y.backward()
    except GraphError:
        return  # the sweep refuses: its leaf was replaced
    np.testing.assert_array_equal(x.grad.data, [2.0, 4.0])
