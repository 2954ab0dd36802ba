"""Milliseconds of a round of an adversarial game, the critic's step and the generator's, against torch by hand.

The games have the same networks, batches, losses and Adam; each player's step draws its own batch's noise. By hand, a
step is what a careful user of torch writes: fakes without gradients for the critic, ``zero_grad``, ``backward``, fused
Adam. torch.compile cannot take second derivatives, so games with a penalty have no such contestant. Contestants take
turns within a round, see ``rounds.py``; ratios are taken within a round. Time is the wall's. Before anything is timed,
the same seed must bring the same losses.

Run: ``python benchmarks/gan_step.py [--threads 1 2] [--rounds 11]``.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from statistics import median
from typing import NamedTuple

import torch
from report import header, table, versions, write
from rounds import ratio, take_turns
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam

from pyrogen.inference import GAN, R1, train
from pyrogen.models import Generator
from pyrogen.nn import MLP, DCGANCritic, DCGANGenerator
from pyrogen.spec import DataSpec


class Setting(NamedTuple):
    """A game: widths of fully connected networks, or channels of DCGAN's; R1's weight, zero for no penalty."""

    latent: int
    shape: tuple[int, ...]
    widths: tuple[int, ...]
    batch: int
    weight: float = 0.0

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Make a generator and a critic."""
        if len(self.shape) == 3:
            return DCGANGenerator(self.latent, self.shape, self.widths), DCGANCritic(self.shape, self.widths)
        [size] = self.shape
        return MLP(self.latent, size, self.widths, nn.ReLU), MLP(size, 1, self.widths, nn.ReLU)


GAMES = {
    "plane: 2-256-256-256-2, batch 256": Setting(2, (2,), (256, 256, 256), 256),
    "plane with R1": Setting(2, (2,), (256, 256, 256), 256, 0.1),
    "images: 64-256-256-784, batch 64": Setting(64, (784,), (256, 256), 64),
    "images with R1": Setting(64, (784,), (256, 256), 64, 0.1),
    "DCGAN 28 x 28, channels 64 and 128, batch 64": Setting(100, (1, 28, 28), (64, 128), 64),
    "DCGAN with R1": Setting(100, (1, 28, 28), (64, 128), 64, 0.1),
    "tiny: 2-16-2, batch 32": Setting(2, (2,), (16,), 32),
}
EAGER, COMPILED, HAND, HAND_COMPILED = "pyrogen", "pyrogen compiled", "torch by hand", "torch.compile by hand"
ORDER = (HAND, HAND_COMPILED, EAGER, COMPILED)


class Game:
    """Networks, data and optimisers of one contestant; equal seeds make equal games."""

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.generator, self.critic = setting.networks()
        self.x = torch.rand(setting.batch, *setting.shape)
        self.latent, self.weight = setting.latent, setting.weight

    @staticmethod
    def adam(parameters: Iterator[Tensor]) -> Adam:
        return Adam(parameters, lr=1e-4, betas=(0.5, 0.999), fused=True)


class Pyrogen(Game):
    """The game as a program and an objective."""

    def __init__(self, setting: Setting, compile: bool) -> None:
        super().__init__(setting)
        model = Generator(self.generator, DataSpec(tuple(self.x.shape[1:]), "real"), self.latent)
        objective = GAN(self.critic, penalties=[R1(self.weight)] if self.weight else [])
        self.training = train(
            objective, model, None, repeat((self.x,)), self.adam, self.adam, validate=False, compile=compile
        )

    def round(self) -> tuple[Tensor, Tensor]:
        step = next(self.training)
        assert step.critic_loss is not None
        return step.critic_loss, step.loss


