"""Ops: a forward function and its derivative rule; calling an op records a node.

One declaration serves the engine, the checker, the tests, the docs and the drawings. Rules are
written with minigrad's own ops and operators, so the same rule runs on plain arrays (a first-order
sweep) and on boxes (a recorded sweep, which can be differentiated again).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from minigrad.backend import MODULES, WEAK, Kind, as_operands, frozen, namespace
from minigrad.context import CURRENT
from minigrad.core.node import Box, Cached, Node, leaf
from minigrad.declaration import Declared, core_axes
from minigrad.errors import from_operands, plain_params, value_and_cache

NO_PARAMS: dict[str, Any] = {}  # the parameters of every node that has none


@dataclass(eq=False, repr=False, kw_only=True)
class Op(Declared):
    """A primitive with a derivative rule; ``op(*arrays, **params)`` calls and records it.

    ``signature`` names the core axes as NumPy's gufuncs do, ``"(m,k),(k,n)->(m,n)"``; loop axes
    before them broadcast. ``"()"`` is elementwise; ``""`` says nothing about shapes. An op that is
    ``linear`` (``"jointly"``, or ``"separately"`` in each input) needs no jvp rule. If the forward
    returns ``(value, cache)``, the node keeps only the cache, and a sweep over plain arrays runs
    ``pull(y_bar, cache, own)`` as its rule; with ``own`` it may overwrite ``y_bar``.
    """

    pullback: str  # LaTeX, \bar x = ...
    signature: str = ""
    linear: Literal["", "jointly", "separately"] = ""

    def __post_init__(self):
        super().__post_init__()
        self.partials = self.vjp = self.jvp = self.pull = None  # the rules; `pull` is set by Fused
        self.core = core_axes(self.name, self.signature, self.arity)

    def defpartials(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Declare ``rule(y, *xs, **params)`` -> one partial derivative per input, elementwise."""
        self.partials = self.fitting(rule, "y")  # or None (zero), or a function, called if needed
        return rule

    def defvjp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Declare ``rule(y_bar, y, *xs, **params)`` -> a cotangent, function or None per input."""
        self.vjp = self.fitting(rule, "y_bar", "y")
        return rule

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Declare ``rule(x_dots, y, *xs, **params)`` -> ``y_dot``; a zero tangent is None."""
        self.jvp = self.fitting(rule, "x_dots", "y")
        return rule

    def __call__(self, *args: Any, **params: Any) -> Any:
        if len(args) != self.arity or (args and args[-1] is None):
            args, params = self.bind(args, params)
        box, xp, inputs, parents = None, WEAK, [], []  # xp: the array library; WEAK for numbers
        tracked = irregular = False
        for arg in args:
            node = None
            if isinstance(arg, Box):
                box, node, arg = arg, arg.node, arg.array
                tracked = tracked or (node is not None and node.requires_grad)
            inputs.append(arg)
            parents.append(node)
            module = MODULES.get(arg.__class__)
            if module is not xp and module is not WEAK:
                irregular, xp = module is None or xp is not WEAK, module
        params = plain_params(self, params) if params else params
        context, node, cache = CURRENT.get(), None, None
        recording = tracked and context.recording
        try:
            if xp is WEAK or irregular:  # only numbers, or a sequence, or arrays of two libraries
                inputs = as_operands(inputs)
                xp = namespace(*inputs)
            value = self.forward(xp, *inputs, **params) if params else self.forward(xp, *inputs)
            if MODULES.get(value.__class__) is not xp:
                value, cache = value_and_cache(self, value, inputs)
            if recording and None in parents:
                _freeze_constants(args, inputs, parents)
        except (LookupError, OverflowError, TypeError, ValueError) as error:
            raise from_operands(self, args, params, error) from error
        if recording:
            params = {key: frozen(value) for key, value in params.items()} if params else NO_PARAMS
            node_class: Any = Node if cache is None else Cached
            node = node_class(self, params, tuple(parents), tuple(inputs), value, context.scope)
            if cache is not None:
                node.cache, node.kinds = cache, tuple(map(Kind, inputs))
                if context.observer is None:
                    del node.inputs, node.value
                    node.needs_rerun = True
        if context.observer is not None:  # such as that of anomaly_mode
            context.observer.called(self, inputs, value, node)
        return value if box is None else type(box)(value, node)


def _freeze_constants(args: tuple, inputs: list, parents: list) -> None:
    """Make operands without a node safe to keep: a box gets a leaf, a plain array is copied."""
    for i, arg in enumerate(args):
        if isinstance(arg, Box):
            parents[i] = arg.node = arg.node or leaf(arg.array)
        elif arg.__class__ is not float:
            inputs[i] = frozen(inputs[i])


def op(**fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """Declare the decorated ``forward(xp, *arrays, **params)`` as an op; fields as in ``Op``."""
    return lambda forward: Op(forward=forward, **fields)


def elementwise(**fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """Declare an op that acts on each element separately; its rule is given to ``defpartials``."""
    return op(signature="()", **fields)
