"""Recorded graphs as pictures, and their computation step by step."""

from minigrad.viz.badge import verdicts
from minigrad.viz.beside import beside
from minigrad.viz.dot import to_dot
from minigrad.viz.page import Page, step
from minigrad.viz.render import Picture, draw, mimebundle
from minigrad.viz.terminal import walk
from minigrad.viz.trace import Trace, trace

__all__ = [
    "Page", "Picture", "Trace", "beside", "draw", "mimebundle", "step", "to_dot", "trace",
    "verdicts", "walk",
]  # fmt: skip
