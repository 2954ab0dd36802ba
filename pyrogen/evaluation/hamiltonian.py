"""Moves along the gradient of a density that keep it as it is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrogen.evaluation.latents import Latents, State

__all__ = ["Hamiltonian", "tuned"]

TARGET = 0.65
"""The share of moves that are accepted at the best size of steps (Neal, 2011)."""

GROWTH = 1.05
"""What a step grows by after as many moves were accepted, and shrinks by otherwise."""


class Hamiltonian:
    r"""A path between a program to start from and a model's posterior, with Hamiltonian moves.

    A momentum :math:`r \sim \mathcal{N}(0, I)` is drawn, leapfrog steps follow
    :math:`H_\beta(z, r) = -\log f_\beta(z) + r^\top r / 2`, and where they end is accepted with probability
    :math:`\min(1, \exp(H_\beta(z, r) - H_\beta(z', r')))`, chain by chain and datum by datum.

    Args:
        latents: of a model.
        step_sizes: of every move on the path, shape ``(moves, data)``; nothing is tuned on the way, which would bias
            the weights.
        num_leapfrog: steps in a move.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
    """

    def __init__(self, latents: Latents, step_sizes: Tensor, num_leapfrog: int = 10) -> None:
        self.latents, self.step_sizes, self.num_leapfrog = latents, step_sizes, num_leapfrog
        self.accepted: Tensor | None = None

    def log_ratio(self, state: State) -> Tensor:
        with torch.no_grad():
            log_q, log_p = self.latents.log_densities(state)
        return log_p - log_q

    def select(self, state: State, chains: Tensor) -> State:
        return self.latents.select(state, chains)

    def move(self, state: State, beta: float, step: int) -> State:
        sizes = self.latents.spread(self.step_sizes[step - 1 : step], state)
        momentum = {name: torch.randn_like(z) for name, z in state.items()}
        energy, slope = self._energy(state, beta)
        before = energy + self._kinetic(momentum)
        z, r = state, momentum
        for _ in range(self.num_leapfrog):
            r = {name: r[name] - sizes[name] / 2 * slope[name] for name in z}
            z = {name: z[name] + sizes[name] * r[name] for name in z}
            energy, slope = self._energy(z, beta)
            r = {name: r[name] - sizes[name] / 2 * slope[name] for name in z}
        fallen = before - energy - self._kinetic(r)
        accepted = torch.rand_like(fallen).log() < fallen  # and not where the energy is NaN
        self.accepted = accepted
        takes = self.latents.spread(accepted, state)
        return {name: torch.where(takes[name], z[name], state[name]) for name in z}

    def _energy(self, state: State, beta: float) -> tuple[Tensor, State]:
        r"""Return :math:`-\log f_\beta`, shape ``(chains, data)``, and its gradient."""
        with torch.enable_grad():
            z = {name: value.detach().requires_grad_() for name, value in state.items()}
            log_q, log_p = self.latents.log_densities(z)
            energy = -(log_q + beta * (log_p - log_q))
            slope = torch.autograd.grad(energy.sum(), list(z.values()), allow_unused=True, materialize_grads=True)
        return energy.detach(), dict(zip(z, slope, strict=True))

    def _kinetic(self, momentum: State) -> Tensor:
        return self.latents.total({name: r.square() / 2 for name, r in momentum.items()})


def tuned(latents: Latents, betas: Sequence[float], num_leapfrog: int, first: float = 0.1) -> Hamiltonian:
    """Find step sizes by going along the path once, and return moves that have them, frozen.

    The size of a datum's steps grows where more than 65% of its chains accept a move, and shrinks otherwise.
    """
    state = latents.draw()
    sizes = next(iter(state.values())).new_full((len(betas) - 1, latents.num_data), first)
    path = Hamiltonian(latents, sizes, num_leapfrog)
    for step in range(1, len(betas)):
        state = path.move(state, betas[step], step)
        assert path.accepted is not None
        grows = path.accepted.to(sizes.dtype).mean(0) > TARGET
        if step < len(sizes):
            sizes[step] = sizes[step - 1] * torch.where(grows, GROWTH, 1 / GROWTH)
    return Hamiltonian(latents, sizes, num_leapfrog)
