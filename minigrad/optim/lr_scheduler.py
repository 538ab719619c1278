"""Learning-rate schedules: after each epoch ``step()`` sets ``lr = base_lr * factor(epoch)``.

A schedule overwrites the rate: if two share an optimizer, the one that steps last decides, whereas
PyTorch multiplies their factors. Use one ``LambdaLR`` for a warm-up followed by a decay. Setting a
rate that is negative or not finite raises UsageError.
"""

from collections.abc import Callable, Iterable
from math import cos, inf, pi
from numbers import Real
from typing import Any

from minigrad.errors import (
    UsageError,
    check_count,
    check_keys,
    check_number,
    check_real,
    describe,
    facts,
)
from minigrad.optim.optimizer import check_optimizer
from minigrad.spelling import of_module

__getattr__ = of_module(__name__)


class LambdaLR:
    """``lr = base_lr * lr_lambda(epoch)``; the base class of all schedules.

    Args:
        optimizer: the current ``lr`` of each group is its base rate. The base rate of a group that
            is added later is its ``lr`` at the next step.
        lr_lambda: maps the number of steps taken to the factor.

    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.SGD([w], lr=1.0)
    >>> schedule = mg.optim.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Any, lr_lambda: Callable[[int], float]):
        check_optimizer(type(self).__name__, optimizer)
        if not callable(lr_lambda):  # PyTorch takes a list, too
            headline, expected = f"{type(self).__name__}: lr_lambda", "one function, for all groups"
            raise UsageError(facts(headline, expected=expected, got=describe(lr_lambda)))
        self.optimizer, self.lr_lambda = optimizer, lr_lambda
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.last_epoch = 0
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=False):
            what = f"{type(self).__name__}: lr after {self.last_epoch} epochs"
            try:
                rate = float(self._rate(base))
            except OverflowError:  # as of 2.0**1024
                rate = inf
            group["lr"] = check_number(what, rate)

    def _rate(self, base: float) -> float:
        factor: Any = self.lr_lambda(self.last_epoch)
        factor = factor.item() if getattr(factor, "shape", None) == () else factor
        return base * check_real(f"{type(self).__name__}: lr_lambda({self.last_epoch})", factor)

    def step(self) -> None:
        """Count an epoch, and set the rates of the next one."""
        added = self.optimizer.param_groups[len(self.base_lrs) :]
        self.base_lrs += [group["lr"] for group in added]
        self.last_epoch += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The current rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The number of steps and the base rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Groups that it has no base rate for count as added later: they get one at the next step.
        """
        title = f"{type(self).__name__}.load_state_dict"
        epoch, rates = check_keys(title, state_dict, "last_epoch", "base_lrs")
        check_count(f"{title}: last_epoch", epoch, least=0)
        groups = len(self.optimizer.param_groups)
        if not isinstance(rates, (list, tuple)) or not 1 <= len(rates) <= groups:
            expected, got = f"a list of 1 to {groups} base rates", describe(rates)
            raise UsageError(facts(title, expected=expected, got=got))
        rates = [check_number(f"{title}: base_lrs", rate) for rate in rates]
        self.last_epoch, self.base_lrs = epoch, rates
        self._apply()


class StepLR(LambdaLR):
    """Multiply the rate by ``gamma`` after every ``step_size`` epochs."""

    def __init__(self, optimizer: Any, step_size: int, gamma: float = 0.1):
        check_count("StepLR: step_size", step_size)
        self.step_size, self.gamma = step_size, check_real("StepLR: gamma", gamma)
        super().__init__(optimizer, self._factor)

    def _factor(self, epoch: int) -> float:
        return self.gamma ** (epoch // self.step_size)


class MultiStepLR(LambdaLR):
    """Multiply the rate by ``gamma`` after each number of epochs in ``milestones``."""

    def __init__(self, optimizer: Any, milestones: Iterable[int], gamma: float = 0.1):
        is_iterable = isinstance(milestones, Iterable)
        self.milestones = tuple(milestones) if is_iterable else ()
        self.gamma = check_real("MultiStepLR: gamma", gamma)
        if not (is_iterable and all(isinstance(m, Real) for m in self.milestones)):
            headline, expected = "MultiStepLR: milestones", "numbers of epochs, such as [30, 80]"
            raise UsageError(facts(headline, expected=expected, got=describe(milestones)))
        super().__init__(optimizer, self._factor)

    def _factor(self, epoch: int) -> float:
        return self.gamma ** sum(m <= epoch for m in self.milestones)


class ExponentialLR(LambdaLR):
    """Multiply the rate by ``gamma`` after every epoch."""

    def __init__(self, optimizer: Any, gamma: float):
        self.gamma = check_real("ExponentialLR: gamma", gamma)
        super().__init__(optimizer, self._factor)

    def _factor(self, epoch: int) -> float:
        return self.gamma**epoch


class CosineAnnealingLR(LambdaLR):
    """Follow half a cosine from the base rate to ``eta_min``, reached after ``T_max`` epochs.

    ``lr = eta_min + (base_lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2``.

    Source:
        Loshchilov, Hutter 2016, arXiv:1608.03983, eq. 5.
    """

    def __init__(self, optimizer: Any, T_max: int, eta_min: float = 0.0):
        check_count("CosineAnnealingLR: T_max", T_max)
        self.T_max, self.eta_min = T_max, check_real("CosineAnnealingLR: eta_min", eta_min)
        super().__init__(optimizer, self._factor)

    def _factor(self, epoch: int) -> float:
        return (1 + cos(pi * epoch / self.T_max)) / 2

    def _rate(self, base: float) -> float:
        return self.eta_min + (base - self.eta_min) * self.lr_lambda(self.last_epoch)


class LinearLR(LambdaLR):
    """Change the factor from ``start_factor`` to ``end_factor`` in ``total_iters`` equal steps.

    With the defaults this is a warm-up.

    >>> w = mg.tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.SGD([w], lr=1.0)
    >>> warm_up = mg.optim.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> rates = [optimizer.param_groups[0]["lr"]]
    >>> for _ in range(3):
    ...     warm_up.step()
    ...     rates.append(optimizer.param_groups[0]["lr"])
    >>> rates
    [0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Any,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ):
        check_count("LinearLR: total_iters", total_iters)
        self.start_factor = check_real("LinearLR: start_factor", start_factor)
        self.end_factor = check_real("LinearLR: end_factor", end_factor)
        self.total_iters = total_iters
        super().__init__(optimizer, self._factor)

    def _factor(self, epoch: int) -> float:
        progress = min(epoch, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * progress
