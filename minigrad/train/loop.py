"""The training loop: epochs, evaluation, checkpoints; interrupted runs resume bit for bit."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from operator import index
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from minigrad import backend, nn, optim
from minigrad.anomaly import anomaly_mode
from minigrad.context import no_grad
from minigrad.data.loader import DataLoader, TensorDataset, check_lengths
from minigrad.errors import (
    AnomalyError,
    MinigradError,
    ShapeError,
    UsageError,
    check_count,
    describe,
    facts,
)
from minigrad.files import as_path, corrupt
from minigrad.nn import kernels
from minigrad.nn.module import check_module
from minigrad.nn.random import as_lists, generators, rewind, states
from minigrad.optim.optimizer import check_optimizer
from minigrad.tensor import Tensor, tensor
from minigrad.train.ahead import Ahead
from minigrad.train.checkpoint import (
    check_path,
    load_checkpoint,
    pack_optimizer,
    save_checkpoint,
    to_json,
    unpack_optimizer,
)


def _quiet() -> np.errstate:
    """Silence NumPy's warnings: a loss that is not finite raises an error of its own."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch; ``loss`` and ``train_acc`` are means over its samples as it trained."""

    loss: float
    train_acc: float
    test_acc: float
    examples_per_second: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.3f}, train acc {self.train_acc:.3f}, test acc {self.test_acc:.3f}, "
            f"{self.examples_per_second:.0f} examples/sec"
        )


@dataclass
class Progress:
    """How far a run has come, and sums over the current epoch."""

    epoch: int = 0  # completed epochs
    batch: int = 0  # completed batches of the current epoch
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)

    def restart(self) -> None:
        """Begin an epoch: reset its sums."""
        self.batch = self.correct = self.seen = 0
        self.loss_sum = self.seconds = 0.0


