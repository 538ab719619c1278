"""Moving a value between devices."""

from minigrad import backend
from minigrad.core.op import op
from minigrad.declaration import Case


@op(
    formula=r"y = x",
    pullback=r"\bar x = \bar y",
    linear="jointly",
    cases=(Case(((2, 3),), {"device": "cpu"}),),
)
def to_device(xp, x, *, device):
    """Copy ``x`` to ``device``; the cotangent is copied back.

    Args:
        x: any shape.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:<n>"``.

    Raises:
        DeviceError: the device is not available.

    >>> mg.ops.to_device(mg.tensor([1.0]), "cpu")
    tensor([1.])
    """
    return backend.to_device(x, device)


@to_device.defvjp
def to_device_vjp(y_bar, y, x, *, device):
    return (to_device(y_bar, device=backend.device_of(getattr(x, "array", x))),)
