"""The numbered demos: their common code, finding them, playing and stepping through one.

A demo is a script of ``# %%`` cells whose docstring begins with its claim. It runs as a script,
cell by cell in an editor, through ``minigrad demo`` and, in process, through ``play``.
"""

from minigrad.demo.finding import claim_of, find, folder, listed
from minigrad.demo.player import Cell, cells, play, run_with_graph
from minigrad.demo.runs import Run, start
from minigrad.demo.stepping import step
from minigrad.demo.style import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    figure,
)

__all__ = [
    "BLACK", "BLUE", "COLOURS", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VERMILION",
    "Cell", "Run", "cells", "claim_of", "figure", "find", "folder", "listed", "play",
    "run_with_graph", "start", "step",
]  # fmt: skip
