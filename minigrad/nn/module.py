"""Module: a function with state. Parameters are trained, buffers are not; both are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

import numpy as np

from minigrad import backend
from minigrad.context import scope
from minigrad.core.node import leaf
from minigrad.errors import (
    DTypeError,
    GraphError,
    MinigradError,
    ShapeError,
    UsageError,
    describe,
    facts,
    hinting,
    naming,
)
from minigrad.spelling import INSTEAD, Absent
from minigrad.tensor import Tensor, tensor

_FROZEN = ContextVar("frozen statistics", default=False)  # per thread or asyncio task


@contextmanager
def frozen_statistics() -> Iterator[None]:
    """Keep layers from changing their state inside a ``with`` block, as a gradient check needs.

    Layers compute as usual in their mode, but running statistics stay unchanged and dropout draws
    the same mask at every call, so that equal inputs give equal outputs.

    >>> bn = mg.nn.BatchNorm1d(2)
    >>> with mg.nn.frozen_statistics():
    ...     y = bn(mg.tensor([[0.0, 1.0], [2.0, 5.0]]))
    >>> bn.running_mean.numpy()
    array([0., 0.])
    """
    before = _FROZEN.get()
    _FROZEN.set(True)
    try:
        yield
    finally:
        _FROZEN.set(before)


def statistics_are_frozen() -> bool:
    """Whether ``frozen_statistics`` is in force here."""
    return _FROZEN.get()


def _no_names(module: Any) -> dict[str, None]:
    return {}


class Module:
    """Base of all layers and models: override ``forward``, call the object.

    A leaf tensor with ``requires_grad`` that is assigned to an attribute becomes a parameter, a
    Module a submodule; ``register_buffer`` adds state that is saved but not trained. A registered
    name can be deleted, or assigned None or another parameter, buffer or submodule; other values,
    which would not be saved, are refused. A leaf without ``requires_grad`` that replaces a
    parameter is a frozen parameter. A call runs in a scope named after the class and the attribute,
    so that drawings show layers as clusters.

    >>> class Scale(mg.nn.Module):
    ...     def __init__(self):
    ...         self.factor = mg.tensor(3.0, requires_grad=True)
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> scale = Scale()
    >>> scale(2.0), list(scale.state_dict())
    (tensor(6., op=multiply), ['factor'])
    """

    training: bool = True
    _pending: bool = False  # whether the sizes are still unknown, see nn.lazy
    _attribute: str = ""  # what the parent calls this module
    # The registered names in order of assignment; their values are ordinary attributes. Each
    # dictionary is made on first use, so that a subclass need not call super().__init__().
    _parameters = cached_property(_no_names)
    _buffers = cached_property(_no_names)
    _modules = cached_property(_no_names)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and cls.__module__.startswith("minigrad."):
            cls.__init__ = hinting(cls.__init__)

    @hinting
    def __init__(self):
        super().__init__()  # for other base classes

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = {k: dict(v) for k, v in state.items() if k in ("_parameters", "_buffers", "_modules")}
        self.__dict__.update(state, **own)  # a copy does not share them

    def __setattr__(self, name: str, value: Any) -> None:
        registry = None  # the dictionary that ``name`` enters, if any
        if isinstance(value, Module):
            if any(part is self for part in value.modules()):
                expected, got = "a module that does not contain this one", repr(name)
                headline = f"{type(self).__name__}: assignment of a submodule"
                raise UsageError(facts(headline, expected=expected, got=got))
            registry = self._modules
            value.__dict__["_attribute"] = name
        elif isinstance(value, Tensor) and name in self._buffers:
            registry = self._buffers
        elif (
            isinstance(value, Tensor)
            and value.is_leaf
            and (value.requires_grad or name in self._parameters)
        ):
            registry = self._parameters
            value.name = value.name or name
        others = [
            names
            for names in (self._parameters, self._buffers, self._modules)
            if name in names and names is not registry
        ]
        if others and registry is None and value is not None:
            raise _not_registered(self, name, value)
        object.__setattr__(self, name, value)  # if this raises, no name was registered
        for names in others:
            del names[name]
        if registry is not None:
            registry[name] = None

    if TYPE_CHECKING:  # type checkers cannot know the names that register_buffer adds

        def __getattr__(self, name: str) -> Any: ...

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        for names in (self._parameters, self._buffers, self._modules):
            names.pop(name, None)

    def register_buffer(self, name: str, value: Any) -> None:
        """Keep ``value`` (array or Tensor) as state under ``name``: saved, moved, not trained.

        Raises:
            UsageError: an empty name, one with a dot, or one in use.
        """
        is_taken = name not in self._buffers and getattr(self, name, None) is not None
        if is_taken or not name or "." in name:
            headline = f"{type(self).__name__}.register_buffer: name"
            expected = "a name that is not in use, without a dot"
            raise UsageError(facts(headline, expected=expected, got=repr(name)))
        buffer = tensor(value, name=name)
        self._buffers[name] = None
        setattr(self, name, buffer)

    def update_buffers(self, **values: Any) -> None:
        """Assign new arrays to buffers, without copying, unless in ``frozen_statistics``.

        The arrays belong to the buffers from then on: the caller must not write to them.
        """
        if not _FROZEN.get():
            for name, value in values.items():
                getattr(self, name)._replace(value, own=True)

    # --- calling ---------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; every subclass overrides it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        title = f"{type(self).__name__} {self._attribute}".rstrip()
        nodes = [arg.node for arg in args if isinstance(arg, Tensor) and arg.node is not None]
        with scope(title, tuple(nodes), module=ref(self)):
            try:
                return self.forward(*args, **kwargs)
            except MinigradError as error:
                error.add_note(f"in {title}")
                raise
            except AttributeError as error:  # a forward usually reads these first
                is_operand = any(error.obj is arg for arg in (*args, *kwargs.values()))
                if error.name not in ("ndim", "shape") or not is_operand:
                    raise
                got = describe(error.obj)
                raise DTypeError(facts(title, expected="a tensor or an array", got=got)) from error

    # --- looking inside --------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """``(name, module)`` of the direct submodules."""
        return ((name, getattr(self, name)) for name in self._modules)

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        return (child for _, child in self.named_children())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """``(path, module)`` of this module and all modules below, each once, outermost first."""
        return self._paths(set())

    def _paths(self, seen: set | None = None, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Like ``named_modules``; without a set ``seen``, a shared module comes once per path."""
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, child in self.named_children():
            yield from child._paths(seen, _dotted(prefix, name))

    def modules(self) -> Iterator[Module]:
        """This module and all modules below."""
        return (module for _, module in self.named_modules())

    def _named_state(self, *kinds: str, once: bool = False) -> Iterator[tuple[str, Tensor]]:
        """``(path, tensor)`` of everything in the registries ``kinds``, once per path of its module
        or ``once`` per module."""
        for path, module in self._paths(set() if once else None):
            if module._pending:
                raise UsageError(
                    f"{module!r} at {path!r} has no parameters yet; run one batch first"
                )
            for kind in kinds:
                for name in getattr(module, kind):
                    yield _dotted(path, name), getattr(module, name)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """``(path, tensor)`` of every parameter; a shared one comes once."""
        return _each_once(self._named_state("_parameters", once=True))

    def parameters(self) -> Iterator[Tensor]:
        """Every parameter, frozen ones (``requires_grad = False``) included."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """``(path, tensor)`` of every buffer; a shared one comes once."""
        return _each_once(self._named_state("_buffers", once=True))

    def buffers(self) -> Iterator[Tensor]:
        """Every buffer."""
        return (buffer for _, buffer in self.named_buffers())

    # --- changing --------------------------------------------------------------------------------

    def apply(self, f: Callable[[Module], Any]) -> Self:
        """Call ``f`` on every module, innermost first; return this module."""
        for module in reversed(list(self.modules())):
            f(module)
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode: statistics of the batch, dropout; with False, to ``eval()``."""
        if not isinstance(mode, (bool, np.bool_)):
            headline = f"{type(self).__name__}.train: mode"
            raise UsageError(facts(headline, expected="True or False", got=describe(mode)))
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode: running statistics, no dropout."""
        return self.train(False)

    def requires_grad_(self, value: bool = True) -> Self:
        """Freeze or unfreeze every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad = value
        return self

    @hinting
    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def to(self, device: str | None = None, dtype: Any = None) -> Self:
        """Move parameters and buffers to ``device``; cast the floating ones to ``dtype``.

        Gradients follow them. A graph recorded before a change can no longer be swept.

        Raises:
            DTypeError: ``dtype`` is not a floating one.
        """
        if dtype is not None:
            dtype = backend.as_dtype(dtype, "f", "to: dtype", "a floating dtype")
        for _, state in self._named_state("_parameters", "_buffers", once=True):
            array = _moved(state.array, device, dtype)
            if array is state.array:
                continue
            old = state.node
            state.array = backend.frozen(array)
            state.node = leaf(state.array, state.requires_grad, state.name)
            if old is not None:
                old.overwritten = "value"
                state.grad = None if old.grad is None else _moved(old.grad.array, device, dtype)
        return self

    # --- saving and loading ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """All parameters and buffers by path, detached. Arrays never change, so nothing is copied.

        >>> sorted(mg.nn.Linear(2, 3).state_dict())
        ['bias', 'weight']
        """
        return {k: v.detach() for k, v in self._named_state("_parameters", "_buffers")}

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> None:
        """Assign ``state_dict``, a mapping of path -> Tensor or array; all of it or nothing.

        Args:
            state_dict: as ``state_dict()`` returns it; values are cast to the dtypes of the module.
            strict: refuse missing and unexpected paths.

        Raises:
            UsageError: missing or unexpected paths, all of them named.
            ShapeError: values of other shapes, all of them named.
            DTypeError: nan, inf or numbers out of range for integers.
            GraphError: buffers that hold results of recorded ops, all of them named.
        """
        own = dict(self._named_state("_parameters", "_buffers"))
        title = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping):
            expected = "a mapping of path -> array"
            raise UsageError(facts(title, expected=expected, got=describe(state_dict)))
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        if strict and (missing or unexpected):
            got = f"missing {missing}, unexpected {unexpected}"
            raise UsageError(facts(title, expected=f"the {len(own)} keys of this module", got=got))
        new = {k: named_array(f"{title}: {k}", state_dict[k]) for k in own if k in state_dict}
        wrong = [name for name, value in new.items() if tuple(value.shape) != own[name].shape]
        if wrong:
            expected = ", ".join(f"{name} {own[name].shape}" for name in wrong)
            got = ", ".join(f"{name} {tuple(new[name].shape)}" for name in wrong)
            raise ShapeError(facts(f"{title}: shapes", expected=expected, got=got))
        for name, value in new.items():
            if own[name].dtype.kind in "iu" and not _fits(value, own[name].dtype):
                expected = f"numbers that {own[name].dtype} can hold"
                got = f"{value.min()} to {value.max()}"
                raise DTypeError(facts(f"{title}: {name}", expected=expected, got=got))
        recorded = ", ".join(name for name in new if not own[name].is_leaf)
        if recorded:
            expected, remedy = "leaf tensors", "store x.detach() in forward()"
            got = f"results of recorded ops: {recorded}"
            raise GraphError(facts(title, expected=expected, got=got, remedy=remedy))
        for name, value in new.items():
            own[name].data = value

    # --- showing ---------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The text that the ``repr`` of a module shows before its submodules."""
        return ""

    def __repr__(self) -> str:
        lines = [f"{name}: {child!r}" for name, child in self.named_children()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        inner = "\n".join(filter(None, [self.extra_repr(), *lines])).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inner}\n)"


