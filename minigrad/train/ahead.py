"""Steps on a GPU that are queued faster than their results are read."""

from typing import Any

import numpy as np

from minigrad import backend
from minigrad.errors import UsageError
from minigrad.fused.foreach import all_finite
from minigrad.nn.random import generators, rewind, states
from minigrad.tensor import tensor
from minigrad.train.recorded import RecordedStep, train_step

EVERY = 32  # steps from one reading of the results to the next


class Ahead:
    """Runs the steps of ``trainer`` without waiting; ``settle`` reads what they gave.

    Arrays never change, so the state before the first unread step is kept by references. Where a
    result is not finite that state is restored, and the steps are repeated one by one with all
    checks, so that an error names the batch and the op.

    Args:
        trainer: has ``net``, ``optimizer``, ``device``, ``note``, ``step``, ``check_parameters``.
        record: whether steps are launched as one graph where that is possible.
    """

    def __init__(self, trainer: Any, record: bool = False):
        self.trainer, self.record = trainer, record
        self.recorded: RecordedStep | None = None
        self.why_not = ""  # why steps are not recorded
        self.pending: list[tuple] = []  # x, labels, loss, right
        self.start: tuple = ()

    def step(self, x: np.ndarray, labels: np.ndarray) -> None:
        """Queue one step."""
        self.trainer.net.train()
        if not self.pending:
            self.start = self._state()
        self.pending.append((x, labels, *self._run(x, labels)))
        if len(self.pending) >= EVERY:
            self.settle()

    def settle(self) -> None:
        """Read the results of all steps; the host waits for the device.

        Raises:
            AnomalyError: a loss or parameter that is not finite.
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
        self._restore()
        for x, labels, *_ in pending:
            self.trainer.note(*self.trainer.step(x, labels), len(labels))
        self.trainer.check_parameters()  # the last step may have spoiled them

    def _run(self, x: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        trainer = self.trainer
        if self.record and self._has_stepped():
            recorded = self._recorded(x, labels)
            if recorded is not None:
                return recorded(x, labels)
        self._release()
        batch = (tensor(part, device=trainer.device) for part in (x, labels))
        return train_step(trainer.net, trainer.optimizer, *batch)

    def _has_stepped(self) -> bool:
        """Whether the optimizer's arrays exist."""
        return bool(self.recorded or self.pending or self.trainer.progress.seen)

    def _recorded(self, x: np.ndarray, labels: np.ndarray) -> RecordedStep | None:
        """The recording that fits, a new one, or None where there can be none now."""
        trainer, now = self.trainer, self.recorded
        of = trainer.net, trainer.optimizer
        if now is not None and now.fits(*of, x, labels):
            return now
        if len(x) != trainer.loader.batch_size or self.why_not:
            return None  # the last batch of an epoch is smaller
        try:
            if now is None:
                self.recorded = RecordedStep(*of, x, labels)
            elif not now.renew(*of, x, labels):
                self.recorded = None  # until a step has made the arrays that there are to be now
        except (MemoryError, UsageError) as error:
            self.why_not = str(error)
            self.recorded = None
        return self.recorded

    def _release(self) -> None:
        """Give the net the values of recorded steps; where memory lacks these are the last ones."""
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
        state = trainer.optimizer.state_dict()
        drawn = states(generators(trainer.net).values())
        return [(t, t.array) for t in tensors], state, drawn

    def _restore(self) -> None:
        arrays, state, drawn = self.start
        for t, array in arrays:
            t.data = array
        self.trainer.optimizer.load_state_dict(state)
        rewind(drawn)
