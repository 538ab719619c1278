"""Every error minigrad raises on purpose, and how its text is built.

::

    MinigradError
    ├── ShapeError (ValueError)               operands, seeds or parameters whose shapes do not fit
    │   └── BoundsError (IndexError)          an axis, index or target outside its range
    ├── DTypeError (TypeError)                a type or dtype the operation cannot take
    ├── LibraryMismatchError (TypeError)      operands of two array libraries or two devices
    ├── DataError (ValueError)                a data file or checkpoint that cannot be read
    ├── DeviceError (RuntimeError)            a device that is not there
    ├── MissingPackageError (ImportError)     an optional package that a feature needs
    ├── GraphError (RuntimeError)             a sweep that cannot start or cannot be trusted
    │   ├── SeedError (ValueError)            a seed that is missing, misshapen or not finite
    │   └── OverwrittenError                  a tensor was assigned after the graph recorded it
    ├── RuleError (RuntimeError)              a derivative rule broke its contract
    ├── AnomalyError (FloatingPointError)     NaN, inf or a changed array under ``anomaly_mode()``
    ├── VerificationError (AssertionError)    a derivative that was not proven
    ├── RenderError (RuntimeError)            a drawing that could not be made
    └── UsageError (ValueError)               a name, option or argument that is not valid

A text puts the facts first: the operation, what it expected and what it got, in at most four lines.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from numbers import Integral, Real
from sys import float_info
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable)


class MinigradError(Exception):
    """Base of every error raised on purpose."""


class ShapeError(MinigradError, ValueError):
    """Operands, seeds or parameters whose shapes do not fit."""


class BoundsError(ShapeError, IndexError):
    """An axis, index or target outside its range."""


class DTypeError(MinigradError, TypeError):
    """A type or dtype the operation cannot take."""


class LibraryMismatchError(MinigradError, TypeError):
    """Operands of two array libraries, or on two devices."""


class DeviceError(MinigradError, RuntimeError):
    """A device, or its array library, is not there."""


class DataError(MinigradError, ValueError):
    """A data file or checkpoint that is missing, corrupt or not what it should be."""


class MissingPackageError(MinigradError, ImportError):
    """An optional package that a feature needs is not installed."""


class GraphError(MinigradError, RuntimeError):
    """A sweep that cannot start or cannot be trusted."""


class SeedError(GraphError, ValueError):
    """A seed that is missing, of the wrong shape, or not finite."""


class OverwrittenError(GraphError):
    """A tensor was assigned a new value after the graph recorded the old one."""


class RuleError(MinigradError, RuntimeError):
    """A derivative rule broke its contract."""


class AnomalyError(MinigradError, FloatingPointError):
    """NaN or inf, or a changed saved array, found under ``anomaly_mode()``."""


class VerificationError(MinigradError, AssertionError):
    """A derivative that was not proven."""


class RenderError(MinigradError, RuntimeError):
    """A drawing that could not be made."""


class UsageError(MinigradError, ValueError):
    """A name, option or argument that is not valid."""


def facts(headline: str, *, expected: object, got: object, remedy: str = "") -> str:
    """Lay out an error text: what happened, what was expected, what was given, what to do."""
    lines = [headline, f"  expected: {expected}", f"  got:      {got}"]
    return "\n".join([*lines, f"  remedy:   {remedy}"] if remedy else lines)


def check_count(what: str, value: Any, least: int = 1, most: float = inf) -> int:
    """``value`` as an int; UsageError unless it is a whole number from ``least`` to ``most``."""
    if not isinstance(value, Integral) or not least <= int(value) <= most:
        expected = f"a whole number, {least} {'or more' if most == inf else f'to {most}'}"
        raise UsageError(facts(what, expected=expected, got=describe(value)))
    return int(value)


def check_number(what: str, value: Any, positive: bool = False) -> float:
    """``value`` as a float; UsageError unless it is finite and 0 or more, or ``positive``."""
    if not is_within(value, 0, float_info.max) or (positive and not value):
        expected = "a positive number" if positive else "a finite number, 0 or more"
        raise UsageError(facts(what, expected=expected, got=describe(value)))
    return float(value)


def check_real(what: str, value: Any) -> Any:
    """``value``; UsageError, which names ``what``, unless it is a real number."""
    if not isinstance(value, Real):
        raise UsageError(facts(what, expected="a number", got=describe(value)))
    return value


def is_within(value: Any, least: float, most: float) -> bool:
    """Whether ``value`` is a real number that a float can hold, from ``least`` to ``most``."""
    try:
        return isinstance(value, Real) and least <= float(value) <= most
    except OverflowError:  # as of 10**400
        return False


def check_keys(what: str, state: Any, *keys: str) -> list[Any]:
    """The values of ``keys`` in the dict ``state``; UsageError if it lacks one of them."""
    if not isinstance(state, dict) or not state.keys() >= set(keys):
        got = f"the keys {list(state)}" if isinstance(state, dict) else describe(state)
        expected = f"a dict with the keys {', '.join(keys)}"
        raise UsageError(facts(what, expected=expected, got=got))
    return [state[key] for key in keys]


def refusal(function: Callable, *calls: tuple[tuple, dict]) -> str:
    """The signature of ``function`` and why one of these calls does not fit it; empty if all do, or
    for a builtin without a signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    try:
        for arguments, keywords in calls:
            signature.bind(*arguments, **keywords)
    except TypeError as error:
        return f"{signature}: {error}"
    return ""


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Prefix minigrad's errors raised in the block with ``what``, the role of the bad array."""
    try:
        yield
    except MinigradError as error:
        raise type(error)(f"{what}: {error}") from error