# names of PyTorch's modules that are missing here: using one says what to write instead
for _name in (key.removeprefix("net.") for key in INSTEAD if key.startswith("net.")):
    setattr(Module, _name, Absent(_name, "net"))


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _each_once(pairs: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """``(path, object)`` of each object once, with its first path."""
    seen: set[int] = set()
    for path, part in pairs:
        if id(part) not in seen:
            seen.add(id(part))
            yield path, part


def _not_registered(module: Module, name: str, value: Any) -> DTypeError:
    """The error for a ``value`` that cannot replace the parameter, buffer or submodule ``name``."""
    kind, expected, remedy = "submodule", "a Module or None", ""
    if name not in module._modules:
        is_buffer = name in module._buffers
        kind = "buffer" if is_buffer else "parameter"
        expected = "a Tensor or None" if is_buffer else "a leaf Tensor or None"
        remedy = f"assign to {name}.data to change the values"
    headline = f"{type(module).__name__}: assignment to the {kind} {name!r}"
    return DTypeError(facts(headline, expected=expected, got=describe(value), remedy=remedy))


def named_array(what: str, value: Any) -> Any:
    """The array of ``value``; an error names ``what``."""
    with naming(what):
        return backend.as_array(getattr(value, "array", value))


def _fits(array: Any, integers: np.dtype) -> bool:
    """Whether every number in ``array`` is in the range of the dtype ``integers``."""
    limits, host = np.iinfo(integers), backend.to_host(array)
    if host.dtype.kind in "bf":  # NumPy cannot compare bool and float16 with 2**63
        host = host.astype(np.float64)
    return bool(((limits.min <= host) & (host < int(limits.max) + 1)).all())


def _moved(array: Any, device: str | None, floating: np.dtype | None) -> Any:
    """``array`` on ``device``, cast if it is floating; the same object if nothing changes."""
    if floating is not None and array.dtype.kind == "f" and array.dtype != floating:
        array = array.astype(floating)
    return array if device is None else backend.to_device(array, device)


def check_module(what: str, value: Any) -> None:
    """Raise DTypeError, which names ``what``, unless ``value`` is a Module."""
    if not isinstance(value, Module):
        raise DTypeError(facts(what, expected="a Module", got=describe(value)))


def functional_call(module: Module, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """``module(*args)`` with other values for some of its parameters and buffers.

    This makes a module a function of its parameters, for ``grad``, ``hvp`` and gradient checks.

    Args:
        module: has its own tensors back afterwards.
        state: mapping of path -> Tensor or array, with the paths of ``state_dict``. A shared tensor
            is replaced at all of its paths, except at those with a value of their own in ``state``.
        args, kwargs: passed to ``module``.

    Raises:
        DTypeError: ``module`` is not a Module.
        UsageError: no mapping, or a path that the module does not have.

    >>> layer = mg.nn.Linear(1, 1, bias=False)
    >>> loss = lambda w: mg.nn.functional_call(layer, {"weight": w}, np.array([[3.0]])).sum()
    >>> mg.grad(loss)([[2.0]])
    tensor([[3.]])
    """
    check_module("functional_call: module", module)
    if not isinstance(state, Mapping):
        expected = "a mapping of path -> Tensor or array"
        raise UsageError(facts("functional_call: state", expected=expected, got=describe(state)))
    places = {
        _dotted(path, name): (owner, name)
        for path, owner in module._paths()
        for name in (*owner._parameters, *owner._buffers)
    }
    for path in state:
        if path not in places:
            raise UsageError(
                f"functional_call: {type(module).__name__} has no parameter or buffer {path!r}"
            )
    own = {path: getattr(owner, name) for path, (owner, name) in places.items()}
    state = {path: v if isinstance(v, Tensor) else tensor(v) for path, v in state.items()}
    new = {id(own[path]): value for path, value in state.items()}  # by the tensor it replaces
    replaced = [path for path in places if id(own[path]) in new]
    try:
        for path in replaced:
            object.__setattr__(*places[path], state.get(path, new[id(own[path])]))
        return module(*args, **kwargs)
    finally:
        for path in replaced:
            object.__setattr__(*places[path], own[path])
