"""A training step that is recorded once and launched again and again, as a CUDA graph.

Launching the some hundred kernels of a small step one by one costs more time than they compute; a
graph is one launch. A graph computes with the addresses and numbers it was recorded with. So the
parameters, the buffers and the optimizer's arrays have a home each, which the graph reads and
writes, and batches are copied to one place before each launch.
"""

import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from minigrad import backend, nn, optim
from minigrad.core.node import leaf
from minigrad.errors import UsageError, facts
from minigrad.fused.cuda import matmul
from minigrad.fused.cuda.foreach import copy_all
from minigrad.nn import kernels
from minigrad.nn.module import statistics_are_frozen
from minigrad.nn.random import generators, rewind, states
from minigrad.tensor import Tensor, tensor

_PLAIN = (int, float, str, type(None), np.generic)  # attributes that are compared by value


def train_step(net: nn.Module, optimizer: optim.Optimizer, x: Tensor, labels: Tensor) -> tuple:
    """One step on a batch that is on the device: the loss and the number of right answers, as
    arrays there. Nothing waits for the device."""
    optimizer.zero_grad()
    logits = net(x)
    loss = kernels.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    return loss.array, kernels.count_right(logits.array, labels.array)


class RecordedStep:
    """``train_step`` as a graph: call it with batches of one shape.

    While it runs, the tensors of ``net`` keep the values they had: ``release`` gives them the
    present ones. A tensor that was assigned in between is taken over by the next call.

    Args:
        net, optimizer: on a GPU; the optimizer has stepped at least once, so that its arrays exist.
        x, labels: a batch on the host; its shapes and dtypes are those of all later ones.

    Raises:
        UsageError: the step cannot be recorded; names the reason: the host waits for a result or
            draws random numbers in it (from the default generator or one that a layer or the
            optimizer holds), it needs cuBLAS for more than products of two matrices, the
            optimizer's update depends on the number of steps (Adam), or attributes change in it.
        MemoryError: the GPU has no room for a second step's arrays.
    """

    def __init__(self, net: nn.Module, optimizer: optim.Optimizer, x: Any, labels: Any):
        self.net, self.optimizer = net, optimizer
        self.tensors = [*net.parameters(), *net.buffers()]
        self.owners = [*net.modules(), *_optimizers(optimizer)]
        names = [(m._parameters, m._buffers, m._modules) for m in net.modules()]
        self.known = {*map(id, (*self.tensors, *self.owners, *chain(*names)))}  # see ``_parts``
        device = self.tensors[0].device
        if device == "cpu":
            raise UsageError(facts("RecordedStep: device", expected="a GPU", got=device))
        self.library: Any = backend.library_of(self.tensors[0].array)
        self.key, self.parts = self._key(x, labels), self._parts()
        self.batch = tensor(x, device=device), tensor(labels, device=device)
        self.homes = self._copies(self._state())
        self.shown: list[Any] = []  # what the tensors held when they were last released
        self.is_running = False
        self.recorded: list[Any] = []  # the graph, and the arrays that it leaves its results in
        xp = self.library.xp
        self.pool = xp.cuda.MemoryPool(_allocator(xp))  # what a graph uses is given to nobody else
        self.pool.set_limit(size=0)  # before it refuses to grow it would free blocks, too
        weakref.finalize(self, _free, self.tensors[0].array.device, self.pool, self.recorded)
        self.stream = xp.cuda.Stream(non_blocking=True)
        xp.get_default_memory_pool().free_all_blocks()  # left from a step; a graph needs its own
        self._record(is_first=True)

    def renew(self, net: nn.Module, optimizer: optim.Optimizer, x: Any, labels: Any) -> bool:
        """Record into the same memory with other learning rates; False: more than they changed, or
        the recording is lost."""
        key = self._key(x, labels)
        self.release()
        is_same = net is self.net and optimizer is self.optimizer and self._parts() == self.parts
        if not self.recorded or not is_same or key[:-1] != self.key[:-1]:
            return False
        self.library.xp.cuda.get_current_stream().synchronize()  # the old graph may still run
        self.key = key
        self.recorded.clear()
        copy_all(self.library.xp, list(zip(self.homes, self._state(), strict=True)))
        self._record(is_first=False)
        return True

    def __call__(self, x: Any, labels: Any) -> tuple[Any, Any]:
        """One step: the loss and the number of right answers before it, arrays on the device."""
        if not self.fits(self.net, self.optimizer, x, labels):
            expected = "the shapes, dtypes, options and layers that were recorded"
            got = f"{x.shape} {x.dtype} with {self.optimizer.param_groups[0]}"
            raise UsageError(facts("RecordedStep: batch", expected=expected, got=got))
        self._adopt()
        for home, value in zip(self.batch, (x, labels), strict=True):
            home.array[...] = self.library.xp.asarray(value)
        graph, *results = self.recorded
        graph.launch()
        return tuple(result.copy() for result in results)

    def fits(self, net: nn.Module, optimizer: optim.Optimizer, x: Any, labels: Any) -> bool:
        """Whether the recording holds: shapes, dtypes, attributes of layers and of the optimizer.

        Of what is no number, sequence or tensor it sees another object, but no change inside it.
        """
        is_same = net is self.net and optimizer is self.optimizer
        is_same = is_same and (self.is_running or self._parts() == self.parts)
        return bool(self.recorded) and is_same and self._key(x, labels) == self.key

    def release(self) -> None:
        """Give the tensors and the optimizer the present values.

        Raises:
            MemoryError: no room for copies; they got the homes, and the recording is lost.
        """
        if self.is_running:
            try:
                self.shown = self._copies(self.homes)
            except MemoryError:
                self.recorded.clear()  # the graph would write to what the tensors now hold
                self._assign(self.homes)
                self.is_running = False
                raise
            self._assign(self.shown)
            self.is_running = False

    def _key(self, x: Any, labels: Any) -> tuple:
        """What a step reads on the host: kinds of operands, options, attributes; rates are last."""
        groups = self.optimizer.state_dict()["param_groups"]
        rates = [group.pop("lr", None) for group in groups]
        trained = [t.requires_grad for t in self.tensors]
        kinds = x.shape, str(x.dtype), labels.shape, str(labels.dtype)
        return *kinds, str(groups), trained, self._options(), str(rates)

    def _options(self) -> tuple:
        """Whether statistics are frozen, and the attributes of layers and of the optimizer but for
        state, and what ``_parts`` looks at."""
        attributes = [
            value if isinstance(value, _PLAIN) else _mark(value)
            for owner in self.owners
            for name, value in vars(owner).items()
            if id(value) not in self.known and (name != "state" or isinstance(owner, nn.Module))
        ]
        return statistics_are_frozen(), attributes

    def _parts(self) -> tuple:
        """What a recording is of; looked at where it starts to run, for this takes longer."""
        now = *self.net.modules(), *self.net.parameters(), *self.net.buffers()
        return [*map(id, now)], [sorted(s) for s in self.optimizer.state_dict()["state"]]

    # --- state -----------------------------------------------------------------------------------

    def _slots(self, state: dict[str, Any]) -> Iterator[tuple[dict, str]]:
        """The places of arrays in the optimizer's ``state_dict``."""
        for entries in state["state"]:
            for name in sorted(entries):
                if self._is_array(entries[name]):
                    yield entries, name

    def _is_array(self, value: Any) -> bool:
        return isinstance(value, self.library.types)

    def _state(self) -> list[Any]:
        """Every array that a step changes."""
        arrays = [t.array for t in self.tensors]
        slots = self._slots(self.optimizer.state_dict())
        return arrays + [entries[name] for entries, name in slots]

    def _assign(self, arrays: list[Any]) -> None:
        for t, array in zip(self.tensors, arrays, strict=False):
            t.array, t.node = array, leaf(array, t.requires_grad, t.name)
        state, rest = self.optimizer.state_dict(), arrays[len(self.tensors) :]
        for (entries, name), array in zip(self._slots(state), rest, strict=False):
            entries[name] = array
        self.optimizer.load_state_dict(state)

    def _adopt(self) -> None:
        """Take over what was assigned since the tensors were released."""
        if not self.is_running:
            places = zip(self.homes, self._state(), self.shown, strict=True)
            copy_all(
                self.library.xp, [(home, now) for home, now, shown in places if now is not shown]
            )
            self.is_running = True

    def _numbers(self) -> list[dict]:
        """What the optimizer keeps on the host: a graph would repeat the update of one moment."""
        states = self.optimizer.state_dict()["state"]
        return [{k: v for k, v in s.items() if not self._is_array(v)} for s in states]

    def _copies(self, arrays: list[Any]) -> list[Any]:
        xp = self.library.xp
        copies = [xp.empty(array.shape, array.dtype) for array in arrays]
        copy_all(xp, list(zip(copies, arrays, strict=True)))
        return copies

    # --- recording -------------------------------------------------------------------------------

    def _record(self, is_first: bool) -> None:
        xp, before, numbers, stream = self.library.xp, self._state(), self._numbers(), self.stream
        options, attributes = self._options(), [dict(vars(owner)) for owner in self.owners]
        optimizer, random = self.optimizer.state_dict(), self._random()
        xp.cuda.get_current_stream().synchronize()
        with _without_cublas(self.library), xp.cuda.using_allocator(self.pool.malloc), stream:
            try:
                if is_first:
                    self._step()  # loads every kernel: that is not done while recording
                if self._numbers() != numbers or len(self._state()) != len(before):
                    raise NotImplementedError(
                        "the optimizer's update depends on the number of steps"
                    )
                if self._options() != options:
                    raise NotImplementedError("attributes of a layer or the optimizer change in it")
                self._assign(self.homes)
                self.recorded += self._capture(stream)
            except (NotImplementedError, RuntimeError) as error:
                raise UsageError(f"RecordedStep: the step cannot be recorded: {error}") from error
            finally:  # also what a step that cannot be recorded changed on the host
                for owner, values in zip(self.owners, attributes, strict=True):
                    vars(owner).clear()
                    vars(owner).update(values)
                self.optimizer.load_state_dict(optimizer)
                self._assign(before)
                rewind(random)
                stream.synchronize()
        self.shown = before

    def _random(self) -> list[tuple[np.random.Generator, Any]]:
        """The generators that a step may draw from, with their states."""
        held = (value for owner in self.owners for value in vars(owner).values())
        own = [value for value in held if isinstance(value, np.random.Generator)]
        return states([*generators(self.net).values(), *own])

    def _step(self) -> tuple[Any, Any]:
        before = self._random()
        results = train_step(self.net, self.optimizer, *self.batch)
        if any(_listed(g.bit_generator.state) != _listed(state) for g, state in before):
            raise NotImplementedError("random numbers are drawn in it")
        return results

    def _capture(self, stream: Any) -> tuple:
        stream.begin_capture()
        try:
            results = self._step()
            pairs = zip(self.homes, self._state(), strict=True)
            copy_all(self.library.xp, [(home, new) for home, new in pairs if new is not home])
        except BaseException:
            _abandon(stream)
            raise
        return stream.end_capture(), *results


