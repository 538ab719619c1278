"""Proofs of gradients: three ways that share no code, and a checker with derived error bounds."""

from minigrad.verify import probes
from minigrad.verify.campaign import campaign
from minigrad.verify.check import check_backward
from minigrad.verify.gradcheck import gradcheck
from minigrad.verify.numeric import Jacobian, jacobians
from minigrad.verify.ops import check_graph, check_op
from minigrad.verify.report import Finding, Report, Row
from minigrad.verify.testing import assert_gradients, calls
from minigrad.verify.three_way import three_way

__all__ = [
    "Finding", "Jacobian", "Report", "Row", "assert_gradients", "calls", "campaign",
    "check_backward", "check_graph", "check_op", "gradcheck", "jacobians", "probes", "three_way",
]  # fmt: skip