def describe(operand: Any) -> str:
    """Name one operand: ``x (4, 3) float64``, ``ndarray (3,) int64`` or ``2.5``.

    The array library is added where it is not NumPy.
    """
    if isinstance(operand, type) or not hasattr(operand, "shape"):
        return repr(operand) if len(repr(operand)) <= 40 else type(operand).__name__
    name = getattr(operand, "name", None) or type(operand).__name__
    library = type(getattr(operand, "array", operand)).__module__.partition(".")[0]
    suffix = "" if library in ("numpy", "builtins") else f" of {library}"
    return f"{name} {tuple(operand.shape)} {getattr(operand, 'dtype', '')}{suffix}"


def kind_of(cause: Exception) -> type[MinigradError]:
    """The class of minigrad's error that stands for ``cause``, an error of any origin."""
    if isinstance(cause, MinigradError):
        return type(cause)
    if isinstance(cause, IndexError):  # NumPy's AxisError is one, too
        return BoundsError
    if _OTHER_GPU in str(cause):
        return LibraryMismatchError
    return DTypeError if isinstance(cause, (OverflowError, TypeError)) else ShapeError


def from_operands(op: Any, operands: tuple, params: dict, cause: Exception) -> MinigradError:
    """The error to raise for ``cause``, which the call ``op(*operands, **params)`` raised."""
    name, text = getattr(op, "composite", op).name, str(cause)
    shown = ", ".join(map(describe, operands)) or "no operands"
    if isinstance(cause, MinigradError):
        named = text if text.startswith(f"{name}: ") else f"{name}: {text}"
        if "expected:" in text:
            return type(cause)(named if "remedy:" in text else f"{named}\n  operands: {shown}")
        if named == text:
            return type(cause)(text)  # it is complete
    kind = kind_of(cause)
    if kind is LibraryMismatchError:
        expected, remedy = of_one_library(operands, cause)
    else:
        expected, remedy = _expected_arguments(op, name, cause)
    words = ", ".join(f"{key}={describe(value)}" for key, value in params.items())
    reason = text.splitlines()[0] if text else type(cause).__name__
    reason = reason.removeprefix(f"{op.name}: ")  # NumPy may have named the function itself
    headline = f"{name}({words}): {reason}" if words else f"{name}: {reason}"
    remedy = remedy or pytorch_remedy(params, op.keywords)
    return kind(facts(headline, expected=expected, got=shown, remedy=remedy))


def _expected_arguments(op: Any, name: str, cause: Exception) -> tuple[str, str]:
    """What arguments ``op`` expected when it raised ``cause``, and a remedy or ``""``."""
    signature = getattr(op, "signature", "")
    if type(cause).__name__ == "LinAlgError" and "dimension" not in str(cause):
        remedy = "use a larger shift; it is added to the diagonal"
        return f"a matrix for which {name} exists", remedy
    # NumPy raises a ValueError for integers to a negative power, too
    if signature == "()" and type(cause) is ValueError and "broadcast" in str(cause):
        return "shapes that broadcast together", ""
    if signature not in ("", "()") and type(cause) is ValueError:
        return f"shapes that fit the signature {signature}", ""
    return f"arguments that fit {name}{inspect.signature(op)}", ""


