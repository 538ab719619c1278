"""Every declared op, none skipped: dtypes, memory layouts, aliasing, plain arrays."""

import numpy as np
import pytest
from differences import rounding
from strategies import CASES, DECLARED, array, every_case, over_cases, tracked

import minigrad as mg

EPS = np.finfo(np.float64).eps


def sweep(call, xs, y_bar):
    """The value and the cotangents of freshly tracked ``xs``."""
    xs = tracked(xs)
    y = call.f(*xs)
    y.backward(y_bar)
    return y, [x.grad for x in xs]


@every_case
def test_float32_operands_give_float32_results_and_cotangents(call):
    xs = call.cast(np.float32)
    y_bar = call.like(call.f(*call.reals))
    y, x_bars = sweep(call, xs, y_bar)
    assert y.dtype == call.params.get("dtype", np.float32)
    reference, references = sweep(call, [x.astype(np.float64) for x in xs], y_bar)
    slope = max((float(np.abs(array(b)).max(initial=0)) for b in references), default=0.0)
    slope = max(1.0, slope, float(np.abs(array(reference)).max(initial=0)))
    allowed = rounding(np.float32, y_bar if y_bar.size else [1.0], slope, xs)
    for got, expected in zip([y, *x_bars], [reference, *references], strict=True):
        assert (np.abs(array(got) - array(expected)) <= allowed).all(), call
    assert all(x_bar.dtype == np.float32 for x_bar in x_bars)
    _, y_dot = mg.jvp(call.f, tuple(xs), tuple(call.like(x).astype(np.float32) for x in xs))
    assert y_dot.dtype == y.dtype


@every_case
def test_float16_operands_give_float16_results_and_cotangents_where_numpy_has_it(call):
    try:
        call.f(*call.cast(np.float16))
    except mg.errors.DTypeError:
        return  # LAPACK has no half precision
    y, x_bars = sweep(call, call.cast(np.float16), call.like(call.f(*call.reals)))
    assert y.dtype == call.params.get("dtype", np.float16)
    assert all(x_bar.dtype == np.float16 for x_bar in x_bars)


def strided(x):
    """The same numbers in every second element of a larger array."""
    big = np.full([2 * n for n in x.shape], np.nan)
    view = big[(..., *(slice(None, None, 2) for _ in x.shape))]
    view[...] = x
    return view


LAYOUTS = {
    "strided": strided,
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "Fortran": lambda x: np.array(x, order="F"),
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@every_case
def test_memory_layout_does_not_change_values_or_cotangents(call):
    y_bar = call.like(call.f(*call.reals))
    y, x_bars = sweep(call, call.reals, y_bar)
    slope = max([1.0, *(float(np.abs(array(a)).max(initial=0)) for a in (y, *x_bars))])
    # only the order of summation may differ
    allowed = rounding(np.float64, y_bar if y_bar.size else [1.0], slope, call.reals)
    for relaid in LAYOUTS.values():
        other, others = sweep(call, [relaid(x) for x in call.reals], relaid(y_bar))
        plain = array(call.f(*(relaid(x) for x in call.reals)))
        results = zip([other, plain, *others], [y, y, *x_bars], strict=True)
        for got, expected in results:
            assert array(got).shape == expected.shape
            assert (np.abs(array(got) - array(expected)) <= allowed).all(), call


@every_case
def test_operands_and_seeds_are_left_bit_identical_and_writeable(call):
    y_bar = call.like(call.f(*call.reals))
    own = [*call.xs, y_bar]
    before = [x.tobytes() for x in own]
    call.f(*call.reals)
    mixed = [mg.tensor(x, requires_grad=True) if i == call.real[-1] else x
             for i, x in enumerate(call.xs)]  # fmt: skip
    y = call.run(*mixed)
    y.backward(y_bar)
    mg.vjp(call.f, *call.reals)[1](y_bar)
    mg.jvp(call.f, tuple(call.reals), tuple(call.reals))
    assert [x.tobytes() for x in own] == before
    assert all(x.flags.writeable for x in own)


@every_case
def test_gradients_share_no_memory_with_seeds_or_operands(call):
    y_bar = call.like(call.f(*call.reals))
    xs = tracked(call.reals)
    y = call.f(*xs)
    y.backward(y_bar)
    _, pullback = mg.vjp(call.f, *call.reals)
    found = [*(x.grad for x in xs), *pullback(y_bar)]
    for x_bar in found:
        for other in (y_bar, *call.xs, *(array(x) for x in xs)):
            assert not np.shares_memory(array(x_bar), other)
        if x_bar.shape:
            assert not x_bar.data.flags.writeable


@every_case
def test_changing_operands_after_the_call_does_not_change_the_gradient(call):
    y_bar = call.like(call.f(*call.reals))
    _, expected = sweep(call, call.reals, y_bar)
    target = call.real[-1]
    mixed = [mg.tensor(x, requires_grad=True) if i == target else x for i, x in enumerate(call.xs)]
    y = call.run(*mixed)
    for i, x in enumerate(call.xs):
        if i != target:
            x[...] = 0 if x.dtype.kind == "f" else x
    y.backward(y_bar)
    np.testing.assert_array_equal(array(mixed[target].grad), array(expected[-1]))


@every_case
def test_plain_arrays_give_plain_arrays_equal_to_the_tensor_result(call):
    plain = call.f(*call.reals)
    boxed = call.f(*(mg.tensor(x) for x in call.reals))
    recorded = call.f(*tracked(call.reals))
    assert not isinstance(plain, mg.Tensor)
    assert isinstance(boxed, mg.Tensor) and not boxed.requires_grad
    assert isinstance(recorded, mg.Tensor) and recorded.requires_grad
    np.testing.assert_array_equal(plain, array(boxed))
    np.testing.assert_array_equal(plain, array(recorded))
    with mg.no_grad():
        assert not call.f(*tracked(call.reals)).requires_grad


class Foreign:
    """An array of a library that minigrad does not know, such as a tensor of PyTorch."""

    def __init__(self, values):
        self.values, self.shape, self.ndim, self.dtype = values, values.shape, values.ndim, "real"

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)

    def __len__(self):
        return len(self.values)


