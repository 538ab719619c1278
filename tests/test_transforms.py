"""grad, value_and_grad, vjp, jvp, hvp, jacobian: values, nesting, arguments, errors."""

from itertools import product

import numpy as np
import pytest

import minigrad as mg
from minigrad import errors, transforms

EPS = np.finfo(np.float64).eps
X = np.array([0.3, -0.7, 1.1])
W = np.array([1.5, -0.5, 2.0])


def quartic(x):
    """sum(W x^4) plus products of neighbours: every derivative up to the fourth is known."""
    return mg.sum(x**4 * W) + x[0] * x[1] * x[2]


def gradient(x):
    return 4 * W * x**3 + np.array([x[1] * x[2], x[0] * x[2], x[0] * x[1]])


def hessian(x):
    cross = np.array([[0, x[2], x[1]], [x[2], 0, x[0]], [x[1], x[0], 0]])
    return np.diag(12 * W * x**2) + cross


def close(got, expected, roundings=32):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    assert (np.abs(got - expected) <= roundings * EPS * scale).all(), (got, expected)


def test_value_and_grad_gives_both():
    value, g = mg.value_and_grad(quartic)(X)
    close(value, quartic(X))
    close(g, gradient(X))
    assert not value.requires_grad and not g.requires_grad


def test_hvp_is_the_full_hessian_times_v():
    close(mg.hvp(quartic, X, W), hessian(X) @ W)
    for several in (tuple, list):
        (product,) = mg.hvp(quartic, several([X]), several([W]))
        close(product, hessian(X) @ W)


def test_hvp_of_several_arguments_holds_the_mixed_blocks(rng):
    f = lambda a, b: mg.sum(mg.sin(a) * b**2)  # noqa: E731
    a, b, u, v = rng.normal(size=(4, 3))
    of_a, of_b = mg.hvp(f, (a, b), (u, v))
    close(of_a, -np.sin(a) * b**2 * u + 2 * np.cos(a) * b * v)
    close(of_b, 2 * np.cos(a) * b * u + 2 * np.sin(a) * v)


def test_hvp_of_several_arguments_calls_a_random_function_once(rng):
    """Blocks of two draws would not be those of one Hessian, which is symmetric."""
    dropout, calls = mg.nn.Dropout(0.5, rng=rng), []

    def f(a, b):
        calls.append(mg.sum(dropout(mg.sin(a * b))))
        return calls[-1]

    a, b, u, v = rng.normal(size=(4, 40))
    zeros, state = np.zeros(40), rng.bit_generator.state
    of_a, of_b = (np.asarray(part) for part in mg.hvp(f, (a, b), (u, zeros)))
    rng.bit_generator.state = state
    mixed, _ = (np.asarray(part) for part in mg.hvp(f, (a, b), (zeros, v)))
    assert len(calls) == 2 and np.abs(of_a).max() > 0
    scale = np.abs(of_b * v).sum()  # the sums of products have 40 terms of a few roundings each
    assert abs(of_b @ v - mixed @ u) <= 40 * 32 * EPS * scale


def test_jacobian_of_the_gradient_is_the_hessian():
    close(mg.jacobian(mg.grad(quartic))(X), hessian(X))
    columns = [mg.jvp(mg.grad(quartic), (X,), (e,))[1].data for e in np.eye(3)]
    close(np.stack(columns, axis=1), hessian(X))


@pytest.mark.parametrize(
    ("shape_in", "shape_out"), [((), ()), ((2,), ()), ((), (3,)), ((2, 2), (4, 1)), ((0,), (0,))]
)
def test_jacobian_has_the_shape_of_result_and_argument(shape_in, shape_out, rng):
    n, m = int(np.prod(shape_in)), int(np.prod(shape_out))
    matrix = rng.normal(size=(m, n))
    f = lambda x: mg.reshape(matrix @ mg.reshape(x, (n,)), shape_out)  # noqa: E731
    j = mg.jacobian(f)(rng.normal(size=shape_in))
    close(j, matrix.reshape(shape_out + shape_in))


