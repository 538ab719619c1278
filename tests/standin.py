"""A stand-in array library: NumPy behind a wall, refusing what CuPy refuses.

No implicit conversion to NumPy, no ndarray or list operands, no 0-d scalars, one name space. It
lets a machine without a GPU walk the path of a second library.
"""

import types
from contextlib import contextmanager

import numpy as np

from minigrad import backend


def _in(value):
    """What NumPy computes with; a NumPy array is refused, as CuPy does."""
    if isinstance(value, Array):
        return value.hidden
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (list, tuple)) and any(isinstance(v, Array) for v in value):
        return type(value)(_in(v) for v in value)
    return value


def _key(key):
    """Index arrays may live on the host."""
    if isinstance(key, tuple):
        return tuple(_key(part) for part in key)
    return key.hidden if isinstance(key, Array) else key


def _out(value):
    if isinstance(value, (tuple, list)):
        parts = map(_out, value)
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    return Array(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


def _lift(function):
    def lifted(*args, **params):
        if any(isinstance(a, list) and not any(isinstance(v, Array) for v in a) for a in args):
            raise TypeError("Unsupported type <class 'list'>")
        out = params.get("out")
        params = {key: _in(value) for key, value in params.items()}
        if out is not None:
            function(*map(_in, args), **params)
            return out
        return _out(function(*map(_in, args), **params))

    return lifted


class Array:
    __array_ufunc__ = None

    def __init__(self, hidden):
        self.hidden = hidden

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    shape = property(lambda self: self.hidden.shape)
    ndim = property(lambda self: self.hidden.ndim)
    size = property(lambda self: self.hidden.size)
    dtype = property(lambda self: self.hidden.dtype)
    item = property(lambda self: self.hidden.item)

    def __getitem__(self, key):
        return _out(self.hidden[_key(key)])

    def __setitem__(self, key, value):
        self.hidden[_key(key)] = _in(value)

    def __bool__(self):
        return bool(self.hidden)

    def __int__(self):
        return int(self.hidden)


def _binary(name):
    method = getattr(np.ndarray, name)

    def operator(self, other):
        if not isinstance(other, (Array, int, float, np.generic)):
            return NotImplemented
        return _out(method(self.hidden, _in(other)))

    return operator


def _in_place(name):
    method = getattr(np.ndarray, name)

    def operator(self, other):
        method(self.hidden, _in(other))
        return self

    return operator


def _unary(name):
    return lambda self: _out(getattr(self.hidden, name)())


def _method(name):
    return lambda self, *args, **params: _lift(getattr(self.hidden, name))(*args, **params)


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "mod", "floordiv"):
    for _prefix in ("__", "__r"):
        setattr(Array, f"{_prefix}{_name}__", _binary(f"{_prefix}{_name}__"))
    setattr(Array, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Array, f"__{_name}__", _binary(f"__{_name}__"))
for _name in ("__neg__", "__pos__", "__abs__"):
    setattr(Array, _name, _unary(_name))
for _name in (
    *("all", "any", "argmax", "argmin", "astype", "copy", "cumsum", "dot", "max", "mean", "min"),
    *("prod", "ravel", "reshape", "squeeze", "sum", "swapaxes", "transpose", "var"),
):
    setattr(Array, _name, _method(_name))


class Namespace(types.ModuleType):
    """NumPy's functions, lifted on first use."""

    source = np

    def __getattr__(self, name):
        value = getattr(self.source, name)
        if isinstance(value, types.ModuleType):
            lifted = Namespace(name)
            lifted.source = value
        else:
            lifted = _lift(value) if callable(value) and not isinstance(value, type) else value
        setattr(self, name, lifted)
        return lifted


xp = Namespace("standin")
xp.dtype = np.dtype
xp.asarray = lambda value, dtype=None: Array(np.asarray(getattr(value, "hidden", value), dtype))
xp.add = _lift(np.add)
xp.add.at = lambda target, key, values: np.add.at(target.hidden, _key(key), _in(values))

LIBRARY = backend.Library(
    xp=xp,
    types=(Array,),
    device_of=lambda array: "standin:0",
    to_host=lambda array: array.hidden,
    from_host=lambda array, device: Array(np.array(array)),
)


def array(values, dtype=None):
    return Array(np.array(values, dtype))


@contextmanager
def registered():
    """The library is known inside the block only."""
    tables = (backend._LIBRARIES, backend.MODULES)
    before = [dict(table) for table in tables]
    backend.register(LIBRARY)
    try:
        yield LIBRARY
    finally:
        for table, known in zip(tables, before, strict=True):
            table.clear()
            table.update(known)
