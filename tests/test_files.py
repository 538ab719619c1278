"""Files are written atomically."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

import minigrad as mg
from minigrad import files
from minigrad.errors import DTypeError


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    files.write(path, b"old")

    def fail(*args):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match=r"disk full: '.*x'"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_threads_that_write_one_file_leave_what_one_of_them_wrote(tmp_path, monkeypatch):
    path, meeting = tmp_path / "x", Barrier(2)
    monkeypatch.setattr(files.os, "fsync", lambda _: meeting.wait(10))  # both temporary files exist
    with ThreadPoolExecutor(2) as pool:
        contents = [b"1" * 9, b"2" * 20]
        for result in [pool.submit(files.write, path, content) for content in contents]:
            result.result()
    assert path.read_bytes() in contents and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_text_is_utf_8_with_line_ends_as_they_are(tmp_path):
    files.write(tmp_path / "x", "\u03b3\r\n\n")
    assert (tmp_path / "x").read_bytes() == b"\xce\xb3\r\n\n"


def test_a_link_stays_a_link_and_the_mode_of_a_file_stays(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    files.write(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("letter", ["a", "\u03b3", "\U0001f600"])
def test_a_name_may_be_as_long_as_the_system_lets_it(letter, tmp_path):
    path = tmp_path / (letter * (255 // len(letter.encode())))
    files.write(path, b"new")
    assert path.read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


def test_a_pipe_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    files.write(path, "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_folder_that_is_missing_is_an_error_about_the_path_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder, kind in (("no", FileNotFoundError), ("file", NotADirectoryError)):
        path = tmp_path / folder / "x"
        with pytest.raises(kind) as caught:
            files.write(path, b"")
        assert str(caught.value).endswith(f": {str(path)!r}")


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("draw: path", lambda bad: mg.viz.draw(mg.tensor(1.0), bad)),
        ("step: path", lambda bad: mg.viz.step(mg.tensor(1.0), bad)),
        ("data: root", lambda bad: mg.data.mnist(bad)),
        ("read_idx: path", lambda bad: mg.data.read_idx(bad, 1)),
        ("train: out", lambda bad: mg.train.train("mlp", out=bad)),
        ("save_checkpoint: path", lambda bad: mg.train.save_checkpoint(bad, {}, {})),
        ("load_checkpoint: path", lambda bad: mg.train.load_checkpoint(bad)),
    ],
)
def test_what_is_no_path_is_refused_by_the_name_of_the_argument(what, call, tmp_path):
    with (tmp_path / "x").open("w") as file:
        for bad in (3, file, {"a": 1}):
            with pytest.raises(DTypeError, match=f"^{what}\n.*a string or a Path"):
                call(bad)
