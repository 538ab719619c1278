"""The duties of a pair besides the right numbers, and of a check: it leaves no trace."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.verify import campaign, check_backward, gradcheck
from verify import corpus
from verify.pairs import EPS, INPUTS, checked, squared


def test_a_cache_may_hold_objects_whose_slots_cannot_be_read():
    class Foreign:
        @property
        def __weakref__(self):
            raise TypeError("descriptor of another type")

    Foreign.__slots__ = ("__weakref__",)
    report = check_backward(
        lambda x: (x * x, (x, Foreign())), lambda dy, c: [2 * dy * c[0]], [np.ones(3)]
    )
    assert report.ok, str(report)


def averaged(x):
    return x.mean(), x


def plus_bias(x, b):
    return x + b, None


def squared_as_in_torch(x):
    return x * x, {"slope": 2 * x}


def overwriting(y_bar, slope):
    y_bar *= 1
    return (y_bar * slope,)


@pytest.mark.parametrize(
    ("forward", "backward", "text"),
    [
        (
            averaged,
            lambda y_bar, x: (np.full(x.shape, y_bar),),
            "x.size = 15: perhaps a mean became a sum",
        ),
        (squared, lambda y_bar, slope: None, "got None (is a `return` missing?)"),
        (plus_bias, lambda y_bar, _: y_bar, "got ndarray (5, 3) float64"),
        (squared, lambda y_bar, slope: {"x": y_bar * slope}, "a tuple of cotangents: got dict"),
        (squared, lambda y_bar, slope: (1 * slope,), "y_bar is missing"),
        (squared, overwriting, "belongs to the caller"),
        (squared_as_in_torch, lambda ctx, y_bar: y_bar * ctx["slope"], "runs as backward(cache, y"),
        (plus_bias, lambda y_bar, _: (y_bar, y_bar), "has shape (5, 3), but b has shape (3,)"),
    ],
)
def test_what_students_forget_is_the_first_finding_and_said_plainly(forward, backward, text):
    names = ("x", "b")[: forward.__code__.co_argcount]
    report = check_backward(forward, backward, INPUTS[: len(names)], names=names)
    assert text in report.findings[0].message


@pytest.mark.parametrize("kind", [np.ma.MaskedArray, np.matrix])
def test_a_cotangent_is_a_plain_array(kind, rng):
    x = rng.normal(size=(2, 3))
    report = check_backward(lambda x: (x * x, x), lambda y_bar, x: (kind(2 * y_bar * x),), [x])
    assert report.findings[0].cause == kind.__name__


def test_a_view_of_an_input_is_called_one():
    def flat(x):
        return x.reshape(-1), x.shape

    report = check_backward(flat, lambda y_bar, s: (y_bar.reshape(s).copy(),), [INPUTS[0]])
    assert [finding.cause for finding in report.findings] == ["a view of an input"]


def fingerprint(arrays):
    state = np.random.get_state()  # noqa: NPY002
    return [a.tobytes() for a in arrays], state[1].tobytes(), state[2], np.geterr()


@pytest.mark.parametrize("name", ["x overwritten", "random seed set", "error state set", "reads y"])
def test_a_check_leaves_no_trace_of_what_the_subject_does(name):
    before = fingerprint(INPUTS)
    checked(name)
    campaign(corpus.WRONG[name][0], [("here", INPUTS, EPS)])
    assert fingerprint(INPUTS) == before


@pytest.fixture
def pcg64():
    """NumPy's global random numbers from PCG64, whose state has other entries than MT19937's."""
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    yield
    np.random.set_bit_generator(before)


@pytest.mark.usefixtures("pcg64")
def test_global_state_may_be_that_of_any_bit_generator():
    def draws(x):
        return x + 0 * np.random.uniform(), None  # noqa: NPY002

    before = np.random.get_state(legacy=False)  # noqa: NPY002
    report = check_backward(draws, lambda y_bar, _: (y_bar.copy(),), [INPUTS[0]])
    assert [finding.message for finding in report.findings] == [
        "forward changes NumPy's random state"
    ]
    gradcheck(lambda x: x * draws(x)[0], [INPUTS[0]]).raise_if_failed()
    assert np.random.get_state(legacy=False) == before  # noqa: NPY002


def doubles(x, m):
    m *= 2
    return x * m, m.copy()


def clips(x, m):
    m[m > 0] = 1
    return x * m, m.copy()


def halves_in_a_list(x, m):
    m[0] *= 0.5
    return x * m[0], m[0].copy()


def later(dy, m):
    m += 1
    return (dy * (m - 1),)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("forward", "backward"), [
    (doubles, lambda dy, m: (dy * m,)), (clips, lambda dy, m: (dy * m,)),
    (halves_in_a_list, lambda dy, m: (dy * m,)), (lambda x, m: (x * m, m), later),
])  # fmt: skip
def test_arrays_in_params_are_watched_and_stay_as_they_are(forward, backward, seed):
    rng = np.random.default_rng(seed)
    x, m = rng.normal(size=(2, 5))
    before, given = m.copy(), [m] if forward is halves_in_a_list else m
    report = check_backward(forward, backward, [x], params={"m": given}, rng=seed)
    assert (m == before).all()
    assert ("purity", "mutated input") in {(f.kind, f.cause) for f in report.findings}, str(report)
    assert not any(finding.kind == "value" for finding in report.findings), str(report)
    points = [("", [x], {"m": given})]
    assert not campaign(lambda: (forward, backward), points).ok
    assert (m == before).all()
    assert check_backward(lambda x, m: (x * m, m), lambda dy, m: (dy * m,), [x], params={"m": m}).ok


def test_a_gradcheck_of_a_layer_leaves_its_statistics_alone_even_after_an_exception():
    running = mg.tensor(np.zeros(3), name="running mean")
    weight = mg.tensor(np.ones(3), requires_grad=True)
    kept = running.node, running.data.tobytes()
    calls = []

    def layer(x, fail=None):
        running.data = 0.9 * running.data + 0.1 * np.asarray(x.data, np.float64).mean(0)
        calls.append(running.data.copy())
        if fail is not None and len(calls) > fail:
            raise RuntimeError("in the middle")
        return mg.batch_norm(x, weight, np.zeros(3))

    before = fingerprint([running.data, weight.data])
    assert gradcheck(layer, [INPUTS[0]], order=2).ok
    assert len(calls) > 10
    limit = len(calls) + 7
    with pytest.raises(RuntimeError, match="in the middle"):
        gradcheck(lambda x: layer(x, fail=limit), [INPUTS[0]])
    assert fingerprint([running.data, weight.data]) == before
    assert (running.node, running.data.tobytes()) == kept
    assert weight.grad is None
    assert not running.node.overwritten


def test_a_pair_that_keeps_its_own_result_is_right_and_says_so(rng):
    def forward(x):
        y = np.tanh(x)
        return y, y

    def scaled(x, w, b):
        y = np.tanh(x * w + b)
        return y, (x, w, y)

    def guarded(y_bar, y):
        assert (np.abs(y) <= 1).all()
        return (y_bar * (1 - y * y),)

    def scaled_backward(y_bar, cache):
        x, w, y = cache
        g = y_bar * (1 - y * y)
        return g * w, (g * x).sum(0), g.sum(0)

    for report in (
        check_backward(forward, lambda y_bar, y: (y_bar * (1 - y * y),), [rng.normal(size=5)]),
        check_backward(forward, guarded, [rng.normal(size=5)]),
        check_backward(scaled, scaled_backward, INPUTS),
    ):
        assert report.ok, str(report)
        assert [note.kind for note in report.notes] == ["retained"]


def test_a_pair_for_the_shapes_of_this_point_is_right_and_says_what_fails_elsewhere(rng):
    def forward(x, gamma, beta):
        xc = x - x.mean(axis=0)
        inv_std = 1 / np.sqrt((xc**2).mean(axis=0) + 1e-5)
        return gamma * xc * inv_std + beta, (xc * inv_std, inv_std, gamma)

    def backward(y_bar, cache):
        x_hat, inv_std, gamma = cache
        gamma_bar, beta_bar = np.zeros(3), np.zeros(3)
        for row, normalized in zip(y_bar, x_hat, strict=True):
            gamma_bar += row * normalized
            beta_bar += row
        n = len(y_bar)
        return gamma * inv_std * (y_bar - beta_bar / n - x_hat * gamma_bar / n), gamma_bar, beta_bar

    inputs = [rng.normal(size=s) for s in ((6, 3), 3, 3)]
    report = check_backward(forward, backward, inputs, names=["z", "gamma", "beta"])
    assert report.ok, str(report)
    (note,) = report.notes
    assert note.kind == "shapes"
    assert "forward takes z (3, 6), too, but backward fails there: ValueError" in note.message


@pytest.mark.parametrize("kept", [True, False])
def test_weights_that_a_backward_keeps_from_its_first_call_are_found(kept, rng):
    first = {}

    def backward(y_bar, cache):
        x, w = cache
        turned = first.setdefault("w.T", w.T.copy()) if kept else w.T
        return y_bar @ turned, x.T @ y_bar

    inputs = [rng.normal(size=(2, 3)), rng.normal(size=(3, 4))]
    report = check_backward(lambda x, w: (x @ w, (x, w)), backward, inputs, names=["x", "w"])
    assert report.ok != kept, str(report)
    assert [f.cause[:12] for f in report.findings] == ["stale buffer"] * kept


@pytest.mark.parametrize("kept", [True, False])
def test_a_cache_kept_from_the_first_call_is_found_although_a_common_factor_changes_nothing(
    kept, rng
):
    first = {}

    def forward(p, q):
        m = (p + q) / 2
        return 0.5 * (p * np.log(p / m) + q * np.log(q / m)), (p, q, m)

    def backward(y_bar, cache):
        p, q, m = first.setdefault("cache", cache) if kept else cache
        return 0.5 * y_bar * np.log(p / m), 0.5 * y_bar * np.log(q / m)

    inputs = [rng.uniform(0.1, 1, size=(3, 4)), rng.uniform(0.1, 1, size=(3, 4))]
    report = check_backward(forward, backward, inputs)
    assert report.ok != kept, str(report)
    assert {f.cause[:12] for f in report.findings} == ({"stale buffer"} if kept else set())


def squared_into(buffer):
    return lambda x: (np.multiply(x, x, out=buffer), 2 * x), times


def times(y_bar, slope):
    return (y_bar * slope,)


def added_to(total):
    return squared, lambda y_bar, slope: (np.add(total, y_bar * slope, out=total),)


def in_its_output():
    def forward(x):
        y = np.exp(x)
        return y, y

    def backward(y_bar, y):
        y *= y_bar
        return (y.copy(),)

    return forward, backward


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: squared_into(np.empty((5, 3))), "y of one call shares memory with y of the next"),
        (lambda: added_to(np.zeros((5, 3))), "x_bar of one call is changed by the next call"),
        (in_its_output, "backward changed y in place"),
    ],
)
def test_an_array_that_is_used_again_is_found(make, text):
    report = check_backward(*make(), INPUTS[:1])
    assert text in [finding.message for finding in report.findings], str(report)


def test_a_cotangent_may_not_live_in_the_cache():
    def forward(x):
        return x * x, (2 * x, np.empty_like(x))

    def backward(y_bar, cache):
        slope, scratch = cache
        return (np.multiply(y_bar, slope, out=scratch),)

    report = check_backward(forward, backward, INPUTS[:1])
    (finding,) = report.findings
    assert finding.message == "x_bar of two calls with the same cache shares memory"
