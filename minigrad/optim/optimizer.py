"""Optimizers, which read the ``.grad`` of each parameter and assign its new value."""

from collections.abc import Iterable
from math import sqrt
from numbers import Real
from typing import Any

import numpy as np

from minigrad import backend
from minigrad.errors import (
    UsageError,
    check_count,
    check_keys,
    check_number,
    describe,
    facts,
    hinting,
    is_within,
    naming,
)
from minigrad.fused.foreach import axpby, on_gpu
from minigrad.tensor import Tensor


class Optimizer:
    """Base class: groups of parameters with their options, and the state of each parameter.

    Args:
        params: Tensors, or one dict per group, ``{"params": Tensors, "lr": ...}``.
        defaults: the options of a group that does not set its own.

    Raises:
        UsageError: no parameters, one given twice, or an option out of its range.
    """

    # rules of PyTorch's optimizers that are missing; a group or a loaded state may ask for them
    _absent = "amsgrad", "maximize", "decoupled_weight_decay"

    def __init__(self, params: Iterable, **defaults: Any):
        groups = listed(params)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []
        for group in groups:
            self.add_param_group(group)
        if not self.state:
            raise UsageError(f"{type(self).__name__}: no parameters")

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add ``{"params": Tensors, "lr": ...}``, to be updated from the next step on.

        Raises:
            UsageError: no key ``params``, a Tensor given twice, or an option out of its range.
        """
        kind = type(self).__name__
        check_keys("optimizer: group", group, "params")
        group = {**self.defaults, **group, "params": leaf_tensors(group["params"])}
        ids = [id(p) for p in (*self.parameters, *group["params"])]
        if len(set(ids)) < len(ids):
            got = f"{len(ids)} Tensors, {len(set(ids))} distinct"
            raise UsageError(facts(f"{kind}: params", expected="each Tensor once", got=got))
        self.param_groups.append(_checked_options(self, group))
        self.state += [{} for _ in group["params"]]

    def __repr__(self) -> str:
        def options(group: dict[str, Any]) -> str:
            return ", ".join(f"{key}={group[key]!r}" for key in group if key != "params")

        return f"{type(self).__name__}({'; '.join(map(options, self.param_groups))})"

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of all groups, in order."""
        return [p for group in self.param_groups for p in group["params"]]

    @hinting
    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self.parameters:
            p.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        if len(self.state) != len(self.parameters):
            expected, got = f"the {len(self.state)} known parameters", f"{len(self.parameters)}"
            remedy = "add more with optimizer.add_param_group({'params': ...})"
            raise UsageError(facts("optimizer: step", expected=expected, got=got, remedy=remedy))
        states = iter(self.state)
        for group in self.param_groups:
            pairs = zip(group["params"], states, strict=False)  # stops at the end of the group
            with_grad = [(p, p.grad.array, state) for p, state in pairs if p.grad is not None]
            for p, _, state in with_grad:  # net.to(...) may have changed p since the last step
                for name, value in state.items():
                    if value.__class__ is not p.array.__class__ and hasattr(value, "shape"):
                        value = state[name] = backend.to_device(value, p.device)
                    if hasattr(value, "shape") and _is_narrower(value.dtype, p.dtype):
                        state[name] = value.astype(p.dtype)  # else it would round p
            self.step_group(with_grad, group)

    def step_group(self, with_grad: list[tuple[Tensor, Any, dict]], group: dict[str, Any]) -> None:
        """Update the parameters of a group that have a gradient, each ``(p, gradient, state)``.

        One by one, so that each new array can reuse the memory that the last update freed.
        """
        for p, g, state in with_grad:
            p._replace(self.update(p.array, g, state, group), own=True)

    def update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        """The new value of the array ``p`` with gradient ``g``: the rule of a subclass.

        It must be a new array: the parameter keeps it without a copy.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update()")

    def state_dict(self) -> dict[str, Any]:
        """``{"state": one dict of arrays per parameter, "param_groups": the options}``."""
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        return {"state": [dict(s) for s in self.state], "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned; arrays are moved to the devices of the parameters.

        Raises:
            UsageError: another number of groups or parameters, lists in place of arrays, arrays of
                other shapes, options out of their range or of another optimizer.
            DTypeError: arrays that are not of real numbers.
        """
        title, kind = "optimizer.load_state_dict", type(self).__name__
        states, groups = check_keys(title, state_dict, "state", "param_groups")
        if not isinstance(states, (list, tuple)):  # PyTorch's is a dict, keyed by numbers
            remedy = "convert PyTorch's state to [{name: value.numpy(), ...}, ...]"
            expected, got = "a list of dicts of arrays, one per parameter", type(states).__name__
            headline = f"{title}: state"
            raise UsageError(facts(headline, expected=expected, got=got, remedy=remedy))
        if not isinstance(groups, (list, tuple)):
            expected, got = "a list of dicts of options, one per group", describe(groups)
            raise UsageError(facts(f"{title}: param_groups", expected=expected, got=got))
        if len(states) != len(self.state) or len(groups) != len(self.param_groups):
            expected = f"{len(self.param_groups)} groups, {len(self.state)} parameters"
            got = f"{len(groups)} groups, {len(states)} parameters"
            raise UsageError(facts(title, expected=expected, got=got))
        pairs = zip(self.parameters, states, strict=True)
        states = [_checked_state(title, i, p, state) for i, (p, state) in enumerate(pairs)]
        for options in groups:
            check_keys(f"{title}: a group of {kind}", options, *self.defaults)
        # "params" stays: in a state of PyTorch it holds numbers in place of the parameters
        checked = [
            _checked_options(self, {**group, **options, "params": group["params"]})
            for group, options in zip(self.param_groups, groups, strict=True)
        ]
        self.state = states
        for group, options in zip(self.param_groups, checked, strict=True):
            group.update(options)


