"""The interface of observers of op calls and rules, such as ``anomaly_mode`` and the stepper."""

import os
from types import FrameType
from typing import Any

from minigrad.core.node import Node

_PACKAGE = os.path.dirname(__file__) + os.sep


class Observer:
    """Installed with ``context.setting(observer=...)``; these methods do nothing."""

    def called(self, op: Any, inputs: list, value: Any, node: Node | None) -> None:
        """``op(*inputs)`` returned ``value``; ``node`` is None if the call was not recorded."""

    def pulling(self, node: Node, y_bar: Any) -> None:
        """The vjp rule of ``node`` is about to run on the complete cotangent ``y_bar``."""

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        """``raw``, un-broadcast to ``x_bar``, was added for input ``i``; the sum is ``total``."""

    def pushed(self, node: Node, x_dots: list, y_dot: Any) -> None:
        """The jvp rule of ``node`` computed the tangent ``y_dot`` from the tangents ``x_dots``."""


def is_ours(frame: FrameType) -> bool:
    """Whether the code of ``frame`` is in this package; the caller of an op is outside of it."""
    return frame.f_code.co_filename.startswith(_PACKAGE)
