"""The interface of what watches op calls and rules: ``anomaly_mode`` and the stepper."""

import os
from pathlib import Path
from types import FrameType
from typing import Any

from minigrad.core.node import Node

_PACKAGE = str(Path(__file__).parent) + os.sep


class Observer:
    """Set as ``observer`` of the context by ``context.setting``; by default it does nothing."""

    def called(self, op: Any, inputs: list, value: Any, node: Node | None) -> None:
        """``op(*inputs)`` gave ``value``; ``node`` is None where nothing was recorded."""

    def pulling(self, node: Node, y_bar: Any) -> None:
        """The vjp rule of ``node`` is about to run on the complete cotangent ``y_bar``."""

    def pulled(self, node: Node, i: int, raw: Any, x_bar: Any, total: Any) -> None:
        """``raw`` became ``x_bar``, un-broadcast, of input i; ``total`` is its running sum."""

    def pushed(self, node: Node, x_dots: list, y_dot: Any) -> None:
        """The jvp rule of ``node`` made the tangent ``y_dot`` of the tangents ``x_dots``."""


def is_ours(frame: FrameType) -> bool:
    """Whether its code is of this package: who calls an op stands outside."""
    return frame.f_code.co_filename.startswith(_PACKAGE)
