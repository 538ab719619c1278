"""Array libraries: operands decide, mixing is refused, a second library takes the same path."""

import operator
import sys
import types

import accelerator
import numpy as np
import pytest
from differences import rounding
from strategies import CASES, DECLARED, every_case, over_cases

import minigrad as mg
from minigrad import backend, errors


def test_namespace_follows_the_operands(gpu):
    x = gpu.array([1.0])
    assert backend.namespace(np.ones(2), 2.0) is np
    assert backend.namespace(1, 2.0) is np
    assert backend.namespace(np.float32(1.0), True) is np
    assert backend.namespace(x, 2.0) is gpu.xp
    assert backend.namespace(2.0, x) is gpu.xp


def test_subclasses_of_arrays_are_operands(tmp_path):
    mapped = np.memmap(tmp_path / "a", dtype=np.float64, shape=(2,), mode="w+")
    mapped[:] = [1.0, 2.0]
    x = mg.tensor([3.0, 4.0], requires_grad=True)
    y = mapped * x
    y.backward([1.0, 10.0])
    np.testing.assert_array_equal(x.grad.data, [1.0, 20.0])
    assert type(y.data) is np.ndarray


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("name", ["add", "matmul", "maximum", "where", "logaddexp", "divide"])
def test_mixed_libraries_are_named_with_op_operands_and_remedy(name, left, gpu):
    a = mg.tensor(np.ones((2, 2)), requires_grad=True, name="weights")
    b = mg.tensor(gpu.array(np.ones((2, 2))), name="images")
    operands = (a, b) if left else (b, a)
    operands = (np.ones((2, 2)) > 0, *operands) if name == "where" else operands
    with pytest.raises(errors.LibraryMismatchError) as caught:
        getattr(mg.ops, name)(*operands)
    text = str(caught.value)
    for word in (name, "weights", "images", "(2, 2)", ".to("):
        assert word in text, text
    assert isinstance(caught.value, TypeError)


def test_a_number_of_numpy_beside_an_array_of_a_gpu_is_told_the_remedy(gpu):
    x = mg.tensor(gpu.array([1.0, 2.0]))
    for call in (lambda: x * np.sqrt(2), lambda: np.float32(2) + x, lambda: x < np.int64(2)):
        with pytest.raises(errors.LibraryMismatchError, match=r"of one array library(.|\n)*\.item"):
            call()
    with pytest.raises(errors.LibraryMismatchError, match="of one array library") as caught:
        operator.ge(x, np.ones(2))
    assert "item" not in str(caught.value)
    assert gpu.host(x * np.sqrt(4).item()).tolist() == [2, 4]


@pytest.mark.parametrize("name", ["maximum", "less"])
def test_operands_on_two_gpus_are_refused_with_a_remedy(name, gpu, monkeypatch):
    """If the current GPU cannot reach an array, CuPy raises a ValueError."""
    if gpu.is_real:
        pytest.skip("needs two GPUs")

    def refuse(*arrays):
        raise ValueError(
            "The device where the array resides (1) is different from the current device (0). "
            "Peer access is unavailable between these devices."
        )

    monkeypatch.setitem(vars(gpu.xp), name, refuse)
    x = mg.tensor([1.0], device="cuda")
    with pytest.raises(errors.LibraryMismatchError) as caught:
        mg.ops.maximum(x, x) if name == "maximum" else x < x
    text = str(caught.value)
    for word in (name, "(1)", "(0)", "current GPU", ".to('cuda:"):
        assert word in text, text
    assert len(text.splitlines()) == 4


def test_raw_arrays_of_two_libraries_are_refused(gpu):
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    for call in (
        lambda: x * gpu.array([1.0, 2.0]),
        lambda: gpu.array([1.0, 2.0]) * x,
        lambda: mg.add(np.ones(2), gpu.array([1.0, 2.0])),
        lambda: mg.concatenate([x, gpu.array([1.0])]),
        lambda: mg.mse_loss(x, gpu.array([1.0, 2.0])),
        lambda: x < gpu.array([1.0, 2.0]),
    ):
        with pytest.raises(errors.MinigradError):
            call()


