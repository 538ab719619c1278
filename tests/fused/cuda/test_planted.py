"""The tests of the kernels can fail: they find errors that are planted into the kernels."""

import planted
import pytest
import shim

from minigrad.fused.cuda import kernels as launcher


@pytest.fixture
def text_of_kernels(kernels, monkeypatch):
    """A function that changes the text of all kernels until the test ends."""
    if kernels.is_real:
        pytest.skip("errors are planted into kernels on the CPU only")
    original = launcher.source.__wrapped__

    def change(old, new):
        def source(name):
            return original(name).replace(old, new)

        monkeypatch.setattr(launcher, "source", source)
        launcher._kernel.cache_clear()

    yield change
    launcher._kernel.cache_clear()


@pytest.mark.parametrize("error", planted.ERRORS, ids=lambda error: error[0])
def test_a_planted_error_is_found(error, kernels, text_of_kernels, monkeypatch):
    _, file, old, new, noticed_by, check = error
    assert old in (launcher.HERE / file).read_text()
    text_of_kernels(old, new)
    if noticed_by == "compare":
        with pytest.raises(AssertionError):
            check(kernels)
        return
    watch(monkeypatch, noticed_by)
    # if blocks happen to run one after the other they do not race, but the results are wrong
    with pytest.raises((RuntimeError, AssertionError), match=r"Sanitizer|expected"):
        check(kernels)


def watch(monkeypatch, sanitizer):
    """Every launch runs in a process that a sanitizer watches."""
    reason = shim.unavailable(*shim.SANITIZERS[sanitizer])
    if reason:
        pytest.skip(reason)

    def run(text, instance, launch, args, resident):
        shim.sanitized(text, instance, launch, args, resident, sanitizer)

    monkeypatch.setattr(shim, "run", run)


CLEAN = {
    "batch norm, held": planted.train((2, 1, 1000)),
    "batch norm, read twice": planted.train((2, 1, 8000)),
    "batch norm of columns": planted.train((100, 33)),
    "batch norm by values": planted.train((7, 3, 7)),
    "batch norm in evaluation": planted.evaluate((2, 1, 4000)),
    "layer norm": planted.normalize_rows(5, 12),
    "sigmoid": planted.equal("sigmoid", [(7,)]),
    "max pool": planted.equal("max_pool", [(2, 2, 5, 5)], kernel_size=2, padding=1),
    "conv": planted.equal("conv", [(9, 2, 6, 6), (3, 2, 3, 3)], padding=1),
    "matmul": planted.equal("matmul", [(70, 40), (40, 5)]),
    "cross entropy": planted.classify([0, 7, 2], 3),
}


@pytest.mark.parametrize("sanitizer", shim.SANITIZERS)
@pytest.mark.parametrize("name", CLEAN)
def test_no_sanitizer_complains_about_the_kernels(name, sanitizer, kernels, monkeypatch):
    if kernels.is_real:
        pytest.skip("sanitizers of g++ watch kernels on the CPU; compute-sanitizer those on a GPU")
    watch(monkeypatch, sanitizer)
    CLEAN[name](kernels)
