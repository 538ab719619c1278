"""The stand-in's claims about CuPy 14: one table, against which both are tested.

Each claim is ``(sentence, kind, call)``. ``call(gpu, x)`` gets an ``Accelerator`` and the float64
array [1, 2, 3] on the device. By kind: an exception type that is raised, ``WAITS`` or ``GOES ON``
for whether the host waits for the device, or ``HOLDS`` for a call that returns True.
"""

import operator

import numpy as np

WAITS, GOES_ON, HOLDS = "waits", "goes on", "holds"

HOST = np.array([1.0, 2.0, 3.0])


def absent(*names):
    """Whether the module has none of ``names``, which may have dots."""

    def check(gpu, x):
        return not [name for name in names if _has(gpu.xp, name)]

    return check


def _has(module, name):
    try:
        operator.attrgetter(name)(module)
    except AttributeError:
        return False
    return True


def refuses_to_wait_in_capture(gpu, x):
    with recording(gpu):
        x.sum().item()


def refuses_cublas_in_capture(gpu, x):
    m = gpu.xp.ones((2, 2))
    with recording(gpu):
        gpu.xp.matmul(m, m)


def checked(gpu, function, a):
    with gpu.library.checked():
        return function(a)


class recording:
    """A stream that records inside a ``with`` block; ``.graph`` afterwards."""

    def __init__(self, gpu):
        self.stream = gpu.xp.cuda.Stream(non_blocking=True)

    def __enter__(self):
        self.stream.__enter__()
        self.stream.begin_capture()
        return self

    def __exit__(self, kind, *rest):
        try:
            self.graph = self.stream.end_capture()
        except Exception:
            if kind is None:
                raise
        finally:
            self.stream.__exit__(kind, *rest)


def a_graph_computes_when_it_is_launched(gpu, x):
    xp = gpu.xp
    y = xp.zeros(3)
    with recording(gpu) as record:
        y += xp.exp(x) * 2
        y[0] = 7.0
    before = gpu.host(y).tolist()
    record.graph.launch(record.stream)
    record.graph.launch(record.stream)
    record.stream.synchronize()
    expected = [7.0, *(4 * np.exp(HOST[1:]))]  # added twice; the first element set
    return before == [0, 0, 0] and np.allclose(gpu.host(y), expected)


def a_pool_keeps_what_nobody_uses(gpu, x):
    pool = gpu.xp.cuda.MemoryPool()
    with gpu.xp.cuda.using_allocator(pool.malloc):
        y = gpu.xp.exp(x)
    pool.free_all_blocks()
    held = pool.total_bytes()
    del y
    kept = pool.total_bytes()
    pool.free_all_blocks()
    return held == kept > 0 == pool.total_bytes()


def attempts(gpu, error):
    """How often a pool asks an allocator that fails once."""
    cuda, asked = gpu.xp.cuda, []

    def allocate(size):
        asked.append(size)
        if len(asked) == 1:
            raise error
        return cuda.MemoryPointer(cuda.Memory(size), 0)

    with cuda.using_allocator(cuda.MemoryPool(allocate).malloc):
        gpu.xp.zeros(3)
    return len(asked)


def kernels_of_one_text_are_one(gpu, x):
    kernel(gpu, "-DA").preferred_shared_memory_carveout = 100
    found = [kernel(gpu, *o).preferred_shared_memory_carveout for o in (["-DA"], ["-DB"])]
    return found == [100, -1]


def element_is_a_view(gpu, x):
    y = x[1]
    y[...] = 9.0
    return gpu.host(x).tolist() == [1, 9, 3]


def strides_by_value(gpu, x):
    is_first = x.device.id == x.data.device_id == 0
    return x.data.ptr % 16 == 0 and is_first and x.strides == (8,)


