"""A training step that is recorded once as a CUDA graph and launched for every batch.

Launching the hundred or so kernels of a small step one by one takes longer than computing them; a
graph is one launch. A graph always uses the addresses, and the numbers of the host, with which it
was recorded. So each parameter, buffer and array of the optimizer has a fixed array, its home,
which the graph reads and writes; a batch is copied to a fixed place before each launch. The shapes,
options and attributes that a step reads on the host are compared before each launch: a recording
fits only while they are unchanged.
"""

import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from minigrad.nn.random import as_lists, generators, rewind, states
from minigrad.tensor import Tensor, tensor

_BY_VALUE = (int, float, str, type(None), np.generic)  # types of attributes compared by value


def train_step(net: nn.Module, optimizer: optim.Optimizer, x: Tensor, labels: Tensor) -> tuple:
    """One step on a batch on the device, without waiting for it.

    Returns:
        The loss and the number of right answers before the step, as arrays on the device.
    """
    optimizer.zero_grad()
    logits = net(x)
    loss = kernels.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    return loss.array, kernels.count_right(logits.array, labels.array)


class RecordedStep:
    """``train_step`` as a graph, to be called with batches of one shape.

    Calls update the homes only. The tensors of ``net`` keep their old values until ``release``
    gives them the present ones; values assigned to them after that are used by the next call.

    Args:
        net, optimizer: on a GPU; the optimizer has stepped at least once, so that its arrays exist.
        x, labels: a batch on the host; its shapes and dtypes are those of all later ones.

    Raises:
        UsageError: the step cannot be recorded, because the host waits for a result or draws random
            numbers (from the default generator or one that a layer or the optimizer holds),
            attributes change, cuBLAS is needed for more than products of two matrices, or the
            update depends on the number of steps (Adam). The error says which.
        MemoryError: the GPU has no room for a second step's arrays.
    """

    def __init__(self, net: nn.Module, optimizer: optim.Optimizer, x: Any, labels: Any):
        self.net, self.optimizer = net, optimizer
        self.tensors = [*net.parameters(), *net.buffers()]
        self.owners = [*net.modules(), *_optimizers(optimizer)]
        registries = [(m._parameters, m._buffers, m._modules) for m in net.modules()]
        # ids of objects that ``_structure`` compares, so that ``_options`` need not
        self.part_ids = {*map(id, (*self.tensors, *self.owners, *chain(*registries)))}
        device = self.tensors[0].device
        self.library: Any = backend.library_of(self.tensors[0].array)
        if not backend.runs_kernels(self.library.xp):
            expected = "a GPU of compute capability 7.0 or higher"
            raise UsageError(facts("RecordedStep: device", expected=expected, got=device))
        self.key, self.structure = self._key(x, labels), self._structure()
        self.batch = tensor(x, device=device), tensor(labels, device=device)
        self.homes = self._copies(self._state())
        self.released: list[Any] = []  # the arrays of the tensors after the last release
        self.is_running = False  # whether there were launches since that release
        self.captured: list[Any] = []  # the graph and the arrays of its results; empty if lost
        xp = self.library.xp
        self.pool = xp.cuda.MemoryPool(_allocator(xp))  # memory that only the graph uses
        self.pool.set_limit(size=0)  # none: at a limit it would free the graph's blocks
        weakref.finalize(self, _free, self.tensors[0].array.device, self.pool, self.captured)
        self.stream = xp.cuda.Stream(non_blocking=True)
        xp.get_default_memory_pool().free_all_blocks()  # the graph needs memory of its own
        self._record(is_first=True)

    def renew(self, net: nn.Module, optimizer: optim.Optimizer, x: Any, labels: Any) -> bool:
        """Record again into the same memory, with other learning rates.

        Returns:
            False if more than the rates changed or the recording is lost; nothing is recorded then.
        """
        key = self._key(x, labels)
        self.release()
        if not self._is_of(net, optimizer) or key[:-1] != self.key[:-1]:
            return False
        self.library.xp.cuda.get_current_stream().synchronize()  # the old graph may still run
        self.key = key
        self.captured.clear()
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
        graph, *results = self.captured
        graph.launch()
        return tuple(result.copy() for result in results)

    def fits(self, net: nn.Module, optimizer: optim.Optimizer, x: Any, labels: Any) -> bool:
        """Whether the recording is valid for these: same shapes, dtypes, options and attributes.

        Attributes that are not numbers, sequences or tensors are compared by identity: a change
        inside such an object is not seen.
        """
        return self._is_of(net, optimizer) and self._key(x, labels) == self.key

    def _is_of(self, net: nn.Module, optimizer: optim.Optimizer) -> bool:
        """Whether there is a recording of these objects, with unchanged parts."""
        if not self.captured or net is not self.net or optimizer is not self.optimizer:
            return False
        return self.is_running or self._structure() == self.structure

    def release(self) -> None:
        """Give the tensors and the optimizer copies of the present values.

        Raises:
            MemoryError: no room for copies; they got the homes instead, and the recording is lost.
        """
        if self.is_running:
            try:
                self.released = self._copies(self.homes)
            except MemoryError:
                self.captured.clear()  # the graph would write to arrays that tensors hold
                self._assign(self.homes)
                self.is_running = False
                raise
            self._assign(self.released)
            self.is_running = False

    def _key(self, x: Any, labels: Any) -> tuple:
        """What a step reads on the host: shapes, dtypes, options, attributes; last the rates."""
        groups = self.optimizer.state_dict()["param_groups"]
        rates = [group.pop("lr", None) for group in groups]
        trained = [t.requires_grad for t in self.tensors]
        kinds = x.shape, str(x.dtype), labels.shape, str(labels.dtype)
        return *kinds, str(groups), trained, self._options(), str(rates)

    def _options(self) -> tuple:
        """Whether statistics are frozen, and the attributes of layers and optimizers.

        Not compared here are the state of optimizers and the attributes in ``part_ids``.
        """
        attributes = [
            value if isinstance(value, _BY_VALUE) else _comparable(value)
            for owner in self.owners
            for name, value in vars(owner).items()
            if id(value) not in self.part_ids and (name != "state" or isinstance(owner, nn.Module))
        ]
        return statistics_are_frozen(), attributes

    def _structure(self) -> tuple:
        """The identities of modules and tensors, and the names in the optimizer's state.

        Compared only at the first launch after a release, as this takes longer than ``_key``.
        """
        parts = *self.net.modules(), *self.net.parameters(), *self.net.buffers()
        return [*map(id, parts)], [sorted(s) for s in self.optimizer.state_dict()["state"]]

    # --- state -----------------------------------------------------------------------------------

    def _slots(self, state: dict[str, Any]) -> Iterator[tuple[dict, str]]:
        """``(entries, name)`` of every array in an optimizer's ``state_dict``."""
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
        """Give the tensors and the optimizer ``arrays``, in the order of ``_state``."""
        for t, array in zip(self.tensors, arrays, strict=False):
            t.array, t.node = array, leaf(array, t.requires_grad, t.name)
        state, optimizer_arrays = self.optimizer.state_dict(), arrays[len(self.tensors) :]
        for (entries, name), array in zip(self._slots(state), optimizer_arrays, strict=False):
            entries[name] = array
        self.optimizer.load_state_dict(state)

    def _adopt(self) -> None:
        """Copy to the homes what was assigned since the tensors were released."""
        if not self.is_running:
            arrays = zip(self.homes, self._state(), self.released, strict=True)
            pairs = [(home, new) for home, new, released in arrays if new is not released]
            copy_all(self.library.xp, pairs)
            self.is_running = True

    def _host_state(self) -> list[dict]:
        """Optimizer state on the host, such as a count of steps, which a graph would not update."""
        states = self.optimizer.state_dict()["state"]
        return [{k: v for k, v in s.items() if not self._is_array(v)} for s in states]

    def _copies(self, arrays: list[Any]) -> list[Any]:
        xp = self.library.xp
        copies = [xp.empty(array.shape, array.dtype) for array in arrays]
        copy_all(xp, list(zip(copies, arrays, strict=True)))
        return copies

    # --- recording -------------------------------------------------------------------------------

    def _record(self, is_first: bool) -> None:
        xp, stream = self.library.xp, self.stream
        before, host_state, options = self._state(), self._host_state(), self._options()
        attributes = [dict(vars(owner)) for owner in self.owners]
        optimizer, random = self.optimizer.state_dict(), self._random_states()
        xp.cuda.get_current_stream().synchronize()
        with _without_cublas(self.library), xp.cuda.using_allocator(self.pool.malloc), stream:
            try:
                if is_first:
                    self._step()  # loads every kernel, which cannot be done while recording
                if self._host_state() != host_state or len(self._state()) != len(before):
                    raise NotImplementedError(
                        "the optimizer's update depends on the number of steps"
                    )
                if self._options() != options:
                    raise NotImplementedError("it changes attributes of a layer or the optimizer")
                self._assign(self.homes)
                self.captured += self._capture(stream)
            except (NotImplementedError, RuntimeError) as error:
                raise UsageError(f"RecordedStep: the step cannot be recorded: {error}") from error
            finally:  # undo what the step changed on the host
                for owner, values in zip(self.owners, attributes, strict=True):
                    vars(owner).clear()
                    vars(owner).update(values)
                self.optimizer.load_state_dict(optimizer)
                self._assign(before)
                rewind(random)
                stream.synchronize()
        self.released = before

    def _random_states(self) -> list[tuple[np.random.Generator, Any]]:
        """The generators that a step may draw from, with their states."""
        attributes = (value for owner in self.owners for value in vars(owner).values())
        held = [value for value in attributes if isinstance(value, np.random.Generator)]
        return states([*generators(self.net).values(), *held])

    def _step(self) -> tuple[Any, Any]:
        before = self._random_states()
        results = train_step(self.net, self.optimizer, *self.batch)
        if any(as_lists(g.bit_generator.state) != as_lists(state) for g, state in before):
            raise NotImplementedError("it draws random numbers")
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
    """``optimizer`` and the optimizers that it wraps."""
    while optimizer is not None:
        yield optimizer
        optimizer = getattr(optimizer, "optimizer", None)


