"""Data sets and batches."""

from minigrad.data.digits import digits
from minigrad.data.idx import read_idx
from minigrad.data.images import ImageData, fashion_mnist, mnist
from minigrad.data.loader import DataLoader, TensorDataset, train_test_split
from minigrad.errors import DataError
from minigrad.spelling import of_module

__all__ = [
    "DataError", "DataLoader", "ImageData", "TensorDataset", "digits", "fashion_mnist", "mnist",
    "read_idx", "train_test_split",
]  # fmt: skip

__getattr__ = of_module(__name__)
