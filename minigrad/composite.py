"""Composites: functions of ops that a drawing shows as one card; names for the values inside."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minigrad.backend import as_array
from minigrad.context import CURRENT, scope
from minigrad.core.node import Box, leaf
from minigrad.declaration import Declared
from minigrad.errors import MinigradError, describe, from_operands


@dataclass(eq=False, repr=False, kw_only=True)
class Composite(Declared):
    """An ordinary function of ops with a name in the literature: it has a scope, but no rule."""

    def __call__(self, *args: Any, **params: Any) -> Any:
        if len(args) != self.arity or (args and args[-1] is None):
            args, params = self.bind(args, params)
        try:
            args = tuple(map(operand, args))
        except MinigradError as error:
            raise from_operands(self, args, params, error) from error
        nodes = [a.node if isinstance(a, Box) else None for a in args]
        with scope(self.name, tuple(nodes)):
            try:
                return self.forward(*args, **params)
            except MinigradError as error:
                error.add_note(f"in {self.name}({', '.join(map(describe, args))})")
                raise
            except (LookupError, OverflowError, TypeError, ValueError) as error:
                raise from_operands(self, args, params, error) from error


def operand(value: Any) -> Any:
    """A tensor as it is; a number, a sequence or an array of any library as an array."""
    return value if isinstance(value, Box) else as_array(value)


def composite(**fields: Any) -> Callable[[Callable[..., Any]], Composite]:
    """Declare an ordinary function of ops as a composite."""
    return lambda forward: Composite(forward=forward, **fields)


def label(box: Any, name: str) -> Any:
    """Name an intermediate value for drawings; plain arrays pass through untouched."""
    if isinstance(box, Box):
        box.node = box.node or leaf(box.array)  # without a node it is a constant
        box.node.name = name
    return box


def constant(array: Any, name: str, x: Any) -> Any:
    """``array`` for use with ``x``: a named box in the current scope if ``x`` is a box."""
    if not isinstance(x, Box):
        return array
    box = label(type(x)(array), name)
    box.node.scope = CURRENT.get().scope
    return box
