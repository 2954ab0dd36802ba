"""VEEGAN: a reconstructor of latents, and a critic of pairs."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrogen.distributions import is_implicit
from pyrogen.errors import ProgramError
from pyrogen.inference.autoencoding import Autoencoder, Decode, checked_decode
from pyrogen.inference.gan import GAN
from pyrogen.inference.objective import Objective
from pyrogen.inference.penalties import Penalty
from pyrogen.inference.samples import Samples, Transform
from pyrogen.sites import Program, is_latent, sample_sites

__all__ = ["VEEGAN"]


class VEEGAN(Objective):
    r"""VEEGAN: a guide that brings data back to the latents that they were made of keeps the model from dropping modes.

    .. math::
        \mathbb{E}_{p(z) \, p_\gamma(x \mid z)}\left[D(z, x) + d(z, F_\theta(x))\right], \quad
        d = -\log q_\theta(z \mid x) \;\text{ or }\; \lVert z - F_\theta(x) \rVert^2

    summed over the data. The critic takes what the *model* made for its first class,

    .. math::
        -\mathbb{E}_{p(z) \, p_\gamma(x \mid z)} \log \sigma(D(z, x))
        - \mathbb{E}_{p^*(x) \, q_\theta(z \mid x)} \log(1 - \sigma(D(z, x)))

    so that :math:`D` estimates :math:`\log p_\gamma(x \mid z) p(z) - \log q_\theta(z \mid x) p^*(x)`, which the model
    lowers. The guide learns from :math:`d` alone, on data that the model makes; the critic sees it on real ones.

    Args:
        critic: called with latents, then data, then covariates; it returns a logit a row.
        distance: :math:`d`: ``"density"``, or ``"squared"`` of what the guide draws.
        weight: of :math:`d`.
        penalties: what is added to the critic's loss.
        decode: what stands for data that the model makes, ``"sample"`` or the ``"mean"`` of their distribution.
        covariates: names of the arguments to show to the critic; found by themselves if not given.
        transform: applied to data before the critic sees them.

    Raises:
        ProgramError: where sites do not pair, where one passes no gradient to its parameters, where the guide has no
            density and ``distance`` needs one, or where the model observes what is no argument of the guide.

    References:
        VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning (Srivastava et al., 2017),
        https://arxiv.org/abs/1705.07761

    Example:
        >>> VEEGAN(nn.Bilinear(2, 3, 1), distance="squared").distance
        'squared'
    """

    by_samples = True
    saturates = True

    def __init__(
        self,
        critic: nn.Module,
        distance: Literal["density", "squared"] = "density",
        weight: float = 1.0,
        penalties: Sequence[Penalty] = (),
        decode: Decode = "sample",
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        if distance not in ("density", "squared"):
            raise ValueError(f"distance must be 'density' or 'squared', found {distance!r}")
        if not weight > 0:
            raise ValueError(f"weight must be positive, found {weight}")
        self.game = GAN(critic, "reverse-kl", penalties)
        self.distance = distance
        self.weight = weight
        self.decode = checked_decode(decode)
        self.covariates = covariates
        self.transform = transform

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss, summed over the data."""
        run = Autoencoder(model, guide, args, kwargs, self.covariates, self.decode)
        generated, _, trace = run.generated()
        scores = self.game.scores(generated.seen(self.transform), generated.covariates)
        at_draws = run.guide_at(trace, redrawn=self.distance == "squared")
        return generated.scale * scores.sum() + self.weight * self._distance(trace, at_draws)

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critic's loss, with its penalties."""
        with torch.no_grad():
            samples = self._compared(model, guide, args, kwargs)
        return self.game.critic_loss_of(samples)

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the critic's logits of pairs that the model drew, and that the guide inferred."""
        return {"pairs": self.game.both(self._compared(model, guide, args, kwargs))}

    def monitored(self) -> dict[str, Tensor]:
        """Return what a GAN's critic keeps an eye on; what the model made counts as real."""
        return self.game.monitored()

    def _compared(
        self, model: Program, guide: Program | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Samples:
        """Return pairs of the model, which are the critic's first class, called real by a GAN, and of the guide."""
        run = Autoencoder(model, guide, args, kwargs, self.covariates, self.decode)
        generated, inferred, _ = run.generated()
        return Samples(generated.seen(self.transform), inferred.seen(self.transform), generated.covariates)

    def _distance(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """Return how far the guide's latents are from those that data were made of, scaled, in all."""
        sites = [site for site in sample_sites(guide_trace) if is_latent(site) and site["name"] in model_trace.nodes]
        if self.distance == "squared":
            squares = [
                site["scale"] * (site["value"] - model_trace.nodes[site["name"]]["value"]).square().sum()
                for site in sites
            ]
            return torch.stack(squares).sum()
        for site in sites:
            if is_implicit(site["fn"]):
                raise ProgramError(
                    f"site {site['name']!r} of the guide has no density to tell how far it is from the latents that "
                    f"data were made of: choose distance='squared'"
                )
        names = {site["name"] for site in sites}
        guide_trace.compute_log_prob(lambda name, _: name in names)
        return -torch.stack([site["log_prob"].sum() for site in sites]).sum()
