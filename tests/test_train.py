"""Training: recipes reach their accuracy, twins differ by batch norm alone, nan stops the run."""

import gzip
import sys
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.live import Live

import minigrad as mg
from minigrad import nn, optim
from minigrad import train as tr
from minigrad.data.images import FILES
from minigrad.errors import AnomalyError, DeviceError, DTypeError, ShapeError, UsageError
from minigrad.train import recipes
from minigrad.train.run import _settings

GENUINE = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist_900"


def silent(line):
    pass


def test_lenet_with_batch_norm_reads_digits_after_five_epochs(capsys):
    trained = tr.train("lenet-bn", "digits", epochs=5, say=silent)
    with capsys.disabled():
        print(f"\nLeNet-BN on digits, 5 epochs: test accuracy {trained.history[-1].test_acc:.4f}")
    assert len(trained.history) == 5
    assert trained.history[-1].test_acc >= 0.97


@pytest.mark.skipif(not GENUINE.is_dir(), reason=f"no genuine images at {GENUINE.name}")
def test_only_with_batch_norm_lenet_learns_real_images_at_learning_rate_1(capsys):
    words = {"root": GENUINE, "epochs": 20, "batch_size": 64, "say": silent}
    with_bn, without = (
        tr.train("lenet-bn", "fashion-mnist", batch_norm=flag, **words).history
        for flag in (True, False)
    )
    with capsys.disabled():
        print(f"\nLeNet on 700 images of Fashion-MNIST, lr 1.0, 20 epochs: test accuracy "
              f"{with_bn[-1].test_acc:.3f} with batch norm, {without[-1].test_acc:.3f} without; "
              f"loss {with_bn[-1].loss:.3f} and {without[-1].loss:.3f}")  # fmt: skip
    losses = [epoch.loss for epoch in with_bn]
    assert np.isfinite(losses).all() and losses[-1] < 0.25 * losses[0]
    assert with_bn[-1].test_acc > 0.6
    assert without[-1].test_acc < with_bn[-1].test_acc - 0.2


@pytest.mark.parametrize("model", [name for name in tr.RECIPES if name.endswith("-bn")])
def test_every_recipe_learns_digits(model):
    epochs = 1 if model == "resnet-bn" else 3
    trained = tr.train(model, "digits", epochs=epochs, batch_size=64, lr=0.1, say=silent)
    assert trained.history[-1].train_acc > 0.5


def test_a_batch_of_one_trains_what_has_places_to_average_over(monkeypatch):
    x, y = tr.load_images("digits").train
    few = tr.recipes.Images((x[:4], y[:4]), (x[:4], y[:4]))
    monkeypatch.setattr(tr.run, "load_images", lambda *args: few)
    for model in ("mlp", "rnn-bn"):
        assert len(tr.train(model, epochs=1, batch_size=1, say=silent).history) == 1


def test_the_images_of_a_folder_are_numbers_from_0_to_1(tmp_path, rng):
    pixels, labels = rng.integers(0, 256, (2, 3, 28, 28), np.uint8), np.arange(6, dtype=np.uint8)
    parts = pixels[0], labels[:3], pixels[1], labels[3:]
    for name, part in zip(FILES, parts, strict=True):
        header = bytes([0, 0, 8, part.ndim]) + np.array(part.shape, ">u4").tobytes()
        (tmp_path / name).write_bytes(gzip.compress(header + part.tobytes()))
    for data in ("mnist", "fashion-mnist"):
        images = tr.load_images(data, tmp_path, "float64")
        for (x, y), raw, k in zip((images.train, images.test), pixels, (0, 3), strict=True):
            np.testing.assert_array_equal(x, raw[:, None] / 255)
            assert y.tolist() == [k, k + 1, k + 2] and x.dtype == "float64"


def test_the_twin_is_one_flag():
    twin = tr.recipe("lenet-bn", batch_norm=False)
    assert twin == tr.recipe("lenet") and twin.lr == tr.recipe("lenet-bn").lr == 1.0
    assert tr.recipe("lenet", batch_norm=True) == tr.recipe("lenet-bn")
    assert tr.recipe("lenet", batch_norm=np.True_) == tr.recipe("lenet-bn")


