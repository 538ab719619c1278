"""For how long idle threads of libraries keep a core; imported before anything that loads NumPy.

Threads that wait for work spin: those of OpenBLAS for a tenth of a second after each product, the
main thread of GNU's OpenMP for 10 ms at the end of each kernel. Where products and kernels take
turns, each waits for cores that the other's threads keep. Both libraries read a limit from the
environment, but only while they are loaded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def spin_limited(variable: str, limit: str, *alternatives: str) -> Iterator[None]:
    """Load a library with this limit, unless the user has set it, or one of ``alternatives``."""
    if not os.environ.keys().isdisjoint((variable, *alternatives)):
        yield
        return
    os.environ[variable] = limit
    try:
        yield
    finally:
        del os.environ[variable]


with spin_limited("OPENBLAS_THREAD_TIMEOUT", "20"):  # 2^20 cycles, less than 1 ms
    import numpy  # noqa: F401
