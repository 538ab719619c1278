"""The two sweeps: the contract of `backward`, its errors, and rules that break theirs."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, errors


def leaf(a, name=None):
    return mg.tensor(a, requires_grad=True, name=name)


def test_backward_on_a_scalar_leaf_gives_one():
    x = leaf(3.0)
    x.backward()
    assert x.grad.item() == 1.0


def test_backward_on_a_leaf_gives_the_seed():
    x = leaf([3.0, 4.0])
    x.backward([0.5, -2.0])
    np.testing.assert_array_equal(x.grad.data, [0.5, -2.0])


def test_backward_twice_doubles_the_gradient_exactly(rng):
    x = leaf(rng.normal(size=(3, 4)), "x")
    y = mg.sum(mg.sin(x) * mg.softmax(x))
    y.backward()
    once = x.grad.numpy()
    y.backward()
    np.testing.assert_array_equal(x.grad.data, 2 * once)
    assert np.abs(once).min() > 0


def test_gradients_of_two_results_accumulate_and_reset():
    x = leaf(2.0)
    (x * 3).backward()
    (x * x).backward()
    assert x.grad.item() == 7.0
    x.grad = None
    assert x.grad is None
    (x * 3).backward()
    assert x.grad.item() == 3.0
    x.zero_grad()
    assert x.grad is None


def test_a_value_used_in_several_places_collects_all_cotangents():
    x = leaf(3.0)
    square = x * x
    (square * square + square * x + x).backward()  # x^4 + x^3 + x
    assert x.grad.item() == 4 * 27 + 3 * 9 + 1


def test_a_ladder_of_diamonds_costs_one_visit_per_node():
    # walking paths instead of nodes would take 2^200 steps
    x = leaf(1.0)
    y = x
    for _ in range(200):
        y = (y + y) * 0.5
    y.backward()
    assert x.grad.item() == 1.0


def test_a_leaf_the_value_does_not_depend_on_gets_zeros():
    x, w = leaf([1.0, -2.0]), leaf([1.0, 1.0])
    y = mg.sum(mg.sign(x) * w)
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [0.0, 0.0])
    np.testing.assert_array_equal(w.grad.data, [1.0, -1.0])


def test_a_leaf_outside_the_graph_gets_nothing():
    x, other = leaf(1.0), leaf(1.0)
    (x * 2).backward()
    assert other.grad is None


def test_constants_get_no_gradient():
    x, c = leaf(2.0), mg.tensor(5.0, name="c")
    (x * c).backward()
    assert c.grad is None
    assert x.grad.item() == 5.0


def test_retained_intermediates_get_their_gradient():
    x = leaf(3.0)
    y = (x * x).retain_grad()
    (2 * y).backward()
    assert y.grad.item() == 2.0
    assert x.grad.item() == 12.0


def test_the_seed_is_added_to_the_gradient_of_the_root():
    x = leaf([1.0, 2.0])
    y = x * 3
    y.backward([1.0, 10.0])
    np.testing.assert_array_equal(y.grad.data, [1.0, 10.0])


def test_gradients_carry_no_history():
    x = leaf(3.0)
    (x * x * x).backward()
    assert not x.grad.requires_grad and x.grad.is_leaf


def test_backward_without_a_graph_is_refused():
    for y in (mg.tensor([1.0, 2.0], name="y"), mg.tensor([1.0, 2.0], name="y") + 0):
        with pytest.raises(errors.GraphError, match="backward") as caught:
            y.backward([1.0, 2.0])
        assert "(2,)" in str(caught.value)
        assert isinstance(caught.value, RuntimeError)


def test_backward_of_what_no_grad_computed_is_refused():
    x = leaf(2.0)
    with mg.no_grad():
        y = x * x
    with pytest.raises(errors.GraphError):
        y.backward()
    assert x.grad is None


def test_a_non_scalar_without_seed_is_refused():
    y = leaf([1.0, 2.0], "w") * 2
    with pytest.raises(errors.SeedError, match=r"\(2,\)") as caught:
        y.backward()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("seed", [[1.5], 1.5, [[1.5, 2.0]], [1.5, 2.0, 3.0], []])
def test_a_seed_of_another_shape_is_refused(seed):
    x = leaf([1.0, 2.0], "x")
    y = x * 2
    y.name = "loss"
    with pytest.raises(errors.SeedError) as caught:
        y.backward(seed)
    text = str(caught.value)
    assert "loss" in text and "(2,)" in text and str(np.shape(seed)) in text
    assert x.grad is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_seed_that_is_not_finite_is_refused(bad):
    x = leaf([1.0, 2.0], "x")
    y = x * 2
    with pytest.raises(errors.SeedError, match="finite"):
        y.backward([1.0, bad])
    with pytest.raises(errors.SeedError, match="finite"):
        y.backward(mg.tensor([1.0, bad]))
    assert x.grad is None


@pytest.mark.parametrize("wrap", [lambda seed: seed, mg.tensor])
def test_a_seed_that_overflows_in_the_dtype_of_the_result_is_refused(wrap):
    x = mg.tensor(np.ones(2, np.float32), requires_grad=True)
    got = r"nan or inf in 1 of 2 elements for Tensor \(2,\) float32"
    with pytest.raises(errors.SeedError, match=got):
        (x * 2).backward(wrap(np.array([1.0, 1e300])))
    assert x.grad is None


def test_a_seed_tensor_is_looked_at_once_and_again_after_an_assignment(monkeypatch):
    looked = []
    count = backend.count_not_finite
    monkeypatch.setattr(
        backend, "count_not_finite", lambda array: looked.append(array) or count(array)
    )
    x, seed = leaf([1.0, 2.0], "x"), mg.tensor([1.5, 2.5])
    for _ in range(3):
        (x * 2).backward(seed)
    assert len(looked) == 1
    np.testing.assert_array_equal(x.grad.data, [9.0, 15.0])
    seed[0] = np.nan
    with pytest.raises(errors.SeedError, match="finite"):
        (x * 2).backward(seed)
    mine = np.array([1.5, 2.5])
    (x * 2).backward(mine)
    mine[0] = np.nan  # a plain array is checked each time
    with pytest.raises(errors.SeedError, match="finite"):
        (x * 2).backward(mine)


@pytest.mark.parametrize("seed", [["a", "b"], [1j, 2j], np.array([None, 1], object)])
def test_a_seed_that_is_not_real_is_refused(seed):
    y = leaf([1.0, 2.0]) * 2
    with pytest.raises((errors.SeedError, errors.DTypeError)):
        y.backward(seed)


def test_integer_and_tensor_seeds_are_taken_as_numbers():
    for seed in ([2, 3], mg.tensor([2.0, 3.0]), np.float32([2, 3])):
        x = leaf([1.0, 2.0])
        (x * 2).backward(seed)
        np.testing.assert_array_equal(x.grad.data, [4.0, 6.0])
        assert x.grad.dtype == np.float64


def test_a_chain_of_50_000_ops_needs_no_recursion():
    # one factor cos(t) per op in both modes, so they differ by at most 5,000 roundings each
    script = """
        import sys
        import numpy as np
        import minigrad as mg

        def long(t):
            for _ in range(5_000):
                t = mg.sin(t) + 0.5
            return t

        x = mg.tensor(1.0, requires_grad=True)
        sys.setrecursionlimit(150)
        y = x
        for _ in range(50_000):
            y = y * 1.0
        y.backward()
        assert x.grad.item() == 1.0
        del y, x  # the release of a long chain must not recurse either
        backward = mg.grad(long)(0.3).item()
        forward = mg.jvp(long, (0.3,), (1.0,))[1].item()
        assert abs(backward - forward) <= 2 * 5_000 * np.finfo(float).eps * abs(forward)
        assert np.isfinite(mg.grad(mg.grad(long))(0.3).item())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_threads_record_and_sweep_independently():
    results, barrier = {}, threading.Barrier(2)

    def work(k, quiet):
        x = leaf(float(k))
        barrier.wait()
        if quiet:
            with mg.no_grad():
                barrier.wait()
                results[k] = (x * x).requires_grad
                barrier.wait()
        else:
            barrier.wait()
            y = x * x
            barrier.wait()
            y.backward()
            results[k] = x.grad.item()

    threads = [threading.Thread(target=work, args=(k, k == 2)) for k in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {2: False, 3: 6.0}


def test_one_graph_swept_from_many_threads_adds_up_when_joined():
    x = leaf(np.linspace(0.1, 1.0, 7))
    outs = [mg.sum(mg.exp(x) * k) for k in range(1, 5)]
    found = [None] * 4

    def work(i):
        with mg.no_grad():
            found[i] = mg.vjp(lambda t: mg.exp(t) * (i + 1), x)[1](np.linspace(1, 2, 7))[0].numpy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, got in enumerate(found):
        np.testing.assert_allclose(got, found[0] * (i + 1), rtol=4 * np.finfo(float).eps)
    for out in outs:
        out.backward()
    np.testing.assert_allclose(x.grad.data, 10 * np.exp(x.data), rtol=8 * np.finfo(float).eps)


class Slow(mg.Tensor):
    """Lets other threads run between the addition of a gradient and its assignment."""

    __slots__ = ()

    def __init__(self, array, node=None):
        super().__init__(array, node)
        time.sleep(1e-3)


def test_threads_that_share_a_leaf_lose_no_gradient():
    x = leaf(0.0)

    def work(weight):
        y = Slow(x.array, x.node) * weight
        for _ in range(20):
            y.backward()

    threads = [threading.Thread(target=work, args=(weight,)) for weight in (2.0, 3.0, 5.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert x.grad.item() == 20 * (2 + 3 + 5)  # whole numbers: the sum is exact


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_adds_gradients_although_a_thread_did_during_the_fork():
    x, is_adding = leaf(3.0), threading.Event()
    y = Slow(x.array, x.node) * 2.0
    y.retain_grad().grad = 0.0

    def work():
        for _ in range(50):
            y.backward()
            is_adding.set()

    thread = threading.Thread(target=work)
    thread.start()
    is_adding.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        y.backward()
        os._exit(0)
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


# --- rules that break their contract -------------------------------------------------------------

ROWS = "(n)->()"


def declare(rule, kind="vjp", signature="()"):
    """An op ``broken`` of two inputs whose rule returns what ``rule`` returns."""

    @mg.op(formula="y = x_1 + x_2", pullback="none", signature=signature)
    def broken(xp, x1, x2):
        return x1 + x2

    if kind == "vjp":
        broken.defvjp(lambda y_bar, y, x1, x2: rule(y_bar))
    elif kind == "partials":
        broken.defpartials(lambda y, x1, x2: rule(y))
    return broken


BROKEN = {
    "a list": (lambda a: [a, a], "a tuple of length 2"),
    "one entry": (lambda a: (a,), "one of length 1"),
    "three entries": (lambda a: (a, a, a), "one of length 3"),
    "an array": (lambda a: a, "tuple"),
    "None": (lambda a: None, "NoneType"),
}


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("kind", ["vjp", "partials"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_that_returns_no_tuple_of_entries_is_named(case, kind):
    rule, match = BROKEN[case]
    x = leaf([1.0, 2.0, 3.0], "x")
    y = declare(rule, kind)(x, [1.0, 1.0, 1.0])
    with pytest.raises(errors.RuleError, match=match) as caught:
        y.backward([1.0, 2.0, 3.0])
    assert "broken" in str(caught.value)
    assert x.grad is None


WRONG = {
    "extra axis": lambda a: np.ones((2, 3)),
    "longer": lambda a: np.ones(4),
    "shorter": lambda a: np.ones(1),
    "scalar": lambda a: np.float64(1.0),
}


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("signature", ["()", ""])
@pytest.mark.parametrize("case", WRONG)
def test_a_cotangent_of_the_wrong_shape_is_named(case, signature):
    x = leaf([1.0, 2.0, 3.0], "x")
    rule = lambda y_bar: (None, WRONG[case](y_bar))  # noqa: E731
    y = declare(rule, signature=signature)(np.zeros(3), x)
    with pytest.raises(errors.RuleError) as caught:
        y.backward([1.0, 2.0, 3.0])
    text = str(caught.value)
    assert "broken" in text and "input 1" in text and "(3,)" in text
    assert str(np.shape(WRONG[case](None))) in text
    assert x.grad is None


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("value", ["text", 1.5, [1.0, 2.0, 3.0], object()])
def test_a_cotangent_that_is_no_array_is_named(value):
    x = leaf([1.0, 2.0, 3.0], "x")
    y = declare(lambda y_bar: (value, None))(x, np.zeros(3))
    with pytest.raises(errors.RuleError, match="broken"):
        y.backward([1.0, 2.0, 3.0])


def modes(op):
    """Each way to run the rules of ``op`` in its first operand at (1, 2, 3)."""
    a = np.array([1.0, 2.0, 3.0])
    f = lambda t: op(t, 0.0)  # noqa: E731
    return {
        "backward": lambda: f(leaf(a)).backward(a),
        "forward": lambda: mg.jvp(f, (a,), (a,)),
        "recorded": lambda: mg.grad(lambda t: mg.sum(mg.grad(lambda u: mg.sum(f(u)))(t)))(a),
        "recorded forward": lambda: mg.grad(lambda t: mg.sum(mg.jvp(f, (t,), (a,))[1]))(a),
    }


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("mode", modes(None))
@pytest.mark.parametrize("case", BROKEN)
def test_partials_that_are_no_tuple_of_entries_are_named_in_every_mode(case, mode):
    rule, match = BROKEN[case]
    with pytest.raises(errors.RuleError, match=rf"broken[\s\S]*({match})"):
        modes(declare(rule, "partials"))[mode]()


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("mode", modes(None))
@pytest.mark.parametrize("partial", [np.ones(4), np.ones((2, 4)), "text", object(), [1.0, 2.0]])
def test_a_partial_that_does_not_fit_is_named_in_every_mode(partial, mode):
    with pytest.raises(errors.RuleError, match=r"broken: [\s\S]*partial[\s\S]*\(3,\)"):
        modes(declare(lambda y: (partial, None), "partials"))[mode]()


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("value", ["text", 1.5, [1.0, 2.0, 3.0], object()])
@pytest.mark.parametrize("mode", ["forward", "recorded forward"])
def test_a_tangent_that_is_no_array_is_named(value, mode):
    broken = declare(None)
    broken.defjvp(lambda x_dots, y, x1, x2: value)
    with pytest.raises(errors.RuleError, match=r"broken: the jvp rule[\s\S]*\(3,\)"):
        modes(broken)[mode]()


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("kind", ["vjp", "partials"])
@pytest.mark.parametrize("value", [[1.0, 2.0, 3.0], 1.0])
def test_a_rule_that_returns_complex_numbers_is_named_in_both_modes(kind, value):
    broken = declare(lambda a: (a * 1j, None), kind)
    broken.defjvp(lambda x_dots, y, x1, x2: x_dots[0] * 1j)
    x = leaf(value)
    with pytest.raises(errors.RuleError, match=r"broken[\s\S]*real[\s\S]*complex128"):
        broken(x, x).backward(value)
    with pytest.raises(errors.RuleError, match=r"broken[\s\S]*real[\s\S]*complex128"):
        mg.jvp(lambda t: broken(t, 0.0), (value,), (value,))
    assert x.grad is None


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("result", [1, True])
def test_cotangents_and_tangents_of_integers_are_not_rounded(result):
    @mg.elementwise(formula=r"y = [x > 0]", pullback=r"\bar x = 2 \bar y")
    def step(xp, x):  # as in the literature, with a derivative that it does not have
        return (x > 0).astype(type(result))

    step.defpartials(lambda y, x: (2,))
    a, w = np.array([0.3, -0.7, 1.9]), np.array([0.5, 0.25, 1.75])
    x = leaf(a)
    step(x).backward(w)
    np.testing.assert_array_equal(x.grad, 2 * w)
    np.testing.assert_array_equal(mg.vjp(step, a)[1](w)[0], 2 * w)
    np.testing.assert_array_equal(mg.grad(lambda t: mg.sum(step(t) * w))(a), 2 * w)
    np.testing.assert_array_equal(mg.jvp(step, (a,), (w,))[1], 2 * w)
    np.testing.assert_array_equal(mg.jacobian(step)(a), 2 * np.eye(3))
    squared = mg.grad(lambda t: mg.sum(step(t) * t * t))
    np.testing.assert_array_equal(mg.grad(lambda t: mg.sum(squared(t)))(a), 8 * a + 2 * (a > 0))


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("kind", ["vjp", "partials"])
def test_a_rule_may_use_a_tensor_that_is_no_operand(kind):
    w = mg.tensor([2.0, 3.0, 5.0])
    rule = {"vjp": lambda y_bar: (y_bar * w, None), "partials": lambda y: (w, None)}[kind]
    scaled = declare(rule, kind)
    x = leaf([1.0, 2.0, 3.0])
    (mg.sum(scaled(mg.fused.sigmoid(x), 0.0)) + mg.sum(x)).backward()
    assert type(x.grad.data) is np.ndarray
    s = mg.sigmoid(x).numpy()
    np.testing.assert_allclose(x.grad.numpy(), w.data * s * (1 - s) + 1, rtol=1e-15)


@pytest.mark.usefixtures("declared")
def test_a_partial_that_is_too_large_is_refused_in_both_modes():
    broken = declare(lambda y: (np.ones((2, 3)), 1), "partials")
    x = leaf([1.0, 2.0, 3.0], "x")
    with pytest.raises(errors.RuleError, match="broken"):
        broken(x, 0.0).backward([1.0, 2.0, 3.0])
    with pytest.raises(errors.MinigradError, match="broken"):
        mg.jvp(lambda t: broken(t, 0.0), ([1.0, 2.0, 3.0],), ([1.0, 2.0, 3.0],))


@pytest.mark.usefixtures("declared")
def test_core_axes_are_never_summed():
    @mg.op(formula="y", pullback="x", signature="(n),(n)->()")
    def inner(xp, a, b):
        return (a * b).sum(-1)

    inner.defvjp(lambda y_bar, y, a, b: (np.ones((2, 4)), None))
    x = leaf(np.ones((2, 1)), "x")
    with pytest.raises(errors.RuleError, match=r"inner[\s\S]*\(2, 1\)[\s\S]*\(2, 4\)"):
        inner(x, np.ones((2, 1))).backward([1.0, 2.0])


@pytest.mark.usefixtures("declared")
def test_no_core_axis_is_summed_although_the_cotangent_has_the_shape_of_the_result():
    @mg.op(formula="Y", pullback="A", signature="(m,k)->(k,k)")
    def gram(xp, a):
        return xp.swapaxes(a, -1, -2) @ a

    gram.defvjp(lambda y_bar, y, a: (y_bar + mg.swapaxes(y_bar, -1, -2),))
    x = leaf(np.ones((1, 3)), "x")
    with pytest.raises(errors.RuleError, match=r"gram[\s\S]*\(1, 3\)[\s\S]*\(3, 3\)"):
        gram(x).backward(np.arange(9.0).reshape(3, 3))


@pytest.mark.usefixtures("declared")
def test_an_op_without_a_rule_is_named():
    broken = declare(None, kind="none")
    with pytest.raises(errors.RuleError, match="broken"):
        broken(leaf([1.0]), 1.0).backward([2.0])
    with pytest.raises(errors.RuleError, match="broken"):
        mg.jvp(lambda t: broken(t, 1.0), ([1.0],), ([2.0],))


@pytest.mark.usefixtures("declared")
def test_a_rule_of_a_user_gives_both_modes_and_second_order(rng):
    @mg.elementwise(formula=r"y = x_1^2 x_2", pullback=r"\bar x")
    def weighted(xp, x1, x2):
        return x1 * x1 * x2

    weighted.defpartials(lambda y, x1, x2: (2 * x1 * x2, lambda: x1 * x1))
    a, b = rng.normal(size=(3, 1)), rng.normal(size=4)
    seed = rng.normal(size=(3, 4))
    a_bar, b_bar = mg.vjp(weighted, a, b)[1](seed)
    np.testing.assert_allclose(a_bar.data, (seed * 2 * a * b).sum(1, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(b_bar.data, (seed * a * a).sum(0), rtol=1e-13, atol=1e-14)
    second = mg.grad(mg.grad(lambda x: weighted(x, 1.5)))(2.0)
    assert second.item() == 3.0


def test_a_missing_cotangent_does_not_stop_the_others():
    x, y = leaf(2.0), leaf(3.0)
    (mg.sign(x) + y * y).backward()
    assert (x.grad.item(), y.grad.item()) == (0.0, 6.0)