def test_jacobian_of_an_empty_result_has_the_dtype_of_the_others():
    x = X.astype("float32")
    assert mg.jacobian(lambda x: x[:0])(x).dtype == mg.jacobian(lambda x: x[:1])(x).dtype


def test_jacobian_of_several_arguments_and_nested():
    f = lambda a, b: a * mg.sum(b**2)  # noqa: E731
    j_a, j_b = mg.jacobian(f, argnums=(0, 1))(X, W)
    close(j_a, np.eye(3) * (W @ W))
    close(j_b, 2 * np.outer(X, W))
    second = mg.jacobian(mg.jacobian(f, argnums=1), argnums=0)(X, W)
    close(second, 2 * np.einsum("ik,j->ijk", np.eye(3), W))


# --- nesting -------------------------------------------------------------------------------------

MODES = {
    "g": mg.grad,
    "f": lambda f: lambda x: mg.jvp(f, (x,), (1.0,))[1],
    "v": lambda f: lambda x: mg.vjp(f, x)[1](1.0)[0],
    "j": lambda f: mg.jacobian(f),
}


@pytest.mark.parametrize(
    "word", ["gggg", "ffff", "gfgf", "fgfg", "vfgj", "jjjj", "vvvv", "ggff", "ffgg"]
)
def test_transforms_nest_to_the_fourth_order(word):
    f = lambda x: mg.exp(mg.sin(x) * 0.5)  # noqa: E731
    for mode in word:
        f = MODES[mode](f)
    s, c, x = np.sin(0.3), np.cos(0.3), 0.3
    # y = e^(s/2): y'''' = y (c^4/16 - 3/4 c^2 s + 3/4 s^2 - c^2 + s/2)
    expected = np.exp(s / 2) * (c**4 / 16 - 0.75 * c * c * s + 0.75 * s * s - c * c + s / 2)
    close(f(x), expected, roundings=64)


def test_grad_inside_grad_does_not_confuse_perturbations():
    # d/dx [x * d/dy (x + y)] = 1; confusing the two would give 2
    f = lambda x: x * mg.grad(lambda y: x + y)(2.0)  # noqa: E731
    assert mg.grad(f)(3.0).item() == 1.0


def test_jvp_inside_jvp_does_not_confuse_perturbations():
    f = lambda x: x * mg.jvp(lambda y: x + y, (2.0,), (1.0,))[1]  # noqa: E731
    assert mg.jvp(f, (3.0,), (1.0,))[1].item() == 1.0


def test_jvp_inside_grad_does_not_confuse_perturbations():
    f = lambda x: x * mg.jvp(lambda y: x * y, (x,), (1.0,))[1]  # noqa: E731
    assert mg.grad(f)(3.0).item() == 6.0  # the inner derivative is x, so f = x^2


def test_grad_inside_jvp_does_not_confuse_perturbations():
    f = lambda x: x * mg.grad(lambda y: x * y)(x)  # noqa: E731
    assert mg.jvp(f, (3.0,), (1.0,))[1].item() == 6.0


def test_same_tensor_as_argument_and_closure_is_told_apart():
    x = mg.tensor(3.0, requires_grad=True)
    assert mg.grad(lambda y: x * y)(x).item() == 3.0
    assert mg.grad(lambda a, b: a * b)(x, x).item() == 3.0
    assert [g.item() for g in mg.grad(lambda a, b: a * b * b, argnums=(0, 1))(x, x)] == [9.0, 18.0]


def test_tangents_that_depend_on_the_outer_variable_are_differentiated():
    f = lambda x: mg.jvp(lambda y: y**3, (2.0,), (x,))[1]  # noqa: E731
    assert mg.grad(f)(5.0).item() == 12.0
    assert mg.jvp(f, (5.0,), (1.0,))[1].item() == 12.0
    g = lambda x: mg.vjp(lambda y: y**3, 2.0)[1](x * x)[0]  # noqa: E731
    assert mg.grad(g)(5.0).item() == 120.0


