"""NVIDIA's compiler accepts the kernels for old, present and new GPUs; none is needed for that."""

import re

import nvrtc
import pytest

from minigrad.fused.cuda import SOURCES
from minigrad.fused.cuda.kernels import source

pytestmark = pytest.mark.skipif(bool(nvrtc.unavailable()), reason=nvrtc.unavailable() or "-")
VERBOSE = "--ptxas-options=-v"


@pytest.mark.parametrize("arch", ["75", "90", "120"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_kernel_compiles_without_a_warning(name, arch):
    instances = SOURCES[name]
    if arch != "90":  # the text is the same: one real type is enough to find what an arch lacks
        instances = tuple(i for i in instances if "double" not in i)
    log, size = nvrtc.compiled(source(name), instances, arch, VERBOSE)
    said = [line for line in log.splitlines() if "warning" in line or "error" in line]
    assert not said, "\n".join(said)
    assert size > 1000  # machine code, not an empty program
    assert log.count("Compiling entry function") == len(instances)
    spills = re.findall(r"function '(\S+)'(?:.*\n)*?.* (\d+) bytes spill stores", log)
    assert len(spills) == len(instances)
    # float32 kernels keep all values in registers, also where two blocks of 512 threads must fit
    if arch == "90":
        assert not [entry for entry in spills if "Id" not in entry[0] and entry[1] != "0"]


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
