"""IDX files: genuine ones load, damaged ones are refused; downloads are whole or not at all."""

import gzip
import hashlib
import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minigrad import data
from minigrad.data import download, images
from minigrad.data.idx import read_idx
from minigrad.errors import DataError, UsageError

GENUINE = Path(__file__).parents[3] / "shared" / "data" / "fashion_mnist_900"
genuine = pytest.mark.skipif(not GENUINE.is_dir(), reason=f"no genuine images at {GENUINE.name}")


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def files(rng):
    """Four small files in the right format."""
    train, test = rng.integers(0, 256, (6, 28, 28)), rng.integers(0, 256, (3, 28, 28))
    arrays = [train, np.arange(4, 10), test, np.arange(3)]
    return {name: idx(a) for name, a in zip(images.FILES, arrays, strict=True)}


@pytest.fixture
def folder(files, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@genuine
def test_genuine_images_load():
    found = data.fashion_mnist(GENUINE, download=False)
    assert found.train_images.shape == (700, 28, 28) and found.test_images.shape == (200, 28, 28)
    assert found.train_images.dtype == np.uint8 and found.train_labels.dtype == np.int64
    assert sorted(set(found.train_labels.tolist())) == list(range(10))
    assert 60 < found.train_images.mean() < 85  # Fashion-MNIST's mean grey value is 73


def test_images_and_labels_load_from_a_named_folder(folder):
    found = data.mnist(folder, download=False)
    assert [a.shape for a in found] == [(6, 28, 28), (6,), (3, 28, 28), (3,)]
    np.testing.assert_array_equal(found.train_labels, np.arange(4, 10))


@pytest.mark.parametrize("name", images.FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[: len(c) // 2],
        lambda c: c[:-5],
        lambda c: b"",
        lambda c: b"not gzip at all",
        lambda c: c[:40] + bytes([c[40] ^ 0xFF]) + c[41:] if len(c) > 60 else c[:25],
        lambda c: gzip.compress(gzip.decompress(c)[:-1]),
        lambda c: gzip.compress(gzip.decompress(c) + b"x"),
        lambda c: gzip.compress(b""),
        lambda c: gzip.compress(b"\0\0\x09" + gzip.decompress(c)[3:]),
        lambda c: gzip.compress(gzip.decompress(c)[:4] + b"\xff" * 12),
        lambda c: b"<html>404</html>",
    ],
    ids=["half", "no tail", "empty", "text", "a flipped byte", "one byte short", "one too many",
         "empty gzip", "other type", "absurd size", "html"],
)  # fmt: skip
def test_damaged_files_are_refused_by_name(name, damage, folder):
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="cannot use this file") as caught:
        data.fashion_mnist(folder, download=False)
    assert name in str(caught.value)


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(images.FILES, 2)))
def test_swapped_files_are_refused(a, b, folder, files):
    (folder / a).write_bytes(files[b])
    (folder / b).write_bytes(files[a])
    with pytest.raises(DataError, match="cannot use this file"):
        data.fashion_mnist(folder, download=False)


def test_files_without_images_are_refused(folder):
    (folder / images.FILES[0]).write_bytes(idx(np.zeros((0, 28, 28))))
    with pytest.raises(DataError, match="1 or more images"):
        data.mnist(folder, download=False)


def test_labels_above_9_and_other_image_sizes_are_refused(folder):
    (folder / images.FILES[1]).write_bytes(idx(np.array([0, 1, 2, 3, 4, 10])))
    with pytest.raises(DataError, match="a label 10"):
        data.fashion_mnist(folder, download=False)
    (folder / images.FILES[0]).write_bytes(idx(np.zeros((6, 32, 32))))
    with pytest.raises(DataError, match=r"\(32, 32\)"):
        data.fashion_mnist(folder, download=False)


def test_a_file_that_ends_in_its_header_is_refused(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\0" * 6))
    with pytest.raises(DataError, match=r"a header of 16 bytes\n  got:      10 bytes"):
        read_idx(tmp_path / "x.gz", 3)


@pytest.mark.parametrize("ndim", [-1, 3.0, "3", None, 65, 256], ids=repr)
def test_a_number_of_dimensions_that_is_no_count_is_refused(ndim, folder):
    with pytest.raises(UsageError, match="read_idx: ndim"):
        read_idx(folder / images.FILES[0], ndim)


@pytest.mark.parametrize(("ndim", "kind"), [(1, "labels"), (2, "2 dimensions"), (3, "images")])
def test_a_file_of_other_dimensions_is_refused_by_what_was_expected(ndim, kind, tmp_path):
    (tmp_path / "x.gz").write_bytes(idx(np.zeros((1,) * 4)))
    with pytest.raises(DataError, match=rf"magic number 0000080{ndim} \({kind}\)\n.*00000804"):
        read_idx(tmp_path / "x.gz", ndim)


def test_data_behind_the_array_are_not_read(tmp_path):
    bomb = gzip.compress(bytes([0, 0, 8, 1]) + np.array([10], ">u4").tobytes() + b"\0" * 10**7)
    (tmp_path / "x.gz").write_bytes(bomb)
    with pytest.raises(DataError, match=r"10 bytes after the header.*\n  got: +more bytes"):
        read_idx(tmp_path / "x.gz", 1)
    (tmp_path / "x.gz").write_bytes(gzip.compress(gzip.decompress(bomb)[:17]))
    with pytest.raises(DataError, match=r"10 bytes after the header.*\n  got: +9 bytes"):
        read_idx(tmp_path / "x.gz", 1)


def test_a_header_cannot_make_the_reader_allocate(tmp_path):
    header = bytes([0, 0, 8, 1]) + np.array([2**31 - 1], ">u4").tobytes()
    (tmp_path / "x.gz").write_bytes(gzip.compress(header + b"\0"))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"2147483647 bytes after the header(.|\n)*1 bytes"):
            read_idx(tmp_path / "x.gz", 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**24  # some blocks of 1 MiB


# --- cache and download ---------------------------------------------------------------------------


@pytest.fixture
def source(files, monkeypatch):
    """The checksums of the small files in place of the published ones."""
    md5s = tuple(hashlib.md5(files[n]).hexdigest() for n in images.FILES)
    monkeypatch.setattr(images, "_FASHION", images._Source("fashion-mnist", md5s, ()))
    monkeypatch.setattr(download, "_PAUSE", 0.0)


@pytest.fixture
def mirror(folder, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path_factory.mktemp("cache")))
    return folder.as_uri()