def test_an_outer_leaf_gets_gradients_through_an_inner_transform():
    w = mg.tensor(W, requires_grad=True)
    g = mg.grad(lambda x: mg.sum(w * x**2))(X)
    mg.sum(g * [1.0, 10.0, 100.0]).backward()
    close(w.grad, 2 * X * [1.0, 10.0, 100.0])


def test_the_value_of_an_inner_transform_is_differentiated_too():
    w = mg.tensor(2.0, requires_grad=True)
    value, g = mg.value_and_grad(lambda x: w * x * x)(3.0)
    (value * g).backward()  # w x^2 * 2 w x = 2 w^2 x^3
    assert w.grad.item() == 4 * 2.0 * 27.0
    w.grad = None
    y, y_dot = mg.jvp(lambda x: w * x * x, (3.0,), (1.0,))
    (y * y_dot).backward()
    assert w.grad.item() == 4 * 2.0 * 27.0
    w.grad = None
    y, pullback = mg.vjp(lambda x: w * x * x, 3.0)
    (y * pullback(1.0)[0]).backward()
    assert w.grad.item() == 4 * 2.0 * 27.0


def test_a_condition_alone_has_a_tangent_of_zero():
    _, y_dot = mg.jvp(lambda x: mg.where(x, 2.0, 3.0), (X,), (W,))
    assert y_dot.tolist() == [0.0, 0.0, 0.0]


def test_functions_see_the_names_of_their_arguments():
    names = []
    mg.grad(lambda x: names.append(x.name) or quartic(x))(mg.tensor(X, name="weights"))
    assert names == ["weights"]


def test_transforms_leave_no_gradient_on_their_arguments():
    x = mg.tensor(X, requires_grad=True)
    g = mg.grad(quartic)(x)
    mg.hvp(quartic, x, W)
    assert x.grad is None
    assert g.requires_grad  # the caller may differentiate again
    mg.sum(g * W).backward()
    close(x.grad, hessian(X) @ W)


def test_results_carry_no_history_where_nothing_outside_could_ask():
    for result in (
        mg.grad(quartic)(X),
        mg.hvp(quartic, X, W),
        mg.jvp(quartic, (X,), (W,))[1],
        mg.jacobian(quartic)(X),
        mg.grad(lambda p: mg.grad(lambda x, p: x**p)(2.0, p))(0.5),
        mg.grad(lambda x: mg.sum(mg.grad(quartic)(x) * W))(X),
        mg.grad(lambda x: mg.jvp(quartic, (X,), (x,))[1])(W),
        mg.grad(lambda w: mg.sum(mg.hvp(lambda x: mg.sum(w * x**3), X, W)))(W),
        mg.jvp(lambda x: mg.grad(quartic)(X) * x, (W,), (X,))[1],
        mg.vjp(quartic, X)[0],
    ):
        assert not result.requires_grad, result


def test_transforms_work_inside_no_grad_and_return_constants():
    x, w = mg.tensor(X, requires_grad=True), mg.tensor(W, requires_grad=True)
    with mg.no_grad():
        for result, expected in (
            (mg.grad(quartic)(x), gradient(X)),
            (mg.hvp(quartic, x, W), hessian(X) @ W),
            (mg.jacobian(mg.grad(quartic))(x), hessian(X)),
            (mg.vjp(quartic, x)[1](1.0)[0], gradient(X)),
            (mg.jvp(quartic, (x,), (W,))[1], gradient(X) @ W),
            (mg.jvp(quartic, (x,), (w,))[1], gradient(X) @ W),
        ):
            close(result, expected)
            assert not result.requires_grad


def test_no_grad_inside_the_function_stops_the_derivative():
    def f(x):
        with mg.no_grad():
            constant = x * x
        return x * constant

    assert mg.grad(f)(3.0).item() == 9.0
    assert mg.jvp(f, (3.0,), (1.0,))[1].item() == 9.0