_OTHER_GPU = "different from the current device"  # in CuPy's ValueError, which names both


def of_one_library(operands: Iterable[Any], cause: Exception) -> tuple[str, str]:
    """What is expected instead of ``operands`` of two libraries or GPUs, and a remedy or ``""``."""
    if _OTHER_GPU in str(cause):
        remedy = "move one with x.to('cuda:<n>'), which also makes GPU n the current one"
        return "operands on CuPy's current GPU", remedy
    has_numpy_scalar = any(isinstance(x, Real) and hasattr(x, "dtype") for x in operands)
    expected = "operands of one array library; move one with x.to('cpu') or x.to('cuda')"
    return expected, "pass a NumPy scalar as scalar.item()" if has_numpy_scalar else ""


_PLAIN = "losses are plain means; build another one from mg.log_softmax(x) and other ops"
_HERE = "leave it out: batches are made in this process"
_RENAMED = (  # keyword of PyTorch -> that of NumPy, or of minigrad
    ("a", "low"), ("b", "high"), ("correction", "ddof"), ("dim", "axis"), ("dims", "axis"),
    ("generator", "rng"), ("generator", "seed"), ("gradient", "seed"), ("keepdim", "keepdims"),
    ("nonlinearity", "gain"), ("val", "value"),
)  # fmt: skip
_INSTEAD_OF = {  # other keyword of PyTorch -> what to write in minigrad
    "batch_first": "leave it out: x is always (N, T, C)",
    "create_graph": "nest mg.grad(f) for higher derivatives",
    "device": "write layer.to(device)",
    "ignore_index": _PLAIN,
    "inplace": "leave it out: nothing is changed in place",
    "label_smoothing": _PLAIN,
    "num_workers": _HERE,
    "pin_memory": _HERE,
    "pos_weight": _PLAIN,
    "reduction": _PLAIN,
    "retain_graph": "leave it out: the graph is always kept",
    "set_to_none": "leave it out: gradients are always set to None",
    "start_dim": "write x.flatten(1)",
    "unbiased": "use ddof=1 for unbiased=True, ddof=0 for False",
    "weight": _PLAIN,
}


def pytorch_remedy(params: dict, accepted: Collection[str]) -> str:
    """What to write, for a function with the ``accepted`` parameters, in place of those ``params``
    that are keywords of PyTorch."""
    renamed = {k: f"use {new}= instead of {k}=" for k, new in _RENAMED if new in accepted}
    known = _INSTEAD_OF | renamed
    return ", ".join(dict.fromkeys(known[key] for key in params if key in known))


def misfit(call: str, params: dict, signature: inspect.Signature) -> DTypeError:
    """The error for a ``call`` that does not fit ``signature``, with hints for PyTorch's words."""
    remedy = pytorch_remedy(params, signature.parameters)
    return DTypeError(f"{call}; {remedy}" if remedy else call)


def hinting(f: F) -> F:
    """Decorator: a call that does not fit the signature of ``f`` raises ``misfit``."""

    @functools.wraps(f)
    def call(*args: Any, **params: Any) -> Any:
        try:
            return f(*args, **params)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # it was raised inside f
            name = type(args[0]).__name__ if f.__name__ == "__init__" else f.__qualname__
            text = str(error).replace(f.__qualname__, name)
            raise misfit(text, params, inspect.signature(f)) from None

    return cast(F, call)


def plain_params(op: Any, params: dict) -> dict:
    """``params`` with tensors as arrays and iterators, which can be read only once, as tuples.

    DTypeError if a number is complex, GraphError if a tensor requires a gradient.
    """
    for key, value in params.items():
        if isinstance(value, complex):
            raise DTypeError(facts(f"{op.name}: {key}", expected="a real number", got=value))
        if hasattr(value, "__next__"):
            params = {**params, key: tuple(value)}
        if not hasattr(value, "node"):
            continue
        if getattr(value.node, "requires_grad", False):
            expected = "a value without requires_grad: parameters get no derivative"
            got = f"{describe(value)} with requires_grad"
            remedy = f"pass {key}.item() or {key}.detach(), or build the function from other ops"
            raise GraphError(facts(f"{op.name}: {key}", expected=expected, got=got, remedy=remedy))
        params = {**params, key: value.array}
    return params


