"""Every kernel against its composite, on shapes that are no multiples of tile sizes."""

import functools
import importlib
import importlib.util
import inspect
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minigrad as mg
from minigrad.errors import BoundsError
from minigrad.fused.declare import Fused
from minigrad.verify.calls import sample_calls

FUSED = {op.composite.name: op for op in mg.REGISTRY.values() if isinstance(op, Fused)}
KINDS = ("portable", "numpy", "numba")
CONV_KINDS = (*KINDS, "tiles")  # numba's kernels for many channels
LAYERS = sorted(name for name in FUSED if "cross_entropy" not in name)
# numba's kernels of these hold polynomials of float32
FLOAT32 = {"binary_cross_entropy_with_logits", "gelu", "softplus"}


def pair_of(name, kind):
    """The kernels of one kind, whatever size they are normally used from."""
    if kind not in ("numba", "tiles"):
        return FUSED[name].pairs.get(kind)
    pytest.importorskip("numba", reason="the `fast` extra is not installed")
    return importlib.import_module("minigrad.fused.compiled").PAIRS.get(name)


def at_any_size(patch, kind):
    """Let kernels accept arrays that are too small for them to pay."""
    for constant in ("normalization.MIN_SIZE", "ring.MIN_VALUES", "ring.MIN_PER_WEIGHT"):
        patch.setattr(f"minigrad.fused.{constant}", 0)
    if kind == "numba":
        for constant in ("MIN_BATCH", "MIN_RUN"):
            patch.setattr(f"minigrad.fused.compiled.windows.{constant}", 0)
        patch.setattr("minigrad.fused.compiled.activation.MIN_RELU", 0)
    if kind == "tiles":
        for constant in ("SHORT_RUN", "MANY_WEIGHTS", "MANY_OUTPUTS"):
            patch.setattr(f"minigrad.fused.compiled.windows.{constant}", 0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On a busy machine, thousands of tiny calls would take minutes to wait for threads."""
    if importlib.util.find_spec("numba") is None:
        yield
        return
    numba = importlib.import_module("numba")
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


PAIRS = [(name, kind) for name in sorted(FUSED) for kind in KINDS]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_kernel_has_the_signature_of_its_composite(name, kind):
    if pair := pair_of(name, kind):
        expected = [*inspect.signature(FUSED[name].composite).parameters.values()]
        got = [*inspect.signature(pair.forward).parameters.values()]
        assert got[0].name == "xp" and got[1:] == expected
        accepts = inspect.signature(pair.accepts)
        accepts.bind(*expected[: FUSED[name].arity], **dict.fromkeys(FUSED[name].keywords, 1))


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_kernel_is_a_proven_pair(name, kind, dtype, monkeypatch):
    pair, op = pair_of(name, kind), FUSED[name]
    if pair is None or (kind == "numba" and dtype == "float64" and name in FLOAT32):
        pytest.skip("another kind serves these")
    at_any_size(monkeypatch, kind)
    chosen = sample_calls(op, dtype, np.random.default_rng(0))
    chosen = [one for one in chosen if pair.accepts(*one.inputs, **one.params)]
    assert chosen
    for sample in chosen:
        real = [sample.inputs[i] for i in sample.real]

        def forward(*real, sample=sample, **params):
            inputs = list(sample.inputs)
            for i, x in zip(sample.real, real, strict=True):
                inputs[i] = x
            return pair.forward(np, *inputs, **params)

        def backward(y_bar, cache, sample=sample):
            bars = pair.backward(np, y_bar, cache)
            bars = [bar() if callable(bar) else bar for bar in bars]
            return tuple(bars[i] for i in sample.real)

        mg.verify.check_backward(forward, backward, real, params=sample.params).raise_if_failed()


def values(name, kind, arrays, **params):
    """y and the cotangents of one kernel for a random y_bar, and those of the composite."""
    pair = pair_of(name, kind)
    y, cache = pair.forward(np, *arrays, **params)
    y_bar = np.random.default_rng(1).normal(size=y.shape).astype(y.dtype)
    bars = [bar() if callable(bar) else bar for bar in pair.backward(np, y_bar, cache)]
    wide = [mg.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    reference = FUSED[name].composite(*wide, **params)
    reference.backward(y_bar.astype(np.float64))
    assert y.dtype == arrays[0].dtype and all(b.dtype == y.dtype for b in bars)
    return y_bar, [y, *bars], [reference.numpy(), *(w.grad.numpy() for w in wide)]


def operands_of(name, fill):
    """The operands and parameters beside an ``x`` of shape (N, 3, 4, 6)."""
    shapes = {"batch_norm": [3, 3], "conv": [(2, 3, 2, 2), 2], "linear": [(3, 6), 3]}
    shapes |= {"group_norm": [3, 3], "layer_norm": [(4, 6), (4, 6)]}
    params = {"max_pool": {"kernel_size": 2}, "group_norm": {"num_groups": 3}}
    return [fill(shape) for shape in shapes.get(name, [])], params.get(name, {})


def batch_last(x):
    """``x`` as convolution leaves it: the batch is the fastest axis in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)


