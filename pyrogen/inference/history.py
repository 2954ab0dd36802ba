"""Draws of earlier steps, so that a critic does not forget what it has unlearned the programs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrogen.errors import ProgramError

__all__ = ["History"]


class History(nn.Module):
    r"""A buffer of earlier draws that are shown to a critic in the place of some of the latest.

    One draw after the other: while the buffer is not full, a draw is kept and returned. Then, with probability one
    half, a kept one at random is returned and the draw takes its place; else the draw itself is returned. All of a
    batch is done at once, with the same outcome as one after the other.

    Args:
        size: how many draws are kept; 0 for none, so that each draw is returned.
        shape: of a draw.

    Attributes:
        items: what is kept, shape ``(size, *shape)``.
        count: how many of these there are, shape ``()``.

    References:
        Learning from Simulated and Unsupervised Images through Adversarial Training (Shrivastava et al., 2017),
        https://arxiv.org/abs/1612.07828

    Example:
        >>> history = History(2, ())
        >>> history(torch.tensor([1.0, 2.0])), history.items  # kept, and returned
        (tensor([1., 2.]), tensor([1., 2.]))
        >>> bool((history(torch.tensor([3.0])) <= 3).all())  # 3, or 1 or 2 in its place
        True
    """

    items: Tensor
    count: Tensor

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        super().__init__()
        if size < 0:
            raise ValueError(f"a history's size must not be negative, found {size}")
        self.size, self.shape = size, tuple(shape)
        self.register_buffer("items", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, draws: Tensor) -> Tensor:
        """Keep some draws of shape ``(batch, *shape)``, and return draws in the same shape, without gradients.

        Raises:
            ProgramError: where draws have another shape.
        """
        draws = draws.detach()
        if tuple(draws.shape[1:]) != self.shape:
            raise ProgramError(
                f"the programs draw data of shape {tuple(draws.shape[1:])}, and the objective was made for data of "
                f"shape {self.shape}: give CycleGAN the shape of a datum"
            )
        if not self.size:
            return draws
        number = len(draws)
        is_old = torch.rand(number, device=draws.device) < 0.5
        return self.exchange(draws, is_old, torch.randint(self.size, (number,), device=draws.device))

    def exchange(self, draws: Tensor, is_old: Tensor, places: Tensor) -> Tensor:
        """Do what the random numbers say, one draw after the other.

        Args:
            draws: shape ``(batch, *shape)``.
            is_old: which of them are to be exchanged once the buffer is full, shape ``(batch,)``.
            places: for which of those that are kept, shape ``(batch,)``.
        """
        order = torch.arange(len(draws), device=draws.device)
        is_first = self.count + order < self.size
        places = torch.where(is_first, self.count + order, places)
        is_kept = is_first | is_old
        # A place may be taken twice within a batch: who comes later meets who came last before.
        before = (places[:, None] == places) & is_kept & (order < order[:, None])
        last = torch.where(before, order, -1).amax(1)
        found = torch.where(_as_rows(last >= 0, draws), draws[last.clamp(min=0)], self.items[places].to(draws.dtype))
        returned = torch.where(_as_rows(is_old & ~is_first, draws), found, draws)
        taken = (torch.arange(self.size, device=draws.device)[:, None] == places) & is_kept
        newest = torch.where(taken, order, -1).amax(1)
        kept = draws[newest.clamp(min=0)].to(self.items.dtype)
        self.items.copy_(torch.where(_as_rows(newest >= 0, kept), kept, self.items))
        self.count.copy_((self.count + len(draws)).clamp(max=self.size))
        return returned

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _as_rows(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *(1 for _ in like.shape[1:]))
