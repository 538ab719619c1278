"""DataLoader: no sample twice, orders that repeat, and going on in the middle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad.data import DataLoader, TensorDataset, train_test_split
from minigrad.errors import DTypeError, ShapeError, UsageError


@given(
    n=st.integers(1, 40), batch=st.integers(1, 12), shuffle=st.booleans(), drop=st.booleans(),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_every_sample_comes_once_per_epoch(n, batch, shuffle, drop, seed):
    loader = DataLoader(TensorDataset(np.arange(n), -np.arange(n)), batch, shuffle, drop, seed=seed)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader)
        samples = np.concatenate([x for x, _ in batches]) if batches else np.array([])
        assert len(set(samples.tolist())) == len(samples)
        assert len(samples) == (n - n % batch if drop else n)
        assert all((x == -y).all() for x, y in batches)
        assert all(len(x) == batch for x, _ in batches[:-1])


def orders(loader, epochs):
    return [[x.tolist() for (x,) in loader] for _ in range(epochs)]


def test_the_seed_and_the_epoch_decide_the_order():
    def make(seed=5):
        return DataLoader(TensorDataset(np.arange(30)), 4, shuffle=True, seed=seed)

    a, b = orders(make(), 3), orders(make(), 3)
    assert a == b and a[0] != a[1] != a[2]
    assert orders(make(6), 1) != a[:1]
    assert orders(DataLoader(TensorDataset(np.arange(4)), 2), 1) == [[[0, 1], [2, 3]]]


def test_an_epoch_can_be_continued_in_the_middle():
    loader = DataLoader(TensorDataset(np.arange(30)), 4, shuffle=True, seed=5)
    whole = orders(loader, 3)
    loader.epoch, loader.start = 1, 2
    assert orders(loader, 2) == [whole[1][2:], whole[2]]


def test_tensors_of_a_data_set_are_moved_as_tensors():
    x = mg.tensor(np.arange(6.0).reshape(3, 2))
    (batch, labels), _ = DataLoader(TensorDataset(x, np.arange(3)), 2, device="cpu")
    assert isinstance(batch, mg.Tensor) and batch.device == "cpu"
    assert batch.tolist() == [[0, 1], [2, 3]] and labels.tolist() == [0, 1]


def test_any_sequence_of_samples_is_a_data_set():
    loader = DataLoader([(np.ones(2) * i, i) for i in range(5)], 2)
    x, y = next(iter(loader))
    np.testing.assert_array_equal(x, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(y, [0, 1])
    assert [len(b) for (b,) in DataLoader([1.0, 2.0, 3.0], 2)] == [2, 1]


def test_a_sample_that_is_a_list_is_taken_as_a_tuple():
    for pair in (list, tuple):
        x, y = next(iter(DataLoader([pair((np.ones(2) * i, i)) for i in range(3)], 3)))
        assert x.tolist() == [[0, 0], [1, 1], [2, 2]] and y.tolist() == [0, 1, 2]
        x, y = next(iter(DataLoader([pair((i, -i)) for i in range(3)], 3)))
        assert x.tolist() == [0, 1, 2] and y.tolist() == [0, -1, -2]


@pytest.mark.parametrize("sample", [{"x": 1.0}, (1.0, {"y": 1}), (1.0, None)], ids=str)
def test_a_sample_with_what_is_neither_array_nor_number_is_refused(sample):
    with pytest.raises(DTypeError, match=r"samples\n.*tuples of arrays(.|\n)*(1.0}|1}|None)"):
        list(DataLoader([sample] * 3, 2))


def test_a_subclass_of_a_data_set_of_tensors_gives_one_sample_at_a_time():
    class Flipped(TensorDataset):
        def __getitem__(self, index):
            x, label = super().__getitem__(index)
            assert np.ndim(label) == 0
            return (x[::-1] if label else x), label

    class Named(TensorDataset):
        pass

    arrays = np.arange(6).reshape(3, 2), np.array([0, 1, 0])
    ((x, labels),) = DataLoader(Flipped(*arrays), 3)
    assert x.tolist() == [[0, 1], [3, 2], [4, 5]] and labels.tolist() == [0, 1, 0]
    ((x, _),) = DataLoader(Named(*map(mg.tensor, arrays)), 3)
    assert isinstance(x, mg.Tensor)  # without an override batches are still cut from the arrays


def test_an_epoch_is_not_begun_behind_its_end():
    loader = DataLoader(TensorDataset(np.arange(5)), 2)
    loader.start = 3  # a run that was stopped after the last step
    assert list(loader) == [] and loader.epoch == 1
    loader.start = 4
    with pytest.raises(UsageError, match=r"DataLoader: start\n.*at most 3"):
        list(loader)
    assert loader.epoch == 1


def test_a_split_loses_and_repeats_nothing():
    x, y = np.arange(20), np.arange(20) * 2
    train_x, train_y, test_x, test_y = train_test_split(x, y, test=6, seed=3)
    assert sorted([*train_x, *test_x]) == list(range(20)) and len(test_x) == 6
    np.testing.assert_array_equal(train_y, train_x * 2)
    np.testing.assert_array_equal(test_y, test_x * 2)


@given(integer=st.sampled_from([np.int8, np.uint8, np.uint16, np.uint64]), k=st.integers(1, 127))
def test_a_number_of_numpy_counts_as_the_same_number_of_python(integer, k):
    x = np.arange(300)  # more than int8 and uint8 can hold
    assert [len(part) for part in train_test_split(x, test=integer(k))] == [300 - k, k]
    loaders = [DataLoader(x, number, shuffle=True) for number in (k, integer(k))]
    loaders[0].epoch, loaders[1].epoch = k, integer(k)
    for (a,), (b,) in zip(*loaders, strict=True):
        assert np.array_equal(a, b)
    assert loaders[0].epoch == loaders[1].epoch and len(loaders[0]) == len(loaders[1])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="equal length"):
        TensorDataset(np.zeros(3), np.zeros(4))
    for arrays, got in (([np.arange(5), np.arange(7)], r".*\(5,\).*, .*\(7,\)"), ([], "none")):
        with pytest.raises(ShapeError, match=rf"train_test_split\n.*\n  got: +{got}"):
            train_test_split(*arrays, test=2)
    for size in (0, 2.5, "2"):
        with pytest.raises(UsageError, match="batch_size"):
            DataLoader([1], size)
    for test in (3, 0, 2.0, 0.25, None):
        with pytest.raises(UsageError, match="test"):
            train_test_split(np.zeros(3), test=test)
    for arrays in (([1, 2, 3],), (np.float64(1),), (None, None)):  # lists take no arrays of indices
        with pytest.raises(ShapeError, match="TensorDataset"):
            TensorDataset(*arrays)
    for data in (None, 5, iter([1]), {1}, np.float64(1)):  # a set has no index, a scalar no length
        with pytest.raises(UsageError, match="dataset"):
            DataLoader(data)
    with pytest.raises(UsageError, match="seed"):
        DataLoader([1], seed=-1)
    for epoch in (-1, None, 1.5):
        with pytest.raises(UsageError, match="DataLoader: epoch"):
            DataLoader([1], shuffle=True).order(epoch)
    with pytest.raises(UsageError, match="train_test_split: seed"):
        train_test_split(np.zeros(3), test=1, seed=-1)
    for name in ("epoch", "start"):
        loader = DataLoader(TensorDataset(np.arange(4)), 2, shuffle=True)
        setattr(loader, name, -1)
        with pytest.raises(UsageError, match=f"DataLoader: {name}"):
            list(loader)


def test_a_sample_that_nests_arrays_is_refused_as_nested():
    data = [((np.zeros(2), np.zeros(3)), 1)] * 4
    with pytest.raises(DTypeError, match=r"(?s)samples\n.*got: .*in a tuple\n.*\(a, b, y\)"):
        list(DataLoader(data, 2))


@pytest.mark.parametrize(
    "data",
    [(np.zeros(3), np.zeros(4)), [(np.zeros(3), 1), (np.zeros(4), 1)], [(1, 1), (1,)]],
    ids=["arrays", "ragged", "uneven"],
)
def test_samples_that_do_not_stack_are_shown_by_their_shapes(data):
    with pytest.raises(ShapeError, match=r"(?s)DataLoader: samples.*\)\] and .*TensorDataset"):
        list(DataLoader(data, 2))


def test_data_sets_and_loaders_show_what_they_hold():
    data = TensorDataset(np.ones((5, 2), "float32"), np.arange(5))
    assert repr(data) == "TensorDataset(ndarray (5, 2) float32, ndarray (5,) int64)"
    shown = "DataLoader(5 samples, batch_size=2, shuffle=True, drop_last=False, seed=3)"
    assert repr(DataLoader(data, 2, shuffle=True, seed=3)) == shown