shapes = st.tuples(st.integers(2, 70), st.integers(1, 140)).flatmap(
    lambda nc: st.lists(st.integers(1, 9), max_size=2).map(lambda sizes: (*nc, *sizes))
) | st.tuples(st.integers(2, 2300), st.integers(1, 9))


@pytest.mark.parametrize("kind", KINDS)
@given(
    shape=shapes, offset=st.sampled_from([0.0, 1.9, 100.0]), last=st.booleans(),
    fixed=st.booleans(), dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_batch_norm_is_its_composite(kind, shape, offset, last, fixed, dtype, seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) + offset).astype(dtype)
    gamma, beta, mean = rng.normal(size=(3, shape[1])).astype(dtype)
    var = rng.uniform(0.5, 2, size=shape[1]).astype(dtype)
    params = {"mean": mean, "var": var} if fixed else {}
    x = batch_last(x) if last else x
    y_bar, got, expected = values("batch_norm", kind, [x, gamma, beta], **params)
    axes = tuple(i for i in range(len(shape)) if i != 1)
    wide = x.astype(np.float64)
    mu, sigma2 = (mean, var) if fixed else (wide.mean(axes), wide.var(axes))
    per_channel = (-1,) + (1,) * (len(shape) - 2)
    # Each sum of m terms rounds at most m times, and x - mean carries u |x|: relative to
    # sqrt(var + eps) that is the factor below, on the summands before they cancel.
    inv_std = 1 / np.sqrt(sigma2 + 1e-5)
    m = x.size // shape[1]
    x_hat = np.abs((wide - mu.reshape(per_channel)) * inv_std.reshape(per_channel))
    unit = np.finfo(dtype).eps * (32 + m) * (1 + np.abs(wide).max(axes) * inv_std)
    unit = unit.reshape(per_channel)
    means = functools.partial(np.mean, axis=axes, keepdims=True)
    g, one = np.abs(y_bar), np.abs(gamma).reshape(per_channel) * inv_std.reshape(per_channel)
    scales = [
        np.abs(gamma).reshape(per_channel) * x_hat + np.abs(beta).reshape(per_channel) + 1,
        one * (g + means(g) + (1 + x_hat) * means(g * (1 + x_hat))),
        (g * (1 + x_hat)).sum(axes),
        g.sum(axes),
    ]  # fmt: skip
    for a, b, scale in zip(got, expected, scales, strict=True):
        bound = (unit if a.ndim > 1 else unit.reshape(-1)) * scale
        assert (np.abs(a - b) <= bound).all(), np.max(np.abs(a - b) / bound)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_parts_that_lie_far_apart(kind):
    """The mean of the first chunk is far from that of the others."""
    x = np.random.default_rng(0).normal(size=(64, 3, 16, 32)).astype(np.float32)
    x[:8] += 1e3
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    y, _ = pair_of("batch_norm", kind).forward(np, x, ones, zeros)
    exact = FUSED["batch_norm"].composite(*(a.astype(np.float64) for a in (x, ones, zeros)))
    # x - mean carries u |x|, as the mean does, and y the same relative to a deviation of some 330
    assert np.abs(y - exact).max() <= 8 * np.finfo(np.float32).eps * np.abs(x).max() / x.std()


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.parametrize("shape", [(200, 3, 4, 61), (300, 500)])  # more than NumPy does at once
def test_a_kernel_that_overwrites_y_bar_finds_the_same(name, kind, shape):
    pair = pair_of(name, kind)
    if pair is None or not pair.reuses:
        pytest.skip("it overwrites nothing")
    rng = np.random.default_rng(0)
    x, y_bar = rng.normal(size=(2, *shape)).astype(np.float32)
    parameters = rng.normal(size=(2, shape[1])).astype(np.float32)
    params = {"num_groups": 1} if name == "group_norm" else {}
    _, cache = pair.forward(np, x, *(parameters if name.endswith("norm") else ()), **params)
    expected = pair.backward(np, y_bar, cache)
    got = pair.backward(np, y_bar, cache, own=True)
    assert np.shares_memory(got[0], y_bar) and not np.shares_memory(expected[0], y_bar)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.integers(1, 70), features=st.sampled_from([(5,), (3, 4), (130,), (2, 65)]),
    dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_layer_norm_is_its_composite(kind, rows, features, dtype, seed):
    if pair_of("layer_norm", kind) is None:
        pytest.skip("the portable version serves NumPy, too")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, *features)).astype(dtype)
    gamma, beta = rng.normal(size=(2, *features)).astype(dtype)
    y_bar, got, expected = values("layer_norm", kind, [x, gamma, beta])
    # as for batch norm, with the roles of rows and columns exchanged
    axes = tuple(range(-len(features), 0))
    inv_std = 1 / np.sqrt(x.astype(np.float64).var(axes, keepdims=True) + 1e-5)
    reach = 1 + np.abs(x).max() * inv_std.max()
    unit = np.finfo(dtype).eps * (32 + max(rows, gamma.size)) * reach**2
    size = (1 + np.abs(gamma).max()) * (1 + np.abs(y_bar).max()) * (1 + inv_std.max())
    for a, b, terms in zip(got, expected, (1, 1, rows, rows), strict=True):
        assert np.abs(a - b).max() <= unit * size * terms


