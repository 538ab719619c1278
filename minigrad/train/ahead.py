"""Training steps on a GPU that are queued without waiting for their results."""

from typing import Any

import numpy as np

from minigrad import backend
from minigrad.errors import UsageError
from minigrad.fused.foreach import all_finite
from minigrad.nn.random import generators, rewind, states
from minigrad.tensor import tensor
from minigrad.train.recorded import RecordedStep, train_step

_SETTLE_AFTER = 32  # unread steps


class Ahead:
    """Queues the steps of ``trainer`` without waiting; ``settle`` reads their results.

    Arrays never change, so references suffice to keep the state before the first unread step. If a
    result is not finite, that state is restored and the steps are repeated one by one with all
    checks, so that the error names the batch and the op.

    Args:
        trainer: has ``net``, ``optimizer``, ``device``, ``note``, ``step``, ``check_parameters``.
        record: whether to launch each step as one CUDA graph where that is possible.
    """

    def __init__(self, trainer: Any, record: bool = False):
        self.trainer, self.record = trainer, record
        self.recorded: RecordedStep | None = None
        self.why_not = ""  # why steps are not recorded
        self.pending: list[tuple] = []  # x, labels, loss, right
        self.saved: tuple = ()  # the state before the first pending step

    def step(self, x: np.ndarray, labels: np.ndarray) -> None:
        """Queue one step."""
        self.trainer.net.train()
        if not self.pending:
            self.saved = self._state()
        self.pending.append((x, labels, *self._run(x, labels)))
        if len(self.pending) >= _SETTLE_AFTER:
            self.settle()

    def settle(self) -> None:
        """Read the results of all pending steps; the host waits for the device.

        Raises:
            AnomalyError: a loss or parameter is not finite.
        """
        self._release()
        if not self.pending:
            return
        pending, self.pending = self.pending, []
        xp = backend.namespace(pending[0][2])
        losses = backend.to_host(xp.stack([loss for _, _, loss, _ in pending]))
        rights = backend.to_host(xp.stack([right for _, _, _, right in pending]))
        if np.isfinite(losses).all() and self._is_finite():
            for (_, labels, *_), loss, right in zip(pending, losses, rights, strict=True):
                self.trainer.note(float(loss), int(right), len(labels))
            return
        self._restore(self.saved)
        for x, labels, *_ in pending:
            self.trainer.note(*self.trainer.step(x, labels), len(labels))
        self.trainer.check_parameters()  # no later step checks the last update

    def _run(self, x: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        if self.record and self._has_stepped():
            recorded = self._recorded(x, labels)
            if recorded is not None:
                return recorded(x, labels)
        self._release()
        before = () if self.recorded is None else self._state()
        try:
            return self._plain_step(x, labels)
        except MemoryError as error:
            if not self.give_up(error):
                raise
        self._restore(before)  # not above, where the error holds arrays of the failed step
        return self._plain_step(x, labels)

    def _plain_step(self, x: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        trainer = self.trainer
        batch = (tensor(part, device=trainer.device) for part in (x, labels))
        return train_step(trainer.net, trainer.optimizer, *batch)

    def give_up(self, error: MemoryError) -> bool:
        """Free the memory of the recording, whose steps are released, and record no more.

        Returns:
            False if there is no recording.
        """
        if self.recorded is None:
            return False
        self.recorded, self.why_not = None, str(error)
        return True

    def _has_stepped(self) -> bool:
        """Whether a step has been made, so that the optimizer's arrays exist."""
        return bool(self.recorded or self.pending or self.trainer.progress.seen)

    def _recorded(self, x: np.ndarray, labels: np.ndarray) -> RecordedStep | None:
        """The present recording, renewed if needed, or a new one; None if neither is possible."""
        arguments = self.trainer.net, self.trainer.optimizer, x, labels
        if self.recorded is not None and self.recorded.fits(*arguments):
            return self.recorded
        if len(x) != self.trainer.loader.batch_size or self.why_not:
            return None  # the last batch of an epoch is smaller
        try:
            if self.recorded is None:
                self.recorded = RecordedStep(*arguments)
            elif not self.recorded.renew(*arguments):
                self.recorded = None  # a plain step makes new arrays first; the next one records
        except (MemoryError, UsageError) as error:
            self.why_not = str(error)
            self.recorded = None
        return self.recorded

    def _release(self) -> None:
        """Give the net the values of recorded steps; without memory for that, stop recording."""
        try:
            if self.recorded is not None:
                self.recorded.release()
        except MemoryError as error:
            self.why_not, self.recorded = str(error), None

    def _is_finite(self) -> bool:
        return all_finite([p.array for p in self.trainer.net.parameters()])

    def _state(self) -> tuple:
        trainer = self.trainer
        tensors = [*trainer.net.parameters(), *trainer.net.buffers()]
        random = states(generators(trainer.net).values())
        return [(t, t.array) for t in tensors], trainer.optimizer.state_dict(), random

    def _restore(self, state: tuple) -> None:
        arrays, optimizer, random = state
        for t, array in arrays:
            t.data = array
        self.trainer.optimizer.load_state_dict(optimizer)
        rewind(random)
