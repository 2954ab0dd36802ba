"""Moment matching: distances between the mean embeddings of samples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.discrepancy import RBF, Kernel, mmd2, squared_distances
from pyrogen.inference.adversarial import Adversarial
from pyrogen.inference.distance import Distance, Features, flat
from pyrogen.inference.penalties import Penalty
from pyrogen.inference.samples import Transform
from pyrogen.sites import Program

__all__ = ["MMD", "MMDGAN"]


class MMD(Distance):
    r"""The squared maximum mean discrepancy between data and draws. There is no critic.

    .. math:: \mathrm{MMD}^2 = \mathbb{E} \, k(x, x') - 2 \, \mathbb{E} \, k(x, y) + \mathbb{E} \, k(y, y'),
        \quad x, x' \sim p^*, \; y, y' \sim p_\theta

    The unbiased estimate leaves pairs of a sample with itself out, and may be negative; the biased one is the squared
    distance of the samples themselves, and is above zero even where the distributions are equal.

    Several observed sites and covariates are compared together, laid side by side.

    Args:
        kernel: a sum of kernels; by default RBF with the median heuristic.
        unbiased: which estimate.
        features: what is compared instead of the values themselves: a function of the sites' values and covariates.
        covariates: names of the arguments that data are conditioned on; found by themselves if not given.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html

        Generative Moment Matching Networks (Li et al., 2015), https://arxiv.org/abs/1502.02761

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(1.0, 1.0), obs=x)
        >>> pyro.set_rng_seed(0)
        >>> round(float(MMD(RBF([1.0]))(model, None, torch.randn(4000))), 2)  # in closed form .177
        0.18
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        unbiased: bool = True,
        features: Features | None = None,
        covariates: Sequence[str] | None = None,
    ) -> None:
        super().__init__(features, covariates)
        self.kernel = kernel or RBF()
        self.unbiased = unbiased

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return mmd2(x, y, self.kernel, self.unbiased)


class MMDGAN(Adversarial):
    r"""The maximum mean discrepancy in features that a critic learns, so that they tell data from draws.

    .. math:: \min_\theta \max_\phi \mathrm{MMD}^2\left(\phi(x), \phi(y)\right), \quad x \sim p^*, \; y \sim p_\theta

    Penalties apply to the witness function, whose mean difference the discrepancy is:
    :math:`w(t) = \mathbb{E} \, k(\phi(t), \phi(x)) - \mathbb{E} \, k(\phi(t), \phi(y))`.

    Args:
        critic: from the values of the observed sites (and covariates) to features, shape ``(batch, features)``.
        kernel: on features; by default RBF of bandwidths 1, 2, 4, 8 and 16.
        penalties: what is added to the critic's loss.
        covariates: names of the arguments that the critic sees besides; found by themselves if not given.
        transform: applied to each site's values before critic and penalties see them.

    References:
        MMD GAN: Towards Deeper Understanding of Moment Matching Network (Li et al., 2017),
        https://arxiv.org/abs/1705.08584

        Demystifying MMD GANs (Bińkowski et al., 2018), https://arxiv.org/abs/1801.01401
    """

    def __init__(
        self,
        critic: nn.Module,
        kernel: Kernel | None = None,
        penalties: Sequence[Penalty] = (),
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(critic, penalties, covariates, transform)
        self.kernel = kernel or RBF([1.0, 2.0, 4.0, 8.0, 16.0])

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the squared discrepancy of the features."""
        return mmd2(*flat(self.samples(model, args, kwargs), self.critic), self.kernel)

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return minus the squared discrepancy, with the penalties."""
        with torch.no_grad():
            samples = self.samples(model, args, kwargs)
        x, y = flat(samples, self.critic)
        at = self.kernel.of(x)

        def witness(values: Sequence[Tensor]) -> Tensor:
            t = self.critic(*values, *samples.covariates).flatten(1)
            to_real, to_fake = (at(squared_distances(t, other)) for other in (x, y))
            return to_real.mean(1) - to_fake.mean(1)

        return self.penalty(witness, samples) - mmd2(x, y, self.kernel)
