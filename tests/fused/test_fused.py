"""Fused ops apart from their numbers: choice of kernels, higher orders, memory, without numba."""

import gc
import importlib.util
import itertools
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import errors, nn
from minigrad.core import sweep
from minigrad.fused import declare, foreach

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="the `fast` extra is not installed"
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def operands(rng, shape=(6, 3), dtype="float64"):
    x = mg.tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)
    gamma, beta = (mg.tensor(p.astype(dtype)) for p in rng.normal(size=(2, shape[1])))
    return x, gamma, beta


def test_without_kernels_a_fused_op_is_its_composite(rng):
    x, gamma, beta = operands(rng)
    assert mg.fused.batch_norm(x, gamma, beta).node.op is mg.fused.batch_norm
    with mg.fused.use():
        y = mg.fused.batch_norm(x, gamma, beta)
    assert y.node.scope.path()[0].name == "batch_norm"
    np.testing.assert_array_equal(y.numpy(), mg.ops.batch_norm(x, gamma, beta).numpy())


def test_a_choice_of_kernels_nests_ends_with_its_block_and_belongs_to_its_thread(rng):
    seen = []
    with mg.fused.use("numpy"):
        with pytest.raises(ZeroDivisionError), mg.fused.use():
            _ = 1 / 0
        assert declare._allowed.get() == ("numpy",)
        other = threading.Thread(target=lambda: seen.append(declare._allowed.get()))
        other.start()
        other.join()
    assert seen == [declare.KINDS] and declare._allowed.get() == declare.KINDS


@pytest.mark.parametrize("name", ["elu", "leaky_relu", "relu", "softplus", "tanh"])
def test_only_large_arrays_leave_a_composite_that_is_as_fast_as_the_kernel(name):
    op, least = getattr(mg.fused, name), 2 * declare.MIN_COMPILED
    for size, expected in ((least - 1, op.composite), (least, op)):
        assert op(mg.tensor(np.ones(size), requires_grad=True)).node.op is expected


def test_unknown_kernels_are_refused_by_name():
    with pytest.raises(errors.UsageError, match=r"no such kernels: \['fortran'\]; there are numba"):
        mg.fused.use("fortran").__enter__()


def third(f, x):
    """The third derivative of a scalar-valued function, contracted with fixed weights."""
    w = np.cos(np.arange(x.size)).reshape(x.shape)
    first = lambda x: mg.sum(mg.grad(f)(x) * w)  # noqa: E731
    second = lambda x: mg.sum(mg.grad(first)(x) * w**2)  # noqa: E731
    return mg.grad(second)(x)


@pytest.mark.parametrize("training", [True, False])
def test_third_derivatives_through_a_batch_norm_layer_are_right(rng, training):
    x, gamma, beta = operands(rng)
    bn = nn.BatchNorm1d(3)
    bn.weight, bn.bias = gamma, beta
    bn(rng.normal(size=(6, 3)) + 1)
    bn.train(training)
    given = {} if training else {"mean": bn.running_mean.array, "var": bn.running_var.array}
    target = rng.normal(size=(6, 3))
    with nn.frozen_statistics():
        got = third(lambda x: mg.sum((bn(x) - target) ** 4), x.numpy())
    composed = lambda x: mg.sum((mg.ops.batch_norm(x, gamma, beta, **given) - target) ** 4)  # noqa: E731
    expected = np.asarray(third(composed, x.numpy()))
    # the values differ by roundings of y only, which three orders amplify by (x / std)^3 at most
    scale = np.abs(expected).max() * (1 + np.abs(x.numpy()).max() / x.numpy().std()) ** 3
    assert np.abs(np.asarray(got) - expected).max() <= 64 * np.finfo(float).eps * scale


def test_a_recorded_sweep_walks_nodes_in_proportion_to_depth(rng, monkeypatch):
    """The composite starts on fresh nodes: a sweep over it ends there, whatever came before."""
    _, gamma, beta = operands(rng, (4, 2))
    walked = []
    real = sweep.ancestors

    def counted(*args):
        walked.append(len(real(*args)))
        return real(*args)

    monkeypatch.setattr(sweep, "ancestors", counted)

    def total(depth):
        def f(x):
            for _ in range(depth):
                x = mg.fused.batch_norm(x, gamma, beta)
            return mg.sum(x**2)

        walked.clear()
        mg.grad(lambda x: mg.sum(mg.grad(f)(x) ** 2))(rng.normal(size=(4, 2)))
        return sum(walked)

    # per layer a walk over one composite, and two over the graph as a whole
    assert total(16) <= 2.1 * total(8)


