"""For users' own tests: an assertion, and hypothesis strategies."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad.declaration import Declared
from minigrad.errors import MissingPackageError
from minigrad.tensor import Tensor
from minigrad.verify.calls import Call, declared_as, sample_calls
from minigrad.verify.gradcheck import gradcheck
from minigrad.verify.randomness import Seed
from minigrad.verify.report import Report


def assert_gradients(
    f: Callable[..., Tensor],
    inputs: Sequence[Any],
    *,
    order: int = 1,
    names: Sequence[str] | None = None,
    rng: Seed = 0,
) -> Report:
    """``gradcheck``, raising VerificationError (an AssertionError) with the report if it fails.

    >>> mg.verify.assert_gradients(lambda x: x * x, [np.array([1.0, 2.0])]).ok
    True
    """
    __tracebackhide__ = True  # pytest ends the traceback at the caller
    return gradcheck(f, inputs, order=order, names=names, rng=rng).raise_if_failed()


def calls(declared: Declared | str, *, dtype: Any = "float64") -> Any:
    """A hypothesis strategy of calls of an op, from its signature, domains and cases.

    Returns:
        A strategy of ``Call``: ``inputs``, ``params``, positions of ``real`` inputs.

    Raises:
        UsageError: no such op. MissingPackageError: hypothesis is not installed.
    """
    try:
        from hypothesis import strategies as st
    except ImportError as error:
        raise MissingPackageError("strategies need hypothesis: pip install hypothesis") from error
    op = declared_as(declared)

    def call(seed: int, i: int) -> Call:
        drawn = list(sample_calls(op, dtype, np.random.default_rng(seed)))
        return drawn[i % len(drawn)]

    return st.builds(call, st.integers(0, 2**32 - 1), st.integers(0, 99))
