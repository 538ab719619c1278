"""Reference counting alone frees a graph; the cycle collector is off in every test here."""

import weakref

import numpy as np
import pytest

import minigrad as mg

pytestmark = pytest.mark.usefixtures("no_gc")


class Probe:
    """Weak references to arrays that only a graph keeps alive."""

    def __init__(self):
        self.refs = []

    def __call__(self, y):
        """Watch the array of ``y``, an intermediate value, and hand ``y`` on."""
        array = y.array
        if isinstance(array, np.ndarray):
            self.refs.append(weakref.ref(array))
        return y

    @property
    def alive(self):
        assert self.refs, "nothing was watched"
        return sum(ref() is not None for ref in self.refs)


@pytest.fixture
def probe():
    return Probe()


X = np.linspace(0.2, 1.0, 5)
V = np.linspace(-1.0, 2.0, 5)


def test_graph_is_released_without_a_sweep(probe):
    x = mg.tensor(X, requires_grad=True)
    y = mg.sum(probe(mg.exp(probe(mg.sin(x)))))
    assert probe.alive == 2
    del y
    assert probe.alive == 0


def test_graph_is_released_after_backward(probe):
    x = mg.tensor(X, requires_grad=True)
    y = mg.sum(probe(mg.batch_norm(probe(x.reshape(5, 1) ** 2), np.ones(1), np.ones(1))))
    y.backward()
    y.backward()
    del y
    assert probe.alive == 0
    assert x.grad is not None


def transforms():
    def f(probe):
        return lambda x: mg.sum(probe(mg.exp(probe(mg.sin(x)))) * V)

    yield "grad", lambda p: mg.grad(f(p))(X)
    yield "value_and_grad", lambda p: mg.value_and_grad(f(p))(X)
    yield "grad of grad", lambda p: mg.grad(lambda x: mg.sum(mg.grad(f(p))(x) * V))(X)
    yield "jvp", lambda p: mg.jvp(f(p), (X,), (V,))
    yield "jvp of jvp", lambda p: mg.jvp(lambda x: mg.jvp(f(p), (x,), (V,))[1], (X,), (V,))
    yield "hvp", lambda p: mg.hvp(f(p), X, V)
    yield "jacobian", lambda p: mg.jacobian(lambda x: probe_all(p, x))(X)
    yield "vjp", lambda p: mg.vjp(lambda x: probe_all(p, x), X)[1](V)
    yield "jacobian of grad", lambda p: mg.jacobian(mg.grad(f(p)))(X)
    yield "third order", lambda p: mg.grad(lambda x: mg.sum(mg.hvp(f(p), x, V) * V))(X)


def probe_all(probe, x):
    return probe(mg.exp(probe(mg.sin(x))))


@pytest.mark.parametrize(("name", "run"), list(transforms()), ids=[n for n, _ in transforms()])
def test_transforms_keep_nothing_but_their_results(name, run, probe):
    run(probe)
    assert probe.alive == 0


@pytest.mark.parametrize("name", ["grad", "grad of grad", "jvp", "hvp", "jacobian", "third order"])
def test_a_kept_result_does_not_keep_the_graph(name, probe):
    result = dict(transforms())[name](probe)
    inner = [ref for ref in probe.refs if ref() is not None]
    if name == "jvp":  # the value itself is a result
        inner = [ref for ref in inner if ref() is not result[0].array]
    assert not inner


def test_an_outer_leaf_keeps_what_it_needs_and_no_longer(probe):
    w = mg.tensor(V, requires_grad=True)
    g = mg.grad(lambda x: mg.sum(probe(mg.exp(x)) * w))(X)  # the derivative needs exp(x)
    assert g.requires_grad and probe.alive == 1
    mg.sum(g * V).backward()
    np.testing.assert_allclose(w.grad.data, np.exp(X) * V, rtol=4 * np.finfo(float).eps)
    del g
    assert probe.alive == 0


def failing(y):
    yield lambda: mg.add(y, np.ones(4))
    yield lambda: mg.add(y, [1.0, 2.0])
    yield lambda: mg.add(y, np.ma.array(V, mask=V > 0))
    yield lambda: mg.add(y, object())
    yield lambda: mg.sum(y, axis=7)
    yield lambda: y[99]
    yield lambda: mg.cross_entropy(y.reshape(1, 5), [7])
    yield lambda: mg.batch_norm(y, 1.0, 1.0)
    yield lambda: mg.split(y.reshape(5, 1), 2)
    yield lambda: y.backward()
    yield lambda: y.backward([np.nan] * 5)
    yield lambda: mg.grad(lambda x: x * y)(X)
    yield lambda: mg.grad(lambda x: mg.sum(y) and object())(X)


@pytest.mark.parametrize("i", range(13))
def test_graph_is_released_after_an_error(i, probe):
    y = probe(mg.exp(mg.tensor(X, requires_grad=True)))
    with pytest.raises(mg.errors.MinigradError):
        list(failing(y))[i]()
    del y
    assert probe.alive == 0


def test_graph_is_released_after_an_error_inside_a_sweep(probe, declared):
    @mg.elementwise(formula="y", pullback="x")
    def broken(xp, x):
        return x * 1

    broken.defpartials(lambda y, x: [1])
    y = broken(probe(mg.exp(mg.tensor(X, requires_grad=True))))
    with pytest.raises(mg.errors.RuleError):
        y.backward(V)
    del y
    assert probe.alive == 0


def test_graph_is_released_after_an_anomaly(probe):
    x = mg.tensor(X - X[0], requires_grad=True)
    with (
        mg.anomaly_mode(),
        np.errstate(divide="ignore"),
        pytest.raises(mg.errors.AnomalyError),
    ):
        mg.log(probe(x * 1.0))
    assert probe.alive == 0


def test_gradients_on_leaves_make_no_cycle(probe):
    x = probe(mg.tensor(X, requires_grad=True))
    mg.sum(x * x).backward()
    grad = weakref.ref(x.grad.array)
    del x
    assert grad() is None and probe.alive == 0