CLAIMS = [
    # host arrays are not converted to device arrays silently, nor the other way round
    ("numpy.asarray of a device array is refused", TypeError, lambda g, x: np.asarray(x)),
    ("a ufunc refuses a host array", TypeError, lambda g, x: g.xp.add(x, HOST)),
    ("an operator refuses a host array", TypeError, lambda g, x: x + HOST),
    ("an operator refuses a host array on its left", TypeError, lambda g, x: HOST + x),
    ("an operator refuses a host array without axes", TypeError, lambda g, x: x + np.array(1.0)),
    ("an operator refuses a list", TypeError, lambda g, x: operator.add(x, [1.0, 2, 3])),
    ("a ufunc refuses a list", TypeError, lambda g, x: g.xp.exp([1.0])),
    ("matmul refuses a host array", TypeError, lambda g, x: x @ HOST),
    ("maximum refuses a host array", TypeError, lambda g, x: g.xp.maximum(x, HOST)),
    ("stack refuses host arrays", TypeError, lambda g, x: g.xp.stack([x, HOST])),
    ("assignment in place refuses a host array", TypeError, lambda g, x: operator.iadd(x, HOST)),
    ("a host array cannot be assigned", ValueError, lambda g, x: operator.setitem(x, ..., HOST)),
    ("a list cannot be assigned", ValueError, lambda g, x: operator.setitem(x, ..., [1.0, 2.0, 3])),
    ("a NumPy scalar is an operand", HOLDS, lambda g, x: g.host(x * np.float64(2))[1] == 4),
    ("a NumPy scalar is an operand on the left", HOLDS,
     lambda g, x: g.host(np.float64(2) * x)[1] == 4),
    ("a Python number is an operand", HOLDS, lambda g, x: g.host(2 * x)[1] == 4),
    ("a NumPy function of a device array is CuPy's", HOLDS,
     lambda g, x: isinstance(np.sum(x), g.xp.ndarray) and np.shape(x) == (3,)),
    # results
    ("a reduction is a device array without axes", HOLDS,
     lambda g, x: isinstance(x.sum(), g.xp.ndarray) and x.sum().shape == ()),
    ("a number has no axis 0 to sum over", np.exceptions.AxisError, lambda g, x: x[0].sum(axis=0)),
    ("a number has no last axis to take a maximum over", np.exceptions.AxisError,
     lambda g, x: x[0].max(axis=-1)),
    ("a number has no axis 0 to accumulate along", np.exceptions.AxisError,
     lambda g, x: g.xp.cumsum(x[0], axis=0)),
    ("an element is a device array without axes", HOLDS,
     lambda g, x: isinstance(x[1], g.xp.ndarray) and x[1].shape == ()),
    ("an element is a view", HOLDS, element_is_a_view),
    ("a device array is not hashable", TypeError, lambda g, x: hash(x)),
    ("a device array is no index", TypeError, lambda g, x: operator.index(g.xp.asarray(1))),
    ("a Python float does not widen float32", HOLDS,
     lambda g, x: (x.astype("float32") * 2.0).dtype == np.float32),
    ("a device array without axes widens float32", HOLDS,
     lambda g, x: (x.astype("float32") * x[0]).dtype == np.float64),
    ("arrays have a pointer, a device and strides", HOLDS, strides_by_value),
    ("an overflow does not warn", HOLDS, lambda g, x: np.isinf(g.host(x * 1e308)).any()),
    ("there is no float wider than float64", ValueError,
     lambda g, x: g.xp.asarray(HOST.astype(np.longdouble))),
    ("there is no cast to a wider float", ValueError,
     lambda g, x: g.xp.sum(x.astype(np.longdouble))),
    # indices
    ("an index array on the host is taken", HOLDS, lambda g, x: g.host(x[np.array([2])])[0] == 3),
    ("a list is an index array", HOLDS, lambda g, x: g.host(x[[2, 0]])[1] == 1),
    ("an index array out of bounds wraps around", HOLDS,
     lambda g, x: g.host(x[g.xp.asarray([3, -1])]).tolist() == [1, 3]),
    ("an integer out of bounds is refused", IndexError, lambda g, x: x[3]),
    ("an array of floats is no index", IndexError, lambda g, x: x[x]),
    ("add.at adds repeated indices up", HOLDS,
     lambda g, x: g.xp.add.at(x, g.xp.asarray([0, 0]), 1.0) is None and g.host(x)[0] == 3),
    # decompositions
    ("a decomposition that fails does not raise", HOLDS,
     lambda g, x: g.xp.linalg.cholesky(-g.xp.eye(2)).shape == (2, 2)),
    ("a decomposition goes on", GOES_ON, lambda g, x: g.xp.linalg.inv(g.xp.eye(2))),
    ("a checked decomposition waits", WAITS,
     lambda g, x: checked(g, g.xp.linalg.eigh, g.xp.eye(2))),
    ("a checked decomposition that fails raises", ValueError,
     lambda g, x: checked(g, g.xp.linalg.cholesky, -g.xp.eye(2))),
    # missing names and keywords
    ("there is no errstate", HOLDS, absent("errstate", "seterr", "geterr")),
    ("there are no vecdot, unstack and their kin", HOLDS,
     absent("vecdot", "vecmat", "matvec", "unstack", "block", "insert", "spacing", "nditer",
            "linalg.vecdot", "linalg.vector_norm", "linalg.matrix_norm", "linalg.multi_dot")),
    ("there is no longdouble", HOLDS, absent("longdouble", "float128")),
    ("arrays have no __imatmul__", HOLDS, lambda g, x: not hasattr(x, "__imatmul__")),
    ("arrays have no __contains__", HOLDS, lambda g, x: not hasattr(x, "__contains__")),
    ("the generator has no normal, permutation, choice", HOLDS,
     lambda g, x: not {"normal", "permutation", "choice", "shuffle"}
     & set(dir(g.xp.random.default_rng(0)))),
    ("sum has no where", TypeError, lambda g, x: g.xp.sum(x, where=x > 1)),
    ("sum has no initial", TypeError, lambda g, x: x.sum(initial=1.0)),
    ("max has no initial", TypeError, lambda g, x: g.xp.max(x, initial=1.0)),
    ("var has no correction", TypeError, lambda g, x: g.xp.var(x, correction=1)),
    ("clip has no min and max", TypeError, lambda g, x: g.xp.clip(x, min=0, max=1)),
    ("einsum has no out", TypeError, lambda g, x: g.xp.einsum("i->i", x, out=x)),
    ("asarray has no device", TypeError, lambda g, x: g.xp.asarray(x, device="cpu")),
    ("where wants an array as condition", AttributeError, lambda g, x: g.xp.where(True, x, x)),
    # calls that the host waits for, and calls that it does not
    ("float waits", WAITS, lambda g, x: float(x[0])),
    ("int waits", WAITS, lambda g, x: int(x[0])),
    ("bool waits", WAITS, lambda g, x: bool(x[0])),
    ("item waits", WAITS, lambda g, x: x[0].item()),
    ("tolist waits", WAITS, lambda g, x: x.tolist()),
    ("repr waits", WAITS, lambda g, x: repr(x)),
    ("str waits", WAITS, lambda g, x: str(x)),
    ("format waits", WAITS, lambda g, x: f"{x[0]}"),
    ("asnumpy waits", WAITS, lambda g, x: g.xp.asnumpy(x)),
    ("nonzero waits", WAITS, lambda g, x: g.xp.nonzero(x)),
    ("indexing with booleans waits", WAITS, lambda g, x: x[x > 1]),
    ("membership waits", WAITS, lambda g, x: 2.0 in x),
    ("arithmetic goes on", GOES_ON, lambda g, x: g.xp.exp(x * 2 + x) / x.sum()),
    ("comparing goes on", GOES_ON, lambda g, x: (x > 1).all()),
    ("basic indexing goes on", GOES_ON, lambda g, x: x[::2].reshape(1, 2)[0, 1]),
    ("indexing with integers goes on", GOES_ON, lambda g, x: x[g.xp.arange(2)]),
    ("assigning goes on", GOES_ON, lambda g, x: operator.setitem(x, 0, 5.0)),
    ("choosing goes on", GOES_ON, lambda g, x: g.xp.where(x > 1, x, 0.0)),
    ("a matrix product goes on", GOES_ON, lambda g, x: x @ x),
    ("copying and casting go on", GOES_ON, lambda g, x: x.copy().astype("float32")),
    ("joining goes on", GOES_ON, lambda g, x: g.xp.concatenate([x, x])),
    # graphs
    ("the default stream does not record", RuntimeError,
     lambda g, x: g.xp.cuda.Stream.null.begin_capture()),
    ("a recording stream refuses to wait", RuntimeError, refuses_to_wait_in_capture),
    ("a recording stream refuses cuBLAS", NotImplementedError, refuses_cublas_in_capture),
    ("a graph computes when it is launched", HOLDS, a_graph_computes_when_it_is_launched),
    # memory
    ("a pool keeps unused memory until free_all_blocks", HOLDS, a_pool_keeps_what_nobody_uses),
    ("a pool whose allocator fails asks again", HOLDS,
     lambda g, x: attempts(g, g.xp.cuda.runtime.CUDARuntimeError(2)) == 2),
    ("a pool whose allocator raises MemoryError does not ask again", MemoryError,
     lambda g, x: attempts(g, MemoryError())),
    # kernels
    ("the compute capability is a string of digits", HOLDS,
     lambda g, x: int(g.xp.cuda.Device(0).compute_capability) >= 10),
    ("a kernel refuses a host array", TypeError,
     lambda g, x: kernel(g)((1,), (32,), (HOST, 3))),
    ("a kernel takes arrays and numbers", HOLDS,
     lambda g, x: kernel(g)((1,), (32,), (x, 3)) is None and g.host(x).tolist() == [2, 4, 6]),
    ("kernels of the same text and options share their attributes", HOLDS,
     kernels_of_one_text_are_one),
    ("more shared memory than 48 KiB must be asked for", RuntimeError,
     lambda g, x: kernel(g)((1,), (32,), (x, 3), shared_mem=64 * 1024)),
]  # fmt: skip

TEXT = """
template <class T> __global__ void twice(T* x, long long size) {
    if (threadIdx.x < size) x[threadIdx.x] *= 2;
}
"""


def kernel(gpu, *options):
    names = ("twice<double>",)
    module = gpu.xp.RawModule(code=TEXT, options=options, name_expressions=names)
    return module.get_function("twice<double>")
