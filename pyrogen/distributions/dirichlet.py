"""Averages of Dirichlet distributions, by their concentrations."""

from torch import Tensor

__all__ = ["log_geometric_mean", "log_mean"]


def log_geometric_mean(concentration: Tensor) -> Tensor:
    r"""Return :math:`\mathbb{E}[\log \theta] = \psi(\gamma_k) - \psi(\sum_j \gamma_j)` of a Dirichlet distribution."""
    return concentration.digamma() - concentration.sum(-1, keepdim=True).digamma()


def log_mean(concentration: Tensor) -> Tensor:
    r"""Return :math:`\log \mathbb{E}[\theta] = \log \gamma_k - \log \sum_j \gamma_j`."""
    return concentration.log() - concentration.sum(-1, keepdim=True).log()
