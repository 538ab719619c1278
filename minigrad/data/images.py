"""MNIST and Fashion-MNIST, each read from its four files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minigrad.data.download import cache_folder, check_md5, fetch
from minigrad.data.idx import read_idx
from minigrad.errors import DataError, facts
from minigrad.files import as_path, corrupt

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


class ImageData(NamedTuple):
    """Images uint8 (N, 28, 28), labels int64 (N,) in 0 .. 9."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class _Source:
    folder: str
    md5s: tuple[str, str, str, str]  # in the order of FILES
    mirrors: tuple[str, ...]


_FASHION = _Source(
    "fashion-mnist",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
)
_MNIST = _Source(
    "mnist",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)


def fashion_mnist(
    root: str | Path | None = None,
    download: bool = True,
    *,
    mirrors: Sequence[str] | str | None = None,
) -> ImageData:
    """70,000 grayscale images of clothes, 28 x 28, in ten classes, 60,000 of them for training.

    Args:
        root: a folder with the four files. None means the folder ``fashion-mnist`` in
            ``MINIGRAD_DATA`` or else in the XDG cache, where each file must have the published
            checksum. An explicit folder may hold other data in the same format: only the structure
            of its files is checked, that is magic numbers, lengths, image size, equal numbers of
            images and labels, and labels in 0 .. 9.
        download: fetch missing files, which must have the published checksum.
        mirrors: one URL or several to try, ``file://`` included. None means ``MINIGRAD_MIRROR``,
            then the publisher's mirrors.

    Raises:
        DataError: files that are missing and cannot be fetched, or corrupt, truncated or swapped.

    Source:
        Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; MIT licence.
    """
    return _load(_FASHION, root, download, mirrors)


def mnist(
    root: str | Path | None = None,
    download: bool = True,
    *,
    mirrors: Sequence[str] | str | None = None,
) -> ImageData:
    """70,000 grayscale images of handwritten digits, 28 x 28; arguments as in ``fashion_mnist``.

    Source:
        LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document
        recognition.
    """
    return _load(_MNIST, root, download, mirrors)


def _load(
    source: _Source, root: str | Path | None, download: bool, mirrors: Sequence[str] | str | None
) -> ImageData:
    folder = cache_folder() / source.folder if root is None else as_path("data: root", root)
    for name, md5 in zip(FILES, source.md5s, strict=True):
        path = folder / name
        try:
            if not path.exists():
                if not download:
                    raise _missing(path)
                fetch(name, md5, folder, _mirrors(source, mirrors))
            if root is None:
                check_md5(path, md5)
        except OSError as error:
            expected = "a file that can be read, or downloaded to this folder"
            raise corrupt(path, expected, error) from error
    train = _images_and_labels(folder, *FILES[:2])
    return ImageData(*train, *_images_and_labels(folder, *FILES[2:]))


def _missing(path: Path) -> DataError:
    remedy = "pass download=True, or the folder that has it as root="
    got = f"no such file in {path.parent}"
    return DataError(facts(f"{path.name}: missing", expected=path, got=got, remedy=remedy))


def _mirrors(source: _Source, mirrors: Sequence[str] | str | None) -> Sequence[str]:
    if mirrors is not None:
        return [mirrors] if isinstance(mirrors, str) else mirrors
    preferred = os.environ.get("MINIGRAD_MIRROR")
    return (preferred, *source.mirrors) if preferred else source.mirrors


def _images_and_labels(
    folder: Path, images_name: str, labels_name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Images and their labels; DataError unless they fit together."""
    images = read_idx(folder / images_name, 3)
    labels = read_idx(folder / labels_name, 1)
    if not len(images):
        raise corrupt(folder / images_name, "1 or more images", "none")
    if images.shape[1:] != (28, 28):
        raise corrupt(folder / images_name, "images of 28 x 28", images.shape[1:])
    if len(images) != len(labels):
        expected = f"{len(images)} labels, one per image of {images_name}"
        raise corrupt(folder / labels_name, expected, len(labels))
    if labels.max() > 9:
        raise corrupt(folder / labels_name, "labels from 0 to 9", f"a label {labels.max()}")
    return images, labels.astype(np.int64)