def listed(params: Iterable, what: str = "optimizer: params") -> list[Any]:
    """``params`` as a list; a single Tensor counts as one parameter, not as its rows.

    Raises:
        UsageError: a module, or something else that is not an iterable of Tensors; names ``what``.
    """
    if isinstance(params, Tensor):
        return [params]
    is_module = hasattr(params, "parameters")  # even if it is iterable, as nn.Sequential is
    if is_module or not isinstance(params, Iterable):
        expected, got = "an iterable of Tensors", type(params).__name__
        remedy = "model.parameters()" if is_module else ""
        raise UsageError(facts(what, expected=expected, got=got, remedy=remedy))
    return list(params)


def leaf_tensors(params: Iterable, what: str = "optimizer: params") -> list[Tensor]:
    """``params`` as a list; UsageError, which names ``what``, unless all are leaf Tensors."""
    params = listed(params, what)
    for p in params:
        if not (isinstance(p, Tensor) and p.is_leaf):
            got = type(p).__name__
            raise UsageError(facts(what, expected="leaf Tensors", got=got))
    return params


def _is_narrower(dtype: np.dtype, than: np.dtype) -> bool:
    return dtype.kind == "f" and dtype.itemsize < than.itemsize


def _own(array: Any, device: str) -> Any:
    """``array`` on ``device``; a copy on the host, where the caller could still write to it."""
    return backend.to_device(np.array(array) if isinstance(array, np.ndarray) else array, device)


def _checked_state(title: str, i: int, p: Tensor, state: Any) -> dict[str, Any]:
    """A copy of ``state`` for ``p``, parameter number ``i``; UsageError if it does not fit."""
    if not isinstance(state, dict):
        headline = f"{title}: state of parameter {i}"
        raise UsageError(facts(headline, expected="a dict", got=describe(state)))
    own = {}
    for name, value in state.items():
        headline = f"{title}: {name} of parameter {i}"
        if isinstance(value, (str, list, tuple)):  # as of JSON
            raise UsageError(facts(headline, expected="an array or a number", got=describe(value)))
        with naming(headline):
            backend.real(value)
        shape = getattr(value, "shape", ())
        if shape not in ((), p.shape):
            raise UsageError(facts(headline, expected=p.shape, got=shape))
        if name == "step" and shape == ():
            if hasattr(value, "shape"):  # PyTorch's is float32: 1 - beta**t would lose digits
                number = value.item()
                value = int(number) if number % 1 == 0 else number
            value = check_count(headline, value, least=0)
        own[name] = _own(value, p.device) if hasattr(value, "shape") else value
    return own


