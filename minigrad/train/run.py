"""``train``: from the name of a recipe to a trained network, its curves and its checkpoint."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from minigrad import backend, files, nn
from minigrad.context import no_grad
from minigrad.errors import DeviceError, ShapeError, UsageError, check_count, facts, naming
from minigrad.nn.batchnorm import StatisticsNorm
from minigrad.tensor import Tensor, tensor
from minigrad.train.checkpoint import NAME, check_path
from minigrad.train.curves import curves
from minigrad.train.loop import Epoch, Trainer
from minigrad.train.recipes import Recipe, build, load_images, recipe, variant


@dataclass
class Trained:
    """A trained network and the results of its epochs."""

    net: nn.Module
    history: list[Epoch]

    def first_batch_norm(self) -> tuple[np.ndarray, np.ndarray] | Any:
        """``(gamma, beta)`` of the first batch norm with parameters, or None."""
        for module in self.net.modules():
            if isinstance(module, StatisticsNorm) and module.affine:
                gamma, beta = module.gamma_and_beta(module.running_mean)
                return gamma.numpy(), beta.numpy()
        return None


def train(
    model: str = "lenet-bn",
    data: str = "digits",
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    batch_norm: bool | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    root: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    population: bool = False,
    progress: bool = False,
    record: bool = False,
    say: Callable[[str], Any] = print,
) -> Trained:
    """Train ``model`` on ``data`` and report the results, one line per epoch.

    Args:
        model: a name in ``RECIPES``: lenet-bn, mlp-bn, resnet-bn, rnn-bn, and without ``-bn``.
        data: digits, fashion-mnist or mnist.
        epochs, batch_size, lr: None: the recipe's.
        batch_norm: True or False overrides the recipe; all its other settings stay.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: of parameters and images, ``"float32"`` or ``"float64"``.
        seed: of initial values and of the order of the samples; ``nn.manual_seed(seed)`` is called.
        root: a folder with the four files of (Fashion-)MNIST; None: the cache.
        out: a folder for the checkpoint (after each epoch, on Ctrl-C, SIGTERM and SIGHUP) and the
            curves.
        resume: continue from the checkpoint in ``out``, bit for bit like an uninterrupted run; if
            there is none yet, start from the beginning.
        population: at the end, replace running statistics by averages over the training set.
        progress: show a progress bar; needs rich.
        record: on a GPU, launch each step as one CUDA graph where that is possible.
        say: called with each line.

    Returns:
        The network, in evaluation mode, and the history.

    Raises:
        UsageError: an unknown name, a number out of its range, a folder that cannot be written, or
            a checkpoint of a run with other settings.
        DataError: data or a checkpoint that cannot be read.
        DeviceError: no such device.
        AnomalyError: a loss, gradient or parameter is not finite, as in ``Trainer.fit``.

    >>> trained = mg.train.train("mlp-bn", "digits", epochs=1, say=lambda line: None)
    >>> trained.history[0].test_acc > 0.85
    True
    """
    model = variant(model, batch_norm)
    spec = recipe(model, data, epochs=epochs, batch_size=batch_size, lr=lr)
    check_count("train: seed", seed, least=0)
    _check_device_and_dtype(device, dtype)
    folder = None if out is None else files.as_path("train: out", out)
    if folder is not None:
        check_path("train: out", folder / NAME)  # before the data are loaded
        _remove_remains(folder)
    images = load_images(data, root, dtype)
    net, optimizer, schedule = build(spec, images, device=device, dtype=dtype, seed=seed)
    if spec.batch_size == 1:
        _check_one_sample(net, tensor(images.train[0][:1], device=device))
    settings = {"model": model, "data": data, "samples": len(images.train[1]), "dtype": dtype,
                "seed": seed, **_settings(spec)}  # fmt: skip
    if folder is not None:
        x, labels = map(np.ascontiguousarray, images.train)
        settings["checksum"] = f"{crc32(labels.data, crc32(x.data)):08x}"
    nn.manual_seed(seed)
    trainer = Trainer(
        net, optimizer, images.train, images.test, batch_size=spec.batch_size, device=device,
        seed=seed, schedule=schedule, settings=settings,
        path=None if folder is None else folder / NAME, record=record,
    )  # fmt: skip
    if resume and (trainer.path is None or trainer.path.exists()):
        trainer.resume()
    elif resume:
        say(f"no checkpoint in {folder} yet: starting from scratch")
    _fit(trainer, spec.epochs, progress, say)
    if population:
        _use_population_statistics(trainer, say)
    trained = Trained(net.eval(), trainer.progress.history)
    _report(trained, f"{model} on {data}", folder, say)
    return trained


def _settings(spec: Recipe) -> dict[str, Any]:
    """Settings that a resumed run must repeat; the epochs only if the rate depends on them."""
    fields = ("batch_norm", "batch_size", "lr", "momentum", "schedule")
    epochs = {"epochs": spec.epochs} if spec.schedule != "constant" else {}
    return {**{name: getattr(spec, name) for name in fields}, **epochs}


def _check_device_and_dtype(device: str, dtype: str) -> None:
    reason = backend.unavailable(device)
    if reason:
        with naming("train"):
            backend.to_device(np.zeros(1), device)  # raises, with the remedy
        raise DeviceError(facts("train: device", expected="a device that works", got=reason))
    if dtype not in ("float32", "float64"):
        raise UsageError(facts("train: dtype", expected="float32 or float64", got=repr(dtype)))


def _check_one_sample(net: nn.Module, x: Tensor) -> None:
    """Raise UsageError if a batch of one sample gives a batch norm one value per channel."""
    try:
        with no_grad(), nn.frozen_statistics():
            net(x)
    except ShapeError as error:
        remedy = "use a larger one, or batch_norm=False (--no-batch-norm)"
        raise UsageError(
            facts("train: batch_size", expected="2 or more, because of batch norm", got=1,
                  remedy=remedy)
        ) from error  # fmt: skip


def _remove_remains(folder: Path) -> None:
    """Remove temporary files of killed runs.

    Files younger than an hour are left alone: another run may be writing them right now.
    """
    for path in folder.glob(f".{NAME}.*.tmp"):
        with suppress(FileNotFoundError):  # it has been renamed
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()


def _fit(trainer: Trainer, epochs: int, progress: bool, say: Callable[[str], Any]) -> None:
    with _progress_bar(trainer, epochs, say) if progress else nullcontext(say) as say:
        for epoch in trainer.fit(epochs):
            say(f"epoch {trainer.progress.epoch}: {epoch} on {trainer.device}")


@contextmanager
def _progress_bar(
    trainer: Trainer, epochs: int, say: Callable[[str], Any]
) -> Iterator[Callable[[str], Any]]:
    """A bar over the samples of all epochs, on standard error; yields a ``say`` that clears it."""
    from rich.console import Console
    from rich.progress import Progress

    total = epochs * len(trainer.loader.dataset)
    done = trainer.progress.epoch * len(trainer.loader.dataset) + trainer.progress.seen
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("first step (may compile kernels)", total=total, completed=done)
        trainer.on_batch = lambda n: bar.update(task, advance=n, description="training")

        def say_above(line: str) -> None:
            bar.live.stop()  # erases the bar; in a notebook it closes the widget for good
            bar.live.ipy_widget = None
            say(line)
            bar.live.start()

        yield say_above


def _use_population_statistics(trainer: Trainer, say: Callable[[str], Any]) -> None:
    trainer.loader.epoch = trainer.progress.epoch  # the same batches after a resume
    nn.set_population_statistics(
        trainer.net, (backend.to_device(x, trainer.device) for x, _ in trainer.loader)
    )
    say(f"population statistics: test acc {trainer.accuracy(*trainer.test):.3f}")


def _report(trained: Trained, title: str, folder: Path | None, say: Callable[[str], Any]) -> None:
    parameters = trained.first_batch_norm()
    if parameters is not None:
        for name, values in zip(("gamma", "beta"), parameters, strict=True):
            shown = np.array2string(values, precision=3, threshold=20)
            say(f"{name} of the first batch norm: {shown}")
    if folder is None:
        return
    history = trained.history
    charts = {
        "loss": {"train": [e.loss for e in history]},
        "accuracy": {
            "train": [e.train_acc for e in history], "test": [e.test_acc for e in history]
        },
    }  # fmt: skip
    for name, series in charts.items():
        chart = curves(f"{name}: {title}", "epoch", series)
        files.write(folder / f"{name}.svg", chart)
    say(f"curves and checkpoint: {folder}")