@pytest.mark.parametrize("here", ["cpu", "cuda"])
def test_a_seed_or_tangent_of_another_library_is_refused_with_a_remedy(here, gpu):
    x = mg.tensor([1.0, 2.0], requires_grad=True, device=here)
    other = np.ones(2) if here == "cuda" else gpu.array(np.ones(2))
    for call in (
        (x * 2).backward,
        mg.vjp(mg.tanh, x)[1],
        lambda dot: mg.jvp(mg.tanh, x, dot),
        lambda dot: mg.hvp(lambda x: mg.sum(x**3), x, dot),
    ):
        with pytest.raises(errors.LibraryMismatchError, match=rf"mg\.tensor\(a, device='{here}"):
            call(other)


def test_an_unregistered_array_type_is_refused_on_either_side():
    x = mg.tensor([1.0, 2.0], requires_grad=True, name="weights")
    alien = type("Alien", (), {"shape": (2,), "dtype": np.dtype("f8"), "__add__": list})()
    for call in (lambda: mg.add(x, alien), lambda: mg.add(alien, x), lambda: mg.exp(alien)):
        with pytest.raises(errors.DTypeError):
            call()


# to_device is an op about libraries and has tests of its own
HOST_ONLY = {"to_device"}


@over_cases([(name, i) for name, i in CASES if name not in HOST_ONLY])
def test_every_op_computes_the_same_on_a_gpu(call):
    y_bar = call.like(call.f(*call.reals))
    expected, pullback = mg.vjp(call.f, *call.reals)
    x_bars = [x_bar.data for x_bar in pullback(y_bar)]
    with accelerator.chosen() as gpu:
        call.xs = [x if i in call.real else gpu.array(x) for i, x in enumerate(call.xs)]
        call.params = {
            k: gpu.array(v) if isinstance(v, np.ndarray) else v for k, v in call.params.items()
        }
        leaves = [mg.tensor(gpu.array(x), requires_grad=True) for x in call.reals]
        y = call.f(*leaves)
        assert y.device == gpu.device
        y.backward(gpu.array(y_bar))
        found = [y.numpy(), *(leaf.grad.numpy() for leaf in leaves)]
        assert all(leaf.grad.device == gpu.device for leaf in leaves)
    slope = max(1.0, *(float(np.abs(b).max(initial=0)) for b in (expected.data, *x_bars)))
    weights = y_bar if y_bar.size else [1.0]
    # the stand-in makes the same calls; a GPU may sum in another order
    eps = rounding(np.float64, weights, slope, call.reals) if gpu.is_real else 1e-14 * slope
    for got, wanted in zip(found, [expected.data, *x_bars], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=eps)


def test_tensors_of_another_library_behave(gpu):
    x = mg.tensor(gpu.array([1.0, 2.0]), requires_grad=True, name="x")
    assert x.device == "cuda:0"
    assert "cuda:0" in repr(x) and "1." in repr(x)
    np.testing.assert_array_equal(x.numpy(), [1.0, 2.0])
    assert x.to("cpu").device == "cpu" and (x * x)[0].item() == 1.0
    with pytest.raises(errors.DTypeError, match="numpy"):
        np.asarray(x)
    assert (x > 1.5).tolist() == [False, True]
    x[0] = 5.0
    assert x.tolist() == [5.0, 2.0]


def test_host_values_are_assigned_to_elements_on_a_gpu(gpu):
    x = mg.tensor(gpu.array([1.0, 2.0, 3.0]))
    x[:2] = [4.0, 5.0]
    x[[2]] = np.array([6.0])
    assert x.tolist() == [4.0, 5.0, 6.0]
    scalar = mg.tensor(gpu.array(1.0))
    scalar[...] = 7
    assert scalar.item() == 7.0 and scalar.device == "cuda:0"


def test_integers_are_inverted_on_a_gpu(gpu):
    for dtype in ("uint8", "int64"):
        host = np.array([0, 7], dtype)
        found = ~mg.tensor(gpu.array(host))
        assert found.dtype == dtype and found.tolist() == (~host).tolist()


@pytest.mark.parametrize(
    ("key", "inside"),
    [
        ([0, 2], [0, 1]),
        (np.array([-3]), np.array([-2])),
        ((slice(None), [0, 3]), (slice(None), [0, -3])),
        ((..., None, [[-4]]), (..., None, [[-1]])),
        ((None, [True, False], [3]), (None, [True, False], [2])),
    ],
    ids=str,
)
def test_host_indices_outside_of_an_array_on_a_gpu_are_refused(key, inside, gpu):
    """CuPy would wrap them around silently."""
    host = np.arange(6.0).reshape(2, 3)
    x = mg.tensor(gpu.array(host))
    assert x[inside].tolist() == host[inside].tolist()
    y_bar = mg.tensor(gpu.array(host[inside]))
    for call in (
        lambda: x[key],
        lambda: x.__setitem__(key, 0.0),
        lambda: mg.ops.scatter_add(y_bar, key=key, shape=x.shape),
    ):
        with pytest.raises(errors.BoundsError, match="out of bounds for axis"):
            call()
    assert x.tolist() == host.tolist()