def test_a_pullback_called_inside_no_grad_returns_constants():
    def f(w):
        _, pullback = mg.vjp(lambda x: mg.sum(w * x**2), X)
        with mg.no_grad():
            (constant,) = pullback(1.0)
        return mg.sum(w * constant)

    close(mg.grad(f)(W), 2 * X * W)


def test_a_pullback_made_inside_no_grad_can_be_differentiated_by_its_seed():
    with mg.no_grad():
        _, pullback = mg.vjp(lambda x: W * x**2, X)
        close(mg.grad(lambda y_bar: mg.sum(pullback(y_bar)[0]))(X), 2 * X * W)
    close(mg.grad(lambda y_bar: mg.sum(pullback(y_bar)[0]))(X), 2 * X * W)
    w = mg.tensor(W, requires_grad=True)
    with mg.no_grad():
        _, pullback = mg.vjp(lambda x: w * x**2, X)
    assert not pullback(w)[0].requires_grad  # it would be differentiated by the factor w, too


def test_no_grad_is_a_decorator_and_restores_after_errors():
    @mg.no_grad()
    def f(x):
        return x * 2

    x = mg.tensor(1.0, requires_grad=True)
    assert not f(x).requires_grad and not f(x).requires_grad
    with pytest.raises(ZeroDivisionError), mg.no_grad():
        _ = 1 / 0
    assert (x * 2).requires_grad


# --- arguments -----------------------------------------------------------------------------------


def weighted(a, b, c=1.0, *, power=2):
    return mg.sum(a**power * b) * c


def test_argnums_pick_arguments_also_from_the_end():
    expected = [2 * X * W * 3.0, X**2 * 3.0, np.sum(X**2 * W)]
    for i in (0, 1, 2):
        close(mg.grad(weighted, argnums=i)(X, W, 3.0), expected[i])
        close(mg.grad(weighted, argnums=i - 3)(X, W, 3.0), expected[i])
    for argnums in ((0, 1), (1, 0), (-1, 0), (2,)):
        got = mg.grad(weighted, argnums=argnums)(X, W, 3.0)
        assert isinstance(got, tuple) and len(got) == len(argnums)
        for i, g in zip(argnums, got, strict=True):
            close(g, expected[i])


@pytest.mark.parametrize(
    "argnums", [3, -4, (0, 3), (-4,), 99, [0, 1], "x", np.arange(2), mg.tensor(1)], ids=str
)
@pytest.mark.parametrize("transform", [mg.grad, mg.value_and_grad, mg.jacobian])
def test_argnums_out_of_range_are_refused(argnums, transform):
    with pytest.raises(errors.UsageError, match=f"^{transform.__name__}: argnums") as caught:
        transform(weighted, argnums=argnums)(X, W, 3.0)
    assert isinstance(caught.value, ValueError)
    assert str(argnums) in str(caught.value)


def test_an_argument_named_twice_in_argnums_is_refused_or_given_twice():
    try:
        a, b = mg.grad(weighted, argnums=(0, 0))(X, W)
    except errors.UsageError:
        return
    close(a, 2 * X * W)
    close(b, 2 * X * W)


def test_keywords_pass_through():
    close(mg.grad(weighted)(X, W, power=3), 3 * X**2 * W)
    close(mg.value_and_grad(weighted)(X, W, power=3)[1], 3 * X**2 * W)
    close(mg.jacobian(weighted)(X, W, power=3), 3 * X**2 * W)


def test_other_arguments_pass_through_untouched():
    seen = []

    def f(x, flag, array):
        seen.append((flag, array))
        return mg.sum(x)

    flag, array = object(), np.ones(2)
    mg.grad(f)(X, flag, array)
    assert seen[0][0] is flag and seen[0][1] is array


