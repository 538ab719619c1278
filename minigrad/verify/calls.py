"""Points at which a declared op is checked, from its signature, domains and cases."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from minigrad.declaration import REGISTRY, Case, Declared, Domain
from minigrad.errors import UsageError, facts

_ELEMENTWISE = (((2, 3), (3,), (1,)), ((4,), (4,), (4,)))  # shapes of up to three inputs
_DIMENSIONS = {"m": 2, "k": 3, "n": 4}  # lengths for the letters of a signature


@dataclass(frozen=True)
class Call:
    """Inputs and parameters of one op call; ``real`` has the positions of differentiable inputs."""

    inputs: list[np.ndarray]
    params: dict[str, Any]
    real: list[int]

    def __str__(self) -> str:
        words = [str(x.shape) for x in self.inputs]
        return ", ".join([*words, *(f"{k}={v}" for k, v in self.params.items())])


def declared_as(op: Declared | str) -> Declared:
    """``op`` itself, or the op or composite of that name; UsageError if there is none."""
    if isinstance(op, str) and op not in REGISTRY:
        similar = " or ".join(get_close_matches(op.lower(), REGISTRY))
        meant = f"did you mean {similar}? " if similar else ""
        raise UsageError(f"no op {op!r}; {meant}`minigrad ops` lists them")
    return REGISTRY[op] if isinstance(op, str) else op


def sample_calls(declared: Declared, dtype: Any, rng: np.random.Generator) -> Iterator[Call]:
    """One call per case; two if the case names no shapes, so that the signature gives them."""
    for case in declared.cases:
        for shapes in _shapes(declared, case):
            domains = [declared.domain_of(i) for i in range(len(shapes))]
            yield Call(
                values(shapes, domains, dtype, rng),
                case.params,
                [i for i, domain in enumerate(domains) if domain.kind == "real"],
            )


def _shapes(declared: Declared, case: Case) -> list[tuple]:
    if case.shapes is not None:
        return [case.shapes]
    signature = getattr(declared, "signature", "")
    if signature == "()":
        return [shapes[: declared.arity] for shapes in _ELEMENTWISE]
    inputs = signature.partition("->")[0].replace("?", "").strip("()").split("),(")
    if not {*",".join(inputs).split(",")} <= {*_DIMENSIONS}:
        expected = "cases=(Case(shapes=((2, 3),)), ...), or a signature with letters m, k and n"
        headline = f"{declared.name}: the shapes to check it at"
        raise UsageError(facts(headline, expected=expected, got=f"signature {signature!r}"))
    core = [tuple(_DIMENSIONS[letter] for letter in letters.split(",")) for letters in inputs]
    return [tuple(core), ((5, *core[0]), *core[1:])]  # the second with a batch axis


def values(
    shapes: tuple, domains: list[Domain], dtype: Any, rng: np.random.Generator
) -> list[np.ndarray]:
    """Random values inside the domains, away from kinks and ties."""
    distinct = iter(_distinct(sum(int(np.prod(s)) for s in shapes), rng))
    arrays = []
    for shape, domain in zip(shapes, domains, strict=True):
        if domain.kind == "bool":
            arrays.append(rng.random(shape) < 0.5)
        elif domain.kind == "index":
            arrays.append(rng.integers(0, 2, size=shape))
        else:
            size = int(np.prod(shape))
            unit = [next(distinct) for _ in range(size)] if domain.distinct else rng.random(size)
            x = domain.low + (domain.high - domain.low) * np.asarray(unit)
            arrays.append(_off_kinks(domain, x).reshape(shape).astype(dtype))
    return arrays


def _distinct(n: int, rng: np.random.Generator) -> np.ndarray:
    """n numbers in (0, 1), no two closer than 1/(3 n)."""
    return rng.permutation((np.arange(n) + rng.uniform(0.33, 0.66, size=n)) / max(n, 1))


def _off_kinks(domain: Domain, x: np.ndarray) -> np.ndarray:
    """``x``, its elements kept away from kinks by at least a twentieth of the domain."""
    margin = 0.05 * (domain.high - domain.low)
    for kink in domain.kinks:
        x = np.where(np.abs(x - kink) < margin, kink + np.where(x < kink, -margin, margin), x)
    return x
