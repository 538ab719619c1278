"""A stand-in for CuPy 14: NumPy in a wrapper that refuses the calls which CuPy refuses.

On a machine without a GPU it runs the code path of a GPU, and counts what costs time there: results
that the host waits for (synchronizations) and host arrays that are copied (uploads). The table in
``standin_claims`` lists its claims about CuPy; on a GPU, CuPy itself is tested against them.

The device itself, streams and kernels are in ``standin_gpu``.
"""

import traceback
import types
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import standin_gpu as gpu

from minigrad import backend

REFUSED = {"like", "device", "subok", "where", "initial", "correction"}  # keywords, by all
REFUSED_BY = {
    "clip": {"min", "max"}, "einsum": {"out", "order", "casting"}, "take": {"mode"},
    "var": {"mean"}, "std": {"mean"}, "sort": {"order", "stable"}, "argsort": {"order", "stable"},
    "unique": {"sorted"}, "meshgrid": {"copy"}, "concatenate": {"arrays"}, "stack": {"arrays"},
}  # fmt: skip
MISSING = {
    "False_", "True_", "__array_namespace_info__", "asmatrix", "block", "bmat", "busday_count",
    "busday_offset", "busdaycalendar", "bytes_", "char", "character", "clongdouble",
    "complex256", "core", "ctypeslib", "datetime64", "datetime_as_string", "datetime_data",
    "einsum_path", "emath", "errstate", "flexible", "float128", "frompyfunc", "fromregex",
    "geomspace", "get_include", "getbufsize", "geterr", "geterrcall", "histogram_bin_edges",
    "info", "insert", "is_busday", "isnat", "longdouble", "ma", "matrix", "matvec", "memmap",
    "nanpercentile", "nanquantile", "ndenumerate", "nditer", "nested_iters", "object_",
    "polyder", "polydiv", "polyint", "rec", "recarray", "record", "setbufsize", "seterr",
    "seterrcall", "show_runtime", "spacing", "str_", "strings", "test", "timedelta64",
    "unstack", "vecdot", "vecmat", "void", "linalg.diagonal", "linalg.matrix_norm",
    "linalg.multi_dot", "linalg.outer", "linalg.svdvals", "linalg.tensordot", "linalg.trace",
    "linalg.vecdot", "linalg.vector_norm",
}  # fmt: skip
WAITS = {"nonzero", "argwhere", "flatnonzero", "unique", "bincount", "extract", "array_equal"}
REDUCTIONS = {"sum", "prod", "max", "min", "any", "all", "argmax", "argmin", "cumsum"}
CUBLAS = {"matmul", "dot", "tensordot", "inner", "vdot", "outer", "einsum"}
DECOMPOSITIONS = {"inv", "cholesky", "eigh"}
DTYPES = "?bhilqBHILQefdFD"  # the characters of CuPy's dtypes; no float is wider than float64


@dataclass
class Counts:
    """The lines of code where the host waited for the device, and copied an array to it."""

    synchronizations: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)


_counters: list[Counts] = []
_OWN = {Path(__file__).name, "standin_gpu.py", "accelerator.py"}


@contextmanager
def counting():
    """Counts what happens inside the block; blocks nest."""
    counts = Counts()
    _counters.append(counts)
    try:
        yield counts
    finally:
        _counters.remove(counts)


def _here() -> str:
    lines = [(Path(f.filename).name, f.lineno) for f in traceback.extract_stack()]
    outside = [f"{name}:{line}" for name, line in lines if name not in _OWN]
    return " < ".join(outside[:-7:-1])


def synchronize() -> None:
    gpu.refuse_in_capture("synchronous API calls are disallowed")
    for counts in _counters:
        counts.synchronizations.append(_here())


def _upload(value) -> "Array":
    gpu.refuse_in_capture("H2D transfers are disallowed")
    for counts in _counters:
        counts.uploads.append(_here())
    return Array(_supported(np.array(value)))


def _supported(array):
    if array.dtype.char not in DTYPES:
        raise ValueError(f"Unsupported dtype {array.dtype}")
    return array


def _unsupported(value):
    return TypeError(f"Unsupported type {type(value)}")


def _in(value):
    """``value`` with NumPy arrays for device arrays; host arrays are refused, even 0-d ones."""
    if isinstance(value, Array):
        return value.hidden
    if isinstance(value, np.ndarray):
        raise _unsupported(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_in(v) for v in value)
    return value


def _out(value):
    if isinstance(value, (tuple, list)):
        parts = map(_out, value)
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    is_array = isinstance(value, (np.ndarray, np.generic))
    return Array(_supported(np.asarray(value))) if is_array else value


