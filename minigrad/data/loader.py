"""Batches: every sample once per epoch, in an order that depends only on the seed and the epoch."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.errors import (
    DTypeError,
    ShapeError,
    UsageError,
    check_count,
    describe,
    facts,
    hinting,
)


def check_lengths(name: str, arrays: tuple) -> None:
    """Raise ShapeError unless all ``arrays`` have a first axis, and of the same length."""
    lengths = {tuple(getattr(a, "shape", ()))[:1] for a in arrays}
    if len(lengths) != 1 or lengths == {()}:
        got = ", ".join(map(describe, arrays)) or "none"
        raise ShapeError(facts(name, expected="arrays of equal length", got=got))


class TensorDataset:
    """Arrays of one length, indexed together.

    >>> data = mg.data.TensorDataset(np.arange(3) * 10, np.arange(3))
    >>> len(data), data[1]
    (3, (np.int64(10), np.int64(1)))
    """

    def __init__(self, *arrays: Any):
        check_lengths("TensorDataset", arrays)
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __repr__(self) -> str:
        return f"TensorDataset({', '.join(map(describe, self.arrays))})"

    def __getitem__(self, index: Any) -> tuple:
        return tuple(a[index] for a in self.arrays)


class DataLoader:
    """Iterates over batches of a data set; one pass is an epoch.

    The order of epoch e is a function of ``(seed, e)``, so it is reproducible, and an interrupted
    run can resume in the middle of an epoch: ``loader.epoch = e; loader.start = k``.

    Args:
        dataset: a TensorDataset, or anything with ``len`` and integer indexing. Each of its items
            is an array, a number, or a tuple or list of them.
        batch_size: samples per batch.
        shuffle: use a new random order in each epoch.
        drop_last: leave out the last batch if it is smaller.
        seed: the seed of the random orders.
        device: the device that the arrays of a batch are moved to; None leaves them where they are.

    Attributes:
        epoch: the number of the next pass, counted from 0.
        start: how many batches the next pass skips at its beginning; that pass resets it to 0.

    >>> loader = mg.data.DataLoader(mg.data.TensorDataset(np.arange(5)), 2, shuffle=True, seed=1)
    >>> [batch.tolist() for batch, in loader]
    [[4, 0], [1, 2], [3]]
    """

    @hinting
    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        *,
        seed: int = 0,
        device: str | None = None,
    ):
        batch_size = check_count("DataLoader: batch_size", batch_size)
        check_count("DataLoader: seed", seed, least=0)
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            expected = "a TensorDataset, or an object with len() and integer indexing"
            raise UsageError(facts("DataLoader: dataset", expected=expected, got=describe(dataset)))
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.shuffle, self.drop_last, self.device = shuffle, drop_last, device
        self.epoch = self.start = 0

    def __repr__(self) -> str:
        names = "batch_size", "shuffle", "drop_last", "seed"
        options = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"DataLoader({len(self.dataset)} samples, {options})"

    def __len__(self) -> int:
        """Batches per epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the samples in their order in ``epoch``."""
        check_count("DataLoader: epoch", epoch, least=0)
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        return np.random.default_rng([self.seed, epoch]).permutation(n)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        epoch = check_count("DataLoader: epoch", self.epoch, least=0)
        first = check_count("DataLoader: start", self.start, least=0)
        if first > len(self):
            expected = f"at most {len(self)}, the number of batches"
            raise UsageError(facts("DataLoader: start", expected=expected, got=first))
        order = self.order(epoch)
        self.epoch, self.start = epoch + 1, 0
        for i in range(first, len(self)):
            batch = self._batch(order[i * self.batch_size : (i + 1) * self.batch_size])
            if self.device is not None:
                batch = tuple(ops.to_device(array, device=self.device) for array in batch)
            yield batch

    def _batch(self, indices: np.ndarray) -> tuple:
        if type(self.dataset).__getitem__ is TensorDataset.__getitem__:
            return self.dataset[indices]  # an override may take only one index at a time
        items = [self.dataset[int(i)] for i in indices]
        items = [item if isinstance(item, (tuple, list)) else (item,) for item in items]
        try:
            columns = tuple(np.stack(column) for column in zip(*items, strict=True))
        except ValueError as error:
            raise _cannot_stack(items, error) from error
        if any(column.dtype == object for column in columns):  # such as a dict
            expected, got = "tuples of arrays or numbers", ", ".join(map(describe, items[0]))
            raise DTypeError(facts("DataLoader: samples", expected=expected, got=got))
        return columns


def _cannot_stack(items: list, error: ValueError) -> DTypeError | ShapeError:
    """The error for samples that NumPy cannot stack into the arrays of a batch."""
    if any(isinstance(a, (tuple, list)) for a in items[0]):
        expected, got = "tuples of arrays or numbers", "a tuple or list in a tuple"
        remedy = "write (a, b, y) instead of ((a, b), y)"
        return DTypeError(facts("DataLoader: samples", expected=expected, got=got, remedy=remedy))
    shapes = dict.fromkeys(str([getattr(a, "shape", ()) for a in item]) for item in items)
    headline, got = f"DataLoader: samples: {error}", " and ".join(list(shapes)[:2])
    remedy = "pass whole arrays as TensorDataset(x, y)"
    return ShapeError(facts(headline, expected="samples of equal shapes", got=got, remedy=remedy))


def train_test_split(*arrays: Any, test: int, seed: int = 0) -> tuple:
    """Split arrays of one length at random into a training and a test part.

    Args:
        arrays: arrays of one length.
        test: the number of samples in the test part.
        seed: the seed of the random order.

    Returns:
        ``(train_1, train_2, ..., test_1, test_2, ...)``.

    Raises:
        ShapeError: arrays of different lengths. UsageError: a part that would be empty.

    >>> train, test = mg.data.train_test_split(np.arange(5), test=2)
    >>> sorted([*train, *test]) == [0, 1, 2, 3, 4], len(test)
    (True, 2)
    """
    check_lengths("train_test_split", arrays)
    n = len(arrays[0])
    test = check_count("train_test_split: test", test, most=n - 1)
    check_count("train_test_split: seed", seed, least=0)
    order = np.random.default_rng(seed).permutation(n)
    train, held_out = np.split(order, [n - test])
    return (*(a[train] for a in arrays), *(a[held_out] for a in arrays))
