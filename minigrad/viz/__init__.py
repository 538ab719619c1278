"""Pictures of recorded graphs: one card per value, one edge per op input."""

from minigrad.viz.dot import to_dot
from minigrad.viz.render import draw, mimebundle

__all__ = ["draw", "mimebundle", "to_dot"]
