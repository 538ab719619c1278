"""Time each work and its peer by turns, and print the ratios of the best times."""

import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.bench.works import WORKS

ROUNDS = 9


def best_times(*functions) -> list[float]:
    """The best time of each function over interleaved rounds, in seconds."""
    times = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return [min(found) for found in times]


def main() -> None:
    torch.set_num_threads(2)
    table = Table("work", "minigrad ms", "PyTorch eager ms", "ratio")
    for name, (ours, theirs) in WORKS.items():
        mine, other = best_times(ours, theirs)
        table.add_row(name, f"{1e3 * mine:.2f}", f"{1e3 * other:.2f}", f"{mine / other:.2f}")
    Console().print(f"NumPy {np.__version__}, PyTorch {torch.__version__}, two threads", table)


main()