def test_the_published_checksums_are_those_of_the_full_sets():
    assert images._FASHION.md5s == (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
    )  # fmt: skip


def test_a_download_from_a_file_mirror_lands_in_the_cache(source, mirror):
    first = data.fashion_mnist(mirrors=[mirror])
    assert first.train_images.shape == (6, 28, 28)
    cached = sorted(p.name for p in (download.cache_folder() / "fashion-mnist").iterdir())
    assert cached == sorted(images.FILES)  # and no half-written file
    again = data.fashion_mnist(download=False)
    np.testing.assert_array_equal(again.train_images, first.train_images)


def test_the_mirror_can_come_from_the_environment(source, mirror, monkeypatch):
    monkeypatch.setenv("MINIGRAD_MIRROR", mirror)
    assert len(data.fashion_mnist().train_labels) == 6


def test_by_default_the_mirrors_are_the_publishers(monkeypatch):
    monkeypatch.delenv("MINIGRAD_MIRROR", raising=False)
    assert images._mirrors(images._MNIST, None) == images._MNIST.mirrors


def test_mirrors_are_asked_three_times_with_growing_pauses(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    with pytest.raises(DataError, match=r"got: +no mirrors"):
        download.fetch("labels.gz", "", tmp_path, mirrors=())
    assert pauses == [0.5, 1.0]


def test_one_mirror_may_come_without_a_list(source, mirror):
    assert len(data.fashion_mnist(mirrors=mirror).train_labels) == 6


def test_a_mirror_with_wrong_bytes_is_passed_over(source, mirror, tmp_path_factory):
    bad = tmp_path_factory.mktemp("bad")
    for name in images.FILES:
        (bad / name).write_bytes(b"something else")
    with pytest.raises(DataError, match=r"md5 \w+ instead of \w+ \(14 bytes\)"):
        data.fashion_mnist(mirrors=[bad.as_uri()])
    assert len(data.fashion_mnist(mirrors=[bad.as_uri(), mirror]).train_labels) == 6


def test_without_any_mirror_the_message_says_what_was_tried(source, mirror, tmp_path):
    nowhere = (tmp_path / "nowhere").as_uri()
    with pytest.raises(DataError) as caught:
        data.fashion_mnist(mirrors=[nowhere])
    text = str(caught.value)
    assert images.FILES[0] in text and nowhere in text and "MINIGRAD_MIRROR" in text
    assert not (download.cache_folder() / "fashion-mnist" / images.FILES[0]).exists()


def test_without_download_the_missing_file_is_named(source, mirror):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: missing"):
        data.fashion_mnist(download=False)


def test_a_folder_that_cannot_take_files_is_named(source, mirror, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=f"{images.FILES[0]}: cannot use this file"):
        data.fashion_mnist(tmp_path / "file" / "below", mirrors=mirror)


def test_a_file_in_the_cache_that_cannot_be_read_is_named(source, mirror):
    path = download.cache_folder() / "fashion-mnist" / images.FILES[0]
    path.mkdir(parents=True)
    with pytest.raises(DataError, match=f"{images.FILES[0]}: cannot use this file"):
        data.fashion_mnist()


def test_a_corrupt_file_in_the_cache_is_refused(source, mirror):
    data.fashion_mnist(mirrors=[mirror])
    path = download.cache_folder() / "fashion-mnist" / images.FILES[3]
    path.write_bytes(idx(np.array([2, 1, 0])))  # well-formed, but other labels
    with pytest.raises(DataError, match="md5"):
        data.fashion_mnist(mirrors=[mirror])


@genuine
def test_other_images_in_the_cache_are_refused_with_a_hint(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path))
    (tmp_path / "fashion-mnist").symlink_to(GENUINE)
    with pytest.raises(DataError, match="root="):
        data.fashion_mnist(download=False)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGRAD_DATA", str(tmp_path / "a"))
    assert download.cache_folder() == tmp_path / "a"
    monkeypatch.delenv("MINIGRAD_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / "minigrad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / ".cache" / "minigrad"


def test_without_a_home_directory_the_remedy_is_named(monkeypatch):
    for name in ("MINIGRAD_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without one
    with pytest.raises(UsageError, match="set MINIGRAD_DATA to a folder"):
        data.mnist(download=False)
