"""Markov decision processes whose states and actions can be counted."""

from dataclasses import dataclass

from torch import Tensor

from pyrogen.errors import UsageError

__all__ = ["MDP"]


@dataclass(frozen=True, eq=False)
class MDP:
    r"""A Markov decision process of :math:`S` states and :math:`A` actions, all of whose numbers are known.

    Attributes:
        transitions: :math:`p(s' \mid s, a)`, shape ``(S, A, S)``; it sums to one over the last dimension.
        rewards: :math:`r(s, a)`, shape ``(S, A)``.

    Raises:
        UsageError: where shapes, types or devices do not fit, a probability is negative, a row does not sum to one, or
            a reward is not finite.

    Example:
        >>> import torch
        >>> mdp = MDP(torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.0, 1.0], [1.0, 0.0]]]), torch.zeros(2, 2))
        >>> mdp.num_states, mdp.num_actions
        (2, 2)
    """

    transitions: Tensor
    rewards: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.transitions.shape)
        if len(shape) != 3 or shape[0] != shape[2] or tuple(self.rewards.shape) != shape[:2]:
            raise UsageError(
                f"expected transitions of shape (states, actions, states) and rewards of shape (states, actions), "
                f"found {shape} and {tuple(self.rewards.shape)}"
            )
        kinds = [(tensor.dtype, tensor.device) for tensor in (self.transitions, self.rewards)]
        if kinds[0] != kinds[1] or not self.rewards.is_floating_point():
            raise UsageError(
                f"expected transitions and rewards of one floating-point type on one device, found "
                f"{' and '.join(f'{dtype} on {device}' for dtype, device in kinds)}: write rewards.to(transitions)"
            )
        if not self.rewards.isfinite().all():
            raise UsageError("a reward is not finite: a state that must be avoided has a large negative one")
        check_distribution("transitions", self.transitions)

    @property
    def num_states(self) -> int:
        """How many states there are."""
        return len(self.rewards)

    @property
    def num_actions(self) -> int:
        """How many actions there are."""
        return self.rewards.shape[1]


def check_distribution(name: str, probabilities: Tensor) -> None:
    """Refuse what is no distribution over the last dimension.

    Raises:
        UsageError: that names the first row.
    """
    is_off = (probabilities.sum(-1) - 1).abs() > 1e-5
    wrong = ((probabilities < 0).any(-1) | is_off | ~probabilities.isfinite().all(-1)).nonzero()
    if len(wrong):
        row = tuple(wrong[0].tolist())
        raise UsageError(
            f"{name}[{', '.join(map(str, row))}] is {probabilities[row].tolist()}, expected probabilities that sum to "
            f"one: divide by the sum over the last dimension"
        )