class _ByIdentity:
    """Compares ``of`` by identity, and keeps it alive so that no new object gets its address."""

    def __init__(self, of: Any):
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.of is other.of


def _comparable(value: Any) -> Any:
    """``value`` for ``==``: numbers and sequences by value, everything else by identity."""
    if isinstance(value, _BY_VALUE):
        return value
    if isinstance(value, (tuple, list, set)):
        return [*map(_comparable, value)]
    return _ByIdentity(value.array if isinstance(value, Tensor) else value)


def _allocator(xp: Any) -> Callable[[int], Any]:
    """An allocator for a pool, which raises MemoryError when memory is short.

    After CuPy's own error the pool would free blocks that a graph still uses, and retry.
    """

    def allocate(size: int) -> Any:
        try:
            return xp.cuda.MemoryPointer(xp.cuda.Memory(size), 0)
        except RuntimeError as error:
            raise MemoryError(str(error)) from error

    return allocate


def _free(device: Any, pool: Any, captured: list[Any]) -> None:
    """Free the memory of a recording: CuPy 14 does not when its pool is merely dropped."""
    captured.clear()
    with device:
        pool.free_all_blocks()


def _abandon(stream: Any) -> None:
    """End a failed capture, which raises its error once more."""
    with suppress(RuntimeError):
        stream.end_capture()


@contextmanager
def _without_cublas(library: backend.Library) -> Iterator[None]:
    """Inside the block, products of two matrices are computed by kernels of the package.

    CuPy refuses to call cuBLAS while a stream records (cupy/cupy#6290).
    """
    backend.register(library._replace(xp=_with_own_products(library.xp)))
    try:
        yield
    finally:
        backend.register(library)


@cache
def _with_own_products(xp: Any) -> types.ModuleType:
    """``xp``, but its ``matmul`` uses the kernel of the package where that accepts the operands."""

    def product(a: Any, b: Any) -> Any:
        return matmul.product(xp, a, b) if matmul.accepts(a, b) else xp.matmul(a, b)

    module: Any = types.ModuleType(xp.__name__)
    module.__getattr__ = lambda name: getattr(xp, name)
    module.matmul = product
    return module