def test_a_run_is_decided_by_its_seed():
    a, b, c = (tr.train("mlp-bn", "digits", epochs=1, seed=s, say=silent) for s in (1, 1, 2))
    for (name, p), (_, q) in zip(a.net.named_parameters(), b.net.named_parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy(), err_msg=name)
    assert a.history[0].loss != c.history[0].loss


def test_each_epoch_is_one_line_and_gamma_and_beta_follow(capsys):
    lines = []
    tr.train("mlp-bn", "digits", epochs=2, population=True, say=lines.append)
    assert lines[0].startswith("epoch 1: loss ") and "test acc 0." in lines[0]
    assert "examples/sec on cpu" in lines[1]
    assert lines[2].startswith("population statistics: test acc 0.9")
    assert lines[3].startswith("gamma of the first batch norm: [")
    assert lines[4].startswith("beta of the first batch norm: [")
    assert capsys.readouterr() == ("", "")  # no progress bar unless it is asked for


def test_the_line_of_an_epoch_fits_into_a_terminal_of_80_columns():
    line = f"epoch 10: {tr.Epoch(0.1, 0.99, 0.98, 13664.9)} on cpu"
    assert "13665 examples/sec" in line and len(line) <= 80


def test_a_progress_bar_needs_no_terminal(capsys):
    tr.train("mlp-bn", "digits", epochs=1, progress=True, say=silent)
    assert capsys.readouterr().out == ""


def test_a_progress_bar_and_a_line_never_share_a_row_of_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the stream for a terminal
    screen = sys.stderr
    tr.train("mlp-bn", "digits", epochs=2, progress=True, say=lambda line: print(line, file=screen))
    shown = capsys.readouterr().err
    assert "training" in shown
    rows = [row.rpartition("\x1b[2K")[2] for row in shown.split("\n")]  # what erasing leaves
    assert [row[:7] for row in rows if "epoch" in row] == ["epoch 1", "epoch 2"]


class Output:
    """Stands in for the widget of ipywidgets: once closed, it leaves what is shown to the cell."""

    misuses: ClassVar[list[str]] = []

    def __init__(self):
        self.closed = False

    def __enter__(self):
        if self.closed:
            self.misuses.append("entered")

    def __exit__(self, *exception):
        pass

    def clear_output(self, wait=False):
        if self.closed:
            self.misuses.append("cleared")  # with all that the cell has shown so far

    def close(self):
        self.closed = True


def test_a_progress_bar_in_a_notebook_clears_no_line_of_results(monkeypatch):
    shown = []
    modules = {"IPython.display": {"display": shown.append}, "ipywidgets": {"Output": Output}}
    for name, content in {"IPython": {}, **modules}.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(Output, "misuses", [])
    at_once = partialmethod(Live.start, refresh=True)  # else a thread draws 0.1 s later
    monkeypatch.setattr(Live, "start", at_once)
    tr.train("mlp-bn", "digits", epochs=2, progress=True, say=shown.append)
    kinds = [x.split(":")[0] if isinstance(x, str) else type(x).__name__ for x in shown]
    bar = "Output"
    lines = [kind for kind in kinds if kind.startswith(("epoch", bar))]
    assert lines == [bar, "epoch 1", bar, "epoch 2", bar] and not Output.misuses


def test_an_epoch_reports_running_means_of_its_own_batches(rng):
    net = nn.Sequential(nn.Linear(2, 3))
    x, y = rng.normal(size=(10, 2)), rng.integers(0, 3, 10)
    trainer = tr.Trainer(net, optim.SGD(net.parameters(), lr=0.0), (x, y), (x, y), batch_size=4)
    epoch, again = trainer.fit(2)
    assert again.loss == pytest.approx(epoch.loss, rel=1e-12)  # the sums begin anew
    logits = net(mg.tensor(x))
    assert epoch.loss == pytest.approx(mg.ops.cross_entropy(logits, y).item(), rel=1e-12)
    right = (logits.numpy().argmax(1) == y).mean()
    assert epoch.train_acc == epoch.test_acc == pytest.approx(right)
    assert epoch.examples_per_second > 0