@every_case
def test_arrays_of_a_library_that_is_not_known_are_taken_as_numpy_ones(call):
    expected = call.f(*call.reals)
    for i in range(len(call.reals)):
        xs = [Foreign(x) if j == i else mg.tensor(x) for j, x in enumerate(call.reals)]
        np.testing.assert_array_equal(array(call.f(*xs)), expected)
    plain = call.f(*map(Foreign, call.reals))
    assert type(plain) is type(expected)
    np.testing.assert_array_equal(plain, expected)


NUMPYS = {name for name in DECLARED if hasattr(np, name)} - {"positive"}


@over_cases([(name, i) for name, i in CASES if name in NUMPYS])
def test_ops_with_a_numpy_name_compute_what_numpy_computes(call):
    name, xs, params = call.op.name, call.xs, dict(call.params)
    if name in ("concatenate", "stack"):
        expected = getattr(np, name)(xs, **params)
    elif name == "einsum":
        expected = np.einsum(params["subscripts"], *xs)
    elif name in ("split", "unstack"):
        parts = getattr(np, name)(*xs, **params)
        expected = np.concatenate([part.reshape(-1) for part in parts])
    elif name == "clip":
        expected = np.clip(*xs, params.get("min"), params.get("max"))
    elif name == "astype":
        expected = xs[0].astype(params["dtype"])
    elif name in ("expand_dims", "swapaxes", "reshape", "broadcast_to"):
        expected = getattr(np, name)(*xs, *params.values())
    else:
        expected = getattr(np, name)(*xs, **params)
    got = call.run(*xs)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    # sums of up to 24 terms of at most 3 in another order
    scale = 24 * max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(got, expected, rtol=4 * EPS, atol=4 * EPS * scale)


def _computes_fractions(op):
    """Whether ``op`` computes with fractions; NumPy's functions and products wrap around."""
    op = getattr(op, "composite", op)
    numpys = hasattr(np, op.name) or hasattr(np.linalg, op.name)
    return not (numpys or getattr(op, "linear", "") or op.name in ("conv", "linear"))


REDUCTIONS = [name for name, op in DECLARED.items() if {"axis", "keepdims"} <= set(op.keywords)]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_removes_no_unit_axis_but_its_own(name, rng):
    assert DECLARED[name](rng.uniform(0.5, 1.5, (1, 2, 1)), axis=1).shape == (1, 1)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64"])
@pytest.mark.parametrize("name", [name for name in REDUCTIONS if hasattr(np, name)])
def test_a_reduction_of_integers_is_that_of_numpy(name, dtype, rng):
    x = rng.integers(0, 250, (3, 4)).astype(dtype)
    got, expected = DECLARED[name](x, axis=1), getattr(np, name)(x, axis=1)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=4 * EPS)  # 4 terms of one sign


@over_cases([(name, case) for name, case in CASES if _computes_fractions(DECLARED[name])])
def test_integers_are_computed_with_as_the_numbers_they_are(call):
    for dtype in (np.uint8, np.int8):
        small = [_integers(x, dtype) for x in call.reals]
        with np.errstate(all="ignore"):
            wide = call.f(*(x.astype(np.float64) for x in small))
            narrow = np.asarray(call.f(*small), np.float64)
        # another kernel may round differently: some 64 roundings of numbers up to 255
        rounding = 64 * np.finfo(np.float64).eps * 255
        np.testing.assert_allclose(narrow, wide, rtol=rounding, atol=rounding)


def _integers(x, dtype):
    """Integers of ``dtype`` with the signs of ``x``, if it has signs; 0 and 1 for probabilities."""
    if np.abs(x).max(initial=0) <= 1:
        return np.rint(np.abs(x)).astype(dtype)
    x = np.abs(x) if dtype is np.uint8 else x
    return np.clip(np.rint(60 * x), -128, np.iinfo(dtype).max).astype(dtype)
