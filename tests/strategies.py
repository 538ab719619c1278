"""Strategies of hypothesis: calls of declared ops, inside the domain each declaration states."""

import importlib
import pkgutil
import time
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import minigrad as mg
from minigrad.core.op import Op

MARGIN = 0.1  # distance from a kink: 25 difference steps

for _info in pkgutil.iter_modules(mg.ops.__path__, "minigrad.ops."):
    importlib.import_module(_info.name)  # so that no op is skipped

# without the ops that tests declare
DECLARED = {
    name: op for name, op in mg.REGISTRY.items() if op.__module__.partition(".")[0] == "minigrad"
}
CASES = [(name, i) for name in sorted(DECLARED) for i in range(len(DECLARED[name].cases))]


@dataclass
class Call:
    """One call of an op: its operands, and which of them have derivatives."""

    op: object
    xs: list
    params: dict
    real: list  # positions of the differentiable operands
    rng: np.random.Generator

    def __repr__(self):
        return f"{self.op.name}(*{self.xs}, **{self.params})"

    def _repr_pretty_(self, printer, cycle):
        printer.text(repr(self))  # what hypothesis prints

    def run(self, *xs):
        """The op on all operands; several results are joined to one vector."""
        y = self.op(*xs, **self.params)
        return mg.concatenate([mg.reshape(p, (-1,)) for p in y]) if isinstance(y, list) else y

    def f(self, *reals):
        """The op as a function of its differentiable operands alone."""
        xs = list(self.xs)
        for i, x in zip(self.real, reals, strict=True):
            xs[i] = x
        return self.run(*xs)

    @property
    def reals(self):
        return [self.xs[i] for i in self.real]

    def cast(self, dtype):
        """The differentiable operands in another dtype."""
        return [x.astype(dtype) for x in self.reals]

    def like(self, x):
        """Random numbers of the shape of ``x``, never a constant: seeds, directions."""
        signs = self.rng.choice([-1.0, 1.0], x.shape)
        return np.asarray(self.rng.uniform(0.5, 1.5, x.shape) * signs)


def _away_from_kinks(x, kinks):
    for kink in kinks:
        near = np.abs(x - kink) < MARGIN
        x = np.where(near, kink + np.where(x < kink, -1, 1) * (MARGIN + np.abs(x - kink)), x)
    return x


def _operands(op, shapes, rng):
    xs = []
    for i, shape in enumerate(shapes):
        domain = op.domain_of(i)
        if domain.kind == "bool":
            xs.append(np.asarray(rng.random(shape) < 0.5))
        elif domain.kind == "index":
            xs.append(rng.integers(0, shapes[0][-1], shape))
        else:
            x = np.asarray(rng.uniform(domain.low, domain.high, shape))
            xs.append(_away_from_kinks(x, domain.kinks))
    if any(op.domain_of(i).distinct for i in range(len(shapes))):
        xs = _without_ties(xs, op, rng)
    return xs


def _without_ties(xs, op, rng):
    """Values spread over the domain in random order, at least half a cell apart."""
    domain, total = op.domain_of(0), sum(x.size for x in xs)
    cells = (rng.permutation(total) + rng.uniform(0.25, 0.75, total)) / max(total, 1)
    values = domain.low + (domain.high - domain.low) * cells
    parts = np.split(values, np.cumsum([x.size for x in xs])[:-1])
    return [part.reshape(x.shape) for part, x in zip(parts, xs, strict=True)]


@st.composite
def calls(draw, name, case=None):
    """A call of the op ``name``, with the parameters (and shapes) of one of its cases."""
    op = DECLARED[name]
    case = op.cases[case] if case is not None else draw(st.sampled_from(op.cases))
    shapes = case.shapes
    if shapes is None:
        kwargs = {"min_side": 0, "max_side": 3, "max_dims": 2}
        if isinstance(op, Op) and op.signature not in ("", "()"):
            kwargs["signature"] = op.signature
        else:
            kwargs["num_shapes"] = op.arity
        shapes = draw(mutually_broadcastable_shapes(**kwargs)).input_shapes
    return _call(op, shapes, case.params, draw(st.integers(0, 2**32 - 1)))


def _call(op, shapes, params, seed):
    rng = np.random.default_rng(seed)
    xs = _operands(op, shapes, rng)
    real = [i for i, x in enumerate(xs) if x.dtype.kind == "f"]
    return Call(op, xs, dict(params), real, rng)


def over_cases(cases, share=8):
    """Make ``check(call)`` a test of every listed case.

    A case with fixed shapes runs 1/``share`` of the profile's number of examples.
    """

    def decorate(check):
        def test(name, case):
            op = DECLARED[name]
            shapes, params, profile = op.cases[case].shapes, op.cases[case].params, settings()
            if shapes is None:
                given(calls(name, case))(check)()
                return
            # with no shapes to shrink, hypothesis is not needed; each property has its own seeds
            seed = zlib.crc32(check.__name__.encode()) if profile.derandomize else time.time_ns()
            for k in range(max(1, profile.max_examples // share)):
                check(_call(op, shapes, params, seed + k))

        test.__name__, test.__module__ = check.__name__, check.__module__
        return pytest.mark.parametrize(("name", "case"), cases)(test)

    return decorate


every_case = over_cases(CASES)


def array(x):
    return np.asarray(x.array if isinstance(x, mg.Tensor) else x)


def tracked(arrays):
    return [mg.tensor(x, requires_grad=True, name=f"x{i}") for i, x in enumerate(arrays)]