def _optimizers(optimizer: Any) -> Iterator[Any]:
    """``optimizer`` and those that it is around."""
    while optimizer is not None:
        yield optimizer
        optimizer = getattr(optimizer, "optimizer", None)


class _Same:
    """Equals another of the same object, which it keeps alive: nothing new gets its address."""

    def __init__(self, of: Any):
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.of is other.of


def _mark(value: Any) -> Any:
    """What tells an attribute from another: values of numbers and sequences, else which object."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (tuple, list, set)):
        return [*map(_mark, value)]
    return _Same(value.array if isinstance(value, Tensor) else value)


def _listed(state: Any) -> Any:
    """The state of a generator with lists for arrays, so that ``==`` is one answer."""
    if isinstance(state, dict):
        return {key: _listed(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _allocator(xp: Any) -> Callable[[int], Any]:
    """Memory for a pool: where there is none, the pool must not free what a graph uses and retry,
    as it does after CuPy's own error."""

    def allocate(size: int) -> Any:
        try:
            return xp.cuda.MemoryPointer(xp.cuda.Memory(size), 0)
        except RuntimeError as error:
            raise MemoryError(str(error)) from error

    return allocate


def _free(device: Any, pool: Any, recorded: list[Any]) -> None:
    """Give back the memory of a recording: CuPy 14 keeps that of a pool that is only dropped."""
    recorded.clear()
    with device:
        pool.free_all_blocks()


def _abandon(stream: Any) -> None:
    """End a capture that failed; ending it fails once more."""
    with suppress(RuntimeError):
        stream.end_capture()


@contextmanager
def _without_cublas(library: backend.Library) -> Iterator[None]:
    """Inside the block products of two matrices are kernels of the package.

    CuPy refuses cuBLAS while a stream records (cupy/cupy#6290).
    """
    backend.register(replace(library, xp=_with_own_products(library.xp)))
    try:
        yield
    finally:
        backend.register(library)


@cache
def _with_own_products(xp: Any) -> types.ModuleType:
    """``xp`` with another ``matmul``."""

    def product(a: Any, b: Any) -> Any:
        return matmul.product(xp, a, b) if matmul.accepts(a, b) else xp.matmul(a, b)

    own: Any = types.ModuleType(xp.__name__)
    own.__getattr__ = lambda name: getattr(xp, name)
    own.matmul = product
    return own
