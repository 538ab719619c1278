"""NVIDIA's compiler accepts the kernels for old, present and new GPUs; it needs no GPU."""

import re

import nvrtc
import pytest

from minigrad.fused.cuda import SOURCES
from minigrad.fused.cuda.kernels import source

pytestmark = pytest.mark.skipif(bool(nvrtc.unavailable()), reason=nvrtc.unavailable() or "-")
VERBOSE = "--ptxas-options=-v"


CHOSEN = [
    (name, arch, real, found)
    for name, instances in SOURCES.items()
    for arch, real in (("75", "float"), ("90", "float"), ("90", "double"), ("120", "float"))
    if (found := tuple(i for i in instances if ("double" in i) == (real == "double")))
]


@pytest.mark.parametrize(
    ("name", "arch", "real", "instances"), CHOSEN, ids=["-".join(one[:3]) for one in CHOSEN]
)
def test_every_kernel_compiles_without_a_warning(name, arch, real, instances):
    shipped = (arch, real) == ("90", "float")
    # without optimization, in a third of the time, errors of another arch or type show as well
    options = (VERBOSE,) if shipped else (VERBOSE, "--device-debug")
    log, size = nvrtc.compiled(source(name), instances, arch, *options)
    said = [line for line in log.splitlines() if "warning" in line or "error" in line]
    assert not said, "\n".join(said)
    assert size > 1000  # machine code, not an empty program
    of_no_type = [i for i in SOURCES[name] if "<" not in i and i not in instances]
    entries = len(instances) + len(of_no_type)  # the latter are compiled without being named
    assert log.count("Compiling entry function") == entries
    spills = re.findall(r"function '(\S+)'(?:.*\n)*?.* (\d+) bytes spill stores", log)
    assert len(spills) == entries
    # float32 kernels keep all values in registers, also if two blocks of 512 threads must fit; only
    # NVRTC before 13.1, which PyTorch 2.13 brings along, spills one register of one of them
    spilled = {entry for entry in spills if entry[1] != "0"}
    assert not shipped or all("conv_backward_w" in kernel and n == "4" for kernel, n in spilled)


def test_a_mistake_in_the_text_is_found():
    text = source("sigmoid.cu")
    with pytest.raises(RuntimeError, match="undefined"):
        nvrtc.compiled(text.replace("fabs(x)", "fabz(x)"), SOURCES["sigmoid.cu"], "90")
    unused = text.replace("const T t = exp(-fabs(x));", "const T t = exp(-fabs(x)); int none;", 1)
    log, _ = nvrtc.compiled(unused, SOURCES["sigmoid.cu"], "90")
    assert "warning" in log


def test_an_instance_that_does_not_exist_is_found():
    with pytest.raises(RuntimeError):
        nvrtc.compiled(source("sigmoid.cu"), ("sigmoid_sideways<float, 4>",), "90")
