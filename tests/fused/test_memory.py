"""The arena: arrays that live share no memory, and the memory of dead ones is used again."""

import gc
import os
import platform
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad.fused import memory

pytestmark = pytest.mark.skipif(memory._arena() is None, reason="no private mapping here")
LARGE = memory.MIN_BLOCK // 8  # float64 elements of the smallest arrays that lie in the arena


def in_use():
    with memory._lock:
        memory._free_dead()
    return dict(memory._ends)


def test_memory_is_used_again_when_the_last_view_is_gone():
    before = in_use()
    a = memory.empty((2, LARGE), np.float64)
    (start,) = in_use().keys() - before.keys()
    row = a[1, ::3]
    del a
    assert start in in_use()  # a view keeps it
    del row
    assert start not in in_use()
    b = memory.empty((2, LARGE), np.float64)
    assert start in in_use() and b.flags.writeable and b.flags.c_contiguous


def test_small_arrays_and_what_does_not_fit_are_ordinary():
    before = in_use()
    for shape in ((3, 4), (0,), (), (memory.ARENA_SIZE,)):
        array = memory.empty(shape, np.float32)
        assert array.shape == shape and array.dtype == np.float32
    assert in_use() == before


def test_objects_lie_in_memory_that_python_knows():
    """An array of objects holds pointers; old numbers in the arena are not valid ones."""
    memory.empty((1 << 18,), "float64")[...] = 0.1
    assert memory.empty((1 << 18,), object)[7] is None


@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=40),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_live_arrays_never_overlap(steps, dtype):
    """Each holds its own number to the end, whatever was allocated and freed in between."""
    live = {}
    for key, (slot, size) in enumerate(steps):
        live.pop(slot, None)
        array = memory.empty((size, LARGE), dtype)
        array[...] = key
        live[slot] = key, array
    for key, array in live.values():
        assert (array == key).all()


def test_threads_get_memory_of_their_own():
    wrong = []

    def work(number):
        for _ in range(50):
            array = memory.empty((LARGE,), np.float64)
            array[...] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_nobody_uses_can_be_given_back():
    gc.collect()
    a = memory.empty((4, LARGE), np.float64)
    a[...] = 7.0
    b = memory.empty((64, LARGE), np.float64)  # fits behind all arrays only
    b[...] = 8.0
    del b
    mg.fused.release_memory()
    assert (a == 7.0).all()  # what is in use is kept
    c = memory.empty((64, LARGE), np.float64)
    if platform.system() == "Linux":
        assert not c[1:-1].any()  # pages that were given back are mapped anew, full of zeros
    c[...] = 9.0
    assert (c == 9.0).all() and (a == 7.0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_nothing_that_its_parent_sees():
    a = memory.empty((LARGE,), np.float64)
    a[...] = 1.0
    child = os.fork()
    if child == 0:
        a[...] = 2.0
        os._exit(0)
    os.waitpid(child, 0)
    assert (a == 1.0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_wait_for_a_thread_that_it_has_not():
    with memory._lock:  # as where another thread holds it during the fork
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            memory.empty((LARGE,), np.float64)
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_training_step_maps_no_new_memory():
    """The used part of the arena does not grow after the first step."""
    rng = np.random.default_rng(0)
    net = mg.nn.models.lenet_bn(dtype="float32", rng=0)
    x, labels = rng.normal(size=(128, 1, 28, 28)).astype("float32"), rng.integers(0, 10, 128)

    def step():
        with mg.fused.use("numpy"):
            mg.fused.cross_entropy(net(mg.tensor(x)), labels).backward()
        return max(in_use().values(), default=0)

    gc.collect()
    step()
    assert step() == step()


_STEPS = """
import resource
import numpy as np, minigrad as mg
x = mg.tensor(np.ones((256, 4096), np.float32), requires_grad=True)
faults = []
for _ in range(8):
    mg.softmax(x).backward(np.ones(x.shape, np.float32))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_temporaries_of_a_step_lie_where_those_of_the_last_step_lay():
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", _STEPS]
    got = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert got.returncode == 0, got.stderr
    assert int(got.stdout) < 4 * 2**20 // 4096  # the pages of a single array
