"""Containers of modules."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from minigrad.errors import UsageError, facts
from minigrad.nn.module import Module, check_module


class ModuleList(Module):
    """Modules in order, indexed like a list; it has no ``forward`` of its own.

    >>> len(mg.nn.ModuleList([mg.nn.ReLU(), mg.nn.Linear(1, 1)]))
    2
    """

    def __init__(self, modules: Any = ()):
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        """Add ``module`` at the end.

        Raises:
            DTypeError: ``module`` is not a Module.
        """
        free = (str(i) for i in count(len(self)) if str(i) not in self._modules)
        self._put(next(free), module)

    def _put(self, name: str, module: Module) -> None:
        check_module(f"{type(self).__name__}: part {name}", module)
        setattr(self, name, module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return self.children()

    def __getitem__(self, i: int | slice) -> Any:
        """The module ``i``; for a slice, a container of those modules, which keep their names."""
        if not isinstance(i, slice):
            return list(self)[i]
        part = Sequential() if isinstance(self, Sequential) else ModuleList()
        for name in list(self._modules)[i]:
            part._put(name, getattr(self, name))
        return part

    def __setitem__(self, i: int, module: Module) -> None:
        if isinstance(i, slice):
            headline = f"{type(self).__name__}: assignment of parts"
            raise UsageError(
                facts(headline, expected="an index", got=i, remedy="assign one at a time")
            )
        self._put(list(self._modules)[i], module)

    def __delitem__(self, i: int | slice) -> None:
        """Remove one module or a slice of them; the others are renumbered from 0."""
        rest = list(self)
        del rest[i]
        for name in list(self._modules):
            delattr(self, name)
        for module in rest:
            self.append(module)


class Sequential(ModuleList):
    """Modules applied one after the other.

    >>> net = mg.nn.Sequential(mg.nn.Flatten(), mg.nn.ReLU())
    >>> net(mg.tensor([[[-1.0], [2.0]]]))
    tensor([[0., 2.]])
    """

    def __init__(self, *modules: Module):
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x
