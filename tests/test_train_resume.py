"""Checkpoints: whole at every moment, refused when damaged, and continued bit for bit."""

import json
import os
import pickle
import random
import signal
import sys
import time

import numpy as np
import pytest
from endless import start, trainer

import minigrad as mg
from minigrad import nn, optim
from minigrad import train as tr
from minigrad.errors import DataError, DTypeError, MinigradError, MissingPackageError, UsageError
from minigrad.train.checkpoint import NAME, pack_optimizer, unpack_optimizer

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

KILLS = 20
EPOCHS = 400


@pytest.fixture(autouse=True)
def no_signal_is_ignored():
    """Not even where a shell runs the tests in the background, whose jobs ignore SIGINT."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def weights(path):
    arrays, _ = tr.load_checkpoint(path)
    return {name: array.tobytes() for name, array in sorted(arrays.items())}


def wait_for_news(path, process):
    """Wait until ``path`` has been written again, or the process has ended."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.is_alive() and not (path.exists() and path.stat().st_mtime_ns != before):
        time.sleep(0.001)


def test_killed_at_random_moments_a_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path):
    undisturbed, killed = tmp_path / "a" / NAME, tmp_path / "b" / NAME
    start(undisturbed, EPOCHS).join()
    dice, epochs = random.Random(3), set()
    for life in range(KILLS):
        process = start(killed, EPOCHS)
        if life % 2:  # every other process first saves once, however busy the machine is
            wait_for_news(killed, process)
        time.sleep(dice.uniform(0.0, 0.03))
        process.kill()
        process.join()
        if killed.exists():  # never half-written: it loads and is complete
            arrays, meta = tr.load_checkpoint(killed)
            assert arrays.keys() == tr.load_checkpoint(undisturbed)[0].keys()
            epochs.add(meta["progress"]["epoch"])
    assert len(epochs) >= KILLS // 2, "the kills did not fall into the training"
    process = start(killed, EPOCHS)
    process.join()
    assert process.exitcode == 0
    assert weights(killed) == weights(undisturbed)


def test_ctrl_c_after_the_last_step_is_not_lost(tmp_path):
    run = trainer(tmp_path / NAME)
    with pytest.raises(KeyboardInterrupt):
        [signal.raise_signal(signal.SIGINT) for _ in run.fit(1)]
    assert tr.load_checkpoint(run.path)[1]["progress"]["epoch"] == 1


def test_ctrl_c_while_an_epoch_is_finished_is_not_lost(tmp_path):
    run = trainer(tmp_path / NAME)
    finish = run.schedule.step
    run.schedule.step = lambda: (signal.raise_signal(signal.SIGINT), finish())
    with pytest.raises(KeyboardInterrupt):
        next(run.fit(2))
    assert tr.load_checkpoint(run.path)[1]["progress"]["epoch"] == 1


def test_ctrl_c_between_epochs_is_that_of_the_caller(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    runs = [trainer(tmp_path / name).fit(2) for name in ("a", "b")]
    for _ in zip(*runs, strict=False):
        assert signal.getsignal(signal.SIGINT) is before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, SystemExit),
        (signal.SIGHUP, SystemExit),
    ],
)
def test_a_signal_in_the_middle_of_an_epoch_leaves_a_checkpoint(number, error, tmp_path):
    whole, path = trainer(tmp_path / "a" / NAME), tmp_path / "b" / NAME
    list(whole.fit(4))
    run, steps = trainer(path), iter(range(100))
    run.on_batch = lambda n: signal.raise_signal(number) if next(steps) == 8 else None
    before = signal.getsignal(number)
    with pytest.raises(error):
        list(run.fit(4))
    assert signal.getsignal(number) is before
    progress = tr.load_checkpoint(path)[1]["progress"]
    assert (progress["epoch"], progress["batch"]) == (1, 3)  # six batches an epoch
    resumed = trainer(path)
    resumed.resume()
    list(resumed.fit(4))
    assert weights(path) == weights(whole.path)
    for a, b in zip(resumed.progress.history, whole.progress.history, strict=True):
        assert (a.loss, a.train_acc, a.test_acc) == (b.loss, b.train_acc, b.test_acc)


