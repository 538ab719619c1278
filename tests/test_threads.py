"""Idle threads of libraries leave their cores."""

import os
import subprocess
import sys

import pytest

WORK = """
import time
import minigrad
import numpy as np
a = np.full((512, 512), 0.5, np.float32)
used = []
for _ in range(5):
    a @ a
    start = time.process_time()
    time.sleep(0.05)
    used.append(time.process_time() - start)
print(min(used))
"""


def test_threads_of_blas_sleep_soon_after_a_product():
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    environment.pop("OPENBLAS_THREAD_TIMEOUT", None)
    out = subprocess.check_output([sys.executable, "-c", WORK], env=environment, text=True)
    assert float(out) < 0.01  # seconds; a thread that spins uses all of the 0.05


@pytest.mark.parametrize("setting", [{}, {"OPENBLAS_THREAD_TIMEOUT": "7"}])
def test_importing_the_package_leaves_the_environment_as_it_was(setting):
    code = "import os, minigrad; print(sorted(os.environ.items()))"
    environment = {**os.environ, **setting}
    out = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert out.strip() == str(sorted(environment.items()))
