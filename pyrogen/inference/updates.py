"""Optimisers' steps as operations of a graph: torch's own states and formulas, with every number an input."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

__all__ = ["Update", "update_for"]


class Update(ABC):
    """An optimiser's step, to be captured.

    Learning rate, momentum and all other numbers of a parameter group are read from a tensor, which :meth:`refresh`
    fills where a schedule changed them: no number is frozen into the graph. States are the optimiser's own tensors, so
    ``optimizer.state_dict()`` means the same with and without a compiler.

    Args:
        optimizer: the torch optimiser.
    """

    numbers: Mapping[str, Callable[[Mapping[str, Any]], float]]
    """What to compute from a parameter group on the host, in double precision."""

    reads: Sequence[str]
    """The settings of a parameter group that matter, the learning rate, which may be a tensor, first."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.seen: list[list[Any]] = [[] for _ in optimizer.param_groups]
        self.structure: tuple[Any, ...] = ()
        self.states, self.count = optimizer.state, 0
        self.inputs = [
            torch.zeros(len(self.numbers), dtype=group["params"][0].dtype, device=group["params"][0].device)
            for group in optimizer.param_groups
        ]

    def refresh(self) -> bool:
        """Write the groups' present numbers where the graph reads them, and note what the graph's form depends on.

        Returns:
            Whether the optimiser has other states than before, so that graphs change what is gone.
        """
        groups, states = self.optimizer.param_groups, self.optimizer.state
        is_other = states is not self.states or len(states) < self.count
        self.states, self.count = states, len(states)
        present = [[group[name] for name in self.reads] for group in groups]
        if present == self.seen and not any(isinstance(values[0], Tensor) for values in present):
            return is_other
        self.seen = present
        self.structure = tuple(self.structure_of(group) for group in groups)
        for group, tensor in zip(groups, self.inputs, strict=True):
            numbers = [compute(group) for compute in self.numbers.values()]
            tensor.copy_(torch.tensor(numbers, dtype=torch.float64))
        return is_other

    def prepare(self, parameters: Sequence[Tensor]) -> None:
        """Make the states of parameters that have none yet, as the optimiser itself would."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if any(p is other for other in parameters):
                    self.prepare_one(group, p, self.optimizer.state[p])

    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Take a step of parameters that have gradients."""
        grads = dict(zip(map(id, parameters), gradients, strict=True))
        for group, tensor in zip(self.optimizer.param_groups, self.inputs, strict=True):
            params = [p for p in group["params"] if id(p) in grads]
            if params:
                signed = [-grads[id(p)] if group["maximize"] else grads[id(p)] for p in params]
                number = dict(zip(self.numbers, tensor.unbind(), strict=True))
                self.step(group, number, params, signed, [self.optimizer.state[p] for p in params])

    @staticmethod
    @abstractmethod
    def structure_of(group: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what the form of a group's step depends on."""

    @staticmethod
    @abstractmethod
    def prepare_one(group: Mapping[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        """Make a parameter's state."""

    @staticmethod
    @abstractmethod
    def step(
        group: Mapping[str, Any],
        number: Mapping[str, Tensor],
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
    ) -> None:
        """Change a group's parameters and states in place."""


class AdamUpdate(Update):
    r"""Adam and AdamW.

    .. math::
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad
        \theta_t = \theta_{t-1} - \frac{\eta}{1 - \beta_1^t} \, m_t \Big/
        \left(\sqrt{v_t / (1 - \beta_2^t)} + \epsilon\right)

    References:
        Adam: A Method for Stochastic Optimization (Kingma and Ba, 2015), https://arxiv.org/abs/1412.6980

        Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2019), https://arxiv.org/abs/1711.05101
    """

    numbers = {  # noqa: RUF012
        "lr": lambda group: float(group["lr"]),
        "beta1": lambda group: group["betas"][0],
        "one_minus_beta1": lambda group: 1 - group["betas"][0],
        "beta2": lambda group: group["betas"][1],
        "one_minus_beta2": lambda group: 1 - group["betas"][1],
        "log_beta1": lambda group: log(group["betas"][0]) if group["betas"][0] else float("-inf"),
        "log_beta2": lambda group: log(group["betas"][1]) if group["betas"][1] else float("-inf"),
        "eps": lambda group: group["eps"],
        "weight_decay": lambda group: group["weight_decay"],
        "kept": lambda group: 1 - float(group["lr"]) * group["weight_decay"],
    }
    reads = ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay", "amsgrad", "maximize")

    @staticmethod
    def structure_of(group: Mapping[str, Any]) -> tuple[Any, ...]:
        return bool(group["weight_decay"]), group["decoupled_weight_decay"], group["amsgrad"], group["maximize"]

    @staticmethod
    def prepare_one(group: Mapping[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        if not state:
            is_double = torch.get_default_dtype() == torch.float64 and not group["fused"]  # as torch has it
            state["step"] = torch.zeros((), dtype=torch.float64 if is_double else torch.float32)
            for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])):
                state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["step"] = state["step"].to(p.device)

    @staticmethod
    def step(
        group: Mapping[str, Any],
        number: Mapping[str, Tensor],
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
    ) -> None:
        steps = torch.stack([state["step"] for state in states]) + 1
        correction1 = _one_minus_power(number["log_beta1"], steps).to(params[0].dtype)
        correction2 = _one_minus_power(number["log_beta2"], steps).to(params[0].dtype)
        sizes, roots = (number["lr"] / correction1).unbind(), correction2.rsqrt().unbind()
        for p, g, state, step, size, root in zip(params, grads, states, steps.unbind(), sizes, roots, strict=True):
            old = p
            if group["weight_decay"] and group["decoupled_weight_decay"]:
                old = p * number["kept"]
            elif group["weight_decay"]:
                g = g + number["weight_decay"] * p
            m = state["exp_avg"] * number["beta1"] + g * number["one_minus_beta1"]
            v = state["exp_avg_sq"] * number["beta2"] + g * g * number["one_minus_beta2"]
            largest = v
            if group["amsgrad"]:
                largest = torch.maximum(state["max_exp_avg_sq"], v)
                state["max_exp_avg_sq"].copy_(largest)
            state["step"].copy_(step)
            state["exp_avg"].copy_(m)
            state["exp_avg_sq"].copy_(v)
            p.copy_(old - size * m / (largest.sqrt() * root + number["eps"]))


class SGDUpdate(Update):
    r"""Stochastic gradient descent, with momentum without dampening.

    .. math:: b_t = \mu b_{t-1} + g_t, \quad \theta_t = \theta_{t-1} - \eta \, b_t
    """

    numbers = {  # noqa: RUF012
        "lr": lambda group: float(group["lr"]),
        "momentum": lambda group: group["momentum"],
        "weight_decay": lambda group: group["weight_decay"],
    }
    reads = ("lr", "momentum", "weight_decay", "nesterov", "maximize")

    @staticmethod
    def structure_of(group: Mapping[str, Any]) -> tuple[Any, ...]:
        return bool(group["weight_decay"]), bool(group["momentum"]), group["nesterov"], group["maximize"]

    @staticmethod
    def prepare_one(group: Mapping[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        if group["momentum"] and state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)

    @staticmethod
    def step(
        group: Mapping[str, Any],
        number: Mapping[str, Tensor],
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
    ) -> None:
        for p, g, state in zip(params, grads, states, strict=True):
            if group["weight_decay"]:
                g = g + number["weight_decay"] * p
            if group["momentum"]:
                buffer = number["momentum"] * state["momentum_buffer"] + g
                state["momentum_buffer"].copy_(buffer)
                g = g + number["momentum"] * buffer if group["nesterov"] else buffer
            p.copy_(p - number["lr"] * g)


def _one_minus_power(log_beta: Tensor, steps: Tensor) -> Tensor:
    r"""Return :math:`1 - \beta^t` without cancellation.

    .. math:: 1 - e^{-2a} = \frac{2 u}{1 + u}, \quad u = \tanh a, \quad a = -\tfrac{1}{2} t \log \beta
    """
    u = (-0.5 * steps * log_beta).tanh()
    return 2 * u / (1 + u)


def update_for(optimizer: Optimizer) -> Update | None:
    """Return an optimiser's step for a graph; ``None`` where the optimiser must take it itself.

    That is the case for other optimisers than ``Adam``, ``AdamW`` and ``SGD``, and for what these do besides the
    formula: dampening, complex numbers, hooks, groups of mixed types.
    """
    made = {Adam: AdamUpdate, AdamW: AdamUpdate, SGD: SGDUpdate}.get(type(optimizer))
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if made is None or hooks or not all(_is_plain(group) for group in optimizer.param_groups):
        return None
    return made(optimizer)


def _is_plain(group: Mapping[str, Any]) -> bool:
    kinds = {(p.dtype, p.device) for p in group["params"]}
    unusual = group.get("dampening") or group.get("differentiable") or any(p.is_complex() for p in group["params"])
    return len(kinds) == 1 and not unusual