def value_and_cache(op: Any, result: Any, inputs: Iterable[Any]) -> tuple:
    """The (value, cache) that a forward returned, or its value and None.

    RuleError if the value is no array (of numbers alone, it may be one), or if no rule of ``op``
    reads a cache.
    """
    if isinstance(result, tuple) and op.pull is not None:
        return result
    numbers, got, remedy = {bool, int, float}, describe(result), ""
    if numbers.issuperset(map(type, (result, *inputs))):
        return result, None
    if hasattr(result, "shape") and not hasattr(result, "node"):
        return result, None
    if isinstance(result, tuple):
        got = f"a tuple of {len(result)}"
        remedy = "declare one op per result, or stack the results"
    headline = f"{op.name}: the forward function's result"
    raise RuleError(facts(headline, expected="one array", got=got, remedy=remedy))


def no_rule(op: Any, declarator: str) -> RuleError:
    """The rule that a sweep needs was not declared."""
    sweep = {"defvjp": "backward", "defjvp": "forward"}[declarator]
    both = f" (or, for both sweeps, @{op.name}.defpartials)" if op.signature == "()" else ""
    return RuleError(
        f"{op.name}: no rule for a {sweep} sweep; declare one with @{op.name}.{declarator}{both}"
    )


def wrong_entries(op: Any, entries: Any, n: int) -> RuleError:
    """A rule did not return a tuple with one entry per input."""
    is_tuple = isinstance(entries, tuple)
    got = f"one of length {len(entries)}" if is_tuple else type(entries).__name__
    headline = f"{op.name}: the derivative rule must return one entry per input"
    return RuleError(facts(headline, expected=f"a tuple of length {n}", got=got))


def wrong_partial(op: Any, bar: Any, partial: Any) -> RuleError:
    """A rule returned a ``partial`` that cannot be multiplied by ``bar``."""
    headline = f"{op.name}: the derivative rule returned a partial derivative that does not fit"
    expected = f"a number, or an array that broadcasts with {tuple(bar.shape)}"
    return RuleError(facts(headline, expected=expected, got=describe(partial)))


def wrong_cotangent(op: Any, i: int, x_bar: Any, x: Any) -> RuleError:
    """A vjp rule returned ``x_bar`` for the input ``x``, which has another shape."""
    expected = f"{tuple(x.shape)}, the shape of the input"
    if op.core:
        expected += f" (signature {op.signature})"
    got = tuple(x_bar.shape) if hasattr(x_bar, "shape") else type(x_bar).__name__
    headline = f"{op.name}: the vjp rule returned a cotangent of the wrong shape for input {i}"
    return RuleError(facts(headline, expected=expected, got=got))


def wrong_tangent(op: Any, y_dot: Any, y: Any) -> RuleError:
    """A jvp rule returned ``y_dot`` for the result ``y``, which has another shape."""
    headline = f"{op.name}: the jvp rule returned a tangent of the wrong shape"
    expected = f"{tuple(y.shape)}, the shape of the result"
    got = tuple(y_dot.shape) if hasattr(y_dot, "shape") else type(y_dot).__name__
    return RuleError(facts(headline, expected=expected, got=got))


def floating(op: Any, bar: Any, x: Any) -> Any:
    """The dtype for ``bar``, the derivative that a rule of ``op`` gave for ``x``: that of ``x``, or
    a floating one where ``x`` is a result of integers. RuleError unless ``bar`` is real."""
    if bar.dtype.kind not in "fiub":
        headline = f"{op.name}: the derivative rule returned numbers that are not real"
        raise RuleError(facts(headline, expected="real numbers (float)", got=describe(bar)))
    if x.dtype.kind not in "iub":
        return x.dtype
    return bar.dtype if bar.dtype.kind == "f" else "float64"


def not_overwritten(order: list) -> list:
    """``order``, the nodes of a graph; OverwrittenError if a tensor was assigned since."""
    leaf = next((node for node in order if node.overwritten), None)
    if leaf is None:
        return order
    user = next((node for node in order if leaf in node.parents), None)
    call = "backward" if user is None else f"{user.op.name}: input {user.parents.index(leaf)}"
    tensor = f"{leaf.name or 'tensor'} {tuple(leaf.value.shape)}"
    raise OverwrittenError(
        facts(
            f"{call}, {tensor}, was reassigned after this graph was recorded",
            expected=f"the {leaf.overwritten} recorded in the graph",
            got=f"a new {leaf.overwritten}",
            remedy="run the forward pass again before this sweep",
        )
    )
