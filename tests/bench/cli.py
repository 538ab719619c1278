"""The command line: ``python -m tests.bench [WORK ...] [--json] [--write] [--rounds N]``."""

import argparse
import json
import sys
from pathlib import Path

from .machine import THREADS, pin
from .measure import ROOT
from .report import as_json, page, table
from .run import Row, rows
from .works import WORKS

ABOUT = "Measure minigrad beside its peers, and print one table of ratios."
PAGE = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print one table; the exit code is 0 whatever the figures say."""
    options = _options(arguments)
    cores = pin()
    if cores < THREADS:
        print(f"only {cores} core for {THREADS} threads", file=sys.stderr)

    def report(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    measured: list[Row] = []
    for name in options.works or WORKS:
        for work in WORKS[name]:
            measured += rows(work, options.rounds, options.seconds, report)
    if options.json:
        print(json.dumps(as_json(measured, options.rounds), indent=1))
    else:
        print(table(measured))
    if options.write:
        path = Path(options.write)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        text = page(text, measured, options.rounds, options.seconds)
        path.write_text(text, encoding="utf-8")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=ABOUT)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"some of: {', '.join(WORKS)}")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--write", nargs="?", const=str(PAGE), metavar="FILE", help="also into docs/benchmarks.md"
    )
    options = parser.parse_args(arguments)
    for name in options.works:
        if name not in WORKS:
            parser.error(f"no work {name!r}; there are {', '.join(WORKS)}")
    if options.write and options.works not in ([], ["gpu"]):
        parser.error("--write replaces whole parts of the page: name no work, or gpu")
    if options.rounds < 1:
        parser.error(f"--rounds: expected 1 or more, got {options.rounds}")
    return options