def test_a_closed_terminal_that_sends_sighup_twice_leaves_a_checkpoint(tmp_path):
    """The shell sends it to its jobs, and the kernel again when the shell has ended."""
    run = trainer(tmp_path / NAME)

    def hang_up(n):
        for _ in range(2):
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL  # it would end the tests
            signal.raise_signal(signal.SIGHUP)

    run.on_batch = hang_up
    with pytest.raises(SystemExit) as stopped:
        next(run.fit(1))
    assert stopped.value.code == 128 + signal.SIGHUP
    assert tr.load_checkpoint(run.path)[1]["progress"]["batch"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(number, tmp_path):
    """As SIGHUP after ``nohup``."""
    run = trainer(tmp_path / NAME)
    run.on_batch = lambda n: signal.raise_signal(number)
    signal.signal(number, signal.SIG_IGN)
    assert len(list(run.fit(1))) == 1
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_caller_s_own_answer_to_sigterm_stays(tmp_path):
    run, heard, steps = trainer(tmp_path / NAME), [], iter(range(100))
    run.on_batch = lambda n: signal.raise_signal(signal.SIGTERM) if next(steps) == 2 else None
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        assert len(list(run.fit(1))) == 1 and heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_a_process_from_outside(number, tmp_path):
    path = tmp_path / NAME
    for _ in range(5):
        process = start(path, 10**6)
        wait_for_news(path, process)
        os.kill(process.pid, number)
        process.join(60)
        code = process.exitcode
        process.kill()
        if code != -number:  # else it came between two epochs, where the caller runs
            break
    assert code is not None and code > 0  # it ended by itself, with an error
    assert tr.load_checkpoint(path)[1]["progress"]["epoch"] > 0


def test_a_resumed_recipe_goes_on_bit_for_bit(tmp_path):
    def run(folder, resume):
        return tr.train("mlp-bn", "digits", epochs=4, out=folder,
                        resume=resume, say=lambda line: None)  # fmt: skip

    whole = run(tmp_path / "a", False)
    lines = []

    def stop_after_two(line):
        lines.append(line)
        if line.startswith("epoch 2"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tr.train("mlp-bn", "digits", epochs=4, out=tmp_path / "b", say=stop_after_two)
    again = run(tmp_path / "b", True)
    assert len(again.history) == 4
    for name, value in whole.net.state_dict().items():
        np.testing.assert_array_equal(again.net.state_dict()[name].numpy(), value.numpy())


def test_resume_without_a_checkpoint_starts_anew_and_without_a_folder_is_refused(tmp_path):
    said = []
    words = {"epochs": 1, "out": tmp_path / "new", "resume": True, "say": said.append}
    trained = tr.train("mlp-bn", "digits", **words)
    assert len(trained.history) == 1
    assert said[0] == f"no checkpoint in {tmp_path / 'new'} yet: starting from scratch"
    with pytest.raises(UsageError, match="out="):
        tr.train("mlp-bn", "digits", epochs=1, resume=True)


def test_a_checkpoint_of_other_settings_is_refused_by_their_names(tmp_path):
    words = {"epochs": 1, "out": tmp_path, "say": lambda line: None}
    tr.train("mlp-bn", "digits", **words)
    with pytest.raises(UsageError, match="seed=0") as caught:
        tr.train("mlp-bn", "digits", seed=7, resume=True, **words)
    assert "seed=7" in str(caught.value) and "lr" not in str(caught.value)
    with pytest.raises(UsageError, match=r"rates depend on the epochs\n.*epochs=1\n.*epochs=2"):
        tr.train("mlp-bn", "digits", resume=True, **{**words, "epochs": 2})


def test_population_statistics_after_a_resume_are_those_of_a_whole_run(tmp_path):
    words = {"epochs": 1, "population": True, "out": tmp_path, "say": lambda line: None}
    whole = tr.train("mlp-bn", "digits", **words)
    again = tr.train("mlp-bn", "digits", resume=True, **words)
    for name, value in whole.net.state_dict().items():
        np.testing.assert_array_equal(again.net.state_dict()[name], value, err_msg=name)
    running, _ = tr.load_checkpoint(tmp_path / NAME)
    state = whole.net.state_dict()
    replaced = [name for name in state if not np.array_equal(state[name], running[f"model.{name}"])]
    assert replaced and replaced == [name for name in state if "running" in name]


def test_numbers_of_numpy_are_saved_and_resumed_as_those_of_python(tmp_path):
    words = {"epochs": np.int64(1), "batch_size": np.int64(512), "seed": np.int64(3),
             "lr": np.float32(0.1), "out": tmp_path, "say": lambda line: None}  # fmt: skip
    tr.train("mlp", "digits", **words)
    words = {**words, "epochs": 1, "batch_size": 512, "seed": 3, "lr": float(np.float32(0.1))}
    assert len(tr.train("mlp", "digits", resume=True, **words).history) == 1


def settled(path, settings):
    data = np.ones((4, 2)), np.zeros(4, int)
    net = nn.Linear(2, 2)
    return tr.Trainer(net, optim.SGD(net.parameters(), lr=np.float32(0.5)), data, data,
                      path=path, settings=settings)  # fmt: skip


def test_settings_are_compared_as_they_were_saved(tmp_path):
    settings = {"sizes": (3, 4), 5: np.float32(0.1), "on": np.True_}
    list(settled(tmp_path / NAME, settings).fit(1))
    resumed = settled(tmp_path / NAME, settings)
    resumed.resume()
    assert resumed.progress.epoch == 1
    with pytest.raises(UsageError, match=r"expected: sizes=\[3, 4\]\n.*sizes=\[3, 5\]"):
        settled(tmp_path / NAME, {**settings, "sizes": (3, 5)}).resume()


def test_a_run_with_a_schedule_does_not_go_on_without_one_nor_with_another_optimizer(tmp_path):
    first = settled(tmp_path / NAME, {})
    first.schedule = optim.ExponentialLR(first.optimizer, 0.5)
    list(first.fit(1))
    with pytest.raises(UsageError, match="resume: schedule"):
        settled(tmp_path / NAME, {}).resume()
    other = settled(tmp_path / NAME, {})
    other.optimizer = optim.Adam(other.net.parameters())
    with pytest.raises(UsageError, match=r"a group of Adam\n.*betas(.|\n)*momentum"):
        other.resume()


def test_settings_that_cannot_be_saved_are_refused_before_the_first_epoch(tmp_path):
    for bad in (object(), {1}, np.ones(2)):
        with pytest.raises(UsageError, match="Trainer: settings"):
            settled(tmp_path / NAME, {"k": bad})


def test_a_run_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    words = {"epochs": 1, "batch_size": 1437, "out": tmp_path, "say": lambda line: None}
    tr.train("mlp", "digits", **words)
    x, y = tr.load_images("digits").train
    few = tr.recipes.Images((x[:50], y[:50]), (x[:9], y[:9]))
    monkeypatch.setattr(tr.run, "load_images", lambda *args: few)
    with pytest.raises(UsageError, match=r"expected: samples=1437, .*\n.*samples=50, "):
        tr.train("mlp", "digits", resume=True, **words)


@pytest.mark.parametrize("part", [0, 1], ids=["images", "labels"])
def test_a_run_does_not_go_on_with_other_data_of_the_same_count(part, tmp_path, monkeypatch):
    words = {"epochs": 1, "batch_size": 1437, "out": tmp_path, "say": lambda line: None}
    tr.train("mlp", "digits", **words)
    images = tr.load_images("digits")
    images.train[part][7] = 0
    monkeypatch.setattr(tr.run, "load_images", lambda *args: images)
    with pytest.raises(UsageError, match=r"expected: checksum='.*'\n.*checksum='"):
        tr.train("mlp", "digits", resume=True, **words)


def test_the_flag_of_batch_norm_and_the_name_with_bn_are_one_run(tmp_path):
    words = {"epochs": 1, "batch_size": 1437, "out": tmp_path, "say": lambda line: None}
    tr.train("mlp", "digits", batch_norm=True, **words)
    assert "mlp-bn on digits" in (tmp_path / "loss.svg").read_text()
    tr.train("mlp-bn", "digits", resume=True, **words)
    with pytest.raises(UsageError, match="model='mlp-bn'"):
        tr.train("mlp-bn", "digits", batch_norm=False, resume=True, **words)


def test_half_written_files_are_removed_unless_a_run_may_still_write_them(tmp_path):
    old, new = (tmp_path / f".{NAME}.{name}.tmp" for name in ("99999", "99998"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    tr.train("mlp-bn", "digits", epochs=1, out=tmp_path, say=lambda line: None)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [new.name, "accuracy.svg", NAME, "loss.svg"]


class _Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("kind", ["pickle", "half", "empty", "text", "foreign", "flipped header"])
def test_what_is_no_checkpoint_is_refused_and_never_unpickled(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = trainer(tmp_path / NAME)
    list(run.fit(1))
    content = run.path.read_bytes()
    damaged = {
        "pickle": pickle.dumps(_Bomb()),
        "half": content[: len(content) // 2],
        "empty": b"",
        "text": b"hello",
        "foreign": safetensors.save({"x": np.zeros(3)}),
        "flipped header": content[:20] + bytes([content[20] ^ 0x55]) + content[21:],
    }[kind]
    run.path.write_bytes(damaged)
    with pytest.raises(DataError, match="cannot use this file"):
        trainer(run.path).resume()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("seed", range(5))
def test_a_checkpoint_with_a_bit_flipped_anywhere_is_refused(seed, tmp_path):
    run = trainer(tmp_path / NAME)
    list(run.fit(1))
    content, rng = bytearray(run.path.read_bytes()), np.random.default_rng(seed)
    for _ in range(100):
        at, bit = rng.integers(len(content)), 1 << rng.integers(8)
        content[at] ^= bit
        run.path.write_bytes(content)
        with pytest.raises(DataError, match="cannot use this file"):
            trainer(run.path).resume()
        content[at] ^= bit


def test_a_checkpoint_whose_arrays_were_renamed_is_refused(tmp_path):
    tr.save_checkpoint(tmp_path / NAME, {"model.weight": np.ones(2)}, {})
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content.replace(b"model.weight", b"model.height"))
    with pytest.raises(DataError, match="its bytes have changed"):
        tr.load_checkpoint(tmp_path / NAME)


def test_a_checkpoint_without_a_checksum_is_taken(tmp_path):
    run = trainer(tmp_path / NAME)
    list(run.fit(1))
    arrays, meta = tr.load_checkpoint(run.path)
    run.path.write_bytes(safetensors.save(arrays, {"minigrad": json.dumps(meta)}))
    resumed = trainer(run.path)
    resumed.resume()
    assert resumed.progress == run.progress


def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path):
    run = trainer(tmp_path / NAME)
    list(run.fit(1))
    arrays, meta = tr.load_checkpoint(run.path)
    extra = {"optimizer.99.exp_avg": np.zeros(1)}
    spoilt = [(arrays, {**meta, key: None}) for key in ("settings", "optimizer", "progress", "rng")]
    spoilt += [(arrays, {}), (arrays, []), ({**arrays, **extra}, meta)]
    for parts in spoilt:
        tr.save_checkpoint(run.path, *parts)
        with pytest.raises(DataError, match=f"{NAME}: cannot use this file"):
            trainer(run.path).resume()


@pytest.mark.parametrize("bad", [None, "x", [], -1, 1.5, 10**30], ids=str)
def test_a_wrong_value_in_a_checkpoint_ends_in_no_raw_error(bad, tmp_path):
    """Either a clear error refuses it, or it is a number with which training can go on."""
    run = trainer(tmp_path / NAME)
    list(run.fit(1))
    arrays, meta = tr.load_checkpoint(run.path)

    def spoilt(part, path=()):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            part[key] = bad
            yield (*path, key)
            part[key] = value
            if isinstance(value, (dict, list)):
                yield from spoilt(value, (*path, key))

    accepted = []
    for path in spoilt(meta):
        tr.save_checkpoint(run.path, arrays, meta)
        resumed = trainer(run.path)
        try:
            resumed.resume()
            list(resumed.fit(2))
        except MinigradError:
            continue
        accepted.append(path)
    if bad in (None, "x"):
        assert not [path for path in accepted if path[0] == "progress"]


def interrupted(path, batches):
    """A run that was stopped after some batches of its first epoch."""
    run, steps = trainer(path), iter(range(1, 100))
    run.on_batch = lambda n: signal.raise_signal(signal.SIGTERM) if next(steps) == batches else None
    with pytest.raises(SystemExit):
        list(run.fit(1))
    return run


@pytest.mark.parametrize("batches", [1, 6])
def test_a_checkpoint_of_other_numbers_of_samples_is_refused(batches, tmp_path):
    run = interrupted(tmp_path / NAME, batches)
    arrays, meta = tr.load_checkpoint(run.path)
    trainer(run.path).resume()  # 90 samples in batches of 16
    for seen in (-16, 0, 17, 91):
        changed = {**meta, "progress": {**meta["progress"], "seen": seen}}
        tr.save_checkpoint(run.path, arrays, changed)
        with pytest.raises(UsageError, match=f"resume: samples(.|\n)*got: *{seen}"):
            trainer(run.path).resume()


def test_an_epoch_does_not_go_on_with_batches_of_another_size(tmp_path):
    run = interrupted(tmp_path / NAME, 2)
    resumed = trainer(run.path)
    resumed.loader.batch_size = 20
    with pytest.raises(UsageError, match=r"expected: 40, .* 2 batches of 20(.|\n)*got: *32"):
        resumed.resume()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(DataError, match="no checkpoint"):
        tr.load_checkpoint(tmp_path / NAME)


def test_a_checkpoint_opens_with_the_library_of_the_format(tmp_path):
    run = trainer(tmp_path / NAME)
    list(run.fit(1))
    arrays = safetensors.load_file(run.path)
    np.testing.assert_array_equal(arrays["model.0.weight"], run.net[0].weight.numpy())
    assert "optimizer.0.exp_avg" in arrays and "model.1.running_var" in arrays


def test_the_state_of_a_module_can_be_saved_and_loaded(tmp_path):
    saved, loaded = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    saved(np.random.default_rng(0).normal(size=(4, 3)))
    for path in (tmp_path / NAME, str(tmp_path / "folder" / NAME)):
        tr.save_checkpoint(path, saved.state_dict(), {"note": "x"})
        arrays, meta = tr.load_checkpoint(path)
    loaded.load_state_dict(arrays)
    assert loaded.running_var.tolist() == saved.running_var.tolist() and meta == {"note": "x"}


@pytest.mark.parametrize(
    "bad",
    [np.ones(2, complex), np.array(["a"]), np.array([None]), None, {1}]
    + [np.ones(2, np.longdouble)] * (np.dtype(np.longdouble).itemsize > 8),
    ids=repr,
)
def test_what_no_checkpoint_can_hold_is_refused_by_its_name(bad, tmp_path):
    with pytest.raises(DTypeError, match=r"save_checkpoint: state\.x"):
        tr.save_checkpoint(tmp_path / NAME, {"good": np.ones(1), "state.x": bad}, {})
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("name", [1, None, (1, 2), "__metadata__"], ids=repr)
def test_a_name_that_no_checkpoint_can_hold_is_refused(name, tmp_path):
    """safetensors wrote an array named __metadata__, but could not read the file."""
    with pytest.raises(UsageError, match="save_checkpoint: name"):
        tr.save_checkpoint(tmp_path / NAME, {"good": np.ones(1), name: np.ones(2)}, {})
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "arrays", [None, nn.Linear(1, 1), [np.ones(1)]], ids=["None", "net", "list"]
)
def test_what_is_no_dict_of_arrays_is_refused(arrays, tmp_path):
    with pytest.raises(UsageError, match=r"save_checkpoint: arrays(.|\n)*state_dict"):
        tr.save_checkpoint(tmp_path / NAME, arrays, {})


@pytest.mark.parametrize("meta", [{"k": object()}, {1}, {(1, 2): 3}], ids=["object", "set", "key"])
def test_meta_that_json_cannot_hold_is_refused(meta, tmp_path):
    with pytest.raises(UsageError, match="save_checkpoint: meta"):
        tr.save_checkpoint(tmp_path / NAME, {}, meta)
    assert not (tmp_path / NAME).exists()


def test_without_safetensors_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'minigrad\[train\]'"):
        tr.train("mlp-bn", "digits", epochs=1, out=tmp_path)


@pytest.mark.parametrize("place", ["", "file/c"], ids=["folder", "in a file"])
def test_a_path_for_no_checkpoint_is_refused_before_the_first_epoch(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Trainer: path"):
        trainer(tmp_path / place)


def test_a_trainer_needs_the_package_of_checkpoints_from_the_start(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'minigrad\[train\]'"):
        trainer(tmp_path / NAME)


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators_of_layers_are_saved(kind, tmp_path):
    def build():
        rng = np.random.Generator(getattr(np.random, kind)(9))
        net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5, rng=rng), nn.Linear(8, 2))
        net.load_state_dict({k: v.numpy() * 0 + 0.1 for k, v in net.state_dict().items()})
        rng = np.random.default_rng(1)
        pair = rng.normal(size=(8, 2)), rng.integers(0, 2, 8)
        return tr.Trainer(net, optim.SGD(net.parameters(), lr=0.1), pair, pair, batch_size=4,
                          path=tmp_path / NAME)  # fmt: skip

    whole = build()
    list(whole.fit(2))
    expected = weights(whole.path)
    list(build().fit(1))
    resumed = build()
    resumed.resume()
    list(resumed.fit(2))
    assert weights(resumed.path) == expected


@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.1)],
    ids=["SGD", "Adam"],
)
def test_the_state_of_a_single_number_goes_on_bit_for_bit(make, tmp_path, rng):
    w = mg.tensor(0.3, dtype="float32", requires_grad=True)
    optimizer = make([w])
    for g in rng.normal(size=20).astype("float32"):
        arrays, meta = pack_optimizer(optimizer.state_dict())
        tr.save_checkpoint(tmp_path / NAME, arrays, meta)
        twin = mg.tensor(w, requires_grad=True)
        resumed = make([twin])
        resumed.load_state_dict(unpack_optimizer(*tr.load_checkpoint(tmp_path / NAME)))
        w.grad = twin.grad = g
        optimizer.step()
        resumed.step()
        assert twin.item() == w.item() and resumed.state == optimizer.state


def test_ctrl_c_after_the_last_look_is_not_lost(tmp_path, monkeypatch):
    run, before = trainer(tmp_path / NAME), signal.getsignal(signal.SIGINT)
    install, late_ones = signal.signal, [signal.SIGINT]

    def late(number, handler):
        if handler is before and late_ones:  # about to be restored
            signal.raise_signal(late_ones.pop())
        return install(number, handler)

    monkeypatch.setattr(signal, "signal", late)
    with pytest.raises(KeyboardInterrupt):
        list(run.fit(2))
    monkeypatch.undo()
    assert run.progress.epoch == 1 and signal.getsignal(signal.SIGINT) is before
