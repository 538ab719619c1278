"""The stand-in's claims about CuPy hold for it, and with ``--device cuda`` for CuPy itself."""

import importlib.util

import numpy as np
import pytest
import shim
import standin
import standin_claims as claims

import minigrad as mg
from minigrad import backend

needs_compiler = pytest.mark.skipif(bool(shim.unavailable()), reason=shim.unavailable() or "-")


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim[0])
def test_a_claim_about_cupy_is_true(claim, gpu):
    sentence, kind, call = claim
    if "kernel takes" in sentence and not gpu.is_real and shim.unavailable():
        pytest.skip(shim.unavailable())
    x = gpu.array(claims.HOST)
    if kind in (claims.WAITS, claims.GOES_ON):
        call(gpu, x)  # compilation at the first call may wait
        assert gpu.waits(lambda: call(gpu, x)) == (kind == claims.WAITS)
    elif kind == claims.HOLDS:
        assert call(gpu, x)
    else:
        with pytest.raises(kind):
            call(gpu, x)


def test_what_the_stand_in_counts_is_where_it_happened():
    with standin.registered(), standin.counting() as counts:
        x = mg.tensor(np.ones(3), device="cuda")
        float((x * 2).sum())
    assert len(counts.uploads) == 1 and len(counts.synchronizations) == 1
    assert "test_standin.py" in counts.synchronizations[0] + counts.uploads[0]


def test_the_stand_in_is_the_device_cuda_inside_its_block_only():
    with standin.registered():
        assert backend.unavailable("cuda") == ""
        x = mg.tensor([1.0, 2.0], device="cuda", requires_grad=True)
        (x * x).sum().backward()
        assert x.grad.device == "cuda:0" and x.grad.to("cpu").tolist() == [2.0, 4.0]
    assert standin.Array not in backend.MODULES


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_the_names_that_the_stand_in_lacks_are_those_that_cupy_lacks():
    """Needs no GPU, only the package."""
    import cupy

    for name in standin.MISSING:
        assert not claims._has(cupy, name), name
    for name in np.__all__:
        if not hasattr(cupy, name) and not name.startswith("_"):
            assert name in standin.MISSING or not callable(getattr(np, name)), name