def test_numbers_sequences_arrays_and_tensors_are_arguments():
    f = lambda x: mg.sum(x * x)  # noqa: E731
    for x in (X.tolist(), X, mg.tensor(X), mg.tensor(X, requires_grad=True)):
        close(mg.grad(f)(x), 2 * X)
    assert mg.grad(f)(3.0).item() == 6.0
    assert mg.grad(f)(np.float32(3.0)).dtype == np.float32


def test_arguments_that_are_no_floats_are_refused_by_position():
    for bad in (3, None, {"a": 1.0}, "text", [mg.tensor(1.0)]):
        with pytest.raises(errors.DTypeError, match="argument 1: "):
            mg.grad(lambda x, y: x * y, 1)(2.0, bad)
    for bad, transform in product((None, "text", [mg.tensor(1.0)]), (mg.jvp, mg.hvp)):
        with pytest.raises(errors.DTypeError, match=f"^{transform.__name__}: tangents: "):
            transform(lambda x: x * x, (2.0,), (bad,))
    for bad in ("text", [mg.tensor(1.0)]):
        with pytest.raises(errors.DTypeError, match="backward: seed: "):
            mg.vjp(lambda x: x, 2.0)[1](bad)


@pytest.mark.parametrize("result", [2.0, np.ones(2), None, "text", [1.0], (1.0, 2.0)])
def test_a_function_that_returns_no_tensor_is_refused(result):
    for run in (
        lambda f: mg.grad(f)(X),
        lambda f: mg.vjp(f, X),
        lambda f: mg.jvp(f, (X,), (W,)),
        lambda f: mg.hvp(f, X, W),
        lambda f: mg.jacobian(f)(X),
    ):
        with pytest.raises(errors.MinigradError, match=type(result).__name__) as caught:
            run(lambda x: result)
        assert isinstance(caught.value, RuntimeError)


def test_a_function_that_returns_several_tensors_is_refused():
    with pytest.raises(errors.GraphError, match="tuple"):
        mg.grad(lambda x: (x, x))(2.0)


def test_a_gradient_of_a_non_scalar_is_refused():
    with pytest.raises(errors.ShapeError, match=r"(?s)scalar.*\(3,\)"):
        mg.grad(lambda x: x * 2)(X)
    with pytest.raises(errors.ShapeError):
        mg.hvp(lambda x: x * 2, X, W)


def test_functions_that_ignore_or_return_their_argument():
    constant = mg.tensor(2.0)
    assert mg.grad(lambda x: constant)(X).data.tolist() == [0.0, 0.0, 0.0]
    assert mg.grad(lambda x: constant * 1)(X).data.tolist() == [0.0, 0.0, 0.0]
    assert mg.grad(lambda x: x)(2.0).item() == 1.0
    assert mg.jvp(lambda x: x, (2.0,), (5.0,))[1].item() == 5.0
    assert mg.jvp(lambda x: constant, (2.0,), (5.0,))[1].item() == 0.0
    assert mg.jacobian(lambda x: x)(X).data.tolist() == np.eye(3).tolist()
    outer = mg.tensor(2.0, requires_grad=True)
    assert mg.grad(lambda x: outer * outer)(3.0).item() == 0.0
    assert mg.vjp(lambda x: x, X)[1](W)[0].data.tolist() == W.tolist()


