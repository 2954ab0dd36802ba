"""A policy whose noise is a function of the state, and the same one for some steps."""

from math import log

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrogen.distributions import TanhNormal
from pyrogen.errors import UsageError
from pyrogen.models.policy import Policy

__all__ = ["StateDependentExploration"]


class StateDependentExploration(Policy):
    r"""Generalised state-dependent exploration (gSDE): actions in a box, with noise that is linear in features.

    .. math::
        a = \tanh\left(\mu(s) + W^\top \phi(s)\right), \quad W_{ij} \sim \mathcal{N}(0, \sigma_{ij}^2)

    where acting keeps :math:`W` for several steps: in the same state the same is done, and a trajectory is smooth,
    where noise that is drawn at each step would cancel. Over draws of :math:`W`, and this is the density that is
    learned by,

    .. math::
        q(a \mid s) = \mathrm{TanhNormal}\left(a; \mu(s), \tau(s)^2\right), \quad
        \tau_j(s)^2 = \sum_i \sigma_{ij}^2 \phi_i(s)^2 + 10^{-6}

    with :math:`\mu(s) = c \tanh(b(s) / c)`, :math:`c = 2`, and :math:`b` linear in :math:`\phi`: where the tangent is
    flat, no noise gets through. No gradient flows from :math:`\tau` to :math:`\phi`. While acting, the 10⁻⁶ is left
    out. Noise that is kept is for objectives of transitions: the density of a trajectory is not the product of those of
    its actions, by which :class:`~pyrogen.inference.KLControl` and :class:`~pyrogen.inference.PPO` learn.

    Args:
        features: :math:`\phi`, from observations of shape ``(*batch, ...)`` to ``(*batch, num_features)``; with an
            activation at its end.
        num_features: how many there are.
        num_dims: the number of coordinates of an action.
        scale: what :math:`\sigma` begins with.
        num_environments: how many copies of an environment are acted in, each with a :math:`W` of its own.
        num_steps: for how many steps :math:`W` is kept.

    Attributes:
        noise: :math:`W / \sigma`, shape ``(num_environments, num_features, num_dims)``.
        age: for how many steps it has been kept, shape ``()``.

    Raises:
        UsageError: for settings out of range; where another number of environments is acted in.

    References:
        Smooth Exploration for Robotic Reinforcement Learning (Raffin et al., 2021), https://arxiv.org/abs/2005.05719

    Example:
        >>> features = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        >>> policy = StateDependentExploration(features, 8, 2, num_environments=3, num_steps=16)
        >>> policy(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 3, 2])
        >>> torch.equal(policy.act(torch.ones(3, 4)), policy.act(torch.ones(3, 4)))
        True
    """

    noise: Tensor
    age: Tensor

    def __init__(
        self,
        features: nn.Module,
        num_features: int,
        num_dims: int,
        *,
        scale: float = 0.05,
        num_environments: int = 1,
        num_steps: int = 64,
    ) -> None:
        super().__init__()
        numbers = {"num_features": num_features, "num_dims": num_dims, "num_environments": num_environments}
        for name, number in (numbers | {"num_steps": num_steps}).items():
            if number < 1:
                raise UsageError(f"{name} must be at least 1, found {number}")
        if not scale > 0:
            raise UsageError(f"scale must be above 0, found {scale}")
        self.features = features
        self.loc = nn.Linear(num_features, num_dims)
        self.log_scale = nn.Parameter(torch.full((num_features, num_dims), log(scale)))
        self.num_steps = num_steps
        self.register_buffer("noise", torch.zeros(num_environments, num_features, num_dims))
        self.register_buffer("age", torch.zeros((), dtype=torch.long))

    def distribution(self, observation: Tensor) -> TorchDistribution:
        phi = self.features(observation)
        variance = phi.detach().square() @ (2 * self.log_scale).exp() + 1e-6
        return TanhNormal(self._loc(phi), variance.sqrt()).to_event(1)

    @property
    def keeps_noise(self) -> bool:
        """Whether actions of a trajectory depend on one another, given the states: none is scored by itself then."""
        return self.num_steps > 1

    @torch.no_grad()
    def act(self, observation: Tensor) -> Tensor:
        """Act in each environment by the noise that is kept, and draw another where it is old enough.

        Args:
            observation: shape ``(num_environments, ...)``.

        Returns:
            Actions, shape ``(num_environments, num_dims)``, each of which has the density of :meth:`distribution`.
        """
        phi = self.features(observation)
        if len(phi) != len(self.noise):
            raise UsageError(
                f"the policy keeps noise for {len(self.noise)} environments, and acts in {len(phi)}: make it with "
                f"num_environments={len(phi)}"
            )
        is_due = self.age % self.num_steps == 0
        self.noise.copy_(torch.where(is_due, torch.randn_like(self.noise), self.noise))
        self.age.add_(1)
        u = self._loc(phi) + (phi.unsqueeze(-2) @ (self.log_scale.exp() * self.noise)).squeeze(-2)
        return TanhNormal(u, 1.0).mode

    def _loc(self, phi: Tensor) -> Tensor:
        return 2 * (self.loc(phi) / 2).tanh()
