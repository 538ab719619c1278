"""Every error minigrad raises on purpose, and how its text is built.

::

    MinigradError
    ├── ShapeError (ValueError)               operands, seeds or parameters whose shapes do not fit
    │   └── BoundsError (IndexError)          an axis or an index outside its array
    ├── DTypeError (TypeError)                a type or dtype the operation cannot take
    ├── LibraryMismatchError (TypeError)      operands of two array libraries or two devices
    ├── DeviceError (RuntimeError)            a device that is not there
    ├── GraphError (RuntimeError)             a sweep that cannot start or cannot be trusted
    │   ├── SeedError (ValueError)            a seed that is missing, of the wrong shape or not finite
    │   └── OverwrittenError                  a tensor was assigned after the graph recorded it
    ├── RuleError (RuntimeError)              a derivative rule broke its contract
    ├── AnomalyError (FloatingPointError)     NaN or inf under ``anomaly_mode()``
    ├── VerificationError (AssertionError)    a derivative that was not proven
    ├── RenderError (RuntimeError)            a drawing that could not be made
    └── UsageError (ValueError)               a name or an option that does not exist

Texts put the facts first: the operation, what was expected, what was got, in at most four lines.
"""

from typing import Any


class MinigradError(Exception):
    """Base of every error raised on purpose."""


class ShapeError(MinigradError, ValueError):
    """Operands, seeds or parameters whose shapes do not fit."""


class BoundsError(ShapeError, IndexError):
    """An axis or an index outside its array."""


class DTypeError(MinigradError, TypeError):
    """A type or dtype the operation cannot take."""


class LibraryMismatchError(MinigradError, TypeError):
    """Operands of two array libraries, or on two devices."""


class DeviceError(MinigradError, RuntimeError):
    """A device, or its array library, is not there."""


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
    """A name or an option that does not exist."""


def facts(headline: str, *, expected: object, got: object, remedy: str = "") -> str:
    """Lay out an error text: what happened, what was expected, what was got, what to do."""
    lines = [headline, f"  expected: {expected}", f"  got:      {got}"]
    return "\n".join([*lines, f"  remedy:   {remedy}"] if remedy else lines)


def describe(operand: Any) -> str:
    """Name one operand: ``x (4, 3) float64``, ``ndarray (3,) int64`` or ``2.5``."""
    if not hasattr(operand, "shape"):
        return repr(operand) if len(repr(operand)) <= 40 else type(operand).__name__
    name = getattr(operand, "name", None) or type(operand).__name__
    return f"{name} {tuple(operand.shape)} {operand.dtype}"


def from_operands(call: str, operands: tuple, expected: str, cause: Exception) -> MinigradError:
    """Turn what an array library raised inside ``call`` into the matching error of ours."""
    kind: type[MinigradError] = DTypeError if isinstance(cause, TypeError) else ShapeError
    if isinstance(cause, IndexError):  # NumPy's AxisError is one, too
        kind = BoundsError
    reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    got = ", ".join(describe(a) for a in operands)
    return kind(facts(f"{call}: {reason}", expected=expected, got=got))


def wrong_cotangent(op: Any, i: int, x_bar: Any, x: Any) -> RuleError:
    """A vjp rule returned ``x_bar`` for the input ``x``, which has another shape."""
    expected = f"{tuple(x.shape)}, the shape of the input"
    if op.core:
        expected += f" (signature {op.signature})"
    got = tuple(x_bar.shape) if hasattr(x_bar, "shape") else type(x_bar).__name__
    headline = f"{op.name}: the vjp rule returned a cotangent of the wrong shape for input {i}"
    return RuleError(facts(headline, expected=expected, got=got))


def overwritten(op_name: str, i: int, leaf: Any) -> OverwrittenError:
    """The tensor of ``leaf``, input ``i`` of an op, was assigned after the op was recorded."""
    tensor = f"{leaf.name or 'tensor'} {tuple(leaf.value.shape)}"
    return OverwrittenError(
        facts(
            f"{op_name}: input {i}, {tensor}, was assigned after this graph was recorded",
            expected="the value it had then",
            got="a newer value",
            remedy="run the forward pass again before this sweep",
        )
    )