def test_parameters_without_a_gradient_keep_their_values(rng):
    trainer = small(rng, lr=0.1)
    frozen, trained = trainer.net[0].weight, trainer.net[3].weight
    frozen.requires_grad = False
    before = frozen.numpy(), trained.numpy()
    list(trainer.fit(1))
    np.testing.assert_array_equal(frozen.numpy(), before[0])
    assert (trained.numpy() != before[1]).all()


def test_a_schedule_steps_after_each_epoch(rng):
    trainer = small(rng, lr=0.5)
    trainer.schedule = optim.ExponentialLR(trainer.optimizer, 0.5)
    rates = [trainer.optimizer.param_groups[0]["lr"] for _ in trainer.fit(3)]
    assert rates == [0.25, 0.125, 0.0625]


def test_without_test_samples_the_accuracy_is_0(rng):
    assert small(rng).accuracy(np.zeros((0, 3)), np.zeros(0, int)) == 0


@pytest.mark.parametrize(("data", "factors"), [("digits", [1, 0.5, 0]), ("mnist", [1, 1, 1])])
def test_only_on_digits_the_learning_rate_falls_to_0(data, factors):
    spec = tr.recipe("mlp-bn", data, epochs=2)
    images = recipes.Images(*[(np.zeros((4, 1, 8, 8)), np.arange(4))] * 2)
    _, _, schedule = recipes.build(spec, images, device="cpu", dtype="float32", seed=0)
    rates = schedule.get_last_lr()
    for _ in range(2):
        schedule.step()
        rates += schedule.get_last_lr()
    assert ("epochs" in _settings(spec)) == (factors[-1] == 0)  # what a resumed run must repeat
    # cos(pi / 2) is 6e-17, and the rates are below 1
    np.testing.assert_allclose(rates, spec.lr * np.array(factors), rtol=0, atol=1e-16)


def test_a_last_batch_of_one_sample_is_left_out(rng):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    x, y = rng.normal(size=(9, 2)), rng.integers(0, 3, 9)
    trainer = tr.Trainer(net, optim.SGD(net.parameters()), (x, y), (x, y), batch_size=4)
    list(trainer.fit(1))
    assert net[1].num_batches_tracked.item() == 2


@pytest.mark.parametrize("n", [1, 2, 5])
def test_one_sample_is_left_out_only_where_there_are_others(n, rng):
    net = nn.Linear(2, 3)
    data = rng.normal(size=(n, 2)), rng.integers(0, 3, n)
    trainer = tr.Trainer(net, optim.SGD(net.parameters()), data, data, batch_size=4)
    assert sum(len(labels) for _, labels in trainer.loader) == (4 if n == 5 else n)


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size"), [(4, 0), (4, -1), (0, 4)])
def test_without_a_batch_there_is_no_training(n, batch_size):
    net, data = nn.Linear(2, 3), (np.zeros((n, 2)), np.zeros(n, int))
    with pytest.raises(UsageError, match="1 or more"):
        tr.Trainer(net, optim.SGD(net.parameters()), data, data, batch_size=batch_size)


def test_a_test_set_of_two_lengths_is_refused_before_the_first_epoch():
    net, data = nn.Linear(2, 3), (np.zeros((4, 2)), np.zeros(4, int))
    for test in ((np.zeros((4, 2)), np.zeros(3, int)), ([[0.0, 0.0]], [0])):
        with pytest.raises(ShapeError, match=r"Trainer: test\n.*arrays of equal length"):
            tr.Trainer(net, optim.SGD(net.parameters()), data, test)


@pytest.mark.parametrize("labels", [np.zeros((6, 1), int), np.eye(6, 2)], ids=["column", "one-hot"])
def test_test_labels_that_are_no_vector_are_refused(labels):
    """Compared with the (6,) answers, a column would count each right answer up to 6 times."""
    x, net = np.zeros((6, 2)), nn.Linear(2, 2)
    optimizer = optim.SGD(net.parameters())
    with pytest.raises(ShapeError, match=r"Trainer: test labels\n.*\(6,\)"):
        tr.Trainer(net, optimizer, (x, labels[:, 0]), (x, labels))
    trainer = tr.Trainer(net, optimizer, (x, np.zeros(6, int)), (x, np.zeros(6, int)))
    with pytest.raises(ShapeError, match=r"accuracy labels\n.*\(6,\)"):
        trainer.accuracy(x, labels)


