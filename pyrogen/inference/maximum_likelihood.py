"""Maximum likelihood for programs with an exact density."""

from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.inference.objective import Objective, PlateNesting
from pyrogen.sites import Program, is_latent, nothing
from pyrogen.traces import model_terms, total, trace_pair

__all__ = ["MaximumLikelihood"]


class MaximumLikelihood(Objective):
    r"""The negative log-likelihood of a program whose density is exact.

    .. math:: -\sum_n \log p_\theta(x_n) \quad \text{or} \quad -\sum_n \log p_\theta(y_n \mid x_n)

    The second is classification and regression: the arguments that no site observes are what is conditioned on. Sites
    marked ``infer={"enumerate": "parallel"}`` are summed out, so mixtures and hidden Markov models count as exact.

    Args:
        max_plate_nesting: how deep the program's plates nest; found by a rehearsal if not given.

    Raises:
        ProgramError: where the model has a latent site that is not enumerated, by name.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        ...         pyro.sample("x", dist.Normal(6.0 * k - 3.0, 1.0), obs=x)
        >>> MaximumLikelihood()(model, None, torch.tensor([0.0]))
        tensor(5.4189)
    """

    def __init__(self, max_plate_nesting: int | None = None) -> None:
        super().__init__()
        self.nesting = PlateNesting(max_plate_nesting)
        self.exact = Exact()

    def forward(self, model: Program, guide: Program | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative log-likelihood in nats, summed over the data and scaled by plates."""
        if guide is not None:
            raise ProgramError("MaximumLikelihood needs no guide: pass guide=None, or use ELBO or IWAE with the guide.")
        nesting = self.nesting(model, nothing, *args, **kwargs)
        traces = trace_pair(self.exact(model), nothing, args, kwargs, 1, nesting)
        return -total(model_terms(traces))


class Exact(Messenger):
    """Refuse a latent site that would have to be integrated out."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if is_latent(msg) and msg["infer"].get("enumerate") != "parallel":
            raise ProgramError(
                f"MaximumLikelihood needs an exact density, but site {msg['name']!r} is latent. Observe it with obs=, "
                f'enumerate it with infer={{"enumerate": "parallel"}} where it is discrete, or use ELBO with a guide.'
            )
