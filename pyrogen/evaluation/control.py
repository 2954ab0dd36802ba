r"""Control as inference where everything can be counted: exact posteriors, exact bounds, and the policies of both.

A trajectory :math:`\tau = (s_0, a_0, s_1, \dots)` of a Markov decision process is drawn with actions of a prior policy,
and every step is *optimal* with a probability proportional to :math:`e^{r / \alpha}`. Two quantities are called its
soft value, and they are not the same where the next state is left to chance:

.. math::
    V^{\text{posterior}}(s) &= \log \mathbb{E}_{p(\tau \mid s)}\left[e^{\sum_t r_t / \alpha}\right], \quad
    & Q(s, a) &= \frac{r(s, a)}{\alpha} + \log \mathbb{E}_{p(s' \mid s, a)}\left[e^{V(s')}\right] \\
    V^{\text{variational}}(s) &= \max_q \mathbb{E}_{q(\tau \mid s)}\left[\sum_t \frac{r_t}{\alpha}
    - \log \frac{q(a_t \mid s_t)}{p(a_t \mid s_t)}\right], \quad
    & Q(s, a) &= \frac{r(s, a)}{\alpha} + \mathbb{E}_{p(s' \mid s, a)}\left[V(s')\right]

with :math:`V(s) = \log \mathbb{E}_{p(a \mid s)}[e^{Q(s, a)}]` in both. The first is the evidence, and its posterior
chooses the next state as well as the action: it hopes for luck. The second is the evidence's largest lower bound
among distributions whose dynamics are the true ones, which is what a policy can bring about. All values are in nats;
times the temperature :math:`\alpha`, they have the unit of rewards.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.evaluation.endless import Endless, relative
from pyrogen.mdp import MDP, check_distribution

__all__ = [
    "Smoothing",
    "SoftValues",
    "policy_values",
    "posterior_values",
    "smooth_trajectories",
    "variational_values",
]


class SoftValues(NamedTuple):
    r"""Soft values, and the policy that goes with them; with a horizon :math:`H`, a row for each time step.

    Attributes:
        values: :math:`V_t(s)` in nats, shape ``(H, S)``, or ``(S,)`` without a horizon.
        action_values: :math:`Q_t(s, a)` in nats, shape ``(H, S, A)``, or ``(S, A)``.
        policy: :math:`p(a \mid s) \, e^{Q_t(s, a) - V_t(s)}`, same shape.
    """

    values: Tensor
    action_values: Tensor
    policy: Tensor


Backup = Callable[[Tensor, Tensor], Tensor]
r"""What the values of next states, shape ``(S,)``, make of a state and action by transitions: shape ``(S, A)``."""


def posterior_values(
    mdp: MDP,
    prior: Tensor | None = None,
    *,
    temperature: float = 1.0,
    horizon: int | None = None,
    discount: float = 1.0,
) -> SoftValues:
    r"""Compute the log-evidence of optimality from each state, and the exact posterior over actions.

    .. math::
        Q(s, a) = \frac{r(s, a)}{\alpha} + \log\left(1 - \gamma + \gamma \sum_{s'} p(s' \mid s, a) \, e^{V(s')}\right),
        \quad V(s) = \log \sum_a p(a \mid s) \, e^{Q(s, a)}

    A discount is the probability that there is a next step at all. The policy is *not* one to act by: where
    :math:`\alpha` is small, it takes the action with the best next state, however improbable that is.

    Args:
        mdp: the decision process.
        prior: :math:`p(a \mid s)`, shape ``(S, A)``, or ``(horizon, S, A)``; uniform if not given.
        temperature: :math:`\alpha`, in the unit of rewards; may be infinite, where rewards say nothing.
        horizon: how many steps there are; without, they go on forever, and the discount must be below one.
        discount: :math:`\gamma`.

    Returns:
        Values, action values and the posterior :math:`p(a_t \mid s_t, \text{optimal from } t \text{ on})`.

    Raises:
        UsageError: for a prior that is no distribution, or settings out of range.
        NonFiniteError: where the evidence of endless trajectories is infinite.

    References:
        Reinforcement Learning and Control as Probabilistic Inference (Levine, 2018), https://arxiv.org/abs/1805.00909

    Example:
        >>> risky = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], [[0.0, 1.0, 0.0]] * 2, [[0.0, 0.0, 1.0]] * 2])
        >>> mdp = MDP(risky, torch.tensor([[0.0, 0.0], [4.0, 4.0], [-4.0, -4.0]]))
        >>> posterior_values(mdp, horizon=2).policy[0, 0]  # the second action may bring 4, or cost 4
        tensor([0.0353, 0.9647])
        >>> variational_values(mdp, horizon=2).policy[0, 0]
        tensor([0.5000, 0.5000])
    """
    check_soft_values(temperature, horizon, discount)

    def backup(V: Tensor, transitions: Tensor) -> Tensor:
        optimal = (transitions.log() + V).logsumexp(-1)
        if discount == 1.0:
            return optimal
        goes_on = optimal.new_tensor(discount)
        return torch.logaddexp(goes_on.log() + optimal, torch.log1p(-goes_on))

    if horizon is None:
        endless = _endless(mdp, prior, temperature, discount)
        return _looked_ahead(mdp, endless, endless.evidence(), backup)
    return _iterated(mdp, prior, backup, temperature, horizon)


def variational_values(
    mdp: MDP,
    prior: Tensor | None = None,
    *,
    temperature: float = 1.0,
    horizon: int | None = None,
    discount: float = 1.0,
) -> SoftValues:
    r"""Compute the largest ELBO from each state that a policy can reach under the true dynamics, and that policy.

    .. math::
        Q(s, a) = \frac{r(s, a)}{\alpha} + \gamma \sum_{s'} p(s' \mid s, a) \, V(s'),
        \quad V(s) = \log \sum_a p(a \mid s) \, e^{Q(s, a)}

    This is what KL control, or maximum-entropy reinforcement learning where the prior is uniform, finds. Where
    :math:`\alpha` goes to zero, it is the optimal policy, and :math:`\alpha V` its return.

    Args:
        mdp: the decision process.
        prior: :math:`p(a \mid s)`, shape ``(S, A)``, or ``(horizon, S, A)``; uniform if not given.
        temperature: :math:`\alpha`, in the unit of rewards; may be infinite, where rewards say nothing.
        horizon: how many steps there are; without, they go on forever, and the discount must be below one.
        discount: :math:`\gamma`, the probability that there is a next step at all.

    Returns:
        Values, action values and the policy :math:`q(a_t \mid s_t)`.

    Raises:
        UsageError: for a prior that is no distribution, or settings out of range.

    References:
        Reinforcement Learning and Control as Probabilistic Inference (Levine, 2018), https://arxiv.org/abs/1805.00909

    Example:
        >>> mdp = MDP(torch.ones(1, 2, 1), torch.tensor([[0.0, 1.0]]))
        >>> variational_values(mdp, temperature=0.5, horizon=3).policy[0]  # softmax of 0 and 2
        tensor([[0.1192, 0.8808]])
    """

    check_soft_values(temperature, horizon, discount)

    def backup(V: Tensor, transitions: Tensor) -> Tensor:
        return discount * (transitions @ V)

    if horizon is None:
        endless = _endless(mdp, prior, temperature, discount)
        return _looked_ahead(mdp, endless, endless.best(), backup)
    return _iterated(mdp, prior, backup, temperature, horizon)


def policy_values(
    mdp: MDP,
    policy: Tensor,
    prior: Tensor | None = None,
    *,
    temperature: float = 1.0,
    horizon: int | None = None,
    discount: float = 1.0,
) -> Tensor:
    r"""Compute the ELBO of a policy from each state, exactly.

    .. math::
        V^q(s) = \sum_a q(a \mid s) \left(\frac{r(s, a)}{\alpha} - \log \frac{q(a \mid s)}{p(a \mid s)}
        + \gamma \sum_{s'} p(s' \mid s, a) \, V^q(s')\right)

    At most :func:`variational_values`, which are at most :func:`posterior_values`. With an infinite temperature it is
    minus the divergence from the prior alone.

    Args:
        mdp: the decision process.
        policy: :math:`q(a \mid s)`, shape ``(S, A)``, or ``(horizon, S, A)``.
        prior: :math:`p(a \mid s)`, likewise; uniform if not given.
        temperature: :math:`\alpha`, in the unit of rewards.
        horizon: how many steps there are; without, they go on forever, and the discount must be below one.
        discount: :math:`\gamma`.

    Returns:
        :math:`V^q_t(s)` in nats, shape ``(horizon, S)``, or ``(S,)`` without a horizon; differentiable in the policy,
        but for the divergence of an action that is never taken, which has an infinite slope there and none here.

    Raises:
        UsageError: for a policy or prior that is no distribution, a policy that does what the prior excludes, or
            settings out of range.

    Example:
        >>> mdp = MDP(torch.ones(1, 2, 1), torch.tensor([[0.0, 1.0]]))
        >>> policy_values(mdp, torch.tensor([[0.5, 0.5]]), horizon=3)
        tensor([[1.5000],
                [1.0000],
                [0.5000]])
    """
    check_soft_values(temperature, horizon, discount)
    log_prior = _distribution("prior", mdp, prior, horizon).log()
    q = _distribution("policy", mdp, policy, horizon)
    excluded = ((q > 0) & log_prior.isneginf()).nonzero()
    if len(excluded):
        *_, state, action = excluded[0].tolist()
        raise UsageError(
            f"the policy takes action {action} in state {state}, which the prior excludes: its ELBO is minus infinity"
        )
    if horizon is None:
        return _endless(mdp, prior, temperature, discount).value(q[0]).to(mdp.rewards.dtype)
    gained = (q * mdp.rewards / temperature - relative(q, log_prior)).sum(-1)
    moved = torch.einsum("...sa,sat->...st", q, mdp.transitions)
    values = [torch.zeros_like(gained[0])]
    for t in reversed(range(horizon)):
        values.append(gained[t] + discount * (moved[t] @ values[-1]))
    return torch.stack(values[:0:-1])


class Smoothing(NamedTuple):
    r"""The posterior over trajectories, given that all their steps are optimal.

    Attributes:
        log_evidence: :math:`\log \mathbb{E}_{p(\tau)}[e^{\sum_t r_t / \alpha}]` in nats, shape ``()``.
        states: :math:`p(s_t \mid \text{optimal})`, shape ``(horizon + 1, S)``; the last row is of where it ends.
        actions: :math:`p(s_t, a_t \mid \text{optimal})`, shape ``(horizon, S, A)``.
    """

    log_evidence: Tensor
    states: Tensor
    actions: Tensor


def smooth_trajectories(
    mdp: MDP, start: Tensor, prior: Tensor | None = None, *, temperature: float = 1.0, horizon: int
) -> Smoothing:
    r"""Pass messages forwards and backwards in time, for the exact posterior over trajectories.

    .. math::
        p(s_t, a_t \mid \text{optimal}) &\propto f_t(s_t) \, p(a_t \mid s_t) \, e^{Q_t(s_t, a_t)} \\
        f_{t+1}(s') &= \sum_{s, a} f_t(s) \, p(a \mid s) \, e^{r(s, a) / \alpha} \, p(s' \mid s, a), \quad
        f_0 = p(s_0)

    with backward messages :math:`e^{Q_t}` of :func:`posterior_values`. In the posterior the next state is not drawn
    from :math:`p(s' \mid s, a)` but from a distribution that leans towards states from which much can be had.

    Args:
        mdp: the decision process.
        start: :math:`p(s_0)`, shape ``(S,)``.
        prior: :math:`p(a \mid s)`, shape ``(S, A)``, or ``(horizon, S, A)``; uniform if not given.
        temperature: :math:`\alpha`, in the unit of rewards.
        horizon: how many steps there are.

    Returns:
        The log-evidence, and the marginals of states and actions.

    Raises:
        UsageError: for a start or prior that is no distribution, or settings out of range.

    Example:
        >>> mdp = MDP(torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]]), torch.tensor([[0.0], [1.0]]))
        >>> smooth_trajectories(mdp, torch.tensor([1.0, 0.0]), horizon=2).states
        tensor([[1.0000, 0.0000],
                [0.2689, 0.7311],
                [0.1345, 0.8655]])
    """
    check_soft_values(temperature, horizon, 1.0)
    if tuple(start.shape) != (mdp.num_states,):
        raise UsageError(f"start must have shape ({mdp.num_states},), one for each state; found {tuple(start.shape)}")
    check_distribution("start", start)
    log_prior = _distribution("prior", mdp, prior, horizon).log()
    backward = posterior_values(mdp, prior, temperature=temperature, horizon=horizon).action_values
    log_transitions = mdp.transitions.log()
    forward = start.log()
    log_evidence = (forward[:, None] + log_prior[0] + backward[0]).logsumexp((0, 1))
    states, actions = [], []
    for t in range(horizon):
        both = forward[:, None] + log_prior[t]
        actions.append((both + backward[t] - log_evidence).exp())
        states.append(actions[-1].sum(1))
        moved = (both + mdp.rewards / temperature).unsqueeze(-1) + log_transitions
        forward = moved.logsumexp((0, 1))
    states.append((forward - log_evidence).exp())
    return Smoothing(log_evidence, torch.stack(states), torch.stack(actions))


def _iterated(mdp: MDP, prior: Tensor | None, backup: Backup, temperature: float, horizon: int) -> SoftValues:
    """Go backwards in time from values of zero."""
    log_prior = _distribution("prior", mdp, prior, horizon).log()
    reward = mdp.rewards / temperature
    V = torch.zeros_like(reward[:, 0])
    values, action_values = [], []
    for t in reversed(range(horizon)):
        Q = reward + backup(V, mdp.transitions)
        V = (log_prior[t] + Q).logsumexp(-1)
        values.append(V)
        action_values.append(Q)
    Q = torch.stack(action_values[::-1])
    return SoftValues(torch.stack(values[::-1]), Q, (log_prior + Q).softmax(-1))


def _endless(mdp: MDP, prior: Tensor | None, temperature: float, discount: float) -> Endless:
    return Endless(mdp, _distribution("prior", mdp, prior, None)[0], temperature, discount)


def _looked_ahead(mdp: MDP, endless: Endless, V: Tensor, backup: Backup) -> SoftValues:
    """Go back one step from solved values, and return all in the precision of the rewards."""
    Q = endless.rewards + backup(V, endless.transitions)
    policy = (endless.log_prior + Q).softmax(-1)
    return SoftValues(*(found.to(mdp.rewards.dtype) for found in (V, Q, policy)))


def _distribution(name: str, mdp: MDP, given: Tensor | None, horizon: int | None) -> Tensor:
    """Return probabilities of actions, shape ``(horizon, S, A)``; of one row without a horizon."""
    if given is None:
        given = torch.full_like(mdp.rewards, 1 / mdp.num_actions)
    shape = (mdp.num_states, mdp.num_actions)
    timed = None if horizon is None else (horizon, *shape)
    if tuple(given.shape) not in (shape, timed):
        raise UsageError(
            f"{name} must have shape {shape}{'' if timed is None else f' or {timed}'}, found {tuple(given.shape)}"
        )
    check_distribution(name, given)
    return given.expand(horizon or 1, *shape)


def check_soft_values(temperature: float, horizon: int | None, discount: float) -> None:
    """Refuse settings that no soft values go with.

    Raises:
        UsageError: that names the first.
    """
    if not temperature > 0:
        raise UsageError(f"temperature must be above 0, found {temperature}")
    if not 0 <= discount <= 1:
        raise UsageError(f"discount must be between 0 and 1, found {discount}")
    if horizon is None and discount == 1:
        raise UsageError("without a horizon, values of endless trajectories need a discount below 1")
    if horizon is not None and horizon < 1:
        raise UsageError(f"horizon must be at least 1, found {horizon}")