PAIR = np.zeros((4, 2)), np.zeros(4, int)


@pytest.mark.parametrize(
    ("name", "bad"),
    [("net", None), ("net", lambda x: x), ("optimizer", None), ("optimizer", "sgd"),
     ("optimizer", optim.SGD(nn.Linear(2, 2).parameters())), ("train", None),
     ("train", PAIR[:1]), ("test", None), ("test", (*PAIR, 1)), ("schedule", lambda epoch: 0.1),
     ("on_batch", 3), ("settings", [1]), ("settings", "k")],
)  # fmt: skip
def test_what_a_trainer_cannot_use_is_refused_before_the_first_step(name, bad):
    """An optimizer of another network, say, would train nothing, and say nothing."""
    net = nn.Linear(2, 2)
    words = {"net": net, "optimizer": optim.SGD(net.parameters()), "train": PAIR, "test": PAIR}
    with pytest.raises((UsageError, DTypeError), match=f"Trainer: {name}\n"):
        tr.Trainer(**{**words, name: bad})


@pytest.mark.parametrize("bad", [None, "3", -1, 1.5], ids=repr)
def test_a_number_of_epochs_or_samples_that_is_no_count_is_refused(bad, rng):
    trainer = small(rng)
    with pytest.raises(UsageError, match="fit: epochs"):
        next(trainer.fit(bad))
    for batch_size in (bad, 0):  # -1 gave an accuracy of 0
        with pytest.raises(UsageError, match="accuracy: batch_size"):
            trainer.accuracy(*trainer.test, batch_size)
    with pytest.raises(ShapeError, match=r"accuracy\n.*equal length"):
        trainer.accuracy([[1.0, 2.0, 3.0]], [0])


def test_a_folder_in_the_place_of_the_checkpoint_is_refused_before_the_first_epoch(tmp_path):
    (tmp_path / "checkpoint.safetensors").mkdir()
    with pytest.raises(UsageError, match=r"checkpoint.safetensors\n.*\n.*a folder"):
        tr.train("mlp", out=tmp_path)


def small(rng, **words):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    return tr.Trainer(net, optim.SGD(net.parameters(), **words), (x, y), (x, y), batch_size=5)


def test_a_diverging_run_stops_with_the_first_op_that_was_not_finite(rng):
    trainer = small(rng, lr=1e200)
    with pytest.raises(AnomalyError, match=r"produced (nan|inf)") as caught:
        list(trainer.fit(5))
    assert any("epoch 1, batch" in note for note in caught.value.__notes__)


def test_a_loss_that_is_not_finite_stops_the_run_even_if_its_gradient_is_finite(rng):
    trainer = small(rng)
    trainer.net = nn.Linear(2, 2, bias=False)
    trainer.net.weight.data = np.eye(2)  # the logits differ by more than the largest float
    with pytest.raises(AnomalyError, match="produced inf"):
        trainer.step(np.array([[1.5e308, -1.5e308]]), np.array([1]))


def test_a_step_that_fails_leaves_the_running_statistics_as_they_were(rng):
    trainer = small(rng)
    before = [buffer.numpy() for buffer in trainer.net.buffers()]
    with pytest.raises(AnomalyError):
        trainer.step(np.full((5, 3), np.inf), np.zeros(5, int))
    for buffer, old in zip(trainer.net.buffers(), before, strict=True):
        np.testing.assert_array_equal(buffer.numpy(), old)


def test_a_last_step_that_blows_up_is_not_saved(rng, tmp_path):
    trainer = small(rng, lr=1e308)
    trainer.path = tmp_path / "checkpoint"
    trainer.loader.batch_size = 20  # one step is the epoch
    trainer.net[1].weight.data = np.full(4, 1e3)
    with pytest.raises(AnomalyError, match=r"epoch 1, batch 1(.|\n)*finite parameters"):
        list(trainer.fit(1))
    assert not trainer.path.exists()