def _checked_options(optimizer: Optimizer, options: dict[str, Any]) -> dict[str, Any]:
    """Check ``options``, and make numbers floats: NumPy's would turn float32 state into float64."""
    kind, known = type(optimizer).__name__, optimizer.defaults
    for name in optimizer._absent:
        if options.get(name) and name not in known:
            expected, got = f"only {', '.join(known)}", f"{name}={options[name]}"
            raise UsageError(facts(f"{kind}: {name}", expected=expected, got=got))
    names = [n for n in ("lr", "momentum", "dampening", "weight_decay", "eps") if n in options]
    options = {**options, **{n: check_number(f"{kind}: {n}", options[n]) for n in names}}
    if "betas" in options:
        betas = options["betas"]
        is_pair = isinstance(betas, (tuple, list)) and len(betas) == 2
        if not is_pair or not all(is_within(beta, 0, 1) and beta < 1 for beta in betas):
            got = describe(betas)
            raise UsageError(facts(f"{kind}: betas", expected="two numbers in [0, 1)", got=got))
        options["betas"] = tuple(map(float, betas))
    if options.get("nesterov") and (not options.get("momentum") or options.get("dampening")):
        got = ", ".join(f"{name}={options.get(name)}" for name in ("momentum", "dampening"))
        raise UsageError(
            facts(f"{kind}: nesterov", expected="momentum > 0, dampening = 0", got=got)
        )
    return options


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raise UsageError unless ``optimizer``, or a wrapper such as AGC, has parameter groups."""
    if not hasattr(optimizer, "param_groups"):
        raise UsageError(facts(name, expected="an optimizer", got=describe(optimizer)))


class SGD(Optimizer):
    """Stochastic gradient descent: ``p = p - lr * d``.

    ``d = g + weight_decay * p``. With momentum, ``v = momentum * v + (1 - dampening) * d`` (v = d
    at the first step) and then ``d = v``, or ``d = d + momentum * v`` in Nesterov's form.

    Args:
        params: see ``Optimizer``.
        lr: learning rate.
        momentum, dampening, weight_decay: numbers in the formulas above.
        nesterov: use Nesterov's form, which needs a momentum and no dampening.

    Source:
        Sutskever, Martens, Dahl, Hinton 2013, On the importance of initialization and momentum.

    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> (3.0 * w).sum().backward()
    >>> mg.optim.SGD([w], lr=0.1).step()
    >>> w.numpy()
    array([0.7])
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening,
                         weight_decay=weight_decay, nesterov=nesterov)  # fmt: skip

    def update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        new = -group["lr"] * self.direction(p, g, state, group)
        new += p
        return new

    def step_group(self, with_grad: list[tuple[Tensor, Any, dict]], group: dict[str, Any]) -> None:
        lr = group["lr"]
        can_fuse = on_gpu(p.array for p, _, _ in with_grad) and isinstance(lr, Real)
        is_own_rule = getattr(self.update, "__func__", None) is SGD.update  # not a subclass's
        if not (can_fuse and is_own_rule):
            super().step_group(with_grad, group)
            return
        minus_lr = -float(lr)
        terms = [(1.0, p.array, minus_lr, self.direction(p.array, g, state, group))
                 for p, g, state in with_grad]  # fmt: skip
        for (p, _, _), new in zip(with_grad, axpby(terms), strict=True):
            p._replace(new, own=True)

    def direction(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        """The direction ``d``, with weight decay and momentum."""
        momentum = group["momentum"]
        d = _with_l2_penalty(p, g, group)
        if momentum:
            v = state.get("momentum_buffer")
            damped = (1 - group["dampening"]) * d if group["dampening"] else d
            v = +d if v is None else momentum * v + damped
            state["momentum_buffer"] = v
            d = d + momentum * v if group["nesterov"] else v
        return d


def _with_l2_penalty(p: Any, g: Any, group: dict[str, Any]) -> Any:
    """The gradient ``g`` plus that of an L2 penalty on ``p``."""
    return g + group["weight_decay"] * p if group["weight_decay"] else g


class Adam(Optimizer):
    """``p = p - lr * m_hat / (sqrt(v_hat) + eps)`` with running means m of g and v of g^2.

    ``m_hat = m / (1 - beta1^t)`` and ``v_hat = v / (1 - beta2^t)`` at step t; before,
    ``weight_decay * p`` is added to g.

    Args:
        params: see ``Optimizer``.
        lr: learning rate.
        betas: weights ``(beta1, beta2)`` of the old m and the old v in their running means.
        eps: added to ``sqrt(v_hat)``.
        weight_decay: strength of an L2 penalty.

    Source:
        Kingma, Ba 2014, arXiv:1412.6980, Algorithm 1.

    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> (3.0 * w).sum().backward()
    >>> mg.optim.Adam([w], lr=0.1).step()  # the first step has length lr
    >>> w.numpy().round(6)
    array([0.9])
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        return self.adam(p, _with_l2_penalty(p, g, group), state, group)

    def adam(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        """Algorithm 1; any weight decay is already in ``p`` or ``g``.

        Temporaries are updated in place: the page faults of a new array cost more than filling it.
        """
        beta1, beta2 = group["betas"]
        t = state.get("step", 0) + 1
        m, v = beta1 * state.get("exp_avg", 0.0), beta2 * state.get("exp_avg_sq", 0.0)
        m += (1 - beta1) * g
        v += (1 - beta2) * (g * g)
        state.update(step=t, exp_avg=m, exp_avg_sq=v)
        root = backend.namespace(v).sqrt(v)
        root /= sqrt(1 - beta2**t)
        root += group["eps"]
        new = m / root
        new *= -group["lr"] / (1 - beta1**t)
        new += p
        return new


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p = (1 - lr * weight_decay) * p - adam_step``.

    Source:
        Loshchilov, Hutter 2017, arXiv:1711.05101, Algorithm 2.

    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> w.grad = np.zeros(1)
    >>> mg.optim.AdamW([w], lr=0.1, weight_decay=0.5).step()
    >>> w.numpy()
    array([0.95])
    """

    _absent = "amsgrad", "maximize"

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        return self.adam(p * (1 - group["lr"] * group["weight_decay"]), g, state, group)
