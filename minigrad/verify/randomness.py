"""The random numbers of a check."""

import numpy as np

from minigrad.errors import check_count
from minigrad.nn.random import Seed

_STREAM = 0x6D67


def generator(rng: Seed) -> np.random.Generator:
    """``rng`` itself if it is a Generator; else a new one from the seed; None: from the system.

    The stream of a new one differs from that of ``default_rng(seed)``, with which users often draw
    the inputs: for a cotangent equal to x, the true x_bar of a normalization nearly vanishes.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    check_count("rng: seed", rng, least=0)
    return np.random.default_rng([_STREAM, rng])