def _lift(function, name=""):
    refused = REFUSED | REFUSED_BY.get(name, set())

    def lifted(*args, **params):
        for key in refused.intersection(params):
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
        if isinstance(function, np.ufunc):
            for value in args:
                if isinstance(value, (list, tuple)):
                    raise _unsupported(value)
        if name in WAITS:
            synchronize()
        if name in DECOMPOSITIONS:
            return _decomposed(function, [_in(value) for value in args])
        if name in CUBLAS:
            gpu.refuse_cublas_in_capture()
        out = params.get("out")
        hidden = [_in(value) for value in args]
        params = {key: _in(value) for key, value in params.items()}
        if name in REDUCTIONS and params.get("axis") in (0, -1) and not np.ndim(hidden[0]):
            raise np.exceptions.AxisError(params["axis"], 0)
        if out is not None:
            gpu.act(lambda: function(*hidden, **params))
            return out
        return _out(gpu.produce(function, hidden, params))

    return lifted


_checks: list[bool] = []  # one entry per block in which decompositions that fail raise


@contextmanager
def checked():
    """``cupyx.errstate(linalg="raise")``."""
    _checks.append(True)
    try:
        yield
    finally:
        _checks.pop()


def _decomposed(function, hidden):
    """The result, or garbage if there is none: CuPy checks for failure only inside ``checked``."""
    gpu.refuse_cublas_in_capture()
    if _checks:
        synchronize()
    try:
        return _out(function(*hidden))
    except np.linalg.LinAlgError:
        if _checks:
            raise
        return _out(hidden[0].copy())


def _key(key):
    """The parts of an index, host arrays uploaded, and whether it is basic indexing."""
    parts = key if isinstance(key, tuple) else (key,)
    basic, found = True, []
    for part in parts:
        if isinstance(part, (list, np.ndarray)):
            part = _upload(part)
            if part.dtype.kind == "f" and not part.size:
                part = Array(part.hidden.astype(int))
        if isinstance(part, Array):
            basic = False
            if part.dtype.kind not in "biu":
                raise IndexError("arrays used as indices must be of integer or boolean type.")
        found.append(part)
    return found, basic


def _wrapped(parts, shape):
    """The index ``parts`` for NumPy; indices out of bounds wrap around silently, as in CuPy."""
    axis, found = 0, []
    for part in parts:
        if isinstance(part, Array) and part.dtype.kind != "b":
            part = part.hidden % shape[axis]
        elif isinstance(part, Array):
            synchronize()  # how many are true decides the shape
            axis, part = axis + part.ndim - 1, part.hidden
        if part is not None and part is not ...:
            axis += 1
        found.append(part)
        if part is ...:
            named = sum(p is not None and p is not ... for p in parts)
            axis = len(shape) - (named - axis)
    return tuple(found)


class Array:
    """An array on a device; scalars, too, are arrays there."""

    def __init__(self, hidden):
        self.hidden = hidden

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc, method, *inputs, **params):
        lifted = getattr(xp, ufunc.__name__)
        if "out" in params:
            params["out"] = params["out"][0]
        return (lifted if method == "__call__" else getattr(lifted, method))(*inputs, **params)

    def __array_function__(self, function, types, args, params):
        return getattr(xp, function.__name__)(*args, **params)

    __hash__ = None
    shape = property(lambda self: self.hidden.shape)
    ndim = property(lambda self: self.hidden.ndim)
    size = property(lambda self: self.hidden.size)
    dtype = property(lambda self: self.hidden.dtype)
    nbytes = property(lambda self: self.hidden.nbytes)
    itemsize = property(lambda self: self.hidden.itemsize)
    strides = property(lambda self: self.hidden.strides)
    flags = property(lambda self: self.hidden.flags)
    T = property(lambda self: Array(self.hidden.T))
    device = property(lambda self: gpu.Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self.hidden.ctypes.data, device_id=0))

    def __getitem__(self, key):
        parts, basic = _key(key)
        if basic:  # a view, even of a single element
            parts = parts if any(part is ... for part in parts) else [*parts, ...]
            return Array(self.hidden[tuple(parts)])
        key = _wrapped(parts, self.shape)
        return _out(gpu.produce(lambda x: x[key], [self.hidden], {}))

    def __setitem__(self, key, value):
        parts, basic = _key(key)
        if isinstance(value, (list, np.ndarray)) and np.ndim(value):
            if basic:
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            value = _upload(value)
        key = tuple(parts) if basic else _wrapped(parts, self.shape)
        value = value if isinstance(value, np.ndarray) else _in(value)
        gpu.act(lambda: self.hidden.__setitem__(key, value))

    def __len__(self):
        return len(self.hidden)

    def __iter__(self):
        return (self[i] for i in range(len(self.hidden)))

    def get(self):
        synchronize()
        return self.hidden.copy()

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def fill(self, value):
        self[...] = value

    def scatter_add(self, key, value):
        raise DeprecationWarning("`ndarray.scatter_add` is deprecated.")


def _waits(convert):
    return lambda self, *args: convert(self.get(), *args)


for _convert in (bool, int, float, complex, repr, str, format):
    setattr(Array, f"__{_convert.__name__}__", _waits(_convert))


