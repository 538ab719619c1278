"""Kernels of numba: compiled now or loaded from the cache, they are the same kernels."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.fused.declare import has_numba

BITS = """
import hashlib
import numpy as np
import minigrad as mg

rng = np.random.default_rng(0)


def print_bits(op, *shapes, others=(), **params):
    xs = [mg.tensor(rng.normal(size=s), dtype="float32", requires_grad=True) for s in shapes]
    y = op(*xs, *others, **params)
    y.backward(rng.normal(size=y.shape))
    arrays = [a.numpy().tobytes() for a in (y, *[x.grad for x in xs])]
    print(op.name, *[hashlib.sha256(a).hexdigest() for a in arrays])


print_bits(mg.fused.batch_norm, (257, 96), (96,), (96,))
print_bits(mg.fused.batch_norm, (33, 6, 13, 14), (6,), (6,))
print_bits(mg.fused.batch_norm, (257, 6, 3, 5), (6,), (6,))
print_bits(mg.fused.layer_norm, (130, 67), (67,), (67,))
print_bits(mg.fused.group_norm, (33, 6, 13, 14), (6,), (6,), num_groups=2)
print_bits(mg.fused.cross_entropy, (257, 100), others=[rng.integers(0, 100, 257)])
print_bits(mg.fused.softmax, (257, 100))
print_bits(mg.fused.log_softmax, (257, 100))
print_bits(mg.fused.conv, (32, 3, 17, 18), (6, 3, 5, 5), padding=2)
print_bits(mg.fused.conv, (16, 9, 17, 18), (50, 9, 3, 3), padding=1)
print_bits(mg.fused.linear, (130, 67), (70, 67), (70,))
"""


needs_numba = pytest.mark.skipif(not has_numba(), reason="numba is not installed")


@needs_numba
def test_a_fresh_kernel_computes_the_bits_of_one_from_the_cache(tmp_path):
    """So that a run resumed in another process goes on as if it had never stopped."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    fresh, cached = (
        subprocess.run([sys.executable, "-c", BITS], env=environment, check=True,
                       capture_output=True, text=True).stdout
        for _ in range(2)
    )  # fmt: skip
    assert len(fresh.splitlines()) == 11 and any(tmp_path.rglob("*.nbc"))
    assert fresh == cached


@needs_numba
@pytest.mark.parametrize("setting", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_importing_the_kernels_leaves_the_environment_as_it_was(setting):
    code = "import os, minigrad.fused.compiled; print(sorted(os.environ.items()))"
    environment = {**os.environ, **setting}
    out = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert out.strip() == str(sorted(environment.items()))


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_exponential_is_accurate_down_to_the_smallest_number(dtype):
    from numba import njit

    from minigrad.fused.compiled.activation import exp

    @njit
    def exponentials(t, y):
        for i in range(t.size):
            y[i] = exp(t[i])

    info = np.finfo(dtype)
    t = np.linspace(1.01 * np.log(info.smallest_subnormal), 0, 100_001).astype(dtype)
    t = np.concatenate([t, t / 1000, np.array([-np.inf, info.min, -info.tiny], dtype)])
    y = np.empty_like(t)
    exponentials(t, y)
    exact = np.exp(t.astype(np.longdouble))
    # r, the polynomial, the sum and, if it is not normal, the result round by half a unit each
    bound = 2 * np.maximum(info.eps * exact, info.smallest_subnormal)
    assert (np.abs(y - exact) <= bound).all()
    exponentials(np.array([np.nan], dtype), y)
    assert np.isnan(y[0])


@needs_numba
@given(
    n=st.integers(1, 4), size=st.integers(1, 5000), dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_results_that_bypass_the_caches_have_the_same_bits(n, size, dtype, seed):
    """Rows of any length begin and end anywhere in a cache line."""
    from minigrad.fused.compiled import PAIRS, stream

    rng, bits = np.random.default_rng(seed), []
    x, y_bar = rng.normal(1, 2, size=(2, n, 3, size)).astype(dtype)
    gamma, beta = rng.normal(size=(2, 3)).astype(dtype)
    for least in (0, stream.MIN_BYTES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "MIN_BYTES", least)
            patch.setattr(stream, "MIN_ROW", 1)
            assert stream.bypasses(x) == (least == 0)
            y, cache = PAIRS["batch_norm"].forward(np, x, gamma, beta)
            x_bar, *_ = PAIRS["batch_norm"].backward(np, y_bar, cache)
            bits.append([y.tobytes(), x_bar.tobytes()])
    assert bits[0] == bits[1]