def test_jvp_and_vjp_name_the_shapes_that_do_not_fit():
    with pytest.raises(errors.ShapeError, match=r"(?s)\(3,\).*\(2,\) for argument 1"):
        mg.jvp(lambda a, b: a * b, (X, X), (X, X[:2]))
    with pytest.raises(errors.UsageError, match="2 primals"):
        mg.jvp(lambda a, b: a * b, (X, X), (X,))
    with pytest.raises(errors.UsageError, match="hvp: tangents"):
        mg.hvp(lambda a, b: mg.sum(a * b), (X, X), (X,))
    with pytest.raises(errors.ShapeError, match=r"hvp: tangent\n.*\(3,\).*\n.*\(2,\) for"):
        mg.hvp(mg.sum, X, X[:2])
    with pytest.raises(errors.ShapeError, match="hvp: f must return a scalar"):
        mg.hvp(lambda x: x, X, X)
    with pytest.raises(errors.ShapeError, match="value_and_grad: f must return a scalar"):
        mg.value_and_grad(lambda x: x)(X)
    _, pullback = mg.vjp(lambda x: x * 2, X)
    with pytest.raises(errors.SeedError, match=r"(?s)\(3,\).*\(2,\)"):
        pullback(X[:2])
    with pytest.raises(errors.SeedError, match=r"(?s)\(3,\).*\(2,\)"):
        pullback(mg.tensor(X[:2], requires_grad=True))
    for y_bar in ([np.nan, 1.0, 1.0], mg.tensor([np.nan, 1.0, 1.0])):
        with pytest.raises(errors.SeedError, match="finite"):
            pullback(y_bar)


def test_nothing_to_differentiate_is_refused_but_an_empty_tuple_of_arguments_is_one():
    outer = mg.tensor(2.0, requires_grad=True)
    f = lambda *xs: outer * 3.0  # noqa: E731
    for name, call in {
        "vjp": lambda: mg.vjp(f),
        "jvp": lambda: mg.jvp(f, (), ()),
        "hvp": lambda: mg.hvp(f, (), ()),
    }.items():
        with pytest.raises(errors.UsageError, match=f"^{name}: "):
            call()
    value, gradients = mg.value_and_grad(f, argnums=())(1.0)
    assert gradients == () and value.requires_grad
    assert mg.jacobian(f, argnums=())(1.0) == ()


def test_a_pullback_can_be_called_many_times():
    _, pullback = mg.vjp(lambda x: mg.sin(x), X)
    for seed in (W, X, W):
        close(pullback(seed)[0], np.cos(X) * seed)


def test_tangents_are_cast_to_the_dtype_of_their_primal():
    y, y_dot = mg.jvp(lambda x: x * x, (np.float32(3.0),), (2.0,))
    assert y.dtype == y_dot.dtype == np.float32 and y_dot.item() == 12.0
    assert mg.jvp(lambda x: x * x, (3.0,), (2,))[1].item() == 12.0


def test_what_is_no_function_is_refused_at_once():
    x = mg.tensor(2.0, requires_grad=True)
    y = x**2
    for differentiate in (
        mg.grad, mg.value_and_grad, mg.jacobian,
        lambda y, x: mg.vjp(y, x), lambda y, x: mg.jvp(y, (x,), (x,)),
    ):  # fmt: skip
        with pytest.raises(errors.DTypeError, match=r"(?s)a function of tensors.*y\.backward\(\)"):
            differentiate(y, x)


def test_a_derivative_is_named_after_its_function():
    assert repr(mg.grad(mg.grad(quartic))).startswith("<function grad(grad(quartic)) at ")
    assert mg.jacobian(mg.tanh).__name__ == "jacobian(tanh)"
    assert mg.value_and_grad(mg.nn.ReLU()).__name__ == "value_and_grad(ReLU)"


def test_transforms_show_no_trace_in_their_arguments():
    x = X.copy()
    for run in (mg.grad(quartic), mg.jacobian(quartic)):
        run(x)
    mg.hvp(quartic, x, x)
    mg.jvp(quartic, x, x)
    np.testing.assert_array_equal(x, X)
    assert x.flags.writeable


def test_an_inner_gradient_does_not_walk_the_graph_that_grows_around_it(monkeypatch):
    walked, ancestors = [], transforms.ancestors

    def counted(root, ends):
        walked.append(len(found := ancestors(root, ends)))
        return found

    monkeypatch.setattr(transforms, "ancestors", counted)

    def descent(lr):
        x = mg.tensor(1.0)
        for _ in range(20):
            x = x - lr * mg.grad(lambda z: mg.sin(z) * z)(x)
        return x

    mg.grad(descent)(0.01)
    assert len(set(walked[1:20])) == 1
