"""The process of one contestant: reads commands as JSON lines, answers in JSON lines."""

import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .machine import pin


def main() -> None:
    """Serve until the input ends. Whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    pin()
    name = sys.argv[1]
    if name == "minigrad-plain":
        sys.modules["numba"] = None  # type: ignore[assignment]  # as where it is not installed
    worker = _Worker(name)
    for line in sys.stdin:
        print(json.dumps(_answer(worker, json.loads(line))), file=answers, flush=True)


def _answer(worker: "_Worker", command: dict[str, Any]) -> dict[str, Any]:
    from .contestant import Missing

    try:
        return {"value": getattr(worker, command.pop("do"))(**command)}
    except Missing as reason:
        return {"missing": str(reason)}
    except Exception:
        return {"error": traceback.format_exc()}


class _Worker:
    """The commands that the parent process sends, one per method."""

    def __init__(self, name: str):
        self.name = name
        self.contestants: dict[str, Any] = {}

    def prepare(self, key: str, work: str, size: dict[str, Any]) -> None:
        """Build a contestant and keep it under ``key``."""
        from .contestant import load
        from .works import MAKERS

        if self.name == "minigrad":
            load("numba")  # raises Missing: times without numba must not pass for times with it
        self.contestants[key] = MAKERS[work][self.name](**_tuples(size))

    def can_import(self, name: str) -> bool:
        """Whether the module ``name`` can be imported in this process."""
        from .contestant import Missing, load

        try:
            return bool(load(name))
        except Missing:
            return False

    def forget(self, key: str) -> None:
        """Free a contestant and all memory that it took."""
        from .contestant import load

        del self.contestants[key]
        gc.collect()
        if self.name.startswith("minigrad"):
            load("minigrad.fused").release_memory()

    def burst(self, key: str, seconds: float, least: int = 3) -> list[float]:
        """Time calls in a row for about ``seconds``; returns the seconds per work of each call.

        A first call is not timed: after the turns of other contestants it warms up caches and
        threads again. Python's cycle collector is on, as by default.
        """
        contestant = self.contestants[key]
        gc.collect()
        contestant.step()
        times: list[float] = []
        while sum(times) < seconds or len(times) < least:
            start = time.perf_counter()
            contestant.step()
            times.append(time.perf_counter() - start)
        return [t / contestant.inner for t in times]

    def result(self, key: str, steps: int, path: str) -> None:
        """Run ``steps`` steps and save the numbers of the last one at ``path``."""
        import numpy as np

        for _ in range(steps):
            self.contestants[key].step()
        np.savez(path, **self.contestants[key].result())

    def peak(self, key: str, steps: int) -> int:
        """By how many bytes resident memory rises above its present level in ``steps`` steps."""
        gc.collect()
        _reset_peak()
        before = _status("VmRSS")
        for _ in range(steps):
            self.contestants[key].step()
        return _status("VmHWM") - before


def _tuples(size: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in size.items()}


def _reset_peak() -> None:
    """Let the peak of resident memory (VmHWM) start again at its present level (Linux)."""
    from .contestant import Missing

    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError as error:
        raise Missing(f"the system does not tell peak memory: {error}") from error


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