def test_statistics_given_as_tracked_tensors_are_differentiated(rng):
    x, gamma, beta = operands(rng)
    mean = mg.tensor(rng.normal(size=3), requires_grad=True)
    var = mg.tensor(rng.uniform(1, 2, size=3), requires_grad=True)
    y_bar = rng.normal(size=(6, 3))
    mg.fused.batch_norm(x, gamma, beta, mean=mean, var=var).backward(y_bar)
    expected = -(gamma.numpy() / np.sqrt(var.numpy() + 1e-5)) * y_bar.sum(0)
    np.testing.assert_allclose(mean.grad.numpy(), expected, rtol=1e-13)
    assert np.abs(var.grad.numpy()).min() > 0


def test_statistics_in_a_list_of_tracked_tensors_are_refused_rather_than_taken_as_constants(rng):
    mean = [mg.tensor(0.5, requires_grad=True)] * 3
    for f in (mg.fused.batch_norm, mg.ops.batch_norm):
        with pytest.raises(errors.DTypeError, match=r"minigrad\.stack, which keeps their graph"):
            f(*operands(rng), mean=mean, var=np.ones(3))


def test_running_statistics_are_those_of_the_composite(rng):
    batches = [rng.normal(size=(40, 3, 8, 8)) for _ in range(3)]
    layers = []
    for kinds in ((), declare.KINDS):
        bn = nn.BatchNorm2d(3)
        with mg.fused.use(*kinds):
            for batch in batches:
                bn(mg.tensor(batch, requires_grad=True))
        layers.append(bn)
    for name in ("running_mean", "running_var"):
        a, b = (getattr(bn, name).numpy() for bn in layers)
        assert a.dtype == b.dtype
        # sums of 2,560 values, in any order
        np.testing.assert_allclose(a, b, rtol=2560 * np.finfo(float).eps, atol=1e-15)


def test_operands_of_two_dtypes_promote_as_in_the_composite(rng):
    x, gamma, beta = operands(rng, dtype="float32")
    wide = mg.tensor(gamma.numpy().astype("float64"))
    for g in (gamma, wide):
        a, b = (f(x, g, beta) for f in (mg.fused.batch_norm, mg.ops.batch_norm))
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            a.numpy(), b.numpy(), rtol=0, atol=1e-6 * np.abs(b.numpy()).max()
        )


@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("batch_norm", ((200, 90), (90,), (90,))),
        ("layer_norm", ((200, 90), (90,), (90,))),
        ("conv", ((64, 3, 9, 9), (4, 3, 3, 3), (4,))),
    ],
)
def test_operands_of_two_dtypes_meet_the_kernel_of_the_wider_one(rng, name, shapes, narrow):
    op = getattr(mg.fused, name)
    if name == "layer_norm":  # NumPy has no kernel of it
        pytest.importorskip("numba", reason="the `fast` extra is not installed")
    arrays = [rng.normal(size=shape) for shape in shapes]
    arrays[narrow] = arrays[narrow].astype("float32")
    found = []
    for kept in (arrays, [a.astype("float64") for a in arrays]):
        leaves = [mg.tensor(a, requires_grad=True) for a in kept]
        y = op(*leaves)
        pair, _ = y.node.cache
        assert pair is not op.pairs["portable"]
        y.backward(np.random.default_rng(1).normal(size=y.shape))
        found.append([y, *(leaf.grad for leaf in leaves)])
        assert [leaf.grad.dtype for leaf in leaves] == [a.dtype for a in kept]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy().astype(a.dtype))


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "layer_norm"])
@pytest.mark.parametrize("dtypes", [*itertools.product(["f2", "f4", "f8"], repeat=3)], ids="".join)
def test_a_norm_has_the_dtype_of_its_composite(rng, name, dtypes):
    shapes = (6, 3), (3,), (3,)
    operands = [rng.normal(size=s).astype(d) for s, d in zip(shapes, dtypes, strict=True)]
    params = {"num_groups": 1} if name == "group_norm" else {}
    a, b = (getattr(m, name)(*operands, **params) for m in (mg.fused, mg.ops))
    assert a.dtype == b.dtype == np.result_type(*dtypes)


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_a_norm_of_integers_is_that_of_the_composite(rng, name):
    x = rng.integers(-9, 9, (6, 3))
    a, b = (getattr(m, name)(x, np.float32([2, 3, 4]), np.ones(3)) for m in (mg.fused, mg.ops))
    assert a.dtype == b.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=0, atol=32 * np.finfo(float).eps * np.abs(b).max())


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "layer_norm"])
def test_a_norm_may_have_a_gamma_of_integers(rng, name):
    x, y_bar = rng.normal(size=(2, 64, 64))
    gamma, beta = rng.integers(-9, 9, 64), rng.normal(size=64).astype("float32")
    params = {"num_groups": 1} if name == "group_norm" else {}
    found = []
    for module in (mg.fused, mg.ops):
        tensor = mg.tensor(x, dtype="float32", requires_grad=True)
        y = getattr(module, name)(tensor, gamma, beta, **params)
        y.backward(y_bar)
        found.append((y.numpy(), tensor.grad.numpy()))
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
        bound = 64 * np.finfo(np.float32).eps * np.abs(b).max()  # N * eps * scale
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


