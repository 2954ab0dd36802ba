"""The Wasserstein distance of data and draws by an independent critic."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam

from pyrogen.errors import DataError, ProgramError
from pyrogen.evaluation.checks import BLOCK, rows
from pyrogen.evaluation.estimate import Estimate
from pyrogen.nn import MLP

__all__ = ["critic_distance"]


def critic_distance(
    real: Tensor,
    fake: Tensor,
    critic: nn.Module | None = None,
    num_steps: int = 600,
    batch_size: int = 64,
    learning_rate: float = 5e-4,
    weight: float = 10.0,
) -> Estimate:
    r"""Estimate the Wasserstein distance by a critic that learns from half of data and draws, on the other halves.

    .. math::
        \mathbb{E}\, f(x) - \mathbb{E}\, f(\tilde x), \qquad
        f = \arg\max_f\ \mathbb{E}\, f(x) - \mathbb{E}\, f(\tilde x)
        - \lambda \, \mathbb{E}\left(\lVert \nabla f(\hat x) \rVert_2 - 1\right)^2

    with :math:`\hat x` between data and draws. The critic knows nothing of what a model learned by, so that models of
    any objective can be compared, by critics of one kind. The figure is zero on average where the distributions are
    equal. Memorised data are as good as others: give held-out data, and see :func:`data_copying`.

    A penalty is no constraint: where the best critic has one slope between all data and draws, its figure is
    :math:`W (1 + W / 2 \lambda)` for a distance :math:`W`. A critic that is too small, or learns for too short a time,
    gives less. The standard error is over the held-out halves, and not over critics.

    Args:
        real: shape ``(m, ...)``.
        fake: shape ``(n, ...)``.
        critic: a new network, which learns, of one score for each row in this shape; by default, one of two hidden
            layers of 256 for flattened rows. Data and draws are brought to its device and dtype.
        num_steps: of Adam.
        batch_size: rows of each sample in a step.
        learning_rate: of Adam, whose betas are .5 and .9.
        weight: :math:`\lambda`.

    Raises:
        DataError: where a sample has fewer than four rows.
        ProgramError: where the critic normalises over the batch, or has not one score for a row.

    References:
        Comparison of Maximum Likelihood and GAN-Based Training of Real NVPs (Danihelka et al., 2017),
        https://arxiv.org/abs/1705.05263

        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(2000, 2), torch.randn(2000, 2) + torch.tensor([1.0, 0.0])
        >>> found = critic_distance(x, y, nn.Linear(2, 1), learning_rate=3e-2)
        >>> abs(found.value - 1.05) < 4.5 * found.stderr
        True
    """
    rows(real, fake)
    samples = [torch.as_tensor(values) for values in (real, fake)]
    if min(map(len, samples)) < 4:
        raise DataError(f"the critic takes four data and four draws or more, found {[len(v) for v in samples]}")
    if critic is None:
        x = samples[0].flatten(1)
        critic = nn.Sequential(nn.Flatten(), MLP(x.shape[1], 1, (256, 256), nn.LeakyReLU)).to(x.device)
    _check(critic)
    first = next(critic.parameters())
    halves = [values[torch.randperm(len(values))].to(first.device, first.dtype).chunk(2) for values in samples]
    (x, held_x), (y, held_y) = halves
    optimizer = Adam(critic.parameters(), lr=learning_rate, betas=(0.5, 0.9))
    with torch.enable_grad():
        for _ in range(num_steps):
            a, b = (values[torch.randint(len(values), (batch_size,))] for values in (x, y))
            optimizer.zero_grad()
            loss = _scores(critic, b).mean() - _scores(critic, a).mean() + weight * _penalty(critic, a, b)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        of_x, of_y = (torch.cat([_scores(critic, part) for part in v.split(BLOCK)]).double() for v in (held_x, held_y))
    stderr = (of_x.var() / len(of_x) + of_y.var() / len(of_y)).sqrt()
    return Estimate(float(of_x.mean() - of_y.mean()), float(stderr), "distance")


def _penalty(critic: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    u = torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
    between = (u * x + (1 - u) * y).requires_grad_()
    [gradient] = torch.autograd.grad(_scores(critic, between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def _scores(critic: nn.Module, x: Tensor) -> Tensor:
    found = critic(x)
    if found.shape not in ((len(x),), (len(x), 1)):
        raise ProgramError(
            f"the critic returned shape {tuple(found.shape)} for {len(x)} rows, expected ({len(x)},) or ({len(x)}, 1)"
        )
    return found.reshape(-1)


def _check(critic: nn.Module) -> None:
    for name, module in critic.named_modules():
        if isinstance(module, _BatchNorm):
            raise ProgramError(
                f"the penalty bounds the gradient of each row's score, which batch normalisation (the critic's "
                f"{name!r}) mixes with the other rows: leave it out of the critic, or use LayerNorm"
            )
