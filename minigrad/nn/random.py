"""Generators for initialization and dropout; numbers are drawn on the host for all devices."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from minigrad.errors import check_count

Seed = np.random.Generator | int | None

_DEFAULT = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Seed the default generator.

    >>> mg.nn.manual_seed(7)
    >>> a = mg.nn.Linear(2, 2).weight
    >>> mg.nn.manual_seed(7)
    >>> bool((a == mg.nn.Linear(2, 2).weight).all())
    True
    """
    check_count("manual_seed: seed", seed, least=0)
    _DEFAULT.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def generator(rng: Seed = None) -> np.random.Generator:
    """``rng`` itself, a new generator with the seed ``rng``, or the default generator for None."""
    if rng is None:
        return _DEFAULT
    if isinstance(rng, np.random.Generator):
        return rng
    check_count("rng: seed", rng, least=0)
    return np.random.default_rng(rng)


def generators(net: Any) -> dict[str, np.random.Generator]:
    """The default generator, and by path the generators that modules of ``net`` have as ``rng``."""
    by_path = {"default": _DEFAULT}
    for path, module in net.named_modules():
        rng = getattr(module, "rng", None)
        if isinstance(rng, np.random.Generator) and rng is not _DEFAULT:
            by_path[path] = rng
    return by_path


def as_lists(state: Any) -> Any:
    """The state of a generator with lists in place of arrays, for JSON and for ``==``."""
    if isinstance(state, dict):
        return {key: as_lists(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def states(generators: Iterable[np.random.Generator]) -> list[tuple[np.random.Generator, Any]]:
    """Each generator with its present state, for ``rewind``."""
    return [(g, g.bit_generator.state) for g in generators]


def rewind(states: list[tuple[np.random.Generator, Any]]) -> None:
    """Restore the states, so that each generator repeats the numbers it has drawn since."""
    for g, state in states:
        g.bit_generator.state = state