@pytest.mark.parametrize("kind", ["portable", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_instance_norm_is_one_batch_norm(rng, kind, dtype):
    n, c, *sizes = shape = 5, 3, 32, 40
    x, y_bar = rng.normal(size=(2, *shape)).astype(dtype)
    gamma, beta = rng.normal(size=(2, c)).astype(dtype)
    rows = x.reshape(1, n * c, *sizes), np.tile(gamma, n), np.tile(beta, n)
    leaves, rows = (
        [mg.tensor(a, requires_grad=True) for a in each] for each in ((x, gamma, beta), rows)
    )
    with mg.fused.use(kind):
        y = mg.fused.group_norm(*leaves, num_groups=c)
        expected = mg.fused.batch_norm(*rows)
    y.backward(y_bar)
    expected.backward(y_bar.reshape(expected.shape))
    np.testing.assert_array_equal(y.numpy(), expected.numpy().reshape(shape))
    np.testing.assert_array_equal(leaves[0].grad.numpy(), rows[0].grad.numpy().reshape(shape))
    for leaf, row in zip(leaves[1:], rows[1:], strict=True):
        np.testing.assert_array_equal(leaf.grad.numpy(), row.grad.numpy().reshape(n, c).sum(0))


@pytest.mark.parametrize("size", [4, 4000])  # of the portable version, and of the compiled one
@pytest.mark.parametrize("given", [np.float32, np.float64, np.ndarray.tolist], ids=repr)
def test_statistics_of_any_kind_promote_as_in_the_composite(rng, size, given):
    x, gamma, beta = operands(rng, (size, 5), "float32")
    mean, var = (p.tolist() if given is np.ndarray.tolist else given(p)
                 for p in rng.uniform(0.5, 1.5, (2, 5)).astype("float32"))  # fmt: skip
    a, b = (f(x, gamma, beta, mean=mean, var=var) for f in (mg.fused.batch_norm, mg.ops.batch_norm))
    assert a.dtype == b.dtype == (np.float32 if given is np.float32 else np.float64)
    # some five roundings of parts of up to |x - mean| + |beta|, whatever the order
    parts = 1 + np.abs(b.numpy()) + 2 * np.abs(beta.numpy())
    assert (np.abs(a.numpy() - b.numpy()) <= 8 * np.finfo(a.dtype).eps * parts).all()


def test_a_cache_is_freed_with_its_graph(rng):
    x, gamma, beta = operands(rng, (64, 128))
    y = mg.fused.batch_norm(x, gamma, beta)
    cache = weakref.ref(y.node.cache[1].mean)
    gc.disable()
    try:
        del y
        assert cache() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("tracked", [False, True])
def test_an_operand_that_is_no_array_is_refused_in_the_name_of_the_op(tracked):
    x = mg.tensor(np.ones((2, 2)), requires_grad=tracked)
    for operand in (["a", "b"], object()):
        with pytest.raises(errors.DTypeError) as found:
            mg.fused.cross_entropy(x, operand)
        with pytest.raises(errors.DTypeError) as expected:
            mg.ops.cross_entropy(x, operand)
        assert str(found.value) == str(expected.value)
        assert str(found.value).startswith("cross_entropy: array dtype")


@pytest.mark.parametrize("kind", declare.KINDS)
def test_batch_norm_of_what_does_not_fit_is_the_error_of_the_composite(rng, kind):
    x, gamma, beta = rng.normal(size=(8192, 3)), np.ones(3), np.zeros(3)
    for operands, statistics in (
        ((x, gamma[:1], beta), {}),
        ((x, gamma, beta[:2]), {}),
        ((x, gamma, beta), {"mean": beta}),
        ((x, gamma, beta), {"mean": beta[:1], "var": gamma}),
        ((x, gamma, beta), {"mean": beta, "var": gamma[:1]}),
    ):
        with pytest.raises(errors.MinigradError) as expected:
            mg.ops.batch_norm(*operands, **statistics)
        with pytest.raises(expected.type) as found, mg.fused.use(kind, "portable"):
            mg.fused.batch_norm(*operands, **statistics)
        assert str(found.value).startswith(str(expected.value))


def test_errors_are_those_of_the_composite():
    with pytest.raises(errors.ShapeError, match="channels"):
        mg.fused.conv(np.zeros((2, 3, 4, 4)), np.zeros((2, 2, 2, 2)))
    with pytest.raises(errors.BoundsError, match="0 to 2"):
        mg.fused.cross_entropy(mg.tensor(np.zeros((2, 3)), requires_grad=True), np.array([0, 3]))


def run(code, **environment):
    command, env = [sys.executable, "-c", code], {**os.environ, **environment}
    got = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert got.returncode == 0, got.stderr
    return got.stdout.strip()


BIG = "np.random.default_rng(0).normal(size=(64, 128)), np.ones(128), np.zeros(128)"


def test_importing_minigrad_and_small_layers_import_no_numba():
    code = """
import sys, numpy as np, minigrad as mg
mg.nn.BatchNorm1d(3)(np.random.default_rng(0).normal(size=(8, 3)))
print("numba" in sys.modules)"""
    assert run(code) == "False"


def test_a_numba_that_cannot_be_imported_costs_a_warning_and_no_result():
    code = f"""
import importlib.abc, sys, warnings, numpy as np, minigrad as mg
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "numba":
            raise ImportError("Numba needs NumPy 1.0 or less")
sys.meta_path.insert(0, Broken())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    y = mg.fused.batch_norm({BIG})
print(y.std().round(3), *[str(w.message) for w in caught])"""
    expected = "1.0 numba cannot be imported, so NumPy is used: Numba needs NumPy 1.0 or less"
    assert run(code) == expected


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_although_threads_do_not_survive_a_fork():
    code = """
import os, warnings, numpy as np, minigrad as mg
warnings.simplefilter("ignore")
xs = np.random.default_rng(0).normal(size=(512, 512)), np.ones(512), np.zeros(512)
before = mg.fused.batch_norm(*xs)
child = os.fork()
if child == 0:
    os._exit(0 if np.allclose(mg.fused.batch_norm(*xs), before, rtol=0, atol=1e-12) else 1)
print(os.waitpid(child, 0)[1])"""
    assert run(code) == "0"


@needs_numba
def test_threads_may_compute_at_the_same_time():
    code = """
import threading, numpy as np, minigrad as mg
xs = np.random.default_rng(0).normal(size=(512, 600)), np.ones(600), np.zeros(600)
expected, results = mg.fused.batch_norm(*xs), []
def work():
    results.extend(mg.fused.batch_norm(*xs) for _ in range(20))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(results), all(np.array_equal(r, expected) for r in results))"""
    # the threading layer that is always there; it kills a process whose threads enter it together
    assert run(code, NUMBA_THREADING_LAYER="workqueue") == "60 True"


def test_a_graph_of_fused_ops_keeps_only_what_their_rules_need(rng):
    """No rule needs the value of the sigmoid or the result of batch norm."""
    x, gamma, beta = operands(rng, (128, 128))
    with mg.fused.use("numpy"):
        h = mg.fused.batch_norm(x, gamma, beta)
        s = mg.fused.sigmoid(h)
        y = mg.sum(mg.fused.sigmoid(s * 2.0) * rng.normal(size=(128, 128)))
    normalized, squashed = weakref.ref(h.array), weakref.ref(s.array)
    del h, s
    assert normalized() is None and squashed() is not None  # a product keeps its operands
    y.backward()
    assert y.node.parents[0].parents[0].needs_rerun


@pytest.mark.parametrize("name", ["lenet_bn", "mlp_bn"])
def test_a_second_backward_adds_exactly_the_same(rng, name):
    """The first sweep drops the caches; the second computes them again, bit for bit."""
    net = getattr(nn.models, name)(rng=0)
    x, labels = rng.normal(size=(4, 1, 28, 28)), np.array([0, 3, 1, 1])
    loss = mg.fused.cross_entropy(net(mg.tensor(x)), labels)
    value = loss.numpy()
    loss.backward()
    first = [p.grad.numpy() for p in net.parameters()]
    loss.backward()
    for p, once in zip(net.parameters(), first, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), once + once)
    np.testing.assert_array_equal(loss.node.value, value)


def test_values_that_were_not_kept_are_found_anew_without_recursion(rng):
    x, gamma, beta = operands(rng, (4, 2))
    y = x
    for _ in range(3000):
        y = mg.fused.batch_norm(y, gamma, beta)
    y_bar = rng.normal(size=(4, 2))
    y.backward(y_bar)
    middle = y.node.parents[0]
    np.testing.assert_array_equal(y.node.value, y.numpy())
    composed = mg.ops.batch_norm(mg.tensor(middle.inputs[0]), gamma, beta).numpy()
    np.testing.assert_allclose(middle.value, composed, rtol=0, atol=1e-14 * np.abs(composed).max())
    first = x.grad.numpy()
    y.backward(y_bar)
    np.testing.assert_array_equal(x.grad.numpy(), 2 * first)


def test_threads_may_sweep_the_same_fused_nodes(rng):
    """Each thread drops caches that the others are about to read, fill again or drop."""
    x, gamma, beta = operands(rng, (4, 3))
    x_bars, failed = [], []

    def work(y):
        try:
            for _ in range(100):
                x_bars.append(sweep.backward_sweep(y.node, y.array)[x.node])
        except Exception as error:
            failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        h = mg.fused.layer_norm(x, gamma, beta)
        y = mg.fused.layer_norm(mg.fused.sigmoid(h), gamma, beta)
        threads = [threading.Thread(target=work, args=(y,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed and len(x_bars) == 400
    assert all(np.array_equal(x_bar, x_bars[0]) for x_bar in x_bars)


def test_a_drawing_shows_the_same_before_and_after_backward(rng):
    x, gamma, beta = operands(rng)
    y = mg.sum(mg.fused.batch_norm(x, gamma, beta) * rng.normal(size=(6, 3)))
    before = mg.viz.to_dot(y, grads=False)
    y.backward()
    assert mg.viz.to_dot(y, grads=False) == before


def test_a_missing_attribute_of_a_node_is_named(rng):
    x, gamma, beta = operands(rng)
    y = mg.fused.batch_norm(x, gamma, beta)
    with pytest.raises(AttributeError, match="a node has no 'colour'"):
        _ = y.node.colour
    assert not hasattr(x.node, "cache") and hasattr(y.node, "cache")


def test_a_cotangent_that_somebody_holds_is_not_overwritten(rng):
    """Kernels overwrite cotangents that only the sweep holds, not seeds or retained gradients."""
    x, gamma, beta = operands(rng, (64, 128))
    for kind in ("numpy", "portable", *(["numba"] if declare.has_numba() else [])):
        with mg.fused.use(kind):
            h = mg.fused.batch_norm(x, gamma, beta)
            middle = mg.fused.sigmoid(h).retain_grad()
            y = mg.fused.sigmoid(mg.fused.sigmoid(middle))
            seed = rng.normal(size=(64, 128))
            given = mg.tensor(seed)
            x.grad = None
            y.backward(given)
        with mg.fused.use():
            copy = mg.tensor(middle.numpy(), requires_grad=True)
            mg.sigmoid(mg.sigmoid(copy)).backward(seed)
        np.testing.assert_array_equal(given.numpy(), seed)
        scale = np.abs(copy.grad.numpy()).max()
        eps = np.finfo(float).eps
        np.testing.assert_allclose(middle.grad.numpy(), copy.grad.numpy(), atol=64 * eps * scale)
        with mg.fused.use():
            again = mg.tensor(x.numpy(), requires_grad=True)
            mg.sigmoid(mg.ops.batch_norm(again, gamma, beta)).backward(copy.grad)
        scale = np.abs(again.grad.numpy()).max() * 64
        np.testing.assert_allclose(x.grad.numpy(), again.grad.numpy(), atol=64 * eps * scale)


def test_a_value_used_twice_gets_the_sum_of_both_cotangents(rng):
    x = mg.tensor(rng.normal(size=(64, 128)), requires_grad=True)
    h = mg.fused.sigmoid(x)
    a, b = rng.normal(size=(2, 64, 128))
    y = mg.sum(mg.fused.sigmoid(h) * a) + mg.sum(mg.fused.sigmoid(h) * b)
    y.backward()
    with mg.fused.use():
        again = mg.tensor(x.numpy(), requires_grad=True)
        mg.sum(mg.sigmoid(mg.sigmoid(again)) * (a + b)).backward()
    np.testing.assert_allclose(x.grad.numpy(), again.grad.numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("module", [mg.ops, mg.fused])
@pytest.mark.parametrize(("name", "shape"), [("linear", (2, 3)), ("conv", (2, 3, 1))])
def test_an_operand_that_may_be_left_out_may_be_none(rng, module, name, shape):
    x, w = (mg.tensor(rng.normal(size=(s, *shape[1:])), requires_grad=True) for s in (5, 2))
    f = getattr(module, name)
    expected = f(x, w)
    for y in (f(x, w, None), f(x, w, b=None), f(x, b=None, w=w), f(x.data, w.data, None)):
        np.testing.assert_array_equal(np.asarray(y), expected.numpy())
    assert f(x, w, None).node.op is expected.node.op
    with pytest.raises(errors.DTypeError, match=f"{name}: array dtype"):
        f(x, None)
    with pytest.raises(errors.DTypeError, match=rf"{name}\(x, w, b=None.*\): missing w"):
        f(x)


def test_a_named_operand_is_kept_and_differentiated_as_any_other(rng):
    x = mg.tensor(rng.normal(size=(2, 3)), requires_grad=True)
    labels = np.array([0, 2])
    loss = mg.fused.cross_entropy(x, labels=labels)
    loss.backward()
    once = x.grad.numpy()
    labels[:] = 1  # the caller's own again
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), once + once)
    w, b = (mg.tensor(rng.normal(size=s), requires_grad=True) for s in ((2, 3), (2,)))
    y = mg.fused.linear(x, w, b=b)
    assert y.node.op is mg.fused.linear and y.node.parents[2] is b.node


def test_a_call_with_a_box_of_another_kind_leaves_nothing_for_later_sweeps(rng):
    class Local(mg.Tensor):
        def __init__(self, *args):
            made.append(self)
            super().__init__(*args)

    made = []
    x, gamma, beta = operands(rng)
    y = mg.fused.batch_norm(x, gamma, beta)
    mg.fused.batch_norm(Local(x.array), gamma, beta)
    made.clear()
    y_dot = sweep.forward_sweep(y.node, {x.node: np.ones(x.shape)})
    bound = 16 * 6 * np.finfo(float).eps * np.abs(y.data).max()  # a shift of x changes no y
    assert np.abs(y_dot).max() <= bound and not made


def test_no_arrays_are_finite_and_ask_for_no_gpu():
    assert foreach.all_finite([]) and not foreach.on_gpu([]) and foreach.axpby([]) == []


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize(
    ("forward", "got"),
    [
        (lambda x: x**2, "(2, 3)"),  # two rows, which are no (y, cache)
        (lambda x: (x**2, x, x), "(2, 3) float64, "),
        (lambda x: [x**2, x], "list"),
        (lambda x: None, "None"),
        (lambda x: (None, x), "(None, "),
        (lambda x: (float(x.sum()), x), "float64)"),
    ],
)
def test_a_kernel_that_returns_no_value_and_cache_is_named(rng, forward, got):
    @declare.fused(mg.REGISTRY["square"], pullback="none")
    def kernel(xp, x):
        return forward(x)

    x = rng.normal(size=(2, 3))
    with pytest.raises(errors.RuleError, match=r"kernel: the kernel\n.*@kernel.defbackward"):
        kernel(x)
    kernel.defbackward(lambda xp, y_bar, x: (2 * x * y_bar,))
    for operand in (x, mg.tensor(x, requires_grad=True)):
        with pytest.raises(errors.RuleError, match=r"kernel: .*result\n.*y, cache") as caught:
            kernel(operand)
        assert got in str(caught.value)


def test_operands_may_be_named(rng):
    x, w, b = (mg.tensor(rng.normal(size=s), requires_grad=True) for s in ((5, 3), (2, 3), (2,)))
    y = mg.ops.linear(x, w=w, b=b)
    assert mg.fused.linear(x, b=b, w=w).shape == y.shape
    np.testing.assert_array_equal(y.numpy(), mg.ops.linear(x, w, b).numpy())
    with pytest.raises(TypeError, match=r"linear\(x, w, b=None\): missing w"):
        mg.ops.linear(x)
    with pytest.raises(errors.ShapeError, match=r"linear: b\n.*\(2,\), one per output"):
        mg.fused.linear(x, w, np.zeros(3))
    with pytest.raises(errors.ShapeError, match="conv: b"):
        mg.ops.conv(np.zeros((1, 1, 3)), np.zeros((2, 1, 2)), np.zeros(3))
