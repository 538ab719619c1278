"""Rows as a table of Markdown, as JSON, and as the page of the documentation."""

from typing import Any

from .contestant import NAMES
from .gpu import INNER, card
from .machine import THREADS, describe, versions
from .run import STEPS, Row

_HEAD = ("work", "minigrad", "against", "ratio", "quartiles", "aim", "met", "ours", "theirs")


def table(rows: list[Row]) -> str:
    """The rows as an aligned table, followed by the reasons for what was not measured."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    reasons = dict.fromkeys(
        f"Not measured: {row.work.title}, {_opponents(row)}: {row.missing}"
        for row in rows
        if row.missing
    )
    return "\n".join([*lines, *(f"\n{reason}" for reason in reasons)])


def _opponents(row: Row) -> str:
    ours, theirs = NAMES[row.pair.ours], NAMES.get(row.pair.theirs, "")
    return f"{ours} against {theirs}" if theirs else ours


def _cells(row: Row) -> tuple[str, ...]:
    work, pair, figure = row.work, row.pair, row.figure
    against = "a straight line: slope" if work.kind == "growth" else NAMES.get(pair.theirs, "")
    sign, digits = (">=", ",.0f") if work.kind == "rate" else ("<=", ".2f")
    aim = "" if pair.limit is None else f"{sign} {pair.limit:{digits}}"
    median = "not measured" if figure is None else f"{figure.median:{digits}}"
    quartiles = "" if figure is None else f"{figure.low:{digits}} to {figure.high:{digits}}"
    met = {None: "", True: "yes", False: "no"}[row.is_met]
    ours, theirs = _amount(row, row.ours), _amount(row, row.theirs)
    if work.kind == "growth" and ours:
        ours, theirs = f"{ours} to {theirs}", ""
    return work.title, NAMES[pair.ours], against, median, quartiles, aim, met, ours, theirs


def _amount(row: Row, value: float | None) -> str:
    if value is None or row.work.kind == "rate":
        return ""
    return f"{value / 2**20:.1f} MiB" if row.work.kind == "memory" else f"{1e3 * value:.3g} ms"


def as_json(rows: list[Row], rounds: int) -> dict[str, Any]:
    """All figures, and the machine and versions they belong to."""
    return {
        "machine": {**describe(), **card()},
        "versions": versions(),
        "threads": THREADS,
        "rounds": rounds,
        "rows": [
            {
                "work": row.work.title,
                "kind": row.work.kind,
                "ours": row.pair.ours,
                "theirs": row.pair.theirs,
                "figure": None if row.figure is None else vars(row.figure),
                "limit": row.pair.limit,
                "met": row.is_met,
                "ours_median": row.ours,
                "theirs_median": row.theirs,
                "missing": row.missing,
            }
            for row in rows
        ],
    }


_PAGE = """# Benchmarks

Written by `python -m tests.bench --write`, which replaces the figures of the machine's processor
and GPU; `python -m tests.bench gpu --write` replaces only those of the GPU. A ratio below 1 means
that minigrad needs less. Compare ratios rather than times, and only ratios from the same run.

## How it is measured

* Each contestant has its own process. They run alternately, A B A B ..., in several rounds, and the
  order is reversed every other round. A turn is one call that is not timed, followed by timed calls
  for a while, whose median is the time of the turn. A ratio is the median over the rounds of our
  figure divided by theirs in the same round; its quartiles are listed next to it.
* Everything is float32, with {threads} threads for everybody: the processes are pinned to {threads}
  cores, and the thread pools of OpenBLAS, OpenMP and numba are set to {threads}.
* Python's cycle collector runs with its default settings; it is called once before each turn.
* *minigrad without numba* is minigrad in a process where numba cannot be imported.
* The operands of a batch norm are leaves and its cotangent is random; its gradients are cleared
  before each call.
* *copy* moves the memory that batch norm must move: five arrays of the size of x, because forward
  reads x and writes y, and backward reads x and y_bar and writes x_bar. A copy reads one array and
  writes one, so this is two and a half copies, by {threads} threads, between buffers that exist
  already.
* On a GPU, a call is {inner} steps in a row followed by one wait for the device, as in a training
  loop; its time is divided by {inner}. *One graph* is a step captured once as a CUDA graph. PyTorch
  runs with its defaults, which let cuDNN round the factors of a convolution to TF32.
* *copy on the GPU* moves the same five arrays inside the device. A ratio of 1.25 to it means 80 %
  of the bandwidth of a copy.
* Memory is how far the resident memory of a fresh process rises in {steps} steps of batch 256.
  Before that, steps of batch 64 load and compile everything. Their memory is returned to the system
  first, by the C allocator (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`) and by minigrad
  (`fused.release_memory`).
* Growth is the slope of a straight line fitted to log time against log size. 1 is linear.
* `tests/bench/test_harness.py` proves that all contestants compute the same numbers.

## CPU

{cpu}

## GPU

{gpu}
"""


def page(text: str, rows: list[Row], rounds: int, seconds: float) -> str:
    """``docs/benchmarks.md``, which now has ``text``, with the part of this machine replaced."""
    cpus, cards = _parts(text, "CPU"), _parts(text, "GPU")
    gpu = [row for row in rows if row.work.maker.startswith("gpu")]
    if len(gpu) < len(rows):
        cpu = [row for row in rows if row not in gpu]
        cpus[describe()["processor"]] = _part(cpu, rounds, seconds)
    if any(row.figure for row in gpu):
        more = card()
        name = more.pop("gpu")
        cards[name] = _part(gpu, rounds, seconds, more)
    return _PAGE.format(
        threads=THREADS, steps=STEPS, inner=INNER, cpu=_joined(cpus), gpu=_joined(cards)
    )


def _parts(text: str, kind: str) -> dict[str, str]:
    """The parts of a page about CPUs or GPUs, by the name of the processor or card."""
    section = text.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    parts = (part.partition("\n") for part in section.split("\n### ")[1:])
    return {name: part.strip() for name, _, part in parts}


def _joined(parts: dict[str, str]) -> str:
    found = [f"### {name}\n\n{part}" for name, part in parts.items()]
    return "\n\n".join(found) or "Not yet measured."


def _part(rows: list[Row], rounds: int, seconds: float, more: dict[str, str] | None = None) -> str:
    """Machine, versions and rounds, then the table."""
    facts = {
        **describe(),
        **(more or {}),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "rounds": f"{rounds}, with turns of about {seconds} s",
    }
    return "\n".join(f"* {name}: {words}" for name, words in facts.items()) + f"\n\n{table(rows)}"
