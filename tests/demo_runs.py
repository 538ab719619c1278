"""One run of each demo, kept while neither the demo nor the package changes.

The tests and the documentation need the same runs; whoever comes first makes them.
"""

import contextlib
import hashlib
import io
import json
import os
import time
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np

import minigrad
from minigrad import demo, fused

PACKAGE = Path(minigrad.__file__).parent


def key(path, *, fast=True, seed=0):
    """A digest of the demo, its options and every line of the package."""
    versions = [metadata.version(name) for name in ("numpy", "matplotlib")]
    digest = hashlib.sha256(repr((fast, seed, versions)).encode())
    sources = (source for suffix in ("py", "cu") for source in PACKAGE.rglob(f"*.{suffix}"))
    for source in [Path(path), *sorted(sources)]:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()


def fresh(path, out, *, fast=True):
    """Step through a demo silently: a dictionary of plain data."""
    began = time.perf_counter()
    # not numba, which compiles for the processor at hand: sums may round differently elsewhere
    quiet, kernels = contextlib.redirect_stdout(io.StringIO()), fused.use("numpy", "portable")
    with quiet, kernels, mock.patch.dict(os.environ, COLUMNS="100"):  # not as wide as a terminal
        run = demo.step(path, fast=fast, out=out, pause=lambda hint: "")
    return {
        "key": key(path, fast=fast),
        "seconds": time.perf_counter() - began,
        "claim": run.claim,
        "about": run.about,
        "numbers": {name: _plain(value) for name, value in run.numbers.items()},
        "keys": run.keys,
        "printed": run.printed,
        "saved": [saved.name for saved in run.saved],
    }


def recorded(path, folder, *, fast=True):
    """The run of a demo kept in ``folder``, if it is up to date; otherwise a fresh one.

    Args:
        path: the demo's file.
        folder: for the pictures and for ``run.json``.
        fast: its size.
    """
    path, folder = Path(path), Path(folder)
    kept = folder / "run.json"
    if kept.exists():
        run = json.loads(kept.read_text(encoding="utf-8"))
        if run["key"] == key(path, fast=fast) and all(
            (folder / name).exists() for name in run["saved"]
        ):
            return run
    run = fresh(path, folder, fast=fast)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"run.{os.getpid()}"  # parallel tests may want the same run
    part.write_text(json.dumps(run, indent=1), encoding="utf-8")
    part.replace(kept)
    return run


def _plain(value):
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