def _binary(name, is_comparison=False):
    method = getattr(np.ndarray, name)

    def operator(self, other):
        if is_comparison and isinstance(other, np.ndarray) and other.ndim == 0:
            other = other.item()
        if isinstance(other, (np.ndarray, list, tuple)):
            raise _unsupported(other)
        if not isinstance(other, (Array, int, float, np.generic)):
            return NotImplemented
        if "matmul" in name:
            gpu.refuse_cublas_in_capture()
        return _out(gpu.produce(method, [self.hidden, _in(other)], {}))

    return operator


def _in_place(name):
    method = getattr(np.ndarray, name)

    def operator(self, other):
        other = _in(other)
        gpu.act(lambda: method(self.hidden, other))
        return self

    return operator


def _unary(name):
    method = getattr(np.ndarray, name)
    return lambda self: _out(gpu.produce(method, [self.hidden], {}))


def _method(name):
    method = getattr(np.ndarray, name)
    return lambda self, *args, **params: _lift(method, name)(self, *args, **params)


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "mod", "floordiv", "and", "or"):
    for _prefix in ("__", "__r"):
        setattr(Array, f"{_prefix}{_name}__", _binary(f"{_prefix}{_name}__"))
    if _name != "matmul":
        setattr(Array, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Array, f"__{_name}__", _binary(f"__{_name}__", is_comparison=True))
for _name in ("__neg__", "__pos__", "__abs__", "__invert__"):
    setattr(Array, _name, _unary(_name))
for _name in (
    *("all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumsum", "diagonal"),
    *("dot", "max", "mean", "min", "prod", "ravel", "repeat", "reshape", "round", "squeeze", "std"),
    *("sum", "swapaxes", "take", "trace", "transpose", "var", "view"),
):
    setattr(Array, _name, _method(_name))


class Namespace(types.ModuleType):
    """NumPy's functions, lifted on first use."""

    source, prefix = np, ""

    def __getattr__(self, name):
        if self.prefix + name in MISSING or name.startswith("__"):
            raise AttributeError(f"module 'cupy' has no attribute '{self.prefix}{name}'")
        value = getattr(self.source, name)
        if isinstance(value, types.ModuleType):
            lifted = Namespace(name)
            lifted.source, lifted.prefix = value, f"{name}."
        else:
            lifted = (
                _lift(value, name) if callable(value) and not isinstance(value, type) else value
            )
        setattr(self, name, lifted)
        return lifted


def _asarray(value, dtype=None, order=None):
    if isinstance(value, Array):
        return _out(gpu.produce(np.asarray, [value.hidden, dtype, order], {}))
    if isinstance(value, (list, tuple)) and any(isinstance(v, Array) for v in value):
        return xp.stack(value)
    array = _upload(value)
    return array if dtype is None else Array(_supported(array.hidden.astype(dtype)))


def _empty(shape, dtype=float):
    """Uninitialized memory holds nan, or the largest integer, so that tests see it."""
    dtype = np.dtype(dtype)
    unwritten = np.nan if dtype.kind == "f" else np.iinfo(dtype).max
    return Array(gpu.kept(np.full(shape, unwritten, dtype)))


def _where(condition, x=None, y=None):
    if x is None and y is None:
        return xp.nonzero(condition)
    if not isinstance(condition, (Array, np.ndarray)):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    return _lift(np.where, "where")(condition, x, y)


def _scatter(target, key, values):
    parts, _ = _key(key)
    where, values = _wrapped(parts, target.shape), _in(values)
    gpu.act(lambda: np.add.at(target.hidden, where, values))


class Generator:
    """The methods that CuPy's generator has; no ``normal``, ``permutation`` or ``choice``."""

    def __init__(self, seed=None):
        own = np.random.default_rng(seed)
        for name in ("integers", "random", "standard_normal", "uniform", "exponential", "gamma"):
            setattr(self, name, _lift(getattr(own, name), name))


xp = Namespace("standin")
xp.ndarray, xp.dtype, xp.cuda, xp.random = Array, np.dtype, gpu, types.ModuleType("random")
xp.asarray, xp.where, xp.empty, xp.RawModule = _asarray, _where, _empty, gpu.RawModule
xp.array = lambda value, dtype=None: _asarray(value, dtype).copy()
xp.asnumpy, xp.random.default_rng = (lambda array: array.get()), Generator
xp.get_default_memory_pool = gpu.MemoryPool
xp.add = _lift(np.add, "add")
xp.add.at = _scatter

LIBRARY = backend.Library(
    xp=xp,
    types=(Array,),
    device_of=lambda array: "cuda:0",
    to_host=lambda array: array.get(),
    from_host=lambda array, device: _upload(array),
    checked=checked,
)


def array(values, dtype=None):
    return Array(np.array(values, dtype))


@contextmanager
def registered():
    """Inside the block the stand-in is a registered library, and ``"cuda"`` its device."""
    tables = (backend._LIBRARIES, backend.MODULES)
    before, known = [dict(table) for table in tables], backend.cupy
    backend.register(LIBRARY)
    backend.cupy = lambda: LIBRARY
    backend.unavailable.cache_clear()
    try:
        yield LIBRARY
    finally:
        backend.cupy = known
        backend.unavailable.cache_clear()
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