@pytest.mark.parametrize("kind", KINDS)
@given(
    n=st.integers(1, 9), groups=st.integers(1, 5), width=st.integers(1, 4),
    sizes=st.sampled_from([(), (2,), (4, 5), (3, 1, 4), (67, 70)]),
    offset=st.sampled_from([0.0, 100.0]), dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_group_norm_is_its_composite(kind, n, groups, width, sizes, offset, dtype, seed):
    if pair_of("group_norm", kind) is None:
        pytest.skip("the portable version serves NumPy, too")
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, groups * width, *sizes)) + offset).astype(dtype)
    gamma, beta = rng.normal(size=(2, groups * width)).astype(dtype)
    y_bar, got, expected = values("group_norm", kind, [x, gamma, beta], num_groups=groups)
    # as for batch norm, with the values of a group in an example for those of a channel
    wide = x.astype(np.float64).reshape(n, groups, -1)
    inv_std = 1 / np.sqrt(wide.var(2, keepdims=True) + 1e-5)
    x_hat = np.abs(wide - wide.mean(2, keepdims=True)) * inv_std
    terms = max(wide.shape[2], x[:, 0].size)
    unit = np.finfo(dtype).eps * (32 + terms) * (1 + np.abs(wide).max() * inv_std.max())
    g = np.abs(y_bar) * np.abs(gamma).reshape(-1, *(1,) * len(sizes))
    g = g.reshape(wide.shape)
    means = functools.partial(np.mean, axis=2, keepdims=True)
    paths = inv_std * (g + means(g) + (1 + x_hat) * means(g * (1 + x_hat)))
    reach, batch = (1 + x_hat).reshape(x.shape), (0, *range(2, x.ndim))
    scales = [
        np.abs(gamma).max() * reach + np.abs(beta).max(), paths.reshape(x.shape),
        (np.abs(y_bar) * reach).sum(batch), np.abs(y_bar).sum(batch),
    ]  # fmt: skip
    for a, b, scale in zip(got, expected, scales, strict=True):
        assert (np.abs(a - b) <= unit * scale).all(), np.max(np.abs(a - b) / (unit * scale))


def within_sums_of_products(name, kind, arrays, dtype, **params):
    """A sum of m products rounds at most m + 1 times, on the sum of their magnitudes."""
    y_bar, got, expected = values(name, kind, arrays, **params)
    wide = [mg.tensor(np.abs(a).astype(np.float64), requires_grad=True) for a in arrays]
    size = FUSED[name].composite(*wide, **params)
    size.backward(np.abs(y_bar).astype(np.float64))
    w = arrays[1]
    outputs = y_bar.size // w.shape[0]
    counts = w[0].size + 1, w.shape[0] * int(np.prod(w.shape[2:])), outputs, outputs
    sizes = size, *(t.grad for t in wide)
    for a, b, m, scale in zip(got, expected, counts, sizes, strict=False):
        assert (np.abs(a - b) <= np.finfo(dtype).eps * (m + 1) * scale.numpy()).all()