def test_nan_in_the_data_is_named(rng):
    trainer = small(rng, lr=0.1)
    trainer.loader.dataset.arrays[0][7, 1] = np.nan
    with pytest.raises(AnomalyError, match="holds nan in 1 of 15 elements"):
        list(trainer.fit(1))


@pytest.mark.parametrize("seed", [None, 9])
def test_the_step_that_is_explained_draws_the_same_numbers_again(seed, rng):
    class Watched(nn.Dropout):
        def forward(self, x):
            seen.append(super().forward(x).numpy())
            return x * np.inf

    seen, trainer = [], small(rng)
    trainer.net[2] = Watched(0.5, rng=seed)
    drawn = [g.bit_generator.state for g in nn.random.generators(trainer.net).values()]
    with pytest.raises(AnomalyError):
        list(trainer.fit(1))
    first, again = seen
    np.testing.assert_array_equal(first, again)
    after = [g.bit_generator.state for g in nn.random.generators(trainer.net).values()]
    assert after == drawn


def test_a_gradient_that_is_not_finite_stops_before_the_step(rng):
    class Bad(nn.Module):
        def __init__(self):
            self.w = mg.tensor([0.0, 0.0], requires_grad=True)

        def forward(self, x):
            return x * mg.sqrt(self.w)  # finite, with an infinite derivative at 0

    net = Bad()
    x, y = np.ones((4, 2)), np.array([0, 1, 1, 0])
    trainer = tr.Trainer(net, optim.SGD(net.parameters()), (x, y), (x, y), batch_size=3)
    with pytest.raises(AnomalyError, match=r"sqrt, backward(.|\n)*test_train.py:\d+, in Bad"):
        list(trainer.fit(1))
    np.testing.assert_array_equal(net.w.numpy(), [0.0, 0.0])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"model": "lenet-5"}, "lenet-bn"),
        ({"data": "cifar"}, "digits, fashion-mnist, mnist"),
        ({"data": np.zeros((2, 3))}, "digits, fashion-mnist, mnist"),
        ({"model": ["mlp"]}, "lenet-bn"),
        ({"model": nn.Linear(2, 2), "batch_norm": True}, "lenet-bn"),
        ({"root": "folder"}, "(?s)root.*digits.*folder"),
        ({"record": True}, "(?s)record.*a GPU.*cpu"),
        ({"seed": -1}, "train: seed"),
        ({"seed": 1.5}, "train: seed"),
        ({"lr": "a"}, "train: lr"),
        ({"lr": -1.0}, "train: lr"),
        ({"epochs": "a"}, "train: epochs"),
        ({"model": "mlp-bn", "batch_size": 1}, "(?s)train: batch_size.*batch_norm=False"),
    ],
    ids=str,
)
def test_unknown_names_are_refused_with_the_known_ones(words, text):
    with pytest.raises(UsageError, match=text):
        tr.train(**words)


@pytest.mark.parametrize("dtype", ["int8", "bool", "U5", "float33"])
def test_images_of_another_kind_than_floats_are_refused(dtype):
    """As int8 the numbers from 0 to 1 were all 0, but for the brightest."""
    with pytest.raises(DTypeError, match="load_images: dtype"):
        tr.load_images("digits", dtype=dtype)


@pytest.mark.parametrize(("name", "bad"), [("schedule", "cosin"), ("momentum", "0.9")])
def test_a_recipe_checks_its_settings(name, bad):
    """A name that is no schedule left the learning rate constant."""
    with pytest.raises(UsageError, match=f"train: {name}"):
        tr.recipe("mlp", **{name: bad})
    with pytest.raises(UsageError, match="data set"):
        tr.recipe("mlp", "cifar")


def test_a_device_that_is_not_there_is_told_as_elsewhere(gpu, monkeypatch):
    with pytest.raises(DeviceError, match=r"(?s)train: no such device.*'cuda:<n>'"):
        tr.train("mlp-bn", device="tpu")
    monkeypatch.setattr(mg.backend, "unavailable", lambda device: "wrong arithmetic")
    with pytest.raises(DeviceError, match=r"train: device\n.*a device that works\n.*arithmetic"):
        tr.train("mlp-bn", device="cuda")