@pytest.mark.parametrize("row", [(), (3,), (5, 80)], ids=str)  # rows of 400 are added with +=
@pytest.mark.parametrize(
    "key",
    [
        [2, 0, -1, 2], np.int64(1), np.array([[1, 1], [-4, 3]]), np.zeros(0, int),
        np.array([True, False, True, True]), (np.array([0, 0, 3]),), (..., [0, 0]),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scattered_values_add_up_as_numpy_adds_them(dtype, key, row):
    rng = np.random.default_rng(0)
    target = np.zeros((4, *row), dtype)
    values = rng.normal(size=target[key].shape).astype(dtype)
    got = mg.ops.scatter_add(values, key=key, shape=target.shape)
    np.add.at(target, key, values)
    assert got.dtype == target.dtype
    np.testing.assert_array_equal(got, target)
    outside = (*key[:-1], [99]) if isinstance(key, tuple) else [99]
    with pytest.raises(errors.BoundsError):
        mg.ops.scatter_add(target[:1], key=outside, shape=target.shape)


@pytest.mark.parametrize(
    "index",
    [
        [2, 0, -1, 2], np.array([1, 1, 1]), np.zeros(0, int), np.array([[2, 0], [2, 3]]),
        [True, False, True, True],
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("shape", [(2, 4, 5, 80), (20, 30, 4), (3, 5, 4, 70)], ids=str)
@pytest.mark.parametrize("first", [slice(None), slice(1, None)], ids=str)
def test_values_scattered_along_any_axis_add_up_as_numpy_adds_them(first, shape, index):
    axis = shape.index(4)
    key = (*(first,) * axis, index)
    target = np.zeros(shape, np.float32)
    values = np.random.default_rng(0).normal(size=target[key].shape).astype(np.float32)
    got = mg.ops.scatter_add(values, key=key, shape=shape)
    np.add.at(target, key, values)
    np.testing.assert_array_equal(got, target)
    with pytest.raises(errors.BoundsError):
        mg.ops.scatter_add(target, key=(*key[:-1], [0, 1, 2, 4]), shape=shape)
    with pytest.raises(errors.ShapeError):
        mg.ops.scatter_add(np.ones((7, *values.shape)), key=key, shape=shape)


def test_scattered_values_of_another_shape_are_refused_though_they_are_as_many():
    with pytest.raises(errors.ShapeError):
        mg.ops.scatter_add(np.ones((2, 3)), key=[0, 1, 2], shape=(3, 2))


@pytest.mark.parametrize(("name", "matrix"), [("inv", np.ones((2, 2))), ("cholesky", -np.eye(2))])
def test_a_decomposition_that_fails_on_a_gpu_is_an_error_as_on_the_cpu(name, matrix, gpu):
    """By default CuPy does not report it."""
    for place in ("cpu", gpu.device):
        with pytest.raises(errors.ShapeError, match=name):
            getattr(mg.ops, name)(mg.tensor(matrix, device=place))


def test_moving_to_the_host_is_recorded(gpu):
    x = mg.tensor(gpu.array([1.0, 2.0]), requires_grad=True)
    y = x.to("cpu") * np.array([3.0, 4.0])
    assert y.requires_grad and y.device == "cpu" and y.tolist() == [3.0, 8.0]


def test_raw_operands_of_another_library_are_copied(gpu):
    x = mg.tensor(gpu.array([1.0, 2.0]), requires_grad=True)
    raw = gpu.array([3.0, 4.0])
    y = x * raw
    raw[0] = -1.0
    y.backward(gpu.array([1.0, 2.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [3.0, 8.0])


def test_a_missing_gpu_is_one_clear_error_with_its_reason():
    reason = backend.unavailable("cuda")
    if not reason:
        pytest.skip("a GPU is here")
    assert "\n" not in reason
    with pytest.raises(errors.DeviceError) as caught:
        mg.tensor([1.0], device="cuda")
    assert isinstance(caught.value, RuntimeError)
    with pytest.raises(errors.DeviceError):
        mg.tensor([1.0]).to("cuda:1")
    assert backend.unavailable("cpu") == ""


class CUDARuntimeError(RuntimeError):
    """Stands for ``cupy.cuda.runtime.CUDARuntimeError``."""


@pytest.fixture
def fake_cupy(monkeypatch):
    """A module ``cupy`` with little in it; tests add the functions they need."""
    cupy = types.ModuleType("cupy")
    cupy.ndarray, cupy.asnumpy = type("ndarray", (), {"device": None}), None
    runtime = types.SimpleNamespace(CUDARuntimeError=CUDARuntimeError)
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for cached in (backend.cupy, backend.unavailable):
        cached.cache_clear()
    yield cupy
    for table in (backend._LIBRARIES, backend.MODULES):
        table.pop(cupy.ndarray, None)
    for cached in (backend.cupy, backend.unavailable):
        cached.cache_clear()


@pytest.mark.parametrize("error", [
    CUDARuntimeError("cudaErrorInsufficientDriver: no driver"),
    OverflowError("Python int too large to convert to C int"),  # of Device(99999999999)
])  # fmt: skip
def test_a_gpu_that_cupy_cannot_use_is_one_clear_error(error, fake_cupy):
    """CuPy can be imported on a machine without a driver; its first allocation fails."""

    def fails(_):
        raise error

    fake_cupy.asarray = fake_cupy.cuda.Device = fails
    for device in ("cuda", "cuda:1"):
        assert backend.unavailable(device) == f"{device}: CuPy cannot use it: {error}"
        with pytest.raises(errors.DeviceError, match=str(error)) as caught:
            mg.tensor([1.0]).to(device)
        assert isinstance(caught.value, RuntimeError)


def test_a_gpu_that_is_named_by_its_number_becomes_the_current_one(fake_cupy):
    """CuPy computes on the current GPU, and allocates results there."""
    current = [3]

    class Device:
        def __init__(self, number):
            self.number = number

        def use(self):
            current.append(self.number)

    def asarray(_):
        array = fake_cupy.ndarray()
        array.device = types.SimpleNamespace(id=current[-1])
        return array

    fake_cupy.cuda.Device, fake_cupy.asarray = Device, asarray
    for device, found in (("cuda", "cuda:3"), ("cuda:1", "cuda:1"), ("cuda", "cuda:1")):
        array = backend.to_device(np.ones(2), device)
        assert backend.device_of(array) == found
    assert backend.to_device(array, "cuda") is array and current == [3, 1]


def test_asking_for_cpu_arrays_imports_no_gpu_library(monkeypatch):
    monkeypatch.setattr(backend, "cupy", lambda: pytest.fail("CuPy was asked for"))
    assert mg.tensor([1.0]).to("cpu").device == "cpu"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("size", [3, 20_000])
def test_what_is_not_finite_is_counted_without_products_that_blas_has_not(dtype, size, monkeypatch):
    product = np.vecdot
    asked = []
    monkeypatch.setattr(np, "vecdot", lambda a, b: asked.append(a.dtype) or product(a, b))
    array = np.full(size, 3.0, dtype)
    assert backend.count_not_finite(array) == 0
    array[[0, 2]] = np.nan, np.inf
    assert backend.count_not_finite(array) == 2
    assert {*asked} <= {np.dtype("float32"), np.dtype("float64")}


def test_frozen_makes_a_private_copy_of_what_can_change():
    a = np.array([1.0, 2.0])
    b = backend.frozen(a)
    assert not np.shares_memory(a, b) and not b.flags.writeable and a.flags.writeable
    key = (slice(None), [0, 1], a)
    frozen = backend.frozen(key)
    assert frozen[1] is not key[1] and not np.shares_memory(frozen[2], a)
    for value in (1, 2.5, "ij->i", None, slice(1), np.dtype("f4"), np.float32, ...):
        assert backend.frozen(value) is value or backend.frozen(value) == value


def test_foreign_byte_order_ends_at_the_tensor():
    x = mg.tensor(np.array([1.0, 2.0], ">f8"), requires_grad=True)
    (x * x).sum().backward()
    assert x.dtype == x.grad.dtype == np.float64 and x.grad.tolist() == [2.0, 4.0]
    assert mg.tensor([1, 2], dtype=">i4").astype(">f4").dtype == np.float32


def test_registry_has_ops_to_walk():
    assert len(DECLARED) >= 60 and len(CASES) >= 100
    assert callable(every_case)