@pytest.mark.parametrize("kind", KINDS)
@given(
    shape=st.sampled_from([(), (1,), (7,), (3, 5)]), inputs=st.integers(1, 40),
    outputs=st.integers(1, 11), biased=st.booleans(), transposed=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_linear_is_its_composite(kind, shape, inputs, outputs, biased, transposed, dtype, seed):
    if pair_of("linear", kind) is None:
        pytest.skip("the portable version serves NumPy, too")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*shape, inputs)).astype(dtype)
    w = rng.normal(size=(inputs, outputs) if transposed else (outputs, inputs)).astype(dtype)
    b = [rng.normal(size=outputs).astype(dtype)] if biased else []
    within_sums_of_products("linear", kind, [x, w.T if transposed else w, *b], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_linear_layer_of_many_rows_and_outputs_is_its_composite(dtype, rng):
    shapes = (261, 19), (77, 19), 77
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    within_sums_of_products("linear", "numba", arrays, dtype)


@pytest.mark.parametrize("kind", CONV_KINDS)
@given(
    n=st.integers(1, 9), channels=st.integers(1, 5), outputs=st.integers(1, 6),
    groups=st.integers(1, 3), sizes=st.sampled_from([(9, 8), (7, 12), (30,), (7, 4, 6)]),
    stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    last=st.booleans(), biased=st.booleans(), dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_conv_is_its_composite(
    kind, n, channels, outputs, groups, sizes, stride, padding, dilation, last, biased, dtype, seed
):
    if kind in ("numba", "tiles"):
        sizes = sizes[:2]  # they take no volumes
    rng, pair = np.random.default_rng(seed), pair_of("conv", kind)
    x = rng.normal(size=(n, groups * channels, *sizes)).astype(dtype)
    x = batch_last(x) if last else x
    w = rng.normal(size=(groups * outputs, channels, *(4, 2, 2)[: len(sizes)])).astype(dtype)
    b = [rng.normal(size=len(w)).astype(dtype)] if biased else []
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    with pytest.MonkeyPatch.context() as patch:
        at_any_size(patch, kind)
        assume(pair.accepts(x, w, *b, **params))
        within_sums_of_products("conv", kind, [x, w, *b], dtype, **params)


@pytest.mark.parametrize("kind", CONV_KINDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_of_rows_that_are_taken_in_parts_is_its_composite(kind, stride, monkeypatch, rng):
    at_any_size(monkeypatch, kind)
    arrays = [rng.normal(size=shape) for shape in ((1100, 4, 7), (4, 2, 3), 4)]
    params = {"stride": stride, "padding": 1, "groups": 2}
    assert pair_of("conv", kind).accepts(*arrays, **params)
    within_sums_of_products("conv", kind, arrays, "float64", **params)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_of_many_channels_is_its_composite(dtype, groups, rng):
    shapes = (9, 11 * groups, 7, 6), (70 * groups, 11, 3, 2), 70 * groups
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    params = {"padding": 1, "groups": groups}
    within_sums_of_products("conv", "numba", arrays, dtype, **params)


@pytest.mark.parametrize("kind", KINDS)
@given(
    n=st.integers(1, 9), sizes=st.sampled_from([(9, 8), (7, 12), (30,)]),
    kernel_size=st.sampled_from([1, 2, 3, 17]), stride=st.sampled_from([None, 1, 2, 3]),
    dilation=st.integers(1, 2), ties=st.booleans(), last=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_max_pool_is_its_composite_ties_included(
    kind, n, sizes, kernel_size, stride, dilation, ties, last, dtype, seed
):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3, *sizes))
    x = (x.round() if ties else x).astype(dtype)
    x = batch_last(x) if last else x
    params = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    params["padding"] = kernel_size // 2
    if kernel_size == 17:  # more places than a byte can count
        x, params["dilation"] = np.tile(x, (1, 1, *[3] * len(sizes))), 1
    with pytest.MonkeyPatch.context() as patch:
        at_any_size(patch, kind)
        assume(pair_of("max_pool", kind).accepts(x, **params))
    y_bar, got, expected = values("max_pool", kind, [x], **params)
    np.testing.assert_array_equal(got[0], expected[0])
    windows = kernel_size ** len(sizes)  # so many cotangents may be added up
    bound = np.finfo(dtype).eps * windows * windows * np.abs(y_bar).max()
    assert np.abs(got[1] - expected[1]).max() <= bound


@pytest.mark.parametrize("kind", KINDS)
def test_sigmoid_and_its_derivative_are_accurate_in_both_tails(kind):
    for dtype in ("float32", "float64"):
        x = np.linspace(-104, 104, 20_001).astype(dtype)
        if not pair_of("sigmoid", kind).accepts(x):
            continue
        pair = pair_of("sigmoid", kind)
        y, cache = pair.forward(np, x)
        (x_bar,) = pair.backward(np, np.ones_like(x), cache)
        e = np.exp(-np.abs(x.astype(np.longdouble)))
        small = e / (1 + e)
        info = np.finfo(dtype)
        for got, exact in ((y, np.where(x > 0, 1 - small, small)), (x_bar, small * (1 - small))):
            # exp rounds by 2 units of the argument's and of its own; quotient and product follow
            bound = 8 * info.eps * exact + 2 * info.smallest_subnormal
            assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_and_its_slope_are_accurate_in_both_tails(kind, dtype):
    x = np.linspace(-40, 40, 20_001).astype(dtype)
    pair = pair_of("gelu", kind)
    if pair is None or not pair.accepts(x):
        pytest.skip("another kind serves these")
    y, cache = pair.forward(np, x)
    (x_bar,) = pair.backward(np, np.ones_like(x), cache)
    w, info = x.astype(float), np.finfo(dtype)
    below = np.array([math.erfc(t) for t in -w * 0.5**0.5]) / 2
    density = np.exp(-w * w / 2) / np.sqrt(2 * np.pi)
    # as for ops.gelu: x / sqrt(2) is rounded, and erfc has the condition number x^2, as has the
    # exponential of the rounded x^2; the expected values are rounded in the same way
    unit = (16 + 2 * w * w) * info.eps
    floor = 4 * (1 + np.abs(w)) * info.smallest_subnormal
    assert (np.abs(y - w * below) <= unit * np.abs(w) * below + floor).all()
    assert (
        np.abs(x_bar - below - w * density) <= unit * (below + np.abs(w) * density) + floor
    ).all()


@pytest.mark.parametrize("kind", KINDS)
def test_tanh_keeps_the_sign_of_zero(kind):
    y, _ = pair_of("tanh", kind).forward(np, np.array([-0.0, 0.0] * 20))
    np.testing.assert_array_equal(np.signbit(y), [True, False] * 20)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["elu", "leaky_relu", "relu", "softplus", "tanh"])
def test_an_activation_and_its_slope_are_accurate_in_both_tails(name, dtype, kind):
    x = np.linspace(-80, 80, 20_001).astype(dtype)
    pair, composite = pair_of(name, kind), FUSED[name].composite
    if pair is None or not pair.accepts(x):
        pytest.skip("another kind serves this")
    y, cache = pair.forward(np, x)
    (x_bar,) = pair.backward(np, np.ones_like(x), cache)
    exact, pullback = mg.vjp(composite, x.astype(float))  # tests/ops holds it to 8 eps of float64
    for got, expected in ((y, exact.numpy()), (x_bar, pullback(np.ones(x.size))[0].numpy())):
        info = np.finfo(dtype)
        bound = 16 * info.eps * np.abs(expected) + 4 * info.smallest_subnormal  # 4 e^-2|x|
        assert (np.abs(got - expected) <= bound).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "params"), [("relu", {}), ("leaky_relu", {"alpha": 0.25})])