class Trainer:
    """Trains a classifier; checkpoints hold all state that the rest of the training depends on.

    Args:
        net: maps a batch of inputs to logits (N, K).
        optimizer: of the parameters of ``net``.
        train, test: pairs ``(inputs, labels)`` of host arrays.
        batch_size: samples per step.
        device: where batches are moved.
        seed: of the order of the samples.
        schedule: its ``step()`` is called after each epoch.
        path: the checkpoint file, whose folder is made if needed; None: no checkpoints.
        settings: a dict that JSON can hold and a resumed run must repeat; numbers may be NumPy's.
        on_batch: called after each step with the number of samples in it.
        record: on a GPU, launch each step as one CUDA graph where that is possible.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: optim.Optimizer | optim.AGC,
        train: tuple[np.ndarray, np.ndarray],
        test: tuple[np.ndarray, np.ndarray],
        *,
        batch_size: int = 256,
        device: str = "cpu",
        seed: int = 0,
        schedule: optim.LambdaLR | None = None,
        path: str | Path | None = None,
        settings: dict[str, Any] | None = None,
        on_batch: Callable[[int], None] | None = None,
        record: bool = False,
    ):
        check_module("Trainer: net", net)
        check_optimizer("Trainer: optimizer", optimizer)
        updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
        has_own = any(id(p) in updated for p in net.parameters())
        _require("optimizer", has_own, "one that updates parameters of net", optimizer)
        for name, pair in (("train", train), ("test", test)):
            is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
            _require(name, is_pair, "a pair (inputs, labels)", pair)
        is_schedule = schedule is None or hasattr(schedule, "step")
        _require("schedule", is_schedule, "a schedule of mg.optim", schedule)
        _require("on_batch", on_batch is None or callable(on_batch), "a function", on_batch)
        _require("settings", settings is None or isinstance(settings, dict), "a dict", settings)
        self.net, self.optimizer, self.device = net, optimizer, device
        self.test, self.schedule = test, schedule
        self.loader = DataLoader(TensorDataset(*train), batch_size, shuffle=True, seed=seed)
        _check_labels("Trainer: test", *test)
        n, batch_size = len(train[0]), self.loader.batch_size
        if not n:
            raise UsageError(facts("Trainer: train", expected="1 or more samples", got="none"))
        if record and device == "cpu":
            remedy = "use train(..., device='cuda'), or --device cuda"
            raise UsageError(facts("train: record", expected="a GPU", got=device, remedy=remedy))
        # a last batch of one sample would have no variance
        self.loader.drop_last = n > batch_size and n % batch_size == 1
        self.path = None if path is None else as_path("Trainer: path", path)
        if self.path is not None:
            check_path("Trainer: path", self.path)
        # as a checkpoint returns them
        self.settings = json.loads(to_json("Trainer: settings", settings or {}))
        self.on_batch = on_batch
        self.progress = Progress()
        # on a GPU the host need not wait after each step
        self.ahead = None if device == "cpu" else Ahead(self, record)

    # --- steps -----------------------------------------------------------------------------------

    def fit(self, epochs: int) -> Iterator[Epoch]:
        """Train until ``epochs`` epochs are complete; yield the results of each.

        Raises:
            UsageError: ``epochs`` is no whole number, 0 or more.
            AnomalyError: a loss or gradient is not finite; the error names the op that computed the
                first nan or inf. Or a parameter is not finite at the end of an epoch; nothing is
                saved then.
            KeyboardInterrupt: on Ctrl-C, after the current step is complete and saved.
            SystemExit: likewise on SIGTERM, as a scheduler or ``docker stop`` sends it, and on
                SIGHUP, as a terminal that is closed does.
        """
        epochs = check_count("fit: epochs", epochs, least=0)
        while self.progress.epoch < epochs:
            with _interruptible() as interrupted:  # not around the yield: there the caller runs
                for x, labels in self._batches():
                    self._timed_step(x, labels)
                    if interrupted():
                        self._settle()
                        self.save()
                        return  # leaving the block raises the interrupt
                self._settle()
                epoch = self._finish_epoch()  # saves, too
            yield epoch

    def _batches(self) -> Iterator[tuple]:
        self.loader.epoch, self.loader.start = self.progress.epoch, self.progress.batch
        return iter(self.loader)

    def _timed_step(self, x: np.ndarray, labels: np.ndarray) -> None:
        start = time.perf_counter()
        if self.ahead is None:
            self.note(*self.step(x, labels), len(labels))
        else:
            self.ahead.step(x, labels)
        self.progress.seconds += time.perf_counter() - start
        if self.on_batch is not None:
            self.on_batch(len(labels))

    def _settle(self) -> None:
        """Wait for queued steps and check that all parameters are finite, before they are saved."""
        if self.ahead is None:
            self.check_parameters()
            return
        start = time.perf_counter()
        self.ahead.settle()
        self.progress.seconds += time.perf_counter() - start

    def note(self, loss: float, correct: int, n: int) -> None:
        """Add a complete step on ``n`` samples to the progress."""
        p = self.progress
        p.loss_sum += loss * n
        p.correct += correct
        p.seen += n
        p.batch += 1

    def step(self, x: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        """Make one optimizer step; return the loss and the number of right answers before it."""
        self.net.train()
        batch = tensor(x, device=self.device)
        self.optimizer.zero_grad()
        before = {name: buffer.array for name, buffer in self.net.named_buffers()}
        random = states(generators(self.net).values())
        with _quiet():
            logits = self.net(batch)
            loss = kernels.cross_entropy(logits, labels)
            loss.backward()
            if not (np.isfinite(loss.item()) and self._gradients_are_finite()):
                self._explain(batch, labels, before, random)
            self.optimizer.step()
        return loss.item(), _count_right(logits, labels)

    def check_parameters(self) -> None:
        """Raise AnomalyError if the last step made a parameter that is not finite."""
        for name, p in self.net.named_parameters():
            count = backend.count_not_finite(p.array)
            if count:
                where = f"training: epoch {self.progress.epoch + 1}, batch {self.progress.batch}"
                got = f"{name} with nan or inf in {count} of {p.size} elements"
                remedy = "use a smaller learning rate"
                raise AnomalyError(
                    facts(where, expected="finite parameters after the step", got=got,
                          remedy=remedy)
                )  # fmt: skip

    def _gradients_are_finite(self) -> bool:
        grads = [p.grad.array for p in self.net.parameters() if p.grad is not None]
        return all(bool(backend.namespace(g).isfinite(g).all()) for g in grads)

    def _explain(
        self, batch: Tensor, labels: np.ndarray, buffers: dict[str, Any], random: list[tuple]
    ) -> NoReturn:
        """Repeat the step from the state before it, under ``anomaly_mode``, which names the op."""
        where = f"training: epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}"
        for name, buffer in self.net.named_buffers():
            buffer.data = buffers[name]
        rewind(random)
        try:
            with anomaly_mode(), nn.frozen_statistics():
                kernels.cross_entropy(self.net(batch), labels).backward()
        except AnomalyError as error:
            error.add_note(f"in {where}; a smaller learning rate may help")
            raise
        raise AnomalyError(
            facts(where, expected="a finite loss and gradients", got="numbers that are not finite")
        )

    def _finish_epoch(self) -> Epoch:
        p = self.progress
        epoch = Epoch(
            p.loss_sum / p.seen, p.correct / p.seen, self.accuracy(*self.test), p.seen / p.seconds
        )
        p.history.append(epoch)
        p.epoch += 1
        p.restart()
        if self.schedule is not None:
            self.schedule.step()
        self.save()
        return epoch

    def accuracy(self, inputs: np.ndarray, labels: np.ndarray, batch_size: int = 1000) -> float:
        """Fraction of right answers, in evaluation mode."""
        _check_labels("accuracy", inputs, labels)
        batch_size = check_count("accuracy: batch_size", batch_size)
        if self.ahead is not None:
            self.ahead.settle()  # amid an epoch, recorded steps have not changed the net yet
        try:
            return self._accuracy(inputs, labels, batch_size)
        except MemoryError as error:
            if self.ahead is None or not self.ahead.give_up(error):
                raise
        return self._accuracy(inputs, labels, batch_size)

    def _accuracy(self, inputs: np.ndarray, labels: np.ndarray, batch_size: int) -> float:
        self.net.eval()
        right = 0
        with no_grad(), _quiet():
            for i in range(0, len(inputs), batch_size):
                logits = self.net(tensor(inputs[i : i + batch_size], device=self.device))
                right += _count_right(logits, labels[i : i + batch_size])
        return right / max(len(inputs), 1)

    # --- checkpoints -----------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint, if there is a path for it."""
        if self.path is None:
            return
        if self.ahead is not None:
            self.ahead.settle()  # amid an epoch, the progress lacks queued steps
        arrays = {f"model.{k}": v.array for k, v in self.net.state_dict().items()}
        optimizer_arrays, optimizer_meta = pack_optimizer(self.optimizer.state_dict())
        meta = {
            "settings": self.settings,
            "optimizer": optimizer_meta,
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "progress": asdict(self.progress),
            "rng": {k: as_lists(g.bit_generator.state) for k, g in generators(self.net).items()},
        }
        save_checkpoint(self.path, {**arrays, **optimizer_arrays}, meta)

    def resume(self) -> None:
        """Restore the state that the checkpoint holds.

        Raises:
            DataError: it is missing or corrupt.
            UsageError: it belongs to a run with other settings.
        """
        if self.path is None:
            raise UsageError("resume: no folder with a checkpoint is given; pass it as out=")
        arrays, meta = load_checkpoint(self.path)
        try:
            self._restore(arrays, meta)
        except MinigradError:
            raise
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise corrupt(self.path, "what Trainer.save writes", repr(error)) from error

    def _restore(self, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        saved, present = dict(meta["settings"]), self.settings
        different = [k for k in {**saved, **present} if saved.get(k) != present.get(k)]
        if different:
            expected = ", ".join(f"{k}={saved.get(k)!r}" for k in different)
            got = ", ".join(f"{k}={present.get(k)!r}" for k in different)
            remedy = "use the settings of that run, or another folder"
            reason = "; the learning rates depend on the epochs" if "epochs" in different else ""
            headline = f"resume: the checkpoint has other settings{reason}"
            raise UsageError(facts(headline, expected=expected, got=got, remedy=remedy))
        model = {k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")}
        self.net.load_state_dict(model)
        self.optimizer.load_state_dict(unpack_optimizer(arrays, meta["optimizer"]))
        if self.schedule is not None:
            self.schedule.load_state_dict(meta["schedule"])
        elif meta["schedule"] is not None:
            expected, remedy = "a schedule, as saved", "pass Trainer(..., schedule=...)"
            raise UsageError(facts("resume: schedule", expected=expected, got=None, remedy=remedy))
        progress = dict(meta["progress"])
        history = [Epoch(**_numbers(Epoch, entry)) for entry in progress.pop("history")]
        self.progress = Progress(**_numbers(Progress, progress), history=history)
        self._check_seen()
        for key, rng in generators(self.net).items():
            rng.bit_generator.state = meta["rng"][key]
        if self.ahead is not None:  # forget steps that an error left unread
            self.ahead = Ahead(self, self.ahead.record)

    def _check_seen(self) -> None:
        """UsageError unless the batches of the unfinished epoch hold as many samples as were seen.

        Without this, batches of another size would leave out or repeat samples.
        """
        p, batch_size = self.progress, self.loader.batch_size
        seen = min(p.batch * batch_size, len(self.loader.dataset))
        if p.seen != seen:
            expected = f"{seen}, which {p.batch} batches of {batch_size} hold"
            headline = "resume: samples seen in this epoch"
            remedy = "use the batch size of that run"
            raise UsageError(facts(headline, expected=expected, got=p.seen, remedy=remedy))


def _numbers(kind: type, saved: dict[str, Any]) -> dict[str, Any]:
    """``saved`` as ints and floats, as the fields of ``kind`` are; else TypeError or ValueError."""
    return {k: (index if kind.__annotations__[k] is int else float)(v) for k, v in saved.items()}


def _check_labels(what: str, inputs: Any, labels: Any) -> None:
    """ShapeError unless there is one label per input: (N, 1) would be compared with all answers."""
    check_lengths(what, (inputs, labels))
    if len(labels.shape) != 1:
        headline, expected = f"{what} labels", f"({len(inputs)},)"
        raise ShapeError(facts(headline, expected=expected, got=describe(labels)))


def _require(name: str, is_right: bool, expected: str, got: Any) -> None:
    """UsageError about the argument ``name`` of ``Trainer`` unless it ``is_right``."""
    if not is_right:
        raise UsageError(facts(f"Trainer: {name}", expected=expected, got=describe(got)))


def _count_right(logits: Tensor, labels: np.ndarray) -> int:
    return int((backend.to_host(logits.array).argmax(axis=1) == labels).sum())


_SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none
_STOPS = [signal.SIGINT, signal.SIGTERM, *filter(None, [_SIGHUP])]  # what ends a run


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """The first of Ctrl-C, SIGTERM and SIGHUP only sets a flag, so that a step can end; a second
    acts at once, except SIGHUP: shell and kernel each send one when a terminal is closed.

    Yields a function that returns the flag. If the flag is set, the end of the block raises the
    interrupt, even if the body never looked. Ignored signals stay ignored, as after ``nohup`` or in
    a job that a shell starts after ``trap "" INT``; a caller's own handlers of SIGTERM and SIGHUP
    stay in force.
    """
    received: list[int] = []
    handlers: dict[int, Any] = {}  # those that are replaced inside the block
    if threading.current_thread() is threading.main_thread():  # only there handlers can be set
        handlers = {number: signal.getsignal(number) for number in _STOPS}
        if handlers[signal.SIGINT] in (signal.SIG_IGN, None):  # None: not installed from Python
            del handlers[signal.SIGINT]
        for number in _STOPS[1:]:
            if handlers[number] is not signal.SIG_DFL:
                del handlers[number]

    def note(signum: int, frame: Any) -> None:
        received.append(signum)
        if signum != _SIGHUP:
            signal.signal(signum, handlers[signum])

    try:
        for number in handlers:
            signal.signal(number, note)
        yield lambda: bool(received)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(128 + received[0])
