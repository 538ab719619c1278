"""The context of a thread or task: recording, scope, observer."""

import asyncio
import functools
import threading
from contextlib import ExitStack

import pytest

import minigrad as mg
from minigrad.context import CURRENT, Scope, setting
from minigrad.nn.module import statistics_are_frozen


def test_scopes_nest_and_end():
    with mg.scope("a"), mg.scope("b"):
        inner = CURRENT.get().scope
    assert [s.name for s in inner.path()] == ["a", "b"]
    assert CURRENT.get().scope is None


def test_scopes_nest_more_deeply_than_python_recurses():
    def f(x):
        with ExitStack() as stack:
            for i in range(2000):
                stack.enter_context(mg.scope(f"s{i}"))
            return mg.exp(x)

    (second,) = mg.hvp(f, (0.5,), (1.0,))
    assert second.item() == f(0.5)


def test_two_runs_of_one_name_are_two_scopes():
    assert Scope("a") != Scope("a")
    assert len({Scope("a"), Scope("a")}) == 2


def test_settings_are_restored_after_an_error():
    with pytest.raises(KeyError), setting(recording=False), mg.scope("x"):
        raise KeyError
    assert CURRENT.get().recording and CURRENT.get().scope is None


def test_a_new_thread_starts_with_the_defaults():
    seen = []
    with mg.no_grad(), mg.scope("x"):
        thread = threading.Thread(target=lambda: seen.append(CURRENT.get()))
        thread.start()
        thread.join()
    assert seen[0].recording and seen[0].scope is None and seen[0].observer is None


def test_asyncio_tasks_have_settings_of_their_own():
    found = []

    async def quiet():
        with mg.no_grad(), mg.nn.frozen_statistics():
            await asyncio.sleep(0)

    async def loud():  # starts while quiet() is in its block, and ends after it
        with mg.scope("loud"):
            found.append((CURRENT.get().recording, statistics_are_frozen()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            found.append((CURRENT.get().scope.name, statistics_are_frozen()))

    async def both():
        await asyncio.gather(quiet(), loud())

    asyncio.run(both())
    assert found == [(True, False), ("loud", False)]


def entering(context):
    def enter(wait):
        with context:
            wait()

    return enter


@pytest.mark.parametrize("kind", [mg.no_grad, mg.anomaly_mode, lambda: mg.scope("shared")])
@pytest.mark.parametrize("use", [entering, lambda context: context(lambda wait: wait())])
def test_threads_may_share_one_context_object(kind, use):
    # A enters, B enters, A leaves, B leaves: each must get its own context back
    entered, leave = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    found, inside = {}, use(kind())

    def wait(k):
        entered[k].set()
        leave[k].wait(5)

    def work(k):
        with mg.scope(f"thread {k}"):
            inside(lambda: wait(k))
            found[k] = CURRENT.get().scope.name

    threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
    for k in (0, 1):
        threads[k].start()
        entered[k].wait(5)
    for k in (0, 1):
        leave[k].set()
        threads[k].join()
    assert found == {0: "thread 0", 1: "thread 1"}


def test_tasks_may_share_one_context_object():
    shared, found = mg.scope("shared"), []

    async def work(k):
        with mg.scope(f"task {k}"):
            with shared:
                await asyncio.sleep(0)
                found.append([scope.name for scope in CURRENT.get().scope.path()])
            await asyncio.sleep(0)
            found.append([scope.name for scope in CURRENT.get().scope.path()])

    async def both():
        with shared:  # tasks inherit this block
            await asyncio.gather(work(0), work(1))

    asyncio.run(both())
    names = [["shared", f"task {k}"] for k in (0, 1)]
    assert found == [[*path, "shared"] for path in names] + names
    assert CURRENT.get().scope is None


def test_one_object_nests_in_itself_and_a_generator_leaves_nothing_behind():
    quiet = mg.no_grad()

    def pausing():
        with quiet:
            yield

    paused = pausing()
    with quiet, mg.scope("x"), quiet:
        pass
    next(paused)
    with mg.scope("x"):
        paused.close()  # leaves a block that was entered outside of this one
    assert CURRENT.get().recording and CURRENT.get().scope is None


def test_a_decorated_function_may_call_itself():
    @mg.no_grad()
    def countdown(n):
        assert not CURRENT.get().recording
        return n if n == 0 else countdown(n - 1)

    assert countdown(3) == 0 and CURRENT.get().recording


@pytest.mark.parametrize("decorator", [mg.no_grad, mg.no_grad()])
def test_no_grad_decorates_with_parentheses_and_without(decorator):
    @decorator
    def product(x, y):
        "Multiply."
        return x * y

    x = mg.tensor(2.0, requires_grad=True)
    assert not product(x, y=3.0).requires_grad and (x * 3.0).requires_grad
    assert product.__name__ == "product" and product.__doc__ == "Multiply."


def counted():
    yield 1


async def awaited():
    return 1


@pytest.mark.parametrize("decorator", [mg.no_grad, mg.no_grad()])
@pytest.mark.parametrize("function", [counted, awaited, functools.partial(counted)])
def test_what_runs_after_the_call_cannot_be_decorated(decorator, function):
    with pytest.raises(mg.errors.UsageError, match=r"(counted|awaited).*, whose body runs later"):
        decorator(function)


def test_recorded_sweeps_run_in_mirrored_scopes():
    f = lambda x: mg.sum(mg.softmax(x) ** 2)  # noqa: E731
    g = mg.grad(f)(mg.tensor([1.0, 2.0, 4.0], requires_grad=True))
    names, stack, seen = set(), [g.node], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack.extend(node.parents)
        if node.scope is not None:
            names.add(node.scope.name)
    assert "softmax" in names and "∇ softmax" in names
