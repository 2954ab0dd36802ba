r"""The programs of ``compile.py`` without Pyro: :math:`-\log p(x, z) + \log q(z \mid x)`, written out in torch.

Each shares the networks of its program, or starts where its parameters start. Constants that cancel are left out.
"""

from math import expm1, log, pi, tau

import torch
from compile_programs import VAE, DeepMarkovModel, EightSchools, Logistic, Mixture, Program, Topics
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

__all__ = ["by_hand"]

SCALE = log(expm1(0.1))
"""Before softplus: the scale at which AutoNormal starts."""


def divergence(z: Tensor, noise: Tensor, log_scale: Tensor) -> Tensor:
    r"""Return :math:`\log q(z) - \log p(z)` for a standard normal prior and :math:`z = \mu + \sigma\epsilon`."""
    return (0.5 * (z * z - noise * noise) - log_scale).sum()


class VAELoss(nn.Module):
    def __init__(self, program: VAE) -> None:
        super().__init__()
        self.encoder, self.decoder = program.encoder, program.decoder

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        noise = torch.randn_like(loc)
        z = loc + log_scale.exp() * noise
        reconstruction = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        return reconstruction + divergence(z, noise, log_scale)


class EightSchoolsLoss(nn.Module):
    """One vector of latents: mu, the logarithm of tau, and eight theta."""

    def __init__(self, _: EightSchools) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(10))
        self.scale = nn.Parameter(torch.full((10,), SCALE))

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        scale = softplus(self.scale)
        noise = torch.randn_like(scale)
        z = self.loc + scale * noise
        mu, log_tau, theta = z[0], z[1], z[2:]
        log_q = -(0.5 * noise * noise + scale.log()).sum() - 5 * log(tau) - log_tau
        log_p = -0.5 * (mu / 5) ** 2 - log(5) - 0.5 * log(tau)
        log_p = log_p + log(2 / (5 * pi)) - ((log_tau.exp() / 5) ** 2).log1p()
        log_p = log_p - (0.5 * ((theta - mu) / log_tau.exp()) ** 2 + log_tau + 0.5 * log(tau)).sum()
        log_p = log_p - (0.5 * ((y - theta) / sigma) ** 2 + sigma.log() + 0.5 * log(tau)).sum()
        return log_q - log_p


class LogisticLoss(nn.Module):
    """One vector of latents: 54 weights and the bias."""

    def __init__(self, _: Logistic) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(55))
        self.scale = nn.Parameter(torch.full((55,), SCALE))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale = softplus(self.scale)
        noise = torch.randn_like(scale)
        z = self.loc + scale * noise
        logits = x @ z[:-1] + z[-1]
        return binary_cross_entropy_with_logits(logits, y, reduction="sum") + divergence(z, noise, scale.log())


class MixtureLoss(nn.Module):
    def __init__(self, program: Mixture) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(5))
        self.locs = nn.Parameter(program.start.clone())
        self.log_scales = nn.Parameter(torch.zeros(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        standard = (x[:, None] - self.locs) / self.log_scales.exp()
        log_p = (-0.5 * standard**2 - self.log_scales - 0.5 * log(tau)).sum(-1)
        return -(log_p + self.logits.log_softmax(-1)).logsumexp(-1).sum()


class TopicsLoss(nn.Module):
    def __init__(self, program: Topics) -> None:
        super().__init__()
        self.encoder = program.encoder
        self.topics = nn.Parameter(program.start.clone())

    def forward(self, counts: Tensor) -> Tensor:
        loc, log_scale = self.encoder(counts).chunk(2, -1)
        noise = torch.randn_like(loc)
        z = loc + log_scale.exp() * noise
        words = z.softmax(-1) @ self.topics.softmax(-1)
        return divergence(z, noise, log_scale) - (counts * words.log()).sum()


class DeepMarkovLoss(nn.Module):
    """The loop over time in Python; the constants of the normals cancel."""

    def __init__(self, program: DeepMarkovModel) -> None:
        super().__init__()
        self.networks = program

    def forward(self, x: Tensor) -> Tensor:
        networks = self.networks
        read = networks.rnn(x.flip(1))[0].flip(1)
        z = x.new_zeros(len(x), 16)
        loss = x.new_zeros(())
        for t in range(x.shape[1]):
            prior, prior_scale = networks.transition(z).chunk(2, -1)
            loc, scale = networks.combiner(0.5 * (torch.tanh(networks.lift(z)) + read[:, t])).chunk(2, -1)
            prior_scale, scale = softplus(prior_scale), softplus(scale)
            noise = torch.randn_like(loc)
            z = loc + scale * noise
            log_ratio = 0.5 * (((z - prior) / prior_scale) ** 2 - noise**2) + prior_scale.log() - scale.log()
            emission = binary_cross_entropy_with_logits(networks.emitter(z), x[:, t], reduction="sum")
            loss = loss + emission + log_ratio.sum()
        return loss


LOSSES: dict[type, type[nn.Module]] = {
    VAE: VAELoss,
    EightSchools: EightSchoolsLoss,
    Logistic: LogisticLoss,
    Mixture: MixtureLoss,
    Topics: TopicsLoss,
    DeepMarkovModel: DeepMarkovLoss,
}


def by_hand(program: Program) -> nn.Module:
    """Return the module whose call with the batch is the program's loss."""
    return LOSSES[type(program)](program)
