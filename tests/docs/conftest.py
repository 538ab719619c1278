"""The built site, made once, and a browser to open it in."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigrad.viz.render import renderers

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

_NEEDED = ("sphinx", "myst_parser", "furo", "latex2mathml", "matplotlib", "safetensors")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
_MISSING += [] if renderers() else ["pygraphviz"]


def pytest_collection_modifyitems(items):
    """Skip everything here without what builds the docs; let no process wait for the site.

    One test that needs it, and so makes it, comes half way through the run, the others at three
    quarters.
    """
    mark = pytest.mark.skip(reason=f"pip install 'minigrad[docs]': no {', '.join(_MISSING)}")
    for item in items:
        if _MISSING and Path(__file__).parent in item.path.parents:
            item.add_marker(mark)
    of_site = [item for item in items if "site" in item.fixturenames]
    others = [item for item in items if "site" not in item.fixturenames]
    half, late = len(others) // 2, len(others) * 3 // 4
    items[:] = others[:half] + of_site[:1] + others[half:late] + of_site[1:] + others[late:]


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def runs(request, shared):
    """The folder that keeps what demos and pages printed; the tests of the demos fill it, too."""
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("demos").parent if cache else shared / "runs"


@pytest.fixture(scope="session")
def site(runs, shared):
    """The folder of the built pages; parallel test processes share one."""
    folder = shared / "docs_site"
    done, failed = folder / "done", folder / "failed"
    try:
        folder.mkdir()  # who succeeds builds, the others wait
    except FileExistsError:
        while not (done.exists() or failed.exists()):
            time.sleep(0.5)
    else:
        error = _build(folder, runs)
        (failed if error else done).write_text(error, encoding="utf-8")
    assert done.exists(), failed.read_text(encoding="utf-8")
    return folder / "site"


def _build(folder, runs):
    """Build a copy of the sources with warnings as errors; what went wrong, or nothing.

    The copies of the source code, which Sphinx makes by itself, are there in ``thorough`` only.
    """
    skip = shutil.ignore_patterns("_cache", "[0-9][0-9]_*", "__pycache__")
    shutil.copytree(ROOT / "docs", folder / "source", ignore=skip)
    words = ["-W", "--keep-going", "-q", "-b", "html", folder / "source", folder / "site"]
    words += [] if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else ["-t", "brief"]
    run = subprocess.run(
        [sys.executable, "-m", "sphinx", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "MINIGRAD_DOCS_CACHE": str(runs), "MINIGRAD_DOCS_KEEP": ""},
        check=False,
    )
    return f"exit code {run.returncode}\n{run.stderr}" if run.returncode else ""


@pytest.fixture(scope="session")
def pages(site):
    """The built pages, without the copies of the source code."""
    found = sorted(site.rglob("*.html"))
    return [page for page in found if page.relative_to(site).parts[0] != "_modules"]
