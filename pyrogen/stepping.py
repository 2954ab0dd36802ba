"""How the two players of a fit take their steps: optimisers, their rates and schedules, by plain settings."""

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from pyrogen.errors import UsageError
from pyrogen.inference import Objective

__all__ = ["Stepping", "check_settings", "has_critic", "optimizers", "targets_of"]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class Stepping(Protocol):
    """Settings that say how steps are taken; :class:`~pyrogen.recipe.Settings` has what each of them is."""

    @property
    def optimizer(self) -> Literal["adam", "adamw", "sgd"] | None: ...

    @property
    def learning_rate(self) -> float | None: ...

    @property
    def critic_learning_rate(self) -> float | None: ...

    @property
    def critic_steps(self) -> int: ...

    @property
    def beta1(self) -> float | None: ...

    @property
    def schedule(self) -> Literal["constant", "cosine"]: ...

    @property
    def clip_norm(self) -> float | None: ...

    @property
    def ema(self) -> float | None: ...


def check_settings(settings: object, **ranges: tuple[str, ...]) -> None:
    """Refuse settings that are out of range; those that are not set are in any.

    Args:
        settings: which have the settings as attributes.
        ranges: the names of settings of each kind: ``at_least_one``, ``positive`` and finite, ``fraction`` below one.

    Raises:
        UsageError: with what was found.
    """
    tests: dict[str, tuple[Callable[[Any], bool], str]] = {
        "at_least_one": (lambda value: value >= 1, "at least 1"),
        "positive": (lambda value: value > 0 and isfinite(value), "positive and finite"),
        "fraction": (lambda value: 0 <= value < 1, "in [0, 1)"),
    }
    for kind, names in ranges.items():
        holds, expected = tests[kind]
        for name in names:
            value = getattr(settings, name)
            if value is not None and not holds(value):
                raise UsageError(f"{name} must be {expected}, found {value}")


def has_critic(objective: Objective) -> bool:
    """Tell whether an objective has parameters that learn."""
    return any(p.requires_grad for p in objective.parameters())


def targets_of(objective: Objective) -> Callable[..., dict[str, Tensor]] | None:
    """Return an objective's method ``targets``, if it has one: it may then learn from a recording several times."""
    targets = getattr(objective, "targets", None)
    return targets if callable(targets) else None


def optimizers(
    settings: Stepping, objective: Objective, num_steps: int, betas: tuple[float, float] = (0.9, 0.999)
) -> Mapping[str, Any]:
    """Return the arguments of :func:`~pyrogen.inference.train` that say how steps are taken.

    Args:
        settings: what was set; the rest is the objective's usual.
        num_steps: how many rounds of steps there will be, for schedules that end with the last.
        betas: of Adam, the first one where it is not set.
    """
    is_cosine, two = settings.schedule == "cosine", has_critic(objective)
    chosen = settings.optimizer or objective.optimizer
    rate = settings.learning_rate or objective.learning_rate
    make = partial(OPTIMIZERS[chosen], fused=True)
    if chosen != "sgd":
        make = partial(make, betas=betas if settings.beta1 is None else (settings.beta1, betas[1]))
    critic_steps = num_steps * settings.critic_steps
    return {
        "optimizer": partial(make, lr=rate),
        "critic_optimizer": partial(make, lr=settings.critic_learning_rate or rate) if two else None,
        "scheduler": partial(_cosine, num_steps=num_steps) if is_cosine else None,
        "critic_scheduler": partial(_cosine, num_steps=critic_steps) if is_cosine and two else None,
        "clip_norm": settings.clip_norm,
        "ema": settings.ema,
    }


def _cosine(optimizer: torch.optim.Optimizer, num_steps: int) -> LRScheduler:
    return CosineAnnealingLR(optimizer, num_steps)
