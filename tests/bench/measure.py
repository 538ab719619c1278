"""Runs contestants in their own processes, by turns: A B A B ..., and compares their times."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contestant import Missing
from .machine import environment

ROOT = Path(__file__).parents[2]
PAUSE = 0.03  # s: idle threads of OpenMP and BLAS spin for some milliseconds after their work


class Child:
    """The process of one contestant.

    Args:
        name: a key of ``contestant.NAMES``.
        extra: environment variables beside those all share.
    """

    def __init__(self, name: str, extra: dict[str, str] | None = None):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.child", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT / "tests",
            env={**environment(), "PYTHONPATH": str(ROOT), **(extra or {})},
        )

    def ask(self, do: str, **command: Any) -> Any:
        """The answer to one command. Raises Missing, or RuntimeError with the child's traceback."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps({"do": do, **command}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "missing" in answer:
            raise Missing(answer["missing"])
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {do} {command}\n{answer['error']}")
        return answer["value"]

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: Any) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def by_turns(
    turns: dict[str, tuple[Child, str]], rounds: int, seconds: float, least: int = 3
) -> dict[str, list[float]]:
    """Let contestants run by turns.

    Args:
        turns: label -> (process, key of the contestant in it).
        rounds: how often each has its turn; the order is reversed every other round.
        seconds: about how long a turn lasts.
        least: calls in a turn.

    Returns:
        label -> the median time of the calls of each round, in seconds.
    """
    times: dict[str, list[float]] = {label: [] for label in turns}
    for i in range(rounds):
        for label, (child, key) in list(turns.items())[:: -1 if i % 2 else 1]:
            time.sleep(PAUSE)
            found = child.ask("burst", key=key, seconds=seconds, least=least)
            times[label].append(statistics.median(found))
    return times


def ratio(ours: list[float], theirs: list[float]) -> Spread:
    """Median and quartiles of the ratios, each within a round, where a disturbance slows both."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])
