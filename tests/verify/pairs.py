"""A point and small pairs ``forward, backward`` that several tests of the checker share."""

import numpy as np

from minigrad.verify import check_backward
from verify import corpus

INPUTS = np.random.default_rng(1).normal(size=(5, 3)), np.ones(3), np.zeros(3)
EPS = {"eps": 1e-5}


def checked(name):
    """The report on a wrong backward of the corpus."""
    return check_backward(*corpus.WRONG[name][0](), INPUTS, params=EPS)


def squared(x):
    return x * x, 2 * x


def identity(x):
    return x * 1, None


def copied(y_bar, cache):
    return [y_bar.copy()]