def test_a_rectifier_agrees_with_its_op_at_every_special_value(name, params, kind):
    pair, op = pair_of(name, kind), FUSED[name].composite
    if pair is None:
        pytest.skip("the portable version serves NumPy, too")
    special = np.array([-np.inf, -1, -1e-45, -0.0, 0, 1e-45, 1, np.inf, np.nan], np.float32)
    x, y_bar = (a.ravel() for a in np.meshgrid(special, special))
    y, cache = pair.forward(np, x, **params)
    (x_bar,) = pair.backward(np, y_bar, cache)
    np.testing.assert_array_equal(y, op(x, **params))
    np.testing.assert_array_equal(x_bar, op.vjp(y_bar, y, x, **params)[0])


def test_an_op_for_large_arrays_is_its_composite_on_small_ones():
    for size, op in ((8191, mg.ops.elu), (8192, mg.fused.elu)):
        x = mg.tensor(np.linspace(-1, 1, size), requires_grad=True)
        assert mg.nn.ELU()(x).node.op is op
    assert mg.fused.elu([-1.0, 2.0], alpha=0.0).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("kind", KINDS)
@given(
    n=st.integers(1, 40), k=st.integers(1, 9), shift=st.sampled_from([0.0, 80.0]),
    dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_cross_entropy_is_its_composite(kind, n, k, shift, dtype, seed):
    pair = pair_of("cross_entropy", kind)
    if pair is None:
        pytest.skip("the portable version serves NumPy, too")
    rng = np.random.default_rng(seed)
    logits, labels = (3 * rng.normal(size=(n, k)) + shift).astype(dtype), rng.integers(0, k, n)
    y, cache = pair.forward(np, logits, labels)
    y_bar = y.dtype.type(rng.normal())
    x_bar, none = pair.backward(np, y_bar, cache)
    x = mg.tensor(logits.astype(np.float64), requires_grad=True)
    reference = mg.ops.cross_entropy(x, labels)
    reference.backward(np.float64(y_bar))
    # x - max rounds by u |x|, which e^x passes on; k terms are added, n rows averaged
    unit = np.finfo(dtype).eps * (8 + k + n) * (1 + np.abs(logits).max())
    assert none is None and y.dtype == x_bar.dtype == logits.dtype
    assert abs(y - reference.item()) <= unit * (1 + np.ptp(logits))
    assert np.abs(x_bar - x.grad.numpy()).max() <= unit * abs(y_bar) / n


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["float32", "bool", "int64"])
@given(
    shape=st.lists(st.integers(1, 90), max_size=2).map(tuple) | st.just((5003,)),
    reach=st.sampled_from([0.1, 3.0, 60.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_cross_entropy_of_two_classes_is_its_composite(kind, targets, shape, reach, seed):
    name = "binary_cross_entropy_with_logits"
    if (pair := pair_of(name, kind)) is None:
        pytest.skip("the portable version serves NumPy, too")
    rng = np.random.default_rng(seed)
    x = rng.normal(0, reach, shape).astype(np.float32).T  # an array in Fortran order
    t = np.array(rng.random(x.shape).round() if targets != "float32" else rng.random(x.shape))
    t = t.astype(targets)
    y, cache = pair.forward(np, x, t)
    x_bar, t_bar = pair.backward(np, np.float32(-1.5), cache)
    wide = [mg.tensor(a.astype(float), requires_grad=True) for a in (x, t)]
    exact = FUSED[name].composite(*wide)
    exact.backward(np.array(-1.5))
    eps, floor = np.finfo(np.float32).eps, np.finfo(np.float32).smallest_subnormal
    w, p = x.astype(float), t.astype(float)
    small = np.exp(-np.abs(w)) / (1 + np.exp(-np.abs(w)))
    wrong = np.abs(p - (w > 0))
    # the exponential, its quotient and 1 - t are rounded before the difference is taken
    unit = 8 * eps * 1.5 / max(x.size, 1)
    assert y.dtype == x_bar.dtype == t_bar().dtype == np.float32
    assert abs(y - exact.item()) <= 8 * eps * exact.item() + floor  # all terms are positive
    assert (np.abs(x_bar - wide[0].grad.numpy()) <= unit * (small + wrong) + floor).all()
    assert (np.abs(t_bar() - wide[1].grad.numpy()) <= unit * np.abs(w)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("target", [0, 1])
def test_cross_entropy_of_two_classes_at_special_logits(kind, value, target):
    if (pair := pair_of("binary_cross_entropy_with_logits", kind)) is None:
        pytest.skip("the portable version serves NumPy, too")
    x = np.array([0.5, value], np.float32)
    y, _ = pair.forward(np, x, np.array([1, target]))
    expected = FUSED["binary_cross_entropy_with_logits"].composite(x, np.array([1, target]))
    np.testing.assert_allclose(y, expected, rtol=8 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("row", [[np.inf, 0.5], [0.5, np.inf], [-np.inf, 0.5], [-np.inf] * 2])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cross_entropy_of_infinite_logits_is_that_of_its_composite(row):
    """Nan where the largest logit of a row is infinite, as in PyTorch: inf - inf is no number."""
    found = []
    for f in (mg.cross_entropy, mg.fused.cross_entropy):
        x = mg.tensor([row], requires_grad=True)
        y = f(x, np.array([0]))
        y.backward(0.5)
        found.append((y.item(), x.grad.numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert np.isnan(found[0][0]) == np.isinf(max(row))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cross_entropy_of_thousands_of_classes_some_of_which_are_ruled_out(kind, dtype):
    pair = pair_of("cross_entropy", kind)
    if pair is None:
        pytest.skip("the portable version serves NumPy, too")
    logits = np.random.default_rng(0).normal(size=(3, 5003)).astype(dtype)
    logits[0, 1::2], logits[1, 5002], logits[2, 7] = -np.inf, np.inf, np.nan
    labels = np.array([5002, 0, 1])
    losses = [pair.forward(np, logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    assert all(np.isnan(y) for y, _ in losses[1:])
    y, cache = losses[0]
    (x_bar, _), w = pair.backward(np, y.dtype.type(1), cache), logits[0].astype(np.float64)
    weights = np.exp(w - w.max()) / np.exp(w - w.max()).sum()
    # 2,502 terms are added, and an exponent of up to 8 rounds
    unit = np.finfo(dtype).eps * (2502 + 8)
    assert abs(y + np.log(weights[5002])) <= unit
    weights[5002] -= 1
    assert not x_bar[0, 1::2].any() and (np.abs(x_bar[0] - weights) <= unit).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.integers(1, 500), n=st.integers(1, 70) | st.sampled_from([130, 4096, 5003]),
    axis=st.sampled_from([-1, 1]), reach=st.sampled_from([0.1, 3.0, 40.0]),
    dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_softmax_and_its_logarithm_are_their_composites(
    name, kind, rows, n, axis, reach, dtype, seed
):
    if pair_of(name, kind) is None:
        pytest.skip("the portable version serves NumPy, too")
    shape = min(rows, 10_000 // n + 1), n
    x = np.random.default_rng(seed).normal(0, reach, shape).astype(dtype)
    y_bar, got, expected = values(name, kind, [x], axis=axis)
    g, w = np.abs(y_bar), x.astype(np.float64)
    p = np.exp(w - w.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    # x - max rounds by half a unit, which shifts the exponential, too; a sum rounds n times
    unit = np.finfo(dtype).eps * (8 + n + np.ptp(w, axis=1, keepdims=True))
    if name == "softmax":
        scales = p, p * (g + (g * p).sum(1, keepdims=True))
    else:
        scales = 1 + np.abs(expected[0]), g + p * g.sum(1, keepdims=True)
    for a, b, scale in zip(got, expected, scales, strict=True):
        assert (np.abs(a - b) <= unit * scale + np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rows_whose_largest_value_is_not_finite_are_nan_and_no_others(name, kind, rng):
    if pair_of(name, kind) is None:
        pytest.skip("the portable version serves NumPy, too")
    x = rng.normal(size=(6, 30)).astype(np.float32)
    x[0], x[1, 3], x[2, 29], x[4, :20] = -np.inf, np.inf, np.nan, -np.inf
    _, got, expected = values(name, kind, [x])
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(a).any(1), [True] * 3 + [False] * 3)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [64, 4100])
def test_a_large_mean_costs_no_more_digits_than_the_input_has(name, kind, rows):
    """One-pass variance in float32 would lose everything at a mean of 1e4."""
    pair = pair_of(name, kind)
    if pair is None:
        pytest.skip("the portable version serves NumPy, too")
    rng = np.random.default_rng(0)
    x = (1e4 + rng.normal(size=(rows, 65))).astype(np.float32)
    ones, zeros = np.ones(65, np.float32), np.zeros(65, np.float32)
    y, _ = pair.forward(np, x, ones, zeros)
    wide = [a.astype(np.float64) for a in (x, ones, zeros)]
    exact = FUSED[name].composite(*wide)
    # the mean itself rounds to 1e4 u, once more for each level of a sum in pairs
    assert np.abs(y - exact).max() <= 1e4 * np.finfo(np.float32).eps * (1 + np.log2(65)) * 2
    if kind != "portable":  # these subtract the mean in more digits, so only y itself rounds, twice
        drift = y.mean(0 if name == "batch_norm" else 1, dtype=np.float64)
        assert np.abs(drift).max() <= np.finfo(np.float32).eps * np.abs(y).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [66, 1100])
@pytest.mark.parametrize("outliers", [1, 4, 5])
def test_a_block_whose_first_rows_lie_far_off_has_an_accurate_variance(kind, rows, outliers):
    """Sums of deviations from the mean of some rows lose digits if that is far from the mean."""
    pair = pair_of("batch_norm", kind)
    x = np.random.default_rng(0).normal(size=(rows, 65)).astype(np.float32)
    x[:outliers] += 1e3
    ones = np.ones(65, np.float32)
    _, cache = pair.forward(np, x, ones, ones)
    exact = x.astype(np.float64).var(axis=0)
    # a sum of 64 terms that are up to 16 times too large, each with a rounding or two
    bound = 16 * (64 + 2) * np.finfo(np.float32).eps
    assert np.abs(np.reshape(cache.var, -1) / exact - 1).max() <= bound


def test_a_pool_names_what_does_not_fit():
    x = mg.tensor(np.ones((1, 1, 1, 4)), name="image")
    with pytest.raises(mg.errors.ShapeError, match=r"(?s)^max_pool: .*\(2, 2\) on images \(1, 4\)"):
        mg.fused.max_pool(x, kernel_size=2)
    with pytest.raises(mg.errors.ShapeError, match=r"(?s)^max_pool: .*ints >= 1.*image \(1, 1, 1"):
        mg.fused.max_pool(x, kernel_size=1, stride=-1)


@pytest.mark.parametrize("kind", [*KINDS, None])
@pytest.mark.parametrize(
    "words", [{"kernel_size": 2, "padding": 3}, {"kernel_size": 2, "padding": 1, "dilation": 70}]
)
def test_a_window_of_padding_alone_is_refused(kind, words):
    with mg.fused.use(*([kind, "portable"] if kind else [])):
        mg.fused.max_pool(np.ones((1, 1, 70, 70)), kernel_size=3, padding=2, stride=3)
        with pytest.raises(mg.errors.ShapeError, match="each contain an element"):
            mg.fused.max_pool(np.ones((1, 1, 69, 69)), **words)


@pytest.mark.parametrize("outer", [(5,), (2, 3)])
@pytest.mark.parametrize(("inputs", "outputs"), [(0, 4), (3, 0)])
def test_a_linear_layer_may_have_no_inputs_or_no_outputs(outer, inputs, outputs):
    x = mg.tensor(np.ones((*outer, inputs)), requires_grad=True)
    w = mg.tensor(np.ones((outputs, inputs)), requires_grad=True)
    y = mg.fused.linear(x, w)
    y.backward(np.ones(y.shape))
    assert y.shape == (*outer, outputs) and not y.numpy().any() and not x.grad.numpy().any()
    assert w.grad.shape == w.shape


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "layer_norm"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [12.3, 255.1, 1.2345e6])
@pytest.mark.parametrize("shape", [(5000, 40), (2, 4096), (16, 3, 64, 64), (300, 2, 5, 5)])
def test_what_is_constant_normalizes_to_zero(name, kind, value, shape):
    """The deviations from a mean that was summed in float32 correct it: the error is no larger than
    if the input had been rounded once."""
    pair = pair_of(name, kind)
    if pair is None:
        pytest.skip("the portable version serves NumPy, too")
    x = np.full(shape, value, np.float32)
    parameters = shape[1:] if name == "layer_norm" else shape[1]
    params = {"num_groups": 1} if name == "group_norm" else {}
    y, cache = pair.forward(np, x, np.ones(parameters, "f4"), np.zeros(parameters, "f4"), **params)
    y_bar = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    bars = pair.backward(np, y_bar, cache)
    rounding = value * np.finfo(np.float32).eps / 2 / np.sqrt(1e-5)
    axes = 0 if name == "layer_norm" else (0, 2, 3)[: len(shape) - 1]
    assert np.abs(y).max() <= rounding
    assert (np.abs(bars[1]) <= rounding * np.abs(y_bar).sum(axes)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(256, 128), (64, 8, 64)])
def test_in_evaluation_the_cotangent_of_x_does_not_depend_on_x(kind, shape):
    rng = np.random.default_rng(0)
    x, y_bar = rng.normal(size=(2, *shape)).astype(np.float32)
    x[3, 2], x[7, 1] = np.inf, np.nan
    x = mg.tensor(x, requires_grad=True)
    gamma, beta, mean, var = rng.uniform(1, 2, size=(4, shape[1])).astype(np.float32)
    with mg.fused.use(kind, "portable"), np.errstate(invalid="ignore"):  # gamma's is nan
        mg.fused.batch_norm(x, gamma, beta, mean=mean, var=var).backward(y_bar)
    expected = y_bar * (gamma / np.sqrt(var + 1e-5)).reshape(-1, *(1,) * (len(shape) - 2))
    # the square root, the quotient and the product are rounded, in the expected values, too
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=8 * np.finfo("f4").eps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(256, 128), (64, 8, 64)])
@pytest.mark.parametrize(("dtype", "mean", "std"), [("f4", 1e20, 1e15), ("f8", 1e160, 1e150)])
def test_batch_norm_of_values_whose_squares_overflow(kind, shape, dtype, mean, std):
    rng = np.random.default_rng(0)
    x_hat = rng.normal(size=shape)
    axes = (0, 2)[: len(shape) - 1]
    x_hat = (x_hat - x_hat.mean(axes, keepdims=True)) / x_hat.std(axes, keepdims=True)
    x = (mean + std * x_hat).astype(dtype)
    ones, zeros = np.ones(shape[1], dtype), np.zeros(shape[1], dtype)
    with mg.fused.use(kind, "portable"):
        y = mg.fused.batch_norm(x, ones, zeros)
    # in deviations: x is rounded, and so is its mean, which is summed in float64
    unit = 4 * np.finfo(dtype).eps + x[:, 0].size * np.finfo("f8").eps
    np.testing.assert_allclose(y, x_hat, rtol=0, atol=unit * mean / std)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, (0,), (2, 3), (0, 3), (3, 0, 2), (-4, -1, 2)], ids=str)
def test_batch_norm_over_any_axes_is_its_composite(kind, axis, rng):
    x = rng.normal(size=(64, 3, 8, 16))
    gamma, beta = rng.normal(size=(2, 3))
    with mg.fused.use(kind, "portable"):
        y = mg.fused.batch_norm(x, gamma, beta, axis=axis)
    # m values are added, and a variance of some of them is at least that of the sample, about 1
    m = x.size // 3
    expected = mg.ops.batch_norm(x, gamma, beta, axis=axis)
    np.testing.assert_allclose(y, expected, rtol=0, atol=np.finfo(float).eps * m)


@pytest.mark.parametrize("axis", [2, (4,), (0, -3)], ids=str)
@pytest.mark.parametrize("n", [3, 8192])
def test_an_axis_that_does_not_exist_is_refused_at_every_size(n, axis):
    x = np.random.default_rng(0).normal(size=(n, 4))
    with pytest.raises(BoundsError, match="batch_norm"):
        mg.fused.batch_norm(x, np.ones(4), np.zeros(4), axis=axis)


def test_gamma_of_no_elements_has_a_gradient_of_zeros():
    gamma = mg.tensor(np.ones(5000), requires_grad=True)
    with np.errstate(invalid="ignore"):  # the mean of none
        y = mg.fused.batch_norm(np.ones((2, 5000, 0)), gamma, np.zeros(5000))
    y.backward(np.zeros(y.shape))
    np.testing.assert_array_equal(gamma.grad.numpy(), 0)


@pytest.mark.parametrize("kind", [*KINDS, None])
@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_has_an_empty_result(name, kind):
    """As after a filter that lets nothing pass. Cross entropy and statistics of no rows are nan."""
    x = mg.tensor(np.zeros((0, 3, 4, 6)), requires_grad=True)
    rest, params = operands_of(name, np.ones)
    if name == "batch_norm":
        params = {"mean": np.zeros(3), "var": np.ones(3)}
    with mg.fused.use(*([kind, "portable"] if kind else [])):
        y = getattr(mg.fused, name)(x, *rest, **params)
        y.backward(np.zeros(y.shape))
    assert y.shape[0] == 0 and y.size == 0 and x.grad.shape == x.shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x[::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
        lambda x: np.swapaxes(np.ascontiguousarray(np.swapaxes(x, 1, 2)), 1, 2),
        functools.partial(np.broadcast_to, shape=(5, 3, 4, 6)),
    ],
)
@pytest.mark.parametrize("name", LAYERS)
def test_any_strides_give_the_numbers_of_a_plain_array(name, kind, arrange):
    pair = pair_of(name, kind)
    if pair is None:
        pytest.skip("the portable version serves NumPy, too")
    rng = np.random.default_rng(0)
    x = arrange(rng.normal(size=(5, 3, 4, 6)).astype(np.float32))
    rest, params = operands_of(name, lambda shape: rng.normal(size=shape).astype(np.float32))
    results = []
    for one in (x, np.array(x, order="C")):
        y, cache = pair.forward(np, one, *rest, **params)
        bars = pair.backward(np, np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape), cache)
        results.append([y, *(bar() if callable(bar) else bar for bar in bars)])
    for a, b in zip(*results, strict=True):
        # the order of summation may follow the memory
        np.testing.assert_allclose(a, b, rtol=0, atol=60 * np.finfo("f").eps * np.abs(b).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_nan_and_inf_come_out_as_of_the_composite(name, kind):
    pair = pair_of(name, kind)
    if pair is None:
        pytest.skip("the portable version serves NumPy, too")
    x = np.random.default_rng(0).normal(size=(40, 3, 4, 6)).astype(np.float32)
    x[0, 0, 0, :3], x[39, 2, 3, 5] = (np.nan, np.inf, -np.inf), np.nan
    rest, params = operands_of(name, functools.partial(np.ones, dtype=np.float32))
    with np.errstate(invalid="ignore"):
        y, cache = pair.forward(np, x, *rest, **params)
        bars = pair.backward(np, np.ones_like(y), cache)
        bars = [bar() if callable(bar) else bar for bar in bars]
        expected = FUSED[name].composite(x, *rest, **params)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    chooses = name in ("max_pool", "relu", "leaky_relu")  # the slope left of 0 is that of nan, too
    assert chooses or name in ("linear", "conv") or np.isnan(bars[0][0, 0, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_place_of_a_window_of_nan_gets_its_cotangent(kind, rng):
    x = rng.normal(size=(3, 2, 4, 6))
    x[0, 0, 1, 1] = np.nan
    pair = pair_of("max_pool", kind)
    y, cache = pair.forward(np, x, kernel_size=2)
    y_bar = rng.normal(size=y.shape)
    (x_bar,) = pair.backward(np, y_bar, cache)
    assert x_bar[0, 0, 0, 0] == y_bar[0, 0, 0, 0]
    _, pullback = mg.vjp(lambda x: mg.ops.max_pool(x, kernel_size=2), x)
    np.testing.assert_array_equal(x_bar, pullback(y_bar)[0])