class ByHand(Game):
    """The same in torch."""

    def __init__(self, setting: Setting, compile: bool) -> None:
        super().__init__(setting)
        self.of_critic, self.of_generator = self.adam(self.critic.parameters()), self.adam(self.generator.parameters())
        wrap: Callable[..., Callable[..., Tensor]] = torch.compile if compile else lambda f: f
        self.critic_loss, self.generator_loss = wrap(self._critic_loss), wrap(self._generator_loss)

    def _noise(self) -> Tensor:
        return torch.randn(len(self.x), self.latent)

    def _critic_loss(self) -> Tensor:
        with torch.no_grad():
            fake = self.generator(self._noise())
        real = self.x.requires_grad_() if self.weight else self.x
        score = self.critic(real)
        loss = softplus(-score).mean() + softplus(self.critic(fake)).mean()
        if self.weight:
            (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            loss = loss + self.weight / 2 * gradient.flatten(1).square().sum(1).mean()
        return loss

    def _generator_loss(self) -> Tensor:
        return softplus(-self.critic(self.generator(self._noise()))).mean()

    def round(self) -> tuple[Tensor, Tensor]:
        self.of_critic.zero_grad()
        critic_loss = self.critic_loss()
        critic_loss.backward(inputs=list(self.critic.parameters()))
        self.of_critic.step()
        self.of_generator.zero_grad()
        loss = self.generator_loss()
        loss.backward(inputs=list(self.generator.parameters()))
        self.of_generator.step()
        return critic_loss.detach(), loss.detach()


class Timed:
    def __init__(self, game: Pyrogen | ByHand) -> None:
        self.game = game

    def seconds(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self.game.round()
        return time.perf_counter() - start


def contestants(setting: Setting) -> dict[str, Pyrogen | ByHand]:
    found = {
        EAGER: Pyrogen(setting, compile=False),
        COMPILED: Pyrogen(setting, compile=True),
        HAND: ByHand(setting, compile=False),
    }
    return found if setting.weight else found | {HAND_COMPILED: ByHand(setting, compile=True)}


def check(games: dict[str, Pyrogen | ByHand]) -> None:
    """Refuse contestants that do not play the same game, for as long as rounding lets them be compared."""
    losses = {}
    for name, game in games.items():
        game.round()  # which a compiler may rehearse first
        torch.manual_seed(1)
        losses[name] = torch.stack([torch.stack(game.round()) for _ in range(5)])
    for name, found in losses.items():
        if not torch.allclose(found, losses[HAND], rtol=1e-2, atol=1e-3):
            raise SystemExit(f"{name} plays another game: {found.tolist()}, and by hand {losses[HAND].tolist()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    parts = [
        header("Time of a round of an adversarial game", "make bench-gan-step", options.threads[-1],
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        "A round is a step of the critic and one of the generator in the non-saturating game, by Adam. "
        "Milliseconds are medians of interleaved rounds; ratios are taken within a round: median (quartiles). By "
        "hand, the game is written in torch; torch.compile has no second derivatives, and so no R1. Goals: at most 1.1 "
        "of torch by hand without a compiler, at most 1.0 with one.",
    ]  # fmt: skip
    for threads in options.threads:
        torch.set_num_threads(threads)
        lines = []
        for name, setting in GAMES.items():
            games = contestants(setting)
            check(games)
            times = take_turns({name: Timed(game) for name, game in games.items()}, options.rounds)

            def against(mine: str, other: str, times: dict[str, list[float]] = times) -> str:
                if other not in times:
                    return "–"
                middle, low, high = ratio(times[mine], times[other])
                return f"{middle:.2f} ({low:.2f}–{high:.2f})"

            shown = [f"{median(times[who]):.3g}" if who in times else "–" for who in ORDER]
            pairs = [(EAGER, HAND), (COMPILED, HAND), (COMPILED, HAND_COMPILED)]
            lines.append([name, *shown, *(against(*pair) for pair in pairs)])
        head = ["game", "by hand: ms", "torch.compile: ms", "pyrogen: ms", "pyrogen compiled: ms", "eager / by hand",
                "compiled / by hand", "compiled / torch.compile"]  # fmt: skip
        parts += [f"## {threads} thread{'s' if threads > 1 else ''}", table(head, lines)]
    print(write("gan_step", *parts).read_text())


if __name__ == "__main__":
    main()