# --- curves ---------------------------------------------------------------------------------------


def test_curves_are_well_formed_and_the_same_for_the_same_numbers(tmp_path):
    lines = []
    tr.train("mlp-bn", "digits", epochs=2, out=tmp_path, say=lines.append)
    assert len(lines) == 5 and lines[-1] == f"curves and checkpoint: {tmp_path}"
    for name in ("loss.svg", "accuracy.svg"):
        root = ElementTree.parse(tmp_path / name).getroot()
        assert root.tag.endswith("svg")
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 and all(len(line.get("points").split()) == 2 for line in lines)
    series = {"a & <b>": [1.0, float("nan"), 3.0, float("inf")], "c": []}
    assert tr.curves("t", "x", series) == tr.curves("t", "x", series)
    ElementTree.fromstring(tr.curves("t", "x", series))
    ElementTree.fromstring(tr.curves("t", "x", {}))


@pytest.mark.parametrize(
    "series", [None, [1.0, 2.0], {"a": 1.0}, {"a": [None]}, {"a": ["x"]}, {"a": np.ones((2, 2))}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_series_is_refused(series):
    with pytest.raises(DTypeError, match="curves: series"):
        tr.curves("title", "epoch", series)


def test_single_epoch_and_single_points_between_gaps_are_seen():
    for values in ([0.5], [1.0, np.nan, 0.5, np.nan, 2.0], [np.nan, 0.5, np.nan]):
        svg = ElementTree.fromstring(tr.curves("t", "x", {"a": values}))
        for line in svg.iter("{http://www.w3.org/2000/svg}polyline"):
            ends = [point.split(",")[0] for point in line.get("points").split()]
            assert len(set(ends)) == 2  # a line without length is not drawn


def test_lines_differ_in_colour_or_dashes_and_long_names_have_room():
    names = [f"a name of some length {i}" for i in range(9)]
    svg = ElementTree.fromstring(tr.curves("t", "x", {name: [1.0, 2.0] for name in names}))
    lines = svg.findall("{http://www.w3.org/2000/svg}polyline")
    assert len({(x.get("stroke"), x.get("stroke-dasharray")) for x in lines}) == 9
    texts = {x.text: float(x.get("x")) for x in svg.findall("{http://www.w3.org/2000/svg}text")}
    width = float(svg.get("viewBox").split()[2])
    assert all(texts[name] + 6.5 * len(name) <= width for name in names)  # 12 px, 6.5 a letter


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([2.3, 0.4], "0 0.5 1 1.5 2 2.5"),
        ([0.3, 0.977], "0 0.2 0.4 0.6 0.8 1"),
        ([8e-4, -2e-4], "-0.0002 0 0.0002 0.0004 0.0006 0.0008"),
        ([-3.0], "-3 -2 -1 0"),
        ([12000.0], "0 2500 5000 7500 10000 12500"),
        ([5e-324, 0.0], "0 1e-300"),
        ([], "0 0.2 0.4 0.6 0.8 1"),
    ],
)
def test_ticks_are_round_numbers_around_all_values(values, labels):
    svg = ElementTree.fromstring(tr.curves("t", "x", {"a": values}))
    texts = svg.findall("{http://www.w3.org/2000/svg}text[@text-anchor='end']")
    assert " ".join(text.text for text in texts) == labels


def test_points_lie_where_their_values_say():
    svg = ElementTree.fromstring(tr.curves("t", "x", {"a": [0.0, 2.0, 1.0]}))
    (line,) = svg.findall("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert 0 < x0 < x2 < float(svg.get("viewBox").split()[2])
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.1) and y1 < y2 < y0
    texts = svg.findall("{http://www.w3.org/2000/svg}text[@text-anchor='middle']")
    places = {text.text: float(text.get("x")) for text in texts if text.text != "x"}
    assert places == {"1": x0, "3": x2}  # the first epoch and the last
    assert y0 - y2 == pytest.approx(y2 - y1, abs=0.11)
