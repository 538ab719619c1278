"""Random numbers of a check."""

from typing import Any

import numpy as np

from minigrad.errors import check_count

_STREAM = 0x6D67


def generator(rng: Any) -> np.random.Generator:
    """A Generator as it is; a seed as a stream of its own; without one, another each time.

    Inputs are often drawn with the same small seed. A cotangent equal to x would be as good as a
    seed of ones: the true x_bar of a normalization nearly vanishes on it.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    check_count("rng: seed", rng, least=0)
    return np.random.default_rng([_STREAM, rng])
